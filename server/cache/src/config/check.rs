//! Turns the command line as it was written into a configuration without errors.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use corecached_engine::EvictionWeight;
use corecached_protocol::Wire;

use corecached_net::endpoints::{ALL_ADDRESSES, LISTENERS_MAX, Listen, ListenAddress, ListenerProtocol};
use corecached_net::tls::Usage;
use corecached_shard::ConfigError;
use corecached_shard::config::{ItemLimit, ServerConfig, leading_number, parse_number as number};

use super::{CacheArgs, CacheConfig, SHARDS_MAX, ShownSettings, UDP_REPLY_BYTES_MAX, extended, tls};

/// Exit code of a wrong value.
const EX_VALUE: u8 = 1;
/// Exit code of values that cannot be combined: `EX_USAGE` of sysexits.
const EX_USAGE: u8 = 64;
/// Exit code of a name that cannot be resolved: `EX_OSERR` of sysexits.
const EX_OSERR: u8 = 71;

/// Longest tag of a listener in bytes, as in memcached.
const TAG_BYTES_MAX: usize = 8;

/// The default TCP port.
const PORT: u16 = 11211;
/// The default of `-m`.
const MEGABYTES: usize = 64;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Least memory in bytes. With less, a slice cannot hold an item of the default size limit.
const MEMORY_BYTES_MIN: usize = MIB;

