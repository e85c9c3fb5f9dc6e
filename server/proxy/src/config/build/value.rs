//! Values of the JSON, read by their kind: each error says which key, what is there, and what must be.

use super::super::ConfigError;
use super::super::json::{Json, Node};
use super::{Builder, Checked};

impl Builder<'_> {
    pub(super) fn fault(&self, at: &Json, key: &str, value: &str, remedy: &str) -> ConfigError {
        self.sources.error(at.place, key, value, remedy)
    }

    pub(super) fn wrong(&self, value: &Json, key: &str, remedy: &str) -> ConfigError {
        self.fault(value, key, &value.shown(), remedy)
    }

    pub(super) fn object<'j>(&self, value: &'j Json, key: &str) -> Checked<&'j [(String, Json)]> {
        value.as_object().ok_or_else(|| self.wrong(value, key, "must be an object"))
    }

    pub(super) fn list<'j>(&self, value: &'j Json, key: &str) -> Checked<&'j [Json]> {
        value.as_array().ok_or_else(|| self.wrong(value, key, "must be a list"))
    }

    pub(super) fn text<'j>(&self, value: &'j Json, key: &str) -> Checked<&'j str> {
        value.as_str().ok_or_else(|| self.wrong(value, key, "must be text"))
    }

    pub(super) fn text_at(&self, json: &Json, key: &str) -> Checked<Option<String>> {
        json.get(key).map(|value| self.text(value, key).map(str::to_owned)).transpose()
    }

    pub(super) fn texts_at(&self, json: &Json, key: &str) -> Checked<Vec<String>> {
        let Some(value) = json.get(key) else { return Ok(Vec::new()) };
        self.list(value, key)?.iter().map(|text| self.text(text, key).map(str::to_owned)).collect()
    }

    pub(super) fn flag_at(&self, json: &Json, key: &str, default: bool) -> Checked<bool> {
        match json.get(key).map(|value| (value, &value.node)) {
            None => Ok(default),
            Some((_, Node::Bool(on))) => Ok(*on),
            Some((value, _)) => Err(self.wrong(value, key, "must be true or false")),
        }
    }

    /// A whole number from `min` to `max`.
    pub(super) fn int_at(&self, json: &Json, key: &str, min: i64, max: i64) -> Checked<Option<i64>> {
        match json.get(key).map(|value| (value, &value.node)) {
            None => Ok(None),
            Some((_, Node::Int(int))) if (min..=max).contains(int) => Ok(Some(*int)),
            Some((value, _)) => {
                Err(self.wrong(value, key, &format!("must be a whole number from {min} to {max}")))
            }
        }
    }

    pub(super) fn ms_at(&self, json: &Json, key: &str, default: u32) -> Checked<u32> {
        Ok(self.int_at(json, key, 0, 24 * 60 * 60 * 1000)?.map_or(default, |ms| ms as u32))
    }

    pub(super) fn number(&self, value: &Json, key: &str, min: f64, max: f64) -> Checked<f64> {
        let number = match value.node {
            Node::Int(int) => int as f64,
            Node::Double(double) => double,
            _ => f64::NAN,
        };
        if (min..=max).contains(&number) {
            return Ok(number);
        }
        Err(self.wrong(value, key, &format!("must be a number from {min} to {max}")))
    }

    pub(super) fn number_at(&self, json: &Json, key: &str, default: f64, min: f64, max: f64) -> Checked<f64> {
        json.get(key).map_or(Ok(default), |value| self.number(value, key, min, max))
    }

    pub(super) fn numbers_at(&self, json: &Json, key: &str, max: f64) -> Checked<Vec<f64>> {
        let Some(value) = json.get(key) else { return Ok(Vec::new()) };
        self.list(value, key)?.iter().map(|number| self.number(number, key, 0.0, max)).collect()
    }
}
