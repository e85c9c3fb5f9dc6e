//! An API server of Kubernetes for one test. It has EndpointSlices, and answers lists and watches of them
//! over TLS byte for byte as a kube-apiserver does: the texts in this file were recorded from one.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{Authority, Folder, Launch};

/// The path that lists and watches of the Service's slices ask for.
const RESOURCE: &str = "/apis/discovery.k8s.io/v1/namespaces/n/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dcache";
const HEAD: &str = "Cache-Control: no-cache, private\r\nContent-Type: application/json\r\nDate: Sat, 28 Nov 2026 09:14:16 GMT\r\n";
/// The text before the version in the JSON of a slice.
const VERSION: &str = r#""resourceVersion":""#;
/// Longest body, bytes, that is sent with its length. Longer ones are sent in chunks.
const UNCHUNKED_BYTES_MAX: usize = 2048;
/// The account of the proxy, as refusals name it.
const ACCOUNT: &str = "system:serviceaccount:n:proxy";

/// An endpoint of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// Its host in 127.0.0.0/24.
    pub host: u8,
    /// The name of its pod.
    pub name: &'static str,
    /// Its conditions.
    pub state: EndpointState,
}

/// The conditions of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// It takes requests.
    Ready,
    /// It takes no requests yet, or no longer.
    Unready,
    /// It is terminating; `serving` says whether it still takes requests.
    Ending { serving: bool },
}

/// A running API server, with the service account of the proxy in its folder.
pub struct Cluster {
    shared: Arc<Shared>,
    address: SocketAddr,
    folder: Folder,
    config: Arc<ServerConfig>,
    listening: Option<(JoinHandle<()>, TcpListener)>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<Known>,
    changed: Condvar,
}

#[derive(Default)]
struct Known {
    /// The slices as JSON, by name.
    slices: BTreeMap<String, String>,
    version: u64,
    /// Events with the version of each. Events up to `oldest` are forgotten.
    events: Vec<(u64, String)>,
    oldest: u64,
    /// The token that is accepted.
    token: String,
    /// Whether the account may read EndpointSlices.
    permits: bool,
    /// Watches with a number below this end.
    ends_before: u64,
    watches: u64,
    lists: usize,
    watching: usize,
    away: bool,
    streams: Vec<TcpStream>,
}

