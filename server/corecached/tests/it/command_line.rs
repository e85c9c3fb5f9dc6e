//! The command line, as users of memcached write it.

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Client, Exit, Folder, Launch, Server, wait_until};

fn refused(args: &[&str], code: i32) -> Exit {
    let exit = Launch::bare(args).exit();
    assert_eq!(exit.code(), Some(code), "{args:?}: {}", exit.stderr);
    assert!(!exit.stderr.contains("panicked"), "{args:?}: {}", exit.stderr);
    exit
}

#[test]
fn a_health_check_tells_a_server_that_answers_from_one_that_does_not() {
    let server = Server::start(&[]);
    let target = server.address.to_string();
    assert_eq!(Launch::bare(&["healthcheck", &target]).exit().code(), Some(0));
    server.stop();
    let exit = Launch::bare(&["healthcheck", &target, "-t", "50"]).exit();
    assert_eq!(exit.code(), Some(1));
    assert!(exit.stderr.contains(&target) && exit.stderr.contains("receive"), "{}", exit.stderr);
    server.signal(Signal::CONT);
    // No process listens on port 1 of the loopback interface.
    let exit = Launch::bare(&["healthcheck", "127.0.0.1:1"]).exit();
    assert_eq!(exit.code(), Some(1));
    assert!(exit.stderr.contains("connect"), "{}", exit.stderr);
}

#[test]
fn a_health_check_shows_a_password_and_stores_a_value_if_told_to() {
    let folder = Folder::new();
    let file = |name: &str, text: &str| {
        let path = folder.file(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let users = file("users", "probe:se:cret\nbob:other\n");
    let server = Launch::new(&["-Y", &users]).serve();
    let target = server.address.to_string();
    let check = |more: &[&str]| {
        let words: Vec<&str> = ["healthcheck", &target].into_iter().chain(more.iter().copied()).collect();
        let exit = Launch::bare(&words).exit();
        (exit.code(), exit.stderr.clone())
    };
    for good in [&["-Y", &users][..], &["--auth-file", &users, "--store"], &["-Y", &users, "-s"]] {
        assert_eq!(check(good), (Some(0), String::new()), "{good:?}");
    }
    let (wrong, none) = (file("wrong", "probe:secret\n"), file("none", ""));
    for (bad, said) in [
        (&[][..], "receive"),
        (&["-Y", &wrong], "CLIENT_ERROR authentication failure"),
        (&["-Y", &none], "is empty"),
        (&["-Y", "/nowhere/users"], "/nowhere/users"),
    ] {
        let (code, stderr) = check(bad);
        assert!(code == Some(1) && stderr.contains(said), "{bad:?}: {stderr}");
    }
    let full = Server::start(&["-m", "64", "-I", "1m"]);
    assert_eq!(Launch::bare(&["healthcheck", &full.address.to_string(), "-s"]).exit().code(), Some(0));
    assert_eq!(Client::connect(&full).stats("")["cmd_set"], "1");
}

/// A process that is killed when the value is dropped.
struct KilledOnDrop(std::process::Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_filter_for_containers_is_installed_whole_and_stays_until_a_signal() {
    let folder = Folder::new();
    let file = folder.file("deep/profiles/own.json");
    let path = file.to_str().unwrap();
    assert_eq!(Launch::bare(&["seccomp-profile", "-i", path]).exit().code(), Some(0));
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.contains("io_uring_setup") && written.contains("SCMP_ACT_ERRNO"));
    // A file that was changed is replaced.
    std::fs::write(&file, "{}").unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_corecached"));
    let mut stays =
        KilledOnDrop(command.args(["seccomp-profile", "--install", path, "--stay"]).spawn().unwrap());
    wait_until("the file is whole", || std::fs::read_to_string(&file).is_ok_and(|text| text == written));
    assert!(stays.0.try_wait().unwrap().is_none());
    kill_process(Pid::from_child(&stays.0), Signal::TERM).unwrap();
    assert_eq!(stays.0.wait().unwrap().code(), Some(0));
    assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "a half-written file is left");
    let exit = Launch::bare(&["seccomp-profile", "-i", "/dev/null/profile"]).exit();
    assert!(exit.code() == Some(1) && exit.stderr.contains("/dev/null/profile"), "{}", exit.stderr);
}

#[test]
fn wrong_values_end_it_with_memcacheds_code_and_name_flag_and_value() {
    for (flag, value, code) in [
        ("-c", "0", 1),
        ("-c", "-5", 1),
        ("-t", "0", 1),
        ("-t", "abc", 1),
        ("-R", "0", 1),
        ("-m", "0", 64),
        ("-m", "-1", 64),
        ("-m", "lots", 64),
        ("-f", "0.5", 1),
        ("-n", "0", 1),
        ("-U", "70000", 64),
        ("-o", "nonsense", 1),
        ("-o", "hashpower=99", 1),
        ("-o", "proxy_config=/k", 1),
        ("-o", "ssl_verify_mode=4", 1),
        ("-o", "idle_timeout=86401", 1),
        ("-Y", "/etc/users", 1),
        ("-I", "1", 64),
        ("-I", "10g", 64),
        ("-p", "99999", 64),
        ("-B", "foo", 64),
        ("--policy-weight", "age", 1),
        ("-l", "999.1.1.1", 71),
    ] {
        // Some values are refused after the server listens, so it gets a free port.
        let address: &[&str] =
            if matches!(flag, "-p" | "-l") { &[] } else { &["-l", "127.0.0.1", "-p", "-1"] };
        let exit = refused(&[&[flag, value], address].concat(), code);
        assert!(exit.stderr.contains(flag) && exit.stderr.contains(value), "{flag} {value}: {}", exit.stderr);
    }
    let exit = refused(&["--io-backend=dpdk"], 1);
    assert!(exit.stderr.contains("--io-backend") && exit.stderr.contains("dpdk"), "{}", exit.stderr);
}

#[test]
fn flags_that_do_not_exist_are_refused() {
    for args in [&["--nonsense"][..], &["-z"], &["-c"], &["--disable"]] {
        let exit = refused(args, 1);
        assert!(!exit.stderr.is_empty());
    }
}

#[test]
fn an_unknown_user_is_refused_as_root() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root may become another user");
        return;
    }
    let exit = refused(&["-l", "127.0.0.1", "-p", "-1", "-u", "no-such-user"], 67);
    assert!(exit.stderr.contains("no-such-user"), "{}", exit.stderr);
}

