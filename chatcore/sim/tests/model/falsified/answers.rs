//! Answers, closes and pings that are not due.

use super::*;

breaks! {
    post_that_a_full_store_does_not_refuse: ANSWER_ONCE, || {
        let (mut rig, ana, _) = open();
        rig.input(Input::StoreFull)?;
        told(&mut rig, say(ana, 1), without(is_send))
    };
    welcome_with_another_counter: ANSWER, || {
        let mut rig = rig();
        let conn = rig.dial()?;
        rig.send(conn, ClientFrame::hello())?;
        rig.send(conn, login("ana", session("ana", 0), 1))?;
        rig.verify_all()?;
        persisted(&mut rig, with(is_send, |output| {
            let Output::Deliver(Directive::Send { frame, .. }) = output else { return };
            if let ServerFrame::Welcome(welcome) = frame {
                welcome.last_counter = Counter::MAX;
            }
        }))
    };
    gap_in_the_counters_that_expects_another: ANSWER, || {
        let (mut rig, ana, _) = open();
        answer(&mut rig, say(ana, 7), |frame| {
            if let ServerFrame::Refused { refusal, .. } = frame {
                *refusal = Refusal::State(StateFault::Counter { expect: Counter::MAX });
            }
        })
    };
    question_too_often_with_another_wait: ANSWER, || {
        let limits = Limits { question_burst: 1, ..Limits::default() };
        let mut rig = Rig::new(Setup { limits, threshold: 2, ..Setup::default() });
        let ana = rig.log_in("ana");
        rig.join(ana, "lobby");
        let rooms = question(&mut rig, ana, Question::Rooms);
        answer(&mut rig, rooms, |frame| {
            if let ServerFrame::Answer { answer, .. } = frame {
                *answer = Answer::Refused(Refusal::Rate { retry_ms: Span::ZERO });
            }
        })
    };
    room_that_is_not_listed: ANSWER, || {
        let (mut rig, ana, _) = open();
        let rooms = question(&mut rig, ana, Question::Rooms);
        answer(&mut rig, rooms, |frame| {
            if let ServerFrame::Answer { answer: Answer::Rooms { rooms, .. }, .. } = frame {
                *rooms = List::default();
            }
        })
    };
    answer_that_is_lost: ANSWER_ONCE, || {
        let (mut rig, ana, _) = open();
        rig.input(say(ana, 1))?;
        persisted(&mut rig, without(is_send))
    };
    answer_that_comes_twice: ANSWER_ONCE, || {
        let (mut rig, ana, _) = open();
        rig.input(say(ana, 1))?;
        persisted(&mut rig, twice(is_send))
    };
    answers_in_another_order: ANSWER_ORDER, || {
        let (mut rig, ana, _) = open();
        rig.input(say(ana, 1))?;
        rig.input(say(ana, 2))?;
        persisted(&mut rig, |mut outputs| {
            let places = outputs.iter().enumerate().filter(|(_, output)| is_send(output));
            let places: Vec<usize> = places.map(|(place, _)| place).collect();
            outputs.swap(places[0], places[1]);
            outputs
        })
    };
    signature_over_other_bytes: VERIFY, || {
        let mut rig = rig();
        let conn = rig.dial()?;
        rig.send(conn, ClientFrame::hello())?;
        let input = frame(conn, login("ana", session("ana", 0), 1));
        told(&mut rig, input, with(|output| matches!(output, Output::Verify { .. }), |output| {
            let Output::Verify { message, .. } = output else { return };
            message.push(0);
        }))
    };
    signature_that_is_not_checked: VERIFY, || {
        let mut rig = rig();
        let conn = rig.dial()?;
        rig.send(conn, ClientFrame::hello())?;
        let input = frame(conn, login("ana", session("ana", 0), 1));
        told(&mut rig, input, without(|output| matches!(output, Output::Verify { .. })))
    };
    proof_over_other_bytes: SIGN, || {
        let mut rig = rig();
        let conn = rig.dial()?;
        rig.send(conn, ClientFrame::hello())?;
        let input = frame(conn, ClientFrame::Prove { nonce: Nonce::new([4; 32]) });
        told(&mut rig, input, with(|output| matches!(output, Output::Sign { .. }), |output| {
            let Output::Sign { message, .. } = output else { return };
            message.push(0);
        }))
    };
    proof_that_is_not_given: SIGN, || {
        let mut rig = rig();
        let conn = rig.dial()?;
        rig.send(conn, ClientFrame::hello())?;
        let input = frame(conn, ClientFrame::Prove { nonce: Nonce::new([4; 32]) });
        told(&mut rig, input, without(|output| matches!(output, Output::Sign { .. })))
    };
    host_that_is_not_asked: REPORT, || {
        let (mut rig, verified) = asking()?;
        told(&mut rig, verified, without(|output| matches!(output, Output::Report { .. })))
    };
    host_that_is_asked_for_nobody: REPORT, || {
        let (mut rig, ana, _) = open();
        told(&mut rig, Input::Timeout, and(Output::Report { conn: ana }))
    };
    status_that_counts_wrong: ANSWER, || {
        let (mut rig, reported) = reporting()?;
        answer(&mut rig, reported, |frame| {
            if let ServerFrame::Status(status) = frame {
                status.users += 1;
            }
        })
    };
    status_that_is_lost: CLOSE, || {
        let (mut rig, reported) = reporting()?;
        told(&mut rig, reported, without(is_send))
    };
    close_that_is_lost: CLOSE, || {
        let (mut rig, ana, _) = open();
        told(&mut rig, frame(ana, ClientFrame::Leave), without(is_close))
    };
    close_that_comes_twice: CLOSE, || {
        let (mut rig, ana, _) = open();
        told(&mut rig, frame(ana, ClientFrame::Leave), twice(is_close))
    };
    close_for_another_reason: CLOSE, || {
        let (mut rig, ..) = open();
        told(&mut rig, Input::Stop, with(is_close, |output| {
            let Output::Deliver(Directive::Close { refusal, .. }) = output else { return };
            *refusal = None;
        }))
    };
    frame_after_a_close: AFTER_CLOSE, || {
        let (mut rig, ana, _) = open();
        let pong = ServerFrame::Pong { token: RequestId::ZERO };
        told(&mut rig, frame(ana, ClientFrame::Leave), and(send(ana, pong)))
    };
    frame_to_nobody: STRANGER, || {
        let (mut rig, ..) = open();
        let pong = ServerFrame::Pong { token: RequestId::ZERO };
        told(&mut rig, Input::Timeout, and(send(ConnId::new(99), pong)))
    };
    ping_of_a_lively_connection: PING, || {
        let (mut rig, ana, _) = open();
        let ping = ServerFrame::Ping { token: RequestId::ZERO };
        told(&mut rig, Input::Timeout, and(send(ana, ping)))
    };
    ping_that_is_lost: PING, || {
        let (mut rig, ..) = open();
        rig.pass(30_000);
        told(&mut rig, Input::Timeout, without(is_send))
    };
    measure_of_the_server_that_is_not_answered: MODERATED, || {
        let (mut rig, input) = moderating();
        rig.input(input)?;
        persisted(&mut rig, without(is_moderated))
    };
    measure_of_the_server_that_is_answered_early: MODERATED, || {
        let (mut rig, input) = moderating();
        let answer = Output::Moderated { request: RequestId::ZERO, refusal: None };
        told(&mut rig, input, and(answer))
    };
    measure_of_the_server_that_is_refused_for_nothing: MODERATED, || {
        let (mut rig, input) = moderating();
        rig.input(input)?;
        persisted(&mut rig, with(is_moderated, |output| {
            let Output::Moderated { refusal, .. } = output else { return };
            *refusal = Some(Refusal::Perm);
        }))
    };
    who_is_sent_away_and_stays: CLOSE, || {
        let (mut rig, input) = moderating();
        rig.input(input)?;
        persisted(&mut rig, without(is_close))
    };
    event_that_did_not_happen: EVENT, || {
        let (mut rig, ..) = open();
        told(&mut rig, Input::Timeout, and(Output::Event(Event::GateOpened { room: lobby() })))
    };
}
