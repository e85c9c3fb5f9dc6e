//! The measured functions. [`micro`](../micro.rs) measures their time, [`instructions`](../instructions.rs)
//! counts their instructions.

mod engine;
mod protocol;
mod server;

/// A measured function.
pub struct Case {
    /// Name, as `crate/what`.
    pub name: &'static str,
    /// Number of operations in one call; figures are for one operation.
    pub operations: u64,
    /// Sets everything up and returns the call.
    pub prepare: fn() -> Box<dyn FnMut()>,
}

/// Returns all cases.
pub fn all() -> Vec<Case> {
    [protocol::CASES, engine::CASES, server::CASES]
        .into_iter()
        .flatten()
        .map(|case| Case { ..*case })
        .collect()
}
