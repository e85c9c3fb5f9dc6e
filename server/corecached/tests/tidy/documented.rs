//! What a user can set stands in the documentation.

use clap::CommandFactory;
use corecached_cache::config::{CacheArgs, suboption_names};
use corecached_proxy::ProxyArgs;

use super::{nothing_of, read, root};

/// What of `names` the page does not have as `` `name` ``.
fn missing(page: &str, names: impl IntoIterator<Item = String>) -> Vec<String> {
    let text = read(&root().join("server/docs").join(page));
    let is_missing = |name: &String| !text.contains(&format!("`{name}`")) && !text.contains(&format!("`{name} "));
    names.into_iter().filter(is_missing).map(|name| format!("server/docs/{page}: {name}")).collect()
}

fn flags(command: &clap::Command) -> Vec<String> {
    let options = command.get_arguments().filter(|argument| argument.get_id() != "help");
    options
        .filter_map(|argument| match (argument.get_long(), argument.get_short()) {
            (Some(long), _) => Some(format!("--{long}")),
            (None, Some(short)) => Some(format!("-{short}")),
            (None, None) => None,
        })
        .collect()
}

#[test]
fn every_flag_and_suboption_stands_in_the_documentation() {
    let mut wrong = missing("flags.md", flags(&CacheArgs::command()));
    wrong.extend(missing("flags.md", flags(&ProxyArgs::command())));
    wrong.extend(missing("flags.md", suboption_names().map(str::to_owned)));
    nothing_of(&wrong, "Write a line on each of them into the page: what it sets, its unit, its default.");
}