/// Checks `args`. Refuses the same values as memcached, with the same exit codes.
///
/// # Errors
/// The first setting that cannot be used.
pub fn check(args: &CacheArgs) -> Result<CacheConfig, ConfigError> {
    for word in args.stray.iter().filter(|word| !word.trim().is_empty()) {
        tracing::warn!("{word:?} is neither a flag nor the value of one, and changes nothing: leave it out");
    }
    let extended = extended::check(&args.extended)?;
    extended.warn();
    let mut without_effect = extended.without_effect();
    if extended.is_set("core_ports") {
        tracing::warn!(
            "-o core_ports is gone, and changes nothing: it cost more CPU than it saved; leave it out"
        );
    }
    let defaults = [
        ("-L", !args.enable_largepages),
        ("-N", args.napi_ids.is_none()),
        ("-f", args.slab_growth_factor == "1.25"),
        ("-n", args.slab_min_size == "48"),
        ("-R", args.max_reqs_per_event == "20"),
    ];
    without_effect.extend(defaults.iter().filter(|(_, unset)| !unset).map(|(flag, _)| (*flag).to_owned()));

    let item_bytes_max = item_size(&args.max_item_size)?;
    let megabytes: usize = args
        .memory_limit
        .as_deref()
        .map_or(Ok(MEGABYTES), |text| number("-m", text, 1, usize::MAX / MIB, EX_USAGE))?;
    if let Some(text) = &args.memory_limit {
        warn_of_units(text, megabytes);
    }
    let memory_bytes = megabytes * MIB;
    if item_bytes_max > memory_bytes / 2 {
        let remedy =
            format!("an item may take at most half of -m {}: lower it, or raise -m", memory_bytes / MIB);
        return Err(ConfigError::new("-I", &args.max_item_size, &remedy, EX_USAGE));
    }
    debug_assert!(memory_bytes >= MEMORY_BYTES_MIN);
    let delimiter = match &args.prefix_delimiter {
        Some(text) => {
            let Some(&first) = text.as_bytes().first() else {
                return Err(ConfigError::new("-D", text, "give one character", EX_VALUE));
            };
            if text.len() > 1 {
                tracing::warn!("-D {text:?}: only its first byte is the delimiter: leave out the others");
            }
            first
        }
        None => b':',
    };
    refuse_users_over_udp(args)?;
    let auth_file = auth_file(args)?;
    let wire = wire(args)?;
    let usage = if args.enable_ssl { Usage::Default } else { Usage::Plain };
    let listen = listen(args, ListenerProtocol { wire, usage })?;
    let datagrams = udp_addresses(args, &listen)?;
    let is_mutual = |address: &ListenAddress| address.protocol.usage == Usage::Mutual;
    let mutual = matches!(&listen, Listen::Tcp(addresses) if addresses.iter().any(is_mutual));
    let tls = tls::check(args, &extended, mutual)?;
    let shown = ShownSettings {
        port: match &listen {
            Listen::Tcp(addresses) => addresses.first().map_or(0, |address| address.socket_address.port()),
            Listen::Unix { .. } => 0,
        },
        udp_addresses: Vec::new(),
        udp_port: datagrams.first().map_or(0, |address| address.socket_address.port()),
        listen: (!args.listen.is_empty()).then(|| args.listen.join(",")),
        growth_factor: growth_factor(&args.slab_growth_factor)?,
        chunk_size: number("-n", &args.slab_min_size, 1, u64::MAX, EX_VALUE)?,
        reqs_per_event: number("-R", &args.max_reqs_per_event, 1, u64::MAX, EX_VALUE)?,
        protocol: match wire {
            Wire::Either => "auto-negotiate",
            Wire::Text => "ascii",
            Wire::Binary => "binary",
        },
        umask: args.unix_mask.clone(),
    };
    let policy_weight = match args.policy_weight.trim() {
        "requests" => EvictionWeight::Requests,
        "bytes" => EvictionWeight::Bytes,
        text => return Err(ConfigError::new("--policy-weight", text, "give requests or bytes", EX_VALUE)),
    };
    let reply_max = number("--udp-reply-max", &args.udp_reply_max, 16, UDP_REPLY_BYTES_MAX, EX_USAGE)?;
    let server = ServerConfig {
        listen,
        connections_max: number("-c", &args.conn_limit, 1, i32::MAX as usize, EX_VALUE)?,
        // As in memcached, the kernel makes of it what it can: of a negative number its own limit.
        listen_backlog: number_or_0("-b", &args.listen_backlog, i32::MIN, i32::MAX, EX_VALUE)?,
        shards: args
            .threads
            .as_deref()
            .map(|text| number("-t", text, 1, SHARDS_MAX, EX_VALUE))
            .transpose()?,
        io_backend: args
            .io_backend
            .parse()
            .map_err(|remedy| ConfigError::new("--io-backend", &args.io_backend, remedy, EX_VALUE))?,
        tls,
        idle_timeout_s: extended.number("idle_timeout").unwrap_or(0) as u32,
        verbosity: u32::from(args.verbose),
        user: args.user.as_deref().map(|user| user.trim().to_owned()),
        core_dumps: args.enable_coredumps,
        pid_file: args.pidfile.as_deref().map(|path| PathBuf::from(path.trim())),
        operation: args.operate.check()?,
        without_effect,
    };
    Ok(CacheConfig {
        server,
        udp: datagrams,
        udp_reply_max: reply_max,
        memory_bytes,
        item_limit: ItemLimit { item_bytes_max, cas: !args.disable_cas },
        evict: !args.disable_evictions,
        auth_file,
        sasl: args.enable_sasl,
        allow_flush: !args.disable_flush_all,
        allow_shutdown: args.enable_shutdown,
        allow_watch: !args.disable_watch,
        debug_time: args.debug_time,
        allow_dump: !args.disable_dumping,
        crawler: extended
            .last_of(&["lru_crawler", "no_lru_crawler", "no_modern"])
            .is_none_or(|name| !name.starts_with("no_")),
        prefix_delimiter: delimiter,
        count_prefixes: args.prefix_delimiter.is_some(),
        lock_memory: args.lock_memory,
        policy_weight,
        memory_file: args.memory_file.as_deref().map(|path| PathBuf::from(path.trim())),
        shown,
    })
}

/// The addresses of `-U`: its port on each address that TCP listens on.
fn udp_addresses(args: &CacheArgs, listen: &Listen) -> Result<Vec<ListenAddress>, ConfigError> {
    let Some(port) = port("-U", &args.udp_port)? else { return Ok(Vec::new()) };
    if matches!(listen, Listen::Unix { .. }) {
        return Ok(Vec::new());
    }
    let protocol = ListenerProtocol { usage: Usage::Plain, ..ListenerProtocol::default() };
    // Those of `-l` also with `-p 0`, when there is no TCP.
    let addresses = listed_addresses(args, protocol, port)?;
    let mut ips: Vec<(IpAddr, usize)> =
        addresses.iter().map(|address| (address.socket_address.ip(), address.entry)).collect();
    ips.dedup();
    let on_port = |(ip, entry)| ListenAddress { socket_address: SocketAddr::new(ip, port), protocol, entry };
    Ok(ips.into_iter().map(on_port).collect())
}

