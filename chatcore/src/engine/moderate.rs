//! Measures on users: what operators command, and what those who run the server ask for.
//!
//! Whoever is sent away does nothing more from that moment on, and is told when the measure is safe.

use crate::engine::commit::Pending;
use crate::engine::{Engine, Event, Output};
use crate::id::{ConnId, RequestId};
use crate::log::{Change, Moderator};
use crate::text::UserName;
use crate::time::{Now, Timestamp};
use crate::wire::{
    ExpelFault, LimitFault, Measure, Notice, Refusal, ServerFrame, TargetFault, UserInfo,
};

impl Engine {
    /// Takes a measure for those who run the server.
    pub(super) fn handle_moderate(
        &mut self,
        now: Now,
        request: RequestId,
        user: UserName,
        measure: Measure,
    ) {
        let admitted = if !self.is_leading() {
            Err(Refusal::Gone)
        } else if self.store_full {
            Err(Refusal::Store)
        } else {
            self.admit_waiting()
        };
        if let Err(refusal) = admitted {
            let refusal = Some(refusal);
            return self.outputs.push_back(Output::Moderated { request, refusal });
        }
        let refusal = self.decide_measure(&Moderator::Server, &user, measure).err();
        if refusal.is_none() {
            self.carry_out(now, user, measure, Moderator::Server);
        }
        self.when_committed(self.head.index, Pending::Moderated { request, refusal });
    }

    /// Whether a measure may be taken.
    pub(super) fn decide_measure(
        &self,
        by: &Moderator,
        target: &UserName,
        measure: Measure,
    ) -> Result<(), Refusal> {
        let user = self.durable.user(target).ok_or(Refusal::Target(TargetFault::User))?;
        if let Moderator::Operator { user: operator, .. } = by {
            if operator == target {
                return Err(Refusal::Target(TargetFault::Oneself));
            }
            // Else whoever a founder made an operator could take the server over: by sending its
            // founders away, or by freeing a name or key that makes whoever comes with it an operator.
            let is_out_of_reach = user.is_operator() || measure == Measure::Release;
            if is_out_of_reach && self.durable.is_founder(target, &user.key) {
                return Err(Refusal::Target(TargetFault::Founder));
            }
        }
        match measure {
            Measure::Op | Measure::Release if user.is_banned() => {
                Err(Refusal::Target(TargetFault::Banned))
            }
            Measure::Ban
                if !user.is_banned() && self.durable.banned() >= self.config.limits.bans_max =>
            {
                Err(Refusal::Limit(LimitFault::Bans))
            }
            Measure::Kick
            | Measure::Ban
            | Measure::Unban
            | Measure::Release
            | Measure::Op
            | Measure::Deop => Ok(()),
        }
    }

    /// Takes a measure that was decided.
    pub(super) fn carry_out(&mut self, now: Now, user: UserName, measure: Measure, by: Moderator) {
        let fault = expulsion(measure);
        let conns = if fault.is_some() { self.send_away(now, &user) } else { Vec::new() };
        let was_operator = self.durable.is_operator(&user);
        let operator = match &by {
            Moderator::Operator { user, .. } => Some(user.clone()),
            Moderator::Server => None,
        };
        let change = Change::Moderated { user: user.clone(), measure, by };
        if measure == Measure::Release {
            self.volatile.reset_rates.remove(&user);
            self.append(self.later(now), change);
        } else {
            self.append(now, change);
        }
        let index = self.head.index;
        if let Some(fault) = fault {
            let refusal = Refusal::Expelled(fault);
            conns.into_iter().for_each(|conn| self.turn_away(now, conn, index, refusal));
        }
        self.tell_rights(&user, was_operator);
        self.outputs.push_back(Output::Event(Event::Moderated { user, measure, by: operator }));
    }

    /// Takes from all connections of a user what they stand for, and the user out of every room.
    fn send_away(&mut self, now: Now, user: &UserName) -> Vec<ConnId> {
        let conns = self.volatile.presence.get(user).cloned().unwrap_or_default();
        conns.iter().for_each(|conn| self.lose(now, *conn));
        if !mutated!(self, KickKeepsRooms) {
            self.leave_every_room(now, user);
        }
        conns.into_iter().collect()
    }

    /// A time after that of the last entry: a session that a release ends and one that is opened
    /// after it must not bear the same time, by which their client tells them apart.
    fn later(&self, now: Now) -> Now {
        if mutated!(self, ReleaseAtOnce) {
            return now;
        }
        let after = self.head.at.get().saturating_add(1);
        let after = Timestamp::new(after).unwrap_or(Timestamp::MAX);
        Now { wall: now.wall.max(after), ..now }
    }

    /// Tells a user who became an operator, or ceased to be one.
    fn tell_rights(&mut self, user: &UserName, was_operator: bool) {
        let is_operator = self.durable.is_operator(user);
        let notice = match (was_operator, is_operator) {
            (false, true) => Notice::OperatorGranted,
            (true, false) => Notice::OperatorRevoked,
            (true, true) | (false, false) => return,
        };
        let conns = self.volatile.presence.get(user).cloned().unwrap_or_default();
        for conn in conns {
            self.reply(conn, ServerFrame::Notice(notice));
        }
    }

    /// What others may know of a user, and the rights that count for orders: before a measure or a
    /// right that is not safe yet, what was so before it.
    pub(super) fn describe(&self, user: &UserName) -> Option<UserInfo> {
        let connected = self.volatile.is_connected(user);
        let before = self.replaced.iter().find(|(_, info)| info.user == *user);
        match before {
            Some((_, info)) => Some(UserInfo { connected, ..info.clone() }),
            None => self.durable.describe(user, connected),
        }
    }
}

/// How a measure sends a user away, if it does.
const fn expulsion(measure: Measure) -> Option<ExpelFault> {
    match measure {
        Measure::Kick => Some(ExpelFault::Kicked),
        Measure::Ban => Some(ExpelFault::Banned),
        Measure::Release => Some(ExpelFault::Released),
        Measure::Unban | Measure::Op | Measure::Deop => None,
    }
}
