//! The bodies of the fuzz targets.
//!
//! Each is a function of bytes that panics when a rule is broken. `fuzz/` gives them to a fuzzer;
//! plain tests run them over the corpus in `fuzz/corpus`, so that what was found once is found
//! again without one.

mod choices;
pub mod client_ops;
mod desk;
mod ears;
pub mod engine_ops;
pub mod frame;
mod host;
pub mod hub;
pub mod journal;
pub mod json;
pub mod line;
pub mod message;
pub mod name;
pub mod snapshot;
mod text;

/// One fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of its program and of its folder in the corpus.
    pub name: &'static str,
    /// Its body.
    pub check: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "client_message", check: message::check_client },
    Target { name: "client_ops", check: client_ops::check },
    Target { name: "directory_message", check: message::check_directory },
    Target { name: "engine_ops", check: engine_ops::check },
    Target { name: "frame", check: frame::check },
    Target { name: "frame_json", check: json::check },
    Target { name: "hub", check: hub::check },
    Target { name: "journal", check: journal::check },
    Target { name: "line", check: line::check },
    Target { name: "name", check: name::check },
    Target { name: "node_message", check: message::check_node },
    Target { name: "server_message", check: message::check_server },
    Target { name: "snapshot", check: snapshot::check },
];
