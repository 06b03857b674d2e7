//! What the user asks for, and the ways to the end.

use std::io;
use std::time::Duration;

use chatcore::client::{Ask, Drain, Input, Stop};
use chatcore::text::{Body, RoomName};
use chatcore::wire::{NameFault, Refusal};
use tokio::time::{Instant, timeout};

use super::{Driver, Ended, FAREWELL_TIME, Failure, Met, Profile, Reading};
use crate::Exit;
use crate::args::Mode;
use crate::identity::IdentityError;
use crate::input::{Action, Here, Request, Typing, interpret};
use crate::output::{Audience, ErrorReport, help};
use crate::terminal::NOTHING;

impl Driver<'_> {
    pub(super) fn take_typed(&mut self, typed: Typing) {
        match typed {
            Typing::Line { number, line } => {
                match line.and_then(|line| interpret(&line, number, self.args.mode())) {
                    Ok(request) => self.act(request),
                    Err(report) => self.error(&report),
                }
                if self.reading == Reading::Open {
                    self.prompt();
                }
            }
            Typing::End => self.leave_in_order(),
            Typing::Interrupt => self.interrupt(),
        }
    }

    /// Says that the next line may come, and where it goes when there is a choice.
    pub(super) fn prompt(&mut self) {
        let room = if self.rooms.len() > 1 { self.rooms.last() } else { None };
        self.around.source.prompt(room);
    }

    fn act(&mut self, request: Request) {
        let Request { id, action } = request;
        match action {
            Action::Nothing => {}
            Action::Help => {
                self.printer.notice(&help(Audience::Operators), self.around.screen.lines());
            }
            Action::Quit => self.leave_in_order(),
            Action::Rooms => self.handle(Input::Ask { ask: Ask::Rooms, id }),
            Action::Moderate(user, measure) => {
                self.handle(Input::Moderate { user, measure, id });
            }
            Action::Join(room) => self.join(room, id),
            Action::Part(room) => self.part(room, id),
            Action::Post(room, body) => self.post(room, body, id),
            Action::Here(here) => match self.rooms.last().cloned() {
                Some(room) => self.act_in(room, here, id),
                None => self.error(&ErrorReport::new("E_STATE", "join a room first", Some(id))),
            },
        }
    }

    fn act_in(&mut self, room: RoomName, here: Here, id: String) {
        match here {
            Here::Post(body) => self.post(room, body, id),
            Here::Reset(threshold) => self.handle(Input::Reset { room, threshold, id }),
            Here::Part => self.part(room, id),
            Here::Who => self.handle(Input::Ask { ask: Ask::Who(room), id }),
            Here::Whois(user) => self.handle(Input::Ask { ask: Ask::Whois(room, user), id }),
            Here::History(count) => {
                self.handle(Input::Ask { ask: Ask::History(room, count), id });
            }
        }
    }

    fn join(&mut self, room: RoomName, id: String) {
        if self.rooms.contains(&room) {
            let text = format!("you are in {room} already: lines go there now");
            self.printer.notice(&text, self.around.screen.lines());
        }
        self.rooms.retain(|joined| *joined != room);
        self.rooms.push(room.clone());
        // Also if it was joined: that may have been refused.
        self.handle(Input::Join { room, id });
    }

    fn part(&mut self, room: RoomName, id: String) {
        self.rooms.retain(|joined| *joined != room);
        self.handle(Input::Part { room, id });
    }

    fn post(&mut self, room: RoomName, body: Body, id: String) {
        self.printer.remember(&id, &body);
        self.handle(Input::Post { room, body, id });
    }

    /// The end of input, or `/quit`: once everything is answered.
    fn leave_in_order(&mut self) {
        self.reading = Reading::Ended;
        self.deadline = self.args.timeout.map(|span| Instant::now() + span);
        if self.client.unanswered() > 0 && self.args.mode() == Mode::Terminal {
            let text = "waiting until everything is acknowledged; control-C keeps it for later";
            self.printer.notice(text, self.around.screen.lines());
        }
        // What earlier runs left, and whether the name is accepted, is known only then.
        if self.met == Met::Yes {
            self.handle(Input::Quit { drain: Drain::Wait });
        }
    }

    /// SIGTERM: like the end of input, but not for ever.
    pub(super) fn leave_within(&mut self, span: Duration) {
        self.reading = Reading::Ended;
        self.exit = Some(Exit::Done);
        self.deadline = Some(Instant::now() + span);
        self.handle(Input::Quit { drain: Drain::Wait });
    }

    /// SIGINT, or control-C.
    pub(super) fn interrupt(&mut self) {
        self.reading = Reading::Ended;
        self.exit = Some(Exit::Interrupted);
        self.handle(Input::Quit { drain: Drain::Now });
    }

    /// The deadline passed.
    pub(super) fn give_up(&mut self) {
        self.deadline = None;
        self.reading = Reading::Ended;
        if self.exit.is_none() {
            let exit = match self.client.unanswered() {
                // All that is lacking is to see it.
                0 if self.client.is_online() && !self.client.awaits_answers() => Exit::Done,
                0 => {
                    self.tell("gave up: the server did not answer in time");
                    Exit::Network
                }
                count => {
                    let kept = if self.profile.is_some() { ", kept for the next run" } else { "" };
                    self.tell(&format!("gave up: {count} not acknowledged in time{kept}"));
                    Exit::Unacknowledged
                }
            };
            self.exit = Some(exit);
        }
        self.handle(Input::Quit { drain: Drain::Now });
    }

    pub(super) fn error(&mut self, report: &ErrorReport) {
        self.printer.error(report, self.around.screen.lines());
    }

    /// Says what happens to those who asked for it by `-v`.
    pub(super) fn debug(&mut self, text: &str) {
        if self.args.verbose {
            self.tell(text);
        }
    }

    /// A diagnostic: on stderr, or among the lines where stderr is the same terminal.
    pub(super) fn tell(&mut self, text: &str) {
        match self.args.mode() {
            Mode::Terminal => self.printer.notice(text, self.around.screen.lines()),
            Mode::Plain | Mode::Json => eprintln!("chat-client: {text}"),
        }
    }

    pub(super) fn ended(&mut self, stop: Stop) -> Ended {
        let exit = match stop {
            Stop::Done => self.exit.unwrap_or(Exit::Done),
            Stop::Refused(refusal) => {
                self.error(&ErrorReport::of_refusal(&refusal, None));
                if matches!(refusal, Refusal::Name(_)) {
                    self.forget_unused();
                }
                if let (Refusal::Name(fault), Mode::Terminal) = (refusal, self.args.mode()) {
                    return Ended::NameRefused(fault);
                }
                Exit::Refused
            }
            Stop::Lost => self.exit.unwrap_or(Exit::Network),
            Stop::Impostor => {
                let text = "what answers cannot prove that it has the key it names: somebody pretends \
                    to be a server";
                self.error(&ErrorReport::new("E_AUTH", text, None));
                Exit::Refused
            }
            Stop::OtherServer => {
                let text = "another server answers at this address";
                self.error(&ErrorReport::new("E_AUTH", text, None));
                Exit::Refused
            }
        };
        if self.client.unanswered() > 0 {
            let kept = match self.profile {
                Some(_) => "kept for the next run",
                None => "lost, as the server was never reached",
            };
            let count = self.client.unanswered();
            self.debug(&format!("not acknowledged: {count} lines, {kept}"));
        }
        Ended::Exit(exit)
    }

    /// A name that was refused leaves no key behind, unless there are lines to be sent with it.
    fn forget_unused(&mut self) {
        let is_unused = |profile: &mut Profile| {
            profile.made.is_some() && matches!(profile.store.is_unused(), Ok(true))
        };
        let Some(profile) = self.profile.take_if(is_unused) else { return };
        let Profile { identity, store, made } = profile;
        drop(store);
        if let Some(Err(error)) = made.map(|files| files.remove()) {
            self.tell(&format!("a key that is not used could not be removed: {error}"));
        }
        // Locked until its file is gone.
        drop(identity);
    }

    /// Says why this machine cannot go on, once.
    pub(super) fn fail(&mut self, failure: &Failure) -> Ended {
        match failure {
            // As a pipe's reader that has gone ends other programs: without a word.
            Failure::Screen(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Failure::Screen(_) => eprintln!("chat-client: {failure}"),
            Failure::Identity(IdentityError::InUse) => {
                self.error(&ErrorReport::new("E_AUTH", failure.to_string(), None));
                let typed = self.args.name.is_none() && self.args.identity.is_none();
                if typed && self.args.mode() == Mode::Terminal {
                    // Whoever typed the name can type another, which is another identity.
                    return Ended::NameRefused(NameFault::InUse);
                }
                return Ended::Exit(Exit::Refused);
            }
            Failure::OtherServer { .. } | Failure::Distrusted(_) => {
                self.error(&ErrorReport::new("E_AUTH", failure.to_string(), None));
                return Ended::Exit(Exit::Refused);
            }
            Failure::Identity(_) | Failure::Store(_) | Failure::Random(_) => {
                self.error(&ErrorReport::new("E_STORE", failure.to_string(), None));
            }
        }
        Ended::Exit(Exit::Failure)
    }

    /// Writes the last lines, and keeps what they showed.
    pub(super) async fn farewell(&mut self) {
        let mode = self.args.mode();
        let all_written = async {
            self.write_all().await?;
            if mode == Mode::Terminal {
                // An editor has what it was handed last still before it.
                self.around.screen.lines().push_str(NOTHING);
                self.write_all().await?;
            }
            Ok::<(), io::Error>(())
        };
        // A reader that has stopped reading does not keep the program from ending.
        let _late = timeout(FAREWELL_TIME, all_written).await;
    }

    async fn write_all(&mut self) -> io::Result<()> {
        while !self.around.screen.is_idle() {
            self.around.screen.show();
            let seen = self.around.screen.shown().await?;
            if let Some(profile) = &mut self.profile
                && let Err(error) = profile.store.apply_seen(seen)
            {
                eprintln!("chat-client: {error}");
            }
        }
        Ok(())
    }
}
