//! The `stats` command, with memcached's names. What happens only in parts of memcached that this server does
//! not have is counted as 0, since it never happened: moves between its queues, work of its threads. A number that
//! is not known here is left out: ages of items, its buffers. Slab class 1 stands for all memory.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use corecached_protocol::{binary, line, text};

use corecached_net::endpoints::Listen;
use corecached_net::tls::{KeyFormat, MIN_VERSIONS, TlsOptions};
use corecached_shard::process::{self, CpuTime};
use corecached_shard::{MEMCACHED_VERSION, ServerContext, VERSION, counters};

use crate::commands::crawler::{CLASS_MAX, Crawler};
use crate::config::CacheConfig;
use crate::context::CacheContext;

/// What a `stats` command asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatsTopic {
    /// `reset`
    Reset,
    /// `conns`
    Conns,
    /// `detail on`
    DetailOn,
    /// `detail off`
    DetailOff,
    /// `detail dump`
    DetailDump,
    /// `cachedump CLASS LIMIT`. All items are in class 1.
    CacheDump {
        /// Most items to list.
        limit: u32,
    },
    /// `cachedump` of a class that memcached does not have either.
    NoSuchClass,
    /// Anything else. [`render`] answers it from published numbers, or with an error.
    Rendered,
}

impl StatsTopic {
    /// The topic of `stats WORDS`.
    #[must_use]
    pub(crate) fn parse(words: &[u8]) -> Self {
        let mut each = words.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
        match (each.next().unwrap_or_default(), each.next().unwrap_or_default()) {
            (b"reset", _) => Self::Reset,
            (b"conns", _) => Self::Conns,
            (b"detail", b"on") => Self::DetailOn,
            (b"detail", b"off") => Self::DetailOff,
            (b"detail", b"dump") => Self::DetailDump,
            _ => parse_cache_dump(words).unwrap_or(Self::Rendered),
        }
    }
}

fn parse_cache_dump(words: &[u8]) -> Option<StatsTopic> {
    let words = std::str::from_utf8(words.strip_prefix(b"cachedump ")?).ok()?;
    let mut numbers = words.split_ascii_whitespace().map(str::parse::<u32>);
    let (class, limit) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    if class > CLASS_MAX {
        return Some(StatsTopic::NoSuchClass);
    }
    // The limit 0 is none, and other classes than 1 have no items.
    let limit = match (class, limit) {
        (1, 0) => u32::MAX,
        (1, limit) => limit,
        _ => 0,
    };
    Some(StatsTopic::CacheDump { limit })
}

/// Appends the answer to `stats WORDS`.
pub(crate) fn render(words: &[u8], cache: &CacheContext, server: &ServerContext, out: &mut Vec<u8>) {
    let mut list = StatsWriter { out };
    match words.split(|&byte| byte == b' ').next().unwrap_or(b"") {
        b"" => general(&mut list, cache, server),
        b"settings" => settings(&mut list, cache, server),
        b"items" => items(&mut list, &cache.crawler, server),
        b"slabs" => slabs(&mut list, server),
        b"sizes" => list.put("sizes_status", "disabled"),
        b"cores" => cores(&mut list, server),
        b"detail" => return out.extend_from_slice(line::STATS_DETAIL_USAGE),
        b"cachedump" if words.split(|&byte| byte == b' ').nth(2).is_none() => {
            return out.extend_from_slice(line::BAD_COMMAND_LINE);
        }
        b"cachedump" => return out.extend_from_slice(line::BAD_FORMAT),
        _ => return out.extend_from_slice(line::ERROR),
    }
    out.extend_from_slice(line::END);
}

/// Appends the answer to a `STAT` request of the binary protocol: a packet for each stat, and then an empty
/// one.
pub(crate) fn render_binary(
    words: &[u8],
    cache: &CacheContext,
    server: &ServerContext,
    envelope: binary::Envelope,
    out: &mut Vec<u8>,
) {
    let mut list = Vec::new();
    render(words, cache, server, &mut list);
    let Some(list) = list.strip_suffix(line::END) else {
        return binary::encode_status(out, envelope, binary::Status::NotFound);
    };
    binary::encode_stats(out, envelope, list);
}

