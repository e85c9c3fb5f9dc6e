//! The whole proxy on the simulated network: its shards with their relays, between simulated clients and
//! destinations that fail. One seed decides everything.
//!
//! | module | content |
//! | --- | --- |
//! | [`setup`] | shards, routes and options of a seed |
//! | [`client`] | clients, and what they do wrong |
//! | [`pending`] | a pending request, and the replies that it may get |
//! | [`history`] | every write of every key, and what a read may find |
//! | [`blame`] | every fault, and the errors that it explains |
//! | [`destination`] | memcacheds, and what they do wrong |
//! | [`caches`] | our own caches in their place |

mod blame;
mod caches;
mod client;
mod destination;
mod history;
mod pending;
mod setup;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use blame::{Blame, RETURN_MS};
use client::{Client, Scene, Tally};
use corecached_proxy::{Proxy, Snapshot};
use corecached_testkit::network::{Endpoint, Network};
use corecached_testkit::shards::Shards;
use corecached_testkit::wire::Fault;
use destination::{Destination, FAULTS};
use history::History;
use setup::{Route, START_MS, Setup};

/// Seeds of one test, without `CORECACHED_SIM_SEEDS`.
const SEEDS: u64 = 100;
/// Every kind of route.
const ROUTES: [Route; 4] = [Route::Pool, Route::Failover, Route::AllSync, Route::Replicas];
/// Commands of one client.
const COMMANDS: u64 = 80;
/// Steps without a change after which time passes.
const IDLE_STEPS: u32 = 300;
/// Milliseconds without a change after which nothing changes any more.
const IDLE_MS: u64 = 60_000;
/// Largest value that clients store, bytes.
const VALUE_BYTES_MAX: usize = 100_000;

struct World {
    network: Rc<RefCell<Network>>,
    clock_ms: Arc<AtomicU64>,
    shards: Shards<Proxy>,
    destinations: Vec<Destination>,
    clients: Vec<Client>,
    scene: Scene,
    inactive_reset_ms: u64,
    /// The number of destinations that never fail: the first ones.
    sound: usize,
    faults: BTreeMap<Fault, u64>,
    random: fastrand::Rng,
    _updates: Vec<crossbeam_channel::Sender<Arc<Snapshot>>>,
}

impl World {
    fn new(seed: u64, shards: usize, clients: usize, route: Route, is_exact: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let destinations = random.usize(if route == Route::Pool { 1 } else { 2 }..5);
        let clock_ms = Arc::new(AtomicU64::new(START_MS));
        let setup = Setup::new(seed, &mut random, &clock_ms, shards, destinations, route, is_exact);
        let one_copy = route == Route::Pool;
        let history = History::new(one_copy, one_copy || is_exact, !one_copy && route != Route::AllSync);
        let scene = Scene {
            history: Rc::new(RefCell::new(history)),
            blame: Rc::new(RefCell::new(Blame::new(destinations))),
            generations: Rc::new(RefCell::new(vec![0; clients])),
            downgrades_errors: setup.downgrades_errors,
            is_exact,
            whole_value_bytes_max: setup.whole_value_bytes_max,
            shards,
        };
        let network = Rc::new(RefCell::new(Network::new(seed, shards)));
        network.borrow_mut().endpoints = (0..destinations).map(|_| Endpoint::default()).collect();
        let clients = (0..clients)
            .map(|number| Client::new(number, &scene, COMMANDS, random.fork(), &mut network.borrow_mut()))
            .collect();
        let sound = random.usize(..2.min(destinations));
        let destinations = (0..destinations)
            .map(|number| Destination::new(number, &scene.history, &scene.blame, random.fork()))
            .collect();
        let inactive_reset_ms = setup.inactive_reset_ms;
        let (shards, updates) = setup.shards(&network);
        Self {
            shards,
            network,
            clock_ms,
            destinations,
            clients,
            scene,
            inactive_reset_ms,
            sound,
            faults: BTreeMap::new(),
            random,
            _updates: updates,
        }
    }