impl Cluster {
    /// Starts a server that has no slice and permits everything.
    pub fn start() -> Self {
        let authority = Authority::new();
        let identity = authority.sign();
        let key = PrivateKeyDer::try_from(identity.key_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![identity.certificate], key)
            .unwrap();
        let folder = Folder::new();
        std::fs::write(folder.file("ca.crt"), authority.pem()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let known = Known { version: 1, permits: true, ..Known::default() };
        let shared = Arc::new(Shared { state: Mutex::new(known), changed: Condvar::new() });
        let mut cluster = Self { shared, address, folder, config: Arc::new(config), listening: None };
        cluster.rotate_token("the-first-token");
        cluster.listen(listener);
        cluster
    }

    /// Adds to `launch` of a proxy what it needs to reach this server.
    pub fn reached_by(&self, launch: Launch) -> Launch {
        launch
            .env("KUBERNETES_SERVICE_HOST", "localhost")
            .env("KUBERNETES_SERVICE_PORT", &self.address.port().to_string())
            .args(&["--service-account", self.folder.path().to_str().unwrap()])
    }

    /// Adds or replaces a slice with these endpoints.
    pub fn put(&self, name: &str, endpoints: &[Endpoint]) {
        self.change(|known| {
            let is_new = known.slices.insert(name.to_owned(), slice(name, known.version, endpoints));
            let kind = if is_new.is_some() { "MODIFIED" } else { "ADDED" };
            (kind, known.slices[name].clone())
        });
    }

    /// Removes a slice.
    pub fn remove(&self, name: &str) {
        self.change(|known| {
            // The event has the last state of the slice, with the new version.
            let last = known.slices.remove(name).unwrap();
            let (head, rest) = last.split_once(VERSION).unwrap();
            let (_, tail) = rest.split_once('"').unwrap();
            ("DELETED", format!("{head}{VERSION}{}\"{tail}", known.version))
        });
    }

    /// Sends a bookmark: the current version without a change.
    pub fn bookmark(&self) {
        self.change(|known| {
            let object = format!(
                r#"{{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{{"resourceVersion":"{}","creationTimestamp":null}},"addressType":"","endpoints":null,"ports":null}}"#,
                known.version
            );
            ("BOOKMARK", object)
        });
    }

    /// Forgets all events, so that no watch can begin from an earlier version.
    pub fn forget(&self) {
        let mut known = self.state();
        known.version += 1;
        known.oldest = known.version;
        known.events.clear();
    }

    /// Ends all watches, as the server does when their time is over.
    pub fn end_watches(&self) {
        let mut known = self.state();
        known.ends_before = known.watches;
        drop(known);
        self.shared.changed.notify_all();
    }

    /// Sets whether the account may read EndpointSlices. It is checked when a list or a watch begins.
    pub fn permit(&self, permits: bool) {
        self.state().permits = permits;
    }

    /// Replaces the token of the account, also in its folder.
    pub fn rotate_token(&self, token: &str) {
        self.accept_token(token);
        std::fs::write(self.folder.file("token"), token).unwrap();
    }

    /// Accepts this token only.
    pub fn accept_token(&self, token: &str) {
        token.clone_into(&mut self.state().token);
    }

    /// Count of lists that were answered.
    pub fn lists(&self) -> usize {
        self.state().lists
    }

    /// Count of watches under way.
    pub fn watching(&self) -> usize {
        self.state().watching
    }

    /// Stops the server as if its machine was restarted: connections are cut.
    pub fn vanish(&mut self) {
        let mut known = self.state();
        known.away = true;
        for stream in known.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(known);
        self.shared.changed.notify_all();
        if let Some((thread, listener)) = self.listening.take() {
            // The thread sleeps in `accept`.
            let _ = TcpStream::connect(self.address);
            thread.join().unwrap();
            drop(listener);
        }
    }

    /// Starts the server again, at the same address.
    pub fn come_back(&mut self) {
        self.state().away = false;
        self.listen(TcpListener::bind(self.address).unwrap());
    }

    fn state(&self) -> MutexGuard<'_, Known> {
        self.shared.state.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut Known) -> (&'static str, String)) {
        let mut known = self.state();
        known.version += 1;
        let (kind, object) = change(&mut known);
        let (version, event) = (known.version, format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n"));
        known.events.push((version, event));
        drop(known);
        self.shared.changed.notify_all();
    }

    fn listen(&mut self, listener: TcpListener) {
        let (shared, config) = (Arc::clone(&self.shared), Arc::clone(&self.config));
        let accepting = listener.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            for stream in accepting.incoming().map_while(Result::ok) {
                let mut known = shared.state.lock().unwrap();
                if known.away {
                    return;
                }
                known.streams.push(stream.try_clone().unwrap());
                drop(known);
                let (shared, config) = (Arc::clone(&shared), Arc::clone(&config));
                // A connection that ends early was ended by the test.
                std::thread::spawn(move || {
                    let secure = ServerConnection::new(config).unwrap();
                    answer(StreamOwned::new(secure, stream), &shared)
                });
            }
        });
        self.listening = Some((thread, listener));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.vanish();
    }
}

type Secured = StreamOwned<ServerConnection, TcpStream>;

fn answer(mut stream: Secured, shared: &Shared) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()).unwrap();
    let query = path.strip_prefix(RESOURCE).unwrap_or_else(|| panic!("{path} is asked for"));
    let watched = query.contains("&watch=1&");
    let mut known = shared.state.lock().unwrap();
    let token = head
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("authorization: bearer ").map(str::to_owned));
    if token.as_deref() != Some(&known.token) {
        drop(known);
        return refuse(&mut stream, "401 Unauthorized", "Unauthorized", "Unauthorized");
    }
    if !known.permits {
        drop(known);
        let verb = if watched { "watch" } else { "list" };
        let message = format!(
            r#"endpointslices.discovery.k8s.io is forbidden: User \"{ACCOUNT}\" cannot {verb} resource \"endpointslices\" in API group \"discovery.k8s.io\" in the namespace \"n\""#
        );
        return refuse(&mut stream, "403 Forbidden", &message, "Forbidden");
    }
    if !watched {
        known.lists += 1;
        let items = known.slices.values().map(|slice| {
            // The items of a list have no kind and version.
            slice.replacen(r#""kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","#, "", 1)
        });
        let list = format!(
            r#"{{"kind":"EndpointSliceList","apiVersion":"discovery.k8s.io/v1","metadata":{{"resourceVersion":"{}"}},"items":[{}]}}"#,
            known.version,
            items.collect::<Vec<_>>().join(",")
        );
        drop(known);
        let list = list + "\n";
        if list.len() <= UNCHUNKED_BYTES_MAX {
            write!(stream, "HTTP/1.1 200 OK\r\n{HEAD}Content-Length: {}\r\n\r\n{list}", list.len())?;
            return stream.flush();
        }
        write!(stream, "HTTP/1.1 200 OK\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n")?;
        chunk(&mut stream, &list)?;
        return end(&mut stream);
    }
    let from = query.split("resourceVersion=").nth(1).and_then(|rest| rest.split('&').next()).unwrap();
    let mut from: u64 = from.parse().unwrap();
    let number = known.watches;
    known.watches += 1;
    known.watching += 1;
    drop(known);
    let outcome = watch(&mut stream, shared, &mut from, number);
    shared.state.lock().unwrap().watching -= 1;
    outcome
}

