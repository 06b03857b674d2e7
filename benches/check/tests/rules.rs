//! Each rule of the contract has a stream that breaks it, condemned for exactly that.

use chat_check::{AfterKill, Judge, Verdict};

/// Two users, three posts, nothing wrong.
const ANA: &[&str] = &[
    r#"{"type":"connected","server":"chat://[::1]:1","generation":1,"user":"ana","resumed":false}"#,
    r#"{"type":"gate","room":"lobby","incarnation":1,"users":1,"threshold":2,"open":false}"#,
    r#"{"type":"sent","room":"lobby","id":"ana-1","incarnation":1}"#,
    r#"{"type":"gate","room":"lobby","incarnation":1,"users":2,"threshold":2,"open":true}"#,
    r#"{"type":"joined","room":"lobby","incarnation":1,"user":"ana","seq":1,"at":"2026-11-22T12:00:00.000Z"}"#,
    r#"{"type":"message","room":"lobby","incarnation":1,"seq":2,"from":"ana","text":"ana-1-a","at":"2026-11-22T12:00:00.001Z"}"#,
    r#"{"type":"joined","room":"lobby","incarnation":1,"user":"bob","seq":3,"at":"2026-11-22T12:00:00.001Z"}"#,
    r#"{"type":"users","room":"lobby","count":2,"names":["ana","bob"]}"#,
    r#"{"type":"message","room":"lobby","incarnation":1,"seq":4,"from":"ana","text":"ana-2-b","at":"2026-11-22T12:00:00.002Z"}"#,
    r#"{"type":"sent","room":"lobby","id":"ana-2","incarnation":1,"seq":4}"#,
    r#"{"type":"message","room":"lobby","incarnation":1,"seq":5,"from":"bob","text":"bob-1-c","at":"2026-11-22T12:00:00.003Z"}"#,
];

const GATE: usize = 3;
const ANA_1: usize = 5;
const ANA_2: usize = 8;
const BOB_1: usize = 10;
const KILLED: &str = r#"{"type":"killed"}"#;

