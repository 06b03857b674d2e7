//! The fan-out path inside one thread: from a post to the bytes that every follower is written.
//!
//! `cargo bench -p chat-bench` measures; with `-- --test` everything runs once.

use std::hint::black_box;

use bytes::BytesMut;
use chat_bench::rig::Rig;
use chatcore::codec::{decode, encode};
use chatcore::engine::{Config, Engine};
use chatcore::id::{Counter, Incarnation, Seq};
use chatcore::text::Untrusted;
use chatcore::time::{Moment, Now, Timestamp};
use chatcore::wire::{ClientFrame, Command, Record, RecordBody, ServerFrame};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// A text of usual length.
const TEXT: &str = "The quick brown fox jumps over the lazy dog, and the dog goes on sleeping in \
                    the afternoon sun....";

/// Post, commit, and take the bytes for all followers.
fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fan_out");
    for (followers, posts) in [(10, 1), (10, 256), (1_000, 1), (1_000, 256)] {
        let mut rig = Rig::new(followers);
        group.throughput(Throughput::Elements(followers * posts));
        let id = BenchmarkId::new(format!("{followers}_followers"), format!("{posts}_posts"));
        group.bench_function(id, |bencher| bencher.iter(|| rig.post(black_box(posts), TEXT)));
    }
    group.finish();
}

/// What a connection's reader does for each post, and the engine for each record.
fn codec(criterion: &mut Criterion) {
    let (room, body) = (Untrusted::new("lobby"), Untrusted::new(TEXT));
    let command = Command::Post { room, incarnation: None, body };
    let submit = ClientFrame::Submit { counter: Counter::ZERO.next(), command };
    let mut bytes = BytesMut::new();
    encode(&submit, &mut bytes);
    let frame = bytes.split().freeze().split_off(4);
    criterion.bench_function("decode_post", |bencher| {
        bencher.iter(|| decode::<ClientFrame>(black_box(&frame)));
    });
    let record = ServerFrame::Record(Record {
        room: "lobby".parse().expect("a name"),
        incarnation: Incarnation::ZERO.next(),
        seq: Seq::ZERO.saturating_add(100_000),
        at: Timestamp::ZERO,
        body: RecordBody::Post {
            from: "ana".parse().expect("a name"),
            text: TEXT.parse().expect("a text"),
        },
    });
    criterion.bench_function("encode_record", |bencher| {
        bencher.iter(|| {
            bytes.clear();
            encode(black_box(&record), &mut bytes);
        });
    });
}

/// The durable state of a room of 1,000 with 10,000 records in memory, as bytes and back.
fn restore(criterion: &mut Criterion) {
    let mut rig = Rig::new(1_000);
    rig.post(10_000, TEXT);
    let bytes = rig.snapshot();
    let now = Now { moment: Moment::from_millis(0), wall: Timestamp::ZERO };
    let mut group = criterion.benchmark_group("state");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("snapshot", |bencher| bencher.iter(|| rig.snapshot()));
    group.bench_function("restore", |bencher| {
        bencher.iter(|| Engine::restore(black_box(&bytes), [], Config::default(), now));
    });
    group.finish();
}

criterion_group!(benches, fan_out, codec, restore);
criterion_main!(benches);
