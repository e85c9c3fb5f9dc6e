//! Words: comments and prose are whole sentences in standard terms.

use super::{files, nothing_of, read, root, shown};

/// Comments without content, and words that have been replaced by others, with the remedy.
const FORBIDDEN: &[(&str, &str)] = &[
    ("See the head of the file", "say in one sentence what the item is"),
    ("See the top of the file", "say in one sentence what the item is"),
    ("/// Which.", "say what it names"),
    ("/// Which one.", "say what it names"),
    ("/// What it is.", "say it"),
    ("/// Whose.", "say what it belongs to"),
    ("/// Who.", "say what it is"),
    ("/// What.", "say what it is"),
    ("/// From whom.", "say where it comes from"),
    ("/// To whom.", "say where it goes"),
    ("/// Of what it is.", "say what it is"),
    ("/// Never in practice", "say what makes it fail, or return no error"),
    ("/// The same.", "say what is the same, and what differs"),
    ("core-aware cache", "the option is gone"),
    ("oftening", "write error downgrade"),
];

#[test]
fn comments_say_something_in_the_words_of_the_field() {
    let mut wrong = Vec::new();
    let suffixes = [".rs", ".md", ".py"];
    for path in suffixes.iter().flat_map(|suffix| files(&root(), suffix)) {
        let name = shown(&path);
        if name.contains("tests/tidy/") {
            continue;
        }
        for (number, line) in read(&path).lines().enumerate() {
            for (word, mend) in FORBIDDEN {
                if line.contains(word) {
                    wrong.push(format!("{name}:{}: {word:?}: {mend}", number + 1));
                }
            }
        }
    }
    nothing_of(&wrong, "A comment says what the code cannot, in a whole sentence; else it goes.");
}

#[test]
fn constructors_are_not_called_of() {
    let mut wrong = Vec::new();
    for path in files(&root(), ".rs") {
        let text = read(&path);
        for name in ["fn of(", "fn of<"] {
            for (at, _) in text.match_indices(name) {
                let signature = text[at..].split(['{', ';']).next().unwrap_or_default();
                let result = signature.split_once("->").map_or("", |(_, result)| result);
                if result.contains("Self") {
                    let line = text[..at].lines().count();
                    wrong.push(format!("{}:{line}: {}", shown(&path), signature.trim()));
                }
            }
        }
    }
    nothing_of(
        &wrong,
        "Call a constructor `new`, `from_x` if it converts an x, `parse` if it reads text and may fail, `with_x` if it \
         takes an option more than `new`.",
    );
}
