//! Measures the time of an operation: `cargo bench -p corecached-bench`, with an optional filter after `--`.

#![allow(unreachable_pub, reason = "a test binary has no face")]

mod cases;

use criterion::{Criterion, Throughput};

fn main() {
    let mut criterion = Criterion::default().sample_size(30).configure_from_args();
    for case in cases::all() {
        let mut group = criterion.benchmark_group(case.name);
        group.throughput(Throughput::Elements(case.operations));
        // Prepared at the first run, so that cases that a filter excludes are not prepared.
        let mut call = None;
        group.bench_function("call", |bencher| bencher.iter(call.get_or_insert_with(case.prepare)));
        group.finish();
    }
    criterion.final_summary();
}
