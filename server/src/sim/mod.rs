//! The whole data path without kernel, threads or time: shards over a simulated network, stepped by a seed.
//!
//! Same shards, sessions, mesh and stores as in production. The network splits and delays bytes, clients read slowly,
//! stall, shut down and reset; shards sleep for real, and one that is not woken when it should be is found out.

mod clients;
mod network;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use corecached_engine::{Seconds, Store, StoreConfig};

use crate::config::{Args, check};
use crate::server::Shared;
use crate::shard::slice::Slices;
use crate::shard::{CoreSetup, Progress, Shard, mesh};
use clients::Client;
use network::{Network, SimDriver};

/// A server of several shards and its clients, on one thread.
struct World {
    network: Rc<RefCell<Network>>,
    shards: Vec<Shard<SimDriver>>,
    asleep: Vec<bool>,
    shared: Arc<Shared>,
    clients: Vec<Client>,
    random: fastrand::Rng,
}

impl World {
    fn new(seed: u64, shards: usize, clients: usize, faults: bool) -> Self {
        let args = Args::read(["corecached", "-m", "64"].map(Into::into)).unwrap();
        let config = check(&args).unwrap();
        let (meshes, presence) = mesh::connect(shards);
        let shared = Arc::new(Shared::new(config, shards, presence, seed, "simulated".to_owned()));
        let network = Rc::new(RefCell::new(Network::new(seed, shards)));
        let slices = Slices::new(shards);
        let shards: Vec<_> = meshes
            .into_iter()
            .map(|mesh| {
                let driver = SimDriver::new(mesh.me(), Rc::clone(&network), Arc::clone(&shared.admission));
                let config = StoreConfig::new(shared.config.memory_bytes / shards, shared.hasher.clone());
                let store = Store::new(config, Seconds(shared.clock.now_s())).unwrap();
                Shard::new(
                    driver,
                    CoreSetup {
                        mesh,
                        store,
                        slices: slices.clone(),
                        shared: Arc::clone(&shared),
                        relay: None,
                    },
                )
            })
            .collect();
        let mut random = fastrand::Rng::with_seed(seed);
        let clients = (0..clients)
            .map(|number| {
                let link = network.borrow_mut().connect(random.usize(..shards.len()));
                Client::new(number, link, random.fork(), faults)
            })
            .collect();
        let asleep = vec![false; shards.len()];
        Self { network, shards, asleep, shared, clients, random }
    }

    /// Run until every client is done; panics when something is wrong, or when nobody can move.
    fn run(&mut self) {
        let mut idle_steps = 0u32;
        while self.clients.iter().any(|client| !client.is_done()) {
            let moved = if self.random.bool() { self.step_shard() } else { self.step_client() };
            idle_steps = if moved { 0 } else { idle_steps + 1 };
            if idle_steps > 20_000 {
                let waiting: Vec<_> = self.clients.iter().filter(|client| !client.is_done()).collect();
                panic!("nobody moves: shards asleep {:?}, waiting clients {waiting:#?}", self.asleep);
            }
        }
    }

    fn step_shard(&mut self) -> bool {
        let number = self.random.usize(..self.shards.len());
        if self.asleep[number] {
            if !self.network.borrow_mut().take_wake(number) {
                return false;
            }
            self.asleep[number] = false;
            self.shards[number].unpark();
        }
        match self.shards[number].turn(Duration::ZERO).unwrap() {
            Progress::Worked => true,
            Progress::Finished => false,
            Progress::Idle => {
                // As the hosts do: only an idle shard sleeps, and only when the mesh agrees.
                self.asleep[number] = self.shards[number].park();
                false
            }
        }
    }

    fn step_client(&mut self) -> bool {
        let number = self.random.usize(..self.clients.len());
        self.clients[number].step(&mut self.network.borrow_mut())
    }

    /// Close every connection, let the shards settle, and check that nothing is left behind.
    fn finish(mut self) -> u64 {
        let commands = self.clients.iter().map(Client::commands).sum();
        for client in &self.clients {
            client.hang_up(&mut self.network.borrow_mut());
        }
        for _ in 0..64 {
            for number in 0..self.shards.len() {
                self.shards[number].unpark();
                let _ = self.shards[number].turn(Duration::ZERO).unwrap();
            }
        }
        let (_, store) = crate::metrics::sum(&self.shared.cells);
        assert_eq!((store.uploads, store.segments_pinned), (0, 0), "uploads or pins were leaked");
        assert_eq!(self.shared.admission.open(), 0, "a connection was leaked");
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

/// Seeds from `CORECACHED_SIM_SEEDS` (a count), or so many.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let count =
        std::env::var("CORECACHED_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    0..count
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
