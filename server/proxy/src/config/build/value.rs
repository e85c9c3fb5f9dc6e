//! Values of the JSON, read by their kind: each error says which key, what is there, and what must be.

use super::builder::{Builder, Checked};
use crate::config::error::ConfigError;
use crate::config::json::{Json, JsonNode};

impl Builder<'_> {
    /// An error about the value at `at`.
    pub(crate) fn fault(&self, at: &Json, key: &str, value: &str, remedy: &str) -> ConfigError {
        self.sources.error(at.position, key, value, remedy)
    }

    /// An error about `value`, which it shows.
    pub(crate) fn wrong(&self, value: &Json, key: &str, remedy: &str) -> ConfigError {
        self.fault(value, key, &value.shown(), remedy)
    }

    pub(crate) fn object<'j>(&self, value: &'j Json, key: &str) -> Checked<&'j [(String, Json)]> {
        value.as_object().ok_or_else(|| self.wrong(value, key, "must be an object"))
    }

    pub(crate) fn list<'j>(&self, value: &'j Json, key: &str) -> Checked<&'j [Json]> {
        value.as_array().ok_or_else(|| self.wrong(value, key, "must be a list"))
    }

    pub(crate) fn text<'j>(&self, value: &'j Json, key: &str) -> Checked<&'j str> {
        value.as_str().ok_or_else(|| self.wrong(value, key, "must be text"))
    }

    pub(crate) fn text_at(&self, json: &Json, key: &str) -> Checked<Option<String>> {
        json.get(key).map(|value| self.text(value, key).map(str::to_owned)).transpose()
    }

    pub(crate) fn texts_at(&self, json: &Json, key: &str) -> Checked<Vec<String>> {
        let Some(value) = json.get(key) else { return Ok(Vec::new()) };
        self.list(value, key)?.iter().map(|text| self.text(text, key).map(str::to_owned)).collect()
    }

    pub(crate) fn flag_at(&self, json: &Json, key: &str, default: bool) -> Checked<bool> {
        match json.get(key).map(|value| (value, &value.node)) {
            None => Ok(default),
            Some((_, JsonNode::Bool(on))) => Ok(*on),
            Some((value, _)) => Err(self.wrong(value, key, "must be true or false")),
        }
    }

    /// A whole number from `min` to `max`.
    pub(crate) fn int_at(&self, json: &Json, key: &str, min: i64, max: i64) -> Checked<Option<i64>> {
        match json.get(key).map(|value| (value, &value.node)) {
            None => Ok(None),
            Some((_, JsonNode::Int(int))) if (min..=max).contains(int) => Ok(Some(*int)),
            Some((value, _)) => {
                Err(self.wrong(value, key, &format!("must be a whole number from {min} to {max}")))
            }
        }
    }

    pub(crate) fn ms_at(&self, json: &Json, key: &str, default: u32) -> Checked<u32> {
        Ok(self.int_at(json, key, 0, 24 * 60 * 60 * 1000)?.map_or(default, |ms| ms as u32))
    }

    pub(crate) fn number(&self, value: &Json, key: &str, min: f64, max: f64) -> Checked<f64> {
        let number = match value.node {
            JsonNode::Int(int) => int as f64,
            JsonNode::Double(double) => double,
            _ => f64::NAN,
        };
        if (min..=max).contains(&number) {
            return Ok(number);
        }
        Err(self.wrong(value, key, &format!("must be a number from {min} to {max}")))
    }

    pub(crate) fn number_at(&self, json: &Json, key: &str, default: f64, min: f64, max: f64) -> Checked<f64> {
        json.get(key).map_or(Ok(default), |value| self.number(value, key, min, max))
    }

    pub(crate) fn numbers_at(&self, json: &Json, key: &str, max: f64) -> Checked<Vec<f64>> {
        let Some(value) = json.get(key) else { return Ok(Vec::new()) };
        self.list(value, key)?.iter().map(|number| self.number(number, key, 0.0, max)).collect()
    }

    /// `value` is an object with no keys but these.
    pub(crate) fn known(&self, value: &Json, key: &str, known: &[&str]) -> Checked<()> {
        let unknown = self.object(value, key)?.iter().find(|(part, _)| !known.contains(&part.as_str()));
        match unknown {
            None => Ok(()),
            Some((part, value)) => {
                let remedy = format!("must be one of {}", known.join(" "));
                Err(self.fault(value, &format!("{key}.{part}"), &value.shown(), &remedy))
            }
        }
    }
}
