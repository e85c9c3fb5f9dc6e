//! JSON as mcrouter reads it, with comments and trailing commas, every value knowing its line.

use std::fmt;

use jsonc_parser::ast;
use jsonc_parser::{CollectOptions, ParseOptions};

use super::error::ConfigError;

/// Deepest nesting of a file, brackets in brackets.
const DEPTH_MAX: usize = 250;

/// The line that a value is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Position {
    /// The index in the list of [`Sources`].
    pub file: u16,
    /// From 1.
    pub line: u32,
}

/// A value and its position.
#[derive(Clone, Debug)]
pub(crate) struct Json {
    pub position: Position,
    pub node: JsonNode,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum JsonNode {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    String(String),
    Array(Vec<Json>),
    /// In the order written; of a key written twice the last value.
    Object(Vec<(String, Json)>),
}

/// Equal by value, wherever they are written.
impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node
    }
}

/// The files that were read, for naming them.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    files: Vec<String>,
}

impl Sources {
    /// Most files of one configuration.
    const FILES_MAX: usize = 1000;

    /// Reads `text`, which came from `file`.
    pub(crate) fn read(&mut self, file: &str, text: &str) -> Result<Json, ConfigError> {
        let fault = |line: u32, remedy: &str| ConfigError {
            file: file.into(),
            line,
            key: "JSON".into(),
            value: String::new(),
            remedy: remedy.into(),
        };
        if self.files.len() >= Self::FILES_MAX {
            return Err(fault(0, "more than 1000 files: does one import itself?"));
        }
        let lines = Lines::from_text(text);
        if let Some(at) = too_deep(text) {
            return Err(fault(lines.at(at), "brackets nested more than 250 deep"));
        }
        let collect = CollectOptions::default();
        let parsed = jsonc_parser::parse_to_ast(text, &collect, &ParseOptions::default())
            .map_err(|error| fault(lines.at(error.range().start), &error.kind().to_string()))?;
        let index = self.files.len() as u16;
        self.files.push(file.into());
        match parsed.value {
            Some(value) => convert(&value, index, &lines),
            None => Err(fault(1, "nothing in it: an object with \"pools\" and \"route\" is needed")),
        }
        .map_err(|error| ConfigError { file: file.into(), ..error })
    }

    /// An error about the value at `position`.
    pub(crate) fn error(&self, position: Position, key: &str, value: &str, remedy: &str) -> ConfigError {
        ConfigError {
            file: self.files.get(usize::from(position.file)).cloned().unwrap_or_default(),
            line: position.line,
            key: key.into(),
            value: value.into(),
            remedy: remedy.into(),
        }
    }
}

/// Where the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn from_text(text: &str) -> Self {
        Self(memchr::memchr_iter(b'\n', text.as_bytes()).collect())
    }

    fn at(&self, offset: usize) -> u32 {
        self.0.partition_point(|&end| end < offset) as u32 + 1
    }
}

/// Where brackets nest too deep. Those in comments count too, which only errs on the safe side.
fn too_deep(text: &str) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'\n' => quoted = false, // a quote in a comment ends with its line
            b'[' | b'{' if !quoted => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Some(at);
                }
            }
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

fn convert(value: &ast::Value, file: u16, lines: &Lines) -> Result<Json, ConfigError> {
    use jsonc_parser::common::Ranged;
    let position = Position { file, line: lines.at(value.range().start) };
    let node = match value {
        ast::Value::NullKeyword(_) => JsonNode::Null,
        ast::Value::BooleanLit(literal) => JsonNode::Bool(literal.value),
        ast::Value::StringLit(literal) => JsonNode::String(literal.value.clone().into_owned()),
        ast::Value::NumberLit(literal) => number(literal.value).ok_or_else(|| ConfigError {
            file: String::new(),
            line: position.line,
            key: "JSON".into(),
            value: literal.value.into(),
            remedy: "no number that fits 64 bits".into(),
        })?,
        ast::Value::Array(array) => {
            let elements = array.elements.iter().map(|element| convert(element, file, lines));
            JsonNode::Array(elements.collect::<Result<_, _>>()?)
        }
        ast::Value::Object(object) => {
            let mut members = Vec::with_capacity(object.properties.len());
            for property in &object.properties {
                put(&mut members, property.name.as_str(), convert(&property.value, file, lines)?);
            }
            JsonNode::Object(members)
        }
    };
    Ok(Json { position, node })
}

fn number(text: &str) -> Option<JsonNode> {
    if let Ok(int) = text.parse() {
        return Some(JsonNode::Int(int));
    }
    text.parse().ok().filter(|double: &f64| double.is_finite()).map(JsonNode::Double)
}

/// Sets the member `key`.
pub(super) fn put(members: &mut Vec<(String, Json)>, key: &str, value: Json) {
    match members.iter_mut().find(|(name, _)| name == key) {
        Some((_, old)) => *old = value,
        None => members.push((key.into(), value)),
    }
}

impl Json {
    pub(crate) fn string(position: Position, text: &str) -> Self {
        Self { position, node: JsonNode::String(text.into()) }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.node {
            JsonNode::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_array(&self) -> Option<&[Self]> {
        match &self.node {
            JsonNode::Array(elements) => Some(elements),
            _ => None,
        }
    }

    pub(crate) fn as_object(&self) -> Option<&[(String, Self)]> {
        match &self.node {
            JsonNode::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The member `key` of an object that has it; `null` counts as not there.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let (_, value) = self.as_object()?.iter().find(|(name, _)| name == key)?;
        (value.node != JsonNode::Null).then_some(value)
    }

    pub(crate) const fn kind(&self) -> &'static str {
        match self.node {
            JsonNode::Null => "null",
            JsonNode::Bool(_) => "true or false",
            JsonNode::Int(_) | JsonNode::Double(_) => "a number",
            JsonNode::String(_) => "text",
            JsonNode::Array(_) => "a list",
            JsonNode::Object(_) => "an object",
        }
    }

    /// For messages: the value, or its kind when it is long.
    pub(crate) fn shown(&self) -> String {
        let text = self.to_string();
        if text.len() <= 80 { text } else { self.kind().into() }
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            JsonNode::Null => write!(f, "null"),
            JsonNode::Bool(value) => write!(f, "{value}"),
            JsonNode::Int(value) => write!(f, "{value}"),
            // In plain digits, 1e300 would have 300 zeros.
            JsonNode::Double(value) if value.abs() >= 1e16 => write!(f, "{value:e}"),
            JsonNode::Double(value) => write!(f, "{value}"),
            JsonNode::String(text) => write!(f, "{}", serde_json::Value::from(text.as_str())),
            JsonNode::Array(elements) => {
                write!(f, "[")?;
                for (at, element) in elements.iter().enumerate() {
                    write!(f, "{}{element}", if at > 0 { "," } else { "" })?;
                }
                write!(f, "]")
            }
            JsonNode::Object(members) => {
                write!(f, "{{")?;
                for (at, (key, value)) in members.iter().enumerate() {
                    let comma = if at > 0 { "," } else { "" };
                    write!(f, "{comma}{}:{value}", serde_json::Value::from(key.as_str()))?;
                }
                write!(f, "}}")
            }
        }
    }
}
