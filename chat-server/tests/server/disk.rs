//! A disk that loses power: what a traced program wrote, and what of it is sure to be there.
//!
//! A write is on the disk for sure once its file was synced after it, and a new, renamed or removed
//! name once the folder was. Of what is not sure, each sector may have been written or not, in any
//! order; of names the first so many changes were. What a sync could not write never gets there.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use chatcore::codec::{FrameBuffer, decode};
use chatcore::id::Counter;
use chatcore::migration::directory::DirectoryReply;
use chatcore::wire::{Record, RecordBody, ServerFrame};

/// What is written as one.
const SECTOR: usize = 512;

/// Calls of the system that the trace must hold.
pub(crate) const CALLS: &str = "openat,pwrite64,write,ftruncate,fsync,fdatasync,rename,renameat,\
    renameat2,link,linkat,unlink,unlinkat,sendto,sendmsg,writev";

/// Something that a traced program did.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Created(String),
    Written {
        name: String,
        at: Option<usize>,
        bytes: Vec<u8>,
    },
    Cut {
        name: String,
        length: usize,
    },
    /// A sync began, of a file or, without a name, of the folder; the number tells it from others.
    SyncBegun {
        number: u32,
        name: Option<String>,
    },
    SyncEnded {
        number: u32,
    },
    SyncFailed {
        number: u32,
    },
    Named {
        from: String,
        to: String,
        moved: bool,
    },
    Removed(String),
    /// The program told somebody that posts are safe, or showed them, up to this one.
    Acknowledged(Counter),
}

/// Reads a trace of what happened in a folder. Calls of several threads overlap: a write counts from
/// its beginning, for it may be on the disk before it returns, and a sync from its end.
pub(crate) fn read_trace(text: &str, folder: &Path) -> Vec<Event> {
    let mut trace = Trace {
        folder: folder.to_str().unwrap().to_owned(),
        unfinished: HashMap::new(),
        sent: HashMap::new(),
        events: Vec::new(),
    };
    text.lines().for_each(|line| trace.take(line));
    trace.events
}

struct Trace {
    folder: String,
    /// By thread.
    unfinished: HashMap<u32, String>,
    /// By socket.
    sent: HashMap<String, FrameBuffer>,
    events: Vec<Event>,
}

impl Trace {
    fn take(&mut self, line: &str) {
        let (thread, rest) = line.split_once(' ').unwrap();
        let (thread, rest): (u32, &str) = (thread.parse().unwrap(), rest.trim_start());
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            self.begin(thread, begun);
            self.unfinished.insert(thread, begun.to_owned());
        } else if rest.starts_with("<... ") {
            let begun = self.unfinished.remove(&thread).unwrap_or_default();
            let end = rest.split_once(" resumed>").unwrap().1;
            self.end(thread, &(begun + end));
        } else if rest.contains('(') && !rest.starts_with(['+', '-']) {
            self.begin(thread, rest);
            self.end(thread, rest);
        }
    }

    /// The name of a file in the folder; the empty name is the folder's own.
    fn name(&self, path: &str) -> Option<String> {
        let inside = path.strip_prefix(&self.folder)?;
        if inside.is_empty() {
            Some(String::new())
        } else {
            inside.strip_prefix('/').map(str::to_owned)
        }
    }

    fn begin(&mut self, number: u32, call: &str) {
        let (what, arguments) = call.split_once('(').unwrap();
        let Some(target) = annotation(arguments) else { return };
        let texts = quoted(arguments);
        let Some(name) = self.name(&target) else {
            if matches!(what, "write" | "sendto" | "sendmsg" | "writev")
                && target.contains("socket")
            {
                self.send(target, &texts.concat());
            }
            return;
        };
        // What is behind the last text: how much, where.
        let numbers = arguments.rsplit('"').next().unwrap().split([',', ')', ' ']);
        let numbers: Vec<usize> = numbers.filter_map(|number| number.parse().ok()).collect();
        let event = match what {
            "pwrite64" => Event::Written { name, at: Some(numbers[1]), bytes: texts.concat() },
            "write" => Event::Written { name, at: None, bytes: texts.concat() },
            "ftruncate" => Event::Cut { name, length: numbers[0] },
            "fsync" | "fdatasync" => {
                Event::SyncBegun { number, name: Some(name).filter(|name| !name.is_empty()) }
            }
            _ => return,
        };
        self.events.push(event);
    }

    /// Whoever is told that a post is accepted, or is shown it, may rely on it. Its text is its number.
    /// The number of a claim is the generation that it led to.
    fn send(&mut self, socket: String, bytes: &[u8]) {
        let buffer = self.sent.entry(socket).or_default();
        buffer.feed(bytes);
        while let Ok(Some(frame)) = buffer.next_frame() {
            let counter = match decode(&frame) {
                Ok(ServerFrame::Accepted { counter, .. }) => Some(counter),
                Ok(ServerFrame::Record(Record { body: RecordBody::Post { text, .. }, .. })) => {
                    let number = text.as_str().parse().ok();
                    number.and_then(|number| Counter::new(number).ok())
                }
                _ => match decode(&frame) {
                    Ok(DirectoryReply::Applied(signed) | DirectoryReply::Registered(signed)) => {
                        Counter::new(signed.registration.generation.get()).ok()
                    }
                    _ => None,
                },
            };
            self.events.extend(counter.map(Event::Acknowledged));
        }
    }

    fn end(&mut self, number: u32, call: &str) {
        let (what, arguments) = call.split_once('(').unwrap();
        let returned = call.rsplit_once(" = ").map_or("", |(_, returned)| returned);
        if matches!(what, "fsync" | "fdatasync") && returned.starts_with('-') {
            self.events.push(Event::SyncFailed { number });
        }
        if returned.starts_with('-') || returned.is_empty() || returned.starts_with('?') {
            return;
        }
        if matches!(what, "fsync" | "fdatasync") {
            self.events.push(Event::SyncEnded { number });
        }
        let paths = quoted(arguments).into_iter().filter_map(|path| String::from_utf8(path).ok());
        let names: Vec<String> = paths.filter_map(|path| self.name(&path)).collect();
        let event = match (what, names.as_slice()) {
            ("openat", [name]) if arguments.contains("O_CREAT") => Event::Created(name.clone()),
            ("rename" | "renameat" | "renameat2", [from, to]) => {
                Event::Named { from: from.clone(), to: to.clone(), moved: true }
            }
            ("link" | "linkat", [from, to]) => {
                Event::Named { from: from.clone(), to: to.clone(), moved: false }
            }
            ("unlink" | "unlinkat", [name]) => Event::Removed(name.clone()),
            _ => return,
        };
        self.events.push(event);
    }
}

