//! Integration tests, most of them against a small server in this process that can be told to be faulty.

#![allow(unreachable_pub, reason = "a test binary has no face")]

mod compares;
mod fake_server;
mod faults;
mod replays;
mod runs;
