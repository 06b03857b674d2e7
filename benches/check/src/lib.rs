//! Judges what chat clients showed by the rules of the contract alone.
//!
//! It reads the clients' `--json` output, one file a user, and shares no code with the chat: what
//! it finds, it finds in the lines that people and scripts get. The one addition is the line
//! `{"type":"killed"}`, which whoever kills a client writes where its output ends.
//!
//! Posts are told apart by their texts: `SENDER-NUMBER-ANYTHING` with the id `SENDER-NUMBER`,
//! numbers rising from post to post. Other texts are held to the rules of sequence numbers only.
//!
//! [`Judge`] takes the lines; [`Verdict`] is what it finds.

#![forbid(unsafe_code)]

mod event;
mod judge;
mod life;
mod posts;
mod stream;
mod verdict;

pub use judge::Judge;
pub use verdict::{AfterKill, Tally, Verdict};
