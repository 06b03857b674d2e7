//! Every case of `cases.txt` has a test that bears its id, and no test bears an id that is not
//! there.

mod sources;

use std::collections::{BTreeMap, BTreeSet};

use sources::Source;

/// An id, as in `A10`.
type CaseId = String;

/// The ids that a list speaks of: the first word of every line that is no comment.
fn listed(list: &str) -> Vec<CaseId> {
    let lines = list.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
}

/// The names of all test functions of a source text: those that an attribute ending in `test` or
/// beginning with `test` marks, also inside `proptest!`.
fn tests_of(source: &str) -> Vec<&str> {
    let mut tests = Vec::new();
    let mut marked = false;
    for line in source.lines().map(str::trim) {
        if let Some(attribute) = line.strip_prefix("#[") {
            let path = attribute.split(['(', ']']).next().unwrap_or_default();
            marked |= path == "test" || path.ends_with("::test");
        } else if let Some((before, after)) = line.split_once("fn ") {
            let is_item = ["", "async ", "pub ", "pub async "].contains(&before);
            if marked && is_item {
                tests.extend(after.split(['(', '<']).next());
            }
            marked = false;
        } else if !line.is_empty() && !line.starts_with("//") && !line.ends_with(")]") {
            marked = false;
        }
    }
    tests
}

/// The ids that a test's name begins with.
fn ids_of(test: &str) -> impl Iterator<Item = CaseId> {
    let is_id = |word: &&str| {
        let number = word.strip_prefix(|letter: char| letter.is_ascii_lowercase());
        number.is_some_and(|digits| digits.parse::<u8>().is_ok())
    };
    test.split('_').take_while(is_id).map(str::to_uppercase)
}

/// What is wrong between a list and the tests, one line each.
fn faults(list: &str, tests: &BTreeMap<CaseId, String>) -> Vec<String> {
    let ids = listed(list);
    let known: BTreeSet<&CaseId> = ids.iter().collect();
    let untested = known.iter().filter(|id| !tests.contains_key(**id));
    let unlisted = tests.iter().filter(|(id, _)| !known.contains(id));
    let mut faults: Vec<String> = untested.map(|id| format!("{id} has no test")).collect();
    faults.extend(unlisted.map(|(id, test)| format!("{id} of {test} is not in the list")));
    if known.len() < ids.len() {
        faults.push("an id is in the list twice".to_owned());
    }
    faults
}

/// By id, one test that bears it, with its file.
fn tests_by_id(sources: &[Source]) -> BTreeMap<CaseId, String> {
    let tests = sources.iter().flat_map(|source| {
        tests_of(&source.text).into_iter().map(|test| (test, source.path.as_str()))
    });
    tests
        .flat_map(|(test, path)| ids_of(test).map(move |id| (id, format!("{test} in {path}"))))
        .collect()
}

fn made(text: &str) -> [Source; 1] {
    [Source { path: "a.rs".to_owned(), text: text.to_owned() }]
}

#[test]
fn every_listed_case_has_a_test_and_every_named_case_is_listed() {
    let mut sources = sources::of_workspace();
    // This file holds names of tests that are none.
    sources.retain(|source| source.path != file!());
    let tests = tests_by_id(&sources);
    let faults = faults(include_str!("cases.txt"), &tests);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_case_without_a_test_and_a_test_without_a_case_are_found() {
    let source = "
        #[test]
        fn a1_one() {}
        #[tokio::test(flavor = \"current_thread\")]
        async fn b2_c13_two() {}
        proptest! {
            #![proptest_config(config)]
            #[test]
            fn d1_any(text in \"[a-z]*\") {}
        }
        #[test]
        #[should_panic(expected = \"no\")]
        // Why.
        fn e1_panics() {}
        #[cfg(test)]
        fn f1_no_test() {}
        #[test]
        fn g1b_no_id_utf_8() {}
        fn h1_helper() {}
    ";
    let tests = tests_by_id(&made(source));
    assert_eq!(tests.keys().collect::<Vec<_>>(), ["A1", "B2", "C13", "D1", "E1"]);
    let list = "# ids\nA1 one\nB2 two\nD1 any\nE1 panics\nF1 no test\nH1 helper\n";
    let found = faults(list, &tests);
    assert_eq!(
        found,
        ["F1 has no test", "H1 has no test", "C13 of b2_c13_two in a.rs is not in the list"]
    );
    assert_eq!(faults("A1 a\nA1 a", &tests_by_id(&made("#[test]\nfn a1_x() {}"))).len(), 1);
}
