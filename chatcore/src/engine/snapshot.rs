//! The durable state as bytes, and back.
//!
//! A snapshot is a magic, a version, a postcard image and a blake3 digest of all of it. It is
//! canonical: equal engines give equal bytes, and bytes that are not what the restored engine
//! would write are refused.

use serde::{Deserialize, Serialize};

use crate::chunk::Chunk;
use crate::codec::{PREFIX_BYTES, append, decode};
use crate::engine::durable::{Durable, DurableImage};
use crate::engine::{Archive, Config, Engine};
use crate::id::{COUNTER_MAX, Digest};
use crate::limits::LimitsError;
use crate::log::{ChainError, Change, Entry, Head};
use crate::text::RoomName;
use crate::time::Now;
use crate::wire::{Record, ServerFrame};

/// The snapshot version this library writes, and the only one it reads.
pub const SNAPSHOT_VERSION: u16 = 1;

const MAGIC: &[u8; 8] = b"chatsnap";
const DIGEST_BYTES: usize = 32;

/// Why bytes or entries are not an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The bytes are no snapshot.
    #[error("this is not a snapshot")]
    NotASnapshot,
    /// The snapshot was written by a newer library.
    #[error("snapshot version {found} is not {SNAPSHOT_VERSION}, the one this program reads")]
    Version {
        /// The version of the snapshot.
        found: u16,
    },
    /// The bytes were changed since they were written.
    #[error("the digest of the snapshot does not fit: it is damaged")]
    Digest,
    /// The image contradicts itself, or is not in canonical form.
    #[error("the snapshot contradicts itself")]
    Image,
    /// A limit is out of range.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// The entries are not one journal.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The first entry does not found a journal.
    #[error("a journal must begin with its founding")]
    NotFounded,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Image {
    head: Head,
    durable: DurableImage,
    /// Records that are kept nowhere else, of every room that has any.
    records: Vec<(RoomName, Vec<Record>)>,
}

impl Engine {
    /// The durable state as bytes: equal for equal states. Connections, deadlines and everything
    /// else that belongs to this process are not in it.
    ///
    /// Without a store ([`Archive::None`]) it also holds the records in memory: they are kept
    /// nowhere else.
    ///
    /// `None` while entries wait to be committed: a snapshot must not promise what a crash can
    /// take back.
    ///
    /// # Panics
    /// Never: everything in the state has an encoding.
    pub fn snapshot(&self) -> Option<Vec<u8>> {
        if !self.uncommitted.is_empty() {
            return None;
        }
        let image = Image {
            head: self.head,
            durable: self.durable.image(),
            records: self.unarchived_records(),
        };
        Some(image.seal())
    }

    fn unarchived_records(&self) -> Vec<(RoomName, Vec<Record>)> {
        if self.config.archive == Archive::Store {
            return Vec::new();
        }
        let rooms = self.durable.rooms().filter_map(|(name, _)| {
            let feed = self.feed.room(name)?;
            let held = feed.held();
            let records: Vec<Record> = feed
                .chunks()
                .chain(&held)
                .flat_map(Chunk::frames)
                .filter_map(|frame| record_of(&frame))
                .collect();
            (!records.is_empty()).then(|| (name.clone(), records))
        });
        rooms.collect()
    }

    /// The engine that wrote a snapshot and then the entries of `tail`, all committed: with no
    /// connection, and a fresh grace for every member to come back. The tail is the rest of the
    /// journal, from the entry after the snapshot's head on; it may be empty.
    ///
    /// It is the engine that [`Engine::replay`] makes of the whole journal, but for one thing:
    /// which old records are still in memory, once there are more than `window_bytes`.
    ///
    /// An entry says where it stands and what it holds, not what came before it: a host compares
    /// [`Engine::head`] with the one it kept to know that the tail is the whole tail, and this
    /// journal's.
    ///
    /// # Errors
    /// When the bytes are not a whole, unchanged, canonical snapshot of this version, or when an
    /// entry does not follow the one before it.
    ///
    /// # Panics
    /// When an entry follows and still was not made for the state before it: no engine wrote that.
    pub fn restore(
        bytes: &[u8],
        tail: impl IntoIterator<Item = Entry>,
        config: Config,
        now: Now,
    ) -> Result<Self, RestoreError> {
        let mut engine = Self::revive(bytes, config)?;
        engine.follow(tail)?;
        engine.begin_grace(now.moment);
        Ok(engine)
    }

