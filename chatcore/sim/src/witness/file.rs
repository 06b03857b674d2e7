//! Whether what a client keeps is enough: nothing is shown again and nothing sent again that its
//! machine had the time to write down.

use chatcore::client::Saved;
use chatcore::text::RoomName;
use chatcore::wire::{Cursor, Start};

use super::{Fate, Witness};
use crate::broken::{Broken, hold};

impl Witness {
    /// Everything that a client wanted kept is in its file now: what it has shown must be kept as
    /// seen, and of what is answered nothing is kept to be sent again.
    pub(crate) fn flushed(&mut self, client: u8, saved: &Saved) -> Result<(), Broken> {
        let shown = self.clients.entry(client).or_default();
        for (room, place) in &shown.rooms {
            let Some(cursor) = place.cursor else { continue };
            let kept = kept_of(saved, room);
            hold!(
                kept == Some(cursor),
                "what is shown is kept as seen",
                "{client} {room} {kept:?}"
            );
        }
        let heard_before = &shown.heard_before;
        // They are answered in order: the oldest is there longest.
        let Some(oldest) = saved.outbox.first() else { return Ok(()) };
        let fate = self.commands.get(&oldest.id);
        let open = matches!(fate, Some(Fate::Open)) || heard_before.contains(&oldest.id);
        hold!(open, "what is answered is not sent again by a later run", "{} {fate:?}", oldest.id);
        Ok(())
    }

    /// A client joins a room: where it stopped, or where its user wants to begin.
    pub(crate) fn joins(
        &self,
        client: u8,
        room: &str,
        (start, wanted): (Start, Start),
    ) -> Result<(), Broken> {
        let shown = self.clients.get(&client);
        let places = shown.into_iter().flat_map(|shown| &shown.rooms);
        let place = places.filter(|(name, _)| name.as_str() == room).find_map(|(_, it)| it.cursor);
        let right = place.map_or(wanted, Start::After);
        hold!(start == right, "a room is joined where it was left", "{client} {room} {start:?}");
        Ok(())
    }
}

fn kept_of(saved: &Saved, room: &RoomName) -> Option<Cursor> {
    saved.cursors.iter().find(|(name, _)| name == room).map(|(_, cursor)| *cursor)
}
