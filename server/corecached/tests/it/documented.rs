//! The documentation under `server/docs` names every stat and every metric.

use std::collections::BTreeSet;
use std::path::Path;

use rustls::ALL_VERSIONS;

use crate::admin::{ADMIN, scrape};
use crate::proxy::{addresses, caches, proxy};
use crate::support::{Authority, Backend, Client, Folder, Launch, Server};

/// Asserts that the page names all of `names`.
#[track_caller]
fn check(page: &str, names: &BTreeSet<String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let missing: Vec<&String> = names
        .iter()
        .filter(|name| !text.contains(&format!("`{name}`")) && !text.contains(&format!(":{name}`")))
        .collect();
    assert!(missing.is_empty(), "server/docs/{page} does not name {missing:?}: write a line on each of them");
}

/// The name of a stat without the slab class, the core or the destination before it.
fn without_number(stat: &str) -> String {
    stat.rsplit(':').next().unwrap_or(stat).to_owned()
}

#[test]
fn every_stat_stands_in_the_documentation() {
    let folder = Folder::new();
    let authority = Authority::new();
    let options = authority.sign().install(&folder);
    let args = ["-Z", "-o", &options, "-o", "ssl_session_cache,idle_timeout=60"];
    let secured = Launch::new(&args).serve();
    let mut client = Client::connect_tls(secured.address, &authority.client(ALL_VERSIONS, None));
    client.set("k", b"v");
    let mut names = BTreeSet::new();
    for group in ["", "settings", "items", "slabs", "sizes", "cores", "conns"] {
        names.extend(client.stats(group).into_keys().map(|name| without_number(&name)));
    }
    let caches = caches(1);
    let config = format!(
        "{{\"pools\": {{\"A\": {{\"servers\": [\"{}\"]}}}}, \"route\": \"PoolRoute|A\"}}",
        addresses(&caches)[0]
    );
    let proxy = proxy(Backend::Epoll, 1, &["--config-str", &config, "--single-flight", "--hot-keys=4"]);
    let mut client = Client::connect(&proxy);
    client.set("k", b"v");
    names.extend(client.stats("").into_keys());
    check("stats.md", &names);
}

#[test]
fn every_metric_stands_in_the_documentation() {
    let cache = Server::start(&[ADMIN]);
    let caches = caches(1);
    let config = format!(
        "{{\"pools\": {{\"A\": {{\"servers\": [\"{}\"]}}}}, \"route\": \"PoolRoute|A\"}}",
        addresses(&caches)[0]
    );
    let args = ["--config-str", &config, "--single-flight", "--hot-keys=4", ADMIN];
    let proxy = proxy(Backend::Epoll, 1, &args);
    Client::connect(&proxy).set("k", b"v");
    let family = |sample: String| sample.split('{').next().unwrap_or_default().to_owned();
    let names =
        [&cache, &proxy].into_iter().flat_map(|server| scrape(server).into_keys().map(family)).collect();
    check("metrics.md", &names);
}
