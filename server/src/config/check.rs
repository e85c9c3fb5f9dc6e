//! From what was written to what holds.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use super::{ALL_ADDRESSES, Args, Config, ConfigError, Listen, Shown, extended};

/// Exit code of a wrong value.
const EX_VALUE: u8 = 1;
/// Exit code of values that do not go together, `EX_USAGE` of sysexits.
const EX_USAGE: u8 = 64;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Least memory, bytes: below it a slice cannot hold an item of the default size limit.
const MEMORY_BYTES_MIN: usize = MIB;

/// Check `args`, as memcached would: the same values are refused, with the same exit codes.
///
/// # Errors
/// The first setting that cannot be used.
pub fn check(args: &Args) -> Result<Config, ConfigError> {
    refuse_unsupported(args)?;
    let mut without_effect = extended::check(&args.extended)?;
    let defaults = [
        ("-k", !args.lock_memory),
        ("-e", args.memory_file.is_none()),
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
        .map_or(Ok(0), |text| number("-m", text, 0, usize::MAX / MIB, EX_VALUE))?;
    // memcached takes 0 for its default.
    let memory_bytes = if megabytes == 0 { 64 * MIB } else { megabytes * MIB };
    if item_bytes_max > memory_bytes / 2 {
        let remedy =
            format!("an item may take at most half of -m {}: lower it, or raise -m", memory_bytes / MIB);
        return Err(ConfigError::new("-I", &args.max_item_size, &remedy, EX_USAGE));
    }
    debug_assert!(memory_bytes >= MEMORY_BYTES_MIN);
    let delimiter = match &args.prefix_delimiter {
        Some(text) if text.len() == 1 => text.as_bytes()[0],
        Some(text) => return Err(ConfigError::new("-D", text, "give one character", EX_VALUE)),
        None => b':',
    };
    let listen = listen(args)?;
    let shown = Shown {
        port: match &listen {
            Listen::Tcp(addresses) => addresses.first().map_or(0, SocketAddr::port),
            Listen::Unix { .. } => 0,
        },
        listen: (!args.listen.is_empty()).then(|| args.listen.join(",")),
        growth_factor: growth_factor(&args.slab_growth_factor)?,
        chunk_size: number("-n", &args.slab_min_size, 1, u64::MAX, EX_VALUE)?,
        reqs_per_event: number("-R", &args.max_reqs_per_event, 1, u64::MAX, EX_VALUE)?,
        protocol: protocol(&args.protocol)?,
        umask: args.unix_mask.clone(),
    };
    Ok(Config {
        listen,
        connections_max: number("-c", &args.conn_limit, 1, i32::MAX as usize, EX_VALUE)?,
        listen_backlog: number("-b", &args.listen_backlog, 1, i32::MAX, EX_VALUE)?,
        memory_bytes,
        item_bytes_max,
        evict: !args.disable_evictions,
        cas: !args.disable_cas,
        huge_pages: args.enable_largepages,
        shards: args.threads.as_deref().map(|text| number("-t", text, 1, 1024, EX_VALUE)).transpose()?,
        verbosity: u32::from(args.verbose),
        allow_flush: !args.disable_flush_all,
        allow_shutdown: args.enable_shutdown,
        allow_dump: !args.disable_dumping,
        prefix_delimiter: delimiter,
        count_prefixes: args.prefix_delimiter.is_some(),
        is_proxy: false,
        io_backend: args
            .io_backend
            .parse()
            .map_err(|remedy| ConfigError::new("--io-backend", &args.io_backend, remedy, EX_VALUE))?,
        user: args.user.as_deref().map(|user| user.trim().to_owned()),
        daemon: args.daemon,
        core_dumps: args.enable_coredumps,
        pid_file: args.pidfile.as_deref().map(|path| PathBuf::from(path.trim())),
        operation: args.operate.check()?,
        without_effect,
        shown,
    })
}

/// What a client would rely on must not be overlooked.
fn refuse_unsupported(args: &Args) -> Result<(), ConfigError> {
    let refuse = |flag, value: &str, remedy| Err(ConfigError::new(flag, value, remedy, EX_VALUE));
    if number::<u16>("-U", &args.udp_port, 0, u16::MAX, EX_USAGE)? != 0 {
        return refuse("-U", &args.udp_port, "set it to 0: this version has no UDP");
    }
    if let Some(file) = &args.auth_file {
        return refuse(
            "-Y",
            file,
            "remove it: this version has no authentication, keep it off open networks",
        );
    }
    if args.enable_sasl {
        return refuse("-S", "", "remove it: this version has no authentication, keep it off open networks");
    }
    if args.enable_ssl {
        return refuse("-Z", "", "remove it: this version speaks no TLS");
    }
    Ok(())
}

fn number<T>(flag: &str, text: &str, least: T, most: T, exit_code: u8) -> Result<T, ConfigError>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    match text.trim().parse::<T>() {
        Ok(value) if value >= least && value <= most => Ok(value),
        _ => Err(ConfigError::new(flag, text, &format!("give a number from {least} to {most}"), exit_code)),
    }
}

fn growth_factor(text: &str) -> Result<f64, ConfigError> {
    match text.trim().parse::<f64>() {
        Ok(factor) if factor > 1.0 => Ok(factor),
        _ => Err(ConfigError::new("-f", text, "give a factor greater than 1", EX_VALUE)),
    }
}

