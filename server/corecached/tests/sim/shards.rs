//! The shards of one server on the simulated network. They sleep as their hosts have them sleep, and one that is not woken
//! when it should be is found out.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use corecached_engine::{Seconds, Store, StoreConfig};

use super::network::{Network, SimDriver};
use crate::proxy::relay::{Relay, RelaySetup};
use crate::server::Shared;
use crate::shard::mesh::Mesh;
use crate::shard::slice::Slices;
use crate::shard::{CoreSetup, Progress, Shard};

/// Turns of every shard after which nothing that can be done is left to do.
const SETTLE_TURNS: usize = 64;

/// See the head of the file.
pub struct Shards {
    network: Rc<RefCell<Network>>,
    /// The number of the first of them on the network.
    first: usize,
    shards: Vec<Shard<SimDriver>>,
    asleep: Vec<bool>,
    shared: Arc<Shared>,
}

impl Shards {
    /// Those with these ends of their mesh, numbered from `first` on the network; `relays` make them a proxy.
    pub fn new(
        network: &Rc<RefCell<Network>>,
        first: usize,
        meshes: Vec<Mesh>,
        shared: &Arc<Shared>,
        relays: Vec<Option<RelaySetup>>,
    ) -> Self {
        let slices = Slices::new(meshes.len());
        let memory_bytes = shared.config.memory_bytes / meshes.len();
        let shards: Vec<_> = meshes
            .into_iter()
            .zip(relays)
            .map(|(mesh, relay)| {
                let admission = Arc::clone(&shared.admission);
                let driver = SimDriver::new(first + mesh.me(), Rc::clone(network), admission);
                let config = StoreConfig::new(memory_bytes, shared.hasher.clone());
                let store = Store::new(config, Seconds(shared.clock.now_s())).unwrap();
                let (slices, shared) = (slices.clone(), Arc::clone(shared));
                Shard::new(driver, CoreSetup { mesh, store, slices, shared, relay })
            })
            .collect();
        let asleep = vec![false; shards.len()];
        Self { network: Rc::clone(network), first, shards, asleep, shared: Arc::clone(shared) }
    }

    pub fn len(&self) -> usize {
        self.shards.len()
    }

    pub fn asleep(&self) -> &[bool] {
        &self.asleep
    }

    /// One of them takes a turn, if it is awake. False when nothing came of it.
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

    /// Everybody does what is left to do.
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

    /// Whether no client is connected, and nothing that was asked is under way.
    pub fn is_empty(&self) -> bool {
        let relays = self.shards.iter().filter_map(Shard::relay);
        self.shared.admission.open() == 0 && relays.flat_map(Relay::left_behind).all(|(_, count)| count == 0)
    }

    /// Nothing is left behind by clients that are gone, or of what destinations were asked.
    pub fn check_empty(&mut self) {
        let (_, store) = crate::metrics::sum(&self.shared.cells);
        assert_eq!((store.uploads, store.segments_pinned), (0, 0), "uploads or pins were leaked");
        assert_eq!(self.shared.admission.open(), 0, "a connection was leaked");
        for shard in &mut self.shards {
            let conns = shard.relay().map_or(0, Relay::connections);
            assert_eq!(shard.driver_mut().left_behind(), (conns, 0), "connections or buffers were leaked");
            let left: Vec<_> = shard.relay().map(Relay::left_behind).into_iter().flatten().collect();
            assert!(left.iter().all(|(_, count)| *count == 0), "left behind: {left:?}");
        }
    }
}