/// Writes lines of the `stats` command.
struct StatsWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl StatsWriter<'_> {
    fn put(&mut self, name: &str, value: impl Display) {
        text::encode_stat(self.out, name.as_bytes(), value.to_string().as_bytes());
    }

    fn put_all(&mut self, pairs: &[(&str, u64)]) {
        for (name, value) in pairs {
            self.put(name, value);
        }
    }

    fn put_zeroes(&mut self, names: &[&str]) {
        for name in names {
            self.put(name, 0);
        }
    }
}

fn general(list: &mut StatsWriter<'_>, cache: &CacheContext, server: &ServerContext) {
    let (counters, store) = counters::sum(&server.cells);
    let config = &cache.config;
    let admission = &server.network.admission;
    let connections = admission.open() as u64;
    list.put("pid", std::process::id());
    list.put("uptime", server.clock.uptime_s());
    list.put("time", server.clock.now_s());
    list.put("version", MEMCACHED_VERSION);
    list.put("corecached_version", VERSION);
    list.put("pointer_size", usize::BITS);
    if let Some(CpuTime { user, system }) = process::cpu_time() {
        for (name, time) in [("rusage_user", user), ("rusage_system", system)] {
            list.put(name, format_args!("{}.{:06}", time.as_secs(), time.subsec_micros()));
        }
    }
    list.put_all(&[
        ("max_connections", config.server.connections_max as u64),
        ("curr_connections", connections),
        ("total_connections", admission.accepted()),
        ("rejected_connections", admission.rejected()),
        ("connection_structures", connections),
        ("response_obj_oom", counters.response_obj_oom),
    ]);
    list.put_zeroes(&["response_obj_count", "response_obj_bytes", "read_buf_oom"]);
    if config.server.idle_timeout_s > 0 {
        list.put("idle_kicks", counters.idle_kicks);
    }
    list.put_all(&[
        ("cmd_get", counters.commands.cmd_get),
        ("cmd_set", counters.commands.cmd_set),
        ("cmd_flush", counters.commands.cmd_flush),
        ("cmd_touch", counters.commands.cmd_touch),
        ("cmd_meta", counters.commands.cmd_meta),
        ("get_hits", counters.commands.get_hits),
        ("get_misses", counters.commands.get_misses),
        ("get_expired", store.found_dead.expired),
        ("get_flushed", store.found_dead.flushed),
        ("delete_misses", counters.commands.delete_misses),
        ("delete_hits", counters.commands.delete_hits),
        ("incr_misses", counters.commands.incr_misses),
        ("incr_hits", counters.commands.incr_hits),
        ("decr_misses", counters.commands.decr_misses),
        ("decr_hits", counters.commands.decr_hits),
        ("cas_misses", counters.commands.cas_misses),
        ("cas_hits", counters.commands.cas_hits),
        ("cas_badval", counters.commands.cas_badval),
        ("touch_hits", counters.commands.touch_hits),
        ("touch_misses", counters.commands.touch_misses),
        ("store_too_large", counters.store_too_large),
        ("store_no_memory", counters.store_no_memory),
        ("auth_cmds", counters.auth_cmds),
        ("auth_errors", counters.auth_errors),
        ("bytes_read", counters.bytes_read),
        ("bytes_written", counters.bytes_written),
        ("limit_maxbytes", cache.memory.limit_bytes() as u64),
        ("accepting_conns", u64::from(!server.lifecycle.is_stopping())),
        ("listen_disabled_num", counters.listen_disabled_num),
        ("threads", server.cells.len() as u64),
        ("conn_yields", counters.conn_yields),
        // As in memcached, 2 to this power pointers of 8 bytes are as large as the index.
        ("hash_power_level", (store.index_bytes / 8).max(1).ilog2().into()),
        ("hash_bytes", store.index_bytes),
        // The index grows by a line at a time, and is never copied as a whole.
        ("hash_is_expanding", 0),
        ("lru_crawler_running", u64::from(cache.crawler.is_dumping())),
        ("lru_crawler_starts", cache.crawler.dumps()),
        ("crawler_items_checked", cache.crawler.items_listed()),
    ]);
    list.put_zeroes(&[
        "slab_reassign_rescues",
        "slab_reassign_chunk_rescues",
        "slab_reassign_busy_nomem",
        "slab_reassign_last_busy_status",
        "slab_reassign_inline_reclaim",
        "slab_reassign_busy_items",
        "slab_reassign_busy_deletes",
        "slab_reassign_running",
        "slabs_moved",
        "lru_maintainer_juggles",
    ]);
    list.put("malloc_fails", store.out_of_memory);
    let (watchers, lines) = (&cache.watchers, &cache.watchers.counters);
    list.put_all(&[
        ("log_worker_dropped", lines.dropped.load(Ordering::Relaxed)),
        ("log_worker_written", lines.written.load(Ordering::Relaxed)),
        ("log_watcher_skipped", lines.skipped.load(Ordering::Relaxed)),
        ("log_watcher_sent", lines.sent.load(Ordering::Relaxed)),
        ("log_watchers", watchers.count() as u64),
    ]);
    list.put_zeroes(&["unexpected_napi_ids", "round_robin_fallback"]);
    if let Some(certificates) = &cache.certificates {
        let counts = &certificates.counters;
        if certificates.options().session_cache {
            list.put("ssl_new_sessions", counts.new_sessions.load(Ordering::Relaxed));
        }
        list.put("ssl_handshake_errors", counts.handshake_errors.load(Ordering::Relaxed));
        list.put("ssl_handshake_timeouts", counts.handshake_timeouts.load(Ordering::Relaxed));
        list.put("ssl_proto_errors", counts.proto_errors.load(Ordering::Relaxed));
        list.put("time_since_server_cert_refresh", certificates.age_s());
    }
    list.put_all(&[
        ("bytes", store.bytes),
        ("curr_items", store.items),
        ("total_items", store.total_items),
        ("slab_global_page_pool", store.segments_free),
        ("expired_unfetched", store.expired_unfetched),
        ("evicted_unfetched", store.evicted_unfetched),
        ("evicted_active", store.evictions.saturating_sub(store.evicted_unfetched)),
        ("evictions", store.evictions),
        ("reclaimed", store.reclaimed),
    ]);
    list.put_zeroes(&["crawler_reclaimed", "lrutail_reflocked", "moves_to_cold", "moves_to_warm"]);
    list.put("moves_within_lru", store.moved_items);
    list.put_zeroes(&["direct_reclaims", "lru_bumps_dropped"]);
    list.put("io_backend", &server.network.backend);
    list.put_all(&[
        ("cores", server.cells.len() as u64),
        ("mesh_forwarded", counters.forwarded),
        ("mesh_borrowed", counters.borrowed),
        ("mesh_wakeups", counters.wakeups),
        ("turns", counters.turns),
        ("turns_busy", counters.turns_busy),
        ("turns_waited", counters.waits),
        ("index_bytes", store.index_bytes),
        ("ghost_bytes", store.ghost_bytes),
        ("segments", store.segments_total),
        ("segments_free", store.segments_free),
        ("segments_pinned", store.segments_pinned),
        ("moved_bytes", store.moved_bytes),
        ("uploads", store.uploads),
    ]);
}