    /// The engine that wrote a snapshot, with nobody expected back.
    fn revive(bytes: &[u8], config: Config) -> Result<Self, RestoreError> {
        config.limits.check()?;
        let image = read_image(bytes)?;
        if !image.is_sound() {
            return Err(RestoreError::Image);
        }
        let durable = Durable::from_image(&image.durable).ok_or(RestoreError::Image)?;
        let mut engine = Self::assemble(config, image.head, durable);
        engine.adopt_rooms();
        // A room that came twice would be filled twice.
        if !image.records.is_sorted_by(|(one, _), (next, _)| one < next) {
            return Err(RestoreError::Image);
        }
        for (room, records) in image.records {
            if !engine.feed.refill(&room, records) {
                return Err(RestoreError::Image);
            }
        }
        let same = engine.config.archive == Archive::Store
            || engine.snapshot().is_some_and(|again| again == bytes);
        if same { Ok(engine) } else { Err(RestoreError::Image) }
    }

    /// Takes in committed entries that were made elsewhere.
    fn follow(&mut self, entries: impl IntoIterator<Item = Entry>) -> Result<(), ChainError> {
        for entry in entries {
            self.head.follow(&entry)?;
            self.durable.apply(&entry);
            self.feed.advance(&entry);
            self.feed.flush();
        }
        self.committed = self.head.index;
        Ok(())
    }

    fn adopt_rooms(&mut self) {
        for (name, room) in self.durable.rooms() {
            self.feed.adopt(name, room);
        }
    }

    /// The engine that wrote these entries: the whole journal, from its founding, all committed.
    /// [`Engine::restore`] needs only those after a snapshot.
    ///
    /// # Errors
    /// When the entries are not one unchanged journal.
    ///
    /// # Panics
    /// When the chain fits and an entry still was not made for the state before it: no engine
    /// wrote that.
    pub fn replay(
        entries: impl IntoIterator<Item = Entry>,
        config: Config,
        now: Now,
    ) -> Result<Self, RestoreError> {
        config.limits.check()?;
        let mut entries = entries.into_iter();
        let first = entries.next().ok_or(RestoreError::NotFounded)?;
        let Change::Founded(founding) = &first.change else {
            return Err(RestoreError::NotFounded);
        };
        let mut head = Head::new(founding.log_id);
        head.follow(&first)?;
        let mut engine = Self::assemble(config, head, Durable::new(founding.clone()));
        engine.follow(entries)?;
        engine.begin_grace(now.moment);
        Ok(engine)
    }
}

impl Image {
    fn seal(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&SNAPSHOT_VERSION.to_be_bytes());
        append(self, &mut bytes);
        let digest = blake3::hash(&bytes);
        bytes.extend_from_slice(digest.as_bytes());
        bytes
    }

    /// Whether an engine could have come so far and can go on: no machine counts to the middle of
    /// what a counter holds, nothing was answered by an entry that is not there, and no session was
    /// used after the last one.
    fn is_sound(&self) -> bool {
        let (head, far) = (self.head.index, COUNTER_MAX / 2);
        let mut answered = self.durable.sessions.iter().flat_map(|(_, session)| session.answers());
        let rooms = self.durable.rooms.iter().map(|(_, room)| room);
        let counts =
            rooms.flat_map(|it| [it.last().get(), it.incarnation().get(), it.held_bytes()]);
        let last = self.head.at;
        self.durable.sessions.iter().all(|(_, session)| session.used() <= last)
            && answered.all(|answer| answer.index <= head)
            && counts.chain([head.get()]).all(|count| count <= far)
    }
}

fn read_image(bytes: &[u8]) -> Result<Image, RestoreError> {
    let (head, rest) = bytes.split_first_chunk::<8>().ok_or(RestoreError::NotASnapshot)?;
    if head != MAGIC {
        return Err(RestoreError::NotASnapshot);
    }
    let (version, rest) = rest.split_first_chunk::<2>().ok_or(RestoreError::NotASnapshot)?;
    let found = u16::from_be_bytes(*version);
    if found != SNAPSHOT_VERSION {
        return Err(RestoreError::Version { found });
    }
    let (body, digest) =
        rest.split_last_chunk::<DIGEST_BYTES>().ok_or(RestoreError::NotASnapshot)?;
    let signed = bytes.split_last_chunk::<DIGEST_BYTES>().map_or(bytes, |(signed, _)| signed);
    if Digest::new(*digest) != Digest::new(blake3::hash(signed).into()) {
        return Err(RestoreError::Digest);
    }
    decode(body).map_err(|_| RestoreError::Image)
}

