//! The listening sockets of a server, and the limits of its connections.

use std::sync::Arc;

use corecached_net::endpoints::ListenerProtocol;
use corecached_net::listen::Admission;

/// Listening sockets, limits of connections, and the backend for the network.
#[derive(Debug)]
pub struct Network {
    /// Counts connections over all shards against their limit.
    pub admission: Arc<Admission>,
    /// The protocol and TLS usage of each listening socket.
    pub listeners: Box<[ListenerProtocol]>,
    /// The address of each listening socket, as `stats conns` shows it.
    pub addresses: Box<[String]>,
    /// The backend for the network, `io_uring` or `epoll`, and why it is not the other one. `stats` shows it.
    pub backend: String,
    /// Seconds after which an idle connection is closed. 0 is never.
    pub idle_timeout_s: u32,
}
