//! The choice of the backend: io_uring where the kernel allows it, else epoll, which is reported.

use crate::support::{Backend, Client, Launch, Server};

/// The filter's result that makes a system call fail with EPERM, as container runtimes do.
const DENY: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

/// Denies `io_uring_setup` to this process and to the program that it executes. It only makes system calls.
fn without_io_uring() -> std::io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(LOAD, 0, 0, 0), // the number of the system call is the first word of the data of a filter
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

/// Adds to `launch` that the server may not use io_uring.
fn denied_io_uring(launch: Launch) -> Launch {
    // SAFETY: `without_io_uring` only makes system calls.
    unsafe { launch.prepare(without_io_uring) }
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
        let server = denied_io_uring(Launch::new(&["-t", shards])).serve();
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
    let exit = denied_io_uring(Launch::new(&["--io-backend=io_uring"])).exit();
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
        // The CPU time of two seconds without requests.
        let (before, start) = (ticks(), std::time::Instant::now());
        crate::support::wait_until("two seconds to pass", || start.elapsed().as_secs() >= 2);
        let used = ticks() - before;
        println!("{backend:?}: {used} ticks of 10 ms in two seconds");
        assert!(used <= 10, "{backend:?}: {used} ticks of 10 ms in two seconds");
    }
}
