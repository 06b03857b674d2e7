//! A client that is told that the chat moves, and has one connection.

use chatcore::client::{Event, Input, Output, Saved};
use chatcore::id::{BootId, Generation, LogId, PublicKey};
use chatcore::time::Span;
use chatcore::wire::{Addresses, Location, ServerFrame, ServerHello};

use crate::script::{SESSION, Script, hello, submitted};

fn location(log: u8, generation: u64) -> Location {
    Location {
        generation: Generation::new(generation).unwrap(),
        log_id: LogId::new([log; 16]),
        key: PublicKey::new([7; 32]),
        boot: BootId::new([7; 16]),
        tls_key: None,
        addresses: Addresses::default(),
    }
}

fn hello_of(generation: u64) -> ServerHello {
    ServerHello { generation: Generation::new(generation).unwrap(), ..hello(1, 9) }
}

fn hangs_up(outputs: &[Output]) -> bool {
    outputs.contains(&Output::Hangup)
}

#[test]
fn moved_chat_is_dialled_again_and_what_was_not_answered_is_sent_there() {
    let mut script = Script::joined();
    script.post("a");
    let outputs = script.frame(ServerFrame::Moved(location(1, 4)));
    assert!(hangs_up(&outputs), "{outputs:?}");
    let told = outputs
        .iter()
        .any(|output| matches!(output, Output::Event(Event::Disconnected { retry: Some(_), .. })));
    assert!(told, "{outputs:?}");
    assert!(script.wait().contains(&Output::Dial));
    // Who owned it before is not believed any more.
    let outputs = script.say(Input::Dialled { channel: None });
    assert!(!hangs_up(&outputs));
    assert!(hangs_up(&script.frame(ServerFrame::Hello(hello_of(3)))));
    script.wait();
    script.log_in(&hello_of(4));
    assert_eq!(submitted(&script.enter(SESSION, 0, true)), [1]);
}

#[test]
fn generation_that_a_server_goes_on_in_ends_that_of_before() {
    let mut script = Script::joined();
    let generation = Generation::new(5).unwrap();
    assert!(script.frame(ServerFrame::Generation { generation }).is_empty());
    // What comes late takes nothing back.
    let generation = Generation::new(2).unwrap();
    assert!(script.frame(ServerFrame::Generation { generation }).is_empty());
    script.lose();
    script.say(Input::Dialled { channel: None });
    assert!(hangs_up(&script.frame(ServerFrame::Hello(hello_of(4)))));
}

#[test]
fn generation_of_another_journal_says_nothing_of_this_one() {
    let mut script = Script::joined();
    script.frame(ServerFrame::Moved(location(2, 9)));
    script.wait();
    script.log_in(&hello_of(0));
    script.enter(SESSION, 0, true);
    assert!(script.client.is_online());
}

#[test]
fn stranger_that_says_moved_before_a_log_in_is_left_and_its_generation_not_believed() {
    let mut script = Script::new(Saved::new(SESSION));
    script.say(Input::Dialled { channel: None });
    assert!(hangs_up(&script.frame(ServerFrame::Moved(location(1, 9)))));
    script.wait();
    script.log_in(&hello_of(1));
    script.enter(SESSION, 0, false);
    assert!(script.client.is_online());
}

#[test]
fn log_in_that_waits_is_let_in_later_or_tried_again() {
    let mut script = Script::new(Saved::new(SESSION));
    script.log_in(&hello(1, 9));
    assert!(script.frame(ServerFrame::Parked(location(1, 0))).is_empty());
    assert!(script.frame(ServerFrame::Parked(location(1, 1))).is_empty());
    script.enter(SESSION, 0, false);
    assert!(script.client.is_online());
    let mut script = Script::new(Saved::new(SESSION));
    script.log_in(&hello(1, 9));
    script.frame(ServerFrame::Parked(location(1, 0)));
    assert!(hangs_up(&script.wait()), "it waits no longer than for any answer");
    assert!(script.wait().contains(&Output::Dial));
}

#[test]
fn announcement_of_a_move_changes_nothing_on_the_connection_that_hears_it() {
    let mut script = Script::joined();
    let (target, within_ms) = (location(1, 0), Span::from_millis(500));
    assert!(script.frame(ServerFrame::Prepare { target, within_ms }).is_empty());
    assert!(script.frame(ServerFrame::Stay).is_empty());
    assert_eq!(submitted(&script.post("a")), [1]);
}

#[test]
fn news_of_a_move_out_of_order_end_the_connection() {
    let (target, within_ms) = (location(1, 0), Span::from_millis(500));
    let generation = Generation::ZERO;
    let prepare = ServerFrame::Prepare { target, within_ms };
    for frame in [prepare, ServerFrame::Stay, ServerFrame::Generation { generation }] {
        let mut script = Script::new(Saved::new(SESSION));
        script.log_in(&hello(1, 9));
        assert!(hangs_up(&script.frame(frame)));
    }
    assert!(hangs_up(&Script::joined().frame(ServerFrame::Parked(location(1, 0)))));
}
