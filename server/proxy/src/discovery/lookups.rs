//! Names looked up by a thread of its own: a DNS server that does not answer holds nobody up who has other news.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{Dns, Found, SlicesFound};
use crate::config::Config;

/// Questions and answers under way.
const QUESTIONS_MAX: usize = 1;

/// What to look up, as [`Dns::find`] takes it.
#[derive(Debug)]
pub struct Question {
    /// Whose names.
    pub config: Arc<Config>,
    /// What was known.
    pub before: Found,
    /// What is told, and not to be looked up.
    pub slices: SlicesFound,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Lookups {
    questions: Sender<Question>,
    answers: Receiver<(Question, Found)>,
    under_way: bool,
}

impl Lookups {
    /// The thread begins with nothing to look up, and ends with this. There is word in `news` of each answer.
    #[must_use]
    pub fn start(dns: Dns, news: Sender<()>) -> Self {
        let (questions, asked) = bounded::<Question>(QUESTIONS_MAX);
        let (answering, answers) = bounded(QUESTIONS_MAX);
        std::thread::spawn(move || {
            for question in asked {
                let found = dns.find(&question.config, &question.before, &question.slices);
                if answering.send((question, found)).is_err() {
                    return;
                }
                let _ = news.try_send(()); // full: there is word already
            }
        });
        Self { questions, answers, under_way: false }
    }

    /// Whether the last question waits for its answer.
    #[must_use]
    pub fn under_way(&self) -> bool {
        self.under_way
    }

    /// Has this looked up. Nothing may be under way.
    pub fn ask(&mut self, question: Question) {
        assert!(!self.under_way);
        self.under_way = self.questions.try_send(question).is_ok();
    }

    /// The question that was under way, and what was found; once.
    #[must_use]
    pub fn answer(&mut self) -> Option<(Question, Found)> {
        self.answer_within(Duration::ZERO)
    }

    /// The same, waited for at most so long.
    #[must_use]
    pub fn answer_within(&mut self, time: Duration) -> Option<(Question, Found)> {
        let answer = self.answers.recv_timeout(time).ok()?;
        self.under_way = false;
        Some(answer)
    }
}