/// Parses a port. 0 in the result is any free port, and `None` is no port.
fn port(flag: &str, text: &str) -> Result<Option<u16>, ConfigError> {
    match text.trim() {
        "-1" => Ok(Some(0)),
        text => Ok(Some(number_or_0(flag, text, 0, u16::MAX, EX_USAGE)?).filter(|&port| port != 0)),
    }
}

/// As [`number`], but text that does not begin with a number counts as 0, as it does in C. A warning says so.
fn number_or_0<T>(flag: &str, text: &str, least: T, most: T, exit_code: u8) -> Result<T, ConfigError>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    if leading_number(text.trim()).0.is_empty() {
        tracing::warn!("{flag} {text:?} counts as 0: give a number");
        return number(flag, "0", least, most, exit_code);
    }
    number(flag, text, least, most, exit_code)
}

fn growth_factor(text: &str) -> Result<f64, ConfigError> {
    match extended::leading_fraction(text.trim()).filter(|(factor, _)| *factor > 1.0) {
        Some((factor, ignored)) => {
            if !ignored.is_empty() {
                tracing::warn!("-f {text:?} counts as {factor}: leave out {ignored:?}, which is ignored");
            }
            Ok(factor)
        }
        None => Err(ConfigError::new("-f", text, "give a factor greater than 1", EX_VALUE)),
    }
}

/// Refuses `-U` together with `-Y` or `-S`, since a datagram does not say which user sent it.
fn refuse_users_over_udp(args: &CacheArgs) -> Result<(), ConfigError> {
    if (args.auth_file.is_some() || args.enable_sasl) && port("-U", &args.udp_port)?.is_some() {
        let remedy = "leave it out: users (-Y, -S) cannot be told apart over UDP";
        return Err(ConfigError::new("-U", &args.udp_port, remedy, EX_USAGE));
    }
    Ok(())
}

/// The file of users and passwords: of `-Y`, or for SASL the one that the environment names.
fn auth_file(args: &CacheArgs) -> Result<Option<PathBuf>, ConfigError> {
    match (&args.auth_file, args.enable_sasl) {
        (Some(file), true) => {
            let remedy = "remove -S or -Y: one is for the binary protocol, the other for text, and both shut the other out";
            Err(ConfigError::new("-Y", file, remedy, EX_USAGE))
        }
        (Some(file), false) => Ok(Some(PathBuf::from(file.trim()))),
        (None, true) => match std::env::var_os("MEMCACHED_SASL_PWDB") {
            Some(file) => Ok(Some(PathBuf::from(file))),
            None => {
                let remedy =
                    "name a file of user:password lines in the environment variable MEMCACHED_SASL_PWDB";
                Err(ConfigError::new("-S", "", remedy, EX_VALUE))
            }
        },
        (None, false) => Ok(None),
    }
}

/// The protocols of `-B`. With authentication there is only one.
fn wire(args: &CacheArgs) -> Result<Wire, ConfigError> {
    let text = &args.protocol;
    let given = text.as_deref().map(str::trim);
    match given {
        None if args.enable_sasl => Ok(Wire::Binary),
        Some("auto" | "ascii") if args.enable_sasl => {
            let remedy = "give binary or leave it out: SASL (-S) goes with the binary protocol alone";
            Err(ConfigError::new("-B", given.unwrap_or_default(), remedy, EX_USAGE))
        }
        Some("binary") if args.auth_file.is_some() => {
            let remedy = "give ascii or leave it out: an authentication file (-Y) goes with text alone";
            Err(ConfigError::new("-B", "binary", remedy, EX_USAGE))
        }
        None | Some("auto" | "ascii") if args.auth_file.is_some() => Ok(Wire::Text),
        None | Some("auto") => Ok(Wire::Either),
        Some("ascii") => Ok(Wire::Text),
        Some("binary") => Ok(Wire::Binary),
        Some(text) => Err(ConfigError::new("-B", text, "give ascii, binary or auto", EX_USAGE)),
    }
}

