//! The delivery shard on its own: which bytes, in which order, at what cost.

use bytes::Bytes;
use chatcore::chunk::Chunk;
use chatcore::codec::{FrameBuffer, decode};
use chatcore::delivery::Delivery;
use chatcore::engine::{Archive, Directive, Need, Output, Page};
use chatcore::id::*;
use chatcore::limits::Limits;
use chatcore::time::{Moment, Span};
use chatcore::wire::*;

use crate::rig::{Persisting, Setup, seq};

const READER: ConnId = ConnId::new(1);

/// The chunks of `count` posts of about `size` bytes in an open room, one each.
fn chunks(room: &str, count: u64, size: usize) -> Vec<Chunk> {
    let mut setup = Setup::limits(|limits| limits.window_bytes = 0);
    setup.archive = Archive::Store;
    setup.threshold = 1;
    let mut rig = setup.rig();
    rig.enter("ana", room);
    let mut chunks = Vec::new();
    rig.persisting = Persisting::Held;
    for number in 2..2 + count {
        rig.post("ana", room, &format!("{number} {}", "x".repeat(size)));
        rig.persist();
        chunks.extend(rig.directives().filter_map(|directive| match directive {
            Directive::Visible { chunk, .. } => chunk.clone(),
            _ => None,
        }));
        rig.outputs.retain(|output| matches!(output, Output::Persist(_)));
    }
    assert_eq!(u64::try_from(chunks.len()), Ok(count));
    chunks
}

fn gate(open: bool, users: u32) -> GateState {
    let (incarnation, threshold) = (Incarnation::ZERO.next(), Threshold::DEFAULT);
    GateState { incarnation, users, threshold, open }
}

/// Follows a room of which the first record was seen.
fn follow(conn: ConnId, room: &str) -> Directive {
    let (room, one) = (room.parse().unwrap(), seq(1));
    Directive::Follow { conn, room, after: one, visible: one, gate: gate(true, 1) }
}

fn visible(room: &str, chunk: &Chunk) -> Directive {
    let (room, incarnation) = (room.parse().unwrap(), Incarnation::ZERO.next());
    Directive::Visible { room, incarnation, through: chunk.last(), chunk: Some(chunk.clone()) }
}

fn pong(token: u64) -> Directive {
    let frame = ServerFrame::Pong { token: RequestId::new(token).unwrap() };
    Directive::Send { conn: READER, frame }
}

fn shard() -> Delivery {
    let mut shard = as_told!(Delivery::new(&Limits::default()));
    shard.add(READER);
    shard
}

/// Writes in pieces of `piece` bytes, blocked after each; says what was written.
fn write_all(shard: &mut Delivery, conn: ConnId, piece: usize) -> Vec<u8> {
    let mut written = Vec::new();
    while let Some(ready) = shard.poll_ready() {
        assert_eq!(ready, conn);
        let mut slices = Vec::new();
        shard.gather(conn, &mut slices);
        let bytes: Vec<u8> = slices.concat().into_iter().take(piece).collect();
        if bytes.is_empty() {
            continue;
        }
        shard.wrote(conn, bytes.len());
        shard.blocked(conn, Moment::from_millis(0));
        assert_eq!(shard.poll_ready(), None, "a blocked connection is not ready");
        shard.writable(conn);
        written.extend(bytes);
    }
    written
}

fn frames(bytes: &[u8]) -> Vec<ServerFrame> {
    let mut buffer = FrameBuffer::default();
    buffer.feed(bytes);
    let frames = std::iter::from_fn(|| buffer.next_frame().unwrap()).collect::<Vec<Bytes>>();
    assert!(!buffer.is_inside_frame());
    frames.iter().map(|frame| decode(frame).unwrap()).collect()
}

#[test]
fn reader_blocked_at_every_byte_gets_the_same_bytes() {
    let chunks = chunks("lobby", 5, 20);
    let run = |piece: usize| {
        let mut shard = shard();
        shard.handle(pong(1));
        shard.handle(follow(READER, "lobby"));
        chunks.iter().for_each(|chunk| shard.handle(visible("lobby", chunk)));
        shard.handle(Directive::Gate { room: "lobby".parse().unwrap(), gate: gate(true, 9) });
        write_all(&mut shard, READER, piece)
    };
    let whole = run(usize::MAX);
    assert_eq!(frames(&whole).len(), 7);
    for piece in 1..whole.len() {
        assert_eq!(run(piece), whole, "in pieces of {piece}");
    }
}

