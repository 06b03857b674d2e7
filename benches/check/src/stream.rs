//! What one reader was shown, room by room.

use std::collections::BTreeMap;

use crate::life::Life;
use crate::posts::Posts;

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) name: String,
    pub(crate) rooms: BTreeMap<String, Room>,
    /// How often it was killed so far.
    pub(crate) kills: u64,
}

/// The lives of a room, by incarnation, and the posts of all of them.
#[derive(Debug, Default)]
pub(crate) struct Room {
    pub(crate) lives: BTreeMap<u64, Life>,
    pub(crate) posts: Posts,
}

impl Stream {
    pub(crate) const fn new(name: String) -> Self {
        Self { name, rooms: BTreeMap::new(), kills: 0 }
    }

    /// The life of a room that the reader is in; `None` for one that is over.
    pub(crate) fn enter(&mut self, room: &str, incarnation: u64) -> Option<&mut Life> {
        if !self.rooms.contains_key(room) {
            self.rooms.insert(room.to_owned(), Room::default());
        }
        let lives = &mut self.rooms.get_mut(room)?.lives;
        let current = lives.last_key_value().map(|(current, _)| *current);
        if current.is_some_and(|current| current > incarnation) {
            return None;
        }
        let begin = if current.is_some() { Life::from_the_start } else { Life::default };
        Some(lives.entry(incarnation).or_insert_with(begin))
    }

    /// The life of a room that the reader was last told of.
    pub(crate) fn current(&self, room: &str) -> Option<&Life> {
        self.rooms.get(room)?.lives.last_key_value().map(|(_, life)| life)
    }

    pub(crate) fn kill(&mut self) {
        self.kills = self.kills.saturating_add(1);
        for room in self.rooms.values_mut() {
            room.lives.values_mut().for_each(Life::kill);
        }
    }
}