fn record_of(frame: &[u8]) -> Option<Record> {
    match decode(frame.get(PREFIX_BYTES..)?) {
        Ok(ServerFrame::Record(record)) => Some(record),
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Input;
    use crate::id::{Counter, Incarnation, Index, LogId, PublicKey, Seq, SessionId, Threshold};
    use crate::log::{CommandId, Founding};
    use crate::text::UserName;

    /// An engine with a post in a closed room, all of it safe.
    fn held() -> Engine {
        let (log_id, server_key) = (LogId::new([1; 16]), PublicKey::new([9; 32]));
        let (threshold, operators) = (Threshold::DEFAULT, Vec::new());
        let founding = Founding { log_id, server_key, threshold, operators };
        let mut engine = Engine::found(founding, Config::default(), Now::default()).unwrap();
        let room: RoomName = "lobby".parse().unwrap();
        let user: UserName = "ana".parse().unwrap();
        let (session, counter) = (SessionId::new([2; 16]), Counter::ZERO.next());
        let (incarnation, seq) = (Incarnation::ZERO.next(), Seq::ZERO.next());
        let digest = Digest::new([3; 32]);
        for change in [
            Change::UserAdded { user: user.clone(), key: PublicKey::new([4; 32]) },
            Change::SessionOpened { session, user: user.clone() },
            Change::RoomCreated { room: room.clone(), threshold },
            Change::Posted {
                room,
                incarnation,
                seq,
                command: CommandId { session, counter, digest },
                from: user,
                text: "held".parse().unwrap(),
            },
        ] {
            engine.append(Now::default(), change);
        }
        let through = engine.head().index;
        engine.handle(Now::default(), Input::Persisted { through }).unwrap();
        engine
    }

    /// Restores a snapshot that somebody forged: its digest fits.
    fn forge(forge: impl FnOnce(&mut Image)) -> Result<Engine, RestoreError> {
        let mut image = read_image(&held().snapshot().unwrap()).unwrap();
        forge(&mut image);
        Engine::restore(&image.seal(), [], Config::default(), Now::default())
    }

    #[test]
    fn forged_snapshot_that_lists_a_closed_room_twice_is_refused() {
        assert!(forge(|_| {}).is_ok());
        let twice = forge(|image| image.records.push(image.records[0].clone()));
        assert_eq!(twice.unwrap_err(), RestoreError::Image);
    }

    #[test]
    fn forged_snapshot_whose_journal_ends_before_an_answer_is_refused() {
        // Its answer, and every later one, would wait for an entry that may never come.
        let behind = forge(|image| image.head.index = Index::ZERO.next());
        assert_eq!(behind.unwrap_err(), RestoreError::Image);
    }

    #[test]
    fn b11_forged_snapshot_that_has_counted_to_the_end_is_refused() {
        // The next post, reset or entry would stop the process.
        let last = forge(|image| {
            image.records.clear();
            let (_, room) = &mut image.durable.rooms[0];
            *room = postcard::from_bytes(&far_room()).unwrap();
        });
        assert_eq!(last.unwrap_err(), RestoreError::Image);
        let head = forge(|image| image.head.index = Index::MAX);
        assert_eq!(head.unwrap_err(), RestoreError::Image);
    }

    #[test]
    fn forged_snapshot_with_a_session_of_the_future_is_refused() {
        // Its next command would be earlier than its beginning.
        let future = forge(|image| {
            let (_, session) = &mut image.durable.sessions[0];
            let (opened, used, answers) = (5_u64, 5_u64, Vec::<u8>::new());
            let bytes = postcard::to_allocvec(&("ana", Counter::ZERO, opened, used, answers));
            *session = postcard::from_bytes(&bytes.unwrap()).unwrap();
        });
        assert_eq!(future.unwrap_err(), RestoreError::Image);
    }

    #[test]
    fn forged_snapshot_with_a_member_who_is_banned_is_refused() {
        let member = forge(|image| {
            image.durable.users[0].standing = crate::engine::durable::Standing::Banned;
            image.durable.rooms[0].1.members.insert("ana".parse().unwrap());
        });
        assert_eq!(member.unwrap_err(), RestoreError::Image);
    }

    /// An open room whose log is as long as a log can be.
    fn far_room() -> Vec<u8> {
        let (open, nobody) = ((1_u32, Threshold::DEFAULT), Vec::<UserName>::new());
        let (first, last, trimmed) = (Incarnation::ZERO.next(), Seq::MAX, Seq::ZERO);
        postcard::to_allocvec(&(first, open, last, trimmed, nobody)).unwrap()
    }
}
