//! The figures the engine is held to: memory, hit ratios, speed, stalls, expiry.
//!
//! ```text
//! cargo run --release -p corecached-engine --example figures -- fill 256
//! ... sizes                                  bytes over payload at 1 to 4 million items
//! ... trace FILE MIB,MIB,.. [COPIES]         miss ratio of a CTR1 trace, all memory counted
//! ... units FILE PERCENT,PERCENT,.. [COPIES] the same with equal items, limits in percent of the objects
//! ... shift                                  100-byte values, then 1000-byte ones, in 64 MiB
//! ... ram ITEMS                              gets and sets in batches of 16, against a map of boxes
//! ... stalls MIB                             longest slices of a store that does everything at once
//! ... expiry                                 how soon the memory of expired items is free
//! ```
//!
//! Times are CPU seconds of this thread. Only ratios taken in one run mean anything.

#![allow(unreachable_pub, reason = "an example has no face")]

mod expiry;
mod memory;
mod ram;
mod stalls;
mod support;
mod trace;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let list = |text: &str| -> Vec<usize> { text.split(',').map(|n| n.parse().expect("a number")).collect() };
    match arguments[..] {
        ["fill", mib] => list(mib).into_iter().for_each(memory::fill),
        ["sizes"] => memory::sizes(),
        ["shift"] => memory::shift(),
        ["trace", file, mib] => trace::bytes(file, &list(mib), 1),
        ["trace", file, mib, copies] => trace::bytes(file, &list(mib), copies.parse().expect("a number")),
        ["units", file, percent] => trace::units(file, &list(percent), 1),
        ["units", file, percent, copies] => {
            trace::units(file, &list(percent), copies.parse().expect("a number"));
        }
        ["ram", items] => list(items).into_iter().for_each(ram::batches),
        ["stalls", mib] => list(mib).into_iter().for_each(stalls::slices),
        ["expiry"] => expiry::freed(),
        _ => eprintln!("see the head of engine/examples/figures/main.rs for what can be asked"),
    }
}
