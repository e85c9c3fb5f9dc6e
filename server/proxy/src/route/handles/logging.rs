//! `LoggingRoute`: one log line for each request and its reply. The only line a request ever writes, and only
//! under such a handle.
//!
//! A core writes so many lines of a handle a second and no more: with the defaults, and the longest keys,
//! less than 1 GB a day.
//! What is left out is counted, and the next line says how many.

use std::cell::Cell;

use corecached_protocol::{ErrorKind, Reply};
use serde_json::{Value, json};

use super::null::Null;
use crate::config::{Builder, Checked, Child, Config, HandleId, Limit, WrittenHandle};
use crate::request::OwnedRequest;
use crate::route::bucket::Bucket;
use crate::route::compile::{Compiled, Compiler};
use crate::route::frame::{Frame, Parent, Step};
use crate::route::handle::RouteHandle;
use crate::route::node::{Listed, RouteNode};
use crate::route::node_set::NodeId;
use crate::route::slab::SlotId;
use crate::route::tree::Tree;

/// The lines of a `LoggingRoute`, unless it says otherwise: a second, and at once.
pub(in crate::route) const LINES: Limit = Limit { rate: 10.0, burst: 100.0 };

/// `LoggingRoute`.
#[derive(Clone, Debug)]
pub(crate) struct LoggingRoute {
    target: HandleId,
    /// Lines a second of each core.
    lines: Limit,
}

impl RouteHandle for LoggingRoute {
    const NAMES: &'static [&'static str] = &["LoggingRoute"];

    fn parse(builder: &mut Builder, &WrittenHandle { json, name, .. }: &WrittenHandle) -> Checked<HandleId> {
        let part = Builder::target_part(json);
        let target = match json.get(part) {
            Some(_) => builder.handle_at(json, name, part)?,
            None => builder.push(Null, json)?,
        };
        let rate = builder.number_at(json, "lines_rate", LINES.rate, 0.001, 1e6)?;
        let burst = builder.number_at(json, "lines_burst", LINES.burst, 1.0, 1e6)?;
        builder.push(Self { target, lines: Limit { rate, burst } }, json)
    }

    fn children(&self) -> Vec<Child> {
        vec![Child::Handle(self.target)]
    }

    fn show(&self, config: &Config) -> Value {
        json!({
            "target": config.child_json(self.target),
            "lines_rate": self.lines.rate,
            "lines_burst": self.lines.burst,
        })
    }

    fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
        let target = compiler.node(self.target);
        Ok(compiler.push(Logging { target, lines: self.lines }))
    }
}

/// Writes a log line for each request and its reply.
#[derive(Debug)]
pub(in crate::route) struct Logging {
    pub target: NodeId,
    pub lines: Limit,
}

/// The lines that a shard may write, and how many requests were not logged since the last line.
#[derive(Debug)]
pub(in crate::route) struct LineBudget {
    bucket: Bucket,
    left_out: Cell<u64>,
}

/// A request whose reply is logged.
#[derive(Debug)]
pub(in crate::route) struct LoggedRequest;

impl RouteNode for Logging {
    type State = LineBudget;
    type Progress = LoggedRequest;

    fn state(&self) -> LineBudget {
        LineBudget { bucket: Bucket::full(self.lines), left_out: Cell::new(0) }
    }

    fn start(&self, _: &LineBudget, step: &mut Step, node: NodeId, request: OwnedRequest, parent: Parent) {
        let sent = [(self.target, request.clone())];
        step.open_with(node, &request, parent, Self::waiting(LoggedRequest), sent);
    }

    fn replied(
        &self,
        budget: &LineBudget,
        frame: &mut Frame,
        step: &mut Step,
        _: SlotId,
        _: u32,
        reply: Reply,
    ) {
        budget.bucket.fill_by_time(self.lines, step.now_ms);
        if budget.bucket.take() {
            let left_out = budget.left_out.take();
            write(&frame.routes.tree, self.target, &frame.request, &reply, left_out);
        } else {
            budget.left_out.set(budget.left_out.get() + 1);
        }
        frame.answer(step, reply);
    }

    fn only_child(&self) -> Option<NodeId> {
        Some(self.target)
    }
}

