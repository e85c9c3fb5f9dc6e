//! Runs against a small server in this process, which can be told to go wrong.

mod compares;
mod fake_server;
mod faults;
mod replays;
mod runs;