/// What the first descriptor of a call stands for.
pub(crate) fn annotation(arguments: &str) -> Option<String> {
    let digits = arguments.find(|sign: char| !sign.is_ascii_digit())?;
    let inside = arguments[digits..].strip_prefix('<').filter(|_| digits > 0)?;
    String::from_utf8(unescaped(inside.split_once('>')?.0)).ok()
}

/// The texts of a call.
fn quoted(arguments: &str) -> Vec<Vec<u8>> {
    arguments.split('"').skip(1).step_by(2).map(unescaped).collect()
}

/// Bytes as a tracer writes them: `\x6a`. What is not written like this stands for itself.
fn unescaped(text: &str) -> Vec<u8> {
    let mut pieces = text.split("\\x");
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (byte, rest) = piece.split_at(2);
        bytes.push(u8::from_str_radix(byte, 16).unwrap());
        bytes.extend_from_slice(rest.as_bytes());
    }
    bytes
}

/// A change of a file that may be lost.
#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Cut(usize),
}

#[derive(Clone, Debug, Default)]
struct File {
    sure: Vec<u8>,
    unsure: Vec<Change>,
    /// How long it looks to whoever writes it.
    length: usize,
}

/// A change of names that may be lost.
#[derive(Clone, Debug)]
enum Naming {
    Set(String, usize),
    Remove(String),
}

/// A disk with the files of one folder.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    files: Vec<File>,
    /// As the program sees them.
    names: BTreeMap<String, usize>,
    sure_names: BTreeMap<String, usize>,
    unsure_names: Vec<Naming>,
    /// Syncs that have begun, and how much was unsure then: of a file, or of the names.
    syncs: HashMap<u32, (Option<usize>, usize)>,
    /// The last post that somebody was told is safe, or was shown.
    pub(crate) acknowledged: Counter,
}

impl Disk {
    pub(crate) fn follow(&mut self, event: &Event) {
        match event {
            Event::Created(name) => {
                if !self.names.contains_key(name) {
                    self.files.push(File::default());
                    self.set_name(name, self.files.len() - 1);
                }
            }
            Event::Written { name, at, bytes } => {
                let Some(file) = self.file(name) else { return };
                let at = at.unwrap_or(file.length);
                file.length = file.length.max(at + bytes.len());
                file.unsure.push(Change::Write { at, bytes: bytes.clone() });
            }
            Event::Cut { name, length } => {
                let Some(file) = self.file(name) else { return };
                file.length = *length;
                file.unsure.push(Change::Cut(*length));
            }
            Event::SyncBegun { number, name } => {
                let sync = match name {
                    None => (None, self.unsure_names.len()),
                    Some(name) => {
                        let Some(number) = self.names.get(name).copied() else { return };
                        (Some(number), self.files[number].unsure.len())
                    }
                };
                self.syncs.insert(*number, sync);
            }
            Event::SyncEnded { number } => self.end_sync(*number),
            Event::SyncFailed { number } => {
                // The system forgets what it could not write, and no later sync does.
                if let Some((Some(file), count)) = self.syncs.remove(number) {
                    self.files[file].unsure.drain(..count);
                }
            }
            Event::Named { from, to, moved } => {
                let Some(number) = self.names.get(from).copied() else { return };
                self.set_name(to, number);
                if *moved {
                    self.remove_name(from);
                }
            }
            Event::Removed(name) => self.remove_name(name),
            Event::Acknowledged(counter) => self.acknowledged = self.acknowledged.max(*counter),
        }
    }