    /// Runs until `is_over`. Panics when a reply is wrong, or when nothing changes any more.
    fn run(&mut self, goes_wrong: bool, is_over: impl Fn(&Self) -> bool) {
        let (mut idle_steps, mut moved_ms) = (0, self.now_ms());
        while !is_over(self) {
            self.scene.history.borrow_mut().step += 1;
            let moved = match self.random.u8(..128) {
                0..48 => self.shards.step(&mut self.random),
                48..80 => self.step_client(),
                80..127 => self.step_destination(),
                _ => {
                    if goes_wrong && self.random.u8(..4) == 0 {
                        self.go_wrong();
                    }
                    let ms = self.random.u64(..3);
                    self.pass(ms);
                    false
                }
            };
            if moved {
                (idle_steps, moved_ms) = (0, self.now_ms());
                continue;
            }
            idle_steps += 1;
            if idle_steps == IDLE_STEPS {
                idle_steps = 0;
                let ms = self.random.u64(1..50);
                self.pass(ms);
            }
            if self.now_ms() - moved_ms > IDLE_MS {
                let waiting: Vec<_> = self.clients.iter().filter(|client| !client.is_done()).collect();
                let network = self.network.borrow();
                let unread: Vec<_> =
                    self.destinations.iter().flat_map(|destination| destination.unread(&network)).collect();
                panic!(
                    "nothing changes any more: shards asleep {:?}, destinations have {unread:#?}, \
                     waiting {waiting:#?}",
                    self.shards.asleep()
                );
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.clock_ms.load(Ordering::Relaxed)
    }

    /// Lets time pass. Hosts wake their shards once a second.
    fn pass(&mut self, ms: u64) {
        let network = &mut self.network.borrow_mut();
        let before_ms = self.clock_ms.fetch_add(ms, Ordering::Relaxed);
        self.scene.blame.borrow_mut().now_ms += ms;
        if before_ms / 1000 != (before_ms + ms) / 1000 {
            network.wake_all();
        }
        self.destinations.iter().for_each(Destination::record_harm);
    }

    fn step_client(&mut self) -> bool {
        let number = self.random.usize(..self.clients.len());
        self.clients[number].step(&mut self.network.borrow_mut())
    }

    fn step_destination(&mut self) -> bool {
        let number = self.random.usize(..self.destinations.len());
        self.destinations[number].step(&mut self.network.borrow_mut())
    }

    fn go_wrong(&mut self) {
        let number = self.random.usize(..self.destinations.len());
        let fault =
            if self.random.u8(..3) == 0 { Fault::Return } else { self.random.choice(FAULTS).unwrap() };
        if number >= self.sound {
            *self.faults.entry(fault).or_default() += 1;
            self.destinations[number].go_wrong(fault, &mut self.network.borrow_mut());
        }
    }

    /// Ends every fault, waits until nothing is pending, and checks what every key holds.
    fn audit(&mut self) {
        let network = Rc::clone(&self.network);
        self.destinations.iter_mut().for_each(|destination| destination.recover(&mut network.borrow_mut()));
        let until_ms = self.now_ms() + 2 * RETURN_MS;
        self.run(false, |world| {
            let network = world.network.borrow();
            let is_quiet =
                world.destinations.iter().all(|destination| destination.unread(&network).is_empty());
            is_quiet && world.now_ms() > until_ms
        });
        self.clients.iter_mut().for_each(|client| client.begin_audit(&mut network.borrow_mut()));
        let errors = self.tally().errors;
        self.run(false, |world| world.clients.iter().all(Client::is_done));
        assert_eq!(self.tally().errors, errors, "an error once all is well");
    }

    fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        self.clients.iter().for_each(|client| sum.add(&client.tally));
        sum
    }

    /// Every client disconnects: nothing is left over.
    fn finish(mut self) -> Tally {
        for client in &self.clients {
            client.hang_up(&mut self.network.borrow_mut());
        }
        self.shards.settle();
        self.shards.check_empty();
        if self.inactive_reset_ms > 0 {
            self.pass(self.inactive_reset_ms);
            self.shards.settle();
            let held = self.network.borrow().links.iter().filter(|link| link.is_held()).count();
            assert_eq!(held, 0, "connections that nobody uses");
            self.shards.check_empty();
        }
        self.tally()
    }
}

/// The result of one seed, or the sum over several.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    tally: Tally,
    faults: BTreeMap<Fault, u64>,
    steps: u64,
    /// Simulated milliseconds.
    ms: u64,
}

fn run(seed: u64, routes: &[Route], is_exact: bool) -> Outcome {
    let mut random = fastrand::Rng::with_seed(seed ^ 0xdead);
    let (shards, clients) = (random.choice([1, 1, 2, 3]).unwrap(), random.usize(1..8));
    let route = random.choice(routes.iter().copied()).unwrap();
    let outcome = std::panic::catch_unwind(|| {
        let mut world = World::new(seed, shards, clients, route, is_exact);
        world.run(!is_exact, |world| world.clients.iter().all(Client::is_done));
        world.audit();
        let (faults, steps) = (std::mem::take(&mut world.faults), world.scene.history.borrow().step);
        let ms = world.now_ms() - START_MS;
        Outcome { tally: world.finish(), faults, steps, ms }
    });
    outcome.unwrap_or_else(|panic| {
        eprintln!("failed with seed {seed}: {shards} shards, {clients} clients, {route:?}, exact {is_exact}");
        std::panic::resume_unwind(panic)
    })
}

fn simulate(routes: &[Route], is_exact: bool) -> Outcome {
    let seeds = super::seeds(SEEDS);
    let mut total = Outcome::default();
    for seed in seeds.clone() {
        let Outcome { tally, faults, steps, ms } = run(seed, routes, is_exact);
        total.tally.add(&tally);
        faults.into_iter().for_each(|(fault, count)| *total.faults.entry(fault).or_default() += count);
        total.steps += steps;
        total.ms += ms;
    }
    let count = seeds.end - seeds.start;
    println!("{count} runs: {total:?}");
    // A few seeds, as one runs to look into a failure, do not reach every fault.
    if count >= SEEDS && !is_exact {
        assert!(FAULTS.iter().all(|fault| total.faults.contains_key(fault)), "some fault never happened");
        assert!(total.tally.errors > 0 && total.tally.answered > 4 * total.tally.errors);
    }
    total
}

#[test]
fn a_proxy_answers_every_request_as_its_destinations_do() {
    let Tally { requests, answered, .. } = simulate(&ROUTES, true).tally;
    assert_eq!(answered, requests);
}

#[test]
fn a_proxy_whose_destinations_fail_answers_every_request_and_tells_no_lie() {
    simulate(&[Route::Pool], false);
}

#[test]
fn copies_on_destinations_that_fail_are_what_was_once_written() {
    simulate(&ROUTES[1..], false);
}

#[test]
fn a_seed_decides_everything() {
    for seed in 0..8 {
        assert_eq!(run(seed, &ROUTES, false), run(seed, &ROUTES, false), "seed {seed}");
    }
}
