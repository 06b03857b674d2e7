//! Log-ins that wait at a follower until it leads.

use std::collections::BTreeMap;

use crate::id::{Attach, ConnId, PublicKey, SessionId};
use crate::limits::Limits;
use crate::text::UserName;
use crate::wire::{ClientFrame, Login};

/// Everybody who waits.
#[derive(Debug, Default)]
pub(crate) struct Parking {
    waiting: BTreeMap<ConnId, Parked>,
    /// Whose place is whose: one for each session, or whoever has one could take all places. By the key,
    /// too, as nothing is known yet of whose the session is.
    places: BTreeMap<(SessionId, PublicKey), ConnId>,
    /// How many came so far.
    came: u64,
}

/// A log-in that is proven and not decided, and what its connection sent since.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) login: Login,
    pub(crate) name: UserName,
    pub(crate) frames: Vec<ClientFrame>,
    bytes: u64,
    /// Its place in the order in which they came.
    number: u64,
}

/// What waits for one connection is as much as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Parking {
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.waiting.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnId, &Parked)> {
        self.waiting.iter().map(|(conn, parked)| (*conn, parked))
    }

    /// The log-in that waits for the same session, if any.
    pub(crate) fn attach_of(&self, login: &Login) -> Option<Attach> {
        let conn = self.places.get(&(login.session, login.key))?;
        self.waiting.get(conn).map(|parked| parked.login.attach)
    }

    /// Lets a log-in wait. Gives back who waited for the same session, and does no longer.
    pub(crate) fn enter(&mut self, conn: ConnId, name: UserName, login: Login) -> Option<ConnId> {
        self.came = self.came.saturating_add(1);
        let before = self.places.insert((login.session, login.key), conn);
        before.iter().for_each(|before| drop(self.waiting.remove(before)));
        let (frames, bytes, number) = (Vec::new(), 0, self.came);
        self.waiting.insert(conn, Parked { login, name, frames, bytes, number });
        before
    }

    /// Keeps a frame until its log-in is decided.
    pub(crate) fn queue(
        &mut self,
        conn: ConnId,
        frame: ClientFrame,
        limits: &Limits,
    ) -> Result<(), Full> {
        let Some(parked) = self.waiting.get_mut(&conn) else { return Ok(()) };
        let bytes = parked.bytes.saturating_add(frame.counted_bytes());
        let count = u32::try_from(parked.frames.len()).unwrap_or(u32::MAX);
        if count >= limits.parked_frames_max || bytes > limits.parked_bytes_max {
            return Err(Full);
        }
        parked.bytes = bytes;
        parked.frames.push(frame);
        Ok(())
    }

    /// Somebody waits no longer. Harmless for who does not wait.
    pub(crate) fn leave(&mut self, conn: ConnId) {
        let Some(Parked { login, .. }) = self.waiting.remove(&conn) else { return };
        self.places.remove(&(login.session, login.key));
    }

    /// The end of all waiting: everybody, in the order in which they came.
    pub(crate) fn drain(&mut self) -> Vec<(ConnId, Parked)> {
        self.places.clear();
        let mut waiting: Vec<_> = core::mem::take(&mut self.waiting).into_iter().collect();
        waiting.sort_unstable_by_key(|(_, parked)| parked.number);
        waiting
    }

    /// The whole-state check.
    ///
    /// # Panics
    /// When a rule is broken.
    pub(crate) fn check(&self) {
        assert_eq!(self.places.len(), self.waiting.len(), "who waits has one place");
        for ((session, key), conn) in &self.places {
            let parked = self.waiting.get(conn).expect("a place is somebody's who waits");
            let own = parked.login.session == *session && parked.login.key == *key;
            assert!(own, "a place is that of its session");
        }
    }
}
