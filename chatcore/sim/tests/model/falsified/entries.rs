//! Entries that the rules do not make.

use super::*;

breaks! {
    measure_by_who_may_not: MEASURE, || {
        let (mut rig, _, bob) = open();
        let input = frame(bob, moderate(1, "ana", Measure::Kick));
        told(&mut rig, input, with(is_entry, |output| {
            let Output::Persist(entry) = output else { return };
            let Change::Refused { command, .. } = &entry.change else { return };
            let by = Moderator::Operator { user: "bob".parse().unwrap(), command: *command };
            let (user, measure) = ("ana".parse().unwrap(), Measure::Kick);
            Arc::make_mut(entry).change = Change::Moderated { user, measure, by };
        }))
    };
    who_is_sent_away_and_stays_a_member: MEASURE, || {
        let (mut rig, ana, _) = open();
        let input = frame(ana, moderate(1, "bob", Measure::Ban));
        let left = |output: &Output| {
            matches!(output, Output::Persist(entry)
                if matches!(entry.change, Change::Left { .. }))
        };
        told(&mut rig, input, without(left))
    };
    measure_that_nobody_took: MEASURE, || {
        let (mut rig, ..) = open();
        let (user, measure, by) = ("bob".parse().unwrap(), Measure::Op, Moderator::Server);
        let change = Change::Moderated { user, measure, by };
        let entry = rig.entries.last().unwrap();
        let entry = Entry { change, ..Entry::clone(entry) };
        told(&mut rig, Input::Timeout, and(Output::Persist(Arc::new(entry))))
    };
    measure_that_is_not_taken: MEASURE, || {
        let (mut rig, input) = moderating();
        told(&mut rig, input, without(is_entry))
    };
    entry_with_a_hole_before_it: ENTRY_NUMBER, || {
        entry(|entry| entry.header.index = entry.header.index.next())
    };
    entry_from_the_past: ENTRY_TIME, || entry(|entry| entry.header.at = Timestamp::ZERO);
    entry_with_another_digest: ENTRY_DIGEST, || {
        entry(|entry| entry.header.digest = Digest::new([1; 32]))
    };
    entry_that_nobody_led_to: ENTRY_UNDUE, || {
        let (mut rig, ana, bob) = open();
        let left = |rig: &mut Rig| {
            let mut outputs = Vec::new();
            rig.falsified(frame(bob, ClientFrame::Leave), &mut |found| {
                outputs.clone_from(&found);
                found
            })?;
            Ok::<_, Broken>(outputs.into_iter().find(is_entry).unwrap())
        };
        let left = left(&mut rig)?;
        told(&mut rig, frame(ana, ClientFrame::Pong { token: RequestId::ZERO }), and(left))
    };
    entry_that_is_lost: ENTRY_MISSING, || {
        let (mut rig, ana, _) = open();
        told(&mut rig, say(ana, 1), without(is_entry))
    };
    post_of_another_author: AUTHOR, || posted(|change| {
        if let Change::Posted { from, .. } = change {
            *from = "bob".parse().unwrap();
        }
    });
    post_that_skips_a_number: RECORD_NUMBER, || posted(set_seq);
    post_of_another_life: LIFE, || posted(|change| {
        if let Change::Posted { incarnation, .. } = change {
            *incarnation = incarnation.next();
        }
    });
    post_that_is_appended_twice: ONCE, || {
        let (mut rig, ana, _) = open();
        told(&mut rig, say(ana, 1), twice(is_entry))
    };
    post_that_is_appended_again_when_repeated: ONCE, || {
        let (mut rig, ana, _) = open();
        let mut first = Vec::new();
        rig.falsified(say(ana, 1), &mut |outputs| {
            first.clone_from(&outputs);
            outputs
        })?;
        told(&mut rig, say(ana, 1), and(first.into_iter().find(is_entry).unwrap()))
    };
    gate_that_opens_for_too_few: GATE_OPENS, || {
        let (mut rig, ana) = closed();
        let opened = Change::GateOpened { room: lobby(), incarnation: Incarnation::ZERO.next() };
        let header = rig.entries.last().unwrap().header;
        let entry = Output::Persist(Arc::new(Entry { header, change: opened }));
        told(&mut rig, say(ana, 1), and(entry))
    };
    gate_that_stays_closed: GATE_OPENS, || {
        let (mut rig, _) = closed();
        let bob = rig.log_in("bob");
        let join = question(&mut rig, bob, question_join("lobby"));
        told(&mut rig, join, without(|output| match output {
            Output::Persist(entry) => matches!(entry.change, Change::GateOpened { .. }),
            _ => false,
        }))
    };
    command_that_is_refused_for_another_reason: REFUSED, || {
        let (mut rig, _, bob) = open();
        told(&mut rig, frame(bob, reset(1, "lobby", 1)), with(is_entry, |output| {
            let Output::Persist(entry) = output else { return };
            if let Change::Refused { refusal, .. } = &mut Arc::make_mut(entry).change {
                *refusal = Refusal::Command;
            }
        }))
    };
    reset_with_another_threshold: RESET, || {
        let (mut rig, ana, _) = open();
        told(&mut rig, frame(ana, reset(1, "lobby", 5)), with(is_entry, |output| {
            let Output::Persist(entry) = output else { return };
            if let Change::Reset { threshold, .. } = &mut Arc::make_mut(entry).change {
                *threshold = Threshold::DEFAULT;
            }
        }))
    };
    name_that_is_given_to_another_key: OWNER, || {
        let mut rig = rig();
        let conn = rig.dial()?;
        rig.send(conn, ClientFrame::hello())?;
        rig.send(conn, login("ana", session("ana", 0), 1))?;
        told(&mut rig, Input::Verified { conn, valid: true }, with(is_entry, |output| {
            let Output::Persist(entry) = output else { return };
            if let Change::UserAdded { key, .. } = &mut Arc::make_mut(entry).change {
                *key = PublicKey::new([1; 32]);
            }
        }))
    };
    post_that_a_full_store_takes: ONCE, || {
        let (mut rig, ana, _) = open();
        let mut first = Vec::new();
        rig.falsified(say(ana, 1), &mut |outputs| {
            first.clone_from(&outputs);
            outputs
        })?;
        rig.input(Input::StoreFull)?;
        told(&mut rig, say(ana, 2), and(first.into_iter().find(is_entry).unwrap()))
    };
}
