//! Lists and watches one Service. What is known is kept while the API server is away for a short time. After
//! that, or if the server has never answered, DNS is used for the Service until the server answers. A refusal
//! is treated in the same way: a server that has just started refuses all requests until it has read its
//! access rules.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;

use super::SlicesFound;
use super::client::{ApiAccess, ApiError, RetryPolicy};
use super::endpoints::{Endpoint, KnownSlices, version};
use crate::config::Service;

/// How long the server keeps a watch open, seconds.
const WATCH_S: u64 = 300;
/// The time in which a list must have come.
const LIST_TIME: Duration = Duration::from_secs(5);
/// Most bytes of a list, and of one slice, which has at most a thousand endpoints of about half a KiB each.
const LIST_BYTES_MAX: usize = 32 << 20;
const LINE_BYTES_MAX: usize = 2 << 20;
/// The first pause before the server is asked again. Each further pause is twice as long as the one before.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// A watch that ends sooner counts as a failure.
const WATCH_SHORT: Duration = Duration::from_secs(1);

struct Follower {
    access: Arc<ApiAccess>,
    service: Service,
    findings: watch::Sender<SlicesFound>,
    known: Option<KnownSlices>,
    /// When the last watch began.
    watched: Option<Instant>,
    /// Since when there has been no watch.
    lost: Option<Instant>,
    /// It was logged that the server refuses.
    refused: bool,
    /// It was logged that no endpoint is ready, so that terminating ones are used.
    all_end: bool,
}

/// Follows `service` for ever: the task is aborted when it is not needed any more.
pub(super) async fn follow(access: Arc<ApiAccess>, service: Service, findings: watch::Sender<SlicesFound>) {
    let RetryPolicy { pause_max, patience, .. } = access.retry;
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
            Err(error) => {
                // The Service is listed again.
                follower.known = None;
                let lost = *follower.lost.get_or_insert_with(Instant::now);
                if !follower.is_published() || lost.elapsed() >= patience {
                    follower.give_up(&error);
                }
            }
        }
        // Between half of the pause and all of it, so that proxies do not ask all at once; but not past the
        // time at which what is known must be given up.
        let jittered = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        let lost = follower.lost.filter(|_| follower.is_published());
        let left = lost.map_or(jittered, |lost| patience.saturating_sub(lost.elapsed()));
        tokio::time::sleep(jittered.min(left)).await;
        pause = (pause * 2).min(pause_max);
    }
}

impl Follower {
    /// Lists the Service, if that is needed, and watches it until the watch ends.
    async fn round(&mut self) -> Result<(), ApiError> {
        let mut known = match self.known.take() {
            Some(known) => known,
            None => within_list_time(self.list()).await?,
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

    async fn list(&self) -> Result<KnownSlices, ApiError> {
        let body = self.access.get(&self.path()).await?.whole(LIST_BYTES_MAX).await?;
        let json = serde_json::from_slice(&body).map_err(|error| ApiError::Broken(error.to_string()))?;
        Ok(KnownSlices::from_list(&json)?)
    }

    async fn watch(&mut self, known: &mut KnownSlices) -> Result<(), ApiError> {
        let version = &known.version;
        let mut path = self.path();
        path.push_str(&format!(
            "&watch=1&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds={WATCH_S}"
        ));
        let mut body = self.access.get(&path).await?;
        // Only now that it may be watched too: a list alone is soon outdated.
        let is_first = !self.is_published();
        self.publish_known(known);
        if is_first && known.is_empty() {
            tracing::warn!("there is no EndpointSlice of {}: name a Service that is there", self.service);
        }
        (self.watched, self.lost, self.refused) = (Some(Instant::now()), None, false);
        let silence_max = self.access.retry.silence_max;
        loop {
            let Ok(line) = tokio::time::timeout(silence_max, body.line(LINE_BYTES_MAX)).await else {
                return Ok(()); // the next watch continues where this one ended, unless the server hangs
            };
            let Some(line) = line? else { return Ok(()) };
            if apply(known, &line)? {
                self.publish_known(known);
            }
        }
    }

    /// Whether the Service's members are known from here.
    fn is_published(&self) -> bool {
        self.findings.borrow().get(&self.service).is_some_and(Option::is_some)
    }

    /// Publishes the members of `known`.
    fn publish_known(&mut self, known: &KnownSlices) {
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
        self.publish(Some(members));
    }

    /// Leaves the Service to DNS. That is logged once, and once more if the server refuses, which does not
    /// pass by itself.
    fn give_up(&mut self, error: &ApiError) {
        let is_refused = matches!(error, ApiError::Refused(_));
        let is_changed = self.publish(None);
        if is_changed || (is_refused && !self.refused) {
            tracing::warn!("EndpointSlices of {}: {error}; DNS is asked instead", self.service);
        }
        self.refused |= is_refused;
    }

    /// Publishes the members, `None` if they are not known. Returns whether they changed.
    fn publish(&mut self, members: Option<Vec<Endpoint>>) -> bool {
        if let Some(members) = &members
            && !self.is_published()
        {
            tracing::info!("EndpointSlices of {} are followed: {} members", self.service, members.len());
        }
        self.findings.send_if_modified(|found| {
            let is_changed = found.get(&self.service) != Some(&members);
            if is_changed {
                found.insert(self.service.clone(), members);
            }
            is_changed
        })
    }
}

async fn within_list_time(
    list: impl Future<Output = Result<KnownSlices, ApiError>>,
) -> Result<KnownSlices, ApiError> {
    match tokio::time::timeout(LIST_TIME, list).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ApiError::Broken(format!("no list within {LIST_TIME:?}"))),
    }
}

/// Applies one line of a watch. Returns whether members may have changed.
fn apply(known: &mut KnownSlices, line: &[u8]) -> Result<bool, ApiError> {
    let event: Value = serde_json::from_slice(line).map_err(|error| ApiError::Broken(error.to_string()))?;
    let object = event.get("object").unwrap_or(&Value::Null);
    let is_change = match event.get("type").and_then(Value::as_str) {
        Some("ADDED" | "MODIFIED") => {
            known.put(object)?;
            true
        }
        Some("DELETED") => {
            known.remove(object);
            true
        }
        Some("BOOKMARK") => false,
        Some("ERROR") if object.get("code").and_then(Value::as_u64) == Some(410) => {
            return Err(ApiError::Expired);
        }
        Some("ERROR") => {
            let message =
                object.get("message").and_then(Value::as_str).unwrap_or("an error without a message");
            return Err(ApiError::Broken(message.chars().take(200).collect()));
        }
        kind => return Err(ApiError::Broken(format!("an event of type {kind:?}"))),
    };
    known.version = version(object).ok_or_else(|| ApiError::Broken("an event without a version".into()))?;
    Ok(is_change)
}