fn watch(stream: &mut Secured, shared: &Shared, from: &mut u64, number: u64) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n")?;
    stream.flush()?;
    let oldest = shared.state.lock().unwrap().oldest;
    if *from < oldest {
        let gone = format!(
            r#"{{"type":"ERROR","object":{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"too old resource version: {from} ({oldest})","reason":"Expired","code":410}}}}"#,
        );
        chunk(stream, &(gone + "\n"))?;
        return end(stream);
    }
    loop {
        let mut known = shared.state.lock().unwrap();
        let news = loop {
            if known.away || number < known.ends_before {
                drop(known);
                return end(stream);
            }
            let news: Vec<String> =
                known.events.iter().filter(|(at, _)| at > from).map(|(_, event)| event.clone()).collect();
            if !news.is_empty() {
                *from = known.version;
                break news;
            }
            known = shared.changed.wait(known).unwrap();
        };
        drop(known);
        for event in news {
            chunk(stream, &event)?;
        }
    }
}

fn chunk(stream: &mut Secured, text: &str) -> std::io::Result<()> {
    write!(stream, "{:x}\r\n{text}\r\n", text.len())?;
    stream.flush()
}

fn end(stream: &mut Secured) -> std::io::Result<()> {
    write!(stream, "0\r\n\r\n")?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn refuse(stream: &mut Secured, status: &str, message: &str, reason: &str) -> std::io::Result<()> {
    let code = &status[..3];
    let body = format!(
        "{{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{{}},\"status\":\"Failure\",\"message\":\"{message}\",\"reason\":\"{reason}\",\"code\":{code}}}\n"
    );
    write!(stream, "HTTP/1.1 {status}\r\n{HEAD}Content-Length: {}\r\n\r\n{body}", body.len())?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn slice(name: &str, version: u64, endpoints: &[Endpoint]) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(Endpoint::json).collect();
    let endpoints =
        if endpoints.is_empty() { "null".to_owned() } else { format!("[{}]", endpoints.join(",")) };
    format!(
        r#"{{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{{"name":"{name}","generateName":"cache-","namespace":"n","uid":"1479f3cd-9859-4b35-8b57-66a7210d6c32","resourceVersion":"{version}","generation":1,"creationTimestamp":"2026-11-28T09:10:11Z","labels":{{"endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io","kubernetes.io/service-name":"cache","service.kubernetes.io/headless":""}}}},"addressType":"IPv4","endpoints":{endpoints},"ports":[{{"name":"memcache","protocol":"TCP","port":11211}}]}}"#
    )
}

impl Endpoint {
    fn json(&self) -> String {
        let conditions = match self.state {
            EndpointState::Ready => r#"{"ready":true,"serving":true,"terminating":false}"#.to_owned(),
            EndpointState::Unready => r#"{"ready":false,"serving":false,"terminating":false}"#.to_owned(),
            EndpointState::Ending { serving } => {
                format!(r#"{{"ready":false,"serving":{serving},"terminating":true}}"#)
            }
        };
        format!(
            r#"{{"addresses":["127.0.0.{}"],"conditions":{conditions},"hostname":"{1}","targetRef":{{"kind":"Pod","namespace":"n","name":"{1}","uid":"24641599-1909-489b-8293-758023c342eb","resourceVersion":"7"}},"nodeName":"node-0"}}"#,
            self.host, self.name
        )
    }
}
