//! Following, taking over and retiring: how the one who decides comes to be another engine.
//!
//! A follower has the same entries as the engine that leads and decides nothing. Whoever logs in there
//! waits. When it leads, everything goes on as if all of them had logged in at that moment; and the
//! engine that led has nothing more to say but who does now.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::engine::commit::Pending;
use crate::engine::parking::{Full, Parked};
use crate::engine::question::ReadPurpose;
use crate::engine::volatile::Phase;
use crate::engine::{Directive, Engine, Misuse, Output};
use crate::id::{ConnId, Generation};
use crate::log::Entry;
use crate::text::UserName;
use crate::time::{Now, Span};
use crate::wire::{AuthFault, ClientFrame, Location, Login, Refusal, ServerFrame, StateFault};

/// What an engine does about its journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duty {
    /// It decides what is appended.
    Leading {
        /// Where the chat is about to move, if that was announced.
        next: Option<Move>,
    },
    /// It has what another engine decided, and decides nothing.
    Following {
        /// Who decides.
        owner: Location,
    },
    /// It decides nothing any more, and tells everybody who does.
    Retired {
        /// Who decides.
        owner: Location,
    },
}

/// A move that is about to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Where to.
    pub target: Location,
    /// Clients dial the target at a moment of this span that each draws for itself.
    pub within: Span,
}

/// How many wait at a follower; see [`Engine::parked`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParkedCounts {
    /// Connections whose log-in waits.
    pub connections: u32,
    /// Users of whom one waits in a session that the journal knows, each once: strangers, whom anybody
    /// can be, do not count.
    pub users: u32,
}

impl Engine {
    /// What it does about its journal.
    pub const fn duty(&self) -> &Duty {
        &self.duty
    }

    /// The generation that it tells clients.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// How many wait for it to lead. It walks over all of them.
    pub fn parked(&self) -> ParkedCounts {
        let parked = self.volatile.parking.iter().map(|(_, parked)| parked);
        let known = parked.filter(|parked| self.is_known(parked));
        let users: BTreeSet<&UserName> = known.map(|parked| &parked.name).collect();
        let users = u32::try_from(users.len()).unwrap_or(u32::MAX);
        ParkedCounts { connections: self.volatile.parking.len(), users }
    }

    pub(super) const fn is_leading(&self) -> bool {
        matches!(self.duty, Duty::Leading { .. })
    }

    /// Makes an engine that was just restored a follower of `owner`, in the generation of that one.
    ///
    /// It is to be restored from what is known to be committed, be that only the snapshot; all entries
    /// after that come by [`Input::Entry`](crate::engine::Input::Entry), those that the host has already
    /// first.
    ///
    /// # Errors
    /// When it does not lead, has connections, or has entries that are not committed: what it decided
    /// cannot be undone in place.
    pub fn following(mut self, owner: Location) -> Result<Self, Misuse> {
        let is_new = self.volatile.connections.is_empty() && self.uncommitted.is_empty();
        if !self.is_leading() || !is_new {
            return Err(Misuse::WrongDuty);
        }
        self.volatile.forget_graces();
        self.generation = owner.generation;
        self.duty = Duty::Following { owner };
        Ok(self)
    }

    /// Has a new follower go on with the connections of an engine that retired, or of a follower that it
    /// stands in for, and with what was read for them. All outputs of that one are to be taken before: what
    /// it had appended is none of this engine's affair. Log-ins that wait there wait here, and hear of
    /// another owner by [`Input::Located`](crate::engine::Input::Located).
    ///
    /// # Errors
    /// When this one does not follow, or has connections, or the other one leads. The other one is gone
    /// then, and all its connections.
    pub fn adopt(&mut self, other: Self) -> Result<(), Misuse> {
        let follows = matches!(self.duty, Duty::Following { .. });
        if !follows || !self.volatile.connections.is_empty() || other.is_leading() {
            return Err(Misuse::WrongDuty);
        }
        self.volatile = other.volatile;
        // What is being read is for nobody any more, and still has to be answered once.
        (self.reads, self.next_read) = (other.reads, other.next_read);
        (self.stopping, self.store_full) = (other.stopping, other.store_full);
        Ok(())
    }

    pub(super) fn handle_entry(&mut self, entry: Arc<Entry>) -> Result<(), Misuse> {
        let Duty::Following { .. } = self.duty else { return Err(Misuse::WrongDuty) };
        self.head.follow(&entry)?;
        self.take_in(entry);
        Ok(())
    }

