//! The whole data path without kernel, threads or time: shards over a simulated network, stepped by a seed.
//! The data path of a proxy is in [`proxy`].
//!
//! Shards, sessions, mesh and stores are those of production. The network splits and delays bytes; clients
//! read slowly, stall, shut down and reset; shards sleep, and one that is not woken when it should be fails
//! the test.

#![allow(unreachable_pub, reason = "a test binary has no face")]

mod cache;
mod clients;
mod proxy;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use cache::cache;
use clients::{Client, ServerKind};
use corecached_cache::Cache;
use corecached_shard::clock::Clock;
use corecached_testkit::network::Network;
use corecached_testkit::shards::Shards;

/// A server of several shards and its clients, on one thread.
struct World {
    network: Rc<RefCell<Network>>,
    shards: Shards<Cache>,
    clients: Vec<Client>,
    random: fastrand::Rng,
}

impl World {
    fn new(seed: u64, shards: usize, clients: usize, faults: bool) -> Self {
        let network = Rc::new(RefCell::new(Network::new(seed, shards)));
        let shards = cache(&network, 0, shards, seed, &Arc::new(Clock::start()), &[]);
        let mut random = fastrand::Rng::with_seed(seed);
        let clients = (0..clients)
            .map(|number| {
                let link = network.borrow_mut().connect(random.usize(..shards.len()));
                Client::new(number, link, random.fork(), faults, ServerKind::Cache)
            })
            .collect();
        Self { network, shards, clients, random }
    }

    /// Runs until every client is done. Panics when a reply is wrong, or when nothing changes any more.
    fn run(&mut self) {
        let mut idle_steps = 0u32;
        while self.clients.iter().any(|client| !client.is_done()) {
            let moved =
                if self.random.bool() { self.shards.step(&mut self.random) } else { self.step_client() };
            idle_steps = if moved { 0 } else { idle_steps + 1 };
            if idle_steps > 20_000 {
                let waiting: Vec<_> = self.clients.iter().filter(|client| !client.is_done()).collect();
                panic!(
                    "nothing changes any more: shards asleep {:?}, waiting clients {waiting:#?}",
                    self.shards.asleep()
                );
            }
        }
    }

    fn step_client(&mut self) -> bool {
        let number = self.random.usize(..self.clients.len());
        self.clients[number].step(&mut self.network.borrow_mut())
    }

    /// Closes every connection, lets the shards settle, and checks that nothing is left over.
    fn finish(mut self) -> u64 {
        let commands = self.clients.iter().map(Client::commands).sum();
        for client in &self.clients {
            client.hang_up(&mut self.network.borrow_mut());
        }
        self.shards.settle();
        self.shards.check_empty();
        commands
    }
}

fn simulate(seeds: std::ops::Range<u64>, clients: usize, faults: bool) {
    let mut commands = 0;
    for seed in seeds.clone() {
        for shards in [1, 2, 4] {
            let outcome = std::panic::catch_unwind(|| {
                let mut world = World::new(seed, shards, clients, faults);
                world.run();
                world.finish()
            });
            match outcome {
                Ok(count) => commands += count,
                Err(panic) => {
                    eprintln!("failed with seed {seed}, {shards} shards, {clients} clients, faults {faults}");
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
    println!("{} runs, {commands} commands answered as expected", (seeds.end - seeds.start) * 3);
}

/// The seeds of a test: from `CORECACHED_SIM_FIRST` on, or from 0, as many as `CORECACHED_SIM_SEEDS` says, or
/// `default`.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    let first = number("CORECACHED_SIM_FIRST").unwrap_or(0);
    first..first + number("CORECACHED_SIM_SEEDS").unwrap_or(default)
}

#[test]
fn one_client_gets_every_reply_in_order() {
    simulate(seeds(20), 1, false);
}

#[test]
fn clients_on_all_shards_get_their_own_replies_only() {
    simulate(seeds(20), 9, false);
}

#[test]
fn stalls_resets_and_half_closes_hurt_nobody_else_and_leak_nothing() {
    simulate(seeds(20), 9, true);
}

#[test]
fn a_request_that_has_come_is_answered_however_long_its_client_was_silent() {
    for seed in seeds(40) {
        let network = Rc::new(RefCell::new(Network::new(seed, 2)));
        let clock = Arc::new(Clock::start());
        let mut shards = cache(&network, 0, 2, seed, &clock, &["-o", "idle_timeout=2"]);
        let link = network.borrow_mut().connect(0);
        for _ in 0..10 {
            clock.advance(5);
            network.borrow_mut().links[link].to_server.extend(b"get k\r\n");
            network.borrow_mut().wake_ends(link);
            shards.settle();
            let answer: Vec<u8> = network.borrow_mut().links[link].to_client.drain(..).collect();
            assert_eq!(answer, b"END\r\n", "seed {seed}");
        }
        clock.advance(5);
        shards.settle();
        assert!(network.borrow().links[link].closed, "seed {seed}: a silent client is closed");
        shards.check_empty();
    }
}
