//! Gets and sets in batches of 16, beside a map of boxes with the same items in the same run.

use std::hash::{BuildHasher, Hasher};

use corecached_engine::{Key, PageWork, StoreHow};
use hashbrown::HashMap;

use crate::support::{START, Subject, cpu_s, mix, name};

const BATCH: usize = 16;
const VALUE_BYTES: usize = 100;
/// Bytes of such an item in the store.
const RECORD_BYTES: usize = 124;
const OPERATIONS: usize = 4_000_000;

/// Hashes a key with the store's hasher, so that both sides hash alike.
#[derive(Clone)]
struct SameHash(corecached_engine::KeyHasher);

struct State(corecached_engine::KeyHasher, u64);

impl BuildHasher for SameHash {
    type Hasher = State;
    fn build_hasher(&self) -> State {
        State(self.0.clone(), 0)
    }
}

impl Hasher for State {
    fn finish(&self) -> u64 {
        self.1
    }
    fn write(&mut self, bytes: &[u8]) {
        self.1 = self.0.hash(bytes);
    }
    fn write_usize(&mut self, _length: usize) {}
}

/// Best of three, nanoseconds an operation.
fn best(mut run: impl FnMut(u64)) -> f64 {
    let times = (0..3).map(|round| {
        let start = cpu_s();
        run(round);
        (cpu_s() - start) * 1e9 / OPERATIONS as f64
    });
    times.fold(f64::MAX, f64::min)
}

/// Keys of random items, sixteen at a time, made before the clock runs.
fn picks(items: usize, round: u64) -> Vec<[u8; 20]> {
    let pick = |n: usize| name(mix((n as u64) << 8 | round | 1 << 60) % items as u64);
    (0..OPERATIONS).map(pick).collect()
}

/// Memory in huge pages where the kernel gives them, touched.
fn warm(bytes: usize) -> &'static [u8] {
    // SAFETY: an anonymous mapping of the kernel's choice, zeroed, never unmapped, read only from here on.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let mapped = libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0);
        assert!(mapped != libc::MAP_FAILED);
        libc::madvise(mapped, bytes, libc::MADV_HUGEPAGE);
        std::ptr::write_bytes(mapped.cast::<u8>(), 0, bytes);
        std::slice::from_raw_parts(mapped.cast(), bytes)
    }
}

fn prefetch(byte: &u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(std::ptr::from_ref(byte).cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = byte;
}

/// What memory alone costs a get: a line of an index and the lines of a record, in batches, the value copied; neither
/// is looked at.
fn floor(items: usize, picked: &[Vec<[u8; 20]>]) -> f64 {
    const LINE_BYTES: usize = 64;
    let lines = (items / 9).max(1);
    let index = warm(lines * LINE_BYTES);
    let log = warm(items * RECORD_BYTES);
    let hasher = corecached_engine::KeyHasher::new(1);
    let mut out = Vec::with_capacity(BATCH * VALUE_BYTES);
    best(|round| {
        for names in picked[round as usize].chunks_exact(BATCH) {
            let line = |hash: u64| ((hash >> 32) as usize * lines) >> 32;
            let hashes: [u64; BATCH] = std::array::from_fn(|n| {
                let hash = hasher.hash(&names[n]);
                prefetch(&index[line(hash) * LINE_BYTES]);
                hash
            });
            let mut places = [0; BATCH];
            for (place, &hash) in places.iter_mut().zip(&hashes) {
                let first = usize::from(index[line(hash) * LINE_BYTES]);
                *place = first + (((hash as u32) as usize * items) >> 32) * RECORD_BYTES;
                (0..3).for_each(|n| prefetch(&log[(*place + n * LINE_BYTES).min(log.len() - 1)]));
            }
            out.clear();
            places.iter().for_each(|&place| out.extend_from_slice(&log[place + 24..][..VALUE_BYTES]));
            std::hint::black_box(&out);
        }
    })
}

/// Sixteen keys whose items are on their way, as a server has them that parses one request after the other.
#[inline(always)]
fn batch<'n>(subject: &Subject, names: &'n [[u8; 20]]) -> [Key<'n>; BATCH] {
    let keys = std::array::from_fn(|n| {
        let key = subject.key(&names[n]);
        subject.store.prefetch(key.hash);
        key
    });
    keys.iter().for_each(|key| subject.store.prefetch_item(key.hash));
    keys
}

