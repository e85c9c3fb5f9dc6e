//! CPU time, memory and threads of a process, and the process that listens on a port, read from /proc.

use std::fs;

/// Clock ticks a second in /proc (USER_HZ, the same on every Linux architecture supported here).
const TICKS_PER_S: u64 = 100;

/// Returns the CPU time of all current threads in nanoseconds: the sum of their schedstat, or user and system
/// time where the kernel keeps no schedstat. 0 when the process does not exist. The time of threads that have
/// ended is not included, so the sum may fall.
#[must_use]
pub fn cpu_ns(pid: u32) -> u64 {
    let precise: u64 = threads(pid)
        .filter_map(|task| fs::read_to_string(format!("/proc/{pid}/task/{task}/schedstat")).ok())
        .filter_map(|text| text.split_ascii_whitespace().next()?.parse::<u64>().ok())
        .sum();
    if precise > 0 { precise } else { ticks(pid).unwrap_or(0) * (1_000_000_000 / TICKS_PER_S) }
}

fn ticks(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Fields 14 and 15. The name, field 2, may hold blanks, so fields are counted from the end of the name.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Returns the resident memory in bytes; `None` when the process does not exist.
#[must_use]
pub fn rss_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmRSS:")
}

/// Returns the highest resident memory that the process ever had, in bytes.
#[must_use]
pub fn peak_rss_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmHWM:")
}

fn status_bytes(pid: u32, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Lists the thread ids of a process.
pub fn threads(pid: u32) -> impl Iterator<Item = u32> {
    fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Returns the name of a thread; empty when the thread does not exist.
#[must_use]
pub fn thread_name(pid: u32, task: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/task/{task}/comm")).unwrap_or_default().trim().to_owned()
}

/// Finds the process that listens on this TCP port of this machine, if this user may see it.
#[must_use]
pub fn listening_on(port: u16) -> Option<u32> {
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| {
            let inodes = text.lines().filter_map(|line| listener_inode(line, port));
            inodes.map(|inode| format!("socket:[{inode}]")).collect::<Vec<_>>()
        })
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
    })
}

/// Returns the inode in a line of /proc/net/tcp if that socket listens on `port`.
fn listener_inode(line: &str, port: u16) -> Option<&str> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = fields.next()?;
    let state = fields.nth(1)?;
    let matches = state == LISTEN && u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()? == port;
    if matches { fields.nth(5) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_threads_and_used_time() {
        let me = std::process::id();
        assert!(rss_bytes(me).unwrap() > 100 << 10);
        assert!(threads(me).any(|task| task == me));
        assert!(cpu_ns(me) > 0); // of the threads there are now: it may fall when one ends
    }

    #[test]
    fn the_listener_of_a_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listening_on(port), Some(std::process::id()));
        drop(listener);
        assert_eq!(listening_on(port), None);
    }
}
