//! JSON as mcrouter reads it, with comments and trailing commas, every value knowing its line.

use std::fmt;

use jsonc_parser::ast;
use jsonc_parser::{CollectOptions, ParseOptions};

use super::ConfigError;

/// Deepest nesting of a file, brackets in brackets.
const DEPTH_MAX: usize = 250;

/// Where a value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Place {
    /// In the list of [`Sources`].
    pub file: u16,
    /// From 1.
    pub line: u32,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Json {
    pub place: Place,
    pub node: Node,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    String(String),
    Array(Vec<Json>),
    /// In the order written; of a key written twice the last value.
    Object(Vec<(String, Json)>),
}

/// Equal by value, wherever they stand.
impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node
    }
}

/// The files that were read, for naming them.
#[derive(Debug, Default)]
pub(super) struct Sources {
    files: Vec<String>,
}

impl Sources {
    /// Most files of one configuration.
    const FILES_MAX: usize = 1000;

    /// Reads `text`, which came from `file`.
    pub fn read(&mut self, file: &str, text: &str) -> Result<Json, ConfigError> {
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
        let lines = Lines::of(text);
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

    /// An error about the value at `place`.
    pub fn error(&self, place: Place, key: &str, value: &str, remedy: &str) -> ConfigError {
        ConfigError {
            file: self.files.get(usize::from(place.file)).cloned().unwrap_or_default(),
            line: place.line,
            key: key.into(),
            value: value.into(),
            remedy: remedy.into(),
        }
    }
}

/// Where the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
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
    let place = Place { file, line: lines.at(value.range().start) };
    let node = match value {
        ast::Value::NullKeyword(_) => Node::Null,
        ast::Value::BooleanLit(literal) => Node::Bool(literal.value),
        ast::Value::StringLit(literal) => Node::String(literal.value.clone().into_owned()),
        ast::Value::NumberLit(literal) => number(literal.value).ok_or_else(|| ConfigError {
            file: String::new(),
            line: place.line,
            key: "JSON".into(),
            value: literal.value.into(),
            remedy: "no number that fits 64 bits".into(),
        })?,
        ast::Value::Array(array) => {
            let elements = array.elements.iter().map(|element| convert(element, file, lines));
            Node::Array(elements.collect::<Result<_, _>>()?)
        }
        ast::Value::Object(object) => {
            let mut members = Vec::with_capacity(object.properties.len());
            for property in &object.properties {
                put(&mut members, property.name.as_str(), convert(&property.value, file, lines)?);
            }
            Node::Object(members)
        }
    };
    Ok(Json { place, node })
}

fn number(text: &str) -> Option<Node> {
    if let Ok(int) = text.parse() {
        return Some(Node::Int(int));
    }
    text.parse().ok().filter(|double: &f64| double.is_finite()).map(Node::Double)
}

/// Sets the member `key`.
pub(super) fn put(members: &mut Vec<(String, Json)>, key: &str, value: Json) {
    match members.iter_mut().find(|(name, _)| name == key) {
        Some((_, old)) => *old = value,
        None => members.push((key.into(), value)),
    }
}

impl Json {
    pub fn string(place: Place, text: &str) -> Self {
        Self { place, node: Node::String(text.into()) }
    }

    pub fn as_str(&self) -> Option<&str> {
        match &self.node {
            Node::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_array(&self) -> Option<&[Self]> {
        match &self.node {
            Node::Array(elements) => Some(elements),
            _ => None,
        }
    }

    pub fn as_object(&self) -> Option<&[(String, Self)]> {
        match &self.node {
            Node::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The member `key` of an object that has it; `null` counts as not there.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let (_, value) = self.as_object()?.iter().find(|(name, _)| name == key)?;
        (value.node != Node::Null).then_some(value)
    }

    pub const fn kind(&self) -> &'static str {
        match self.node {
            Node::Null => "null",
            Node::Bool(_) => "true or false",
            Node::Int(_) | Node::Double(_) => "a number",
            Node::String(_) => "text",
            Node::Array(_) => "a list",
            Node::Object(_) => "an object",
        }
    }

    /// For messages: the value, or its kind when it is long.
    pub fn shown(&self) -> String {
        let text = self.to_string();
        if text.len() <= 80 { text } else { self.kind().into() }
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Node::Null => write!(f, "null"),
            Node::Bool(value) => write!(f, "{value}"),
            Node::Int(value) => write!(f, "{value}"),
            Node::Double(value) => write!(f, "{value}"),
            Node::String(text) => write!(f, "{}", serde_json::Value::from(text.as_str())),
            Node::Array(elements) => {
                write!(f, "[")?;
                for (at, element) in elements.iter().enumerate() {
                    write!(f, "{}{element}", if at > 0 { "," } else { "" })?;
                }
                write!(f, "]")
            }
            Node::Object(members) => {
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
