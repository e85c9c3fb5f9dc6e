//! What is measured, by time ([`micro`](../micro.rs)) and by instructions ([`instructions`](../instructions.rs)).

mod engine;
mod protocol;
mod server;

/// One function under measurement.
pub struct Case {
    /// `crate/what`.
    pub name: &'static str,
    /// Operations in one call: figures are for one of them.
    pub operations: u64,
    /// Sets everything up and returns the call.
    pub prepare: fn() -> Box<dyn FnMut()>,
}

/// All of them.
pub fn all() -> Vec<Case> {
    [protocol::CASES, engine::CASES, server::CASES]
        .into_iter()
        .flatten()
        .map(|case| Case { ..*case })
        .collect()
}
