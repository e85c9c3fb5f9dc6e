//! Picks of a server by the hash rings: `cargo bench -p corecached-proxy`.

use std::hint::black_box;

use corecached_proxy::hash::{Distribution, KeyHash, Points, Ring, RingServer, RingSpec};
use criterion::{Criterion, Throughput};

/// Keys picked for in one iteration.
const KEYS: usize = 16;

fn rings(criterion: &mut Criterion) {
    let ketama = Distribution::Points { points: Points::Ketama, key_hash: KeyHash::Md5 };
    let servers: Vec<RingServer> =
        (0..10).map(|number| RingServer::new(&format!("cache-{number}.cache"), 11211)).collect();
    let keys: Vec<String> = (0..KEYS).map(|number| format!("corecached-key-{number:05}")).collect();
    let mut group = criterion.benchmark_group("ring of 10 servers");
    group.throughput(Throughput::Elements(KEYS as u64));
    for (name, distribution) in
        [("Ch3", Distribution::Ch3), ("rendezvous", Distribution::Rendezvous), ("ketama", ketama)]
    {
        let ring = Ring::build(&RingSpec { distribution, ..RingSpec::ch3() }, &servers).expect("a ring");
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for key in &keys {
                    black_box(ring.pick(black_box(key.as_bytes())));
                }
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    rings(&mut criterion);
    criterion.final_summary();
}
