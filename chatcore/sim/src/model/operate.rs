//! Orders to the server: who may give them, and what comes back.

use chatcore::engine::Output;
use chatcore::id::{ByteCount, ConnId, PublicKey};
use chatcore::wire::{HostStatus, Operate, Order, Refusal, Status};

use super::Model;
use super::due::What;
use super::login::Ending;
use super::presence::{Phase, Proof, Store};
use super::truth::to_u32;

impl Model {
    /// The bytes that an order signs: the table in section 5 of the protocol.
    pub(super) fn operate(&mut self, conn: ConnId, operate: &Operate) {
        let Operate { key, order, signature } = *operate;
        let name = match order {
            Order::Status => &b"status\0"[..],
        };
        let message = [b"chatcore operate v1\0", &self.bound_to(conn)[..], name].concat();
        let Some(state) = self.process.conns.get_mut(&conn) else { return };
        state.phase = Phase::Verifying(Proof::Right(key, order));
        self.due.verify = Some(Output::Verify { conn, key, message, signature });
    }

    pub(super) fn obey(&mut self, conn: ConnId, key: PublicKey, order: Order) {
        // A right that is not safe yet is none.
        let name = self.facts.keys.get(&key);
        let user = name.and_then(|name| self.safe.users.get(name));
        let may = user.is_some_and(|user| user.operator && user.key == key);
        if key != self.founding.server_key && !may {
            return self.close(conn, Refusal::Perm);
        }
        let Some(state) = self.process.conns.get_mut(&conn) else { return };
        match order {
            Order::Status => {
                state.phase = Phase::Reporting;
                self.due.report = Some(conn);
            }
        }
    }

    pub(super) fn reported(&mut self, conn: ConnId, host: HostStatus) {
        let Some(state) = self.process.conns.get(&conn) else { return };
        if !matches!(state.phase, Phase::Reporting) {
            return;
        }
        let connected = self.process.presence.values().filter(|conns| **conns > 0);
        let status = Status {
            address: state.address.clone(),
            connections: to_u32(self.process.conns.len()),
            online: to_u32(connected.count()),
            users: to_u32(self.safe.users.len()),
            rooms: to_u32(self.safe.rooms.len()),
            open: to_u32(self.safe.rooms.values().filter(|room| room.open).count()),
            newest: self.last,
            safe: self.committed,
            store_full: self.process.store == Store::Full,
            memory: ByteCount::ZERO,
            host,
        };
        self.due.must(What::Status(conn, status));
        self.detach(conn, Ending::Lost);
        self.tell_close(conn, None);
    }
}

/// Whether this is the status that is due. How much is in memory is the engine's to say.
pub(super) fn is_told(due: &Status, found: &Status) -> bool {
    Status { memory: ByteCount::ZERO, ..found.clone() } == *due
}
