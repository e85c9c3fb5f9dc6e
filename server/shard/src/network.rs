//! What a server's shards know of its listening sockets and of who may connect.

use std::sync::Arc;

use corecached_net::endpoints::Serves;
use corecached_net::listen::Admission;

/// Listening sockets, limits of connections, and how the network is reached.
#[derive(Debug)]
pub struct Network {
    /// Counts connections over all shards against their limit.
    pub admission: Arc<Admission>,
    /// What is spoken on each listening socket.
    pub listeners: Box<[Serves]>,
    /// The address of each listening socket, as `stats conns` shows it.
    pub addresses: Box<[String]>,
    /// How the network is reached, and why not otherwise, as `stats` shows it.
    pub backend: String,
    /// Seconds after which a connection that says nothing is closed; 0 is never.
    pub idle_timeout_s: u32,
}
