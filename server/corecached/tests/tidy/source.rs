//! Rust files: their length, their structs, and `unsafe`.

use super::{files, nothing_of, read, root, shown};

/// Most lines of one file. A longer file has a second subject.
const LINES_MAX: usize = 900;

/// Most fields of a struct, but for those that hold what a user may set: `...Args` and `...Config`.
const FIELDS_MAX: usize = 20;

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

/// The names and the number of fields of the structs in `text`, which is formatted by rustfmt.
fn structs(text: &str) -> Vec<(&str, usize)> {
    let mut found: Vec<(&str, usize)> = Vec::new();
    let mut indent = None;
    for line in text.lines() {
        let code = line.trim_start();
        let depth = line.len() - code.len();
        let words: Vec<&str> = code.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let name = words.iter().position(|word| *word == "struct").and_then(|at| words.get(at + 1));
        match (indent, name) {
            (None, Some(name)) if code.ends_with('{') && !code.starts_with("//") => {
                found.push((*name, 0));
                indent = Some(depth);
            }
            (Some(outer), _) if depth == outer && code.starts_with('}') => indent = None,
            (Some(outer), _) if depth == outer + 4 && !code.starts_with(['/', '#']) => {
                if let Some((_, fields)) = found.last_mut() {
                    *fields += usize::from(code.contains(": "));
                }
            }
            _ => {}
        }
    }
    found
}

#[test]
fn fields_are_counted() {
    let text = "pub struct A<T> {\n    /// B: c.\n    b: T,\n    pub(crate) c: [u8; 4],\n}\nstruct D(u8);\n\
                mod e {\n    struct F {\n        g: u8,\n    }\n}\n";
    assert_eq!(structs(text), [("A", 2), ("F", 1)]);
}

#[test]
fn a_struct_has_one_subject() {
    let mut wrong = Vec::new();
    for path in files(&root(), ".rs") {
        let text = read(&path);
        for (name, fields) in structs(&text) {
            if fields > FIELDS_MAX && !name.ends_with("Args") && !name.ends_with("Config") {
                wrong.push(format!("{}: {name} has {fields} fields", shown(&path)));
            }
        }
    }
    nothing_of(
        &wrong,
        &format!("At most {FIELDS_MAX} fields: make a struct of those that are used together."),
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
