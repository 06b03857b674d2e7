//! Error codes: a closed set, and fixed texts.

use std::collections::BTreeSet;

use crate::samples;

/// The closed set of error codes that scripts rely on.
const CODES: [&str; 17] = [
    "E_FRAME",
    "E_DECODE",
    "E_VERSION",
    "E_LIMIT",
    "E_STATE",
    "E_AUTH",
    "E_NAME",
    "E_PERM",
    "E_COMMAND",
    "E_TARGET",
    "E_RATE",
    "E_BUSY",
    "E_GATE",
    "E_GONE",
    "E_STORE",
    "E_SNAPSHOT",
    "E_CRYPTO",
];

#[test]
fn refusals_use_every_code_of_the_closed_set_and_no_other() {
    let used: BTreeSet<&str> =
        samples::refusals().iter().map(chatcore::wire::Refusal::code).collect();
    assert_eq!(used, BTreeSet::from(CODES));
}

#[test]
fn refusal_codes_are_the_names_of_the_variants() {
    for refusal in samples::refusals() {
        // To scripts both are the operators' word.
        let is_expelled = matches!(refusal, chatcore::wire::Refusal::Expelled(_));
        let variant = crate::variants::Variants::variant(&refusal);
        let variant = if is_expelled { "perm" } else { variant };
        assert_eq!(refusal.code(), format!("E_{}", variant.to_ascii_uppercase()));
    }
}

#[test]
fn refusal_texts_are_lower_case_without_a_full_stop_and_tell_faults_apart() {
    let mut texts = BTreeSet::new();
    for refusal in samples::refusals() {
        let text = refusal.to_string();
        // `UTF-8` and the like aside, a text can be put after a colon.
        assert!(text.starts_with(|first: char| first.is_ascii_lowercase()), "{text}");
        assert!(!text.ends_with(['.', '!', ' ', '\n']), "{text}");
        assert!(text.is_ascii() && text.len() <= 100 && !text.contains('\n'), "{text}");
        assert!(texts.insert((refusal.code(), text)), "{refusal:?} has the text of another");
    }
}

#[test]
fn only_refusals_that_may_pass_by_themselves_use_up_no_counter() {
    let passing: BTreeSet<&str> = samples::refusals()
        .iter()
        .filter(|refusal| refusal.is_passing())
        .map(chatcore::wire::Refusal::code)
        .collect();
    assert_eq!(passing, BTreeSet::from(["E_RATE", "E_BUSY", "E_STORE", "E_GONE"]));
}
