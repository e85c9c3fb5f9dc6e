//! The preprocessor of mcrouter's configuration: macros, constants, `@` calls and `%name%`.

use std::collections::{HashMap, HashSet};

use super::calls::{pure, select, text_of};
use super::error::ConfigError;
use super::json::{Json, JsonNode, Position, Sources, put};

/// Deepest nesting of calls and values.
const DEPTH_MAX: usize = 250;
/// Values that one configuration may expand to: macros that call each other twice a level would fill any
/// memory.
const VALUES_MAX: usize = 1_000_000;

/// Reads the file that an `@import` names.
pub(crate) type Import<'a> = dyn Fn(&str) -> Result<String, ImportError> + 'a;

/// Why a file cannot be imported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ImportError(pub String);

impl From<&str> for ImportError {
    fn from(reason: &str) -> Self {
        Self(reason.into())
    }
}

/// Expands one configuration.
pub(super) struct Preprocessor<'a> {
    pub sources: &'a mut Sources,
    import: &'a Import<'a>,
    macros: HashMap<String, Macro>,
    constants: HashMap<String, Constant>,
    values: usize,
}

/// A constant, which is expanded when it is first used: it may use those behind it.
#[derive(Debug)]
enum Constant {
    Written(Json),
    /// It is being expanded: if it is used now, it uses itself.
    Begun,
    Expanded(Json),
}

#[derive(Clone, Debug)]
struct Macro {
    params: Vec<Param>,
    result: Json,
}

#[derive(Clone, Debug)]
struct Param {
    name: String,
    default: Option<Json>,
    optional: bool,
}

/// Names that stand for values at one point.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    values: HashMap<String, Json>,
    /// Variables without a value yet, which no constant stands in for.
    unknown: HashSet<String>,
}

impl Scope {
    fn new() -> Self {
        Self::default()
    }

    pub(super) fn insert(&mut self, name: &str, value: Json) {
        self.unknown.remove(name);
        self.values.insert(name.to_owned(), value);
    }
}

/// The arguments of a call, not yet expanded.
enum Arguments<'a> {
    Listed(Vec<Json>),
    Named(&'a [(String, Json)]),
}

/// Calls that there are, with their parameters; `?` ends the names of those that may be left out.
const BUILT_IN: &[(&str, &[&str])] = &[
    ("import", &["path", "default?"]),
    ("int", &["value"]),
    ("double", &["value"]),
    ("str", &["value"]),
    ("bool", &["value"]),
    ("keys", &["dictionary"]),
    ("values", &["dictionary"]),
    ("merge", &["params"]),
    ("select", &["dictionary", "key", "default?"]),
    ("slice", &["dictionary", "from", "to"]),
    ("split", &["dictionary", "delim"]),
    ("range", &["from", "to"]),
    ("contains", &["dictionary", "key"]),
    ("empty", &["dictionary"]),
    ("equals", &["A", "B"]),
    ("isArray", &["value"]),
    ("isBool", &["value"]),
    ("isInt", &["value"]),
    ("isDouble", &["value"]),
    ("isObject", &["value"]),
    ("isString", &["value"]),
    ("less", &["A", "B"]),
    ("and", &["A", "B"]),
    ("or", &["A", "B"]),
    ("not", &["A"]),
    ("size", &["dictionary"]),
    ("add", &["A", "B"]),
    ("sub", &["A", "B"]),
    ("mul", &["A", "B"]),
    ("div", &["A", "B"]),
    ("mod", &["A", "B"]),
    ("bitwiseAnd", &["A", "B"]),
    ("bitwiseOr", &["A", "B"]),
    ("bitwiseXor", &["A", "B"]),
    ("bitwiseNot", &["A"]),
    ("bitwiseLeftShift", &["A", "B"]),
    ("bitwiseRightShift", &["A", "B"]),
    ("fail", &["msg"]),
    ("sort", &["dictionary"]),
    ("set", &["dictionary", "key", "value"]),
    ("if", &["condition", "is_true", "is_false"]),
    ("defined", &["name"]),
    ("define", &["result"]),
    ("hash", &["value"]),
    ("weightedHash", &["dictionary", "key"]),
    ("shuffle", &["dictionary", "seed?"]),
    ("isLocalIp", &["ip"]),
];

