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
        let errors = self.list(list, "failover_errors")?;
        errors
            .iter()
            .try_fold(ErrorSet::EMPTY, |set, value| Ok(set.with(self.error_kind(value, "failover_errors")?)))
    }

    /// The kind of error that `value` names, as mcrouter names its results, with or without `mc_res_`.
    pub(crate) fn error_kind(&self, value: &Json, key: &str) -> Checked<ErrorKind> {
        let name = value.as_str().unwrap_or_default().to_ascii_lowercase();
        Ok(match name.strip_prefix("mc_res_").unwrap_or(&name) {
            "tko" => ErrorKind::Ejected,
            "connect_error" => ErrorKind::Connect,
            "connect_timeout" => ErrorKind::ConnectTimeout,
            "timeout" | "deadline_exceeded" => ErrorKind::Timeout,
            "busy" => ErrorKind::Busy,
            "try_again" => ErrorKind::TryAgain,
            "shutdown" => ErrorKind::Shutdown,
            "local_error" => ErrorKind::Local,
            "remote_error" => ErrorKind::Remote,
            "client_error" => ErrorKind::Client,
            "bad_key" => ErrorKind::BadKey,
            _ => {
                let remedy = "must be one of tko connect_error connect_timeout timeout deadline_exceeded busy \
                              try_again shutdown local_error remote_error client_error bad_key";
                return Err(self.wrong(value, key, remedy));
            }
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
