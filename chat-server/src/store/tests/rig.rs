//! A chat on a folder, without threads: every entry is kept before the next input.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use chatcore::engine::{Archive, Config, Directive, Engine, Input, Output, ReadOrder};
use chatcore::id::{
    Attach, ConnId, Counter, Digest, Incarnation, LogId, Nonce, PublicKey, RequestId, Seq,
    SessionId, Signature, Threshold,
};
use chatcore::limits::Limits;
use chatcore::log::{Entry, Founding, Head};
use chatcore::text::Untrusted;
use chatcore::time::{Now, Span, Timestamp};
use chatcore::wire::{
    ClientFrame, ClientHello, Command, Login, Question, Record, Role, Start, VersionRange,
};

use crate::retention::Keep;
use crate::store::journal::{AppendError, Wanted};
use crate::store::threads::Parts;
use crate::store::{Durability, Opened, StoreError, open};

pub(in crate::store) const KEY: PublicKey = PublicKey::new([9; 32]);

/// What the engine is told: nothing stays in memory.
pub(in crate::store) fn config() -> Config {
    let limits = Limits { window_bytes: 0, ..Limits::default() };
    Config { limits, archive: Archive::Store, ..Config::default() }
}

pub(in crate::store) fn founding() -> Founding {
    let (log_id, threshold) = (LogId::new([7; 16]), Threshold::new(1).unwrap());
    Founding { log_id, server_key: KEY, threshold, operators: Vec::new() }
}

/// What a folder says: where its journal ends, and the state there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Standing {
    pub(in crate::store) head: Head,
    pub(in crate::store) state_hash: Digest,
}

/// Opens a folder as a server does that keeps everything.
pub(in crate::store) fn reopen(folder: &Path) -> Result<Opened, StoreError> {
    reopen_keeping(folder, Keep::default())
}

/// Opens a folder as a server does that keeps so much.
pub(in crate::store) fn reopen_keeping(folder: &Path, keep: Keep) -> Result<Opened, StoreError> {
    open(folder, Durability::Commit, founding(), &config(), keep, Now::default())
}

/// Where a folder stands, if a server would take it up.
pub(in crate::store) fn standing(folder: &Path) -> Result<Standing, StoreError> {
    let Opened { engine, .. } = reopen(folder)?;
    Ok(Standing { head: engine.head(), state_hash: engine.state_hash() })
}

pub(in crate::store) struct Rig {
    pub(in crate::store) engine: Engine,
    pub(in crate::store) parts: Parts,
    pub(in crate::store) counter: Counter,
    /// Every record that anybody was shown.
    pub(in crate::store) shown: usize,
}

impl Rig {
    /// A chat in which one user is in the lobby.
    pub(in crate::store) fn start(folder: &Path) -> Self {
        Self::start_keeping(folder, Keep::default())
    }

    pub(in crate::store) fn start_keeping(folder: &Path, keep: Keep) -> Self {
        let Opened { engine, parts } = reopen_keeping(folder, keep).unwrap();
        let mut rig = Self { engine, parts, counter: Counter::ZERO, shown: 0 };
        rig.pump();
        rig.join("ana", 1);
        rig
    }

    pub(in crate::store) fn join(&mut self, name: &str, number: u8) {
        let conn = ConnId::new(number.into());
        let (nonce, channel, address) = (Nonce::new([number; 32]), None, None);
        let waited = Span::ZERO;
        self.input(Input::Connected { conn, nonce, channel, address, waited });
        let versions = VersionRange::SUPPORTED;
        self.frame(
            conn,
            ClientFrame::Hello(ClientHello { role: Role::Client, versions, features: 0 }),
        );
        self.frame(
            conn,
            ClientFrame::Login(Login {
                name: Untrusted::new(name),
                key: PublicKey::new([number; 32]),
                session: SessionId::new([number; 16]),
                attach: Attach::ZERO.next(),
                signature: Signature::new([0; 64]),
            }),
        );
        self.input(Input::Verified { conn, valid: true });
        self.enter(number, "lobby");
    }

    pub(in crate::store) fn enter(&mut self, number: u8, room: &str) {
        let question = Question::Join { room: Untrusted::new(room), start: Start::Last(10) };
        let request = RequestId::ZERO.next();
        self.frame(ConnId::new(number.into()), ClientFrame::Ask { request, question });
    }

