//! When a handle goes on to its next child, in what order, and how often.

use corecached_protocol::ErrorKind;

use super::super::super::hash::SALT_BYTES_MAX;
use super::super::handle::{Balance, Child, ErrorSet, FailoverErrors, FailoverPolicy, Handle, Limit};
use super::super::hash::Written;
use super::super::json::Json;
use super::{Builder, Checked};

impl Builder<'_> {
    pub(super) fn latest(&self, json: &Json, children: Vec<Child>) -> Checked<Handle> {
        Ok(Handle::Latest {
            children,
            count: self.int_at(json, "failover_count", 1, 10_000)?.unwrap_or(5) as usize,
            salt: self.text_at(json, "salt")?.unwrap_or_default(),
            errors: self.failover_errors(json)?,
        })
    }

    pub(super) fn load_balancer(&self, json: &Json, children: Vec<Child>) -> Checked<Handle> {
        Ok(Handle::LoadBalancer {
            children,
            algorithm: match self.text_at(json, "algorithm")?.as_deref() {
                None | Some("weighted-hashing") => Balance::WeightedHashing,
                Some("two-random-choices") => Balance::TwoRandomChoices,
                Some(other) => {
                    let remedy = "must be weighted-hashing or two-random-choices";
                    return Err(self.fault(json, "LoadBalancerRoute.algorithm", other, remedy));
                }
            },
            salt: match self.text_at(json, "salt")?.unwrap_or_default() {
                salt if salt.len() > SALT_BYTES_MAX => {
                    let remedy = "must have at most 128 bytes";
                    return Err(self.fault(json, "LoadBalancerRoute.salt", &salt, remedy));
                }
                salt => salt,
            },
            ttl_ms: self.int_at(json, "load_ttl_ms", 1, 24 * 60 * 60 * 1000)?.unwrap_or(100) as u32,
            tries_max: self.int_at(json, "failover_count", 1, 10_000)?.unwrap_or(1) as usize,
            errors: self.failover_errors(json)?,
        })
    }

    pub(super) fn failover_errors(&self, json: &Json) -> Checked<FailoverErrors> {
        let Some(value) = json.get("failover_errors") else { return Ok(FailoverErrors::default()) };
        if value.as_array().is_some() {
            let set = self.error_set(value)?;
            return Ok(FailoverErrors { gets: set, updates: set, deletes: set });
        }
        self.object(value, "failover_errors")?;
        let part = |name: &str| value.get(name).map_or(Ok(ErrorSet::DEFAULT), |list| self.error_set(list));
        Ok(FailoverErrors { gets: part("gets")?, updates: part("updates")?, deletes: part("deletes")? })
    }

    pub(super) fn error_set(&self, list: &Json) -> Checked<ErrorSet> {
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

    pub(super) fn failover_policy(&self, json: &Json) -> Checked<FailoverPolicy> {
        let Some(policy) = json.get("failover_policy") else {
            return Ok(FailoverPolicy::InOrder { max_tries: usize::MAX });
        };
        let tries = |key: &str, default: usize| -> Checked<usize> {
            Ok(self.int_at(policy, key, 1, 100_000)?.map_or(default, |tries| tries as usize))
        };
        Ok(match self.text_at(policy, "type")?.as_deref() {
            None | Some("InOrderPolicy") => {
                FailoverPolicy::InOrder { max_tries: tries("max_tries", usize::MAX)? }
            }
            Some("LeastFailuresPolicy") => {
                FailoverPolicy::LeastFailures { max_tries: tries("max_tries", usize::MAX)? }
            }
            Some("DeterministicOrderPolicy") => FailoverPolicy::Deterministic {
                max_tries: tries("max_tries", usize::MAX)?,
                max_error_tries: tries("max_error_tries", usize::MAX)?,
                hash: match policy.get("hash") {
                    Some(hash) => self.hash(hash, "failover_policy.hash")?,
                    None => self.check_hash(Written::default(), policy)?,
                },
            },
            Some("RendezvousPolicy") => FailoverPolicy::Rendezvous { tags: self.texts_at(policy, "tags")? },
            Some(other) => {
                let remedy = "must be LeastFailuresPolicy, DeterministicOrderPolicy or RendezvousPolicy";
                return Err(self.fault(policy, "failover_policy.type", other, remedy));
            }
        })
    }

    pub(super) fn failover_limit(&self, json: &Json) -> Checked<Option<Limit>> {
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
