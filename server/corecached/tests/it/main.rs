//! The server as its clients and operators meet it: the real binary, over real sockets, next to a real memcached.
//!
//! Every test starts the servers it needs on free ports of the loopback interface and ends them, so that all of them
//! may run at once. What is waited for is polled with a deadline.

mod support;

mod admin;
mod attribution;
mod auth;
mod backend;
mod binary;
mod command_line;
mod connections;
mod differential;
mod documented;
mod discovery;
mod dumps;
mod expiry;
mod large_values;
mod memory;
mod pipelining;
mod proxy;
mod proxy_routes;
mod proxy_tls;
mod shutdown;
mod stats;
mod tails;
mod tls;
mod transcripts;
mod udp;
mod warm;
mod warm_resize;
mod watch;
