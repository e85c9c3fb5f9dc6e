//! The preprocessor of mcrouter's configuration: macros, constants, `@` calls and `%name%`.

use std::collections::HashMap;

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
    constants: HashMap<String, Json>,
    values: usize,
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
type Scope = HashMap<String, Json>;

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
];

/// Calls of mcrouter's that this server does not have.
const MISSING: &[&str] =
    &["hash", "weightedHash", "shuffle", "define", "isLocalIp", "process", "transform", "foreach"];

/// Parameters that are expanded only when they are needed.
const LATE: &[&str] = &["is_true", "is_false", "default"];

impl<'a> Preprocessor<'a> {
    pub(super) fn new(
        sources: &'a mut Sources,
        import: &'a Import<'a>,
        globals: HashMap<String, Json>,
    ) -> Self {
        Self { sources, import, macros: HashMap::new(), constants: globals, values: 0 }
    }

    /// The configuration without its macros and constants, all calls done.
    pub(super) fn run(&mut self, config: &Json) -> Result<Json, ConfigError> {
        for section in ["macros", "consts"] {
            match config.get(section).map(|section| (section, &section.node)) {
                None => {}
                Some((_, JsonNode::Array(definitions))) => {
                    for definition in definitions {
                        self.define(None, definition)?;
                    }
                }
                Some((_, JsonNode::Object(definitions))) => {
                    for (name, definition) in definitions {
                        self.define(Some(name), definition)?;
                    }
                }
                Some((value, _)) => return Err(self.fault(value, section, "must be a list or an object")),
            }
        }
        let members =
            config.as_object().ok_or_else(|| self.fault(config, "configuration", "must be an object"))?;
        let kept = members.iter().filter(|(key, _)| key != "macros" && key != "consts").cloned().collect();
        self.expand(&Json { position: config.position, node: JsonNode::Object(kept) }, &Scope::new(), 0)
    }

    fn fault(&self, value: &Json, key: &str, remedy: &str) -> ConfigError {
        self.sources.error(value.position, key, &value.shown(), remedy)
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
                let value = self.expand(&result, &Scope::new(), 0)?;
                self.constants.insert(name, value);
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
            (None, Some(name)) => Ok(Param {
                name: name.into(),
                default: param.get("default").cloned(),
                optional: param.get("optional").is_some_and(|value| value.node == JsonNode::Bool(true)),
            }),
            (None, None) => Err(bad(param)),
        };
        params.as_array().ok_or_else(|| bad(params))?.iter().map(one).collect()
    }

    fn expand(&mut self, json: &Json, scope: &Scope, depth: usize) -> Result<Json, ConfigError> {
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
        let mut inner;
        let mut scope = scope;
        if let Some(vars) = json.get("vars").and_then(Json::as_object) {
            inner = scope.clone();
            for (name, value) in vars {
                let value = self.expand(value, scope, depth + 1)?;
                inner.insert(name.clone(), value);
            }
            scope = &inner;
        }
        if let Some(name) = json.get("type").and_then(Json::as_str)
            && self.is_call(name)
        {
            return self.call(name, &Arguments::Named(members), json.position, scope, depth + 1);
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

    fn is_call(&self, name: &str) -> bool {
        self.macros.contains_key(name)
            || BUILT_IN.iter().any(|&(known, _)| known == name)
            || MISSING.contains(&name)
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
            return self.call(name.trim(), &Arguments::Listed(listed), position, scope, depth + 1);
        }
        self.substitute(text, position, scope)
    }

    /// Puts values in for `%name%`.
    fn substitute(&self, text: &str, position: Position, scope: &Scope) -> Result<Json, ConfigError> {
        if !text.contains(['%', '\\']) {
            return Ok(Json::string(position, text));
        }
        let value = |name: &str| {
            scope.get(name).or_else(|| self.constants.get(name)).ok_or_else(|| {
                self.sources.error(
                    position,
                    "%name%",
                    text,
                    &format!("nothing is called \"{name}\" here; a % is written \\%"),
                )
            })
        };
        if let Some(name) = text.strip_prefix('%').and_then(|rest| rest.strip_suffix('%'))
            && !name.is_empty()
            && !name.contains(['%', '\\'])
        {
            return Ok(Json { position, ..value(name)?.clone() });
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
            let Some(inserted) = text_of(value) else {
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
                        inner.insert(param.name.clone(), value);
                    }
                    (None, Some(default)) => {
                        let value = self.expand(default, &inner, depth + 1)?;
                        inner.insert(param.name.clone(), value);
                    }
                    (None, None) if param.optional => {}
                    (None, None) => {
                        return Err(fault(self, &format!("the argument \"{}\" is missing", param.name)));
                    }
                }
            }
            if let Arguments::Listed(listed) = arguments
                && listed.len() > called.params.len()
            {
                return Err(fault(
                    self,
                    &format!("takes {} arguments, not {}", called.params.len(), listed.len()),
                ));
            }
            return self.expand(&called.result, &inner, depth + 1);
        }
        let Some(&(name, params)) = BUILT_IN.iter().find(|&&(known, _)| known == name) else {
            let remedy =
                if MISSING.contains(&name) { "is not supported" } else { "there is no such call or macro" };
            return Err(fault(self, remedy));
        };
        let mut values = Vec::with_capacity(params.len());
        for (at, param) in params.iter().enumerate() {
            let (param, optional) = param.strip_suffix('?').map_or((*param, false), |param| (param, true));
            match argument(arguments, at, param) {
                Some(value) if LATE.contains(&param) => values.push(Some(value)),
                Some(value) => values.push(Some(self.expand(&value, scope, depth + 1)?)),
                None if optional => values.push(None),
                None => return Err(fault(self, &format!("the argument \"{param}\" is missing"))),
            }
        }
        if let Arguments::Listed(listed) = arguments {
            if name == "merge" {
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
                return match ((self.import)(path), values.get(1).and_then(Option::as_ref)) {
                    (Ok(text), _) => {
                        let json = self.sources.read(path, &text)?;
                        self.expand(&json, &Scope::new(), depth + 1)
                    }
                    (Err(_), Some(default)) => self.expand(default, scope, depth + 1),
                    (Err(reason), None) => Err(fault(self, path, &reason.to_string())),
                };
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
                JsonNode::Bool(scope.contains_key(&name) || self.constants.contains_key(&name))
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
    if !found.is_empty() || !current.trim().is_empty() {
        found.push(current.trim().to_owned());
    }
    Some(found)
}

/// What a value that is not a list or an object reads as.
fn text_of(value: &Json) -> Option<String> {
    match &value.node {
        JsonNode::String(text) => Some(text.clone()),
        JsonNode::Int(_) | JsonNode::Double(_) | JsonNode::Bool(_) => Some(value.to_string()),
        JsonNode::Null | JsonNode::Array(_) | JsonNode::Object(_) => None,
    }
}

fn select<'j>(dictionary: &'j Json, key: &Json) -> Option<&'j Json> {
    match (&dictionary.node, &key.node) {
        (JsonNode::Object(_), JsonNode::String(key)) => dictionary.get(key),
        (JsonNode::Array(elements), JsonNode::Int(at)) => elements.get(usize::try_from(*at).ok()?),
        _ => None,
    }
}

