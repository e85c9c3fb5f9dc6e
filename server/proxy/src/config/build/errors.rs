//! After which errors, and how often, a handle goes on to its next child.

use corecached_protocol::ErrorKind;

use super::builder::{Builder, Checked};
use crate::config::handle::{ErrorSet, FailoverErrors, Limit};
use crate::config::json::Json;

impl Builder<'_> {
    /// `failover_errors` of a handle.
    pub(crate) fn failover_errors(&self, json: &Json) -> Checked<FailoverErrors> {
        let Some(value) = json.get("failover_errors") else { return Ok(FailoverErrors::default()) };
        if value.as_array().is_some() {
            let set = self.error_set(value)?;
            return Ok(FailoverErrors { gets: set, updates: set, deletes: set });
        }
        self.object(value, "failover_errors")?;
        let part = |name: &str| value.get(name).map_or(Ok(ErrorSet::DEFAULT), |list| self.error_set(list));
        Ok(FailoverErrors { gets: part("gets")?, updates: part("updates")?, deletes: part("deletes")? })
    }

    fn error_set(&self, list: &Json) -> Checked<ErrorSet> {
        self.list(list, "failover_errors")?.iter().try_fold(ErrorSet::EMPTY, |set, value| {
            Ok(set.with(match value.as_str() {
                Some("tko") => ErrorKind::Ejected,
                Some("connect_error") => ErrorKind::Connect,
                Some("connect_timeout") => ErrorKind::ConnectTimeout,
                Some("timeout" | "deadline_exceeded") => ErrorKind::Timeout,
                Some("busy") => ErrorKind::Busy,
                Some("try_again") => ErrorKind::TryAgain,
                Some("shutdown") => ErrorKind::Shutdown,
                Some("local_error") => ErrorKind::Local,
                Some("remote_error") => ErrorKind::Remote,
                Some("client_error") => ErrorKind::Client,
                Some("bad_key") => ErrorKind::BadKey,
                _ => {
                    let remedy = "must be one of tko connect_error connect_timeout timeout deadline_exceeded busy \
                                  try_again shutdown local_error remote_error client_error bad_key";
                    return Err(self.wrong(value, "failover_errors", remedy));
                }
            }))
        })
    }

    /// `failover_limit` of a handle.
    pub(crate) fn failover_limit(&self, json: &Json) -> Checked<Option<Limit>> {
        let Some(value) = json.get("failover_limit") else { return Ok(None) };
        if value.as_object().is_none() {
            return Ok(Some(Limit { rate: self.number(value, "failover_limit", 0.0, 1.0)?, burst: 1000.0 }));
        }
        Ok(Some(Limit {
            rate: self.number_at(value, "rate", 1.0, 0.0, 1.0)?,
            burst: self.number_at(value, "burst", 1000.0, 1.0, 1e9)?,
        }))
    }
}
