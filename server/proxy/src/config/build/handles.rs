//! Route handles in every form they can be written in. What each type says is read in the file of the handle.

use super::builder::{Builder, Checked};
use crate::config::handle::{Child, Handle, HandleId};
use crate::config::json::{Json, JsonNode};

/// Most handles of one configuration.
const HANDLES_MAX: usize = 1 << 20;
/// Handles of mcrouter's that are known and not taken, each with what to write instead.
pub(crate) const REFUSED: &[(&str, &str)] = &[
    (
        "HashStopAllowListRoute",
        "name its child; every pool heeds the hash stop, or none with \"hash_stop\": \"\"",
    ),
    ("OriginalClientHashRoute", "name its child; a HashRoute or PoolRoute hashes the key alone"),
    ("StagingRoute", "name its \"warm\" handle, and copy to the other with a ShadowRoute"),
    ("L1L2SizeSplitRoute", "name its l2 handle, or use a BigValueRoute"),
    ("CarbonLookasideRoute", "name its child, or use an L1L2CacheRoute"),
    ("CarbonLookasideRouter", "name its child, or use an L1L2CacheRoute"),
    ("KeyParseRoute", "name its child, or choose by key with a PrefixSelectorRoute"),
    ("DistributionRoute", "name its child, or copy deletes with an AllAsyncRoute"),
    ("McBucketRoute", "name its child, or use a HashRoute"),
    ("SRRoute", "name a PoolRoute; a pool with \"resolve\": true follows the addresses of a name"),
];
/// Deepest nesting of handles.
const DEPTH_MAX: usize = 250;

/// A handle as it is written, for the parser of its type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WrittenHandle<'a> {
    pub json: &'a Json,
    /// The name of its type.
    pub name: &'a str,
    /// The key that it is the value of, for errors.
    pub key: &'a str,
    /// Whether it is directly under a route.
    pub top: bool,
}

