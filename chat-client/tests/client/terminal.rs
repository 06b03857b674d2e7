//! The program at a terminal, with a person typing.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::support::{DEADLINE, World};

/// A terminal of 80 columns with a client in it.
struct Person {
    process: Child,
    keyboard: File,
    terminal: File,
    pieces: Receiver<Vec<u8>>,
    /// What the terminal was sent and nobody looked for yet.
    screen: String,
}

impl Person {
    fn start(world: &World, options: &[&str]) -> Self {
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
            .env("TERM", "xterm")
            .env("NO_COLOR", "1")
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        let keyboard = File::from(keyboard);
        let pieces = pieces_of(keyboard.try_clone().unwrap());
        Self { process, keyboard, terminal, pieces, screen: String::new() }
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
                self.screen.drain(..place + text.len());
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            let Ok(piece) = self.pieces.recv_timeout(left) else {
                panic!("{text:?} did not come; there is {:?}", self.screen);
            };
            self.screen.push_str(&String::from_utf8_lossy(&piece));
        }
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.process.wait().unwrap().code()
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

fn pieces_of(mut master: File) -> Receiver<Vec<u8>> {
    let (pieces, received) = channel();
    thread::spawn(move || {
        let mut buffer = [0; 4_096];
        while let Ok(count @ 1..) = master.read(&mut buffer) {
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
    let modes = tcgetattr(&person.terminal).unwrap().local_modes;
    assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO));
}

#[test]
fn sigterm_at_a_prompt_leaves_the_terminal_as_it_was() {
    let world = World::new(1);
    let mut person = Person::start(&world, &["--name", "alice"]);
    person.see("* 1 user connected: alice");
    person.keys("half");
    person.see("half");
    let pid = i32::try_from(person.process.id()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(person.exit_code(), Some(0));
    let modes = tcgetattr(&person.terminal).unwrap().local_modes;
    assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO));
}