/// `stats cores`, which memcached does not have: the numbers of each core.
fn cores(list: &mut StatsWriter<'_>, server: &ServerContext) {
    list.put("io_backend", &server.network.backend);
    for (core, cells) in server.cells.iter().enumerate() {
        for (name, value) in cells.core_numbers() {
            list.put(&format!("{core}:{name}"), value);
        }
    }
}

fn settings(list: &mut StatsWriter<'_>, cache: &CacheContext, server: &ServerContext) {
    let config: &CacheConfig = &cache.config;
    let shown = &config.shown;
    let yes = |on: bool| if on { "yes" } else { "no" };
    list.put("maxbytes", cache.memory.limit_bytes());
    list.put("maxconns", config.server.connections_max);
    list.put("tcpport", shown.port);
    list.put("udpport", cache.config.shown.udp_port);
    list.put("inter", shown.listen.as_deref().unwrap_or("NULL"));
    list.put("verbosity", cache.verbosity());
    list.put("oldest", 0);
    list.put("evictions", if config.evict { "on" } else { "off" });
    match &config.server.listen {
        Listen::Unix { path, .. } => list.put("domain_socket", path.display()),
        Listen::Tcp(_) => list.put("domain_socket", "NULL"),
    }
    list.put("umask", &shown.umask);
    list.put("shutdown_command", yes(config.allow_shutdown));
    list.put("growth_factor", format_args!("{:.2}", shown.growth_factor));
    list.put("chunk_size", shown.chunk_size);
    list.put("num_threads", server.cells.len());
    list.put("num_threads_per_udp", server.cells.len());
    list.put("stat_key_prefix", config.prefix_delimiter as char);
    list.put("detail_enabled", yes(cache.counts_prefixes()));
    list.put("reqs_per_event", shown.reqs_per_event);
    list.put("cas_enabled", yes(config.item_limit.cas));
    list.put("tcp_backlog", config.server.listen_backlog);
    list.put("binding_protocol", shown.protocol);
    list.put("auth_enabled_sasl", yes(config.sasl));
    match &config.auth_file {
        Some(file) if !config.sasl => list.put("auth_enabled_ascii", file.display()),
        _ => list.put("auth_enabled_ascii", "no"),
    }
    list.put("item_size_max", config.item_limit.item_bytes_max);
    list.put("maxconns_fast", "yes");
    list.put("hashpower_init", 0);
    list.put("slab_reassign", "no");
    list.put("slab_automove", 0);
    list.put("slab_automove_ratio", "0.00");
    list.put("slab_automove_freeratio", "0.000");
    list.put("slab_automove_window", 0);
    list.put("slab_chunk_max", 0);
    list.put("lru_crawler", yes(cache.crawler.is_enabled()));
    list.put("lru_crawler_sleep", 0);
    list.put("lru_crawler_tocrawl", 0);
    list.put("tail_repair_time", 0);
    list.put("flush_enabled", yes(config.allow_flush));
    list.put("dump_enabled", yes(config.allow_dump));
    list.put("hash_algorithm", "rapidhash");
    list.put("lru_maintainer_thread", "no");
    list.put("lru_segmented", "no");
    list.put("hot_lru_pct", 0);
    list.put("warm_lru_pct", 0);
    list.put("hot_max_factor", "0.00");
    list.put("warm_max_factor", "0.00");
    list.put("temp_lru", "no");
    list.put("temporary_ttl", 0);
    list.put("idle_timeout", config.server.idle_timeout_s);
    list.put("track_sizes", "no");
    list.put("watcher_logbuf_size", super::watch::QUEUE_BYTES_MAX);
    list.put("worker_logbuf_size", super::watch::JOURNAL_BYTES_MAX);
    list.put("read_buf_mem_limit", 0);
    list.put("inline_ascii_response", "no");
    list.put("num_napi_ids", "(null)");
    list.put("proxy_enabled", "no");
    list.put("proxy_uring_enabled", "no");
    list.put("client_flags_size", size_of::<u32>());
    match &config.server.tls {
        None => tls_off(list),
        Some(tls) => tls_on(list, tls),
    }
    let memory_file = config.memory_file.as_ref().map(|file| file.display().to_string());
    list.put("memory_file", memory_file.as_deref().unwrap_or("(null)"));
    list.put("io_backend", &server.network.backend);
    list.put("eviction_policy", "s3-fifo");
}

