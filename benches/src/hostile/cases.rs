//! What hostile peers do, and what has to come of it.

use std::time::Duration;

use chatcore::codec::{PREFIX_BYTES, encode_to_bytes};
use chatcore::id::{Counter, Nonce, RequestId, Signature, Threshold};
use chatcore::limits::Limits;
use chatcore::text::{BODY_BYTES_MAX, NameError, Untrusted};
use chatcore::wire::{
    AuthFault, ClientFrame, ClientHello, Command, DecodeFault, FRAME_BYTES_MAX, FrameFault,
    GREETING_FRAME_BYTES_MAX, LIST_MAX, LimitFault, NameFault, Question, Refusal, Role, StateFault,
    TargetFault, VersionRange,
};

use super::caller::Caller;
use super::sign::{Expected, Sign, often, once};
use super::{LOOK_ALIKE, NAME, ROOM};
use crate::child::Transport;
use crate::failure::Failure;
use crate::frames::{post_to, text};
use crate::login::{key_of, log_in, log_in_by};

/// One thing that hostile peers do.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) input: &'static str,
    pub(super) by: &'static [Door],
    pub(super) act: fn(&mut Caller) -> Result<(), Failure>,
    pub(super) expected: Expected,
    pub(super) when: When,
}

/// Where a peer comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// At a port that takes everything, or at a Unix socket.
    Open(Transport),
    /// Unencrypted, at a port that takes TLS alone.
    TlsOnly,
}

/// When the server has to be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    AtOnce,
    /// When the time for a log-in is over.
    AtDeadline,
}

const EVERYWHERE: &[Door] =
    &[Door::Open(Transport::Tcp), Door::Open(Transport::Tls), Door::Open(Transport::Unix)];
const BY_TCP: &[Door] = &[Door::Open(Transport::Tcp)];

/// How slowly who is slow sends.
const DRIBBLE: Duration = Duration::from_millis(250);

/// Newcomers who come at once and never log in.
const SILENT_CROWD: usize = 200;

/// What is beyond any limit of a request's head.
const GIANT_HEADER_BYTES: usize = 256 << 10;

/// Everything that is tried.
pub(super) fn all() -> Vec<Case> {
    [frames(), slow(), log_ins(), by_http(), by_tls(), commands(), floods()].concat()
}

impl Case {
    const fn new(
        input: &'static str,
        by: &'static [Door],
        expected: Expected,
        act: fn(&mut Caller) -> Result<(), Failure>,
    ) -> Self {
        Self { input, by, act, expected, when: When::AtOnce }
    }

    fn at_deadline(self) -> Self {
        Self { when: When::AtDeadline, ..self }
    }
}

/// It is told why, and the connection ends.
fn closed(refusal: Refusal) -> Expected {
    vec![once(Sign::Close(refusal)), once(Sign::End)]
}

/// It is told no, and goes on.
fn refused(refusal: Refusal) -> Expected {
    vec![once(Sign::No(refusal)), once(Sign::Lives)]
}

fn ended() -> Expected {
    vec![once(Sign::End)]
}

fn send_and_read(caller: &mut Caller, bytes: &[u8]) -> Result<(), Failure> {
    caller.send(bytes);
    caller.read_to_end()
}

/// The prefix of a frame that is one byte longer than may be.
fn too_long(max: usize) -> [u8; PREFIX_BYTES] {
    u32::try_from(max.saturating_add(1)).unwrap_or(u32::MAX).to_be_bytes()
}

/// A frame of these bytes, whatever they mean.
fn frame_of(bytes: &[u8]) -> Vec<u8> {
    let prefix = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&prefix, bytes].concat()
}

/// The hello of a client, without its prefix; its last number is a zero.
fn hello() -> Vec<u8> {
    encode_to_bytes(&ClientFrame::hello()).get(PREFIX_BYTES..).unwrap_or_default().to_vec()
}

