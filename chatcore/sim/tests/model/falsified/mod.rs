//! Outputs that are not what the engine put out, and the rule that each breaks.

use std::collections::BTreeSet;
use std::sync::Arc;

use chat_sim::model::{Broken, rules};
use chatcore::engine::{Archive, Directive, Event, Input, Need, Output, Page};
use chatcore::id::*;
use chatcore::limits::Limits;
use chatcore::log::{Change, Entry, Moderator};
use chatcore::text::{RoomName, Untrusted};
use chatcore::time::{Span, Timestamp};
use chatcore::wire::*;

use crate::rig::{
    Rig, Setup, host_status, login, moderate, operate, post, question_join, reset, sent,
    server_key, session,
};

/// What a falsified run came to.
type Outcome = Result<(), Broken>;

/// One case for each name: a script whose last input is falsified, and the rule that reports it.
macro_rules! breaks {
    ($($name:ident: $rule:ident, $script:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let script: fn() -> Outcome = $script;
                let broken = script().expect_err("the model must notice");
                assert_eq!(broken.rule, rules::$rule, "{broken}");
            }
        )*

        pub(super) const COVERED: &[&str] = &[$(rules::$rule),*];
    };
}

mod answers;
mod entries;
mod readers;

fn rig() -> Rig {
    Rig::new(Setup { threshold: 2, ..Setup::default() })
}

/// Ana, an operator, and Bob in a room whose gate is open.
fn open() -> (Rig, ConnId, ConnId) {
    let mut rig = rig();
    let (ana, bob) = (rig.log_in("ana"), rig.log_in("bob"));
    rig.join(ana, "lobby");
    rig.join(bob, "lobby");
    (rig, ana, bob)
}

/// Ana, an operator, alone in a room whose gate is closed.
fn closed() -> (Rig, ConnId) {
    let mut rig = rig();
    let ana = rig.log_in("ana");
    rig.join(ana, "lobby");
    (rig, ana)
}

/// Somebody whose right to know what the server does is about to be found good.
fn asking() -> Result<(Rig, Input), Broken> {
    let mut rig = rig();
    let conn = rig.dial()?;
    rig.send(conn, ClientFrame::hello())?;
    rig.send(conn, operate(server_key()))?;
    Ok((rig, Input::Verified { conn, valid: true }))
}

/// Those who run the server are about to send Bob away, who is in no room.
fn moderating() -> (Rig, Input) {
    let mut rig = rig();
    rig.log_in("ana");
    rig.log_in("bob");
    let (user, measure) = ("bob".parse().unwrap(), Measure::Kick);
    (rig, Input::Moderate { request: RequestId::ZERO, user, measure })
}

/// The host is about to say what it knows of that.
fn reporting() -> Result<(Rig, Input), Broken> {
    let (mut rig, verified) = asking()?;
    rig.input(verified)?;
    let conn = rig.reports.pop_front().unwrap();
    Ok((rig, Input::Reported { conn, host: host_status(7) }))
}

fn frame(conn: ConnId, frame: ClientFrame) -> Input {
    Input::Frame { conn, frame }
}

fn say(conn: ConnId, counter: u64) -> Input {
    frame(conn, post(counter, "lobby", "hi"))
}

/// Everything appended is persisted, and told otherwise than it was.
fn persisted(rig: &mut Rig, falsify: impl FnMut(Vec<Output>) -> Vec<Output>) -> Outcome {
    let mut falsify = falsify;
    let input = rig.next_persisted(usize::MAX).unwrap();
    rig.falsified(input, &mut falsify)
}

/// One input, told otherwise than it was.
fn told(rig: &mut Rig, input: Input, falsify: impl FnMut(Vec<Output>) -> Vec<Output>) -> Outcome {
    let mut falsify = falsify;
    rig.falsified(input, &mut falsify)
}

fn deliver(directive: Directive) -> Output {
    Output::Deliver(directive)
}

fn send(conn: ConnId, frame: ServerFrame) -> Output {
    deliver(Directive::Send { conn, frame })
}

fn is_send(output: &Output) -> bool {
    matches!(output, Output::Deliver(Directive::Send { .. }))
}

fn is_visible(output: &Output) -> bool {
    matches!(output, Output::Deliver(Directive::Visible { .. }))
}

fn is_gate(output: &Output) -> bool {
    matches!(output, Output::Deliver(Directive::Gate { .. }))
}

fn is_close(output: &Output) -> bool {
    matches!(output, Output::Deliver(Directive::Close { .. }))
}

fn is_moderated(output: &Output) -> bool {
    matches!(output, Output::Moderated { .. })
}

fn is_page(output: &Output) -> bool {
    matches!(output, Output::Deliver(Directive::Page { .. }))
}

