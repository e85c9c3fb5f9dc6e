//! Integration tests, most of them against a small server in this process that can be told to be faulty.

mod compares;
mod fake_server;
mod faults;
mod replays;
mod runs;