/// The calls that go through a list or an object, written as objects alone.
const LOOPS: &[&str] = &["transform", "process", "foreach"];

/// Parameters that are expanded only when they are needed, each with its call.
const LATE: &[(&str, &str)] = &[
    ("if", "is_true"),
    ("if", "is_false"),
    ("import", "default"),
    ("select", "default"),
    ("and", "B"),
    ("or", "B"),
];

impl<'a> Preprocessor<'a> {
    pub(super) fn new(
        sources: &'a mut Sources,
        import: &'a Import<'a>,
        globals: HashMap<String, Json>,
    ) -> Self {
        let constants = globals.into_iter().map(|(name, value)| (name, Constant::Expanded(value))).collect();
        Self { sources, import, macros: HashMap::new(), constants, values: 0 }
    }

    /// The configuration without its macros and constants, all calls done.
    pub(super) fn run(&mut self, config: &Json) -> Result<Json, ConfigError> {
        for section in ["macros", "consts"] {
            let Some(written) = config.get(section) else { continue };
            // What is imported, or made by calls. Definitions stay as they are.
            let is_made = section == "macros" || written.as_str().is_some();
            let made = if is_made { self.expand(written, &Scope::new(), 0)? } else { written.clone() };
            self.define_all(section, &made)?;
        }
        let members =
            config.as_object().ok_or_else(|| self.fault(config, "configuration", "must be an object"))?;
        let kept = members.iter().filter(|(key, _)| key != "macros" && key != "consts").cloned().collect();
        self.expand(&Json { position: config.position, node: JsonNode::Object(kept) }, &Scope::new(), 0)
    }

    fn fault(&self, value: &Json, key: &str, remedy: &str) -> ConfigError {
        self.sources.error(value.position, key, &value.shown(), remedy)
    }

    /// Defines what `definitions` hold: an object from names to them, a definition with a name of its own, or a list
    /// of these.
    fn define_all(&mut self, section: &str, definitions: &Json) -> Result<(), ConfigError> {
        match &definitions.node {
            JsonNode::Array(elements) => {
                elements.iter().try_for_each(|element| self.define_all(section, element))
            }
            JsonNode::Object(_) if definition_type(definitions).is_some() => self.define(None, definitions),
            JsonNode::Object(members) => {
                members.iter().try_for_each(|(name, definition)| self.define(Some(name), definition))
            }
            _ => Err(self.fault(definitions, section, "must be a list or an object")),
        }
    }

    fn define(&mut self, key: Option<&str>, definition: &Json) -> Result<(), ConfigError> {
        let kind = definition.get("type").and_then(Json::as_str);
        let name = match (key, definition.get("name").and_then(Json::as_str)) {
            (Some(name), _) | (None, Some(name)) => name.to_owned(),
            (None, None) => return Err(self.fault(definition, "macros", "a definition needs a \"name\"")),
        };
        let result = match (definition.get("result"), kind, key) {
            (Some(result), ..) => result.clone(),
            (None, None, Some(_)) => definition.clone(), // "consts": {"name": value}
            _ => return Err(self.fault(definition, &name, "a definition needs a \"result\"")),
        };
        match kind {
            Some("macroDef") => {
                let params =
                    definition.get("params").map_or(Ok(Vec::new()), |params| self.params(&name, params))?;
                self.macros.insert(name, Macro { params, result });
            }
            Some("constDef") | None => {
                self.constants.insert(name, Constant::Written(result));
            }
            Some(_) => {
                return Err(self.fault(definition, &name, "\"type\" must be \"macroDef\" or \"constDef\""));
            }
        }
        Ok(())
    }

