//! From bytes to work: parse what a connection sent, and give it to the service, batch by batch.

use arrayvec::ArrayVec;
use corecached_net::outbox;
use corecached_protocol::{Parsed, Parser};

use crate::batch::{BATCH_COMMANDS_MAX, Ready, parse_ready};
use crate::core::Core;
use crate::mesh::owner::owner_of;
use crate::service::{Service, Step};
use crate::session::{Session, State};

/// Commands of one connection that are carried out in one turn. Then other connections have their turn.
const COMMANDS_PER_TURN: usize = 512;

impl<S: Service> Core<S> {
    /// Works on `input`, which is what the session received and has not been parsed. Returns how many bytes
    /// of it have been handled.
    pub(crate) fn consume(&mut self, service: &mut S, session: &mut Session<S>, input: &[u8]) -> usize {
        session.stalled = false;
        let mut at = 0;
        let mut commands = 0;
        loop {
            let rest = &input[at..];
            match &mut session.state {
                State::Closing => return input.len(),
                State::Barrier(_) => {
                    if !session.replies.is_caught_up() {
                        session.stalled = true;
                        return at;
                    }
                    if let State::Barrier(barrier) = std::mem::take(&mut session.state) {
                        service.pass_barrier(self, session, *barrier);
                    }
                }
                State::Gather(gather) => {
                    if gather.missing > 0 {
                        session.stalled = true;
                        return at;
                    }
                    if let State::Gather(gather) = std::mem::take(&mut session.state) {
                        service.gathered(self, session, *gather);
                    }
                }
                State::Task(_) => match service.resume(self, session, rest) {
                    Step::Took(taken) => at += taken,
                    step => return self.stop(session, step, at),
                },
                _ if rest.is_empty() => return at,
                State::Swallow(left) => {
                    let skipped = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= skipped as u64;
                    if *left == 0 {
                        session.state = State::Command;
                    }
                    at += skipped;
                }
                State::Command => {
                    if !session.replies.has_slot() {
                        session.stalled = true; // until a reply has been sent
                        return at;
                    }
                    if commands >= COMMANDS_PER_TURN || self.output_len(session) >= outbox::HIGH_WATER_BYTES {
                        self.counters.conn_yields += 1;
                        return self.stop(session, Step::Full, at);
                    }
                    let batch = self.parse_batch(service, session.parser, rest);
                    if !batch.is_empty() {
                        commands += batch.len();
                        match self.execute_batch(service, session, &batch) {
                            Ok(taken) => at += taken,
                            Err(taken) => return self.stop(session, Step::Full, at + taken),
                        }
                        continue;
                    }
                    commands += 1;
                    let before = session.parser;
                    match session.parser.parse(rest, &self.limits) {
                        Ok(Parsed::Complete { value, consumed }) => {
                            let (line, after) = rest.split_at(consumed);
                            match service.command(self, session, &value, line, after) {
                                Step::Took(data) => at += consumed + data,
                                step => {
                                    session.parser = before;
                                    return self.stop(session, step, at);
                                }
                            }
                        }
                        Ok(Parsed::NeedMore) => return at,
                        Err(rejected) => {
                            at += rejected.consumed;
                            service.reject(self, session, &rejected);
                        }
                    }
                }
            }
        }
    }

    /// The session stops after `at` bytes of its input, because of `step`.
    fn stop(&mut self, session: &mut Session<S>, step: Step, at: usize) -> usize {
        session.stalled = matches!(step, Step::Stalled | Step::Full);
        if step == Step::Full {
            self.list(session);
        }
        at
    }

    /// The commands on keys at the front of `input`, as far as they have come whole. What they will read is
    /// on its way into the cache of the CPU.
    #[inline]
    fn parse_batch<'a>(
        &self,
        service: &S,
        mut parser: Parser,
        input: &'a [u8],
    ) -> ArrayVec<Ready<'a>, BATCH_COMMANDS_MAX> {
        let mut batch = ArrayVec::new();
        let mut at = 0;
        while !batch.is_full() && at < input.len() {
            let hash_of = |key: &[u8]| service.hash_of(self, key);
            let value_bytes_max = |key_len, flags| service.value_bytes_max(key_len, flags);
            let parsed = parse_ready(&mut parser, &input[at..], &self.limits, hash_of, value_bytes_max);
            let Some(ready) = parsed else { break };
            at += ready.consumed;
            if S::PREFETCHES && owner_of(ready.hash, self.mesh.shards()) == self.me {
                service.prefetch(ready.hash);
            }
            batch.push(ready);
        }
        // The index lines have had the time of the parsing to arrive. A single command would only wait twice.
        if S::PREFETCHES && batch.len() > 1 {
            for ready in &batch {
                if owner_of(ready.hash, self.mesh.shards()) == self.me {
                    service.prefetch_item(ready.hash);
                }
            }
        }
        batch
    }

    /// Carries out a batch. Returns the bytes it took, or, as an error, those of the commands that there was
    /// room for.
    #[inline]
    fn execute_batch(
        &mut self,
        service: &mut S,
        session: &mut Session<S>,
        batch: &[Ready<'_>],
    ) -> Result<usize, usize> {
        let mut taken = 0;
        for ready in batch {
            if !session.replies.has_slot() || !service.execute(self, session, ready) {
                return Err(taken);
            }
            session.parser = ready.parser;
            taken += ready.consumed;
        }
        Ok(taken)
    }
}
