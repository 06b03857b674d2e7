//! Bytes of several connections to a whole server in memory.
//!
//! An input is a run of a byte each for what happens and to whom, and the bytes that are sent. The
//! hub hides everything else: so this is what a program that embeds it is exposed to.

use chatcore::codec::{FrameBuffer, PREFIX_BYTES, decode, encode_to_bytes};
use chatcore::engine::Config;
use chatcore::hub::Hub;
use chatcore::id::{ConnId, Nonce};
use chatcore::time::{Now, Timestamp};
use chatcore::wire::{ClientFrame, ServerFrame};

use super::choices::Choices;
use super::engine_ops::{founding, hello_and_login};

/// Things that happen in one input: more would take too long to try often.
const STEPS_MAX: usize = 100;
const CONNECTIONS: u8 = 3;

/// Plays one input.
///
/// # Panics
/// When the hub breaks the rules of its engine, or writes something that is no message.
pub fn check(input: &[u8]) {
    let mut choices = Choices::new(input);
    let now = Now::default();
    let hub = Hub::found(founding(2, Vec::new()), Config::default(), now, |_, _, _| true);
    let hub = hub.expect("the limits must be fit");
    let mut play = Play { hub, now, next: 0, ends: core::array::from_fn(|_| None) };
    for step in 0..STEPS_MAX {
        if choices.is_empty() {
            break;
        }
        play.step(&mut choices);
        // `engine_ops` looks after every step; here it is the bytes that matter.
        if step.is_multiple_of(8) {
            play.hub.engine().check_invariants();
        }
    }
    play.hub.engine().check_invariants();
}

struct Play {
    hub: Hub,
    now: Now,
    next: u64,
    /// The clients' ends of the connections that stand.
    ends: [Option<(ConnId, FrameBuffer)>; CONNECTIONS as usize],
}

impl Play {
    fn step(&mut self, choices: &mut Choices<'_>) {
        let what = choices.byte();
        let place = usize::from(what).checked_rem(self.ends.len()).unwrap_or(0);
        let Some(conn) = self.ends.get(place).and_then(|end| end.as_ref().map(|(conn, _)| *conn))
        else {
            return self.connect(place, what);
        };
        match what >> 4 {
            0..=7 => {
                let count = usize::from(choices.byte());
                self.hub.receive(self.now, conn, choices.take(count));
            }
            8..=10 => {
                let count = usize::from(choices.byte());
                if let Ok(frame) = decode::<ClientFrame>(choices.take(count)) {
                    self.hub.receive_frame(self.now, conn, frame);
                }
            }
            11 | 12 => {
                let moment = self.hub.next_timeout().unwrap_or_default().max(self.now.moment);
                self.now = Now { moment, wall: Timestamp::ZERO };
                self.hub.timeout(self.now);
            }
            13 => self.disconnect(place),
            _ => {}
        }
        self.serve();
    }

    /// Opens a connection; most log in at once, as few inputs would get so far by themselves.
    fn connect(&mut self, place: usize, what: u8) {
        self.next = self.next.saturating_add(1);
        let conn = ConnId::new(self.next);
        self.hub.connect(self.now, conn, Nonce::new([7; Nonce::LEN]));
        if let Some(end) = self.ends.get_mut(place) {
            *end = Some((conn, FrameBuffer::default()));
        }
        if what & 0x80 == 0 {
            let user = u8::try_from(place).unwrap_or(0);
            for frame in hello_and_login(user, self.next) {
                self.hub.receive(self.now, conn, &encode_to_bytes(&frame));
            }
        }
        self.serve();
    }

    fn disconnect(&mut self, place: usize) {
        let Some((conn, _)) = self.ends.get_mut(place).and_then(Option::take) else { return };
        self.hub.disconnect(self.now, conn);
    }

    /// Takes what every connection is due, and hangs up on those that are finished.
    fn serve(&mut self) {
        while let Some(conn) = self.hub.poll_ready() {
            let bytes = self.hub.take(self.now, conn);
            let of = |end: &Option<(ConnId, FrameBuffer)>| {
                end.as_ref().is_some_and(|(other, _)| *other == conn)
            };
            let place = self.ends.iter().position(of).expect("who is gone is due nothing");
            let end = self.ends.get_mut(place).and_then(Option::as_mut);
            if let Some((_, buffer)) = end {
                buffer.feed(&bytes);
                read_all(buffer);
            }
            if self.hub.is_finished(conn) {
                self.disconnect(place);
            }
        }
    }
}

fn read_all(buffer: &mut FrameBuffer) {
    while let Some(frame) = buffer.next_frame().expect("a server must keep the framing") {
        let message: ServerFrame = decode(&frame).expect("a server must send messages");
        let again = encode_to_bytes(&message);
        assert_eq!(again.get(PREFIX_BYTES..), Some(&frame[..]), "a message has one encoding");
    }
}
