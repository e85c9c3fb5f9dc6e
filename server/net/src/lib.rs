//! The one door to the kernel: listening, receiving, sending and waking for one core, and TLS over that.
//!
//! ```text
//! driver       trait Driver: what a shard asks of the kernel, and the events it gets
//! uring, epoll the two drivers; buffer_ring and uring/ are parts of the first
//! granted      what the kernel grants of io_uring
//! outbox       bytes of one connection that its socket has not taken yet
//! listen       listening sockets, and the limit of connections
//! endpoints    what a server listens on, as configuration names it
//! tls          a driver over a driver: certificates, trust, handshakes
//! watch_files  a message when a file may have changed
//! ```
//!
//! Nothing here knows a command, a key or a store; values lent by a store pass through as [`Pinned`].

mod buffer_ring;
mod driver;
pub mod endpoints;
pub mod epoll;
pub mod granted;
pub mod listen;
pub mod outbox;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod uring;
pub mod watch_files;

pub use driver::{Buffer, Close, ConnId, Driver, DriverSetup, Event, Pinned, Send, Wait, Waker};
pub use uring::UringDriver;