    fn params(&self, name: &str, params: &Json) -> Result<Vec<Param>, ConfigError> {
        let bad = |value: &Json| {
            self.fault(value, name, "\"params\" is a list of names or of objects with a \"name\"")
        };
        let one = |param: &Json| match (param.as_str(), param.get("name").and_then(Json::as_str)) {
            (Some(name), _) => Ok(Param { name: name.into(), default: None, optional: false }),
            (None, Some(name)) => {
                let default = param.get("default").cloned();
                match param.get("optional").map(|value| &value.node) {
                    None | Some(JsonNode::Bool(true)) => {}
                    Some(JsonNode::Bool(false)) if default.is_none() => {}
                    Some(_) => {
                        let remedy = "\"optional\" is true or false, and not false where there is a default";
                        return Err(self.fault(param, name, remedy));
                    }
                }
                let optional = param.get("optional").is_some_and(|value| value.node == JsonNode::Bool(true));
                Ok(Param { name: name.into(), default, optional })
            }
            (None, None) => Err(bad(param)),
        };
        let read: Vec<Param> =
            params.as_array().ok_or_else(|| bad(params))?.iter().map(one).collect::<Result<_, _>>()?;
        let may_be_left_out = |param: &Param| param.optional || param.default.is_some();
        if !read.is_sorted_by_key(may_be_left_out) {
            let remedy = "parameters that may be left out come last";
            return Err(self.fault(params, name, remedy));
        }
        Ok(read)
    }

    pub(super) fn expand(&mut self, json: &Json, scope: &Scope, depth: usize) -> Result<Json, ConfigError> {
        self.values += 1;
        if depth > DEPTH_MAX {
            return Err(self.fault(
                json,
                "macros",
                "calls nested more than 250 deep: does a macro call itself?",
            ));
        }
        if self.values > VALUES_MAX {
            return Err(self.fault(json, "macros", "expands to more than 1000000 values"));
        }
        let node = match &json.node {
            JsonNode::String(text) => return self.expand_text(text, json.position, scope, depth),
            JsonNode::Array(elements) => {
                let mut expanded = Vec::with_capacity(elements.len());
                for element in elements {
                    expanded.push(self.expand(element, scope, depth + 1)?);
                }
                JsonNode::Array(expanded)
            }
            JsonNode::Object(members) => return self.expand_object(json, members, scope, depth),
            node => node.clone(),
        };
        Ok(Json { position: json.position, node })
    }

    fn expand_object(
        &mut self,
        json: &Json,
        members: &[(String, Json)],
        scope: &Scope,
        depth: usize,
    ) -> Result<Json, ConfigError> {
        let inner;
        let mut scope = scope;
        if let Some(vars) = json.get("vars") {
            let Some(vars) = vars.as_object() else {
                return Err(self.fault(vars, "vars", "must be an object"));
            };
            inner = self.with_variables(vars, scope, depth)?;
            scope = &inner;
        }
        if definition_type(json).is_some() {
            return Ok(json.clone());
        }
        if let Some(kind) = json.get("type")
            && kind.as_str().is_some()
        {
            let kind = self.expand(kind, scope, depth + 1)?;
            if let Some(name) = kind.as_str() {
                if LOOPS.contains(&name) {
                    return self.walk(name, json, scope, depth + 1);
                }
                if self.is_call(name) {
                    return self.call(name, &Arguments::Named(members), json.position, scope, depth + 1);
                }
            }
        }
        let mut expanded = Vec::with_capacity(members.len());
        for (key, value) in members.iter().filter(|(key, _)| key != "vars") {
            let key = self.expand_text(key, value.position, scope, depth + 1)?;
            let Some(key) = text_of(&key) else {
                return Err(self.fault(&key, "key", "must come to text"));
            };
            let value = self.expand(value, scope, depth + 1)?;
            put(&mut expanded, &key, value);
        }
        Ok(Json { position: json.position, node: JsonNode::Object(expanded) })
    }

