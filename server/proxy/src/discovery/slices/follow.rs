//! One Service, listed and watched until nobody wants it. What is known stays while the API server is away for a moment;
//! after that, or when it has never said, the Service is given back to DNS, and taken again when the server answers. A
//! refusal is no exception: a server that has just started refuses everybody, until it has read who may do what.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;

use super::SlicesFound;
use super::client::{Access, Fault, Pace};
use super::endpoints::{Endpoint, Known, version};
use crate::config::Service;

/// How long the server lets a watch last, seconds.
const WATCH_S: u64 = 300;
/// Time for a list.
const LIST_TIME: Duration = Duration::from_secs(5);
/// Bytes of a list, and of one slice, which has at most a thousand endpoints of about half a KiB each.
const LIST_BYTES_MAX: usize = 32 << 20;
const LINE_BYTES_MAX: usize = 2 << 20;
/// The first pause before the server is asked again; each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// A watch that ends sooner counts as a failure.
const WATCH_SHORT: Duration = Duration::from_secs(1);

struct Follower {
    access: Arc<Access>,
    service: Service,
    findings: watch::Sender<SlicesFound>,
    known: Option<Known>,
    /// When the last watch began.
    watched: Option<Instant>,
    /// Since when there has been none.
    lost: Option<Instant>,
    /// The log has it that the server refuses.
    refused: bool,
    /// The log has it that nobody is ready, and those that end are used.
    all_end: bool,
}

/// Never ends.
pub(super) async fn follow(access: Arc<Access>, service: Service, findings: watch::Sender<SlicesFound>) {
    let Pace { pause_max, patience, .. } = access.pace;
    let mut follower = Follower {
        access,
        service,
        findings,
        known: None,
        watched: None,
        lost: None,
        refused: false,
        all_end: false,
    };
    let mut pause = PAUSE_MIN;
    loop {
        let begun = Instant::now();
        let outcome = follower.round().await;
        let has_watched = follower.watched.is_some_and(|watched| watched > begun);
        let has_lasted = has_watched && begun.elapsed() >= WATCH_SHORT;
        if has_lasted {
            pause = PAUSE_MIN;
        }
        match outcome {
            Ok(()) if has_lasted => continue,
            Ok(()) => {}
            Err(fault) => {
                // It is listed again.
                follower.known = None;
                let lost = *follower.lost.get_or_insert_with(Instant::now);
                if !follower.is_told() || lost.elapsed() >= patience {
                    follower.give_up(&fault);
                }
            }
        }
        // Between half of it and all of it: proxies must not all come at once. What is known is given up in time.
        let jittered = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        let lost = follower.lost.filter(|_| follower.is_told());
        let left = lost.map_or(jittered, |lost| patience.saturating_sub(lost.elapsed()));
        tokio::time::sleep(jittered.min(left)).await;
        pause = (pause * 2).min(pause_max);
    }
}

impl Follower {
    /// A list, if one is needed, and a watch to its end.
    async fn round(&mut self) -> Result<(), Fault> {
        let mut known = match self.known.take() {
            Some(known) => known,
            None => within_list(self.list()).await?,
        };
        let outcome = self.watch(&mut known).await;
        self.known = Some(known);
        outcome
    }

    fn path(&self) -> String {
        let Service { namespace, name } = &self.service;
        format!(
            "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{name}"
        )
    }

    async fn list(&self) -> Result<Known, Fault> {
        let body = self.access.get(&self.path()).await?.whole(LIST_BYTES_MAX).await?;
        let json = serde_json::from_slice(&body).map_err(|error| Fault::Broken(error.to_string()))?;
        Known::list(&json).map_err(Fault::Broken)
    }

    async fn watch(&mut self, known: &mut Known) -> Result<(), Fault> {
        let version = &known.version;
        let mut path = self.path();
        path.push_str(&format!(
            "&watch=1&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds={WATCH_S}"
        ));
        let mut body = self.access.get(&path).await?;
        // Not before it may be watched: what is only listed is soon out of date.
        let is_first = !self.is_told();
        self.show(known);
        if is_first && known.is_empty() {
            tracing::warn!("there is no EndpointSlice of {}: name a Service that is there", self.service);
        }
        (self.watched, self.lost, self.refused) = (Some(Instant::now()), None, false);
        let silence_max = self.access.pace.silence_max;
        loop {
            let Ok(line) = tokio::time::timeout(silence_max, body.line(LINE_BYTES_MAX)).await else {
                return Ok(()); // it goes on where it was, unless the server hangs
            };
            let Some(line) = line? else { return Ok(()) };
            if apply(known, &line)? {
                self.show(known);
            }
        }
    }

    /// Whether it is this that the Service's members are known by.
    fn is_told(&self) -> bool {
        self.findings.borrow().get(&self.service).is_some_and(Option::is_some)
    }

    /// The Service's members are those of `known`.
    fn show(&mut self, known: &Known) {
        let members = known.members();
        let all_end = known.all_end();
        match (std::mem::replace(&mut self.all_end, all_end), all_end) {
            (false, true) => tracing::warn!(
                "no endpoint of {} is ready: those that end and still serve are used, {} of them",
                self.service,
                members.len()
            ),
            (true, false) => {
                tracing::info!("those endpoints of {} that end are not used any more", self.service)
            }
            _ => {}
        }
        self.tell(Some(members));
    }

    /// Says so once, and once more when it turns out that the server refuses: that does not pass by itself.
    fn give_up(&mut self, fault: &Fault) {
        let is_refused = matches!(fault, Fault::Refused(_));
        let is_news = self.tell(None);
        if is_news || (is_refused && !self.refused) {
            tracing::warn!("EndpointSlices of {}: {fault}; DNS is asked instead", self.service);
        }
        self.refused |= is_refused;
    }

    /// Whether that is news.
    fn tell(&mut self, members: Option<Vec<Endpoint>>) -> bool {
        if let Some(members) = &members
            && !self.is_told()
        {
            tracing::info!("EndpointSlices of {} are followed: {} members", self.service, members.len());
        }
        self.findings.send_if_modified(|found| {
            let is_news = found.get(&self.service) != Some(&members);
            if is_news {
                found.insert(self.service.clone(), members);
            }
            is_news
        })
    }
}

async fn within_list(list: impl Future<Output = Result<Known, Fault>>) -> Result<Known, Fault> {
    match tokio::time::timeout(LIST_TIME, list).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Fault::Broken(format!("no list within {LIST_TIME:?}"))),
    }
}

/// What one line of a watch says; whether members may have changed.
fn apply(known: &mut Known, line: &[u8]) -> Result<bool, Fault> {
    let event: Value = serde_json::from_slice(line).map_err(|error| Fault::Broken(error.to_string()))?;
    let object = event.get("object").unwrap_or(&Value::Null);
    let is_change = match event.get("type").and_then(Value::as_str) {
        Some("ADDED" | "MODIFIED") => known.put(object).map_err(Fault::Broken).map(|()| true)?,
        Some("DELETED") => {
            known.remove(object);
            true
        }
        Some("BOOKMARK") => false,
        Some("ERROR") if object.get("code").and_then(Value::as_u64) == Some(410) => {
            return Err(Fault::Expired);
        }
        Some("ERROR") => {
            let message =
                object.get("message").and_then(Value::as_str).unwrap_or("an error without a message");
            return Err(Fault::Broken(message.chars().take(200).collect()));
        }
        kind => return Err(Fault::Broken(format!("an event of type {kind:?}"))),
    };
    known.version = version(object).ok_or_else(|| Fault::Broken("an event without a version".into()))?;
    Ok(is_change)
}
