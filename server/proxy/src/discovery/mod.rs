//! The addresses of servers, and the members of pools whose names stand for several servers. Used by the
//! control thread only.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`found`] | members and addresses, in a form that the rest of the proxy uses |
//! | [`finders`] | the threads below, for the control thread |
//! | [`dns`] | names, looked up by DNS |
//! | [`lookups`] | the thread that does so |
//! | [`slices`] | the endpoints of a Kubernetes Service, reported by its cluster |

mod dns;
mod finders;
mod found;
mod lookups;
mod slices;

pub(crate) use dns::Dns;
pub(crate) use finders::Finders;
pub use found::Found;
pub(crate) use slices::ACCOUNT;
