//! Runs a case a given number of times, for `callgrind.sh` to count instructions. Without arguments it lists
//! the cases.

#![allow(unreachable_pub, reason = "a test binary has no face")]

mod cases;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let (Some(name), Some(times)) = (arguments.next(), arguments.next()) else {
        cases::all().iter().for_each(|case| println!("{}\t{}", case.operations, case.name));
        return;
    };
    let Some(case) = cases::all().into_iter().find(|case| case.name == name) else {
        eprintln!("no case {name}");
        std::process::exit(1);
    };
    let times: u64 = times.parse().unwrap_or(1);
    let mut call = (case.prepare)();
    (0..times).for_each(|_| call());
}
