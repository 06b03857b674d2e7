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
use crate::id::Digest;
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
        Some(seal(&image))
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

fn seal(image: &Image) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&SNAPSHOT_VERSION.to_be_bytes());
    append(image, &mut bytes);
    let digest = blake3::hash(&bytes);
    bytes.extend_from_slice(digest.as_bytes());
    bytes
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
    use crate::id::{Incarnation, LogId, PublicKey, Seq, Threshold};
    use crate::log::Founding;
    use crate::text::UserName;

    /// A journal with a room behind whose closed gate one record waits.
    fn journal() -> Vec<Entry> {
        let (log_id, threshold) = (LogId::new([1; 16]), Threshold::DEFAULT);
        let key = PublicKey::new([9; 32]);
        let founding = Founding { log_id, server_key: key, threshold, operators: Vec::new() };
        let (room, user): (RoomName, UserName) = ("lobby".parse().unwrap(), "ana".parse().unwrap());
        let (incarnation, seq) = (Incarnation::ZERO.next(), Some(Seq::ZERO.next()));
        let changes = [
            Change::Founded(founding),
            Change::UserAdded { user: user.clone(), key },
            Change::RoomCreated { room: room.clone(), threshold },
            Change::Joined { room, incarnation, seq, user },
        ];
        let (mut head, now) = (Head::new(log_id), Now::default());
        changes.into_iter().map(|change| head.append(now.wall, change)).collect()
    }

    #[test]
    fn snapshot_that_holds_the_records_of_a_room_twice_is_refused() {
        let engine = Engine::replay(journal(), Config::default(), Now::default()).unwrap();
        let bytes = engine.snapshot().unwrap();
        let mut image = read_image(&bytes).unwrap();
        assert_eq!(seal(&image), bytes);
        image.records.push(image.records[0].clone());
        for archive in [Archive::None, Archive::Store] {
            let config = Config { archive, ..Config::default() };
            let forged = Engine::restore(&seal(&image), [], config, Now::default());
            assert_eq!(forged.unwrap_err(), RestoreError::Image);
        }
    }
}