    /// Another engine leads now, or in another generation.
    pub(super) fn handle_located(&mut self, owner: Location) -> Result<(), Misuse> {
        let Duty::Following { .. } = self.duty else { return Err(Misuse::WrongDuty) };
        self.enter_generation(owner.generation)?;
        let waiting: Vec<ConnId> = self.volatile.parking.iter().map(|(conn, _)| conn).collect();
        for conn in waiting {
            self.send(conn, ServerFrame::Parked(owner.clone()));
        }
        self.duty = Duty::Following { owner };
        Ok(())
    }

    pub(super) fn handle_lead(&mut self, now: Now, generation: Generation) -> Result<(), Misuse> {
        let Duty::Following { .. } = self.duty else { return Err(Misuse::WrongDuty) };
        self.enter_generation(generation)?;
        self.duty = Duty::Leading { next: None };
        self.begin_grace(now.moment);
        let parked = self.volatile.parking.drain();
        let known = parked.iter().map(|(_, parked)| parked).filter(|parked| self.is_known(parked));
        let returning: BTreeSet<UserName> = known.map(|parked| parked.name.clone()).collect();
        returning.iter().for_each(|user| self.expect(user));
        for (conn, parked) in parked {
            self.admit_parked(now, conn, parked);
        }
        for user in returning {
            if !self.volatile.is_connected(&user) {
                self.expect_nowhere(&user);
            }
        }
        Ok(())
    }

    /// Goes on with a log-in that waited, as if its proof had just come.
    fn admit_parked(&mut self, now: Now, conn: ConnId, parked: Parked) {
        let Parked { login, name, frames, .. } = parked;
        let Some(connection) = self.volatile.connections.get_mut(&conn) else { return };
        connection.phase = Phase::Greeted;
        self.volatile.greeting = self.volatile.greeting.saturating_add(1);
        self.volatile.set_connection_timer(conn, now.moment + self.config.limits.login_time);
        // All come at once, and were let in before: the rate of those who return is not for them.
        let admitted = self.admit_memory(conn);
        self.admit_user(now, conn, name, &login, admitted);
        for frame in frames {
            if self.volatile.online(conn).is_some() {
                self.serve(now, conn, frame);
            }
        }
    }

    /// A user is about to be back: where a gate is closed, it counts for what others are shown of it.
    fn expect(&mut self, name: &UserName) {
        let Some(user) = self.durable.user(name) else { return };
        for room in &user.rooms {
            if self.feed.room(room).is_some_and(|feed| !feed.open) {
                self.volatile.expect(name, room);
            }
        }
    }

    /// A user who was about to be back is not, in any room.
    pub(super) fn expect_nowhere(&mut self, name: &UserName) {
        let Some(user) = self.durable.user(name) else { return };
        for room in &user.rooms {
            if self.volatile.expect_no_more(name, room) {
                self.changed_gates.push(room.clone());
            }
        }
    }

    pub(super) fn handle_retire(&mut self, now: Now, owner: Location) -> Result<(), Misuse> {
        self.enter_generation(owner.generation)?;
        self.give_up_answers();
        let leave_by = now.moment + self.config.limits.moved_time;
        for (conn, before) in self.volatile.retire(leave_by) {
            let moved = ServerFrame::Moved(owner.clone());
            match before {
                Phase::Closing => {}
                Phase::Online(online) => {
                    for room in online.rooms {
                        self.deliver(Directive::Unfollow { conn, room });
                    }
                    self.send(conn, moved);
                }
                Phase::Moved => self.send(conn, moved),
                Phase::Greeting
                | Phase::Greeted
                | Phase::Verifying(_)
                | Phase::Reporting
                | Phase::Parked
                | Phase::TurnedAway => {
                    self.send(conn, moved);
                    self.end(conn, Some(Refusal::Gone));
                }
            }
        }
        self.duty = Duty::Retired { owner };
        Ok(())
    }

    /// What waits for a commit is never sent: whoever leads now knows whether there was one.
    fn give_up_answers(&mut self) {
        for (_, pending) in core::mem::take(&mut self.pending) {
            if let Pending::Moderated { request, .. } = pending {
                let refusal = Some(Refusal::Gone);
                self.outputs.push_back(Output::Moderated { request, refusal });
            }
        }
        self.reads.values_mut().for_each(ReadPurpose::forget_reader);
        self.replaced.clear();
        self.changed_gates.clear();
    }

    pub(super) fn handle_generation(&mut self, generation: Generation) -> Result<(), Misuse> {
        if !self.is_leading() {
            return Err(Misuse::WrongDuty);
        }
        self.enter_generation(generation)?;
        for conn in self.volatile.welcomed() {
            self.tell_generation(conn);
        }
        Ok(())
    }