fn is_follow(output: &Output) -> bool {
    matches!(output, Output::Deliver(Directive::Follow { .. }))
}

fn is_reset(output: &Output) -> bool {
    matches!(output, Output::Deliver(Directive::Reset { .. }))
}

fn is_trim(output: &Output) -> bool {
    matches!(output, Output::Deliver(Directive::Trim { .. }))
}

fn is_entry(output: &Output) -> bool {
    matches!(output, Output::Persist(_))
}

/// Leaves out what is so, and there must be some.
fn without(is: fn(&Output) -> bool) -> impl FnMut(Vec<Output>) -> Vec<Output> {
    move |mut outputs| {
        assert!(outputs.iter().any(is), "there is none among {outputs:?}");
        outputs.retain(|output| !is(output));
        outputs
    }
}

/// Tells twice what is so.
fn twice(is: fn(&Output) -> bool) -> impl FnMut(Vec<Output>) -> Vec<Output> {
    move |outputs| {
        assert!(outputs.iter().any(is), "there is none among {outputs:?}");
        outputs
            .into_iter()
            .flat_map(|output| {
                let count = if is(&output) { 2 } else { 1 };
                std::iter::repeat_n(output, count)
            })
            .collect()
    }
}

/// Changes what is so.
fn with(
    is: fn(&Output) -> bool,
    change: impl Fn(&mut Output),
) -> impl FnMut(Vec<Output>) -> Vec<Output> {
    move |mut outputs| {
        let mut found: Vec<_> = outputs.iter_mut().filter(|output| is(output)).collect();
        assert!(!found.is_empty(), "there is none");
        found.iter_mut().for_each(|output| change(output));
        outputs
    }
}

/// Adds one at the end.
fn and(more: Output) -> impl FnMut(Vec<Output>) -> Vec<Output> {
    move |mut outputs| {
        outputs.push(more.clone());
        outputs
    }
}

/// Changes the entries of a post that Ana says in the open room.
fn entry(change: impl Fn(&mut Entry)) -> Outcome {
    let (mut rig, ana, _) = open();
    told(
        &mut rig,
        say(ana, 1),
        with(is_entry, |output| {
            let Output::Persist(entry) = output else { return };
            change(Arc::make_mut(entry));
        }),
    )
}

/// Changes the fields of the entry of that post.
fn posted(edit: impl Fn(&mut Change)) -> Outcome {
    entry(|entry| edit(&mut entry.change))
}

/// A change of the frame that a request leads to.
fn answer(rig: &mut Rig, input: Input, change: impl Fn(&mut ServerFrame)) -> Outcome {
    let falsify = with(is_send, |output| {
        let Output::Deliver(Directive::Send { frame, .. }) = output else { return };
        change(frame);
    });
    told(rig, input, falsify)
}

fn question(rig: &mut Rig, conn: ConnId, question: Question) -> Input {
    let frame = rig.ask(question);
    self::frame(conn, frame)
}

fn history(rig: &mut Rig, conn: ConnId) -> Input {
    let room = Untrusted::new("lobby");
    question(rig, conn, Question::History { room, before: None, limit: 9 })
}

/// Ana in an open room with a few posts; what lies behind the window is in `archive`.
fn talked(window_bytes: u64, archive: Archive) -> (Rig, ConnId) {
    let limits = Limits { window_bytes, ..Limits::default() };
    let mut rig = Rig::new(Setup { limits, archive, threshold: 1, ..Setup::default() });
    let ana = rig.log_in("ana");
    rig.join(ana, "lobby");
    for counter in 1..5 {
        rig.input(say(ana, counter)).unwrap();
        rig.persist(usize::MAX).unwrap();
    }
    (rig, ana)
}

fn need(conn: ConnId, after: u64) -> Input {
    let (room, after) = ("lobby".parse().unwrap(), Seq::new(after).unwrap());
    Input::Fetch(Need { conn, room, incarnation: Incarnation::ZERO.next(), after })
}

fn trim(through: u64) -> Input {
    let (room, incarnation) = (lobby(), Incarnation::ZERO.next());
    Input::Trim { room, incarnation, through: Seq::new(through).unwrap() }
}

fn lobby() -> RoomName {
    "lobby".parse().unwrap()
}

fn set_seq(change: &mut Change) {
    if let Change::Posted { seq, .. } = change {
        *seq = seq.next();
    }
}

#[test]
fn every_rule_is_broken_by_a_test() {
    let covered: BTreeSet<_> =
        [entries::COVERED, answers::COVERED, readers::COVERED].concat().into_iter().collect();
    let rules: BTreeSet<_> = rules::ALL.iter().copied().collect();
    assert_eq!(covered, rules, "each rule has a test that breaks it");
    assert_eq!(rules.len(), rules::ALL.len(), "no two rules have the same name");
}