    /// `scope` with these variables, which may use each other in any order.
    fn with_variables(
        &mut self,
        vars: &[(String, Json)],
        scope: &Scope,
        depth: usize,
    ) -> Result<Scope, ConfigError> {
        let mut inner = scope.clone();
        for (name, _) in vars {
            inner.values.remove(name);
            inner.unknown.insert(name.clone());
        }
        let mut left: Vec<&(String, Json)> = vars.iter().collect();
        while !left.is_empty() {
            let (before, mut fault) = (left.len(), None);
            let mut later = Vec::new();
            for variable in left {
                match self.expand(&variable.1, &inner, depth + 1) {
                    Ok(value) => inner.insert(&variable.0, value),
                    Err(error) => {
                        later.push(variable);
                        fault = Some(error);
                    }
                }
            }
            if let (Some(fault), true) = (fault, later.len() == before) {
                return Err(fault);
            }
            left = later;
        }
        Ok(inner)
    }

    fn is_call(&self, name: &str) -> bool {
        self.macros.contains_key(name) || BUILT_IN.iter().any(|&(known, _)| known == name)
    }

    /// What is called `name`, if anything is.
    fn value_of(&mut self, name: &str, scope: &Scope, depth: usize) -> Result<Option<Json>, ConfigError> {
        if let Some(value) = scope.values.get(name) {
            return Ok(Some(value.clone()));
        }
        if scope.unknown.contains(name) {
            return Ok(None);
        }
        let Some(constant) = self.constants.get_mut(name) else { return Ok(None) };
        match std::mem::replace(constant, Constant::Begun) {
            Constant::Expanded(value) => {
                *constant = Constant::Expanded(value.clone());
                Ok(Some(value))
            }
            Constant::Written(written) => {
                let expanded = self.expand(&written, &Scope::new(), depth + 1);
                // If there is a mistake in it, the next use says so too.
                let known = match &expanded {
                    Ok(value) => Constant::Expanded(value.clone()),
                    Err(_) => Constant::Written(written),
                };
                self.constants.insert(name.to_owned(), known);
                expanded.map(Some)
            }
            Constant::Begun => {
                let fault = self.sources.error(Position::default(), "constant", name, "is defined by itself");
                Err(fault)
            }
        }
    }

    fn expand_text(
        &mut self,
        text: &str,
        position: Position,
        scope: &Scope,
        depth: usize,
    ) -> Result<Json, ConfigError> {
        if depth > DEPTH_MAX {
            return Err(self.sources.error(position, "macros", text, "calls nested more than 250 deep"));
        }
        if let Some(call) = text.strip_prefix('@') {
            let (name, rest) = call.split_once('(').map_or((call, None), |(name, rest)| (name, Some(rest)));
            let listed = match rest {
                None => Vec::new(),
                Some(rest) => arguments(rest)
                    .ok_or_else(|| {
                        self.sources.error(position, "@ call", text, "brackets must match: \"@name(a,b)\"")
                    })?
                    .iter()
                    .map(|argument| Json::string(position, argument))
                    .collect(),
            };
            let name = self.substitute(name.trim(), position, scope, depth)?;
            let name = text_of(&name).unwrap_or_default();
            return self.call(&name, &Arguments::Listed(listed), position, scope, depth + 1);
        }
        self.substitute(text, position, scope, depth)
    }

