//! Labels: what ties a `sent` or `error` event to the line it is about.
//!
//! A JSON request may bring its own, and any run repeats that one. Other lines are known by their
//! number, which begins at 1 in every run: what an earlier run left is called `earlier-COUNTER`
//! instead, so that it is never taken for a line of this run.
//!
//! Inside the program a label is a string with its origin in front, as it is in the outbox too.

use chatcore::id::Counter;

/// Stands before a label that a request brought; no number begins with it.
const BROUGHT: char = '"';

/// The label of a line by its number.
pub fn of_line(number: u64) -> String {
    number.to_string()
}

/// The label that a request brought.
pub fn brought(label: &str) -> String {
    format!("{BROUGHT}{label}")
}

/// The label of what an earlier run left.
pub fn left_by_earlier_run(label: &str, counter: Counter) -> String {
    if label.starts_with(BROUGHT) { label.to_owned() } else { format!("earlier-{counter}") }
}

/// A label as events show it.
pub fn shown(label: &str) -> &str {
    label.strip_prefix(BROUGHT).unwrap_or(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_that_a_request_brought_is_repeated_by_any_run() {
        let counter = Counter::new(5).unwrap();
        for label in ["7", "", "\"", "earlier-1"] {
            let inside = brought(label);
            assert_eq!(shown(&inside), label);
            assert_eq!(shown(&left_by_earlier_run(&inside, counter)), label);
        }
    }

    #[test]
    fn line_of_an_earlier_run_is_never_taken_for_one_of_this_run() {
        let counter = Counter::new(5).unwrap();
        assert_eq!(shown(&of_line(7)), "7");
        assert_eq!(left_by_earlier_run(&of_line(7), counter), "earlier-5");
        assert_eq!(left_by_earlier_run("earlier-3", counter), "earlier-5");
    }
}
