//! A chat server: a thin host of the [`chatcore`] engine.
//!
//! [`Server::start`] listens and serves; [`Server::attach`] serves a byte stream that the embedding
//! program accepted itself. [`ServerConfig::storage`] says where it keeps what it acknowledges, and
//! [`check`], [`backup()`], [`export`] and [`import`] work on that. [`Orders`] talks to a server that runs. [`Directory`] is the address that stays when a chat moves, and
//! [`DirectoryClient`] asks one. The program `chat-server` is [`program::main`].
//!
//! Who does what:
//!
//! - one task owns the engine, and with it every decision (`host`);
//! - delivery shards own the writing side of connections and write to all of them from one task
//!   each, so that a message wakes a task per shard and not per reader (`shard`);
//! - threads of the store keep the journal and read it, so that no task waits for the disk (`store`);
//! - one task per connection reads and cuts frames, nothing else (`connection`);
//! - listeners accept and survive running out of descriptors (`listener`);
//! - the door tells frames, TLS and HTTP apart and has a bounded number of places (`door`, `addresses`,
//!   `tls`, `http`);
//! - a crew of as many threads as there are cores does the heavy work that strangers can ask for: it
//!   answers handshakes and checks signatures, and lets only so many wait (`crew`, `verify`);
//! - metrics count for a monitoring system, which asks on a socket of its own (`metrics`);
//! - calls of those who run the server come by that socket, too (`admin`);
//! - a directory is a server of its own behind the same door (`directory`);
//! - retention counts what rooms keep, and asks the engine to forget what is too much (`retention`).
//!
//! Data flows one way: connection → engine → shard → connection. The one way back, from a shard to
//! the engine, never blocks the shard, so no ring of full channels can form.
//!
//! Invariants: every channel is bounded, or what can be in it is (`store::threads`); no lock is held
//! while anything waits; nothing here decides about rooms or users.
#![forbid(unsafe_code)]

mod addresses;
mod admin;
mod anybody;
mod clock;
mod connection;
mod crew;
mod descriptors;
mod dial;
mod directory;
mod door;
mod figures;
mod host;
mod http;
mod key;
mod listener;
mod metrics;
#[cfg(chat_mutants)]
mod mutant;
mod orders;
pub mod program;
mod retention;
mod server;
mod shard;
mod store;
mod tls;
mod verify;

#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub use store::fuzz;

pub use addresses::AddressLimits;
pub use admin::{AdminToken, TokenError, admin_calls};
pub use directory::{
    Directory, DirectoryClient, DirectoryConfig, DirectoryError, DirectoryFailure,
    DirectoryStartError, Pace, Proposed,
};
pub use key::{KeyError, ServerKey};
pub use listener::{ListenError, Plaintext};
pub use orders::{IdentityError, OrderError, OrderKey, Orders};
pub use retention::{Bound, BoundError, Keep};
pub use server::{Failure, Server, ServerConfig, StartError, Stopped};
pub use store::{
    BackedUp, BackupError, BackupStep, Checked, Durability, Fault, Finding, Flaw, LineFlaw, Note,
    OpenFolder, Storage, StoreError, StoreFailure, TransferError, TransferStep, backup, check,
    export, import,
};
pub use tls::{Tls, TlsError};