    /// Puts values in for `%name%`.
    fn substitute(
        &mut self,
        text: &str,
        position: Position,
        scope: &Scope,
        depth: usize,
    ) -> Result<Json, ConfigError> {
        if !text.contains(['%', '\\']) {
            return Ok(Json::string(position, text));
        }
        let mut value = |name: &str| {
            let found = self.value_of(name, scope, depth)?;
            found.ok_or_else(|| {
                let remedy = format!("nothing is called \"{name}\" here; a % is written \\%");
                self.sources.error(position, "%name%", text, &remedy)
            })
        };
        if let Some(name) = text.strip_prefix('%').and_then(|rest| rest.strip_suffix('%'))
            && !name.is_empty()
            && !name.contains(['%', '\\'])
        {
            return Ok(Json { position, ..value(name)? });
        }
        let mut done = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['%', '\\']) {
            done.push_str(&rest[..at]);
            let marked = &rest[at..];
            if let Some(escaped) = marked.strip_prefix('\\') {
                let Some(first) = escaped.chars().next() else {
                    done.push('\\');
                    rest = "";
                    break;
                };
                done.push(first);
                rest = &escaped[first.len_utf8()..];
                continue;
            }
            let Some((name, behind)) = marked[1..].split_once('%') else {
                return Err(self.sources.error(
                    position,
                    "%name%",
                    text,
                    "a second % is missing; a plain % is written \\%",
                ));
            };
            let value = value(name)?;
            let Some(inserted) = text_of(&value) else {
                return Err(self.sources.error(
                    position,
                    "%name%",
                    text,
                    &format!("\"{name}\" is {}, not text", value.kind()),
                ));
            };
            done.push_str(&inserted);
            rest = behind;
        }
        done.push_str(rest);
        Ok(Json::string(position, &done))
    }

    fn call(
        &mut self,
        name: &str,
        arguments: &Arguments,
        position: Position,
        scope: &Scope,
        depth: usize,
    ) -> Result<Json, ConfigError> {
        let fault = |this: &Self, remedy: &str| this.sources.error(position, &format!("@{name}"), "", remedy);
        if let Some(called) = self.macros.get(name).cloned() {
            let mut inner = Scope::new();
            for (at, param) in called.params.iter().enumerate() {
                match (argument(arguments, at, &param.name), &param.default) {
                    (Some(value), _) => {
                        let value = self.expand(&value, scope, depth + 1)?;
                        inner.insert(&param.name, value);
                    }
                    // As written, as in mcrouter.
                    (None, Some(default)) => inner.insert(&param.name, default.clone()),
                    (None, None) if param.optional => {}
                    (None, None) => {
                        return Err(fault(self, &format!("the argument \"{}\" is missing", param.name)));
                    }
                }
            }
            if let Arguments::Listed(listed) = arguments
                && listed.len() > called.params.len()
                && !(called.params.is_empty() && is_empty(listed))
            {
                return Err(fault(
                    self,
                    &format!("takes {} arguments, not {}", called.params.len(), listed.len()),
                ));
            }
            return self.expand(&called.result, &inner, depth + 1);
        }
        let Some(&(name, params)) = BUILT_IN.iter().find(|&&(known, _)| known == name) else {
            return Err(fault(self, "there is no such call or macro"));
        };
        let mut values = Vec::with_capacity(params.len());
        for (at, param) in params.iter().enumerate() {
            let (param, optional) = param.strip_suffix('?').map_or((*param, false), |param| (param, true));
            match argument(arguments, at, param) {
                Some(value) if LATE.contains(&(name, param)) => values.push(Some(value)),
                Some(value) => values.push(Some(self.expand(&value, scope, depth + 1)?)),
                None if optional => values.push(None),
                None => return Err(fault(self, &format!("the argument \"{param}\" is missing"))),
            }
        }
        if let Arguments::Listed(listed) = arguments {
            if name == "merge" && listed.len() > 1 {
                let all = listed.iter().map(|value| self.expand(value, scope, depth + 1));
                let all = all.collect::<Result<Vec<_>, _>>()?;
                values = vec![Some(Json { position, node: JsonNode::Array(all) })];
            } else if listed.len() > params.len() {
                return Err(fault(self, &format!("takes {} arguments, not {}", params.len(), listed.len())));
            }
        }
        self.built_in(name, &values, position, scope, depth)
    }

    fn built_in(
        &mut self,
        name: &str,
        values: &[Option<Json>],
        position: Position,
        scope: &Scope,
        depth: usize,
    ) -> Result<Json, ConfigError> {
        let null = Json { position, node: JsonNode::Null };
        let value = |at: usize| values.get(at).and_then(Option::as_ref).unwrap_or(&null);
        let fault = |this: &Self, shown: &str, remedy: &str| {
            this.sources.error(position, &format!("@{name}"), shown, remedy)
        };
        let node = match name {
            "import" => {
                let Some(path) = value(0).as_str() else {
                    return Err(fault(self, &value(0).shown(), "takes a path"));
                };
                let imported = match (self.import)(path) {
                    Ok(text) => self
                        .sources
                        .read(path, &text)
                        .and_then(|json| self.expand(&json, &Scope::new(), depth + 1)),
                    Err(reason) => Err(fault(self, path, &reason.to_string())),
                };
                // The default is for a file with a mistake in it too.
                return match (imported, values.get(1).and_then(Option::as_ref)) {
                    (Err(error), Some(default)) => {
                        tracing::warn!("{error}; the default is used");
                        self.expand(default, scope, depth + 1)
                    }
                    (imported, _) => imported,
                };
            }
            "and" | "or" => {
                let JsonNode::Bool(first) = value(0).node else {
                    return Err(fault(self, &value(0).shown(), "A must be true or false"));
                };
                if first == (name == "or") {
                    return Ok(Json { position, node: JsonNode::Bool(first) });
                }
                let second = self.expand(value(1), scope, depth + 1)?;
                let JsonNode::Bool(second) = second.node else {
                    return Err(fault(self, &second.shown(), "B must be true or false"));
                };
                JsonNode::Bool(second)
            }
            "if" => {
                let JsonNode::Bool(condition) = value(0).node else {
                    return Err(fault(self, &value(0).shown(), "the condition must be true or false"));
                };
                return self.expand(value(if condition { 1 } else { 2 }), scope, depth + 1);
            }
            "select" => match (select(value(0), value(1)), values.get(2).and_then(Option::as_ref)) {
                (Some(found), _) => found.node.clone(),
                (None, Some(default)) => return self.expand(default, scope, depth + 1),
                (None, None) => {
                    return Err(fault(self, &value(1).shown(), "is not in there, and there is no default"));
                }
            },
            "fail" => return Err(fault(self, "", &text_of(value(0)).unwrap_or_default())),
            "defined" => {
                let name = text_of(value(0)).unwrap_or_default();
                let is_local = scope.values.contains_key(&name) || scope.unknown.contains(&name);
                JsonNode::Bool(is_local || self.constants.contains_key(&name))
            }
            _ => match pure(name, value(0), value(1), value(2)) {
                Some(node) => node,
                None => {
                    let shown: Vec<String> = values.iter().flatten().map(Json::shown).collect();
                    return Err(fault(self, &shown.join(", "), "cannot be done with these"));
                }
            },
        };
        Ok(Json { position, node })
    }
}

