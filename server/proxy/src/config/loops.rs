//! The calls of the preprocessor that go through a list or an object: `transform`, `process` and `foreach`. What they do
//! with each element is expanded with names for its key and value.

use super::error::ConfigError;
use super::json::{Json, JsonNode, Position, put};
use super::macros::{Preprocessor, Scope};

/// What a loop goes through.
enum Walked {
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Walked {
    fn is_object(&self) -> bool {
        matches!(self, Self::Object(_))
    }

    /// Every element with its key or index.
    fn into_elements(self, position: Position) -> Vec<(Json, Json)> {
        match self {
            Self::List(elements) => {
                let index = |at: usize| Json { position, node: JsonNode::Int(at as i64) };
                elements.into_iter().enumerate().map(|(at, element)| (index(at), element)).collect()
            }
            Self::Object(members) => {
                members.into_iter().map(|(key, value)| (Json::string(position, &key), value)).collect()
            }
        }
    }
}

impl Preprocessor<'_> {
    /// Carries out the loop `name`, which is written as `json`.
    pub(super) fn walk(
        &mut self,
        name: &str,
        json: &Json,
        scope: &Scope,
        depth: usize,
    ) -> Result<Json, ConfigError> {
        match name {
            "transform" => self.transform(json, scope, depth),
            "process" => self.process(json, scope, depth),
            _ => self.foreach(json, scope, depth),
        }
    }

    fn loop_fault(&self, at: &Json, key: &str, remedy: &str) -> ConfigError {
        self.sources.error(at.position, key, &at.shown(), remedy)
    }

    /// `part` of a loop, expanded, as what it goes through.
    fn walked(
        &mut self,
        json: &Json,
        part: &str,
        scope: &Scope,
        depth: usize,
    ) -> Result<Walked, ConfigError> {
        let written = self.required(json, part)?;
        let expanded = self.expand(&written, scope, depth + 1)?;
        match expanded.node {
            JsonNode::Array(elements) => Ok(Walked::List(elements)),
            JsonNode::Object(members) => Ok(Walked::Object(members)),
            _ => Err(self.loop_fault(&expanded, part, "must be a list or an object")),
        }
    }

    fn required(&self, json: &Json, part: &str) -> Result<Json, ConfigError> {
        json.get(part).cloned().ok_or_else(|| self.loop_fault(json, part, "is missing"))
    }

    /// The name that `part` of a loop gives, or `default`.
    fn name_at(&self, json: &Json, part: &str, default: &str) -> Result<String, ConfigError> {
        match json.get(part) {
            None => Ok(default.to_owned()),
            Some(name) => {
                let name = name.as_str().ok_or_else(|| self.loop_fault(name, part, "must be text"))?;
                Ok(name.to_owned())
            }
        }
    }

    fn transform(&mut self, json: &Json, scope: &Scope, depth: usize) -> Result<Json, ConfigError> {
        let walked = self.walked(json, "dictionary", scope, depth)?;
        let key_name = self.name_at(json, "keyName", "key")?;
        let item_name = self.name_at(json, "itemName", "item")?;
        let (of_keys, of_items) = (json.get("keyTransform"), json.get("itemTransform"));
        let is_object = walked.is_object();
        let mut inner = scope.clone();
        let (mut list, mut object) = (Vec::new(), Vec::new());
        for (key, item) in walked.into_elements(json.position) {
            inner.insert(&key_name, key.clone());
            inner.insert(&item_name, item.clone());
            let Some(transform) = of_items else {
                if !is_object {
                    return Err(self.loop_fault(json, "itemTransform", "is missing, which a list needs"));
                }
                self.put_transformed(&mut object, of_keys, &key, item, &inner, depth)?;
                continue;
            };
            if is_object {
                // Of an entry without a key nothing is expanded.
                let keys = self.transformed_keys(of_keys, &key, &inner, depth)?;
                if !keys.is_empty() {
                    let item = self.expand(transform, &inner, depth + 1)?;
                    keys.iter().for_each(|key| put(&mut object, key, item.clone()));
                }
            } else {
                list.push(self.expand(transform, &inner, depth + 1)?);
            }
        }
        let node = if is_object { JsonNode::Object(object) } else { JsonNode::Array(list) };
        Ok(Json { position: json.position, node })
    }

