//! Snapshots from anywhere: refused, or an engine that works.

use std::collections::VecDeque;

use chatcore::engine::{Archive, Config, Directive, Engine, Input, Output};
use chatcore::id::{ConnId, Counter, Nonce, RequestId};
use chatcore::text::Untrusted;
use chatcore::time::{Moment, Now, Span, Timestamp};
use chatcore::wire::{ClientFrame, Command, Question, ServerFrame, Start};

use super::engine_ops::hello_and_login;

const DIGEST_BYTES: usize = 32;
/// Timers that an engine that nobody talks to may have.
const TIMERS_MAX: usize = 1_000;

/// Restores an engine from one input as it is, and from the same with a digest that fits: a fuzzer
/// does not guess a digest, and whoever forges a snapshot computes one.
///
/// # Panics
/// When bytes are accepted that are not the snapshot of the engine they make, or that make one
/// which does not work.
pub fn check(input: &[u8]) {
    check_bytes(input);
    if let Some(sealed) = sealed(input)
        && sealed != input
    {
        check_bytes(&sealed);
    }
}

/// The same snapshot with its digest made to fit.
fn sealed(input: &[u8]) -> Option<Vec<u8>> {
    let image = input.get(..input.len().checked_sub(DIGEST_BYTES)?)?;
    Some([image, blake3::hash(image).as_bytes()].concat())
}

fn check_bytes(bytes: &[u8]) {
    for archive in [Archive::None, Archive::Store] {
        let config = Config { archive, ..Config::default() };
        let now = Now { moment: Moment::from_millis(5), wall: Timestamp::ZERO };
        let Ok(engine) = Engine::restore(bytes, [], config.clone(), now) else { continue };
        engine.check_invariants();
        if archive == Archive::None {
            let same = engine.snapshot().is_some_and(|again| again == bytes);
            assert!(same, "a snapshot must be the one that its engine writes");
        }
        let mut visit = Visit { engine, now };
        visit.play();
        let bytes = visit.engine.snapshot().expect("everything is safe");
        let again = Engine::restore(&bytes, [], config, now).expect("a snapshot must restore");
        assert_eq!(again.state_hash(), visit.engine.state_hash(), "the same state comes back");
    }
}

/// A user of the corpus comes back to an engine that was restored.
struct Visit {
    engine: Engine,
    now: Now,
}

impl Visit {
    fn play(&mut self) {
        let conn = ConnId::new(1);
        let nonce = Nonce::new([7; Nonce::LEN]);
        self.tell(Input::Connected {
            conn,
            nonce,
            channel: None,
            address: None,
            waited: Span::ZERO,
        });
        let [hello, login] = hello_and_login(0, 1);
        self.say(conn, hello);
        let welcome = |frame: &ServerFrame| matches!(frame, ServerFrame::Welcome(_));
        if self.say(conn, login).iter().any(welcome) {
            self.ask_and_post(conn);
        }
        self.tell(Input::Disconnected { conn });
        self.wait();
    }

    /// Whatever the state is: what is asked is answered, and what is sent, too.
    fn ask_and_post(&mut self, conn: ConnId) {
        let lobby = Untrusted::new("lobby");
        // The first command of the corpus, and a new one if numbers stand at their beginning.
        for (counter, text) in [(Counter::ZERO.next(), "01"), (Counter::ZERO.next().next(), "new")]
        {
            let (room, body) = (Untrusted::new("lobby"), Untrusted::new(text));
            let command = Command::Post { room, incarnation: None, body };
            let heard = self.say(conn, ClientFrame::Submit { counter, command });
            let answers = |frame: &ServerFrame| {
                matches!(frame, ServerFrame::Accepted { counter: to, .. }
                    | ServerFrame::Applied { counter: to }
                    | ServerFrame::Refused { counter: to, .. } if *to == counter)
            };
            let answered = heard.iter().any(answers);
            assert!(answered, "a command must be answered");
        }
        let join = Question::Join { room: lobby, start: Start::Last(2) };
        for (request, question) in [(1, Question::Rooms), (2, join)] {
            let request = RequestId::ZERO.saturating_add(request);
            let heard = self.say(conn, ClientFrame::Ask { request, question });
            let answered = |frame: &ServerFrame| matches!(frame, ServerFrame::Answer { request: to, .. } if *to == request);
            assert!(heard.iter().any(answered), "a question must be answered");
        }
    }

    fn say(&mut self, conn: ConnId, frame: ClientFrame) -> Vec<ServerFrame> {
        self.tell(Input::Frame { conn, frame })
    }

    /// Tells the engine something, carries out what it wants, and gives what it sends.
    fn tell(&mut self, input: Input) -> Vec<ServerFrame> {
        let (mut inputs, mut frames) = (VecDeque::from([input]), Vec::new());
        while let Some(input) = inputs.pop_front() {
            let taken = self.engine.handle(self.now, input);
            taken.expect("a host that keeps the rules is not refused");
            while let Some(output) = self.engine.poll_output() {
                match output {
                    Output::Persist(entry) => {
                        inputs.push_back(Input::Persisted { through: entry.header.index });
                    }
                    Output::Verify { conn, .. } => {
                        inputs.push_back(Input::Verified { conn, valid: true });
                    }
                    Output::Read { token, .. } => {
                        inputs.push_back(Input::ReadDone { token, records: Vec::new() });
                    }
                    Output::Deliver(Directive::Send { frame, .. }) => frames.push(frame),
                    Output::Deliver(_)
                    | Output::Sign { .. }
                    | Output::Moderated { .. }
                    | Output::Report { .. }
                    | Output::Event(_) => {}
                }
            }
        }
        self.engine.check_invariants();
        frames
    }

    /// Waits until everybody who did not come back has left.
    fn wait(&mut self) {
        for _ in 0..TIMERS_MAX {
            let Some(due) = self.engine.next_timeout() else { return };
            self.now.moment = self.now.moment.max(due);
            self.tell(Input::Timeout);
        }
        panic!("an engine without connections must come to rest");
    }
}