/// Parses the prefixes of an address of `-l`, such as `proto[ascii]:` and `notls:`. Returns the rest of
/// `text`, and what the prefixes make of `protocol`.
fn listen_prefixes<'t>(
    text: &'t str,
    mut protocol: ListenerProtocol,
    args: &CacheArgs,
) -> Result<(&'t str, ListenerProtocol), ConfigError> {
    let mut rest = text;
    loop {
        if let Some((name, after)) = bracket_prefix(rest, "proto") {
            protocol.wire = match name {
                "negotiating" => Wire::Either,
                "ascii" => Wire::Text,
                "binary" => Wire::Binary,
                _ => {
                    return Err(ConfigError::new(
                        "-l",
                        text,
                        "give proto[ascii], [binary] or [negotiating]",
                        EX_VALUE,
                    ));
                }
            };
            if (args.auth_file.is_some() && protocol.wire != Wire::Text)
                || (args.enable_sasl && protocol.wire != Wire::Binary)
            {
                let remedy = "leave the protocol out: with -Y it is ascii, with -S binary";
                return Err(ConfigError::new("-l", text, remedy, EX_USAGE));
            }
            rest = after;
        } else if let Some((usage, after)) = tls_prefix(rest) {
            if !args.enable_ssl && usage != Usage::Plain {
                let remedy = "add -Z and the server's certificate, or leave btls: and mtls: out";
                return Err(ConfigError::new("-l", text, remedy, EX_USAGE));
            }
            protocol.usage = usage;
            rest = after;
        } else if let Some((name, after)) = bracket_prefix(rest, "tag").or_else(|| underscore_tag(rest)) {
            // Tags are for the proxy inside memcached, which this server does not have.
            if !(1..=TAG_BYTES_MAX).contains(&name.len()) {
                return Err(ConfigError::new("-l", text, "give a tag of 1 to 8 characters", EX_VALUE));
            }
            rest = after;
        } else {
            return Ok((rest, protocol));
        }
    }
}

/// Parses `notls:`, `btls:` or `mtls:` at the beginning of `text`. Returns the rest as well.
fn tls_prefix(text: &str) -> Option<(Usage, &str)> {
    let (name, after) = text.split_once(':')?;
    let usage = match name {
        "notls" => Usage::Plain,
        "btls" => Usage::Basic,
        "mtls" => Usage::Mutual,
        _ => return None,
    };
    Some((usage, after))
}

/// Parses `name[INNER]:` at the beginning of `text`. Returns the inner part and the rest.
fn bracket_prefix<'t>(text: &'t str, name: &str) -> Option<(&'t str, &'t str)> {
    text.strip_prefix(name)?.strip_prefix('[')?.split_once("]:")
}

/// Parses `tag_NAME_:` at the beginning of `text`. Returns the name and the rest.
fn underscore_tag(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix("tag_")?.split_once("_:")
}

/// Parses a size in bytes, such as `1048576`, `512k` or `1m`.
fn item_size(text: &str) -> Result<usize, ConfigError> {
    let trimmed = text.trim();
    let (number, unit) = match trimmed.as_bytes().last() {
        Some(b'k' | b'K') => (&trimmed[..trimmed.len() - 1], KIB),
        Some(b'm' | b'M') => (&trimmed[..trimmed.len() - 1], MIB),
        _ => (trimmed, 1),
    };
    let (digits, ignored) = leading_number(number);
    let bytes = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    match bytes {
        Some(bytes) if (KIB..=1024 * MIB).contains(&bytes) => {
            if !ignored.is_empty() {
                tracing::warn!(
                    "-I {text:?} counts as {bytes} bytes: leave out {ignored:?}, which is ignored"
                );
            }
            Ok(bytes)
        }
        _ => Err(ConfigError::new("-I", text, "give a size from 1k to 1024m", EX_USAGE)),
    }
}

