//! A store with its hasher, and the clocks and gauges of the measurements.

use corecached_engine::{Key, KeyHasher, Seconds, Store, StoreConfig, StoreHow};

/// Bytes of every key made by number.
pub const KEY_BYTES: usize = 20;

/// The second all stores are made in.
pub const START: Seconds = Seconds(1_000_000);

/// A store with the hasher of its keys.
pub struct Subject {
    pub store: Store,
    pub hasher: KeyHasher,
}

impl Subject {
    pub fn new(memory_bytes: usize) -> Subject {
        let hasher = KeyHasher::new(0x51ed);
        let config = StoreConfig::new(memory_bytes, hasher.clone());
        Subject { store: Store::new(config, START).expect("a store"), hasher }
    }

    pub fn key<'k>(&self, bytes: &'k [u8]) -> Key<'k> {
        Key { bytes, hash: self.hasher.hash(bytes) }
    }

    /// Sets item `number` to `value`, without expiry.
    pub fn set(&mut self, number: u64, value: &[u8]) {
        let name = name(number);
        let key = self.key(&name);
        self.store.store(key, value, &StoreHow::default(), START);
    }

    pub fn has(&self, number: u64) -> bool {
        let name = name(number);
        self.store.peek(self.key(&name), START).is_some()
    }
}

/// A bijection that looks random.
pub fn mix(number: u64) -> u64 {
    let n = (number ^ number >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let n = (n ^ n >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    n ^ n >> 32
}

/// The 20-byte key of item `number`.
pub fn name(number: u64) -> [u8; KEY_BYTES] {
    let mut name = *b"u1::0000000000000000";
    let bits = mix(number + 1);
    for (place, digit) in name[4..].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(bits >> (place * 4)) as usize & 15];
    }
    name
}

/// CPU seconds this thread has used.
pub fn cpu_s() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the struct it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Bytes resident.
pub fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4096
}

/// `part` in percent of `whole`.
pub fn percent(part: f64, whole: f64) -> f64 {
    part * 100.0 / whole
}
