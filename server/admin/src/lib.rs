//! HTTP for operators, on a thread of its own: metrics for Prometheus, health and readiness for probes, and a
//! page for people. It reads what a server shares ([`AdminView`]) and never touches a shard.

#![forbid(unsafe_code)]

mod heartbeats;
mod html;
mod http;
mod page;
mod view;

pub use http::Admin;
pub use view::{AdminView, Role};