/// The argument `at`, or of that name.
fn argument(arguments: &Arguments, at: usize, name: &str) -> Option<Json> {
    match arguments {
        Arguments::Listed(listed) => listed.get(at).cloned(),
        Arguments::Named(members) => {
            members.iter().find_map(|(key, value)| (key == name).then(|| value.clone()))
        }
    }
}

/// The arguments in `rest`, which begins after the opening bracket of a call.
fn arguments(rest: &str) -> Option<Vec<String>> {
    let inside = rest.trim_end().strip_suffix(')')?;
    let (mut found, mut current, mut depth, mut chars) = (Vec::new(), String::new(), 0_usize, inside.chars());
    while let Some(char) = chars.next() {
        match char {
            '\\' => {
                // Kept for the round in which the argument itself is expanded, but where only this one sees
                // it.
                let next = chars.next()?;
                if depth > 0 || matches!(next, '%' | '@' | '\\') {
                    current.push('\\');
                }
                current.push(next);
                continue;
            }
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            ',' if depth == 0 => {
                found.push(std::mem::take(&mut current).trim().to_owned());
                continue;
            }
            _ => {}
        }
        current.push(char);
    }
    if depth > 0 {
        return None;
    }
    // `@name()` has one argument, which is empty, as in mcrouter.
    found.push(current.trim().to_owned());
    Some(found)
}

/// Whether these are the arguments of `@name()`.
fn is_empty(listed: &[Json]) -> bool {
    matches!(listed, [only] if only.as_str() == Some(""))
}

/// The type of a definition of a macro or constant, which is not expanded.
fn definition_type(json: &Json) -> Option<&str> {
    json.get("type")?.as_str().filter(|kind| matches!(*kind, "macroDef" | "constDef"))
}
