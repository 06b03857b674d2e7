//! A chat engine as a deterministic, transport-agnostic state machine.
//!
//! People join rooms by name and talk. A room's gate holds everything back until enough users are
//! connected at once; then everybody sees all of it, in order, for good. `chatcore` decides all of
//! that and does none of the rest: no sockets, clock, randomness, threads, files or logging. What
//! happens outside comes in as values, what has to be done comes out as values, and the same inputs
//! always give the same outputs, byte for byte.
//!
//! # A chat in memory
//!
//! ```
//! use chatcore::engine::Config;
//! use chatcore::hub::Hub;
//! use chatcore::id::{Attach, ConnId, Counter, LogId, Nonce, PublicKey, RequestId, SessionId};
//! use chatcore::id::{Signature, Threshold};
//! use chatcore::log::Founding;
//! use chatcore::text::Untrusted;
//! use chatcore::time::Now;
//! use chatcore::wire::{ClientFrame, Command, Login, Question, RecordBody, ServerFrame, Start};
//!
//! # fn main() -> Result<(), chatcore::limits::LimitsError> {
//! let (now, room, key) = (Now::default(), Untrusted::new("lobby"), PublicKey::new([0; 32]));
//! let (log_id, threshold) = (LogId::new([0; 16]), Threshold::DEFAULT);
//! let founding = Founding { log_id, server_key: key, threshold, operators: vec![] };
//! let mut hub = Hub::found(founding, Config::default(), now, |_key, _message, _signature| true)?;
//! for (number, name) in [(1, "ana"), (2, "beto")] {
//!     let conn = ConnId::new(number.into());
//!     hub.connect(now, conn, Nonce::new([0; 32]));
//!     hub.receive_frame(now, conn, ClientFrame::hello());
//!     let (key, signature) = (PublicKey::new([number; 32]), Signature::new([0; 64]));
//!     let (session, attach) = (SessionId::new([number; 16]), Attach::ZERO);
//!     let login = Login { name: Untrusted::new(name), key, session, attach, signature };
//!     hub.receive_frame(now, conn, ClientFrame::Login(login));
//!     let question = Question::Join { room: room.clone(), start: Start::Last(100) };
//!     hub.receive_frame(now, conn, ClientFrame::Ask { request: RequestId::ZERO, question });
//! }
//! let command = Command::Post { room, incarnation: None, body: Untrusted::new("hello") };
//! let counter = Counter::ZERO.next();
//! hub.receive_frame(now, ConnId::new(1), ClientFrame::Submit { counter, command });
//!
//! let heard = hub.take_frames(now, ConnId::new(2)).into_iter().find_map(|frame| match frame {
//!     ServerFrame::Record(record) => match record.body {
//!         RecordBody::Post { from, text } => Some(format!("{from}: {}", text.as_str())),
//!         _ => None,
//!     },
//!     _ => None,
//! });
//! assert_eq!(heard.as_deref(), Some("ana: hello"));
//! # Ok(())
//! # }
//! ```
//!
//! # The map
//!
//! | module | what it is |
//! |---|---|
//! | [`engine`] | the server's side: rooms, gates, sessions, and the journal that holds them |
//! | [`delivery`] | the way to many readers: cursors over records that are encoded once |
//! | [`client`] | the client's side: connecting, sending again, seeing everything once |
//! | [`migration`] | who owns a chat: moving it, and taking it over |
//! | [`hub`] | engine and delivery in one value, for programs that keep nothing |
//! | [`log`], [`chunk`] | entries and their hash chain; encoded records |
//! | [`wire`], [`codec`] | frames, refusals, records; length-delimited postcard |
//! | [`limits`] | every bound, with its reason and cost |
//! | [`id`], [`text`], [`time`], [`address`] | types that are valid by construction |
//!
//! `PROTOCOL.md` beside this crate describes the wire format for other languages.
//!
//! # Features
//!
//! `tokio` adds `FrameCodec`, the codec behind tokio-util's `Encoder` and `Decoder`.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::disallowed_methods,
        reason = "a test that panics is a test that fails"
    )
)]

// First, as its macro is in scope only for what comes after it.
#[macro_use]
#[cfg(not(chat_mutants))]
mod mutant;
#[macro_use]
#[cfg(chat_mutants)]
pub mod mutant;

pub mod address;
pub mod chunk;
pub mod client;
pub mod codec;
pub mod delivery;
pub mod engine;
pub mod hub;
pub mod id;
pub mod limits;
pub mod log;
pub mod migration;
pub mod text;
pub mod time;
pub mod wire;