fn listen(args: &CacheArgs, protocol: ListenerProtocol) -> Result<Listen, ConfigError> {
    if let Some(path) = &args.unix_socket {
        let mode = u32::from_str_radix(args.unix_mask.trim(), 8).ok().filter(|mode| *mode <= 0o777);
        let Some(mode) = mode else {
            return Err(ConfigError::new(
                "-a",
                &args.unix_mask,
                "give an octal mode from 0 to 777",
                EX_VALUE,
            ));
        };
        // As in memcached: the permissions of the file say who may connect, and there is no TLS.
        let protocol = ListenerProtocol { usage: Usage::Plain, ..protocol };
        return Ok(Listen::Unix { path: PathBuf::from(path.trim()), mode, protocol });
    }
    let udp = port("-U", &args.udp_port)?;
    let port = match (&args.port, udp) {
        (Some(text), _) => port("-p", text)?,
        (None, Some(udp)) => Some(udp),
        (None, None) => Some(PORT),
    };
    let Some(port) = port else {
        if udp.is_none() {
            tracing::warn!(
                "-p 0: no client can connect, on the addresses of -l neither: give a port (-1 takes a free one), or a file (-s)"
            );
        }
        return Ok(Listen::Tcp(Vec::new()));
    };
    Ok(Listen::Tcp(listed_addresses(args, protocol, port)?))
}

/// The addresses of `-l`, on `port` where they name none; all addresses of the machine without `-l`.
fn listed_addresses(
    args: &CacheArgs,
    protocol: ListenerProtocol,
    port: u16,
) -> Result<Vec<ListenAddress>, ConfigError> {
    let mut addresses: Vec<ListenAddress> = Vec::new();
    let listed = args.listen.iter().flat_map(|list| list.split([',', ';'])).map(str::trim);
    for (entry, text) in listed.filter(|text| !text.is_empty()).enumerate() {
        let (text, protocol) = listen_prefixes(text, protocol, args)?;
        for socket_address in resolve(text, port)? {
            let again = addresses
                .iter()
                .any(|before| (before.socket_address, before.protocol) == (socket_address, protocol));
            if !again {
                addresses.push(ListenAddress { socket_address, protocol, entry });
            }
        }
    }
    if addresses.is_empty() {
        addresses.extend(ALL_ADDRESSES.iter().map(|&ip| {
            let socket_address = SocketAddr::new(ip, port);
            ListenAddress { socket_address, protocol, entry: 0 }
        }));
    }
    if addresses.len() > LISTENERS_MAX {
        let remedy = format!("give at most {LISTENERS_MAX} addresses, these are {}", addresses.len());
        return Err(ConfigError::new("-l", &args.listen.join(","), &remedy, EX_USAGE));
    }
    Ok(addresses)
}

/// Warns when `-m` has a unit other than megabytes, which is ignored: it counts as `megabytes`.
fn warn_of_units(text: &str, megabytes: usize) {
    let (_, unit) = leading_number(text.trim());
    let meant = match unit.trim_start().bytes().next() {
        Some(b'g' | b'G') => megabytes.saturating_mul(1 << 10),
        Some(b't' | b'T') => megabytes.saturating_mul(1 << 20),
        Some(b'k' | b'K') => megabytes.div_ceil(1 << 10),
        _ => return,
    };
    tracing::warn!(
        "-m counts megabytes: {text} are {meant}: give -m {meant}, unless {megabytes} MB are meant"
    );
}

