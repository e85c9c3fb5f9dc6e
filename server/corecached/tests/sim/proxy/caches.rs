//! The proxy before our own caches, on the same network: clients get exactly the bytes that one cache would
//! send them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::clients::{Client, ServerKind};
use super::setup::{Route, START_MS, Setup};
use corecached_cache::Cache;
use corecached_proxy::Proxy;
use corecached_shard::clock::Clock;
use corecached_testkit::network::{Endpoint, Network};
use corecached_testkit::shards::Shards;

use crate::cache::cache;

/// Steps without a change after which nothing changes any more.
const IDLE_STEPS: u32 = 40_000;
/// The most rounds in which proxy and caches do everything that is left to do.
const SETTLE_ROUNDS: usize = 1000;

struct World {
    network: Rc<RefCell<Network>>,
    clock_ms: Arc<AtomicU64>,
    proxy: Shards<Proxy>,
    caches: Vec<Shards<Cache>>,
    clients: Vec<Client>,
    random: fastrand::Rng,
    _setup_updates: Vec<crossbeam_channel::Sender<Arc<corecached_proxy::Snapshot>>>,
}

impl World {
    fn new(seed: u64, route: Route, faults: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let (shards, count) = (random.usize(1..4), random.usize(2..4));
        let cores: Vec<usize> = (0..count).map(|_| random.usize(1..3)).collect();
        let network = Network::new(seed, shards + cores.iter().sum::<usize>());
        let network = Rc::new(RefCell::new(network));
        let clock_ms = Arc::new(AtomicU64::new(START_MS));
        let setup = Setup::new(seed, &mut random, &clock_ms, shards, count, route, true);
        let (proxy, updates) = setup.shards(&network);
        let clock = Arc::new(Clock::simulated(Arc::clone(&clock_ms)));
        let mut first = shards;
        let caches = cores
            .iter()
            .map(|&cores| {
                let seed = seed ^ first as u64;
                let numbers = (first..first + cores).collect();
                let endpoint = Endpoint { shards: numbers, ..Endpoint::default() };
                network.borrow_mut().endpoints.push(endpoint);
                first += cores;
                cache(&network, first - cores, cores, seed, &clock, &[])
            })
            .collect();
        let clients = (0..random.usize(1..6))
            .map(|number| {
                let link = network.borrow_mut().connect(random.usize(..shards));
                Client::new(number, link, random.fork(), faults, ServerKind::Proxy)
            })
            .collect();
        Self { network, clock_ms, proxy, caches, clients, random, _setup_updates: updates }
    }

    fn run(&mut self) {
        let mut idle_steps = 0;
        while self.clients.iter().any(|client| !client.is_done()) {
            let moved = match self.random.u8(..64) {
                0..20 => self.proxy.step(&mut self.random),
                20..44 => {
                    let number = self.random.usize(..self.caches.len());
                    self.caches[number].step(&mut self.random)
                }
                44..63 => {
                    let number = self.random.usize(..self.clients.len());
                    self.clients[number].step(&mut self.network.borrow_mut())
                }
                _ => {
                    let before_ms = self.clock_ms.fetch_add(self.random.u64(..3), Ordering::Relaxed);
                    if before_ms / 1000 != self.clock_ms.load(Ordering::Relaxed) / 1000 {
                        self.network.borrow_mut().wake_all();
                    }
                    false
                }
            };
            idle_steps = if moved { 0 } else { idle_steps + 1 };
            if idle_steps > IDLE_STEPS {
                let waiting: Vec<_> = self.clients.iter().filter(|client| !client.is_done()).collect();
                panic!(
                    "nothing changes any more: shards asleep {:?}, waiting {waiting:#?}",
                    self.proxy.asleep()
                );
            }
        }
    }

    /// Every client disconnects, then the connections to the caches are reset: nothing is left over.
    fn finish(mut self) -> u64 {
        for client in &self.clients {
            client.hang_up(&mut self.network.borrow_mut());
        }
        // The replies that clients did not wait for may be large.
        for _ in 0..SETTLE_ROUNDS {
            self.proxy.settle();
            self.caches.iter_mut().for_each(Shards::settle);
            if self.proxy.is_empty() {
                break;
            }
        }
        self.proxy.check_empty();
        self.network.borrow_mut().links.iter_mut().for_each(|link| link.reset = true);
        self.proxy.settle();
        self.caches.iter_mut().for_each(Shards::settle);
        self.proxy.check_empty();
        self.caches.iter_mut().for_each(Shards::check_empty);
        self.clients.iter().map(Client::commands).sum()
    }
}

fn simulate(routes: &[Route], faults: bool) {
    let seeds = super::super::seeds(20);
    let mut commands = 0;
    for seed in seeds.clone() {
        let route = routes[seed as usize % routes.len()];
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed, route, faults);
            world.run();
            world.finish()
        });
        match outcome {
            Ok(count) => commands += count,
            Err(panic) => {
                eprintln!("failed with seed {seed}, {route:?}, faults {faults}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{} runs, {commands} commands answered as expected", seeds.end - seeds.start);
}

#[test]
fn a_proxy_answers_as_one_cache_would() {
    simulate(&[Route::Pool, Route::Failover], false);
}

#[test]
fn clients_of_a_proxy_that_stall_or_break_hurt_nobody_else() {
    simulate(&[Route::Pool], true);
}
