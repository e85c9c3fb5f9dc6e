//! The calls of the preprocessor that look at nothing but their arguments.

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use super::json::{Json, JsonNode, put};
use crate::hash::spooky;

/// Most numbers of one `@range`.
const RANGE_MAX: i64 = 1_000_000;

/// What a value that is not a list or an object reads as.
pub(super) fn text_of(value: &Json) -> Option<String> {
    match &value.node {
        JsonNode::String(text) => Some(text.clone()),
        JsonNode::Int(_) | JsonNode::Double(_) | JsonNode::Bool(_) => Some(value.to_string()),
        JsonNode::Null | JsonNode::Array(_) | JsonNode::Object(_) => None,
    }
}

pub(super) fn select<'j>(dictionary: &'j Json, key: &Json) -> Option<&'j Json> {
    match (&dictionary.node, &key.node) {
        (JsonNode::Object(_), JsonNode::String(key)) => dictionary.get(key),
        // A negative index counts from the end.
        (JsonNode::Array(elements), JsonNode::Int(at)) => {
            let at = if *at < 0 { at.checked_add(i64::try_from(elements.len()).ok()?)? } else { *at };
            elements.get(usize::try_from(at).ok()?)
        }
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

pub(super) fn boolean(value: &Json) -> Option<bool> {
    match &value.node {
        JsonNode::Bool(on) => Some(*on),
        JsonNode::Int(int) => Some(*int != 0),
        JsonNode::Double(double) => Some(*double != 0.0),
        JsonNode::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
            "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// Calls that look at nothing but their arguments; `None` when they cannot be done with them.
pub(super) fn pure(name: &str, a: &Json, b: &Json, c: &Json) -> Option<JsonNode> {
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
        "slice" => slice(a, b, c)?,
        "split" => {
            let (text, by) = (a.as_str()?, b.as_str().filter(|by| !by.is_empty())?);
            JsonNode::Array(text.split(by).map(|part| Json::string(position, part)).collect())
        }
        "range" => {
            let (from, to) = (int(a)?, int(b)?);
            if to.checked_sub(from)? > RANGE_MAX {
                return None;
            }
            JsonNode::Array((from..=to).map(|number| json(JsonNode::Int(number))).collect())
        }
        "contains" => JsonNode::Bool(match &a.node {
            JsonNode::Object(_) => a.get(b.as_str()?).is_some(),
            JsonNode::Array(elements) => elements.iter().any(|element| same(element, b)),
            JsonNode::String(text) => text.contains(b.as_str()?),
            _ => return None,
        }),
        "define" => a.node.clone(),
        "hash" => JsonNode::Int(match &a.node {
            JsonNode::Int(number) => mixed(number.cast_unsigned()).cast_signed(),
            JsonNode::String(text) => spooky::spooky64(text.as_bytes(), 0).cast_signed(),
            _ => return None,
        }),
        "weightedHash" => JsonNode::String(weighted(a.as_object()?, b)?),
        "shuffle" => {
            let mut elements = a.as_array()?.to_vec();
            match &b.node {
                JsonNode::Null => fastrand::shuffle(&mut elements),
                JsonNode::Int(seed) if *seed >= 0 => shuffle(&mut elements, *seed as u32),
                _ => return None,
            }
            JsonNode::Array(elements)
        }
        "isLocalIp" => JsonNode::Bool(is_local(a.as_str()?)),
        "empty" => JsonNode::Bool(size(a)? == 0),
        "size" => JsonNode::Int(size(a)? as i64),
        "equals" => JsonNode::Bool(same(a, b)),
        "isArray" => JsonNode::Bool(matches!(a.node, JsonNode::Array(_))),
        "isBool" => JsonNode::Bool(matches!(a.node, JsonNode::Bool(_))),
        "isInt" => JsonNode::Bool(matches!(a.node, JsonNode::Int(_))),
        "isDouble" => JsonNode::Bool(matches!(a.node, JsonNode::Double(_))),
        "isObject" => JsonNode::Bool(matches!(a.node, JsonNode::Object(_))),
        "isString" => JsonNode::Bool(matches!(a.node, JsonNode::String(_))),
        "less" => JsonNode::Bool(order(a, b)? == Ordering::Less),
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
            let mut comparable = true;
            elements.sort_by(|one, other| {
                order(one, other).unwrap_or_else(|| {
                    comparable = false;
                    Ordering::Equal
                })
            });
            if !comparable {
                return None;
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

/// From the position or key `from` to the position or key `to`, both included.
fn slice(value: &Json, from: &Json, to: &Json) -> Option<JsonNode> {
    if let JsonNode::Object(members) = &value.node {
        let (from, to) = (from.as_str()?, to.as_str()?);
        let between = |(key, _): &&(String, Json)| (from..=to).contains(&key.as_str());
        return Some(JsonNode::Object(members.iter().filter(between).cloned().collect()));
    }
    let (from, to) = (int(from)?, int(to)?);
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

/// Whether two values are equal. A whole number is equal to a fraction of the same value.
fn same(a: &Json, b: &Json) -> bool {
    match (&a.node, &b.node) {
        (JsonNode::Int(_) | JsonNode::Double(_), JsonNode::Int(_) | JsonNode::Double(_)) => {
            double(a) == double(b)
        }
        (JsonNode::Array(a), JsonNode::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (JsonNode::Object(a), JsonNode::Object(b)) => {
            let has = |(key, value): &(String, Json)| {
                b.iter().any(|(name, other)| name == key && same(value, other))
            };
            a.len() == b.len() && a.iter().all(has)
        }
        (a, b) => a == b,
    }
}

/// The order of two values: by kind, as folly has it, and then by value. Objects have none.
fn order(a: &Json, b: &Json) -> Option<Ordering> {
    let rank = |value: &Json| match value.node {
        JsonNode::Null => 0,
        JsonNode::Array(_) => 1,
        JsonNode::Bool(_) => 2,
        JsonNode::Double(_) => 3,
        JsonNode::Int(_) => 4,
        JsonNode::Object(_) => 5,
        JsonNode::String(_) => 6,
    };
    match (&a.node, &b.node) {
        (JsonNode::Object(_), _) | (_, JsonNode::Object(_)) => None,
        (JsonNode::Int(a), JsonNode::Int(b)) => Some(a.cmp(b)),
        (JsonNode::Int(_) | JsonNode::Double(_), JsonNode::Int(_) | JsonNode::Double(_)) => {
            double(a)?.partial_cmp(&double(b)?)
        }
        (JsonNode::String(a), JsonNode::String(b)) => Some(a.cmp(b)),
        (JsonNode::Bool(a), JsonNode::Bool(b)) => Some(a.cmp(b)),
        (JsonNode::Array(a), JsonNode::Array(b)) => {
            for (a, b) in a.iter().zip(b) {
                match order(a, b)? {
                    Ordering::Equal => {}
                    other => return Some(other),
                }
            }
            Some(a.len().cmp(&b.len()))
        }
        _ => Some(rank(a).cmp(&rank(b))),
    }
}

/// folly's `twang_mix64`.
const fn mixed(key: u64) -> u64 {
    let mut key = (!key).wrapping_add(key << 21);
    key ^= key >> 24;
    key = key.wrapping_add(key << 3).wrapping_add(key << 8);
    key ^= key >> 14;
    key = key.wrapping_add(key << 2).wrapping_add(key << 4);
    key ^= key >> 28;
    key.wrapping_add(key << 31)
}

/// FNV-1, 64 bits.
fn fnv64(bytes: &[u8]) -> u64 {
    // Bytes are signed in mcrouter's.
    let add = |hash: u64, byte: &u8| {
        hash.wrapping_mul(0x0000_0100_0000_01b3) ^ i64::from(byte.cast_signed()).cast_unsigned()
    };
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, add)
}

/// The choice by `key` among names with weights: the name with the greatest scaled hash.
fn weighted(choices: &[(String, Json)], key: &Json) -> Option<String> {
    let key = match &key.node {
        JsonNode::Int(number) => number.cast_unsigned(),
        JsonNode::String(text) => spooky::spooky64(text.as_bytes(), 0),
        _ => return None,
    };
    let number = |value: &Json| match value.node {
        JsonNode::Int(_) | JsonNode::Double(_) => double(value).filter(|weight| *weight >= -0.01),
        _ => None,
    };
    let weights = choices
        .iter()
        .map(|(name, value)| Some((name, number(value)?.max(0.0))))
        .collect::<Option<Vec<_>>>()?;
    let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
    if sum < f64::EPSILON {
        return None;
    }
    let mut best: (f64, Option<&String>) = (-1.0, None);
    for (name, weight) in weights {
        let hash = mixed(fnv64(name.as_bytes()).wrapping_add(key)) as f64 / u64::MAX as f64;
        let weight = weight / sum;
        let scaled = if weight > f64::EPSILON { hash.powf(1.0 / weight) } else { 0.0 };
        if scaled > best.0 {
            best = (scaled, Some(name));
        }
    }
    best.1.cloned()
}

/// `std::shuffle` of libstdc++ with a `std::minstd_rand` of this seed.
fn shuffle(elements: &mut [Json], seed: u32) {
    const MODULUS: u64 = 2_147_483_647;
    /// What the generator yields is from 1 to this.
    const YIELD_MAX: u64 = MODULUS - 1;
    let mut state = u64::from(seed) % MODULUS;
    if state == 0 {
        state = 1;
    }
    // A number below `count`, each as likely as any other.
    let mut below = |count: u64| loop {
        state = state * 48_271 % MODULUS;
        let scaling = (YIELD_MAX - 1) / count;
        let drawn = state - 1;
        if drawn < count * scaling {
            break drawn / scaling;
        }
    };
    let len = elements.len();
    if (YIELD_MAX - 1) / (len.max(1) as u64) < len as u64 {
        for at in 1..len {
            elements.swap(at, below(at as u64 + 1) as usize);
        }
        return;
    }
    let mut at = 1;
    if len.is_multiple_of(2) && len > 0 {
        elements.swap(1, below(2) as usize);
        at = 2;
    }
    // One number decides two exchanges.
    while at + 1 < len {
        let count = at as u64 + 1;
        let drawn = below(count * (count + 1));
        elements.swap(at, (drawn / (count + 1)) as usize);
        elements.swap(at + 1, (drawn % (count + 1)) as usize);
        at += 2;
    }
}

/// Whether `ip` is an address of this host. What is no address is none of them.
fn is_local(ip: &str) -> bool {
    let Ok(ip) = ip.parse::<IpAddr>() else { return false };
    let is_other_loopback = matches!(ip, IpAddr::V4(ip) if ip.is_loopback() && ip != Ipv4Addr::LOCALHOST);
    if ip.is_unspecified() || ip.is_multicast() || is_other_loopback {
        return false;
    }
    UdpSocket::bind((ip, 0)).is_ok()
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
