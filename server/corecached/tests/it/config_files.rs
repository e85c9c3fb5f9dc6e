//! The files of a proxy's configuration: whichever of them changes, and however it is reached, the change is used.

use std::fs::{create_dir, rename, write};
use std::os::unix::fs::symlink;

use super::proxy::{addresses, caches, launch, proxy};
use super::support::{Backend, Client, Folder, Mounted, Server, wait_until};

/// Two caches with a value of their own, of which the proxy uses one.
struct World {
    caches: Vec<Server>,
    addresses: Vec<String>,
}

impl World {
    fn new() -> Self {
        let caches = caches(2);
        for (cache, value) in caches.iter().zip([b"0", b"1"]) {
            Client::connect(cache).set("k", value);
        }
        Self { addresses: addresses(&caches), caches }
    }

    /// A list of one server, as it is imported.
    fn list(&self, cache: usize) -> String {
        format!("[{:?}]", self.addresses[cache])
    }

    fn config(&self, cache: usize) -> String {
        over(&self.list(cache))
    }

    fn awaits(&self, proxy: &Server, cache: usize) {
        assert!(cache < self.caches.len());
        let mut client = Client::connect(proxy);
        let value = cache.to_string().into_bytes();
        wait_until(&format!("cache {cache} to be used: {}", proxy.stderr()), || {
            client.get("k").as_deref() == Some(&value[..])
        });
    }
}

/// A configuration over these servers.
fn over(servers: &str) -> String {
    format!("{{\"pools\": {{\"A\": {{\"servers\": {servers}}}}}, \"route\": \"PoolRoute|A\"}}")
}

fn start(args: &[&str]) -> Server {
    proxy(Backend::all()[0], 1, &[&["--reconfiguration-delay-ms=10"], args].concat())
}

