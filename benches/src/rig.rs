//! An engine and one delivery shard in one thread, with everybody logged in and following.

use bytes::Bytes;
use chatcore::delivery::Delivery;
use chatcore::engine::{Archive, Config, Engine, Input, Output};
use chatcore::id::{
    Attach, ConnId, Counter, Generation, LogId, Nonce, PublicKey, RequestId, SessionId, Signature,
    Threshold,
};
use chatcore::limits::Limits;
use chatcore::log::Founding;
use chatcore::text::Untrusted;
use chatcore::time::{Moment, Now, Span, Timestamp};
use chatcore::wire::{ClientFrame, ClientHello, Login, Question, Role, Start, VersionRange};

use crate::frames::{ROOM, post};

/// The connection that posts; it follows as well.
const SENDER: ConnId = ConnId::new(0);

const NOW: Now = Now { moment: Moment::from_millis(0), wall: Timestamp::ZERO };

/// An engine, a shard, and who is connected.
#[derive(Debug)]
pub struct Rig {
    engine: Engine,
    delivery: Delivery,
    posted: Counter,
    /// Kept so that it is allocated once.
    slices: Vec<Bytes>,
}

impl Rig {
    /// An open room that so many connections follow, the sender being one of them.
    ///
    /// # Panics
    /// When the engine refuses its own protocol.
    pub fn new(followers: u64) -> Self {
        // No time passes here, so that nothing may depend on how much is sent in how long.
        let limits = Limits {
            frames_burst: 1 << 24,
            bytes_burst: 1 << 40,
            logins_burst: 1 << 24,
            ..Limits::default()
        };
        let founding = Founding {
            log_id: LogId::new([1; 16]),
            server_key: PublicKey::new([2; 32]),
            threshold: Threshold::new(1).expect("one is a threshold"),
            operators: Vec::new(),
        };
        let config = Config {
            limits: limits.clone(),
            archive: Archive::None,
            generation: Generation::ZERO.next(),
        };
        let engine = Engine::found(founding, config, NOW).expect("the limits must be valid");
        let (delivery, posted) = (Delivery::new(&limits), Counter::ZERO);
        let mut rig = Self { engine, delivery, posted, slices: Vec::new() };
        rig.commit();
        (0..followers).for_each(|number| rig.log_in(number));
        rig.write_all();
        rig
    }

    /// Posts so many texts, commits them together and takes every byte that is due to anybody;
    /// how many bytes that were.
    pub fn post(&mut self, posts: u64, text: &str) -> usize {
        for _ in 0..posts {
            self.posted = self.posted.next();
            self.frame(SENDER, post(self.posted, text));
        }
        self.commit();
        self.write_all()
    }

    /// The engine's durable state as bytes.
    ///
    /// # Panics
    /// Never: everything is committed.
    pub fn snapshot(&self) -> Vec<u8> {
        self.engine.snapshot().expect("everything must be committed")
    }

    fn log_in(&mut self, number: u64) {
        let conn = ConnId::new(number);
        self.delivery.add(conn);
        let nonce = Nonce::new([0; 32]);
        self.handle(Input::Connected {
            conn,
            nonce,
            channel: None,
            address: None,
            waited: Span::ZERO,
        });
        let (role, versions) = (Role::Client, VersionRange::SUPPORTED);
        self.frame(conn, ClientFrame::Hello(ClientHello { role, versions, features: 0 }));
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        let mut session = [0; 16];
        session[..8].copy_from_slice(&number.to_be_bytes());
        self.frame(
            conn,
            ClientFrame::Login(Login {
                name: Untrusted::new(format!("user{number}")),
                key: PublicKey::new(key),
                session: SessionId::new(session),
                attach: Attach::ZERO.next(),
                signature: Signature::new([0; 64]),
            }),
        );
        self.handle(Input::Verified { conn, valid: true });
        let question = Question::Join { room: Untrusted::new(ROOM), start: Start::Last(0) };
        self.frame(conn, ClientFrame::Ask { request: RequestId::ZERO, question });
        self.commit();
    }

    fn frame(&mut self, conn: ConnId, frame: ClientFrame) {
        self.handle(Input::Frame { conn, frame });
    }

    fn handle(&mut self, input: Input) {
        self.engine.handle(NOW, input).expect("the rig must keep the rules of the engine");
    }

    /// Makes everything safe that the engine asks for, and hands on what follows from it.
    fn commit(&mut self) {
        loop {
            let mut last = None;
            while let Some(output) = self.engine.poll_output() {
                match output {
                    Output::Persist(entry) => last = Some(entry.header.index),
                    Output::Deliver(directive) => self.delivery.handle(directive),
                    Output::Verify { .. }
                    | Output::Sign { .. }
                    | Output::Report { .. }
                    | Output::Moderated { .. }
                    | Output::Event(_) => {}
                    Output::Read { .. } => unreachable!("there is no store to read from"),
                }
            }
            match last {
                Some(through) => self.handle(Input::Persisted { through }),
                None => return,
            }
        }
    }

    /// Writes like a host whose transports take everything.
    fn write_all(&mut self) -> usize {
        let mut total = 0;
        while let Some(conn) = self.delivery.poll_ready() {
            self.slices.clear();
            self.delivery.gather(conn, &mut self.slices);
            let count = self.slices.iter().map(Bytes::len).sum();
            self.delivery.wrote(conn, count);
            total += count;
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_follower_is_written_every_post() {
        let mut rig = Rig::new(10);
        let one = rig.post(1, "hello");
        let many = rig.post(256, "hello");
        let record = 4 + "hello".len() + "user0".len();
        assert!(one > 10 * record, "{one}");
        assert!(many > 10 * 256 * record, "{many}");
        rig.engine.check_invariants();
    }
}