fn protocol(text: &str) -> Result<&'static str, ConfigError> {
    match text.trim() {
        "auto" => Ok("auto-negotiate"),
        "ascii" => Ok("ascii"),
        "binary" => Err(ConfigError::new(
            "-B",
            text,
            "give ascii or auto: this version has no binary protocol",
            EX_VALUE,
        )),
        _ => Err(ConfigError::new("-B", text, "give ascii or auto", EX_USAGE)),
    }
}

/// Bytes of `1048576`, `512k`, `1m`.
fn item_size(text: &str) -> Result<usize, ConfigError> {
    let trimmed = text.trim();
    let (digits, unit) = match trimmed.as_bytes().last() {
        Some(b'k' | b'K') => (&trimmed[..trimmed.len() - 1], KIB),
        Some(b'm' | b'M') => (&trimmed[..trimmed.len() - 1], MIB),
        _ => (trimmed, 1),
    };
    let bytes = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    match bytes {
        Some(bytes) if (KIB..=1024 * MIB).contains(&bytes) => Ok(bytes),
        _ => Err(ConfigError::new("-I", text, "give a size from 1k to 1024m", EX_USAGE)),
    }
}

fn listen(args: &Args) -> Result<Listen, ConfigError> {
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
        return Ok(Listen::Unix { path: PathBuf::from(path.trim()), mode });
    }
    let port = match args.port.trim() {
        "-1" => 0,
        text => {
            let port: u16 = number("-p", text, 0, u16::MAX, EX_USAGE)?;
            if port == 0 && args.listen.is_empty() {
                let remedy = "give a port (-1 takes a free one), or -s FILE: nothing would be listened on";
                return Err(ConfigError::new("-p", text, remedy, EX_USAGE));
            }
            port
        }
    };
    let mut addresses = Vec::new();
    let listed = args.listen.iter().flat_map(|list| list.split([',', ';'])).map(str::trim);
    for text in listed.filter(|text| !text.is_empty()) {
        addresses.extend(resolve(text, port)?);
    }
    if addresses.is_empty() {
        addresses.extend(ALL_ADDRESSES.iter().map(|&address| SocketAddr::new(address, port)));
    }
    Ok(Listen::Tcp(addresses))
}

/// `*`, `1.2.3.4`, `::1`, `[::1]:11211`, `name`, `name:11211`.
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
            Err(ConfigError::new("-l", text, &remedy, 71))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Config, ConfigError> {
        let argv = std::iter::once("corecached").chain(line.split('|').filter(|word| !word.is_empty()));
        check(&Args::read(argv.map(Into::into)).unwrap())
    }

    #[test]
    fn nothing_given_is_memcacheds_default() {
        let config = read("").unwrap();
        let all: Vec<SocketAddr> = vec!["0.0.0.0:11211".parse().unwrap(), "[::]:11211".parse().unwrap()];
        assert_eq!(config.listen, Listen::Tcp(all));
        assert_eq!((config.memory_bytes, config.item_bytes_max), (64 << 20, 1 << 20));
        assert_eq!((config.connections_max, config.shards), (1024, None));
        assert!(config.evict && config.cas && config.allow_flush && !config.allow_shutdown);
    }

    #[test]
    fn manifests_of_the_wild_are_understood() {
        // An argument is what stands between bars: charts put flag and value into one.
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
        assert_eq!(read("-I|5m|-m|64").unwrap().item_bytes_max, 5 << 20);
        assert_eq!(read("-vvv").unwrap().verbosity, 3);
    }

    #[test]
    fn wrong_values_die_with_memcacheds_code_and_name_flag_value_and_remedy() {
        for (line, code) in [
            ("-c|0", 1),
            ("-t|0", 1),
            ("-t|abc", 1),
            ("-R|0", 1),
            ("-f|0.5", 1),
            ("-n|0", 1),
            ("-b|x", 1),
            ("-I|1", 64),
            ("-I|10g", 64),
            ("-I|64m|-m|64", 64),
            ("-p|99999", 64),
            ("-p|0", 64),
            ("-B|foo", 64),
            ("-B|binary", 1),
            ("-U|11211", 1),
            ("-l|999.1.1.1", 71),
            ("-o|nonsense", 1),
            ("-Y|/etc/users", 1),
            ("--io-backend|dpdk", 1),
            ("-a|9|-s|/tmp/x", 1),
            ("-D|ab", 1),
        ] {
            let error = read(line).unwrap_err();
            assert_eq!(error.exit_code, code, "{line}: {error}");
            let words: Vec<&str> = line.split('|').collect();
            let message = error.to_string();
            assert!(words.iter().any(|word| message.starts_with(word)), "{line}: {message}");
        }
    }

    #[test]
    fn the_item_size_limit_counts_as_memcached_does() {
        let config = read("").unwrap();
        assert_eq!(config.value_bytes_max(3, 0), (1 << 20) - 59 - 3);
        assert_eq!(config.value_bytes_max(3, 1), (1 << 20) - 63 - 3);
        assert_eq!(read("-C").unwrap().value_bytes_max(3, 0), (1 << 20) - 51 - 3);
    }

    #[test]
    fn flags_without_effect_are_named() {
        let config = read("-k|-f|1.1|-o|hashpower=20").unwrap();
        assert_eq!(config.without_effect, ["-o hashpower", "-k", "-f"]);
    }
}