impl Builder<'_> {
    /// Adds a handle; its children were added before.
    pub(crate) fn push(&mut self, handle: impl Into<Handle>, at: &Json) -> Checked<HandleId> {
        if self.handles.len() >= HANDLES_MAX {
            return Err(self.fault(at, "route", "", "more than 1048576 route handles"));
        }
        let handle = handle.into();
        debug_assert!(
            handle.children().iter().all(|child| match child {
                Child::Handle(id) => (id.0 as usize) < self.handles.len(),
                Child::PoolMembers(id) => (id.0 as usize) < self.pools.len(),
            }),
            "children come before their parents: {handle:?}"
        );
        self.handles.push(handle);
        Ok(HandleId(self.handles.len() as u32 - 1))
    }

    /// One handle in any form. `top` is whether it is directly under a route.
    pub(crate) fn handle(&mut self, json: &Json, key: &str, top: bool) -> Checked<HandleId> {
        let mut children = self.children(json, key, top)?;
        match (children.pop(), children.is_empty()) {
            (Some(Child::Handle(handle)), true) => Ok(handle),
            // The one server of a pool is a handle, as in mcrouter.
            (Some(Child::PoolMembers(pool)), true) if self.has_one_server(pool) => {
                let name = self.pool_name(pool);
                let members = [("pool", JsonNode::String(name)), ("asynclog", JsonNode::Bool(false))];
                let member =
                    |(key, node): (&str, JsonNode)| (key.to_owned(), Json { position: json.position, node });
                let node = JsonNode::Object(members.into_iter().map(member).collect());
                self.typed("PoolRoute", &Json { position: json.position, node }, key, top)
            }
            (Some(Child::PoolMembers(_)), true) => {
                Err(self.wrong(json, key, "one handle is needed, not all destinations: \"PoolRoute|NAME\""))
            }
            (None, _) => self.push(Handle::null(), json),
            (Some(_), false) => Err(self.wrong(json, key, "one handle is needed, not a list")),
        }
    }

    /// Handles in any form.
    pub(crate) fn children(&mut self, json: &Json, key: &str, top: bool) -> Checked<Vec<Child>> {
        if self.depth >= DEPTH_MAX {
            return Err(self.wrong(json, key, "handles nested more than 250 deep"));
        }
        self.depth += 1;
        let children = self.children_in(json, key, top);
        self.depth -= 1;
        children
    }

    fn children_in(&mut self, json: &Json, key: &str, top: bool) -> Checked<Vec<Child>> {
        match &json.node {
            JsonNode::Null => Ok(Vec::new()),
            JsonNode::String(text) if text.is_empty() => Ok(Vec::new()),
            JsonNode::String(text) => {
                if let Some(handle) = self.named(text, json)? {
                    return Ok(vec![Child::Handle(handle)]);
                }
                let (kind, argument) =
                    text.split_once('|').map_or((text.as_str(), None), |(kind, rest)| (kind, Some(rest)));
                if kind == "Pool" {
                    let name = argument
                        .ok_or_else(|| self.wrong(json, key, "a pool's name is missing: \"Pool|NAME\""))?;
                    return Ok(vec![Child::PoolMembers(self.pool(name, json)?)]);
                }
                let written = short_form(kind, argument, json);
                Ok(vec![Child::Handle(self.typed(kind, &written, key, top)?)])
            }
            JsonNode::Array(elements) => {
                let mut children = Vec::new();
                for element in elements {
                    children.extend(self.children(element, key, top)?);
                }
                Ok(children)
            }
            JsonNode::Object(_) => {
                let name = self.text_at(json, "name")?;
                let kind = self.text_at(json, "type")?;
                let kind = kind.ok_or_else(|| self.wrong(json, key, "a handle needs a \"type\""))?;
                if kind == "Pool" {
                    let name = name.ok_or_else(|| self.wrong(json, key, "a pool needs a \"name\""))?;
                    if json.get("servers").is_some() && !self.pools_written.contains_key(&name) {
                        let members = self.object(json, key)?.iter().filter(|(part, _)| part != "type");
                        let node = JsonNode::Object(members.cloned().collect());
                        self.pools_written.insert(name.clone(), Json { position: json.position, node });
                    }
                    return Ok(vec![Child::PoolMembers(self.pool(&name, json)?)]);
                }
                if let Some(&known) = name.as_ref().and_then(|name| self.names.get(name)) {
                    return Ok(vec![Child::Handle(known)]);
                }
                let handle = self.typed(&kind, json, key, top)?;
                if let Some(name) = name {
                    self.register(&name, handle);
                }
                Ok(vec![Child::Handle(handle)])
            }
            _ => Err(self.wrong(json, key, "a route handle is an object, text, or a list of these")),
        }
    }

    /// The children of a handle, at least one.
    pub(crate) fn children_at(&mut self, json: &Json, kind: &str) -> Checked<Vec<Child>> {
        let key = format!("{kind}.children");
        let Some(value) = json.get("children") else {
            return Err(self.fault(json, &key, "", "is missing: a list of handles"));
        };
        let children = self.children(&value.clone(), &key, false)?;
        if children.is_empty() {
            return Err(self.wrong(value, &key, "must not be empty"));
        }
        Ok(children)
    }

    /// The handle that `part` of a handle of type `kind` is.
    pub(crate) fn handle_at(&mut self, json: &Json, kind: &str, part: &str) -> Checked<HandleId> {
        let key = format!("{kind}.{part}");
        let value = json.get(part).ok_or_else(|| self.fault(json, &key, "", "is missing: a handle"))?.clone();
        self.handle(&value, &key, false)
    }

    fn typed(&mut self, kind: &str, json: &Json, key: &str, top: bool) -> Checked<HandleId> {
        // As in mcrouter, nobody's children are no fault.
        let is_without_children = match json.get("children").map(|children| &children.node) {
            Some(JsonNode::Array(children)) => children.is_empty(),
            Some(JsonNode::String(text)) => text.is_empty(),
            _ => false,
        };
        if is_without_children && Handle::is_known(kind) {
            let fault = self.fault(json, key, kind, "has no children; it answers as a NullRoute does");
            tracing::warn!("{fault}");
            return self.push(Handle::null(), json);
        }
        if let Some(handle) = Handle::parse(self, &WrittenHandle { json, name: kind, key, top })? {
            return Ok(handle);
        }
        if let Some((_, remedy)) = REFUSED.iter().find(|(known, _)| *known == kind) {
            return Err(self.fault(json, key, kind, &format!("is not supported: {remedy}")));
        }
        let remedy = "no route handle, pool or named handle of that name is known here";
        Err(self.fault(json, key, kind, remedy))
    }

    /// The name of the part in which a handle with one child has it: `target`, or `child`.
    pub(crate) fn target_part(json: &Json) -> &'static str {
        if json.get("target").is_some() { "target" } else { "child" }
    }
}

/// `"Type|argument"` as the object it is short for.
fn short_form(kind: &str, argument: Option<&str>, at: &Json) -> Json {
    let members =
        argument.map(|argument| (Handle::short_key(kind).to_owned(), Json::string(at.position, argument)));
    Json { position: at.position, node: JsonNode::Object(members.into_iter().collect()) }
}
