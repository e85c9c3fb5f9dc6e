//! mcrouter's admin commands: a `get` of a key that begins with `__mcrouter__.` asks the proxy itself, and is answered
//! with a value.

use std::sync::Arc;

use corecached_protocol::KEY_BYTES_MAX;

use crate::request::Operation;
use crate::route::{self, Tree};

/// What every such key begins with.
pub(crate) const PREFIX: &[u8] = b"__mcrouter__.";

/// What is known of the configuration that is in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConfigInfo {
    /// Its file, if it came from one.
    pub(crate) file: Option<String>,
    /// The MD5 digest of its own text, without that of what it imports, in hexadecimal digits.
    pub(crate) md5: String,
    /// Since when it is in use, unix seconds.
    pub(crate) since_s: u64,
    /// The number of this host, by which some routes choose.
    pub(crate) host_id: u64,
}

/// The value for `key`. What cannot be answered is a value that begins with `ERROR: `, as in mcrouter.
pub(crate) fn answer(key: &[u8], tree: &Arc<Tree>, info: ConfigInfo, now_s: u64) -> String {
    let command = String::from_utf8_lossy(key.strip_prefix(PREFIX).unwrap_or(key)).into_owned();
    let (name, arguments) = match command.strip_suffix(')').and_then(|command| command.split_once('(')) {
        Some((name, arguments)) => (name, arguments),
        None => (command.as_str(), ""),
    };
    let answer = match name {
        "version" => Ok(format!("corecached {}", env!("CARGO_PKG_VERSION"))),
        "config_age" => Ok(now_s.saturating_sub(info.since_s).to_string()),
        "config_file" => info.file.ok_or_else(|| "no config file found!".to_owned()),
        "config_md5_digest" => Ok(info.md5),
        // mcrouter's has 32 bits.
        "hostid" => Ok((info.host_id & u64::from(u32::MAX)).to_string()),
        "route" => destinations(arguments, tree),
        name => Err(format!("unknown command: {name}")),
    };
    answer.unwrap_or_else(|error| format!("ERROR: {error}"))
}

/// Where a request goes, a `host:port` on each line. `arguments` are its operation and its key, which may contain commas.
fn destinations(arguments: &str, tree: &Arc<Tree>) -> Result<String, String> {
    let (operation, key) = arguments.split_once(',').ok_or("route: 2 args expected")?;
    let Some(operation) = Operation::named(operation.trim()) else {
        return Err(format!("route: unknown request {operation}"));
    };
    let is_foreign = |byte: u8| byte <= b' ' || byte == 0x7f;
    if key.is_empty() || key.len() > KEY_BYTES_MAX || key.bytes().any(is_foreign) {
        return Err("route: bad key".to_owned());
    }
    Ok(route::destinations_of(tree, operation, key.as_bytes()).join("\r\n"))
}