/// Reads these names, sixteen at a time; how many were there.
#[inline(never)]
fn gets(subject: &mut Subject, names: &[[u8; 20]]) -> usize {
    let mut out = Vec::with_capacity(BATCH * VALUE_BYTES);
    let mut found = 0;
    for names in names.chunks_exact(BATCH) {
        let keys = batch(subject, names);
        out.clear();
        for key in keys {
            if let Some(item) = subject.store.get(key, START) {
                item.value.copy_to(&mut out);
                found += 1;
            }
        }
        std::hint::black_box(&out);
    }
    found
}

/// 20-byte keys and 100-byte values; a get copies the value out, a set overwrites it.
pub fn batches(items: usize) {
    let mut subject = Subject::new(items * 150 + OPERATIONS * 3 * RECORD_BYTES + (64 << 20));
    let value = [7u8; VALUE_BYTES];
    for number in 0..items as u64 {
        subject.set(number, &value);
    }
    assert_eq!(subject.store.stats().items, items as u64);
    let picked: Vec<Vec<[u8; 20]>> = (0..3).map(|round| picks(items, round)).collect();
    let get_ns = best(|round| assert_eq!(gets(&mut subject, &picked[round as usize]), OPERATIONS));
    // Fresh memory is provided ahead by a helper, as a server should.
    let (helped, work) = std::sync::mpsc::channel::<PageWork>();
    let helper = std::thread::spawn(move || work.iter().for_each(PageWork::carry_out));
    let set = |subject: &mut Subject, names: &[[u8; 20]]| {
        for names in names.chunks_exact(BATCH) {
            for key in batch(subject, names) {
                subject.store.store(key, &value, &StoreHow::default(), START);
            }
            if let Some(work) = subject.store.next_page_work() {
                helped.send(work).expect("the helper");
            }
        }
    };
    // While memory is free a set appends and points the index there; after that each makes room as well.
    let free = subject.store.stats().segments_free * subject.store.stats().segment_bytes;
    assert!(free as usize > OPERATIONS * 3 * RECORD_BYTES);
    let set_ns = best(|round| set(&mut subject, &picked[round as usize]));
    assert_eq!(subject.store.stats().evictions, 0);
    // A store without free memory for them: twice what the items take.
    let mut full = Subject::new((items * 256).max(64 << 20));
    for number in 0..items as u64 {
        full.set(number, &value);
    }
    let full_set_ns = best(|round| set(&mut full, &picked[round as usize]));
    let hasher = subject.hasher.clone();
    drop((subject, full, helped));
    helper.join().expect("the helper");

    let mut out = Vec::with_capacity(BATCH * VALUE_BYTES);
    let mut map: HashMap<Box<[u8]>, Box<[u8]>, SameHash> = HashMap::with_hasher(SameHash(hasher));
    for number in 0..items as u64 {
        map.insert(name(number).into(), value.as_slice().into());
    }
    let box_get_ns = best(|round| {
        for names in picked[round as usize].chunks_exact(BATCH) {
            out.clear();
            for name in names {
                if let Some(value) = map.get(name.as_slice()) {
                    out.extend_from_slice(value);
                }
            }
            std::hint::black_box(&out);
        }
    });
    let box_set_ns = best(|round| {
        for name in &picked[round as usize] {
            map.insert(name.as_slice().into(), value.as_slice().into());
        }
    });
    let floor_ns = floor(items, &picked);
    println!(
        "{items} items, batch 16: memory alone {floor_ns:.0} ns; get {get_ns:.0} ns, map of boxes {box_get_ns:.0}: {:.2} x; set {set_ns:.0} ns, map of \
         boxes {box_set_ns:.0}: {:.2} x; set into a full store {full_set_ns:.0} ns: {:.2} x",
        box_get_ns / get_ns,
        box_set_ns / set_ns,
        box_set_ns / full_set_ns
    );
}
