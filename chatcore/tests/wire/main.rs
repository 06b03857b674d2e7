//! The wire format, pinned and attacked: what `PROTOCOL.md` promises.
#![expect(clippy::unwrap_used, reason = "a test that panics is a test that fails")]

mod golden;
mod hostile;
mod mutation;
mod property;
mod protocol;
mod refusals;
mod samples;
mod schema;
mod stream;
mod variants;
