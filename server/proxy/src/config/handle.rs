//! What all route handles have in common, and the name by which the files here know the list of them.

use corecached_protocol::ErrorKind;

use crate::hash::{Distribution, KeyPart};

/// The index of a handle in `Config::handles`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandleId(pub u32);

/// The index of a pool in [`super::Config::pools`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolId(pub u32);

/// The enum that the list of handles, `route/handles/mod.rs`, makes of them. The list implements this for
/// [`Handles`], so that the files here can hold handles without importing one, and without being generic.
pub(crate) trait HandleSet {
    /// One handle, as parsed.
    type Handle: Clone + std::fmt::Debug;
}

/// The list of all handles implements [`HandleSet`] for it.
#[derive(Debug)]
pub(crate) struct Handles;

/// A route handle, as parsed.
pub(crate) type Handle = <Handles as HandleSet>::Handle;

/// One of a handle's children as written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Child {
    /// A handle.
    Handle(HandleId),
    /// `"Pool|A"`: every destination of the pool, each a child of its own.
    PoolMembers(PoolId),
}

/// The pool that a handle sends to, and how keys are laid out over it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolUse<'a> {
    pub pool: PoolId,
    pub hash: &'a Hash,
    /// Copies of each key.
    pub replicas: u32,
}

/// How keys are laid out over children.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hash {
    /// The scheme.
    pub distribution: Distribution,
    /// What of the key is hashed.
    pub key_part: KeyPart,
    /// Hashed after it.
    pub salt: String,
    /// One for each child; empty for those of the pool, if there is one.
    pub weights: Vec<f64>,
    /// One for each child; empty for those of the pool, if there is one.
    pub tags: Vec<String>,
}

/// Which errors make a failover go on, by class of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FailoverErrors {
    /// For retrievals.
    pub gets: ErrorSet,
    /// For commands that store, count or touch.
    pub updates: ErrorSet,
    /// For deletes.
    pub deletes: ErrorSet,
}

/// A set of [`ErrorKind`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ErrorSet(u16);

impl ErrorSet {
    /// No error.
    pub(crate) const EMPTY: Self = Self(0);
    /// mcrouter's default: all but a bad key and what the client did wrong.
    pub(crate) const DEFAULT: Self = Self::EMPTY
        .with(ErrorKind::Busy)
        .with(ErrorKind::Timeout)
        .with(ErrorKind::ConnectTimeout)
        .with(ErrorKind::Connect)
        .with(ErrorKind::Ejected)
        .with(ErrorKind::Shutdown)
        .with(ErrorKind::TryAgain)
        .with(ErrorKind::Remote)
        .with(ErrorKind::Local);

    /// This set and `kind`.
    #[must_use]
    pub(crate) const fn with(self, kind: ErrorKind) -> Self {
        Self(self.0 | 1 << kind as u16)
    }

    /// Whether `kind` is in it.
    #[must_use]
    pub(crate) const fn has(self, kind: ErrorKind) -> bool {
        self.0 & 1 << kind as u16 != 0
    }
}

impl Default for FailoverErrors {
    fn default() -> Self {
        Self { gets: ErrorSet::DEFAULT, updates: ErrorSet::DEFAULT, deletes: ErrorSet::DEFAULT }
    }
}

/// What bounds a token bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limit {
    /// Tokens a second; of a failover, tokens a request, from 0 to 1.
    pub rate: f64,
    /// Tokens it holds at most.
    pub burst: f64,
}