    fn file(&mut self, name: &str) -> Option<&mut File> {
        self.names.get(name).map(|number| &mut self.files[*number])
    }

    fn set_name(&mut self, name: &str, number: usize) {
        self.names.insert(name.to_owned(), number);
        self.unsure_names.push(Naming::Set(name.to_owned(), number));
    }

    fn remove_name(&mut self, name: &str) {
        self.names.remove(name);
        self.unsure_names.push(Naming::Remove(name.to_owned()));
    }

    fn end_sync(&mut self, number: u32) {
        match self.syncs.remove(&number) {
            Some((Some(file), count)) => {
                let file = &mut self.files[file];
                // Another sync may have ended meanwhile, and made some of these sure.
                let count = count.min(file.unsure.len());
                let sure: Vec<Change> = file.unsure.drain(..count).collect();
                sure.iter().for_each(|change| change.apply(&mut file.sure, |_| true));
            }
            Some((None, count)) => {
                let count = count.min(self.unsure_names.len());
                let sure: Vec<Naming> = self.unsure_names.drain(..count).collect();
                sure.iter().for_each(|naming| naming.apply(&mut self.sure_names));
            }
            None => {}
        }
    }

    /// Writes down what the disk holds after the power was cut: each sector that is not sure is
    /// there with this chance.
    pub(crate) fn after_power_cut(&self, folder: &Path, chance: f64, random: &mut fastrand::Rng) {
        let mut names = self.sure_names.clone();
        let kept = random.usize(0..=self.unsure_names.len());
        self.unsure_names[..kept].iter().for_each(|naming| naming.apply(&mut names));
        for (name, number) in names {
            // The lock says nothing, and the index of the log is made anew.
            if name == "lock" || name.ends_with("-shm") {
                continue;
            }
            let file = &self.files[number];
            let mut bytes = file.sure.clone();
            for change in &file.unsure {
                change.apply(&mut bytes, |_| random.f64() < chance);
            }
            fs::write(folder.join(&name), bytes).unwrap();
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(folder.join(&name), private).unwrap();
        }
    }
}

impl Change {
    /// Makes the change, as far as `keeps` says of each sector.
    fn apply(&self, file: &mut Vec<u8>, mut keeps: impl FnMut(usize) -> bool) {
        match self {
            Self::Cut(length) => {
                if keeps(0) {
                    file.resize(*length, 0);
                }
            }
            Self::Write { at, bytes } => {
                let mut from = 0;
                while from < bytes.len() {
                    let sector = (at + from) / SECTOR;
                    let to = bytes.len().min((sector + 1) * SECTOR - at);
                    if keeps(sector) {
                        file.resize(file.len().max(at + to), 0);
                        file[at + from..at + to].copy_from_slice(&bytes[from..to]);
                    }
                    from = to;
                }
            }
        }
    }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Set(name, number) => drop(names.insert(name.clone(), *number)),
            Self::Remove(name) => drop(names.remove(name)),
        }
    }
}

#[test]
fn disk_keeps_what_was_synced_and_any_part_of_the_rest() {
    let mut disk = Disk::default();
    let name = || "file".to_owned();
    let write = |at: usize, byte: u8| Event::Written {
        name: name(),
        at: Some(at),
        bytes: vec![byte; SECTOR],
    };
    let sync = |name: Option<String>| {
        [Event::SyncBegun { number: 1, name }, Event::SyncEnded { number: 1 }]
    };
    disk.follow(&Event::Created(name()));
    disk.follow(&write(0, 1));
    sync(Some(name())).iter().for_each(|event| disk.follow(event));
    sync(None).iter().for_each(|event| disk.follow(event));
    // While a sync is under way, what comes is not sure.
    disk.follow(&Event::SyncBegun { number: 2, name: Some(name()) });
    disk.follow(&write(SECTOR, 2));
    disk.follow(&Event::SyncEnded { number: 2 });
    let mut random = fastrand::Rng::with_seed(1);
    let mut lengths = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        disk.after_power_cut(folder.path(), 0.5, &mut random);
        let bytes = fs::read(folder.path().join("file")).unwrap();
        assert_eq!(bytes[..SECTOR], [1; SECTOR]);
        lengths.insert(bytes.len());
    }
    assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [SECTOR, 2 * SECTOR]);
}