#[test]
fn answer_never_lands_inside_a_frame() {
    let chunks = chunks("lobby", 3, 50);
    let len = chunks.iter().map(|chunk| chunk.bytes().len()).sum();
    for cut in 1..len {
        let mut shard = shard();
        shard.handle(follow(READER, "lobby"));
        chunks.iter().for_each(|chunk| shard.handle(visible("lobby", chunk)));
        assert_eq!(shard.poll_ready(), Some(READER));
        let mut slices = Vec::new();
        shard.gather(READER, &mut slices);
        let mut bytes = slices.concat();
        bytes.truncate(cut);
        shard.wrote(READER, cut);
        shard.handle(pong(7));
        bytes.extend(write_all(&mut shard, READER, 11));
        assert_eq!(frames(&bytes).len(), 4);
    }
}

#[test]
fn lagging_reader_holds_no_more_than_one_helping() {
    let chunks = chunks("lobby", 400, 8_000);
    let mut shard = shard();
    shard.handle(follow(READER, "lobby"));
    let (first, rest) = chunks.split_at(100);
    first.iter().for_each(|chunk| shard.handle(visible("lobby", chunk)));
    // The reader takes one helping and blocks; the room goes on.
    assert_eq!(shard.poll_ready(), Some(READER));
    let mut slices = Vec::new();
    shard.gather(READER, &mut slices);
    drop(slices);
    shard.blocked(READER, Moment::from_millis(0));
    rest.iter().for_each(|chunk| shard.handle(visible("lobby", chunk)));
    let held: Vec<u64> = chunks
        .into_iter()
        .filter_map(|chunk| {
            let place = chunk.first().get();
            (!Vec::from([chunk]).pop().unwrap().bytes().is_unique()).then_some(place)
        })
        .collect();
    let helping = held.iter().filter(|place| **place < 100).count();
    assert!(helping <= 10, "records of the helping: {helping}");
    let tail = held.len() - helping;
    assert!(tail <= 135, "records of the room's tail: {tail}");
}

#[test]
fn busy_room_starves_no_other() {
    let (busy, quiet) = (chunks("a-busy", 100, 8_000), chunks("quiet", 1, 10));
    let mut shard = shard();
    shard.handle(follow(READER, "a-busy"));
    shard.handle(follow(READER, "quiet"));
    busy.iter().for_each(|chunk| shard.handle(visible("a-busy", chunk)));
    shard.handle(visible("quiet", &quiet[0]));
    let bytes = write_all(&mut shard, READER, usize::MAX);
    let place = frames(&bytes).iter().position(
        |frame| matches!(frame, ServerFrame::Record(record) if record.room.as_ref() == "quiet"),
    );
    assert!(place.unwrap() < 20, "the quiet room came after {place:?} records");
}

#[test]
fn one_page_is_asked_for_at_a_time() {
    let mut shard = shard();
    for room in ["a", "b"] {
        let (name, gate) = (room.parse().unwrap(), gate(true, 1));
        let (after, visible) = (Seq::ZERO, seq(5));
        shard.handle(Directive::Follow { conn: READER, room: name, after, visible, gate });
    }
    assert_eq!(write_all(&mut shard, READER, 9), []);
    let need = shard.poll_need().unwrap();
    assert_eq!((need.room.as_ref(), need.after), ("a", Seq::ZERO));
    assert_eq!(shard.poll_need(), None);
    let (room, incarnation) = (need.room, need.incarnation);
    let page = Page::Gone { to: seq(5) };
    let gap = ServerFrame::Gap { room: room.clone(), incarnation, from: seq(1), to: seq(5) };
    shard.handle(Directive::Page { conn: READER, room, incarnation, page });
    assert_eq!(frames(&write_all(&mut shard, READER, 9)), [gap]);
    assert_eq!(shard.poll_need().unwrap().room.as_ref(), "b");
}