fn frames() -> Vec<Case> {
    let too_large = || closed(Refusal::Frame(FrameFault::TooLarge));
    let log_in_first = Refusal::State(StateFault::LogInFirst);
    let out_of_order =
        vec![(Sign::No(log_in_first), 2..=2), once(Sign::Close(log_in_first)), once(Sign::End)];
    let decode = |fault| closed(Refusal::Decode(fault));
    vec![
        Case::new("length over the limit", EVERYWHERE, too_large(), |caller| {
            send_and_read(caller, &too_long(GREETING_FRAME_BYTES_MAX))
        }),
        Case::new("length over the limit, logged in", EVERYWHERE, too_large(), |caller| {
            caller.log_in()?;
            send_and_read(caller, &too_long(FRAME_BYTES_MAX))
        }),
        Case::new("garbage bytes", EVERYWHERE, too_large(), |caller| {
            // Those that begin like frames, TLS or HTTP are other rows.
            let first = fastrand::u8(0x80..);
            let rest: Vec<u8> = (0..4_096).map(|_| fastrand::u8(..)).collect();
            send_and_read(caller, &[&[first], rest.as_slice()].concat())
        }),
        Case::new("empty frame", EVERYWHERE, closed(Refusal::Frame(FrameFault::Empty)), |caller| {
            send_and_read(caller, &frame_of(&[]))
        }),
        Case::new("frame of no kind", EVERYWHERE, decode(DecodeFault::Value), |caller| {
            send_and_read(caller, &frame_of(&[0x7F; 64]))
        }),
        Case::new(
            "bytes after a message",
            EVERYWHERE,
            decode(DecodeFault::TrailingBytes),
            |caller| send_and_read(caller, &frame_of(&[hello(), vec![0]].concat())),
        ),
        Case::new(
            "postcard, not canonical",
            EVERYWHERE,
            decode(DecodeFault::NotCanonical),
            |caller| {
                let mut bytes = hello();
                // A zero in two bytes.
                bytes.pop();
                bytes.extend([0x80, 0]);
                send_and_read(caller, &frame_of(&bytes))
            },
        ),
        Case::new("half a frame, then the end", EVERYWHERE, ended(), |caller| {
            let bytes = frame_of(&hello());
            caller.send(bytes.get(..bytes.len() / 2).unwrap_or_default());
            caller.stop_sending()?;
            caller.read_to_end()
        }),
        Case::new("three frames before the log-in", EVERYWHERE, out_of_order, |caller| {
            caller.send_frames((0..3).map(|_| ClientFrame::Leave));
            caller.read_to_end()
        }),
        Case::new(
            "frames where TLS alone is taken",
            &[Door::TlsOnly],
            closed(Refusal::Frame(FrameFault::Unencrypted)),
            |caller| send_and_read(caller, &frame_of(&hello())),
        ),
    ]
}

fn slow() -> Vec<Case> {
    let too_slow = || closed(Refusal::Limit(LimitFault::LoginTime));
    vec![
        Case::new("hello that dribbles", EVERYWHERE, too_slow(), |caller| {
            let prefix = u32::try_from(GREETING_FRAME_BYTES_MAX).unwrap_or(u32::MAX).to_be_bytes();
            caller.dribble(prefix.into_iter().chain(std::iter::repeat(0)), DRIBBLE)?;
            caller.read_to_end()
        })
        .at_deadline(),
        Case::new("hello, and no log-in", EVERYWHERE, too_slow(), |caller| {
            caller.greet()?;
            caller.read_to_end()
        })
        .at_deadline(),
        Case::new("200 at once: hello, and no log-in", BY_TCP, too_slow(), |caller| {
            let crowd: Result<Vec<_>, _> = (1..SILENT_CROWD).map(|_| caller.another()).collect();
            let mut crowd = crowd?;
            for other in &mut crowd {
                other.greet()?;
            }
            caller.greet()?;
            caller.read_to_end()?;
            for mut other in crowd {
                other.read_to_end()?;
                if !other.seen().0.meets(&closed(Refusal::Limit(LimitFault::LoginTime))) {
                    return Err(Failure::Protocol("one of them was treated in another way"));
                }
            }
            Ok(())
        })
        .at_deadline(),
        Case::new("not a byte", EVERYWHERE, ended(), Caller::read_to_end).at_deadline(),
        Case::new("HTTP that dribbles", EVERYWHERE, ended(), |caller| {
            let head = b"GET / HTTP/1.1\r\nx-slow: ".iter().copied();
            caller.dribble(head.chain(std::iter::repeat(b'a')), DRIBBLE)?;
            caller.read_bytes_to_end();
            Ok(())
        })
        .at_deadline(),
        Case::new("TLS hello that dribbles", BY_TCP, ended(), |caller| {
            // A handshake message in a record of 512 bytes, which begins like a client's hello.
            let begun = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3];
            caller.dribble(begun.into_iter().chain(std::iter::repeat(0)), DRIBBLE)?;
            caller.read_bytes_to_end();
            Ok(())
        })
        .at_deadline(),
    ]
}