#[test]
fn a_file_that_is_imported_is_read_again_when_it_changes() {
    let world = World::new();
    let folder = Folder::new();
    let main = folder.file("main.json");
    write(&main, over("\"@import(outer.json)\"")).unwrap();
    write(folder.file("outer.json"), r#"{"type": "import", "path": "inner.json", "default": []}"#).unwrap();
    write(folder.file("inner.json"), world.list(0)).unwrap();
    let proxy = start(&["-f", main.to_str().unwrap()]);
    world.awaits(&proxy, 0);
    // Written in place, replaced, and one level higher.
    write(folder.file("inner.json"), world.list(1)).unwrap();
    world.awaits(&proxy, 1);
    write(folder.file("new"), world.list(0)).unwrap();
    rename(folder.file("new"), folder.file("inner.json")).unwrap();
    world.awaits(&proxy, 0);
    write(folder.file("outer.json"), world.list(1)).unwrap();
    world.awaits(&proxy, 1);
    // A mistake in it is told, and its repair is used.
    write(folder.file("outer.json"), "[").unwrap();
    wait_until("the mistake to be told", || proxy.stderr().contains("the configuration before stays in use"));
    world.awaits(&proxy, 1);
    write(folder.file("outer.json"), world.list(0)).unwrap();
    world.awaits(&proxy, 0);
}

#[test]
fn a_file_that_is_imported_may_appear_and_belong_to_a_configuration_of_the_command_line() {
    let world = World::new();
    let folder = Folder::new();
    let path = folder.file("later/servers.json");
    let servers = format!("{{\"type\": \"import\", \"path\": {path:?}, \"default\": {}}}", world.list(0));
    let proxy = start(&["--config-str", &over(&servers)]);
    world.awaits(&proxy, 0);
    create_dir(folder.file("later")).unwrap();
    write(&path, world.list(1)).unwrap();
    world.awaits(&proxy, 1);
    // Its folder is exchanged as a whole.
    create_dir(folder.file("next")).unwrap();
    write(folder.file("next/servers.json"), world.list(0)).unwrap();
    rename(folder.file("later"), folder.file("before")).unwrap();
    rename(folder.file("next"), folder.file("later")).unwrap();
    world.awaits(&proxy, 0);
    // Not read any more: the one before.
    write(folder.file("before/servers.json"), world.list(1)).unwrap();
    write(&path, world.list(0)).unwrap();
    world.awaits(&proxy, 0);
}

#[test]
fn every_link_on_the_way_to_the_configuration_is_followed() {
    let world = World::new();
    let folder = Folder::new();
    for name in ["links", "one", "other"] {
        create_dir(folder.file(name)).unwrap();
    }
    write(folder.file("one/real.json"), world.config(0)).unwrap();
    write(folder.file("other/real.json"), world.config(1)).unwrap();
    symlink("one", folder.file("current")).unwrap();
    symlink("../current/real.json", folder.file("links/config.json")).unwrap();
    let proxy = start(&["-f", folder.file("links/config.json").to_str().unwrap()]);
    world.awaits(&proxy, 0);
    // The target, in a folder of its own, is written in place.
    write(folder.file("one/real.json"), world.config(1)).unwrap();
    world.awaits(&proxy, 1);
    write(folder.file("one/real.json"), world.config(0)).unwrap();
    world.awaits(&proxy, 0);
    // A link in the middle leads to another folder, whose file is written in place then.
    symlink("other", folder.file("next")).unwrap();
    rename(folder.file("next"), folder.file("current")).unwrap();
    world.awaits(&proxy, 1);
    write(folder.file("other/real.json"), world.config(0)).unwrap();
    world.awaits(&proxy, 0);
    // The link itself becomes a file.
    write(folder.file("links/new"), world.config(1)).unwrap();
    rename(folder.file("links/new"), folder.file("links/config.json")).unwrap();
    world.awaits(&proxy, 1);
}

#[test]
fn imports_of_two_config_maps_flip_on_their_own() {
    let world = World::new();
    let servers = Mounted::new(&[("servers.json", &world.list(0))]);
    let main = |comment: &str| {
        format!("// {comment}\n{}", over(&format!("\"@import(file:{})\"", servers.path("servers.json"))))
    };
    let config = Mounted::new(&[("config.json", &main("first"))]);
    let proxy = start(&["-f", &config.path("config.json")]);
    for turn in 0..3 {
        for cache in [1, 0] {
            servers.hold(&[("servers.json", &world.list(cache))]);
            world.awaits(&proxy, cache);
        }
        config.hold(&[("config.json", &main(&turn.to_string()))]);
    }
}

#[test]
fn a_start_with_a_broken_configuration_uses_the_last_good_one_if_told_where_to_keep_it() {
    let world = World::new();
    let folder = Folder::new();
    let main = folder.file("main.json");
    let root = folder.file("kept");
    let args = ["-f", main.to_str().unwrap(), "--config-dump-root", root.to_str().unwrap()];
    write(folder.file("servers.json"), world.list(0)).unwrap();
    write(&main, over("\"@import(servers.json)\"")).unwrap();
    let proxy = start(&args);
    world.awaits(&proxy, 0);
    write(folder.file("servers.json"), world.list(1)).unwrap();
    world.awaits(&proxy, 1);
    drop(proxy);
    write(&main, "{").unwrap();
    // Kept by the port, which is 0 for both.
    let proxy = start(&args);
    assert!(proxy.stderr().contains("the last configuration that could be used"), "{}", proxy.stderr());
    world.awaits(&proxy, 1);
    write(&main, world.config(0)).unwrap();
    world.awaits(&proxy, 0);
    drop(proxy);
    write(&main, "{").unwrap();
    for more in [&["--config-dump-root="][..], &["--max-dumped-config-age=0"]] {
        let exit = launch(Backend::all()[0], 1, &[&args[..], more].concat()).exit();
        assert_eq!(exit.code(), Some(78), "{}", exit.stderr);
    }
}