    pub(in crate::store) fn post(&mut self, text: &str) {
        self.post_in("lobby", text);
    }

    pub(in crate::store) fn post_in(&mut self, room: &str, text: &str) {
        let (room, body) = (Untrusted::new(room), Untrusted::new(text));
        self.command(Command::Post { room, incarnation: None, body });
    }

    pub(in crate::store) fn reset(&mut self) {
        let (room, threshold) = (Untrusted::new("lobby"), Threshold::new(1).unwrap());
        self.command(Command::Reset { room, threshold });
    }

    fn command(&mut self, command: Command) {
        self.counter = self.counter.next();
        let counter = self.counter;
        self.frame(ConnId::new(1), ClientFrame::Submit { counter, command });
    }

    fn frame(&mut self, conn: ConnId, frame: ClientFrame) {
        self.input(Input::Frame { conn, frame });
    }

    pub(in crate::store) fn input(&mut self, input: Input) {
        let wall = Timestamp::new(1_000 + self.engine.head().index.get()).unwrap();
        self.engine.handle(Now { wall, ..Now::default() }, input).unwrap();
        self.pump();
    }

    /// Keeps what the engine appends, a commit for each turn.
    fn pump(&mut self) {
        loop {
            let mut entries = Vec::new();
            while let Some(output) = self.engine.poll_output() {
                match output {
                    Output::Persist(entry) => entries.push(entry),
                    Output::Deliver(Directive::Visible { .. }) => self.shown += 1,
                    Output::Deliver(_)
                    | Output::Verify { .. }
                    | Output::Sign { .. }
                    | Output::Report { .. }
                    | Output::Moderated { .. }
                    | Output::Read { .. }
                    | Output::Event(_) => {}
                }
            }
            let Some(last) = entries.last().map(|entry| entry.header.index) else { return };
            self.append(&entries).unwrap();
            self.engine.handle(Now::default(), Input::Persisted { through: last }).unwrap();
        }
    }

    fn append(&mut self, entries: &[Arc<Entry>]) -> Result<(), AppendError> {
        self.parts.store.append(entries)
    }

    pub(in crate::store) fn standing(&self) -> Standing {
        Standing { head: self.engine.head(), state_hash: self.engine.state_hash() }
    }

    /// Ends as a server does that stops in order.
    pub(in crate::store) fn close(mut self) -> Standing {
        self.parts.store.close().unwrap();
        self.standing()
    }

    /// Reads the present life of the lobby, page by page.
    pub(in crate::store) fn history(&mut self, incarnation: u64) -> Vec<Record> {
        history(&mut self.parts, incarnation).unwrap()
    }
}

/// Reads a life of the lobby from the first record to the last, page by page.
pub(in crate::store) fn history(
    parts: &mut Parts,
    incarnation: u64,
) -> Result<Vec<Record>, crate::store::Fault> {
    history_after(parts, "lobby", incarnation, Seq::ZERO)
}

/// Reads a life of a room from the record after one to the last, page by page.
pub(in crate::store) fn history_after(
    parts: &mut Parts,
    room: &str,
    incarnation: u64,
    after: Seq,
) -> Result<Vec<Record>, crate::store::Fault> {
    let mut all: Vec<Record> = Vec::new();
    loop {
        let from = all.last().map_or(after, |record| record.seq).next();
        let page = parts.history.records(&Wanted {
            room: room.parse().unwrap(),
            incarnation: Incarnation::new(incarnation).unwrap(),
            from,
            to: Seq::MAX,
            order: ReadOrder::Forward,
        })?;
        if page.is_empty() {
            return Ok(all);
        }
        assert_eq!(page[0].seq, from, "a page begins where the one before ended");
        all.extend(page);
    }
}

/// A folder in memory where the machine has one: the disk is not what is tried.
pub(in crate::store) fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let here = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    tempfile::Builder::new().permissions(private).tempdir_in(here).unwrap()
}

/// Copies the files of a folder into an empty one, but for the lock.
pub(in crate::store) fn copy(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let name = file.file_name();
        if name != "lock" && name != "journal.db-shm" {
            fs::copy(file.path(), to.join(name)).unwrap();
        }
    }
}