/// A room that is written to whenever there is a turn must not come between rooms that lag.
#[test]
fn pages_are_asked_for_in_turn_also_beside_a_busy_room() {
    let mut shard = shard();
    shard.handle(follow(READER, "a-busy"));
    for room in ["b", "c"] {
        let (room, gate, visible) = (room.parse().unwrap(), gate(true, 1), seq(100));
        shard.handle(Directive::Follow { conn: READER, room, after: Seq::ZERO, visible, gate });
    }
    let mut asked = String::new();
    for chunk in chunks("a-busy", 4, 10) {
        shard.handle(visible("a-busy", &chunk));
        write_all(&mut shard, READER, usize::MAX);
        let Need { conn, room, incarnation, after } = shard.poll_need().unwrap();
        asked.push_str(room.as_ref());
        let page = Page::Gone { to: after.next() };
        shard.handle(Directive::Page { conn, room, incarnation, page });
    }
    assert_eq!(asked, "bcbc");
}

#[test]
fn gate_of_an_earlier_life_is_not_told_after_a_reset() {
    let mut shard = shard();
    shard.handle(follow(READER, "lobby"));
    let room = || -> chatcore::text::RoomName { "lobby".parse().unwrap() };
    shard.handle(Directive::Gate { room: room(), gate: gate(true, 2) });
    let (incarnation, threshold) = (Incarnation::ZERO.next().next(), Threshold::DEFAULT);
    shard.handle(Directive::Reset { room: room(), incarnation, threshold });
    // An answer that only an open gate gives takes the notices of all rooms with it.
    let (counter, seq) = (Counter::new(1).unwrap(), Some(seq(1)));
    let frame = ServerFrame::Accepted { counter, room: room(), incarnation, seq };
    shard.handle(Directive::Send { conn: READER, frame });
    let closed = GateState { incarnation, users: 1, threshold, open: false };
    shard.handle(Directive::Gate { room: room(), gate: closed });
    let told = frames(&write_all(&mut shard, READER, usize::MAX));
    let gates = told.iter().filter_map(|frame| match frame {
        ServerFrame::Gate { gate, .. } => Some(*gate),
        _ => None,
    });
    assert_eq!(gates.collect::<Vec<_>>(), [closed], "{told:?}");
}

#[test]
fn page_of_an_earlier_life_is_dropped() {
    let chunks = chunks("lobby", 2, 10);
    let mut shard = shard();
    let (room, incarnation) = ("lobby".parse().unwrap(), Incarnation::ZERO.next());
    shard.handle(Directive::Follow {
        conn: READER,
        room,
        after: seq(1),
        visible: seq(3),
        gate: gate(true, 1),
    });
    write_all(&mut shard, READER, 99);
    let need = shard.poll_need().unwrap();
    let (next, threshold) = (incarnation.next(), Threshold::DEFAULT);
    let room = need.room.clone();
    shard.handle(Directive::Reset { room, incarnation: next, threshold });
    let told = frames(&write_all(&mut shard, READER, 99));
    assert!(matches!(told[..], [ServerFrame::Reset { .. }]), "{told:?}");
    let page = Page::Records(chunks[0].clone());
    shard.handle(Directive::Page { conn: READER, room: need.room, incarnation, page });
    assert_eq!(write_all(&mut shard, READER, 99), []);
}

#[test]
fn new_follower_is_not_told_a_gate_older_than_its_answer() {
    let mut shard = shard();
    let room = || "lobby".parse().unwrap();
    shard.handle(follow(READER, "lobby"));
    let late = ConnId::new(2);
    shard.add(late);
    let (after, visible) = (seq(1), seq(1));
    let newer = gate(true, 2);
    shard.handle(Directive::Follow { conn: late, room: room(), after, visible, gate: newer });
    assert_eq!(shard.poll_ready(), None);
    shard.handle(Directive::Gate { room: room(), gate: newer });
    while let Some(conn) = shard.poll_ready() {
        let mut slices = Vec::new();
        shard.gather(conn, &mut slices);
        assert_eq!(slices.is_empty(), conn == late);
        shard.wrote(conn, slices.concat().len());
    }
}

#[test]
fn stalled_connection_is_condemned_once_and_then_abandoned() {
    let mut shard = shard();
    shard.handle(pong(1));
    assert_eq!(shard.poll_ready(), Some(READER));
    shard.blocked(READER, Moment::from_millis(5));
    let due = Moment::from_millis(5) + Limits::default().stall_time;
    assert_eq!(shard.next_timeout(), Some(due));
    shard.expire(Moment::from_millis(6));
    assert_eq!(shard.poll_condemned(), None);
    shard.expire(due + Span::from_secs(1));
    let refusal = Refusal::Limit(LimitFault::SlowReader);
    assert_eq!(shard.poll_condemned(), Some((READER, refusal)));
    assert_eq!(shard.poll_condemned(), None);
    assert!(!shard.is_finished(READER));
    shard.handle(Directive::Close { conn: READER, refusal: Some(refusal) });
    assert_eq!(shard.poll_ready(), Some(READER));
    assert!(shard.is_finished(READER));
    shard.remove(READER);
    assert_eq!(shard.next_timeout(), None);
    // What comes late for it is harmless.
    shard.handle(pong(2));
    shard.handle(follow(READER, "lobby"));
    assert_eq!(shard.poll_ready(), None);
}