/// Resolves an address such as `*`, `1.2.3.4`, `::1`, `[::1]:11211`, `name` or `name:11211`.
fn resolve(text: &str, port: u16) -> Result<Vec<SocketAddr>, ConfigError> {
    if text == "*" {
        return Ok(ALL_ADDRESSES.iter().map(|&address| SocketAddr::new(address, port)).collect());
    }
    if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let found = if text.rsplit_once(':').is_some_and(|(_, digits)| digits.parse::<u16>().is_ok()) {
        text.to_socket_addrs()
    } else {
        (text, port).to_socket_addrs()
    };
    match found {
        Ok(found) => Ok(found.collect()),
        Err(error) => {
            let remedy =
                format!("give an address or a name of this machine, with or without a port: {error}");
            Err(ConfigError::new("-l", text, &remedy, EX_OSERR))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corecached_net::endpoints::IoBackend;

    fn read(line: &str) -> Result<CacheConfig, ConfigError> {
        let argv = std::iter::once("corecached").chain(line.split('|').filter(|word| !word.is_empty()));
        check(&CacheArgs::read(argv.map(Into::into)).unwrap())
    }

    #[test]
    fn nothing_given_is_memcacheds_default() {
        let config = read("").unwrap();
        let all = ["0.0.0.0:11211", "[::]:11211"];
        let all = all.map(|at| ListenAddress {
            socket_address: at.parse().unwrap(),
            protocol: ListenerProtocol::default(),
            entry: 0,
        });
        assert_eq!(config.server.listen, Listen::Tcp(all.to_vec()));
        assert_eq!((config.memory_bytes, config.item_limit.item_bytes_max), (64 << 20, 1 << 20));
        assert_eq!((config.server.connections_max, config.server.shards), (1024, None));
        assert!(config.evict && config.item_limit.cas && config.allow_flush && !config.allow_shutdown);
    }

    #[test]
    fn manifests_of_the_wild_are_understood() {
        // Bars separate the arguments, since charts put a flag and its value into one argument.
        for line in [
            "-m 8192|--extended=modern,track_sizes|-I 5m|-c 16384|-v|-u 11211",
            "-m|64|-p|11211|-u|memcache|-l|127.0.0.1|-P|/var/run/memcached/memcached.pid",
            "-vv|-c1024|-t4|-o|modern",
            "--memory-limit=2048|--conn-limit=4096|--threads=2|--port=11212",
            " -m 64| -c 100",
            "-p|-1|-U|0|-l|[::1]:11211,127.0.0.1",
        ] {
            assert!(read(line).is_ok(), "{line}: {:?}", read(line));
        }
        assert_eq!(read("-m 8192").unwrap().memory_bytes, 8 << 30);
        assert_eq!(read("-I|5m|-m|64").unwrap().item_limit.item_bytes_max, 5 << 20);
        assert_eq!(read("-vvv").unwrap().server.verbosity, 3);
    }

    #[test]
    fn of_a_flag_that_is_given_twice_the_last_one_counts() {
        assert_eq!(read("-m|64|-m|128").unwrap().memory_bytes, 128 << 20);
        assert_eq!(read("-m 64|--memory-limit=128|-m32").unwrap().memory_bytes, 32 << 20);
        assert_eq!(read("-I|1m|-I|4m").unwrap().item_limit.item_bytes_max, 4 << 20);
        let line = "-t|4|-t|1|-c|9|-c|10|-b|7|-b|8|-f|1.1|-f|1.3|-n|40|-n|50|-R|3|-R|4|-D|:|-D|,|-B|auto|-B|ascii|\
                    -P|/a|-P|/b|-u|a|-u|b|-e|/a|-e|/b|-U|7|-U|0|-Y|/a|-Y|/b|--policy-weight|requests|\
                    --policy-weight|bytes|--io-backend|auto|--io-backend|epoll";
        let config = read(line).unwrap();
        let (server, shown) = (&config.server, &config.shown);
        assert_eq!((server.shards, server.connections_max, server.listen_backlog), (Some(1), 10, 8));
        assert_eq!((shown.growth_factor, shown.chunk_size, shown.reqs_per_event), (1.3, 50, 4));
        assert_eq!((config.prefix_delimiter, shown.protocol), (b',', "ascii"));
        let files = [&server.pid_file, &config.memory_file, &config.auth_file];
        assert_eq!(files.map(|file| file.as_deref().unwrap()), [std::path::Path::new("/b"); 3]);
        assert_eq!((server.user.as_deref(), config.udp.len()), (Some("b"), 0));
        assert_eq!((config.policy_weight, server.io_backend), (EvictionWeight::Bytes, IoBackend::Epoll));
        let Listen::Unix { path, mode, .. } = read("-s|/a|-s|/b|-a|700|-a|777").unwrap().server.listen else {
            panic!("on a Unix socket")
        };
        assert_eq!((path, mode), (PathBuf::from("/b"), 0o777));
        let switches = read("-C|-C|-F|-F|-A|-A|-X|-X|-W|-W|-M|-M|-k|-k|-L|-L|-r|-r|-d|-d").unwrap();
        assert!(switches.allow_shutdown && switches.lock_memory);
        assert!(!(switches.allow_flush || switches.allow_dump || switches.allow_watch || switches.evict));
        assert!(!switches.item_limit.cas && switches.server.core_dumps);
        // Those that add up.
        let config = read("-v|-v|-o|idle_timeout=9|-o|modern|-l|127.0.0.1|-l|[::1]").unwrap();
        assert_eq!((config.server.verbosity, config.server.idle_timeout_s), (2, 9));
        let Listen::Tcp(addresses) = &config.server.listen else { panic!("on TCP") };
        assert_eq!(addresses.len(), 2);
    }

    #[test]
    fn wrong_values_die_with_memcacheds_code_and_name_flag_value_and_remedy() {
        for (line, code) in [
            ("-c|0", 1),
            ("-m|0", 64),
            ("-m|abc", 64),
            ("-m| ", 64),
            ("-m|-1", 64),
            ("-m|0x40", 64),
            ("-c|x10", 1),
            ("-t|0", 1),
            ("-t|abc", 1),
            ("-R|0", 1),
            ("-f|0.5", 1),
            ("-n|0", 1),
            ("-I|1", 64),
            ("-I|10g", 64),
            ("-I|64m|-m|64", 64),
            ("-p|99999", 64),
            ("-B|foo", 64),
            ("-l|proto[proxy]:127.0.0.1", 1),
            ("-l|tag[toolongtag]:127.0.0.1", 1),
            ("-U|11211|-S", 64),
            ("-U|70000", 64),
            ("-l|999.1.1.1", 71),
            ("-o|nonsense", 1),
            ("-Y|/etc/users|-S", 64),
            ("-Y|/etc/users|-B|binary", 64),
            ("-Y|/etc/users|-l|proto[binary]:127.0.0.1", 64),
            ("--io-backend|dpdk", 1),
            ("-a|9|-s|/tmp/x", 1),
            ("-p|-2", 64),
            ("-U|-2", 64),
            ("-Z", 64),
            ("-Z|-o|ssl_key=/k", 64),
            ("-Z|-o|ssl_chain_cert=/c,ssl_keyformat=ENGINE", 1),
            ("-Z|-o|ssl_chain_cert=/c,ssl_verify_mode=2", 64),
            ("-Z|-o|ssl_chain_cert=/c,ssl_ciphers=FOO", 64),
            ("-Z|-o|ssl_chain_cert=/c|-l|mtls:127.0.0.1", 64),
            ("-l|btls:127.0.0.1", 64),
        ] {
            let error = read(line).unwrap_err();
            assert_eq!(error.exit_code, code, "{line}: {error}");
            let words: Vec<&str> = line.split('|').collect();
            let message = error.to_string();
            assert!(words.iter().any(|word| message.starts_with(word)), "{line}: {message}");
        }
    }

    #[test]
    fn what_memcached_survives_is_survived() {
        // As C reads numbers: what follows the digits is ignored.
        for megabytes in ["64m", "64MB", "64.5", "+64", " 64"] {
            assert_eq!(read(&format!("-m|{megabytes}")).unwrap().memory_bytes, 64 << 20, "{megabytes}");
        }
        let config = read("-c|100x|-t|2x|-R|10x|-n|48x|-f|1.25x|-D|ab").unwrap();
        assert_eq!((config.server.connections_max, config.server.shards), (100, Some(2)));
        assert_eq!((config.shown.growth_factor, config.prefix_delimiter), (1.25, b'a'));
        assert_eq!(read("-I|1.5m|-m|64").unwrap().item_limit.item_bytes_max, 1 << 20);
        for (backlog, number) in [("0", 0), ("-1", -1), ("abc", 0), (" ", 0), ("10x", 10)] {
            assert_eq!(read(&format!("-b|{backlog}")).unwrap().server.listen_backlog, number, "{backlog}");
        }
        assert!(read("-U|abc").unwrap().udp.is_empty());
        // Words that belong to no flag.
        for line in ["-m|64|stray", "stray|words|-m|64", "-v|2|-m|64", "-m|64|--|-c|0", "-m|64|-"] {
            assert_eq!(read(line).unwrap().memory_bytes, 64 << 20, "{line}");
        }
        // Long flags that are cut short.
        let config = read(
            "--thread=2|--memory-l|32|--conn=7|--po=9|--listen=127.0.0.1|--verb|--disable-c|--ext=modern",
        )
        .unwrap();
        assert_eq!((config.server.shards, config.memory_bytes), (Some(2), 32 << 20));
        assert_eq!((config.server.connections_max, config.shown.port), (7, 9));
        assert!(CacheArgs::read(["corecached", "--disable", "--memory-limits"].map(Into::into)).is_err());
        for ours in ["--udp-reply=99", "--pol=bytes", "--io=epoll"] {
            assert!(read(ours).is_ok(), "{ours}");
        }
        assert!(read("--udp=7").unwrap().udp.len() == 2);
    }

    #[test]
    fn no_port_is_no_listener_and_an_address_that_is_given_twice_is_one() {
        for line in ["-p|0", "-p|0|-U|0", "-p|abc", "-p| ", "-p|0|-l|127.0.0.1", "-p|0|-U|9|-l|[::1]:8"] {
            assert_eq!(read(line).unwrap().server.listen, Listen::Tcp(Vec::new()), "{line}");
        }
        let addresses = |line| match read(line).unwrap().server.listen {
            Listen::Tcp(addresses) => {
                addresses.iter().map(|at| (at.socket_address, at.entry)).collect::<Vec<_>>()
            }
            Listen::Unix { .. } => panic!("on TCP"),
        };
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let datagrams = read("-p|0|-U|9|-l|127.0.0.1:8").unwrap().udp;
        assert_eq!(datagrams.iter().map(|at| at.socket_address).collect::<Vec<_>>(), [at("127.0.0.1:9")]);
        let one = [(at("127.0.0.1:11211"), 0)];
        for line in ["-l|127.0.0.1|-l|127.0.0.1", "-l|127.0.0.1,127.0.0.1:11211"] {
            assert_eq!(addresses(line), one, "{line}");
        }
        assert_eq!(addresses("-l|127.0.0.1,[::1]:9"), [one[0], (at("[::1]:9"), 1)]);
        assert_eq!(addresses("-p|-1|-l|127.0.0.1,127.0.0.1"), [(at("127.0.0.1:0"), 0)]);
    }

    #[test]
    fn the_item_size_limit_counts_as_memcached_does() {
        let config = read("").unwrap();
        assert_eq!(config.item_limit.value_bytes_max(3, 0), (1 << 20) - 59 - 3);
        assert_eq!(config.item_limit.value_bytes_max(3, 1), (1 << 20) - 63 - 3);
        assert_eq!(read("-C").unwrap().item_limit.value_bytes_max(3, 0), (1 << 20) - 51 - 3);
    }

    #[test]
    fn flags_without_effect_are_named() {
        let config = read("-k|-f|1.1|-o|hashpower=20").unwrap();
        assert_eq!(config.server.without_effect, ["-o hashpower", "-f"]);
        let config = read("-Z|-o|ssl_chain_cert=/c,ssl_wbuf_size=32,ssl_kernel_tls").unwrap();
        assert_eq!(config.server.without_effect, ["-o ssl_wbuf_size", "-o ssl_kernel_tls"]);
    }

    #[test]
    fn each_listener_is_secured_as_its_prefix_says() {
        let line = "-Z|-o|ssl_chain_cert=/c,ssl_ca_cert=/a,ssl_min_version=3|-l|127.0.0.1:1,notls:127.0.0.1:2,\
                    proto[ascii]:btls:127.0.0.1:3,tag[x]:mtls:[::1]:4";
        let config = read(line).unwrap();
        let Listen::Tcp(addresses) = &config.server.listen else { panic!("on TCP") };
        let usages: Vec<Usage> = addresses.iter().map(|address| address.protocol.usage).collect();
        assert_eq!(usages, [Usage::Default, Usage::Plain, Usage::Basic, Usage::Mutual]);
        let tls = config.server.tls.unwrap();
        assert!(tls.only_13 && tls.key.is_none());
        assert!(read("-l|notls:127.0.0.1").unwrap().server.tls.is_none());
    }
}
