//! Rust files: their length, and `unsafe`.

use super::{files, nothing_of, read, root, shown};

/// Most lines of one file. A longer file has a second subject.
const LINES_MAX: usize = 900;

/// The files and folders in which `unsafe` may be written, and what for.
const UNSAFE: &[(&str, &str)] = &[
    ("engine/src/arena.rs", "memory of the arena"),
    ("engine/src/index/line.rs", "lines of the index, by vector instructions"),
    ("engine/src/index/lines.rs", "memory of the index, and prefetching"),
    ("engine/examples/", "counting allocations and page faults of a measurement"),
    ("server/net/src/buffer_ring.rs", "buffers shared with the kernel"),
    ("server/net/src/uring.rs", "entries of io_uring that point to memory"),
    ("server/net/src/uring/", "entries of io_uring that point to memory"),
    ("server/net/src/granted.rs", "a ring that is set up to see whether the kernel allows it"),
    ("server/shard/src/mesh/slice.rs", "slices that one shard at a time may use"),
    ("server/shard/src/mesh/spsc.rs", "slots of a channel with one producer and one consumer"),
    ("server/shard/loom/src/", "models of the two atomics"),
    ("server/shard/src/host_glommio.rs", "a descriptor that glommio awaits"),
    ("server/corecached/tests/it/backend.rs", "a system call filter of a child process"),
    (
        "server/corecached/tests/it/support/server.rs",
        "work between fork and exec, and a ring to see whether it is allowed",
    ),
    ("bench/", "pinning, and counting of child processes"),
];

#[test]
fn no_file_is_longer_than_a_reader_has_patience() {
    let mut wrong = Vec::new();
    for path in files(&root(), ".rs") {
        let lines = read(&path).lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{}: {lines} lines", shown(&path)));
        }
    }
    nothing_of(
        &wrong,
        &format!("At most {LINES_MAX} lines: move a subject of its own to a file of its own."),
    );
}

#[test]
fn unsafe_code_is_where_it_is_expected() {
    let mut wrong = Vec::new();
    for path in files(&root(), ".rs") {
        let name = shown(&path);
        if UNSAFE.iter().any(|(place, _)| name.starts_with(place)) || name.contains("/tests/tidy/") {
            continue;
        }
        for (number, line) in read(&path).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').any(|word| word == "unsafe")
            {
                wrong.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    nothing_of(
        &wrong,
        "Do it with safe code, or with a well-kept crate. Where neither can do it, add the file to UNSAFE in \
         tests/tidy/source.rs with the reason, and a proof (SAFETY) to each block.",
    );
}

#[test]
fn every_place_for_unsafe_code_is_one() {
    let unused = |(place, _): &&(&str, &str)| {
        let holds =
            |path: &std::path::PathBuf| shown(path).starts_with(place) && read(path).contains("unsafe");
        !files(&root(), ".rs").iter().any(holds)
    };
    let unused: Vec<String> = UNSAFE.iter().filter(unused).map(|(place, _)| (*place).to_owned()).collect();
    nothing_of(
        &unused,
        "No unsafe code is left there: take the entry out of UNSAFE in tests/tidy/source.rs.",
    );
}
