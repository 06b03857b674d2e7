//! The program at a terminal, with a person typing.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::support::{DEADLINE, World};

/// Between two looks whether a process has ended.
const POLL_TIME: Duration = Duration::from_millis(2);

/// A terminal of 80 columns with a client in it.
struct Person {
    process: Child,
    keyboard: File,
    terminal: File,
    pieces: Receiver<Vec<u8>>,
    /// Whoever holds it keeps the terminal from taking more than it has room for.
    eyes: Arc<Mutex<()>>,
    /// What the terminal was sent and nobody looked for yet.
    screen: String,
    /// What the terminal was sent before that.
    seen: String,
}

impl Person {
    fn start(world: &World, options: &[&str]) -> Self {
        Self::start_in("xterm", world, options)
    }

    fn start_in(terminal_kind: &str, world: &World, options: &[&str]) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let path = ptsname(&keyboard, Vec::new()).unwrap().into_string().unwrap();
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&keyboard, size).unwrap();
        let terminal = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let stdio = || Stdio::from(terminal.try_clone().unwrap());
        let process = Command::new(env!("CARGO_BIN_EXE_chat-client"))
            .arg(world.address())
            .args(options)
            .env_clear()
            .env("XDG_CONFIG_HOME", world.path("config"))
            .env("TERM", terminal_kind)
            .env("NO_COLOR", "1")
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        let keyboard = File::from(keyboard);
        let eyes = Arc::default();
        let pieces = pieces_of(keyboard.try_clone().unwrap(), Arc::clone(&eyes));
        let (screen, seen) = (String::new(), String::new());
        Self { process, keyboard, terminal, pieces, eyes, screen, seen }
    }

    fn keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until this is on the screen, after what was seen before.
    #[track_caller]
    fn see(&mut self, text: &str) {
        let until = Instant::now() + DEADLINE;
        loop {
            if let Some(place) = self.screen.find(text) {
                self.seen.extend(self.screen.drain(..place + text.len()));
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            let Ok(piece) = self.pieces.recv_timeout(left) else {
                panic!("{text:?} did not come; there is {:?}", self.screen);
            };
            self.screen.push_str(&String::from_utf8_lossy(&piece));
        }
    }

    /// Waits for the end; a client that does not end is a failure with its screen.
    #[track_caller]
    fn exit_code(&mut self) -> Option<i32> {
        let until = Instant::now() + DEADLINE;
        // Nothing tells the end of a process to a thread that does not block on it.
        while Instant::now() < until {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            thread::sleep(POLL_TIME);
        }
        let rest: Vec<u8> = self.pieces.try_iter().flatten().collect();
        self.screen.push_str(&String::from_utf8_lossy(&rest));
        panic!("the client does not end; there is {:?}", self.screen);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// The terminal is as it was before the client began.
    #[track_caller]
    fn assert_restored(&self) {
        let modes = tcgetattr(&self.terminal).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO), "{modes:?}");
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

fn pieces_of(mut master: File, eyes: Arc<Mutex<()>>) -> Receiver<Vec<u8>> {
    let (pieces, received) = channel();
    thread::spawn(move || {
        let mut buffer = [0; 4_096];
        while let Ok(count @ 1..) = master.read(&mut buffer) {
            drop(eyes.lock());
            if pieces.send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    received
}

#[test]
fn name_that_is_refused_is_asked_for_again_with_the_reason() {
    let world = World::new(1);
    let mut other = world.json("alice");
    other.event("connected");
    let key = world.path("key").display().to_string();
    let mut person = Person::start(&world, &["--identity", &key]);
    person.see("/join ROOM");
    person.see("Your name: ");
    person.keys("al ice\r");
    person.see("* error E_NAME: a name may not contain spaces");
    person.see("Your name: ");
    person.keys("alice\r");
    person.see("* error E_NAME: the name is already in use");
    person.see("Your name: ");
    person.keys("bob\r");
    person.see("* connected to ");
    person.see(" as bob");
    person.keys("hello\r");
    assert_eq!(other.message("hello")["from"], "bob");
    person.see("] bob: hello");
    person.keys("/quit\r");
    assert_eq!(person.exit_code(), Some(0));
}

#[test]
fn line_that_comes_in_leaves_the_half_typed_one_below_it() {
    let world = World::new(1);
    let mut person = Person::start(&world, &["--name", "alice"]);
    person.see("* 1 user connected: alice");
    person.keys("half a li");
    person.see("half a li");
    let mut bob = world.json("bob");
    bob.say("hi");
    person.see("] bob: hi");
    person.see("> half a li");
    person.keys("ne\r");
    assert_eq!(bob.message("half a line")["from"], "alice");
}

#[test]
fn control_c_has_code_130_and_leaves_the_terminal_as_it_was() {
    let world = World::new(1);
    let mut person = Person::start(&world, &["--name", "alice"]);
    person.see("* 1 user connected: alice");
    person.keys("half");
    person.see("half");
    person.keys("\u{3}");
    assert_eq!(person.exit_code(), Some(130));
    person.assert_restored();
}

#[test]
fn sigterm_at_a_prompt_leaves_the_terminal_as_it_was() {
    let world = World::new(1);
    let mut person = Person::start(&world, &["--name", "alice"]);
    person.see("* 1 user connected: alice");
    person.keys("half");
    person.see("half");
    person.signal(Signal::TERM);
    assert_eq!(person.exit_code(), Some(0));
    person.assert_restored();
}

#[test]
fn keys_before_the_first_prompt_wait_for_it_and_are_not_echoed_before() {
    let mut world = World::without_server(1);
    let mut person = Person::start(&world, &["--name", "alice"]);
    person.see("trying again");
    person.keys("early\rearlier still\rzzz");
    world.start_server();
    let mut bob = world.json("bob");
    bob.message("early");
    bob.message("earlier still");
    person.see("zzz");
    let place = |text: &str| person.seen.find(text).unwrap();
    assert!(place("> ") < place("early"), "{:?}", person.seen);
    // A person who sees what was typed may interrupt.
    person.keys("\u{3}");
    assert_eq!(person.exit_code(), Some(130));
    person.assert_restored();
}

#[test]
fn signals_have_their_codes_whenever_they_come() {
    let world = World::new(1);
    let moments = ["/join ROOM", "* connected to ", "* 1 user connected: alice", "> "];
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 0)] {
        for moment in moments {
            let mut person = Person::start(&world, &["--name", "alice"]);
            person.see(moment);
            person.signal(signal);
            assert_eq!(person.exit_code(), Some(code), "{signal:?} after {moment:?}");
            person.assert_restored();
        }
    }
}

#[test]
fn a14_key_that_is_no_text_is_an_error_and_the_next_line_is_posted() {
    let world = World::new(1);
    let mut person = Person::start(&world, &["--name", "alice"]);
    person.see("> ");
    person.keyboard.write_all(b"caf\xe9x").unwrap();
    person.see("* error E_COMMAND: the line is not UTF-8");
    person.see("> ");
    person.keys("\u{15}next\r");
    person.see("] alice: next");
}

#[test]
fn name_that_another_terminal_uses_ends_the_client_or_is_asked_for_again() {
    let world = World::new(1);
    let mut first = Person::start(&world, &["--name", "alice"]);
    first.see("* 1 user connected: alice");

    let mut named = Person::start(&world, &["--name", "alice"]);
    named.see("* error E_AUTH: this identity is already in use on this machine");
    assert_eq!(named.exit_code(), Some(4));

    let mut second = Person::start(&world, &[]);
    second.see("Your name: ");
    second.keys("alice\r");
    second.see("* error E_AUTH: this identity is already in use on this machine");
    second.see("Your name: ");
    second.keys("bob\r");
    first.see("* bob has joined the chat");
    second.keys("/quit\r");
    assert_eq!(second.exit_code(), Some(0));
    second.assert_restored();
}

#[test]
fn prompt_names_the_room_when_there_are_several() {
    let world = World::new(1);
    let mut person = Person::start(&world, &["--name", "alice"]);
    person.see("> ");
    person.keys("/join dev\r");
    person.see("dev> ");
    person.keys("/join lobby\r");
    person.see("* you are in lobby already: lines go there now");
    person.see("lobby> ");
}

#[test]
fn dumb_terminal_gets_plain_lines() {
    let world = World::new(1);
    let mut person = Person::start_in("dumb", &world, &["--name", "alice"]);
    person.see("* 1 user connected: alice\r\n");
    person.keys("hello\n");
    person.see("] alice: hello\r\n");
    assert!(!person.seen.contains('\u{1b}'), "{:?}", person.seen);
}

#[test]
fn last_line_before_the_end_is_shown_also_on_a_slow_terminal() {
    let mut world = World::new(1);
    let mut person = Person::start(&world, &["--name", "alice", "--no-reconnect"]);
    person.see("* 1 user connected: alice");
    person.see("> ");
    let mut bob = world.json("bob");
    bob.event("users");
    let eyes = Arc::clone(&person.eyes);
    let closed = eyes.lock().unwrap();
    // More than the terminal has room for: the editor is busy when the last line comes.
    let text = "\\n".repeat(4_000);
    bob.say(&format!(r#"{{"type":"post","text":"a{text}b"}}"#));
    bob.event("sent");
    world.stop_server();
    drop(closed);
    person.see("* disconnected: ");
    assert_eq!(person.exit_code(), Some(3));
    person.assert_restored();
}
