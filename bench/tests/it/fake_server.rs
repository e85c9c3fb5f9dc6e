//! A small text and meta server with one thread for each connection, which can be told to be faulty.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use corecached_bench::load::Target;

/// The fault of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No fault.
    None,
    /// Every tenth value is that of the previously requested key.
    OtherKey,
    /// Every tenth value has a changed byte.
    ChangedByte,
    /// Every tenth value lacks its last byte.
    Short,
    /// The second half of every value comes from the first version of its key.
    Torn,
    /// Only the first write of a key takes effect.
    KeepsFirst,
    /// Every tenth item is forgotten.
    Forgets,
    /// Every tenth get is answered with a line that means nothing.
    Garbles,
    /// Every tenth set is refused.
    Refuses,
    /// Every tenth get ends the connection.
    HangsUp,
}

struct Shared {
    fault: Fault,
    values: Mutex<HashMap<Vec<u8>, Versions>>,
    last: Mutex<Vec<u8>>,
    requests: AtomicUsize,
    connections: AtomicUsize,
    /// The server stops while this is locked for writing.
    running: RwLock<()>,
}

#[derive(Clone)]
struct Versions {
    first: Vec<u8>,
    now: Vec<u8>,
}

/// A server on a free port. Its threads end with the process.
pub struct FakeServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl FakeServer {
    pub fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            fault,
            values: Mutex::default(),
            last: Mutex::default(),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            running: RwLock::new(()),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                accepting.connections.fetch_add(1, Ordering::Relaxed);
                let shared = Arc::clone(&accepting);
                thread::spawn(move || shared.serve(stream));
            }
        });
        Self { address, shared }
    }

    pub fn target(&self) -> Target {
        Target::Tcp(self.address)
    }

    /// Returns the number of connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Stops replies for `duration`, beginning after `delay`.
    pub fn stop_for(&self, delay: Duration, duration: Duration) {
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || {
            thread::sleep(delay);
            let _stopped = shared.running.write().unwrap_or_else(PoisonError::into_inner);
            thread::sleep(duration);
        });
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut output = stream.try_clone().unwrap();
        let mut input = BufReader::new(stream);
        let (mut line, mut replies) = (Vec::new(), Vec::new());
        loop {
            line.clear();
            if !matches!(input.read_until(b'\n', &mut line), Ok(count) if count > 0) {
                return;
            }
            let words: Vec<&[u8]> = line.trim_ascii_end().split(|&byte| byte == b' ').collect();
            let _running = self.running.read().unwrap_or_else(PoisonError::into_inner);
            let goes_on = match words[0] {
                b"get" => {
                    let goes_on = words[1..].iter().all(|key| self.get(key, None, &mut replies));
                    replies.extend_from_slice(b"END\r\n");
                    goes_on
                }
                b"mg" => self.get(words[1], Some(&words[2..]), &mut replies),
                b"mn" => {
                    replies.extend_from_slice(b"MN\r\n");
                    true
                }
                b"set" | b"ms" => self.set(&words, &mut input, &mut replies),
                _ => {
                    replies.extend_from_slice(b"ERROR\r\n");
                    true
                }
            };
            if !goes_on {
                return;
            }
            if input.buffer().is_empty() {
                if output.write_all(&replies).is_err() {
                    return;
                }
                replies.clear();
            }
        }
    }

    /// Appends the reply to a get, or to an mg with the flags in `meta`. Returns false to close the
    /// connection.
    fn get(&self, key: &[u8], meta: Option<&[&[u8]]>, replies: &mut Vec<u8>) -> bool {
        let tenth = self.requests.fetch_add(1, Ordering::Relaxed) % 10 == 9;
        let found = self.values.lock().unwrap().get(key).cloned();
        let before = std::mem::replace(&mut *self.last.lock().unwrap(), key.to_vec());
        let has = |flag: &[u8]| meta.is_some_and(|flags| flags.contains(&flag));
        match self.fault {
            Fault::HangsUp if tenth => return false,
            Fault::Garbles if tenth => {
                replies.extend_from_slice(b"WHAT\r\n");
                return true;
            }
            _ => {}
        }
        let Some(Versions { first, now: mut value }) =
            found.filter(|_| self.fault != Fault::Forgets || !tenth)
        else {
            if meta.is_some() && !has(b"q") {
                replies.extend_from_slice(b"EN\r\n");
            }
            return true;
        };
        match self.fault {
            Fault::OtherKey if tenth => {
                if let Some(other) = self.values.lock().unwrap().get(&before) {
                    value.clone_from(&other.now);
                }
            }
            Fault::ChangedByte if tenth => value[50] ^= 1,
            Fault::Short if tenth => drop(value.pop()),
            Fault::Torn => value[50..].copy_from_slice(&first[50..]),
            Fault::KeepsFirst => value = first,
            _ => {}
        }
        let text = match meta {
            None => format!("VALUE {} 0 {}\r\n", String::from_utf8_lossy(key), value.len()),
            Some(_) if has(b"k") => format!("VA {} k{}\r\n", value.len(), String::from_utf8_lossy(key)),
            Some(_) => format!("VA {}\r\n", value.len()),
        };
        replies.extend_from_slice(text.as_bytes());
        replies.extend_from_slice(&value);
        replies.extend_from_slice(b"\r\n");
        true
    }

    fn set(&self, words: &[&[u8]], input: &mut impl Read, replies: &mut Vec<u8>) -> bool {
        let tenth = self.requests.fetch_add(1, Ordering::Relaxed) % 10 == 9;
        let is_meta = words[0] == b"ms";
        let len = std::str::from_utf8(words[if is_meta { 2 } else { 4 }]).unwrap().parse::<usize>().unwrap();
        let mut value = vec![0; len + 2];
        if input.read_exact(&mut value).is_err() {
            return false;
        }
        assert_eq!(&value[len..], b"\r\n");
        value.truncate(len);
        if self.fault == Fault::Refuses && tenth {
            replies.extend_from_slice(b"SERVER_ERROR out of memory storing object\r\n");
            return true;
        }
        let mut values = self.values.lock().unwrap();
        let first = values.get(words[1]).map_or_else(|| value.clone(), |versions| versions.first.clone());
        values.insert(words[1].to_vec(), Versions { first, now: value });
        replies.extend_from_slice(if is_meta { b"HD\r\n" } else { b"STORED\r\n" });
        true
    }
}
