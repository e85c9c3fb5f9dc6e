//! The shards of one server on the simulated network. They sleep as their hosts let them sleep: a shard that
//! is not woken when it should be stops the simulation, which fails.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use corecached_engine::KeyHasher;
use corecached_shard::mesh::Mesh;
use corecached_shard::{CoreSetup, Progress, ServerContext, Service, Shard, counters};

use crate::network::{Network, SimDriver};

/// Turns after which every shard has done everything that it can do.
const SETTLE_TURNS: usize = 64;

/// What a service holds at one moment. Once nothing is pending, it must hold nothing.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// Connections that the service made itself. Idle ones may stay.
    pub connections: usize,
    /// The number of everything else, each with its name.
    pub counts: Vec<(&'static str, usize)>,
}

/// The shards of one server, stepped on one thread.
pub struct Shards<S: Service> {
    network: Rc<RefCell<Network>>,
    /// The number of the first shard on the network.
    first: usize,
    shards: Vec<Shard<SimDriver, S>>,
    asleep: Vec<bool>,
    context: ServerContext,
    leftovers: fn(&S) -> Leftovers,
}

impl<S: Service> Shards<S> {
    /// One shard for each mesh and service, numbered from `first` on the network. `leftovers` returns what a
    /// service holds.
    pub fn new(
        network: &Rc<RefCell<Network>>,
        first: usize,
        meshes: Vec<Mesh<S>>,
        context: &ServerContext,
        hasher: &KeyHasher,
        services: Vec<S>,
        leftovers: fn(&S) -> Leftovers,
    ) -> Self {
        let shards: Vec<_> = meshes
            .into_iter()
            .zip(services)
            .map(|(mesh, service)| {
                let admission = Arc::clone(&context.network.admission);
                let driver = SimDriver::new(first + mesh.me(), Rc::clone(network), admission);
                let setup = CoreSetup { mesh, hasher: hasher.clone(), context: context.clone() };
                Shard::new(driver, setup, service)
            })
            .collect();
        let asleep = vec![false; shards.len()];
        Self { network: Rc::clone(network), first, shards, asleep, context: context.clone(), leftovers }
    }

    /// The number of shards.
    pub fn len(&self) -> usize {
        self.shards.len()
    }

    /// Which shards sleep, by number.
    pub fn asleep(&self) -> &[bool] {
        &self.asleep
    }

    /// Lets a random shard take a turn, if it is awake. False when it did nothing.
    pub fn step(&mut self, random: &mut fastrand::Rng) -> bool {
        let number = random.usize(..self.shards.len());
        if self.asleep[number] {
            if !self.network.borrow_mut().take_wake(self.first + number) {
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

    /// Lets every shard do everything that it can do.
    pub fn settle(&mut self) {
        for _ in 0..SETTLE_TURNS {
            for (shard, asleep) in self.shards.iter_mut().zip(&mut self.asleep) {
                if std::mem::take(asleep) {
                    shard.unpark();
                }
                let _ = shard.turn(Duration::ZERO).unwrap();
            }
        }
    }

    /// Whether no client is connected and no request is pending.
    pub fn is_empty(&self) -> bool {
        let mut left = self.shards.iter().flat_map(|shard| (self.leftovers)(shard.service()).counts);
        self.context.network.admission.open() == 0 && left.all(|(_, count)| count == 0)
    }

    /// Checks that clients that are gone, and requests to destinations, left nothing over.
    ///
    /// # Panics
    /// When a connection, a buffer, an upload, a pin or anything that the service counts is left.
    pub fn check_empty(&mut self) {
        let (_, store) = counters::sum(&self.context.cells);
        assert_eq!((store.uploads, store.segments_pinned), (0, 0), "uploads or pins were leaked");
        assert_eq!(self.context.network.admission.open(), 0, "a connection was leaked");
        for shard in &mut self.shards {
            let Leftovers { connections, counts } = (self.leftovers)(shard.service());
            assert_eq!(
                shard.driver_mut().left_over(),
                (connections, 0),
                "connections or buffers were leaked"
            );
            assert!(counts.iter().all(|(_, count)| *count == 0), "left over: {counts:?}");
        }
    }
}
