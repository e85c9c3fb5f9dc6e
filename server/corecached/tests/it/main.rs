//! Tests of the binary over real sockets, as its clients and operators use it, in comparison with a real
//! memcached.
//!
//! Every test starts the servers that it needs on free ports of the loopback interface and ends them, so that
//! all tests may run at once. Whatever a test waits for is polled with a deadline.

#![allow(unreachable_pub, reason = "a test binary has no face")]

mod support;

mod admin;
mod attribution;
mod auth;
mod backend;
mod binary;
mod command_line;
mod config_files;
mod connections;
mod differential;
mod discovery;
mod documented;
mod dumps;
mod expiry;
mod large_values;
mod memory;
mod pipelining;
mod proxy;
mod proxy_admin;
mod proxy_binary;
mod proxy_routes;
mod proxy_tls;
mod shutdown;
mod stats;
mod tails;
mod tls;
mod tls_files;
mod transcripts;
mod udp;
mod warm;
mod warm_resize;
mod watch;
