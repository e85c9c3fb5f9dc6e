use std::io::BufRead;
use std::net::TcpListener;
use std::sync::mpsc;

use super::*;

/// A folder that ends with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("corecached-spool-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn options(&self, replay_every: Duration) -> SpoolOptions {
        SpoolOptions { dir: self.0.clone(), make: true, replay_every }
    }

    fn lines(&self) -> Vec<String> {
        let text = |path: &PathBuf| fs::read_to_string(path).unwrap();
        files(&self.0)
            .iter()
            .flat_map(|path| text(path).lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn delete(port: u16, key: &str) -> Undelivered {
    let address = Address::Tcp { host: "127.0.0.1".into(), port };
    Undelivered { address, key: Bytes::copy_from_slice(key.as_bytes()) }
}

fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(20), "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A server of one connection after the other, which answers each line with the next of `replies` and says
/// what it got. It closes when there are no more.
fn server(replies: Vec<&'static str>) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (got, commands) = mpsc::channel();
    std::thread::spawn(move || {
        let mut replies = replies.into_iter();
        while replies.len() > 0 {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = io::BufReader::new(stream);
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|len| len > 0) {
                let _ = got.send(std::mem::take(&mut line));
                let Some(reply) = replies.next() else { break };
                lines.get_mut().write_all(reply.as_bytes()).unwrap();
            }
        }
    });
    (port, commands)
}

fn stopped() -> AtomicBool {
    AtomicBool::new(false)
}

#[test]
fn what_is_taken_is_on_disk_when_the_thread_ends() {
    let folder = Folder::new("taken");
    let (spool, spooler) = Spool::start(&folder.options(Duration::ZERO)).unwrap();
    for key in 0..1000 {
        assert!(spooler.take(delete(1, &format!("key{key}"))));
    }
    spool.stop();
    let lines = folder.lines();
    assert_eq!(lines.len(), 1000);
    assert!(lines[999].ends_with(r#","C",["127.0.0.1",1,"delete key999\r\n"]]"#), "{}", lines[999]);
}

#[test]
fn past_the_bounds_of_memory_and_disk_nothing_is_taken() {
    let (queue, _full) = bounded(2);
    let state = Arc::new(SpoolState { takes: AtomicBool::new(true), stopping: stopped() });
    let spooler = Spooler { queue, state: Arc::clone(&state) };
    let taken: Vec<bool> = (0..3).map(|_| spooler.take(delete(1, "k"))).collect();
    assert_eq!(taken, [true, true, false]);
    state.takes.store(false, Ordering::Relaxed);
    assert!(!spooler.take(delete(1, "k")));

    let folder = Folder::new("bounds");
    fs::create_dir_all(folder.0.join("20200101T00")).unwrap();
    let large = File::create(folder.0.join("20200101T00/20200101T0000-others")).unwrap();
    large.set_len(FOLDER_BYTES_MAX).unwrap();
    let (spool, spooler) = Spool::start(&folder.options(Duration::ZERO)).unwrap();
    assert!(!spooler.take(delete(1, "k")));
    spool.stop();
}

#[test]
fn what_the_disk_does_not_take_is_tried_again_and_more_is_refused() {
    let folder = Folder::new("disk");
    let (spool, spooler) = Spool::start(&folder.options(Duration::ZERO)).unwrap();
    fs::remove_dir_all(&folder.0).unwrap();
    fs::write(&folder.0, "in the way").unwrap();
    assert!(spooler.take(delete(1, "first")));
    wait_until("the failure to be noticed", || !spooler.take(delete(1, "more")));
    fs::remove_file(&folder.0).unwrap();
    wait_until("the disk to be tried again", || spooler.take(delete(1, "last")));
    spool.stop();
    let lines = folder.lines();
    assert!(lines[0].contains("delete first") && lines.last().unwrap().contains("delete last"), "{lines:?}");
}

#[test]
fn a_folder_that_was_not_asked_for_is_not_made() {
    let folder = Folder::new("default");
    let options = SpoolOptions { make: false, ..folder.options(Duration::ZERO) };
    assert_eq!(Spool::start(&options).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn replay_delivers_what_it_can_and_keeps_the_rest() {
    let folder = Folder::new("replay");
    let (port, commands) = server(vec!["DELETED\r\n", "NOT_FOUND\r\n", "SERVER_ERROR busy\r\n", "HD\r\n"]);
    // Bound, and nobody accepts: what is sent there is never answered.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let (spool, spooler) = Spool::start(&folder.options(Duration::ZERO)).unwrap();
    for (port, key) in [(port, "a"), (silent_port, "s"), (port, "b"), (port, "c"), (port, "d d")] {
        assert!(spooler.take(delete(port, key)));
    }
    spool.stop();
    let file = files(&folder.0).pop().unwrap();
    let mut text = fs::read_to_string(&file).unwrap();
    text.push_str("[\"AS1.0\",1,\"C\",[\"127.0.0.1\",1,\"flush_all\\r\\n\"]]\n");
    fs::write(&file, text).unwrap();

    // A file that is being written is left alone.
    let writing = File::open(&file).unwrap();
    writing.try_lock().unwrap();
    assert_eq!(
        replay::replay(&folder.0, Duration::from_millis(200), &stopped()),
        replay::ReplayOutcome::default()
    );
    drop(writing);

    let outcome = replay::replay(&folder.0, Duration::from_millis(200), &stopped());
    assert_eq!(outcome, replay::ReplayOutcome { delivered: 3, kept: 2, unreadable: 1 });
    let got: Vec<String> = commands.try_iter().collect();
    assert_eq!(got, ["delete a\r\n", "delete b\r\n", "delete c\r\n", "md ZCBk b\r\n"]);
    let lines = folder.lines();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].contains("delete s") && lines[1].contains("delete c"), "{lines:?}");
    assert!(lines[2].contains("flush_all"), "{lines:?}");

    // The server is gone, and nobody else answers: all stays as it is.
    let outcome = replay::replay(&folder.0, Duration::from_millis(200), &stopped());
    assert_eq!(outcome, replay::ReplayOutcome { delivered: 0, kept: 2, unreadable: 0 });
    assert_eq!(folder.lines(), lines);
}

#[test]
fn the_thread_sends_again_what_it_wrote() {
    let folder = Folder::new("again");
    let (port, commands) = server(vec!["SERVER_ERROR not yet\r\n", "DELETED\r\n"]);
    let (spool, spooler) = Spool::start(&folder.options(Duration::from_millis(20))).unwrap();
    assert!(spooler.take(delete(port, "k")));
    for _ in 0..2 {
        assert_eq!(commands.recv().unwrap(), "delete k\r\n");
    }
    // Folders without files are removed.
    wait_until("the folder to be empty", || fs::read_dir(&folder.0).unwrap().count() == 0);
    spool.stop();
}

#[test]
fn files_of_others_are_left_alone() {
    let folder = Folder::new("others");
    let text = "no delete\n[\"AS1.0\",1.5,\"C\",[\"127.0.0.1\",1,\"delete k\\r\\n\"]]";
    let spooled = text.lines().last().unwrap();
    let paths = [
        ("notes", text),
        ("project/main", text),
        ("project/20200101T0000-1", spooled),
        ("20200101T00/notes", spooled),
        ("20200101T00/20200101T0000-1", text),
        ("20200101T00/20200101T0015-1.part", "no delete"),
    ];
    for (path, text) in paths {
        let path = folder.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let outcome = replay::replay(&folder.0, Duration::from_millis(100), &stopped());
    assert_eq!(outcome, replay::ReplayOutcome::default());
    for (path, text) in paths {
        assert_eq!(fs::read_to_string(folder.0.join(path)).unwrap(), text, "{path}");
    }
}