    fn put_transformed(
        &mut self,
        object: &mut Vec<(String, Json)>,
        of_keys: Option<&Json>,
        key: &Json,
        item: Json,
        inner: &Scope,
        depth: usize,
    ) -> Result<(), ConfigError> {
        for key in self.transformed_keys(of_keys, key, inner, depth)? {
            put(object, &key, item.clone());
        }
        Ok(())
    }

    /// The keys that an entry gets: one, or those of a list.
    fn transformed_keys(
        &mut self,
        of_keys: Option<&Json>,
        key: &Json,
        inner: &Scope,
        depth: usize,
    ) -> Result<Vec<String>, ConfigError> {
        let expanded = match of_keys {
            Some(transform) => self.expand(transform, inner, depth + 1)?,
            None => key.clone(),
        };
        let wrong =
            |this: &Self| this.loop_fault(&expanded, "keyTransform", "must come to text or a list of it");
        match &expanded.node {
            JsonNode::String(key) => Ok(vec![key.clone()]),
            JsonNode::Array(keys) => {
                keys.iter().map(|key| key.as_str().map(str::to_owned).ok_or_else(|| wrong(self))).collect()
            }
            _ => Err(wrong(self)),
        }
    }

    fn process(&mut self, json: &Json, scope: &Scope, depth: usize) -> Result<Json, ConfigError> {
        let walked = self.walked(json, "dictionary", scope, depth)?;
        let mut value = self.expand(&self.required(json, "initialValue")?, scope, depth + 1)?;
        let transform = self.required(json, "transform")?;
        let key_name = self.name_at(json, "keyName", "key")?;
        let item_name = self.name_at(json, "itemName", "item")?;
        let value_name = self.name_at(json, "valueName", "value")?;
        let mut inner = scope.clone();
        for (key, item) in walked.into_elements(json.position) {
            inner.insert(&key_name, key);
            inner.insert(&item_name, item);
            inner.insert(&value_name, value);
            value = self.expand(&transform, &inner, depth + 1)?;
        }
        Ok(value)
    }

    fn foreach(&mut self, json: &Json, scope: &Scope, depth: usize) -> Result<Json, ConfigError> {
        let walked = self.walked(json, "from", scope, depth)?;
        let key_name = self.name_at(json, "key", "key")?;
        let item_name = self.name_at(json, "item", "item")?;
        let mut left = match json.get("top") {
            None => usize::MAX,
            Some(top) => {
                let top = self.expand(top, scope, depth + 1)?;
                match top.node {
                    JsonNode::Int(top) if top >= 0 => usize::try_from(top).unwrap_or(usize::MAX),
                    _ => return Err(self.loop_fault(&top, "top", "must be a whole number of at least 0")),
                }
            }
        };
        let is_object = walked.is_object();
        let mut inner = scope.clone();
        let mut result: Option<JsonNode> = None;
        for (key, item) in walked.into_elements(json.position) {
            if left == 0 {
                break;
            }
            inner.insert(&key_name, key.clone());
            inner.insert(&item_name, item.clone());
            if let Some(condition) = json.get("where") {
                let condition = self.expand(condition, &inner, depth + 1)?;
                match condition.node {
                    JsonNode::Bool(true) => {}
                    JsonNode::Bool(false) => continue,
                    _ => return Err(self.loop_fault(&condition, "where", "must come to true or false")),
                }
            }
            left -= 1;
            let used = match json.get("use") {
                Some(used) => self.expand(used, &inner, depth + 1)?.node,
                None if is_object => {
                    JsonNode::Object(vec![(key.as_str().unwrap_or_default().to_owned(), item)])
                }
                None => JsonNode::Array(vec![item]),
            };
            match (&mut result, used) {
                (None, used @ (JsonNode::Array(_) | JsonNode::Object(_))) => result = Some(used),
                (Some(JsonNode::Array(all)), JsonNode::Array(more)) => all.extend(more),
                (Some(JsonNode::Object(all)), JsonNode::Object(more)) => {
                    more.into_iter().for_each(|(key, value)| put(all, &key, value));
                }
                _ => {
                    return Err(self.loop_fault(json, "use", "must come to lists alone or to objects alone"));
                }
            }
        }
        let node = match (result, json.get("noMatchResult")) {
            (Some(node), _) => node,
            (None, Some(instead)) => return self.expand(instead, scope, depth + 1),
            (None, None) if is_object => JsonNode::Object(Vec::new()),
            (None, None) => JsonNode::Array(Vec::new()),
        };
        Ok(Json { position: json.position, node })
    }
}
