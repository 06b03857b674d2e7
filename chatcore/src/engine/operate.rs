//! Orders of those who run the server, and what it tells them.

use crate::engine::volatile::{Claim, Connection, Phase};
use crate::engine::{Engine, Output};
use crate::id::{ByteCount, ConnId, Index, PublicKey};
use crate::log::Change;
use crate::text::HostAddress;
use crate::time::Now;
use crate::wire::{
    HostStatus, Measure, Operate, OperateProof, Order, Refusal, ServerFrame, Status,
};

impl Engine {
    /// Has the proof of an order checked.
    pub(super) fn check_right(&mut self, conn: ConnId, operate: &Operate) {
        let founding = self.durable.founding();
        let Some(connection) = self.volatile.connections.get_mut(&conn) else { return };
        let message = OperateProof {
            nonce: connection.nonce,
            server_key: founding.server_key,
            log_id: founding.log_id,
            generation: connection.generation,
            channel: connection.channel,
            order: operate.order,
        }
        .to_bytes();
        let (key, signature) = (operate.key, operate.signature);
        connection.phase = Phase::Verifying(Box::new(Claim::Operator(key, operate.order)));
        self.outputs.push_back(Output::Verify { conn, key, message, signature });
    }

    /// Carries out an order, if the key that signed it may give it.
    pub(super) fn obey(&mut self, now: Now, conn: ConnId, key: &PublicKey, order: Order) {
        if !self.may_operate(key) {
            self.close(now, conn, Some(Refusal::Perm));
            return;
        }
        match order {
            Order::Status => {
                let Some(connection) = self.volatile.connections.get_mut(&conn) else { return };
                connection.phase = Phase::Reporting;
                self.outputs.push_back(Output::Report { conn });
            }
        }
    }

    fn may_operate(&self, key: &PublicKey) -> bool {
        let info = self.durable.name_of_key(key).and_then(|name| self.describe(name));
        self.durable.founding().server_key == *key
            || info.is_some_and(|info| info.operator && info.key == *key)
    }

    pub(super) fn handle_reported(&mut self, now: Now, conn: ConnId, host: HostStatus) {
        // It may have been given up, or be gone, while the host looked.
        let Some(Connection { phase: Phase::Reporting, address, .. }) =
            self.volatile.connections.get(&conn)
        else {
            return;
        };
        let status = self.status(address.clone(), host);
        self.send(conn, ServerFrame::Status(status));
        self.close(now, conn, None);
    }

    fn status(&self, address: Option<HostAddress>, host: HostStatus) -> Status {
        let Counts { connections, online, users, rooms, open, newest, safe, store_full, memory } =
            self.counts();
        Status {
            address,
            connections,
            online,
            users,
            rooms,
            open,
            newest,
            safe,
            store_full,
            memory,
            host,
        }
    }

    /// What there is now: users and rooms as far as they are committed. It names none of them.
    pub fn counts(&self) -> Counts {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let is_new = |change: &Change| matches!(change, Change::UserAdded { .. });
        let is_over =
            |change: &Change| matches!(change, Change::Moderated { measure: Measure::Release, .. });
        let of = |is: &dyn Fn(&Change) -> bool| {
            self.uncommitted.iter().filter(|entry| is(&entry.change)).count()
        };
        let users = self.durable.users().len().saturating_add(of(&is_over));
        Counts {
            connections: count(self.volatile.connections.len()),
            online: count(self.volatile.users_online()),
            users: count(users.saturating_sub(of(&is_new))),
            rooms: count(self.feed.rooms().len()),
            open: count(self.feed.open_rooms()),
            newest: self.head.index,
            safe: self.committed,
            store_full: self.store_full,
            memory: ByteCount::ZERO.saturating_add(self.feed.bytes()),
        }
    }
}

/// How much of everything an engine has; see [`Engine::counts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Connections, those that are on their way to a log-in or to their end among them.
    pub connections: u32,
    /// Users who are connected.
    pub online: u32,
    /// Users who have a name.
    pub users: u32,
    /// Rooms.
    pub rooms: u32,
    /// Rooms whose gate is open.
    pub open: u32,
    /// The newest entry.
    pub newest: Index,
    /// The newest entry that is safe.
    pub safe: Index,
    /// Whether the store is full.
    pub store_full: bool,
    /// Bytes of records in memory.
    pub memory: ByteCount,
}
