//! Gates, records and pages that readers may not be told so.

use super::*;

breaks! {
    read_that_is_asked_again_too_soon: READ, || {
        let (mut rig, ana) = talked(0, Archive::Store);
        let mut read = Vec::new();
        rig.falsified(need(ana, 2), &mut |outputs| {
            read.clone_from(&outputs);
            outputs
        })?;
        let (token, ..) = rig.reads.pop_front().unwrap();
        rig.input(Input::ReadFailed { token })?;
        rig.pass(999);
        told(&mut rig, Input::Timeout, and(read.pop().unwrap()))
    };
    place_of_a_held_post: SECRET, || {
        let (mut rig, ana) = closed();
        rig.input(say(ana, 1))?;
        persisted(&mut rig, with(is_send, |output| {
            let Output::Deliver(Directive::Send { frame, .. }) = output else { return };
            if let ServerFrame::Accepted { seq, .. } = frame {
                *seq = Seq::new(2).ok();
            }
        }))
    };
    names_behind_a_closed_gate: SECRET, || {
        let (mut rig, ana) = closed();
        let who = question(&mut rig, ana, Question::Who { room: Untrusted::new("lobby") });
        answer(&mut rig, who, |frame| {
            let ServerFrame::Answer { answer, .. } = frame else { return };
            let names = List::first_of(["ana".parse().unwrap()]);
            *answer = Answer::Users(UserList { room: lobby(), count: 1, names, as_of: Seq::ZERO });
        })
    };
    record_behind_a_closed_gate: SECRET, || {
        let (mut rig, ana) = talked(0, Archive::None);
        let shown = {
            let mut all = Vec::new();
            rig.input(say(ana, 5))?;
            let input = rig.next_persisted(usize::MAX).unwrap();
            rig.falsified(input, &mut |outputs| {
                all.clone_from(&outputs);
                outputs
            })?;
            all.into_iter().find(is_visible).unwrap()
        };
        rig.input(frame(ana, reset(6, "lobby", 5)))?;
        rig.persist(usize::MAX)?;
        rig.input(say(ana, 7))?;
        persisted(&mut rig, and(shown))
    };
    answer_before_its_entry_is_safe: SAFE_FIRST, || {
        let (mut rig, ana, _) = open();
        let (counter, incarnation) = (Counter::ZERO.next(), Incarnation::ZERO.next());
        let frame = ServerFrame::Accepted { counter, room: lobby(), incarnation, seq: None };
        told(&mut rig, say(ana, 1), and(send(ana, frame)))
    };
    record_before_its_entry_is_safe: SAFE_FIRST, || {
        let (mut rig, ana, _) = open();
        let (room, incarnation) = (lobby(), Incarnation::ZERO.next());
        let through = Seq::new(3).unwrap();
        let visible = Directive::Visible { room, incarnation, through, chunk: None };
        told(&mut rig, say(ana, 1), and(deliver(visible)))
    };
    trim_of_more_than_was_asked: TRIMMED, || {
        let (mut rig, _) = talked(0, Archive::Store);
        told(&mut rig, trim(2), with(is_entry, |output| {
            let Output::Persist(entry) = output else { return };
            if let Change::Trimmed { through, .. } = &mut Arc::make_mut(entry).change {
                *through = through.next();
            }
        }))
    };
    trim_that_shards_are_not_told: TRIMMED, || {
        let (mut rig, _) = talked(0, Archive::Store);
        rig.input(trim(2))?;
        persisted(&mut rig, without(is_trim))
    };
    page_of_what_is_trimmed: PAGE, || {
        let (mut rig, ana) = talked(64 << 20, Archive::Store);
        let mut page = Vec::new();
        rig.falsified(need(ana, 0), &mut |outputs| {
            page.clone_from(&outputs);
            outputs
        })?;
        rig.input(trim(2))?;
        rig.persist(usize::MAX)?;
        told(&mut rig, need(ana, 0), |_| page.clone())
    };
    reset_before_its_entry_is_safe: SAFE_FIRST, || {
        let (mut rig, ana, _) = open();
        let (room, incarnation) = (lobby(), Incarnation::ZERO.next().next());
        let told_early = Directive::Reset { room, incarnation, threshold: Threshold::DEFAULT };
        told(&mut rig, frame(ana, reset(1, "lobby", 2)), and(deliver(told_early)))
    };
    following_from_another_place: FOLLOW, || {
        let (mut rig, ana, _) = open();
        let join = question(&mut rig, ana, question_join("lobby"));
        told(&mut rig, join, with(is_follow, |output| {
            let Output::Deliver(Directive::Follow { after, .. }) = output else { return };
            *after = after.next();
        }))
    };
    following_that_does_not_begin: FOLLOW, || {
        let (mut rig, ana, _) = open();
        let join = question(&mut rig, ana, question_join("lobby"));
        told(&mut rig, join, without(is_follow))
    };
    following_before_what_was_there_is_shown: FOLLOW, || {
        let (mut rig, ana, _) = open();
        rig.input(say(ana, 1))?;
        let join = question(&mut rig, ana, question_join("lobby"));
        rig.input(join)?;
        persisted(&mut rig, |mut outputs| {
            let place = outputs.iter().position(is_visible).unwrap();
            let visible = outputs.remove(place);
            outputs.push(visible);
            outputs
        })
    };
    gate_that_is_not_told: GATE_TOLD, || {
        let (mut rig, _, bob) = open();
        rig.input(frame(bob, ClientFrame::Leave))?;
        persisted(&mut rig, without(is_gate))
    };
    gate_that_is_told_with_other_counts: GATE_TOLD, || {
        let (mut rig, _, bob) = open();
        rig.input(frame(bob, ClientFrame::Leave))?;
        persisted(&mut rig, with(is_gate, |output| {
            let Output::Deliver(Directive::Gate { gate, .. }) = output else { return };
            gate.users += 1;
        }))
    };
    place_before_the_gate_is_told_to_be_open: GATE_FIRST, || {
        let (mut rig, ana) = closed();
        rig.input(say(ana, 1))?;
        rig.persist(usize::MAX)?;
        let bob = rig.log_in("bob");
        let join = question(&mut rig, bob, question_join("lobby"));
        rig.input(join)?;
        rig.input(say(ana, 1))?;
        persisted(&mut rig, |mut outputs| {
            // The answer to the post that the opening shows comes first.
            assert_eq!(sent(&outputs, ana).len(), 1, "the post is answered again");
            let to_ana = |output: &Output| {
                is_send(output) && matches!(output, Output::Deliver(Directive::Send { conn, .. })
                    if conn.get() == 1)
            };
            let place = outputs.iter().position(to_ana).unwrap();
            let accepted = outputs.remove(place);
            outputs.insert(0, accepted);
            outputs
        })
    };
    reset_that_is_not_told: RESET_TOLD, || {
        let (mut rig, ana, _) = open();
        rig.input(frame(ana, reset(1, "lobby", 9)))?;
        persisted(&mut rig, without(is_reset))
    };
    reset_that_is_told_twice: RESET_TOLD, || {
        let (mut rig, ana, _) = open();
        rig.input(frame(ana, reset(1, "lobby", 9)))?;
        persisted(&mut rig, twice(is_reset))
    };
    record_of_another_room: RECORD, || {
        let (mut rig, ana, bob) = open();
        rig.join(ana, "attic");
        rig.join(bob, "attic");
        rig.input(say(ana, 1))?;
        rig.input(frame(ana, post(2, "attic", "hi")))?;
        persisted(&mut rig, |mut outputs| {
            let chunks: Vec<_> = outputs
                .iter_mut()
                .filter_map(|output| match output {
                    Output::Deliver(Directive::Visible { chunk, .. }) => Some(chunk),
                    _ => None,
                })
                .collect();
            let [one, other] = chunks.try_into().unwrap();
            std::mem::swap(one, other);
            outputs
        })
    };
    record_that_is_shown_twice: VISIBLE_NEXT, || {
        let (mut rig, ana, _) = open();
        rig.input(say(ana, 1))?;
        persisted(&mut rig, twice(is_visible))
    };
    record_that_is_not_in_its_chunk: VISIBLE_WHOLE, || {
        let (mut rig, ana, _) = open();
        rig.input(say(ana, 1))?;
        persisted(&mut rig, with(is_visible, |output| {
            let Output::Deliver(Directive::Visible { chunk, .. }) = output else { return };
            *chunk = None;
        }))
    };
    record_that_is_not_shown: VISIBLE_ALL, || {
        let (mut rig, ana, _) = open();
        rig.input(say(ana, 1))?;
        persisted(&mut rig, without(is_visible))
    };
    page_that_does_not_come: PAGE, || {
        let (mut rig, ana) = talked(1 << 20, Archive::None);
        told(&mut rig, need(ana, 2), without(is_page))
    };
    page_from_another_cursor: PAGE, || {
        let (mut rig, ana) = talked(1 << 20, Archive::None);
        told(&mut rig, need(ana, 2), with(is_page, |output| {
            let Output::Deliver(Directive::Page { page, .. }) = output else { return };
            if let Page::Records(chunk) = page {
                *chunk = chunk.after(Seq::new(3).unwrap(), usize::MAX).unwrap();
            }
        }))
    };
    records_in_memory_that_are_said_to_be_gone: GONE, || {
        let (mut rig, ana) = talked(1 << 20, Archive::None);
        told(&mut rig, need(ana, 2), with(is_page, |output| {
            let Output::Deliver(Directive::Page { page, .. }) = output else { return };
            *page = Page::Gone { to: Seq::new(4).unwrap() };
        }))
    };
    history_that_lacks_a_record: HISTORY, || {
        let (mut rig, ana) = talked(1 << 20, Archive::None);
        let history = history(&mut rig, ana);
        answer(&mut rig, history, |frame| {
            if let ServerFrame::Answer { answer: Answer::History { records, .. }, .. } = frame {
                *records = List::first_of(records[1..].to_vec());
            }
        })
    };
    history_that_lacks_what_the_store_gave: HISTORY, || {
        let (mut rig, ana) = talked(0, Archive::Store);
        let history = history(&mut rig, ana);
        rig.input(history)?;
        let (token, room, incarnation, range, order) = rig.reads.pop_front().unwrap();
        let records = rig.stored((&room, incarnation), range, order, (0, 9));
        answer(&mut rig, Input::ReadDone { token, records }, |frame| {
            if let ServerFrame::Answer { answer: Answer::History { records, .. }, .. } = frame {
                *records = List::first_of(records[..2].to_vec());
            }
        })
    };
    read_of_another_range: READ, || {
        let (mut rig, ana) = talked(0, Archive::Store);
        told(&mut rig, need(ana, 2), with(
            |output| matches!(output, Output::Read { .. }),
            |output| {
                let Output::Read { from, .. } = output else { return };
                *from = Seq::ZERO.next();
            },
        ))
    };
}