/// What memcached shows of TLS when it is off.
fn tls_off(list: &mut StatsWriter<'_>) {
    for (name, value) in [
        ("ssl_enabled", "no"),
        ("ssl_chain_cert", "(null)"),
        ("ssl_key", "(null)"),
        ("ssl_verify_mode", "0"),
        ("ssl_keyformat", "1"),
        ("ssl_ciphers", "NULL"),
        ("ssl_ca_cert", "NULL"),
        ("ssl_wbuf_size", "16384"),
        ("ssl_session_cache", "no"),
        ("ssl_kernel_tls", "no"),
        ("ssl_min_version", MIN_VERSIONS[2]),
    ] {
        list.put(name, value);
    }
}

fn tls_on(list: &mut StatsWriter<'_>, tls: &TlsOptions) {
    let shown = &tls.shown;
    let or_null = |path: &Option<PathBuf>| match path {
        Some(path) => path.display().to_string(),
        None => "NULL".to_owned(),
    };
    list.put("ssl_enabled", "yes");
    list.put("ssl_chain_cert", tls.chain.display());
    list.put("ssl_key", or_null(&tls.key));
    list.put("ssl_verify_mode", shown.verify_mode);
    list.put("ssl_keyformat", if tls.key_format == KeyFormat::Pem { 1 } else { 2 });
    list.put("ssl_ciphers", shown.ciphers.as_deref().unwrap_or("NULL"));
    list.put("ssl_ca_cert", or_null(&tls.authorities));
    list.put("ssl_wbuf_size", shown.wbuf_bytes);
    list.put("ssl_session_cache", if tls.session_cache { "yes" } else { "no" });
    list.put("ssl_kernel_tls", "no");
    list.put("ssl_min_version", MIN_VERSIONS[shown.min_version.max(2)]);
    list.put("ssl_handshake_timeout_ms", tls.handshake_timeout.as_millis());
    list.put("ssl_watch_certs", if tls.watch { "yes" } else { "no" });
}

