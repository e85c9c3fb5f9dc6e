//! What a load thread counts.

use hdrhistogram::Histogram;

use crate::Failure;

/// Longest latency told apart, nanoseconds; longer ones count as this.
const LATENCY_NS_MAX: u64 = 100_000_000_000;
/// Digits of a latency that are exact.
const LATENCY_DIGITS: u8 = 3;
/// Bad replies kept in words.
const EXAMPLES_MAX: usize = 5;

/// Counters and histograms of one thread.
#[derive(Debug)]
pub struct Tally {
    /// Nanoseconds from the instant a get was due to its last byte.
    pub get_ns: Histogram<u64>,
    /// The same of sets.
    pub set_ns: Histogram<u64>,
    /// Counters.
    pub counts: Counts,
    /// By interval of the measured time: requests answered, longest latency in nanoseconds.
    pub intervals: Vec<(u64, u64)>,
    /// 99th percentiles of the tenths of a second that an open loop has finished, nanoseconds.
    pub tenths_p99_ns: Vec<u64>,
    /// The tenth that is going on, and its latencies.
    tenth: u64,
    tenth_ns: Histogram<u64>,
    /// What was wrong, in words, the first few times.
    pub examples: Vec<String>,
}

/// Counters of one thread. Requests are counted when they are answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Gets, of one or more keys.
    pub gets: u64,
    /// Sets.
    pub sets: u64,
    /// Keys that were found.
    pub hits: u64,
    /// Keys that were not.
    pub misses: u64,
    /// Sets answered NOT_STORED.
    pub not_stored: u64,
    /// Requests answered SERVER_ERROR.
    pub server_errors: u64,
    /// Values that are not what was written: another key's, torn, of a wrong length, or never written.
    pub wrong: u64,
    /// Values that were overwritten before the read was sent.
    pub stale: u64,
    /// Connections given up because a reply made no sense or the server closed them.
    pub broken: u64,
    /// Requests without an answer when their connection, or the run, ended.
    pub unanswered: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
}

impl Tally {
    /// All zero.
    ///
    /// # Errors
    /// Without memory for histograms.
    pub fn new() -> Result<Self, Failure> {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS)
                .map_err(|error| Failure::new(format!("histogram: {error}")))
        };
        Ok(Self {
            get_ns: histogram()?,
            set_ns: histogram()?,
            counts: Counts::default(),
            intervals: Vec::new(),
            tenths_p99_ns: Vec::new(),
            tenth: 0,
            tenth_ns: histogram()?,
            examples: Vec::new(),
        })
    }

    /// Forget what was counted, but not what was wrong.
    pub fn restart(&mut self) {
        self.get_ns.reset();
        self.set_ns.reset();
        self.intervals.clear();
        self.tenths_p99_ns.clear();
        self.tenth_ns.reset();
        let was = std::mem::take(&mut self.counts);
        self.counts.wrong = was.wrong;
        self.counts.stale = was.stale;
        self.counts.broken = was.broken;
    }

    /// So many gets and sets took so long.
    #[inline]
    pub fn answered(&mut self, gets: u64, sets: u64, latency_ns: u64) {
        self.counts.gets += gets;
        self.counts.sets += sets;
        if gets > 0 {
            self.get_ns.saturating_record_n(latency_ns.max(1), gets);
        }
        if sets > 0 {
            self.set_ns.saturating_record_n(latency_ns.max(1), sets);
        }
    }

    /// The same in this interval of the run.
    #[inline]
    pub fn in_interval(&mut self, index: usize, requests: u64, latency_ns: u64) {
        if index >= self.intervals.len() {
            self.intervals.resize(index + 1, (0, 0));
        }
        let interval = &mut self.intervals[index];
        interval.0 += requests;
        interval.1 = interval.1.max(latency_ns);
    }

    /// The same in this tenth of a second of the run. A request that is late for its tenth counts in the next.
    #[inline]
    pub fn in_tenth(&mut self, index: u64, requests: u64, latency_ns: u64) {
        if index > self.tenth {
            self.end_tenth();
            self.tenth = index;
        }
        self.tenth_ns.saturating_record_n(latency_ns.max(1), requests);
    }

    /// The tenth that is going on is over.
    pub fn end_tenth(&mut self) {
        if !self.tenth_ns.is_empty() {
            self.tenths_p99_ns.push(self.tenth_ns.value_at_quantile(0.99));
            self.tenth_ns.reset();
        }
    }

    /// Keep what was wrong in words, unless enough are kept.
    #[cold]
    pub fn example(&mut self, words: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(words());
        }
    }
}