    /// Tells a connection the generation, unless it knows it.
    pub(super) fn tell_generation(&mut self, conn: ConnId) {
        let generation = self.generation;
        let Some(connection) = self.volatile.connections.get_mut(&conn) else { return };
        if core::mem::replace(&mut connection.generation, generation) != generation {
            self.send(conn, ServerFrame::Generation { generation });
        }
    }

    /// Announces a move, or that it does not take place.
    pub(super) fn handle_prepare(&mut self, announced: Option<Move>) -> Result<(), Misuse> {
        let Duty::Leading { next } = &mut self.duty else { return Err(Misuse::WrongDuty) };
        let before = core::mem::replace(next, announced);
        let is_news = self.announcement().is_some() || before.is_some();
        let frame = self.announcement().unwrap_or(ServerFrame::Stay);
        if is_news {
            for conn in self.volatile.welcomed() {
                self.send(conn, frame.clone());
            }
        }
        Ok(())
    }

    /// What connections are told of a move that is about to be.
    pub(super) fn announcement(&self) -> Option<ServerFrame> {
        let Duty::Leading { next: Some(Move { target, within }) } = &self.duty else { return None };
        Some(ServerFrame::Prepare { target: target.clone(), within_ms: *within })
    }

    const fn enter_generation(&mut self, found: Generation) -> Result<(), Misuse> {
        let present = self.generation;
        if found.get() < present.get() {
            return Err(Misuse::EarlierGeneration { found, present });
        }
        self.generation = found;
        Ok(())
    }

    /// Has a proven log-in wait until this engine leads.
    pub(super) fn park(&mut self, now: Now, conn: ConnId, name: UserName, login: Login) {
        let Duty::Following { owner } = &self.duty else { return };
        let parked = ServerFrame::Parked(owner.clone());
        if let Err(refusal) = self.admit_waiter(conn, &name, &login) {
            return self.close(now, conn, Some(refusal));
        }
        let before = self.volatile.park(conn, name, login);
        self.volatile.set_connection_timer(conn, now.moment + self.config.limits.parked_time);
        if let Some(before) = before {
            self.end(before, Some(Refusal::Auth(AuthFault::Replaced)));
        }
        self.send(conn, parked);
    }

    /// Whether one more log-in may wait. Sessions that the journal does not know leave places for those
    /// that it does: anybody can open one.
    fn admit_waiter(&self, conn: ConnId, name: &UserName, login: &Login) -> Result<(), Refusal> {
        let (parking, limits) = (&self.volatile.parking, &self.config.limits);
        let before = parking.attach_of(login);
        if before.is_some_and(|before| before > login.attach) {
            return Err(Refusal::Auth(AuthFault::Replaced));
        }
        let places = if self.is_session_of(name, login) {
            limits.parked_max
        } else {
            limits.parked_strangers_max()
        };
        let (greeting, parked) = (self.volatile.greeting, parking.len().saturating_add(1));
        if parked > places || !limits.has_memory_for(greeting, parked) {
            return Err(self.come_again(conn));
        }
        Ok(())
    }

    fn is_known(&self, parked: &Parked) -> bool {
        self.is_session_of(&parked.name, &parked.login)
    }

    /// Whether the session of a log-in is this user's, and the key, too.
    fn is_session_of(&self, name: &UserName, login: &Login) -> bool {
        let session = self.durable.session(&login.session);
        let user = self.durable.user(name);
        session.is_some_and(|session| session.user() == name)
            && user.is_some_and(|user| user.key == login.key)
    }

    pub(super) fn handle_parked_frame(&mut self, now: Now, conn: ConnId, frame: ClientFrame) {
        if let Err(excess) = self.admit_frame(now.moment, conn, &frame) {
            return self.slow_down(now, conn, &frame, excess);
        }
        match frame {
            ClientFrame::Hello(_)
            | ClientFrame::Login(_)
            | ClientFrame::Operate(_)
            | ClientFrame::Prove { .. } => {
                let refusal = Refusal::State(StateFault::AlreadyLoggedIn);
                self.send(conn, ServerFrame::Rejected(refusal));
            }
            ClientFrame::Submit { .. } | ClientFrame::Ask { .. } => {
                let queued = self.volatile.parking.queue(conn, frame, &self.config.limits);
                if queued == Err(Full) {
                    let refusal = self.come_again(conn);
                    self.close(now, conn, Some(refusal));
                }
            }
            ClientFrame::Ping { token } => self.send(conn, ServerFrame::Pong { token }),
            ClientFrame::Pong { .. } => {}
            ClientFrame::Leave => self.close(now, conn, None),
        }
    }
}
