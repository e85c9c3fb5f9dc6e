//! What fits: payload share of the limit, bytes an item costs, and a shift in value size.

use crate::support::{KEY_BYTES, Subject, percent, resident};

/// Fills a store well past its limit, with values of 10, 100 and 1000 bytes.
pub fn fill(mib: usize) {
    for value_bytes in [10, 100, 1000] {
        let limit = mib << 20;
        let before = resident();
        let mut subject = Subject::new(limit);
        let value = vec![7; value_bytes];
        let items = (limit / (KEY_BYTES + value_bytes)) as u64 * 3 / 2;
        for number in 0..items {
            subject.set(number, &value);
        }
        let rss = resident() - before;
        let stats = subject.store.stats();
        let payload = stats.items as f64 * (KEY_BYTES + value_bytes) as f64;
        println!(
            "fill {mib} MiB, values of {value_bytes}: {} items, payload {:.2} % of the limit, {:.2} bytes an item over \
             payload, index {:.2} bytes an item, ghosts {:.2} %, {} of {} segments free, resident {:.2} % of the limit",
            stats.items,
            percent(payload, limit as f64),
            (limit as f64 - payload) / stats.items as f64,
            stats.index_bytes as f64 / stats.items as f64,
            percent(stats.ghost_bytes as f64, limit as f64),
            stats.segments_free,
            stats.segments_total,
            percent(rss as f64, limit as f64),
        );
    }
}

/// Stores of limits at which 1 to 4 million items of 120 bytes just fill them: is there a size at which the
/// index is half empty?
pub fn sizes() {
    let mut most: f64 = 0.0;
    for thousands in (1000..=4000).step_by(125) {
        let limit = thousands * 1000 * 133;
        let mut subject = Subject::new(limit);
        for number in 0..thousands as u64 * 1250 {
            subject.set(number, &[7; 100]);
        }
        let stats = subject.store.stats();
        let items = stats.items as f64;
        let over = limit as f64 / items - 120.0;
        let held = (stats.bytes + stats.index_bytes) as f64 / items - 120.0;
        most = most.max(over);
        println!(
            "{} items: {over:.2} bytes over payload all told ({held:.2} in records and index, {:.2} in the index)",
            stats.items,
            stats.index_bytes as f64 / items
        );
    }
    println!("at most {most:.2}");
}

/// A million small items, then fifty thousand of ten times the size: how many of these are there?
pub fn shift() {
    let mut subject = Subject::new(64 << 20);
    for number in 0..1_000_000 {
        subject.set(number, &[7; 100]);
    }
    for round in 1..=3 {
        let large = 2_000_000..2_050_000;
        for number in large.clone() {
            subject.set(number, &[7; 1000]);
        }
        let present = large.filter(|&number| subject.has(number)).count();
        let stats = subject.store.stats();
        println!(
            "round {round}: {present} of 50000 present ({:.2} %), index {:.2} MiB for {} items",
            percent(present as f64, 50_000.0),
            stats.index_bytes as f64 / f64::from(1 << 20),
            stats.items
        );
    }
}