fn int(value: &Json) -> Option<i64> {
    match &value.node {
        JsonNode::Int(int) => Some(*int),
        JsonNode::Double(double) => Some(*double as i64),
        JsonNode::Bool(on) => Some((*on).into()),
        JsonNode::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn double(value: &Json) -> Option<f64> {
    match &value.node {
        JsonNode::Int(int) => Some(*int as f64),
        JsonNode::Double(double) => Some(*double),
        JsonNode::String(text) => text.trim().parse().ok().filter(|double: &f64| double.is_finite()),
        _ => None,
    }
}

fn boolean(value: &Json) -> Option<bool> {
    match &value.node {
        JsonNode::Bool(on) => Some(*on),
        JsonNode::Int(int) => Some(*int != 0),
        JsonNode::String(text) => match text.as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// Calls that look at nothing but their arguments; `None` when they cannot be done with them.
fn pure(name: &str, a: &Json, b: &Json, c: &Json) -> Option<JsonNode> {
    let position = a.position;
    let json = |node| Json { position, node };
    Some(match name {
        "int" => JsonNode::Int(int(a)?),
        "double" => JsonNode::Double(double(a)?),
        "str" => JsonNode::String(text_of(a)?),
        "bool" => JsonNode::Bool(boolean(a)?),
        "keys" => {
            JsonNode::Array(a.as_object()?.iter().map(|(key, _)| Json::string(position, key)).collect())
        }
        "values" => JsonNode::Array(a.as_object()?.iter().map(|(_, value)| value.clone()).collect()),
        "merge" => merge(a.as_array()?)?,
        "slice" => slice(a, int(b)?, int(c)?)?,
        "split" => {
            let (text, by) = (a.as_str()?, b.as_str().filter(|by| !by.is_empty())?);
            JsonNode::Array(text.split(by).map(|part| Json::string(position, part)).collect())
        }
        "range" => {
            let (from, to) = (int(a)?, int(b)?);
            if to.checked_sub(from)? > VALUES_MAX as i64 {
                return None;
            }
            JsonNode::Array((from..=to).map(|number| json(JsonNode::Int(number))).collect())
        }
        "contains" => JsonNode::Bool(match &a.node {
            JsonNode::Object(_) => a.get(b.as_str()?).is_some(),
            JsonNode::Array(elements) => elements.contains(b),
            JsonNode::String(text) => text.contains(b.as_str()?),
            _ => return None,
        }),
        "empty" => JsonNode::Bool(size(a)? == 0),
        "size" => JsonNode::Int(size(a)? as i64),
        "equals" => JsonNode::Bool(a == b),
        "isArray" => JsonNode::Bool(matches!(a.node, JsonNode::Array(_))),
        "isBool" => JsonNode::Bool(matches!(a.node, JsonNode::Bool(_))),
        "isInt" => JsonNode::Bool(matches!(a.node, JsonNode::Int(_))),
        "isDouble" => JsonNode::Bool(matches!(a.node, JsonNode::Double(_))),
        "isObject" => JsonNode::Bool(matches!(a.node, JsonNode::Object(_))),
        "isString" => JsonNode::Bool(matches!(a.node, JsonNode::String(_))),
        "less" => JsonNode::Bool(match (a.as_str(), b.as_str()) {
            (Some(a), Some(b)) => a < b,
            _ => double(a)? < double(b)?,
        }),
        "and" => JsonNode::Bool(boolean(a)? && boolean(b)?),
        "or" => JsonNode::Bool(boolean(a)? || boolean(b)?),
        "not" => JsonNode::Bool(!boolean(a)?),
        "add" | "sub" | "mul" | "div" | "mod" => arithmetic(name, a, b)?,
        "bitwiseAnd" => JsonNode::Int(int(a)? & int(b)?),
        "bitwiseOr" => JsonNode::Int(int(a)? | int(b)?),
        "bitwiseXor" => JsonNode::Int(int(a)? ^ int(b)?),
        "bitwiseNot" => JsonNode::Int(!int(a)?),
        "bitwiseLeftShift" => JsonNode::Int(int(a)?.checked_shl(u32::try_from(int(b)?).ok()?)?),
        "bitwiseRightShift" => JsonNode::Int(int(a)?.checked_shr(u32::try_from(int(b)?).ok()?)?),
        "sort" => {
            let mut elements = a.as_array()?.to_vec();
            if elements.iter().all(|element| element.as_str().is_some()) {
                elements.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
            } else {
                let numbers = elements.iter().map(double).collect::<Option<Vec<f64>>>()?;
                let mut numbered: Vec<(f64, Json)> = numbers.into_iter().zip(elements).collect();
                numbered.sort_by(|one, other| one.0.total_cmp(&other.0));
                elements = numbered.into_iter().map(|(_, element)| element).collect();
            }
            JsonNode::Array(elements)
        }
        "set" => match &a.node {
            JsonNode::Object(members) => {
                let mut members = members.clone();
                put(&mut members, b.as_str()?, c.clone());
                JsonNode::Object(members)
            }
            JsonNode::Array(elements) => {
                let mut elements = elements.clone();
                *elements.get_mut(usize::try_from(int(b)?).ok()?)? = c.clone();
                JsonNode::Array(elements)
            }
            _ => return None,
        },
        _ => return None,
    })
}

fn size(value: &Json) -> Option<usize> {
    match &value.node {
        JsonNode::Object(members) => Some(members.len()),
        JsonNode::Array(elements) => Some(elements.len()),
        JsonNode::String(text) => Some(text.len()),
        _ => None,
    }
}

/// Texts to one text, lists to one list, objects to one in which later members replace earlier ones.
fn merge(parts: &[Json]) -> Option<JsonNode> {
    Some(match &parts.first()?.node {
        JsonNode::String(_) => {
            JsonNode::String(parts.iter().map(text_of).collect::<Option<Vec<_>>>()?.concat())
        }
        JsonNode::Array(_) => {
            let lists = parts.iter().map(Json::as_array).collect::<Option<Vec<_>>>()?;
            JsonNode::Array(lists.concat())
        }
        JsonNode::Object(_) => {
            let mut merged = Vec::new();
            for part in parts {
                for (key, value) in part.as_object()? {
                    put(&mut merged, key, value.clone());
                }
            }
            JsonNode::Object(merged)
        }
        _ => return None,
    })
}

/// From the position `from` to the position `to`, both included.
fn slice(value: &Json, from: i64, to: i64) -> Option<JsonNode> {
    let from = usize::try_from(from.max(0)).ok()?;
    let count = usize::try_from(to.saturating_add(1).max(0)).ok()?.saturating_sub(from);
    match &value.node {
        JsonNode::Array(elements) => {
            Some(JsonNode::Array(elements.iter().skip(from).take(count).cloned().collect()))
        }
        JsonNode::String(text) => Some(JsonNode::String(text.chars().skip(from).take(count).collect())),
        _ => None,
    }
}

fn arithmetic(name: &str, a: &Json, b: &Json) -> Option<JsonNode> {
    if let (JsonNode::Int(a), JsonNode::Int(b)) = (&a.node, &b.node) {
        return Some(JsonNode::Int(match name {
            "add" => a.checked_add(*b)?,
            "sub" => a.checked_sub(*b)?,
            "mul" => a.checked_mul(*b)?,
            "div" => a.checked_div(*b)?,
            _ => a.checked_rem(*b)?,
        }));
    }
    let as_ints = a.as_str().or(b.as_str()).is_some() && int(a).is_some() && int(b).is_some();
    if as_ints {
        let as_int = |value: &Json| Some(Json { position: value.position, node: JsonNode::Int(int(value)?) });
        return arithmetic(name, &as_int(a)?, &as_int(b)?);
    }
    let (a, b) = (double(a)?, double(b)?);
    let result = match name {
        "add" => a + b,
        "sub" => a - b,
        "mul" => a * b,
        "div" => a / b,
        _ => return None,
    };
    result.is_finite().then_some(JsonNode::Double(result))
}
