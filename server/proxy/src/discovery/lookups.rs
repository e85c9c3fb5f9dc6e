//! The thread that looks names up: a DNS server that does not answer does not delay other changes.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::dns::Dns;
use super::found::Found;
use super::slices::SlicesFound;
use crate::config::Config;

/// Most lookups that are pending.
const QUESTIONS_MAX: usize = 1;

/// One lookup of all names of a configuration: the arguments of [`Dns::find`].
#[derive(Debug)]
pub(crate) struct Question {
    /// The configuration whose names are looked up.
    pub(crate) config: Arc<Config>,
    /// What was known before, which is kept for names that cannot be found.
    pub(crate) before: Found,
    /// The Services whose endpoints are known, which are not looked up.
    pub(crate) slices: SlicesFound,
}

/// The thread that looks names up, one configuration at a time.
#[derive(Debug)]
pub(crate) struct Lookups {
    questions: Sender<Question>,
    answers: Receiver<(Question, Found)>,
    pending: bool,
}

impl Lookups {
    /// Starts the thread, which ends when this value is dropped. It sends to `wake` after each answer.
    #[must_use]
    pub(crate) fn start(dns: Dns, wake: Sender<()>) -> Self {
        let (questions, asked) = bounded::<Question>(QUESTIONS_MAX);
        let (answering, answers) = bounded(QUESTIONS_MAX);
        std::thread::spawn(move || {
            for question in asked {
                let found = dns.find(&question.config, &question.before, &question.slices);
                if answering.send((question, found)).is_err() {
                    return;
                }
                let _ = wake.try_send(()); // full: the receiver is woken already
            }
        });
        Self { questions, answers, pending: false }
    }

    /// Whether the last question has not been answered.
    #[must_use]
    pub(crate) fn is_pending(&self) -> bool {
        self.pending
    }

    /// Begins a lookup. None may be pending.
    pub(crate) fn ask(&mut self, question: Question) {
        assert!(!self.pending, "one lookup at a time");
        self.pending = self.questions.try_send(question).is_ok();
    }

    /// The pending question with its answer, if that has come.
    #[must_use]
    pub(crate) fn take_answer(&mut self) -> Option<(Question, Found)> {
        self.wait_for_answer(Duration::ZERO)
    }

    /// The pending question with its answer, which is waited for up to `time`.
    #[must_use]
    pub(crate) fn wait_for_answer(&mut self, time: Duration) -> Option<(Question, Found)> {
        let answer = self.answers.recv_timeout(time).ok()?;
        self.pending = false;
        Some(answer)
    }
}
