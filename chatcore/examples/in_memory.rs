//! Two clients and a server in one process, without a socket: the whole library at a glance.
//!
//! Run it with `cargo run -p chatcore --example in_memory`.
#![expect(clippy::wildcard_enum_match_arm, reason = "a client may ignore what it does not know")]

use std::collections::BTreeMap;

use chatcore::client::{Client, ClientConfig, Drain, Event, Input, Output, Saved};
use chatcore::engine::Config;
use chatcore::hub::Hub;
use chatcore::id::{
    Attach, ConnId, Counter, LogId, Nonce, PublicKey, SessionId, Signature, Threshold,
};
use chatcore::log::Founding;
use chatcore::text::UserName;
use chatcore::time::Now;
use chatcore::wire::{RecordBody, Start};

type AnyError = Box<dyn std::error::Error>;

/// A server and the clients that are connected to it.
struct World {
    hub: Hub,
    clients: BTreeMap<ConnId, (UserName, Client)>,
    now: Now,
}

fn main() -> Result<(), AnyError> {
    let mut world = World::new()?;
    let ana = world.join("ana")?;
    world.say(ana, "is anybody there?")?;
    let beto = world.join("beto")?;
    world.say(beto, "now I am, and the gate is open")?;
    for conn in [ana, beto] {
        world.tell(conn, Input::Quit { drain: Drain::Wait });
    }
    Ok(())
}

impl World {
    fn new() -> Result<Self, AnyError> {
        let founding = Founding {
            log_id: LogId::new([1; 16]),
            server_key: PublicKey::new([2; 32]),
            threshold: Threshold::DEFAULT,
            operators: Vec::new(),
        };
        let now = Now::default();
        // Everybody here is in the same process, so there is nobody to distrust.
        let hub = Hub::found(founding, Config::default(), now, |_, _, _| true)?;
        Ok(Self { hub, clients: BTreeMap::new(), now })
    }

    fn join(&mut self, name: &str) -> Result<ConnId, AnyError> {
        let number = u8::try_from(self.clients.len())?.saturating_add(1);
        let conn = ConnId::new(number.into());
        let name: UserName = name.parse()?;
        let client = Client::new(ClientConfig {
            name: name.clone(),
            rooms: vec!["lobby".parse()?],
            start: Start::Last(100),
            reconnect: false,
            jitter_seed: number.into(),
            // The hub has no key to prove.
            proof_seed: None,
        });
        self.clients.insert(conn, (name, client));
        self.tell(conn, Input::Start);
        Ok(conn)
    }

    fn say(&mut self, conn: ConnId, text: &str) -> Result<(), AnyError> {
        let (room, body, id) = ("lobby".parse()?, text.parse()?, String::from("1"));
        self.tell(conn, Input::Post { room, body, id });
        Ok(())
    }

    /// Gives a client something and carries out what follows, here and at everybody else's.
    fn tell(&mut self, conn: ConnId, input: Input) {
        if let Some((_, client)) = self.clients.get_mut(&conn) {
            client.handle(self.now.moment, input);
        }
        while let Some(output) = self.clients.get_mut(&conn).and_then(|(_, c)| c.poll_output()) {
            self.carry_out(conn, output);
        }
        while let Some(ready) = self.hub.poll_ready() {
            for frame in self.hub.take_frames(self.now, ready) {
                self.tell(ready, Input::Frame(frame));
            }
        }
    }

    fn carry_out(&mut self, conn: ConnId, output: Output) {
        match output {
            Output::Dial => {
                self.hub.connect(self.now, conn, Nonce::new([0; 32]));
                self.tell(conn, Input::Dialled { channel: None });
            }
            Output::Send(frame) => self.hub.receive_frame(self.now, conn, frame),
            Output::Identify { .. } => self.tell(conn, identity(conn)),
            Output::Sign(_) => self.tell(conn, Input::Signed(Signature::new([0; 64]))),
            // A real program checks it, and a real server has a key.
            Output::Verify { .. } => self.tell(conn, Input::Verified { valid: true }),
            Output::Hangup => self.hub.disconnect(self.now, conn),
            Output::Event(event) => self.show(conn, &event),
            // A real program keeps these in a file.
            Output::Save(_) | Output::Stopped(_) => {}
        }
    }

    fn show(&self, conn: ConnId, event: &Event) {
        let Some((name, _)) = self.clients.get(&conn) else { return };
        match event {
            Event::Gate { gate, .. } if gate.open => {
                println!("[{name}] the gate is open, {} users", gate.users);
            }
            Event::Gate { gate, .. } => {
                println!("[{name}] held: {} of {} users", gate.users, gate.threshold);
            }
            Event::Record(record) => match &record.body {
                RecordBody::Post { from, text } => println!("[{name}] {from}: {}", text.as_str()),
                RecordBody::Joined { user } => println!("[{name}] {user} has joined"),
                RecordBody::Left { user } => println!("[{name}] {user} has left"),
            },
            _ => {}
        }
    }
}

/// A key and a session that differ from client to client.
fn identity(conn: ConnId) -> Input {
    let number = u8::try_from(conn.get()).unwrap_or(u8::MAX);
    Input::Identified {
        key: PublicKey::new([number; 32]),
        saved: Saved {
            session: SessionId::new([number; 16]),
            origin: None,
            attach: Attach::ZERO,
            last_counter: Counter::ZERO,
            outbox: Vec::new(),
            cursors: Vec::new(),
        },
    }
}