/// What Bob is shown: the same records, his own acknowledgement.
fn bob() -> Vec<String> {
    let mut lines: Vec<String> =
        ANA.iter().filter(|line| !line.contains(r#""sent""#)).map(ToString::to_string).collect();
    lines.push(r#"{"type":"sent","room":"lobby","id":"bob-1","incarnation":1,"seq":5}"#.into());
    lines
}

fn ana() -> Vec<String> {
    ANA.iter().map(ToString::to_string).collect()
}

fn judge(ana: &[String], bob: &[String]) -> Verdict {
    let mut judge = Judge::default();
    for (name, lines) in [("ana", ana), ("bob", bob)] {
        let text = format!("{}\n", lines.join("\n"));
        judge.read(name, text.as_bytes()).expect("memory must be readable");
    }
    judge.verdict()
}

/// Judges Ana's stream, changed; Bob's is as it should be.
fn judge_changed(change: impl FnOnce(&mut Vec<String>)) -> Verdict {
    let mut lines = ana();
    change(&mut lines);
    judge(&lines, &bob())
}

/// Asserts the counts of lost, doubled, reordered and other.
#[track_caller]
fn assert_counts(verdict: &Verdict, expected: [u64; 4]) {
    let Verdict { lost, doubled, reordered, other, .. } = verdict;
    let counts = [lost, doubled, reordered, other].map(|tally| tally.count);
    assert_eq!(counts, expected, "{verdict}");
    let clean = expected == [0; 4] && verdict.shown_again.count == 0;
    assert_eq!(verdict.is_clean(AfterKill::ShowNothingAgain), clean, "{verdict}");
}

fn message(seq: u64, text: &str) -> String {
    let (from, _) = text.split_once('-').expect("a post must name its sender");
    format!(
        r#"{{"type":"message","room":"lobby","incarnation":1,"seq":{seq},"from":"{from}","text":"{text}","at":"2026-11-22T12:00:00.003Z"}}"#
    )
}

#[test]
fn streams_that_keep_the_rules_are_clean() {
    let verdict = judge(&ana(), &bob());
    assert_counts(&verdict, [0; 4]);
    assert_eq!((verdict.acknowledged, verdict.records, verdict.streams), (3, 10, 2));
}

#[test]
fn record_that_is_passed_over_is_lost() {
    assert_counts(&judge_changed(|lines| drop(lines.remove(ANA_2))), [1, 0, 0, 0]);
}

#[test]
fn acknowledged_post_missing_at_the_end_of_a_stream_is_lost() {
    assert_counts(&judge_changed(|lines| drop(lines.remove(BOB_1))), [1, 0, 0, 0]);
}

#[test]
fn acknowledged_post_that_nobody_was_shown_is_lost_for_everybody() {
    let sent = r#"{"type":"sent","room":"lobby","id":"ana-3","incarnation":1,"seq":6}"#;
    assert_counts(&judge_changed(|lines| lines.push(sent.into())), [2, 0, 0, 0]);
    let held = r#"{"type":"sent","room":"lobby","id":"ana-3","incarnation":1}"#;
    assert_counts(&judge_changed(|lines| lines.push(held.into())), [2, 0, 0, 0]);
}

#[test]
fn post_that_was_never_acknowledged_may_be_shown_or_not() {
    let without = |lines: &mut Vec<String>| lines.retain(|line| !line.contains("ana-2\""));
    assert_counts(&judge_changed(without), [0; 4]);
}

#[test]
fn record_shown_twice_is_doubled() {
    assert_counts(&judge_changed(|lines| lines.push(ANA[ANA_2].into())), [0, 1, 0, 0]);
}

#[test]
fn post_that_is_twice_in_the_log_is_doubled_for_each_reader() {
    let again = message(6, "ana-1-a");
    let (mut ana, mut bob) = (ana(), bob());
    ana.push(again.clone());
    bob.push(again);
    assert_counts(&judge(&ana, &bob), [0, 2, 0, 0]);
}

#[test]
fn record_that_comes_late_is_reordered() {
    assert_counts(&judge_changed(|lines| lines.swap(ANA_2, BOB_1)), [0, 0, 1, 0]);
}

#[test]
fn posts_of_a_sender_out_of_the_order_of_sending_are_reordered() {
    let (mut ana, mut bob) = (ana(), bob());
    for lines in [&mut ana, &mut bob] {
        lines.extend([message(6, "ana-9-x"), message(7, "ana-8-y")]);
    }
    assert_counts(&judge(&ana, &bob), [0, 0, 2, 0]);
}

#[test]
fn readers_are_shown_the_same() {
    let other = |lines: &mut Vec<String>| lines[ANA_2] = lines[ANA_2].replace("ana-2-b", "ana-2-B");
    assert_counts(&judge_changed(other), [0, 0, 0, 1]);
    let later = |lines: &mut Vec<String>| lines[BOB_1] = lines[BOB_1].replace("003Z", "004Z");
    assert_counts(&judge_changed(later), [0, 0, 0, 1]);
}

#[test]
fn time_never_goes_back() {
    let (mut ana, mut bob) = (ana(), bob());
    for lines in [&mut ana, &mut bob] {
        lines.push(message(6, "ana-3-x").replace("003Z", "002Z"));
    }
    assert_counts(&judge(&ana, &bob), [0, 0, 0, 2]);
}

#[test]
fn nothing_is_shown_before_the_gate_is_open() {
    // Six records and a list of users; then the second acknowledgement names a place.
    let verdict = judge_changed(|lines| drop(lines.remove(GATE)));
    assert_counts(&verdict, [0, 0, 0, 7]);
    let place = |lines: &mut Vec<String>| lines[2] = lines[2].replace('}', r#","seq":2}"#);
    assert_counts(&judge_changed(place), [0, 0, 0, 1]);
}

#[test]
fn open_gate_stays_open() {
    assert_counts(&judge_changed(|lines| lines.push(ANA[1].into())), [0, 0, 0, 1]);
}

#[test]
fn post_bears_the_name_of_its_sender() {
    let (mut ana, mut bob) = (ana(), bob());
    for lines in [&mut ana, &mut bob] {
        lines.push(message(6, "ana-3-x").replace(r#""from":"ana""#, r#""from":"eve""#));
    }
    assert_counts(&judge(&ana, &bob), [0, 0, 0, 2]);
}

#[test]
fn acknowledgement_comes_once_and_names_the_place() {
    assert_counts(&judge_changed(|lines| lines.push(ANA[9].into())), [0, 0, 0, 1]);
    let elsewhere = |lines: &mut Vec<String>| lines[9] = lines[9].replace(":4}", ":5}");
    assert_counts(&judge_changed(elsewhere), [0, 0, 0, 1]);
    let refused = r#"{"type":"error","code":"E_LIMIT","text":"no","id":"ana-1"}"#;
    assert_counts(&judge_changed(|lines| lines.push(refused.into())), [0, 0, 0, 1]);
}

#[test]
fn gap_that_was_told_loses_nothing() {
    let told = r#"{"type":"gap","room":"lobby","incarnation":1,"from":4,"to":4}"#;
    assert_counts(&judge_changed(|lines| lines[ANA_2] = told.into()), [0; 4]);
    let never_asked = r#"{"type":"gap","room":"lobby","incarnation":1,"from":2,"to":4}"#;
    assert_counts(&judge_changed(|lines| lines.push(never_asked.into())), [0, 0, 0, 1]);
}

#[test]
fn later_joiner_is_owed_nothing_from_before_its_first_record() {
    let mut bob = bob();
    bob.retain(|line| !line.contains(r#""open":false"#) && !line.contains(r#""seq":2"#));
    bob.retain(|line| !line.contains(r#""seq":1"#));
    assert_counts(&judge(&ana(), &bob), [0; 4]);
}

#[test]
fn reset_begins_a_life_with_its_own_numbers() {
    let life = [
        r#"{"type":"reset","room":"lobby","incarnation":2,"threshold":1}"#.to_owned(),
        ANA[GATE].replace(r#""incarnation":1"#, r#""incarnation":2"#),
        message(1, "bob-2-z").replace(r#""incarnation":1"#, r#""incarnation":2"#),
    ];
    let (mut ana, mut bob) = (ana(), bob());
    ana.extend(life.clone());
    bob.extend(life.clone());
    assert_counts(&judge(&ana, &bob), [0; 4]);
    // A record of the life before.
    bob.push(message(6, "ana-3-x"));
    assert_counts(&judge(&ana, &bob), [0, 0, 1, 0]);
    // A life that does not begin with its first record.
    ana.pop();
    ana.push(message(2, "bob-3-z").replace(r#""incarnation":1"#, r#""incarnation":2"#));
    bob.pop();
    assert_counts(&judge(&ana, &bob), [1, 0, 0, 0]);
}

/// What both are shown of the life after a reset.
fn next_life(records: &[String]) -> Vec<String> {
    let reset = r#"{"type":"reset","room":"lobby","incarnation":1,"threshold":1}"#;
    let open = [reset, ANA[GATE]].map(str::to_owned);
    let lines = open.iter().chain(records);
    lines.map(|line| line.replace(r#""incarnation":1"#, r#""incarnation":2"#)).collect()
}

fn judge_both(more: &[String]) -> Verdict {
    let [mut ana, mut bob] = [ana(), bob()];
    ana.extend_from_slice(more);
    bob.extend_from_slice(more);
    judge(&ana, &bob)
}

#[test]
fn post_that_is_shown_in_two_lives_is_doubled() {
    let clean = judge_both(&next_life(&[message(1, "ana-3-x")]));
    assert_counts(&clean, [0; 4]);
    assert_eq!(clean.lives, 2);
    // An acknowledgement in the first life, and a place in the second, is one fault more.
    assert_counts(&judge_both(&next_life(&[message(1, "ana-2-b")])), [0, 2, 0, 0]);
}

#[test]
fn posts_of_a_sender_keep_their_order_across_a_reset() {
    let life = next_life(&[message(1, "ana-4-x"), message(2, "bob-2-y")]);
    assert_counts(&judge_both(&life), [0; 4]);
    let earlier = [vec![message(6, "ana-5-x")], life].concat();
    assert_counts(&judge_both(&earlier), [0, 0, 2, 0]);
}

#[test]
fn post_that_is_acknowledged_in_one_life_is_not_shown_in_another() {
    let sent = r#"{"type":"sent","room":"lobby","id":"ana-3","incarnation":1}"#.to_owned();
    let mut ana = [ana(), vec![sent]].concat();
    let life = next_life(&[message(1, "ana-3-x")]);
    ana.extend(life.clone());
    assert_counts(&judge(&ana, &[bob(), life].concat()), [0, 0, 0, 1]);
}

#[test]
fn post_that_a_reset_refused_is_told_and_shown_to_nobody() {
    let refused = r#"{"type":"error","code":"E_STATE","text":"reset since","id":"ana-3"}"#;
    let told = |lines: &mut Vec<String>| lines.push(refused.into());
    let verdict = judge_changed(told);
    assert_counts(&verdict, [0; 4]);
    assert_eq!(verdict.refused, 1);
    let shown = next_life(&[message(1, "ana-3-x")]);
    let ana = [ana(), vec![refused.into()], shown.clone()].concat();
    assert_counts(&judge(&ana, &[bob(), shown].concat()), [0, 0, 0, 1]);
}

#[test]
fn post_that_was_given_up_may_be_shown_or_not() {
    let given_up = r#"{"type":"error","code":"E_STATE","text":"?","id":"ana-3","line":"ana-3-x"}"#;
    let told = |lines: &mut Vec<String>| lines.push(given_up.into());
    assert_counts(&judge_changed(told), [0; 4]);
    let shown = message(6, "ana-3-x");
    let ana = [ana(), vec![given_up.into(), shown.clone()]].concat();
    assert_counts(&judge(&ana, &[bob(), vec![shown]].concat()), [0; 4]);
}

#[test]
fn acknowledged_command_that_is_no_post_leaves_no_record() {
    let reset = r#"{"type":"sent","room":"lobby","id":"7","incarnation":1}"#;
    assert_counts(&judge_changed(|lines| lines.push(reset.into())), [0; 4]);
}

#[test]
fn everybody_is_connected_to_the_host_that_serves() {
    for (server, others) in [("chat://[::1]:1", 0), ("chat://[::1]:2", 1)] {
        let mut judge = Judge::default();
        judge.expect_server(server.to_owned());
        judge.read("ana", ana().join("\n").as_bytes()).unwrap();
        assert_eq!(judge.verdict().other.count, others, "{server}");
    }
}

#[test]
fn killed_client_goes_on_where_it_was() {
    let go_on = |lines: &mut Vec<String>| lines.insert(ANA_2, KILLED.into());
    let verdict = judge_changed(go_on);
    assert_counts(&verdict, [0; 4]);
    assert_eq!(verdict.kills, 1);
}

#[test]
fn what_a_killed_client_shows_again_is_counted_by_itself() {
    let again = |lines: &mut Vec<String>| {
        lines.splice(BOB_1..BOB_1, [KILLED.into(), ANA[6].into(), ANA[ANA_2].into()]);
    };
    let verdict = judge_changed(again);
    assert_counts(&verdict, [0; 4]);
    assert_eq!(verdict.shown_again.count, 2);
    assert!(verdict.is_clean(AfterKill::MayShowAgain));
    // An old record is no leftover of the kill.
    let old = |lines: &mut Vec<String>| {
        lines.extend([KILLED.into(), ANA[BOB_1].into(), ANA[ANA_1].into()]);
    };
    let verdict = judge_changed(old);
    assert_counts(&verdict, [0, 1, 0, 0]);
    assert_eq!(verdict.shown_again.count, 1);
}

#[test]
fn half_a_line_is_tolerated_where_a_client_was_killed_and_nowhere_else() {
    let half = &ANA[ANA_2][..40];
    let torn = |lines: &mut Vec<String>| {
        lines.splice(ANA_2..ANA_2, [half.into(), KILLED.into()]);
    };
    let verdict = judge_changed(torn);
    assert_counts(&verdict, [0; 4]);
    assert_eq!(verdict.torn, 1);
    assert_counts(&judge_changed(|lines| lines.insert(ANA_2, half.into())), [0, 0, 0, 1]);
    assert_counts(&judge_changed(|lines| lines.push(half.into())), [0, 0, 0, 1]);
}
