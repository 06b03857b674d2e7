//! Benchmarks of the chat engine and server.
//!
//! Three things are measured. The fan-out path by itself, inside one thread and without any socket:
//! [`rig`] under criterion, `cargo bench -p chat-bench`. And the server as a process, against the
//! least that any server on this machine could spend for the same bytes: the program `chat-bench`
//! ([`program`]). Both sides of that comparison see the same driver, the same receivers and the
//! same run, in turn, so that what remains between them is the server's own work.
//!
//! Two more commands look at the store: what being safe costs, against a bare loop that appends and
//! syncs (`commits`), and what a long history costs (`history`). The others look at a server among
//! people: many, absent, stuck, or hostile.
//!
//! - `fan_out`: rounds, medians, the table and the aims;
//! - `child`: a process that is measured;
//! - `crowd`: one sender and many receivers, in one thread;
//! - `ceiling`: the bare server;
//! - `commits`, `senders`, `bare_log`: many who post and wait, and the loop that only syncs;
//! - `history`: starting, memory and pages with a million messages;
//! - `idle`: memory of connections that only listen;
//! - `stuck`: readers that do not read, and those who do;
//! - `hostile`: what becomes of hostile inputs, and of those who talk meanwhile;
//! - `talk`: those who talk, beside many more who only listen;
//! - `comeback`: a server that is killed, and everybody who comes back to it;
//! - `town`, `conversation`: many clients as `chat-client` is one, and what they say to each other;
//! - `login`: how the crowd gets into a chat server;
//! - `stream`, `socket`, `tls`: non-blocking sockets under epoll, for the crowd and for the ceiling.
#![forbid(unsafe_code)]

mod bare_log;
mod ceiling;
mod child;
mod comeback;
mod commits;
mod conversation;
mod crowd;
mod failure;
mod fan_out;
mod frames;
mod history;
mod hostile;
mod idle;
mod login;
pub mod program;
pub mod rig;
mod senders;
mod socket;
mod stream;
mod stuck;
mod talk;
mod tls;
mod town;

#[cfg(test)]
mod tests;
