//! The model, for a store with both kinds of index at once.

pub(super) type Store = crate::Store<super::Twin>;

#[allow(clippy::duplicate_mod)] // the same model, for another kind of store
#[path = "../model.rs"]
pub(super) mod model;