fn log_ins() -> Vec<Case> {
    let signature = || closed(Refusal::Auth(AuthFault::Signature));
    let name = |fault| closed(Refusal::Name(fault));
    vec![
        Case::new("log-in with a wrong signature", EVERYWHERE, signature(), |caller| {
            let hello = caller.greet()?;
            let mut login = log_in(&hello, caller.channel(), caller.name());
            login.signature = Signature::new([1; 64]);
            caller.send_frame(&ClientFrame::Login(login));
            caller.read_to_end()
        }),
        Case::new("log-in replayed on another connection", EVERYWHERE, signature(), |caller| {
            let login = caller.another()?.log_in()?;
            caller.greet()?;
            caller.send_frame(&ClientFrame::Login(login));
            caller.read_to_end()
        }),
        Case::new("log-in not bound to its TLS", TLS, signature(), |caller| {
            let hello = caller.greet()?;
            let login = log_in(&hello, None, caller.name());
            caller.send_frame(&ClientFrame::Login(login));
            caller.read_to_end()
        }),
        Case::new("name that is taken", EVERYWHERE, name(NameFault::InUse), |caller| {
            log_in_as(caller, NAME)
        }),
        Case::new(
            "name that looks like another",
            EVERYWHERE,
            name(NameFault::TooSimilar),
            |caller| log_in_as(caller, LOOK_ALIKE),
        ),
        Case::new(
            "name with control characters",
            EVERYWHERE,
            name(NameFault::Bad(NameError::Character)),
            |caller| log_in_as(caller, "ann\u{1b}[2J"),
        ),
        Case::new(
            "name of the server",
            EVERYWHERE,
            name(NameFault::Bad(NameError::Reserved)),
            |caller| log_in_as(caller, "server"),
        ),
        Case::new(
            "version that nobody speaks",
            EVERYWHERE,
            closed(Refusal::Version(VersionRange::SUPPORTED)),
            |caller| {
                let versions = VersionRange { min: u16::MAX, max: u16::MAX };
                let hello = ClientHello { role: Role::Client, versions, features: 0 };
                caller.send_frame(&ClientFrame::Hello(hello));
                caller.read_to_end()
            },
        ),
        Case::new(
            "two proofs asked for",
            EVERYWHERE,
            refused(Refusal::State(StateFault::LogInFirst)),
            |caller| {
                caller.greet()?;
                caller
                    .send_frames((0..2).map(|_| ClientFrame::Prove { nonce: Nonce::new([7; 32]) }));
                caller.ping()
            },
        ),
    ]
}

const TLS: &[Door] = &[Door::Open(Transport::Tls)];

/// Logs in under a name, with a key of its own.
fn log_in_as(caller: &mut Caller, name: &str) -> Result<(), Failure> {
    let hello = caller.greet()?;
    let login = log_in_by(&key_of(caller.name()), &hello, caller.channel(), name);
    caller.send_frame(&ClientFrame::Login(login));
    caller.read_to_end()
}

