//! Handles that choose by command or by key.

use super::super::super::request::{Operation, OperationClass};
use super::super::handle::{Handle, HandleId};
use super::super::json::Json;
use super::{Builder, Checked};

impl Builder<'_> {
    pub(super) fn operation_selector(&mut self, json: &Json, kind: &str) -> Checked<Handle> {
        let default = match json.get("default_policy").cloned() {
            Some(default) => Some(self.handle(&default, &format!("{kind}.default_policy"), false)?),
            None => None,
        };
        let mut policies = Vec::new();
        if let Some(written) = json.get("operation_policies").cloned() {
            for (name, handle) in self.object(&written, "operation_policies")? {
                let key = format!("operation_policies.{name}");
                let target = self.handle(handle, &key, false)?;
                match Operation::named(name) {
                    Some(operation) => policies.push((operation, target)),
                    // Facebook's own commands, which no client can send here.
                    None if matches!(
                        name.as_str(),
                        "lease-get" | "lease-set" | "flushall" | "flushre" | "metaget" | "version"
                    ) => {}
                    None => return Err(self.fault(handle, &key, name, "is no command")),
                }
            }
        }
        Ok(Handle::OperationSelector { default, policies })
    }

    /// An operation selector by class.
    pub(super) fn routing_group(&mut self, json: &Json, kind: &str) -> Checked<Handle> {
        let Handle::OperationSelector { default, mut policies } = self.operation_selector(json, kind)? else {
            return Ok(Handle::Null);
        };
        if let Some(written) = json.get("routing_group_policies").cloned() {
            for (name, handle) in self.object(&written, "routing_group_policies")? {
                let key = format!("routing_group_policies.{name}");
                let class = match name.as_str() {
                    "get_like" => OperationClass::Get,
                    "update_like" => OperationClass::Update,
                    "delete_like" => OperationClass::Delete,
                    "arithmetic_like" => OperationClass::Arithmetic,
                    _ => {
                        let remedy = "must be get_like, update_like, delete_like or arithmetic_like";
                        return Err(self.fault(handle, &key, name, remedy));
                    }
                };
                let target = self.handle(handle, &key, false)?;
                let members = Operation::NAMES.iter().map(|&(_, operation)| operation);
                policies.extend(
                    members
                        .filter(|operation| operation.class() == class)
                        .map(|operation| (operation, target)),
                );
            }
        }
        Ok(Handle::OperationSelector { default, policies })
    }

    pub(super) fn prefix_selector(&mut self, json: &Json) -> Checked<Handle> {
        let mut policies: Vec<(String, HandleId)> = Vec::new();
        if let Some(written) = json.get("policies").cloned() {
            for (prefix, handle) in self.object(&written, "PrefixSelectorRoute.policies")? {
                let handle = self.handle(handle, &format!("policies.{prefix}"), false)?;
                policies.push((prefix.clone(), handle));
            }
        }
        policies.sort_by(|one, other| other.0.len().cmp(&one.0.len()).then(one.0.cmp(&other.0)));
        let wildcard = match json.get("wildcard").cloned() {
            Some(wildcard) => Some(self.handle(&wildcard, "PrefixSelectorRoute.wildcard", false)?),
            None => None,
        };
        Ok(Handle::PrefixSelector { policies, wildcard })
    }
}