#[test]
fn the_user_is_changed_once_it_listens() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root may become another user");
        return;
    }
    // Only root may write to the folder of the launch, so the port file is in a folder of the other user.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = Folder::new();
    std::os::unix::fs::chown(folder.path(), Some(65_534), Some(65_534)).unwrap();
    let file = folder.file("ports");
    let launch = Launch::bare(&["-l", "127.0.0.1", "-p", &port.to_string(), "-u", "nobody"]);
    let server = launch.ports_to(&file).serve();
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let uids = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    assert!(uids.split_whitespace().skip(1).all(|uid| uid == "65534"), "{uids}");
    Client::connect(&server).check("mn\r\n", "MN\r\n");
}

#[test]
fn help_mentions_every_flag() {
    let exit = Launch::bare(&["--help"]).exit();
    assert_eq!(exit.code(), Some(0));
    let flags = "p U s a A l d r u m M c k v h i V P f n L D t R C b B I F X W Y S Z e N o";
    for flag in flags.split(' ') {
        assert!(exit.stdout.contains(&format!("-{flag}")), "-{flag} is not in the help");
    }
    for flag in ["--io-backend", "--port", "--memory-limit", "--conn-limit", "--threads", "--max-item-size"] {
        assert!(exit.stdout.contains(flag), "{flag} is not in the help");
    }
    assert_eq!(Launch::bare(&["-h"]).exit().code(), Some(0));
}

#[test]
fn the_version_is_told() {
    for flag in ["-V", "--version"] {
        let exit = Launch::bare(&[flag]).exit();
        assert_eq!(exit.code(), Some(0));
        assert!(exit.stdout.starts_with("memcached 1.6.45"), "{}", exit.stdout);
    }
    assert!(Launch::bare(&["-i"]).exit().stdout.contains("Apache License"));
}

#[test]
fn what_manifests_write_is_understood() {
    for args in [
        &["-m 64", "--extended=modern,track_sizes", "-I 2m", "-c 1000", "-v"][..],
        &["-m", "64", "-o", "modern", "-vv", "-t2", "-c200"],
        &["--memory-limit=64", "--conn-limit=500", "--threads=1", "--max-item-size=2m"],
        &["--policy-weight", "bytes"],
        &["-U", "0", "-R", "200", "-b", "512", "-k", "-f", "1.1", "-n", "100", "-B", "ascii"],
    ] {
        let server = Server::start(args);
        Client::connect(&server).check("mn\r\n", "MN\r\n");
    }
}

#[test]
fn settings_show_what_was_given() {
    let server = Server::start(&["-m", "100", "-c", "77", "-t", "2", "-I", "2m", "-C", "-F", "-M"]);
    let settings = Client::connect(&server).stats("settings");
    for (name, value) in [
        ("maxbytes", "104857600"),
        ("maxconns", "77"),
        ("num_threads", "2"),
        ("item_size_max", "2097152"),
        ("cas_enabled", "no"),
        ("flush_enabled", "no"),
        ("evictions", "off"),
        ("inter", "127.0.0.1"),
        ("tcpport", &server.address.port().to_string()),
    ] {
        assert_eq!(settings[name], value, "{name}");
    }
}

#[test]
fn the_process_id_is_written_and_removed() {
    let folder = Folder::new();
    let file = folder.file("pid");
    let mut server = Launch::new(&[]).args(&["-P", file.to_str().unwrap()]).serve();
    let pid = || std::fs::read_to_string(&file).unwrap_or_default();
    wait_until("the process id", || pid().trim() == server.pid().to_string());
    server.signal(Signal::TERM);
    assert_eq!(server.exit_within(crate::support::DEADLINE).code(), Some(0));
    assert!(!file.exists());
}