fn by_http() -> Vec<Case> {
    let http = |status| vec![once(Sign::Http(status)), once(Sign::End)];
    vec![
        Case::new("HTTP with a giant header", EVERYWHERE, http(431), |caller| {
            let header = "a".repeat(GIANT_HEADER_BYTES);
            get(caller, "/", &header);
            Ok(())
        }),
        Case::new("HTTP, a thousand headers", EVERYWHERE, http(431), |caller| {
            let headers = "a\r\nx: ".repeat(1_000);
            get(caller, "/", &headers);
            Ok(())
        }),
        Case::new("HTTP /metrics", EVERYWHERE, http(404), |caller| {
            get(caller, "/metrics", "");
            Ok(())
        }),
        Case::new("HTTP /admin", EVERYWHERE, http(404), |caller| {
            get(caller, "/admin", "");
            Ok(())
        }),
        Case::new("HTTP /../../etc/passwd", EVERYWHERE, http(404), |caller| {
            get(caller, "/../../etc/passwd", "");
            Ok(())
        }),
        Case::new("HTTP that is none", EVERYWHERE, http(400), |caller| {
            caller.send(b"GET\0/ HTTP/9.9\r\n\r\n");
            caller.read_bytes_to_end();
            Ok(())
        }),
        Case::new("HTTP where TLS alone is taken", &[Door::TlsOnly], http(426), |caller| {
            get(caller, "/healthz", "");
            Ok(())
        }),
    ]
}

/// Asks for a page.
pub(super) fn get(caller: &mut Caller, path: &str, header: &str) {
    caller.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\nx: {header}\r\n\r\n").as_bytes());
    caller.read_bytes_to_end();
}

fn by_tls() -> Vec<Case> {
    let alert = || vec![once(Sign::Alert), once(Sign::End)];
    vec![
        Case::new("garbage after the first byte of TLS", BY_TCP, alert(), |caller| {
            let rest: Vec<u8> = std::iter::repeat_n(0xFF, 2_048).collect();
            caller.send(&[&[0x16], rest.as_slice()].concat());
            caller.read_bytes_to_end();
            Ok(())
        }),
        Case::new("garbage for a client hello of TLS", BY_TCP, alert(), |caller| {
            let rest: Vec<u8> = std::iter::repeat_n(0xFF, 508).collect();
            caller.send(&[&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC], rest.as_slice()].concat());
            caller.read_bytes_to_end();
            Ok(())
        }),
        // rustls closes without an alert here.
        Case::new("message of 16 MiB in TLS", BY_TCP, ended(), |caller| {
            caller.send(&[0x16, 3, 1, 0, 5, 1, 0xFF, 0xFF, 0xFF, 3]);
            caller.read_bytes_to_end();
            Ok(())
        }),
        Case::new("TLS at a Unix socket", &[Door::Open(Transport::Unix)], alert(), |caller| {
            caller.send(&[0x16, 3, 1, 2, 0, 1]);
            caller.read_bytes_to_end();
            Ok(())
        }),
    ]
}

fn counter(number: u64) -> Counter {
    Counter::ZERO.saturating_add(number)
}

fn commands() -> Vec<Case> {
    let gap = StateFault::Counter { expect: counter(1) };
    let state = |fault| refused(Refusal::State(fault));
    vec![
        Case::new("second log-in", EVERYWHERE, state(StateFault::AlreadyLoggedIn), |caller| {
            let login = caller.log_in()?;
            caller.send_frame(&ClientFrame::Login(login));
            caller.await_answers()
        }),
        Case::new("gap in the counters", EVERYWHERE, state(gap), |caller| {
            post(caller, &[(7, "hello")])
        }),
        Case::new(
            "counter used again for another text",
            EVERYWHERE,
            state(StateFault::CounterReused),
            |caller| post(caller, &[(1, "hello"), (1, "farewell")]),
        ),
        Case::new(
            "message over 8 KiB",
            EVERYWHERE,
            refused(Refusal::Limit(LimitFault::Body)),
            |caller| post(caller, &[(1, &text(BODY_BYTES_MAX + 1))]),
        ),
        Case::new("message of nothing", EVERYWHERE, refused(Refusal::Command), |caller| {
            post(caller, &[(1, "")])
        }),
        Case::new(
            "post into a room one is not in",
            EVERYWHERE,
            state(StateFault::NotMember),
            |caller| {
                caller.log_in()?;
                caller.post(ROOM, counter(1), "hello");
                caller.await_answers()
            },
        ),
        Case::new(
            "post into no room",
            EVERYWHERE,
            refused(Refusal::Target(TargetFault::Room)),
            |caller| {
                caller.log_in()?;
                caller.post(&caller.own_room(), counter(1), "hello");
                caller.await_answers()
            },
        ),
        Case::new(
            "history of a room one is not in",
            EVERYWHERE,
            state(StateFault::NotMember),
            |caller| {
                caller.log_in()?;
                caller.ask(RequestId::ZERO, history(ROOM));
                caller.await_answers()
            },
        ),
        Case::new("reset by who is no operator", EVERYWHERE, refused(Refusal::Perm), |caller| {
            caller.log_in()?;
            let (room, threshold) = (Untrusted::new(ROOM), Threshold::DEFAULT);
            let command = Command::Reset { room, threshold };
            caller.send_frame(&ClientFrame::Submit { counter: counter(1), command });
            caller.await_answers()
        }),
    ]
}

