//! The page for clients that do not take OpenMetrics: the text format of Prometheus, version 0.0.4. It is
//! made from the OpenMetrics page. For these metrics the formats differ in two things: OpenMetrics describes
//! a counter under its name without `_total`, this format with it; and OpenMetrics ends with `# EOF`.

/// The media type of the page in this format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Converts a page from OpenMetrics to the text format.
pub(crate) fn classic(page: &str) -> String {
    let mut out = String::with_capacity(page.len() + page.len() / 16);
    let mut lines = page.lines().peekable();
    let mut is_counter = false;
    while let Some(line) = lines.next() {
        let described = |prefix| line.strip_prefix(prefix).and_then(|rest: &str| rest.split_once(' '));
        if let Some((name, rest)) = described("# HELP ") {
            // The type is on the next line.
            is_counter = lines.peek().is_some_and(|next| next.ends_with(" counter"));
            put(&mut out, &["# HELP ", name, suffix(is_counter), " ", rest]);
        } else if let Some((name, rest)) = described("# TYPE ") {
            put(&mut out, &["# TYPE ", name, suffix(is_counter), " ", rest]);
        } else if line != "# EOF" {
            put(&mut out, &[line]);
        }
    }
    out
}

fn suffix(is_counter: bool) -> &'static str {
    if is_counter { "_total" } else { "" }
}

fn put(out: &mut String, parts: &[&str]) {
    out.extend(parts.iter().copied());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::classic;

    #[test]
    fn counters_are_called_by_their_samples_names_and_the_rest_stays() {
        let open = "# HELP a Answers.\n# TYPE a counter\na_total{of=\"b c\"} 3\n\
                    # HELP up Up.\n# TYPE up gauge\nup 1\n# EOF\n";
        let old = "# HELP a_total Answers.\n# TYPE a_total counter\na_total{of=\"b c\"} 3\n\
                   # HELP up Up.\n# TYPE up gauge\nup 1\n";
        assert_eq!(classic(open), old);
    }
}
