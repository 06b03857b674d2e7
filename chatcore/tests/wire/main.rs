//! The wire format, pinned and attacked: what `PROTOCOL.md` promises.

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
