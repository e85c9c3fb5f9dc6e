//! The members of a Service according to its `EndpointSlice`s: their names and addresses. No network.
//!
//! Members are the endpoints that are ready and not terminating. If there are none, they are those that
//! terminate and still serve, as in kube-proxy (KEP-1669): a Service that is restarted as a whole does not
//! lose its last servers before they stop.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use serde_json::Value;

use super::super::dns::natural_order;

/// Most endpoints of one Service, and most of its slices.
const ENDPOINTS_MAX: usize = 4096;

/// A member of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// A name that stays when the pod is moved: the endpoint's host name, else the name of the pod; else the
    /// address with dashes.
    pub(crate) name: String,
    /// The address.
    pub(crate) ip: IpAddr,
}

/// The endpoints of a slice that serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ServingEndpoints {
    ready: Vec<Endpoint>,
    /// Those that serve and terminate.
    ending: Vec<Endpoint>,
}

/// Why slices cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SliceError {
    #[error("an answer without \"items\"")]
    NoItems,
    #[error("a list without a version")]
    NoVersion,
    #[error("an EndpointSlice without a name")]
    NoName,
    /// There are more than [`ENDPOINTS_MAX`] slices or endpoints.
    #[error("more than {ENDPOINTS_MAX} endpoints or EndpointSlices")]
    TooMany,
}

/// The known slices of one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KnownSlices {
    slices: HashMap<String, ServingEndpoints>,
    /// The version of the cluster's state that they are from.
    pub(crate) version: String,
}

impl KnownSlices {
    /// The slices of a list.
    ///
    /// # Errors
    /// `json` is not a list of slices, or there are too many.
    pub(crate) fn from_list(json: &Value) -> Result<Self, SliceError> {
        let items = json.get("items").and_then(Value::as_array).ok_or(SliceError::NoItems)?;
        let mut known = Self { slices: HashMap::new(), version: version(json).ok_or(SliceError::NoVersion)? };
        for item in items {
            known.put(item)?;
        }
        Ok(known)
    }

    /// Adds or replaces a slice.
    ///
    /// # Errors
    /// `slice` is not a slice, or there are too many now.
    pub(crate) fn put(&mut self, slice: &Value) -> Result<(), SliceError> {
        let name = name(slice).ok_or(SliceError::NoName)?;
        self.slices.insert(name.to_owned(), answering(slice));
        let endpoints: usize = self.slices.values().map(|slice| slice.ready.len() + slice.ending.len()).sum();
        if self.slices.len().max(endpoints) > ENDPOINTS_MAX {
            return Err(SliceError::TooMany);
        }
        Ok(())
    }

    /// Removes a slice.
    pub(crate) fn remove(&mut self, slice: &Value) {
        if let Some(name) = name(slice) {
            self.slices.remove(name);
        }
    }

    /// Whether there are no slices. A Service that exists has one, with or without endpoints.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// Whether no endpoint is ready and the members are terminating ones.
    #[must_use]
    pub(crate) fn all_end(&self) -> bool {
        self.slices.values().all(|slice| slice.ready.is_empty())
            && self.slices.values().any(|slice| !slice.ending.is_empty())
    }

    /// Each member once, `pod-2` before `pod-10`. A member with several addresses has the first in numeric
    /// order, IPv4 before IPv6.
    #[must_use]
    pub(crate) fn members(&self) -> Vec<Endpoint> {
        let all_end = self.all_end();
        let mut by_name: BTreeMap<&str, IpAddr> = BTreeMap::new();
        let used = self.slices.values().flat_map(|slice| if all_end { &slice.ending } else { &slice.ready });
        for endpoint in used {
            let ip = by_name.entry(&endpoint.name).or_insert(endpoint.ip);
            *ip = endpoint.ip.min(*ip);
        }
        let mut members: Vec<Endpoint> =
            by_name.into_iter().map(|(name, ip)| Endpoint { name: name.to_owned(), ip }).collect();
        members.sort_by_cached_key(|endpoint| natural_order(&endpoint.name));
        members
    }
}

fn name(object: &Value) -> Option<&str> {
    object.pointer("/metadata/name")?.as_str()
}

/// The version of the cluster's state that `object` is from.
pub(super) fn version(object: &Value) -> Option<String> {
    object.pointer("/metadata/resourceVersion")?.as_str().map(str::to_owned)
}

fn answering(slice: &Value) -> ServingEndpoints {
    let mut answering = ServingEndpoints::default();
    for json in slice.get("endpoints").and_then(Value::as_array).into_iter().flatten() {
        let condition = |name: &str| json.get("conditions")?.get(name)?.as_bool();
        // Without the condition "ready" an endpoint is ready; without "serving" it serves if it is ready.
        let is_ready = condition("ready").unwrap_or(true);
        let (list, is_used) = match condition("terminating") {
            Some(true) => (&mut answering.ending, condition("serving").unwrap_or(is_ready)),
            _ => (&mut answering.ready, is_ready),
        };
        if is_used {
            list.extend(endpoint(json));
        }
    }
    answering
}