#[test]
fn what_memcached_survives_is_survived_and_said() {
    let server = Server::start(&[
        "-m",
        "64m",
        "-b",
        "0",
        "-v",
        "2",
        "-P",
        "/nowhere/pid",
        "--thread=1",
        "-l",
        "127.0.0.1",
        "stray",
        "-o",
        "slab_reassign,slab_automove,no_chunked_items",
    ]);
    let mut client = Client::connect(&server);
    let settings = client.stats("settings");
    assert_eq!((&*settings["maxbytes"], &*settings["num_threads"]), ("67108864", "1"));
    assert_eq!(
        server.stderr().matches("WARN").count(),
        4 + usize::from(runs_as_root()),
        "{}",
        server.stderr()
    );
    for part in ["-m \"64m\" counts as 64", "\"stray\" is neither", "\"2\" is neither", "-P /nowhere/pid"] {
        assert!(server.stderr().contains(part), "{part}: {}", server.stderr());
    }
}

#[test]
fn what_changes_capacity_durability_or_rights_is_said_without_being_asked() {
    let server =
        Server::start(&["-m", "99999999", "-t", "2", "-o", "ext_path=/data/file:9G,drop_privileges"]);
    let mut client = Client::connect(&server);
    client.check("set a 0 0 1\r\nx\r\nget a\r\n", "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n");
    assert_eq!(client.stats("settings")["num_threads"], "2");
    let stderr = server.stderr();
    for part in [
        "-m 99999999 (MB)",
        "counts as 32768, the most that 2 shards can use",
        "-o ext_path has no effect",
        "-o drop_privileges has no effect",
    ] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    assert_eq!(stderr.contains("running as root"), runs_as_root(), "{stderr}");
    if runs_as_root() {
        let server = Server::start(&["-u", "root"]);
        Client::connect(&server).check("mn\r\n", "MN\r\n");
        assert_eq!(server.stderr(), "");
    }
}

fn runs_as_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn without_a_port_it_runs_and_says_that_nobody_can_connect() {
    let folder = Folder::new();
    let pid_file = folder.file("pid");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_corecached"));
    let log = std::fs::File::create(folder.file("log")).unwrap();
    command.args(["-p", "0", "-u", "root", "-P"]).arg(&pid_file).stderr(log);
    let mut server = KilledOnDrop(command.spawn().unwrap());
    wait_until("the process id", || {
        std::fs::read_to_string(&pid_file).is_ok_and(|text| text.ends_with('\n'))
    });
    assert!(server.0.try_wait().unwrap().is_none());
    let log = std::fs::read_to_string(folder.file("log")).unwrap();
    assert!(log.contains("-p 0: no client can connect"), "{log}");
}

/// A process that is not a child, and is killed when the value is dropped.
struct Daemon(Pid);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

#[test]
fn a_daemon_serves_when_its_start_returns_and_a_start_that_fails_is_seen() {
    let folder = Folder::new();
    let (pid_file, ports) = (folder.file("pid"), folder.file("ports"));
    let args = ["-d", "-u", "root", "-l", "127.0.0.1", "-p", "-1", "-P", pid_file.to_str().unwrap()];
    let exit = Launch::bare(&args).ports_to(&ports).exit();
    assert_eq!((exit.code(), &*exit.stderr), (Some(0), ""));
    let pid = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    let daemon = Daemon(Pid::from_raw(pid).unwrap());
    let ports = std::fs::read_to_string(&ports).unwrap();
    let port = ports.strip_prefix("TCP INET: ").unwrap().trim();
    let mut client = Client::connect_to(format!("127.0.0.1:{port}").parse().unwrap());
    client.check("mn\r\n", "MN\r\n");
    assert_eq!(client.stats("")["pid"], pid.to_string());

    for (args, code, part) in [
        (&["-p", port][..], 71, "in use"),
        (&["-p", "-1", "-Y", "/nowhere/users"], 1, "/nowhere/users"),
        (&["-p", "-1", "-e", "/nowhere/memory"], 1, "/nowhere/memory"),
    ] {
        let exit = refused(&[&["-d", "-l", "127.0.0.1", "-u", "root"], args].concat(), code);
        assert!(exit.stderr.contains(part), "{args:?}: {}", exit.stderr);
    }
    kill_process(daemon.0, Signal::TERM).unwrap();
    wait_until("the daemon to end", || !pid_file.exists());
}

#[test]
fn several_addresses_are_listened_on() {
    let server = Launch::bare(&["-p", "-1", "-l", "127.0.0.1,127.0.0.2", "-t", "2"]).serve();
    let ports = std::fs::read_to_string(server.folder().file("ports")).unwrap();
    assert_eq!(ports.lines().count(), 2, "{ports}");
    for (address, line) in ["127.0.0.1", "127.0.0.2"].iter().zip(ports.lines()) {
        let port: u16 = line.rsplit(' ').next().unwrap().parse().unwrap();
        let mut client = Client::connect_to(format!("{address}:{port}").parse().unwrap());
        client.check("mn\r\n", "MN\r\n");
    }
}