#[test]
fn stalled_connection_that_takes_bytes_again_is_told_why_it_closes() {
    let mut shard = shard();
    shard.handle(pong(1));
    assert_eq!(shard.poll_ready(), Some(READER));
    shard.blocked(READER, Moment::from_millis(5));
    shard.expire(Moment::from_millis(5) + Limits::default().stall_time);
    let refusal = Refusal::Limit(LimitFault::SlowReader);
    assert_eq!(shard.poll_condemned(), Some((READER, refusal)));
    shard.writable(READER);
    assert_eq!(shard.poll_condemned(), None);
    // Condemned it is all the same: it is answered no more.
    shard.handle(pong(2));
    shard.handle(Directive::Close { conn: READER, refusal: Some(refusal) });
    let told = frames(&write_all(&mut shard, READER, 9));
    assert!(matches!(told[..], [ServerFrame::Pong { .. }, ServerFrame::Close(_)]), "{told:?}");
    assert!(shard.is_finished(READER));
}

#[test]
fn nothing_is_written_after_the_last_frame() {
    let mut shard = shard();
    shard.handle(pong(1));
    shard.handle(Directive::Close { conn: READER, refusal: Some(Refusal::Gone) });
    shard.handle(pong(2));
    let told = frames(&write_all(&mut shard, READER, 9));
    assert!(matches!(told[..], [ServerFrame::Pong { .. }, ServerFrame::Close(_)]), "{told:?}");
}

#[test]
fn closing_connection_that_takes_nothing_is_abandoned_too() {
    let mut shard = shard();
    shard.handle(Directive::Close { conn: READER, refusal: Some(Refusal::Gone) });
    assert_eq!(shard.poll_ready(), Some(READER));
    shard.blocked(READER, Moment::from_millis(0));
    shard.expire(Moment::from_millis(0) + Limits::default().stall_time);
    assert_eq!(shard.poll_condemned(), None);
    assert_eq!(shard.poll_ready(), Some(READER));
    assert!(shard.is_finished(READER));
}

#[test]
fn connection_that_was_blocked_and_has_nothing_to_write_does_not_stall() {
    let mut shard = shard();
    shard.handle(pong(1));
    assert_eq!(shard.poll_ready(), Some(READER));
    let mut slices = Vec::new();
    shard.gather(READER, &mut slices);
    shard.wrote(READER, slices.concat().len());
    shard.blocked(READER, Moment::from_millis(0));
    shard.writable(READER);
    assert_eq!(shard.next_timeout(), None);
}

#[test]
fn room_keeps_no_chunk_that_is_longer_than_its_window() {
    let mut rig = Setup::default().rig();
    rig.enter("ana", "lobby");
    for _ in 0..150 {
        rig.post("ana", "lobby", &"x".repeat(8_000));
    }
    rig.login("bob");
    rig.persisting = Persisting::Held;
    rig.ask("bob", Question::Who { room: chatcore::text::Untrusted::new("lobby") });
    rig.join_from("bob", "lobby", Start::Last(0));
    rig.persist();
    let opened = rig.directives().find_map(|directive| match directive {
        Directive::Visible { chunk: Some(chunk), .. } => Some(chunk.clone()),
        _ => None,
    });
    let opened = opened.expect("the gate opened");
    assert!(opened.bytes().len() > 1 << 20, "a gate may hold more than a room may keep");

    let mut shard = shard();
    let room = "lobby".parse().unwrap();
    let (after, visible_before) = (Seq::ZERO, Seq::ZERO);
    let gate = gate(true, 2);
    shard.handle(Directive::Follow { conn: READER, room, after, visible: visible_before, gate });
    shard.handle(visible("lobby", &opened));
    assert_eq!(write_all(&mut shard, READER, usize::MAX), [0_u8; 0]);
    let need = shard.poll_need().expect("what is not kept is asked for");
    assert_eq!(need.after, Seq::ZERO);
}
