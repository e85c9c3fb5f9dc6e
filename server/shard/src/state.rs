//! Connections: what one has sent and not been answered, in order. Bytes come and go through [`crate::net`].

pub mod session;
pub mod users;

pub use session::{Session, State};