/// mcrouter's fields, and after them what it does not say. A destination is named where the key alone decides
/// it.
fn write(tree: &Tree, target: NodeId, request: &OwnedRequest, reply: &Reply, left_out: u64) {
    let destination = tree.usual(target, request.key(), request.operation()).map_or_else(
        || "several".to_owned(),
        |id| tree.destinations[id.0 as usize].server.address.to_string(),
    );
    let operation = format!("{:?}", request.operation()).to_lowercase();
    let left_out = match left_out {
        0 => String::new(),
        count => format!(" ({count} requests before it not logged)"),
    };
    tracing::info!(
        target: crate::LOGGING_ROUTE_TARGET,
        "request key: {}{} response: {} responseLength: {} operation: {operation} requestLength: {} destination: {destination}{left_out}",
        request.prefix().escape_ascii(),
        request.key().escape_ascii(),
        name(reply),
        value_len(reply),
        request.data().len(),
    );
}

const fn value_len(reply: &Reply) -> usize {
    match reply {
        Reply::Value { value, .. } | Reply::Meta { value: Some(value), .. } => value.len(),
        _ => 0,
    }
}

/// By mcrouter's names.
fn name(reply: &Reply) -> &'static str {
    match reply {
        Reply::Value { .. } => "found",
        Reply::Miss | Reply::NotFound => "notfound",
        Reply::Stored | Reply::Number(_) => "stored",
        Reply::NotStored => "notstored",
        Reply::Exists => "exists",
        Reply::Deleted => "deleted",
        Reply::Touched => "touched",
        Reply::Done => "ok",
        Reply::Meta { line, .. } => match line.get(..2) {
            Some(b"VA") => "found",
            Some(b"EN" | b"NF") => "notfound",
            Some(b"NS") => "notstored",
            Some(b"EX") => "exists",
            _ => "ok",
        },
        Reply::Error { kind, .. } => match kind {
            ErrorKind::Busy => "busy",
            ErrorKind::Timeout => "timeout",
            ErrorKind::ConnectTimeout => "connect_timeout",
            ErrorKind::Connect => "connect_error",
            ErrorKind::Ejected => "tko",
            ErrorKind::Shutdown => "shutdown",
            ErrorKind::TryAgain => "try_again",
            ErrorKind::BadKey => "bad_key",
            ErrorKind::Remote => "remote_error",
            ErrorKind::Local => "local_error",
            ErrorKind::Client => "client_error",
        },
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use corecached_protocol::Reply;

    use crate::config::Options;
    use crate::route::tests::{Bench, POOLS, TIMEOUT, error, options, value};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is logged while `act` runs.
    fn logged(act: impl FnOnce()) -> Vec<String> {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .with_level(false)
            .finish();
        tracing::subscriber::with_default(subscriber, act);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| line.trim().to_owned()).collect()
    }

    #[test]
    fn a_request_its_reply_and_its_destination_are_logged() {
        let mut bench = Bench::new(r#"{"type": "LoggingRoute", "target": "PoolRoute|a"}"#);
        let lines = logged(|| {
            bench.get();
            assert_eq!(bench.reply("a get k", value("abc")), Some(value("abc")));
            bench.ask("set /././k 0 0 2", "xy");
            assert_eq!(bench.reply("a set k 0 xy", error(TIMEOUT)), Some(error(TIMEOUT)));
        });
        assert_eq!(
            lines,
            [
                "request key: k response: found responseLength: 3 operation: get requestLength: 0 destination: a:1",
                "request key: /././k response: timeout responseLength: 0 operation: set requestLength: 2 destination: a:1",
            ]
        );
        bench.done();
    }

    #[test]
    fn lines_have_a_rate_and_say_how_many_were_left_out() {
        let mut bench = Bench::new(
            r#"{"type": "LoggingRoute", "target": "NullRoute", "lines_rate": 2, "lines_burst": 3}"#,
        );
        let lines = logged(|| {
            for _ in 0..10 {
                assert_eq!(bench.get(), Some(Reply::Miss));
            }
            bench.now_ms += 500;
            bench.get();
            bench.get();
        });
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(!lines[2].contains("not logged"));
        assert!(lines[3].ends_with("destination: several (7 requests before it not logged)"), "{}", lines[3]);
        bench.done();
    }

    #[test]
    fn nothing_is_logged_without_the_handle_and_everything_with_the_option() {
        let text = format!("{{{POOLS}, \"route\": \"PoolRoute|a\"}}");
        for (log_all, expected) in [(false, 0), (true, 1)] {
            let mut bench = Bench::with(&text, &Options { log_all, ..options() });
            let lines = logged(|| {
                bench.get();
                bench.reply("a get k", Reply::Miss);
            });
            assert_eq!(lines.len(), expected, "{lines:?}");
        }
    }
}
