//! How the network is reached: io_uring where the kernel grants it, epoll else, and never without saying so.

use crate::support::{Backend, Client, Launch, Server};

/// `SECCOMP_RET_ERRNO` with EPERM, as container runtimes deny it.
const DENY: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

/// Deny this process, and what it becomes, the making of rings.
fn without_io_uring() -> std::io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(LOAD, 0, 0, 0), // the number of the system call is the first word of what a filter sees
        step(JUMP_IF_EQUAL, libc::SYS_io_uring_setup as u32, 0, 1),
        step(RETURN, DENY, 0, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let filter = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the kernel copies `len` steps from the pointer during the call.
    let outcome = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter)
    };
    if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[test]
fn each_backend_says_what_it_is() {
    for &backend in Backend::all() {
        let server = Server::start_on(backend, 2, &[]);
        let shown = &Client::connect(&server).stats("")["io_backend"];
        let name = if backend == Backend::Epoll { "epoll" } else { "io_uring" };
        assert!(shown.starts_with(name), "{shown}");
    }
}

#[test]
fn auto_takes_io_uring_where_there_is_one() {
    let server = Server::start(&["-t", "2"]);
    let shown = &Client::connect(&server).stats("")["io_backend"];
    let wanted = if Backend::all().contains(&Backend::IoUring) { "io_uring" } else { "epoll" };
    assert!(shown.starts_with(wanted), "{shown}");
}

#[test]
fn auto_falls_back_to_epoll_and_says_so() {
    for shards in ["1", "2"] {
        let server = Launch::new(&["-t", shards]).prepare(without_io_uring).serve();
        let mut client = Client::connect(&server);
        client.set("k", b"v");
        assert_eq!(client.get("k").unwrap(), b"v");
        let shown = client.stats("")["io_backend"].clone();
        assert!(
            shown.starts_with("epoll") && shown.contains("io_uring") && shown.contains("not permitted"),
            "{shown}"
        );
        assert_eq!(client.stats("settings")["io_backend"], shown);
        let said = server.stderr();
        assert!(said.contains("epoll") && said.contains("not permitted"), "{said}");
    }
}

#[test]
fn io_uring_that_was_insisted_on_and_denied_is_an_error() {
    let exit = Launch::new(&["--io-backend=io_uring"]).prepare(without_io_uring).exit();
    assert_eq!(exit.code(), Some(71), "{}", exit.stderr);
    for part in ["--io-backend", "io_uring", "not permitted"] {
        assert!(exit.stderr.contains(part), "{}", exit.stderr);
    }
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
}

#[test]
fn an_idle_server_uses_no_cpu() {
    for &backend in Backend::all() {
        let server = Server::start_on(backend, 2, &[]);
        let mut clients: Vec<Client> = (0..50).map(|_| Client::connect(&server)).collect();
        for client in &mut clients {
            client.check("mn\r\n", "MN\r\n");
        }
        let ticks = || -> u64 {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
            let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        };
        // The time itself is what is looked at: two seconds in which nothing is asked.
        let (before, start) = (ticks(), std::time::Instant::now());
        crate::support::wait_until("two seconds to pass", || start.elapsed().as_secs() >= 2);
        let used = ticks() - before;
        println!("{backend:?}: {used} ticks of 10 ms in two seconds");
        assert!(used <= 10, "{backend:?}: {used} ticks of 10 ms in two seconds");
    }
}