/// Posts to a room of one's own, and looks whether the connection goes on.
fn post(caller: &mut Caller, posts: &[(u64, &str)]) -> Result<(), Failure> {
    caller.settle()?;
    for (number, text) in posts {
        caller.post(&caller.own_room(), counter(*number), text);
    }
    caller.await_answers()
}

fn history(room: &str) -> Question {
    let limit = u16::try_from(LIST_MAX).unwrap_or(u16::MAX);
    Question::History { room: Untrusted::new(room), before: None, limit }
}

fn floods() -> Vec<Case> {
    let flood = Sign::Close(Refusal::Limit(LimitFault::Flood));
    let slow_reader = Sign::Close(Refusal::Limit(LimitFault::SlowReader));
    let slowed = || vec![often(Sign::Later), once(Sign::Lives)];
    vec![
        Case::new("flood of pings", EVERYWHERE, vec![once(flood), once(Sign::End)], |caller| {
            caller.log_in()?;
            let token = RequestId::ZERO;
            caller.send_frames((0..frames_of_a_flood()).map(|_| ClientFrame::Ping { token }));
            caller.read_to_end()
        }),
        Case::new(
            "flood of posts",
            EVERYWHERE,
            vec![often(Sign::Later), once(flood), once(Sign::End)],
            |caller| {
                caller.settle()?;
                let post = post_to(&caller.own_room(), counter(1), "hello");
                caller.send_frames((0..frames_of_a_flood()).map(|_| post.clone()));
                caller.read_to_end()
            },
        ),
        Case::new("flood of bytes", EVERYWHERE, slowed(), |caller| {
            caller.settle()?;
            let post = post_to(&caller.own_room(), counter(1), &text(BODY_BYTES_MAX));
            let posts = Limits::default().bytes_burst * 3 / 2 / post.counted_bytes();
            caller.send_frames((0..posts).map(|_| post.clone()));
            caller.ping()
        }),
        Case::new("flood of questions", EVERYWHERE, slowed(), |caller| {
            caller.log_in()?;
            let questions = u64::from(Limits::default().question_burst) * 2;
            let ask = |number| ClientFrame::Ask {
                request: RequestId::ZERO.saturating_add(number),
                question: Question::Rooms,
            };
            caller.send_frames((0..questions).map(ask));
            caller.ping()
        }),
        Case::new(
            "4 MiB of history asked for at once",
            EVERYWHERE,
            vec![once(slow_reader), once(Sign::End)],
            |caller| {
                caller.settle()?;
                let room = caller.own_room();
                (1..=8)
                    .for_each(|number| caller.post(&room, counter(number), &text(BODY_BYTES_MAX)));
                // Joining was one of them.
                let questions = u64::from(Limits::default().question_burst - 1);
                let ask = |number| ClientFrame::Ask {
                    request: RequestId::ZERO.saturating_add(number),
                    question: history(&room),
                };
                caller.send_frames((0..questions).map(ask));
                caller.read_to_end()
            },
        ),
    ]
}

/// More than a connection may send at once and as many in vain, and what it may send meanwhile.
fn frames_of_a_flood() -> u32 {
    let limits = Limits::default();
    limits.frames_burst * 2 + limits.frames_per_second * 4
}
