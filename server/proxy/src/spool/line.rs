//! One delete as a line of a file, and the names of files and folders.

use std::ffi::OsStr;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::Undelivered;
use crate::config::Address;

/// The version of the format.
const VERSION: &str = "AS1.0";
/// The seconds of a quarter of an hour, for which one file is.
const QUARTER_S: i64 = super::FILE_S as i64;

/// A delete that was read from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SpoolLine {
    /// The server it is for.
    pub(super) address: Address,
    /// `delete KEY\r\n` or `md BASE64 b\r\n`.
    pub(super) command: String,
    /// The line as it was read.
    pub(super) text: Vec<u8>,
}

/// The names of the folder and of the file in it for deletes that fail at `now`.
pub(super) fn folder_and_name(now: SystemTime) -> (String, String) {
    let unix_s = super::unix_s(now) as i64;
    let begun_s = unix_s - unix_s % QUARTER_S;
    let begun = Timestamp::from_second(begun_s).unwrap_or_default().to_zoned(TimeZone::UTC);
    let name = format!("{}-{begun_s}-corecached-{}", begun.strftime("%Y%m%dT%H%M"), std::process::id());
    (begun.strftime("%Y%m%dT%H").to_string(), name)
}

/// Whether `name` is that of the folder of an hour, `20261125T14` and perhaps more after a `-`; or with
/// `minutes` that of a file.
pub(super) fn begins_with_time(name: &OsStr, minutes: bool) -> bool {
    let name = name.as_encoded_bytes();
    let (digits, rest) = name.split_at(name.len().min(if minutes { 13 } else { 11 }));
    let fits = |(at, byte): (usize, &u8)| if at == 8 { *byte == b'T' } else { byte.is_ascii_digit() };
    let whole = digits.len() == if minutes { 13 } else { 11 } && digits.iter().enumerate().all(fits);
    whole && if minutes { rest.first() == Some(&b'-') } else { matches!(rest.first(), None | Some(b'-')) }
}

/// Appends the line of `undelivered`, which failed at `now`.
pub(super) fn put(out: &mut Vec<u8>, undelivered: &Undelivered, now: SystemTime) {
    let unix = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let unix_s = unix.as_millis() as f64 / 1000.0;
    let (host, port) = match &undelivered.address {
        Address::Tcp { host, port } => (host.clone(), *port),
        unix @ Address::Unix { .. } => (unix.to_string(), 0),
    };
    let is_plain = |&byte: &u8| byte > b' ' && byte != 0x7f;
    let command = match std::str::from_utf8(&undelivered.key) {
        Ok(key) if key.bytes().all(|byte| is_plain(&byte)) => format!("delete {key}\r\n"),
        _ => format!("md {} b\r\n", STANDARD.encode(&undelivered.key)),
    };
    let line = json!([VERSION, unix_s, "C", [host, port, command]]).to_string();
    debug_assert!(!line.contains('\n'), "JSON escapes line feeds");
    out.extend_from_slice(line.as_bytes());
    out.push(b'\n');
}

/// Parses a line; `None` if it is not a delete.
pub(super) fn parse(line: &[u8]) -> Option<SpoolLine> {
    let value: Value = serde_json::from_slice(line).ok()?;
    let [version, _, kind, body] = value.as_array()?.as_slice() else { return None };
    if version != VERSION || kind != "C" {
        return None;
    }
    let [host, port, command] = body.as_array()?.as_slice() else { return None };
    let (host, port) = (host.as_str()?, u16::try_from(port.as_u64()?).ok()?);
    let command = command.as_str()?;
    // Exactly one command, which deletes: a file must not be able to make us send anything else.
    let words = command.strip_suffix("\r\n")?;
    let key = words
        .strip_prefix("delete ")
        .or_else(|| words.strip_prefix("md ").and_then(|rest| rest.strip_suffix(" b")))?;
    if key.is_empty() || key.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return None;
    }
    let address = match host.strip_prefix("unix:") {
        Some(path) => Address::Unix { path: path.to_owned() },
        None => Address::Tcp { host: host.to_owned(), port },
    };
    Some(SpoolLine { address, command: command.to_owned(), text: line.to_vec() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;

    fn at(unix_ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms)
    }

    #[test]
    fn a_delete_is_a_line_that_mcrouters_tools_read() {
        let tcp = |host: &str| Address::Tcp { host: host.into(), port: 11211 };
        let unix = Address::Unix { path: "/run/m.sock".into() };
        for (address, key, host, port, command) in [
            (tcp("cache-0"), &b"user:1"[..], "cache-0", 11211, r"delete user:1\r\n"),
            (tcp("::1"), "schl\u{fc}ssel".as_bytes(), "::1", 11211, "delete schl\u{fc}ssel\\r\\n"),
            (unix, b"a \x00\xff", "unix:/run/m.sock", 0, r"md YSAA/w== b\r\n"),
        ] {
            let undelivered = Undelivered { address: address.clone(), key: Bytes::copy_from_slice(key) };
            let mut out = Vec::new();
            put(&mut out, &undelivered, at(1_764_080_123_456));
            let expected = format!("[\"AS1.0\",1764080123.456,\"C\",[\"{host}\",{port},\"{command}\"]]\n");
            assert_eq!(String::from_utf8_lossy(&out), expected);
            let line = parse(&out[..out.len() - 1]).unwrap();
            assert_eq!((line.address, line.command.replace("\r\n", "\\r\\n")), (address, command.into()));
        }
        let (folder, name) = folder_and_name(at(1_764_080_123_456));
        assert_eq!(folder, "20251125T14");
        assert!(name.starts_with("20251125T1415-1764080100-corecached-"), "{name}");
        assert!(begins_with_time(folder.as_ref(), false) && begins_with_time(name.as_ref(), true));
        assert!(begins_with_time("20120110T18-1326247200".as_ref(), false));
        for other in ["", "src", "20251125", "20251125T1", "20251125T14x", "2025112xT14", "20251125T1415"] {
            assert!(!begins_with_time(other.as_ref(), false), "{other}");
        }
        for other in ["20251125T14", "20251125T1415", "notes-20251125T1415-1", "20251125T1415.txt"] {
            assert!(!begins_with_time(other.as_ref(), true), "{other}");
        }
    }

    #[test]
    fn nothing_but_a_delete_is_read() {
        let line = |command: &str| json!(["AS1.0", 1.5, "C", ["h", 1, command]]).to_string();
        assert!(parse(line("delete k\r\n").as_bytes()).is_some());
        for bad in [
            line("flush_all\r\n"),
            line("delete k\r\nflush_all\r\n"),
            line("delete k"),
            line("delete \r\n"),
            line("md k\r\n"),
            line("delete k 0\r\n"),
            "[]".into(),
            "{".into(),
            String::new(),
            json!(["AS2.0", 1.5, "C", ["h", 1, "delete k\r\n"]]).to_string(),
            json!(["AS1.0", 1.5, "C", ["h", 65536, "delete k\r\n"]]).to_string(),
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