fn items(list: &mut StatsWriter<'_>, crawler: &Crawler, server: &ServerContext) {
    let (counters, store) = counters::sum(&server.cells);
    if store.items == 0 {
        return;
    }
    let mut put = |name: &str, value: u64| list.put(&format!("items:1:{name}"), value);
    put("number", store.items);
    for name in ["number_hot", "number_warm"] {
        put(name, 0);
    }
    put("number_cold", store.items);
    put("mem_requested", store.bytes);
    put("evicted", store.evictions);
    put("outofmemory", store.out_of_memory);
    put("tailrepairs", 0);
    put("reclaimed", store.reclaimed);
    put("expired_unfetched", store.expired_unfetched);
    put("evicted_unfetched", store.evicted_unfetched);
    put("evicted_active", store.evictions.saturating_sub(store.evicted_unfetched));
    for name in ["crawler_reclaimed", "lrutail_reflocked", "moves_to_cold", "moves_to_warm"] {
        put(name, 0);
    }
    put("moves_within_lru", store.moved_items);
    for name in ["direct_reclaims", "hits_to_hot", "hits_to_warm", "hits_to_temp"] {
        put(name, 0);
    }
    put("hits_to_cold", counters.commands.get_hits);
    put("crawler_items_checked", crawler.items_listed());
}

fn slabs(list: &mut StatsWriter<'_>, server: &ServerContext) {
    let (counters, store) = counters::sum(&server.cells);
    let used = store.segments_total - store.segments_free.min(store.segments_total);
    let segment_bytes = store.segment_bytes / server.cells.len() as u64;
    if store.items > 0 {
        // A chunk stands for a segment, the unit in which memory is given out and taken back.
        for (name, value) in [
            ("chunk_size", segment_bytes),
            ("chunks_per_page", 1),
            ("total_pages", used),
            ("total_chunks", store.segments_total.max(used)),
            ("used_chunks", used),
            ("free_chunks", store.segments_total.saturating_sub(used)),
            ("free_chunks_end", 0),
            ("mem_requested", store.bytes),
            ("get_hits", counters.commands.get_hits),
            ("cmd_set", counters.commands.cmd_set),
            ("delete_hits", counters.commands.delete_hits),
            ("incr_hits", counters.commands.incr_hits),
            ("decr_hits", counters.commands.decr_hits),
            ("cas_hits", counters.commands.cas_hits),
            ("cas_badval", counters.commands.cas_badval),
            ("touch_hits", counters.commands.touch_hits),
        ] {
            list.put(&format!("1:{name}"), value);
        }
    }
    list.put("active_slabs", u64::from(store.items > 0));
    list.put("total_malloced", store.arena_bytes + store.index_bytes + store.ghost_bytes);
}