fn endpoint(json: &Value) -> Option<Endpoint> {
    // Further addresses lead to the same pod. A name (`addressType: FQDN`) is not an address.
    let ip: IpAddr = json.get("addresses")?.get(0)?.as_str()?.parse().ok()?;
    let text = |pointer: &str| json.pointer(pointer).and_then(Value::as_str);
    let pod = || text("/targetRef/name").filter(|_| text("/targetRef/kind") == Some("Pod"));
    let is_name = |name: &&str| {
        let named = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
        (1..=253).contains(&name.len()) && name.bytes().all(named)
    };
    let name = text("/hostname").or_else(pod).filter(is_name).map(str::to_owned);
    // The name that DNS gives it.
    Some(Endpoint { name: name.unwrap_or_else(|| ip.to_string().replace(['.', ':'], "-")), ip })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(known: &KnownSlices) -> Vec<String> {
        known.members().iter().map(|endpoint| format!("{} {}", endpoint.name, endpoint.ip)).collect()
    }

    #[test]
    fn members_are_those_that_are_ready_and_do_not_end_in_the_order_of_their_numbers() {
        let list = json!({"metadata": {"resourceVersion": "7"}, "items": [
            {"metadata": {"name": "a"}, "endpoints": [
                {"addresses": ["10.0.0.10"], "hostname": "c-10", "conditions": {"ready": true}},
                {"addresses": ["10.0.0.9"], "hostname": "c-9"},
                {"addresses": ["10.0.0.8"], "hostname": "c-8", "conditions": {"ready": false}},
                {"addresses": ["10.0.0.7"], "hostname": "c-7",
                 "conditions": {"ready": true, "serving": true, "terminating": true}},
                {"addresses": ["10.0.0.6"], "targetRef": {"kind": "Pod", "name": "c-6"}},
                {"addresses": ["10.0.0.5"], "targetRef": {"kind": "Node", "name": "node"}},
                {"addresses": ["a.name"], "hostname": "c-4"},
                {"addresses": []},
                {"addresses": ["10.0.0.3"], "hostname": "no/name"},
                7,
            ]},
            {"metadata": {"name": "b"}, "endpoints": [
                {"addresses": ["fd00::9"], "hostname": "c-9"},
                {"addresses": ["fd00::11"], "hostname": "c-11"},
            ]},
            {"metadata": {"name": "none"}, "endpoints": null},
        ]});
        let mut known = KnownSlices::from_list(&list).unwrap();
        let expected = [
            "10-0-0-3 10.0.0.3",
            "10-0-0-5 10.0.0.5",
            "c-6 10.0.0.6",
            "c-9 10.0.0.9",
            "c-10 10.0.0.10",
            "c-11 fd00::11",
        ];
        let mut members = shown(&known);
        members.sort_by_cached_key(|name| natural_order(name));
        assert_eq!(members, expected);
        known.remove(&json!({"metadata": {"name": "b"}}));
        let one = json!({"metadata": {"name": "a", "resourceVersion": "9"},
            "endpoints": [{"addresses": ["10.0.0.9"], "hostname": "c-9"}]});
        known.put(&one).unwrap();
        assert_eq!((shown(&known), known.version.as_str()), (vec!["c-9 10.0.0.9".to_owned()], "7"));
    }

    #[test]
    fn those_that_end_and_serve_are_members_while_nobody_is_ready() {
        let of = |name: &str, conditions: Value| {
            json!({"metadata": {"name": name, "resourceVersion": "1"},
            "endpoints": [{"addresses": ["10.0.0.1"], "hostname": name, "conditions": conditions}]})
        };
        let ending = json!({"ready": false, "serving": true, "terminating": true});
        let mut known = KnownSlices::default();
        known.put(&of("c-1", ending.clone())).unwrap();
        known.put(&of("c-2", json!({"ready": false, "serving": false, "terminating": true}))).unwrap();
        known.put(&of("c-3", json!({"ready": false, "serving": true, "terminating": false}))).unwrap();
        // Without a word about serving, what is said of being ready counts.
        known.put(&of("c-4", json!({"ready": false, "terminating": true}))).unwrap();
        known.put(&of("c-5", json!({"terminating": true}))).unwrap();
        assert!(known.all_end());
        assert_eq!(shown(&known), ["c-1 10.0.0.1", "c-5 10.0.0.1"]);
        // One that is ready, in whatever slice, is alone again.
        known.put(&of("c-2", json!({"ready": true}))).unwrap();
        assert_eq!((shown(&known), known.all_end()), (vec!["c-2 10.0.0.1".to_owned()], false));
        known.put(&of("c-2", ending)).unwrap();
        assert_eq!(shown(&known), ["c-1 10.0.0.1", "c-2 10.0.0.1", "c-5 10.0.0.1"]);
        for name in ["c-1", "c-2", "c-5"] {
            known.remove(&json!({"metadata": {"name": name}}));
        }
        assert!(!known.all_end() && known.members().is_empty() && !known.is_empty());
    }

    #[test]
    fn what_is_no_list_or_too_long_is_refused() {
        for json in [
            json!(null),
            json!({"items": []}),
            json!({"metadata": {"resourceVersion": "1"}, "items": 7}),
            json!({"metadata": {"resourceVersion": "1"}, "items": [{}]}),
        ] {
            assert!(KnownSlices::from_list(&json).is_err(), "{json}");
        }
        let slice = |number: usize, endpoints: usize| {
            json!({"metadata": {"name": format!("s{number}")},
                "endpoints": vec![json!({"addresses": ["10.0.0.1"]}); endpoints]})
        };
        let mut known = KnownSlices::default();
        known.put(&slice(0, ENDPOINTS_MAX)).unwrap();
        assert!(known.put(&slice(1, 1)).unwrap_err().to_string().contains("4096"));
        let ending = json!({"addresses": ["10.0.0.1"], "conditions": {"serving": true, "terminating": true}});
        assert!(known.put(&json!({"metadata": {"name": "s1"}, "endpoints": [ending]})).is_err());
        let mut known = KnownSlices::default();
        for number in 0..ENDPOINTS_MAX {
            known.put(&slice(number, 0)).unwrap();
        }
        assert!(known.put(&slice(ENDPOINTS_MAX, 0)).is_err());
    }
}
