//! How soon the memory of expired items is free: a mix of lives, stored for a while, then watched.

use corecached_engine::{Seconds, StoreHow};

use crate::support::{START, Subject, mix, name};

const ITEMS_PER_SECOND: u64 = 2_000;

/// For each life alone and for all at once: when 80 % and all of the expired bytes are free, in lives after
/// the last item was stored.
pub fn freed() {
    for lives in [&[10][..], &[60], &[300], &[1_000], &[3_600], &[10, 60, 300, 1_000, 3_600]] {
        let mut subject = Subject::new(256 << 20);
        let mut now = START;
        // Long enough for what is stored first to expire while the rest comes in.
        let longest = lives.iter().copied().max().unwrap_or(1);
        let filling_s = (longest * 2).min(400_000_000 / (ITEMS_PER_SECOND as u32 * 134));
        let (mut stored, mut number) = (Vec::new(), 0);
        for second in 0..filling_s {
            for _ in 0..ITEMS_PER_SECOND {
                let life = lives[mix(number) as usize % lives.len()];
                let name = name(number);
                let key = subject.key(&name);
                let expires = Some(Seconds(now.0 + life));
                subject.store.store(key, &[7; 100], &StoreHow { expires, ..StoreHow::default() }, now);
                number += 1;
            }
            stored.push((second, now));
            while subject.store.maintain(now, 1_000) {}
            now.0 += 1;
        }
        let last = Seconds(now.0 - 1);
        let evictions = subject.store.stats().evictions;
        let segment_bytes = subject.store.stats().segment_bytes as f64;
        let in_use = |subject: &Subject| subject.store.stats().arena_bytes as f64;
        let full = in_use(&subject);
        let (mut most, mut all) = (None, None);
        while all.is_none() && now.0 < last.0 + longest * 3 {
            while subject.store.maintain(now, 1_000) {}
            let left = in_use(&subject);
            // By then so much of what is left should have expired: lives are alike in number and rate.
            let passed = now.0 - last.0;
            if most.is_none() && passed >= longest && left <= full * 0.2 {
                most = Some(passed);
            }
            if left < segment_bytes {
                all = Some(passed);
            }
            now.0 += 1;
        }
        let show = |at: Option<u32>| at.map_or("never".into(), |s: u32| format!("{s} s"));
        println!(
            "lives {lives:?}: {number} items in {filling_s} s, {evictions} evicted; 80 % of the bytes free {} after the last \
             was stored (bound {:.0} s), all {} (bound {:.0} s)",
            show(most),
            f64::from(longest) * 1.2 + 1.0,
            show(all),
            f64::from(longest) * 1.35 + 1.0,
        );
    }
}
