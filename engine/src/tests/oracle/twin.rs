//! The model, of a store whose index is both kinds at once.

pub(super) type Store = crate::Store<super::Twin>;

#[allow(clippy::duplicate_mod)] // the same model, of another kind of store
#[path = "../model.rs"]
pub(super) mod model;
