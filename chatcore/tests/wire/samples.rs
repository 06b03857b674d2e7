//! One sample at least of every variant of every enum that travels.

use chatcore::id::{
    Attach, BootId, ByteCount, COUNTER_MAX, Counter, Generation, Incarnation, Index, KeyHash,
    LogId, Nonce, PublicKey, RequestId, Seq, SessionId, Signature, Threshold,
};
use chatcore::migration::NodeId;
use chatcore::migration::directory::{
    Claim, ClaimFault, DirectoryReply, DirectoryRequest, Host, Registration, SignedClaim,
    SignedRegistration,
};
use chatcore::text::{Body, NameError, RoomName, ServiceName, Untrusted, UserName};
use chatcore::time::{Span, Timestamp};
use chatcore::wire::{
    Addresses, Answer, AuthFault, CheckpointStatus, ClientFrame, ClientHello, Command, Cursor,
    DecodeFault, DiskStatus, Durability, ExpelFault, FrameFault, GateState, HostStatus, JoinedRoom,
    LimitFault, List, Location, Login, Measure, NameFault, Notice, Operate, Order, Question,
    Record, RecordBody, Refusal, Role, RoomInfo, ServerFrame, ServerHello, Start, StateFault,
    Status, StorageStatus, TargetFault, UserInfo, UserList, VersionRange, Welcome,
};

use crate::variants::Variants;

pub(crate) fn counter(value: u64) -> Counter {
    Counter::new(value).unwrap()
}

fn seq(value: u64) -> Seq {
    Seq::new(value).unwrap()
}

fn request(value: u64) -> RequestId {
    RequestId::new(value).unwrap()
}

fn life(value: u64) -> Incarnation {
    Incarnation::new(value).unwrap()
}

fn lobby() -> RoomName {
    "lobby".parse().unwrap()
}

fn user(name: &str) -> UserName {
    name.parse().unwrap()
}

fn threshold(users: u16) -> Threshold {
    Threshold::new(users).unwrap()
}

fn at(millis: u64) -> Timestamp {
    Timestamp::new(millis).unwrap()
}

/// Bytes that count upwards from `first`, so that a swapped or reversed field shows.
fn ramp<const N: usize>(first: u8) -> [u8; N] {
    core::array::from_fn(|place| first.wrapping_add(u8::try_from(place).unwrap()))
}

fn to_lobby<T>() -> Untrusted<T> {
    Untrusted::new("lobby")
}

pub(crate) fn commands() -> Vec<(String, Command)> {
    let post = |incarnation, text: &str| {
        let body = Untrusted::new(text);
        Command::Post { room: to_lobby(), incarnation, body }
    };
    let others = [
        ("", post(Some(life(1)), "hi")),
        ("_first", post(None, "grüß dich, 世界")),
        ("", Command::Reset { room: to_lobby(), threshold: threshold(300) }),
    ];
    let mut commands: Vec<_> = others.map(|(suffix, command)| (suffix.to_owned(), command)).into();
    commands.extend(Measure::ALL.iter().map(|measure| {
        let user = Untrusted::new("bob");
        (format!("_{}", measure.variant()), Command::Moderate { user, measure: *measure })
    }));
    commands
}

pub(crate) fn starts() -> Vec<Start> {
    let cursor = Cursor { incarnation: life(2), seq: seq(300) };
    vec![Start::After(cursor), Start::Last(1_000), Start::At(seq(1))]
}

pub(crate) fn questions() -> Vec<(String, Question)> {
    let mut questions: Vec<(String, Question)> = starts()
        .into_iter()
        .map(|start| (format!("_{}", start.variant()), Question::Join { room: to_lobby(), start }))
        .collect();
    let history = |before, limit| Question::History { room: to_lobby(), before, limit };
    let others = [
        ("", Question::Part { room: to_lobby() }),
        ("", Question::Who { room: to_lobby() }),
        ("", Question::Rooms),
        ("", Question::Whois { room: to_lobby(), user: Untrusted::new("bob") }),
        ("", history(Some(seq(301)), 256)),
        ("_newest", history(None, 50)),
    ];
    questions.extend(others.map(|(suffix, question)| (suffix.to_owned(), question)));
    questions
}

pub(crate) fn client_frames() -> Vec<(String, ClientFrame)> {
    let versions = VersionRange { min: 1, max: 1 };
    let hello = |role| ClientFrame::Hello(ClientHello { role, versions, features: 0 });
    let login = Login {
        name: Untrusted::new("Alice"),
        key: PublicKey::new(ramp(0x10)),
        session: SessionId::new(ramp(0x30)),
        attach: Attach::new(7).unwrap(),
        signature: Signature::new(ramp(0x80)),
    };
    let mut frames = vec![
        (String::new(), hello(Role::Client)),
        ("_node".to_owned(), hello(Role::Node)),
        (String::new(), ClientFrame::Login(login)),
    ];
    for (number, (suffix, command)) in (1..).zip(commands()) {
        let name = format!(".{}{suffix}", command.variant());
        frames.push((name, ClientFrame::Submit { counter: counter(number), command }));
    }
    for (number, (suffix, question)) in (1..).zip(questions()) {
        let name = format!(".{}{suffix}", question.variant());
        frames.push((name, ClientFrame::Ask { request: request(number), question }));
    }
    let token = request(COUNTER_MAX);
    let rest = [ClientFrame::Ping { token }, ClientFrame::Pong { token }, ClientFrame::Leave];
    frames.extend(rest.map(|frame| (String::new(), frame)));
    frames.extend(orders().into_iter().map(|order| {
        let (key, signature) = (PublicKey::new(ramp(0x10)), Signature::new(ramp(0x80)));
        let name = format!(".{}", order.variant());
        (name, ClientFrame::Operate(Operate { key, order, signature }))
    }));
    frames.push((String::new(), ClientFrame::Prove { nonce: Nonce::new(ramp(0x20)) }));
    frames
}

pub(crate) fn orders() -> Vec<Order> {
    vec![Order::Status]
}

/// A name that tells refusals apart: the variant, and the fault in it.
pub(crate) fn refusal_name(refusal: &Refusal) -> String {
    let fault = match refusal {
        Refusal::Frame(fault) => fault.variant(),
        Refusal::Decode(fault) => fault.variant(),
        Refusal::Limit(fault) => fault.variant(),
        Refusal::State(fault) => fault.variant(),
        Refusal::Auth(fault) => fault.variant(),
        Refusal::Name(NameFault::Bad(error)) => return format!("name.bad.{}", error.variant()),
        Refusal::Name(fault) => fault.variant(),
        Refusal::Target(fault) => fault.variant(),
        Refusal::Expelled(fault) => fault.variant(),
        Refusal::Version(_)
        | Refusal::Perm
        | Refusal::Command
        | Refusal::Rate { .. }
        | Refusal::Busy { .. }
        | Refusal::Gate { .. }
        | Refusal::Gone
        | Refusal::Store
        | Refusal::Snapshot
        | Refusal::Crypto => return refusal.variant().to_owned(),
    };
    format!("{}.{fault}", refusal.variant())
}

pub(crate) fn state_faults() -> Vec<StateFault> {
    vec![
        StateFault::LogInFirst,
        StateFault::AlreadyLoggedIn,
        StateFault::Counter { expect: counter(8) },
        StateFault::CounterReused,
        StateFault::NotMember,
        StateFault::OtherIncarnation,
    ]
}

pub(crate) fn name_errors() -> Vec<NameError> {
    vec![
        NameError::Empty,
        NameError::TooLong,
        NameError::Character,
        NameError::Sign,
        NameError::Mark,
        NameError::Direction,
        NameError::Reserved,
    ]
}

pub(crate) fn name_faults() -> Vec<NameFault> {
    let others = [NameFault::InUse, NameFault::TooSimilar, NameFault::KeyHasName];
    name_errors().into_iter().map(NameFault::Bad).chain(others).collect()
}

fn each<F: Copy>(faults: &[F], refusal: fn(F) -> Refusal) -> Vec<Refusal> {
    faults.iter().map(|fault| refusal(*fault)).collect()
}

/// Every refusal with every fault, in wire order.
pub(crate) fn refusals() -> Vec<Refusal> {
    let retry_ms = Span::from_millis(1_000);
    [
        each(FrameFault::ALL, Refusal::Frame),
        each(DecodeFault::ALL, Refusal::Decode),
        vec![Refusal::Version(VersionRange { min: 1, max: 1 })],
        each(LimitFault::ALL, Refusal::Limit),
        each(&state_faults(), Refusal::State),
        each(AuthFault::ALL, Refusal::Auth),
        each(&name_faults(), Refusal::Name),
        vec![Refusal::Perm, Refusal::Command],
        each(TargetFault::ALL, Refusal::Target),
        vec![
            Refusal::Rate { retry_ms },
            Refusal::Busy { retry_ms },
            Refusal::Gate { have: 1, need: 2 },
            Refusal::Gone,
            Refusal::Store,
            Refusal::Snapshot,
            Refusal::Crypto,
        ],
        each(ExpelFault::ALL, Refusal::Expelled),
    ]
    .concat()
}

pub(crate) fn record_bodies() -> Vec<RecordBody> {
    let text: Body = "hi, all".parse().unwrap();
    vec![
        RecordBody::Post { from: user("bob"), text },
        RecordBody::Joined { user: user("bob") },
        RecordBody::Left { user: user("bob") },
    ]
}

fn records() -> Vec<Record> {
    (300..)
        .zip(record_bodies())
        .map(|(number, body)| {
            let at = at(1_795_348_800_123 + number);
            Record { room: lobby(), incarnation: life(2), seq: seq(number), at, body }
        })
        .collect()
}

fn gate(users: u32, open: bool) -> GateState {
    GateState { incarnation: life(2), users, threshold: threshold(2), open }
}

fn users() -> UserList {
    let names = List::first_of([user("alice"), user("bob")]);
    UserList { room: lobby(), count: 2, names, as_of: seq(302) }
}

pub(crate) fn answers() -> Vec<(&'static str, Answer)> {
    let joined = |gate, after, users, opened| {
        Answer::Joined(JoinedRoom { room: lobby(), gate, after: seq(after), users, opened })
    };
    let whois = UserInfo {
        user: user("bob"),
        key: PublicKey::new(ramp(0x10)),
        connected: true,
        operator: false,
    };
    let rooms = List::first_of([
        RoomInfo { room: lobby(), gate: gate(2, true) },
        RoomInfo { room: "ночь".parse().unwrap(), gate: gate(1, false) },
    ]);
    let incarnation = life(2);
    let page = |records| Answer::History { room: lobby(), incarnation, records };
    vec![
        ("", joined(gate(2, true), 299, Some(users()), false)),
        ("_held", joined(gate(1, false), 0, None, false)),
        ("_opened", joined(gate(2, true), 0, Some(users()), true)),
        ("", Answer::Parted { room: lobby() }),
        ("", Answer::Users(users())),
        ("", Answer::Rooms { rooms, count: 2 }),
        ("", Answer::User(whois)),
        ("", page(List::first_of(records()))),
        ("_empty", page(List::default())),
        ("", Answer::Refused(Refusal::Gate { have: 1, need: 2 })),
    ]
}

pub(crate) fn notices() -> Vec<Notice> {
    vec![Notice::FirstUserIsOperator, Notice::OperatorGranted, Notice::OperatorRevoked]
}

fn greetings() -> Vec<ServerFrame> {
    let hello = ServerHello {
        version: 1,
        features: 0,
        server_key: PublicKey::new(ramp(0x50)),
        log_id: LogId::new(ramp(0x70)),
        generation: Generation::new(3).unwrap(),
        nonce: Nonce::new(ramp(0xA0)),
    };
    vec![ServerFrame::Hello(hello), welcome(Some("chat://127.0.0.1:5000"))]
}

fn welcome(address: Option<&str>) -> ServerFrame {
    ServerFrame::Welcome(Welcome {
        user: user("alice"),
        session: SessionId::new(ramp(0x30)),
        last_counter: counter(130),
        opened: Timestamp::new(1_700_000_000_123).unwrap(),
        operator: false,
        address: address.map(|address| address.parse().unwrap()),
    })
}

fn room_frames() -> Vec<ServerFrame> {
    let (room, incarnation) = (lobby(), life(2));
    vec![
        ServerFrame::Gap { room: room.clone(), incarnation, from: seq(7), to: seq(90) },
        ServerFrame::Gate { room: room.clone(), gate: gate(1, false) },
        ServerFrame::Reset { room, incarnation: life(3), threshold: threshold(65_535) },
    ]
}

pub(crate) fn server_frames() -> Vec<(String, ServerFrame)> {
    let accepted = |seq| {
        let counter = counter(131);
        ServerFrame::Accepted { counter, room: lobby(), incarnation: life(2), seq }
    };
    let plain = |frame| (String::new(), frame);
    let mut frames: Vec<_> = greetings().into_iter().map(plain).collect();
    frames.push(("_without_address".to_owned(), welcome(None)));
    frames.push(plain(accepted(Some(seq(300)))));
    frames.push(("_held".to_owned(), accepted(None)));
    frames.push(plain(ServerFrame::Applied { counter: counter(132) }));
    frames.extend(refusals().into_iter().map(|refusal| {
        let name = format!(".{}", refusal_name(&refusal));
        (name, ServerFrame::Refused { counter: counter(133), refusal })
    }));
    frames.extend(answers().into_iter().map(|(suffix, answer)| {
        let name = format!(".{}{suffix}", answer.variant());
        (name, ServerFrame::Answer { request: request(9), answer })
    }));
    frames.extend(
        records()
            .into_iter()
            .map(|record| (format!(".{}", record.body.variant()), ServerFrame::Record(record))),
    );
    frames.extend(room_frames().into_iter().map(plain));
    frames.push(plain(ServerFrame::Rejected(Refusal::State(StateFault::AlreadyLoggedIn))));
    frames.extend(
        notices()
            .into_iter()
            .map(|notice| (format!(".{}", notice.variant()), ServerFrame::Notice(notice))),
    );
    frames.push(plain(ServerFrame::Close(Refusal::Gone)));
    let token = request(0);
    frames.push(plain(ServerFrame::Ping { token }));
    frames.push(plain(ServerFrame::Pong { token }));
    frames.extend(
        statuses()
            .into_iter()
            .map(|(name, status)| (format!(".{name}"), ServerFrame::Status(status))),
    );
    frames.push(plain(ServerFrame::Proof { signature: Signature::new(ramp(0x80)) }));
    frames.extend(moves().into_iter().map(|(suffix, frame)| (suffix.to_owned(), frame)));
    frames
}

/// What is told of a move.
fn moves() -> Vec<(&'static str, ServerFrame)> {
    let generation = Generation::new(4).unwrap();
    let location = |tls_key, addresses: &[&str]| Location {
        generation,
        log_id: LogId::new(ramp(0x70)),
        key: PublicKey::new(ramp(0x40)),
        boot: BootId::new(ramp(0x60)),
        tls_key,
        addresses: Addresses::first_of(addresses.iter().map(|text| text.parse().unwrap())),
    };
    let key = Some(KeyHash::new(ramp(0xC0)));
    let encrypted = location(key, &["chats://b.example:5000", "chats://192.0.2.7:5000"]);
    let within_ms = Span::from_millis(500);
    vec![
        ("", ServerFrame::Parked(encrypted.clone())),
        ("", ServerFrame::Moved(encrypted.clone())),
        ("_plain", ServerFrame::Moved(location(None, &["chat://127.0.0.1:5001"]))),
        ("_nowhere", ServerFrame::Moved(location(None, &[]))),
        ("", ServerFrame::Prepare { target: encrypted, within_ms }),
        ("", ServerFrame::Stay),
        ("", ServerFrame::Generation { generation }),
    ]
}

/// A status for each way of keeping a journal, by name.
fn statuses() -> Vec<(&'static str, Status)> {
    let index = |value| Index::new(value).unwrap();
    let bytes = |value| ByteCount::new(value).unwrap();
    let checkpoint = CheckpointStatus { entry: index(300), age_ms: Span::from_millis(70_000) };
    let [commit, relaxed] = durabilities();
    let disk = |durability, bytes, checkpoint| {
        StorageStatus::Disk(DiskStatus { durability, bytes, checkpoint })
    };
    let status = |storage| Status {
        address: Some("chat://127.0.0.1:5000".parse().unwrap()),
        connections: 5,
        online: 2,
        users: 3,
        rooms: 4,
        open: 1,
        newest: index(400),
        safe: index(399),
        store_full: false,
        memory: bytes(2_000),
        host: HostStatus { uptime_ms: Span::from_millis(86_400_000), storage },
    };
    let full = disk(relaxed, None, None);
    vec![
        ("memory", status(StorageStatus::Memory)),
        ("disk", status(disk(commit, Some(bytes(1 << 20)), Some(checkpoint)))),
        ("disk_full", Status { address: None, store_full: true, ..status(full) }),
    ]
}

pub(crate) fn durabilities() -> [Durability; 2] {
    [Durability::Commit, Durability::Relaxed]
}

/// One of each kind.
pub(crate) fn storages() -> Vec<StorageStatus> {
    let mut storages: Vec<_> =
        statuses().into_iter().map(|(_, status)| status.host.storage).collect();
    storages.dedup_by_key(|storage| storage.variant());
    storages
}

/// A host with so many addresses.
fn host(first: u8, addresses: usize) -> Host {
    let all = ["chats://a.example:5000", "unix:/run/chat.sock"];
    let addresses = all.into_iter().take(addresses).map(|address| address.parse().unwrap());
    Host {
        node: NodeId { key: PublicKey::new(ramp(first)), boot: BootId::new(ramp(first ^ 0x40)) },
        addresses: Addresses::first_of(addresses),
        tls_key: (first == 0x10).then(|| KeyHash::new(ramp(0xC0))),
    }
}

/// A claim of an owner alone, and one of an owner with a standby.
pub(crate) fn claims() -> [Claim; 2] {
    let alone = Claim {
        service: ServiceName::default(),
        log_id: LogId::new(ramp(0x70)),
        expect: Generation::ZERO,
        owner: host(0x10, 2),
        standby: None,
    };
    let expect = Generation::new(300).unwrap();
    let pair = Claim { expect, standby: Some(host(0x20, 0)), ..alone.clone() };
    [alone, pair]
}

pub(crate) fn directory_requests() -> Vec<(String, DirectoryRequest)> {
    let service = ServiceName::default;
    let watch = |after| DirectoryRequest::Watch { service: service(), after };
    let signature = Signature::new(ramp(0x80));
    let propose = |claim| DirectoryRequest::Propose(SignedClaim { claim, signature });
    let [alone, pair] = claims();
    let named = [
        ("", DirectoryRequest::Locate { service: service() }),
        ("", watch(Generation::new(300).unwrap())),
        ("_any", watch(Generation::ZERO)),
        (".alone", propose(alone)),
        (".pair", propose(pair)),
    ];
    named.map(|(suffix, frame)| (suffix.to_owned(), frame)).into()
}

pub(crate) fn registrations() -> [Registration; 2] {
    claims().map(|Claim { service, log_id, expect, owner, standby }| Registration {
        service,
        generation: expect.next(),
        log_id,
        owner,
        standby,
    })
}

pub(crate) fn directory_replies() -> Vec<(String, DirectoryReply)> {
    let signature = Signature::new(ramp(0x80));
    let [alone, pair] =
        registrations().map(|registration| SignedRegistration { registration, signature });
    let mut named = vec![
        (".alone".to_owned(), DirectoryReply::Registered(alone.clone())),
        (".pair".to_owned(), DirectoryReply::Registered(pair.clone())),
        (String::new(), DirectoryReply::Unregistered),
        (String::new(), DirectoryReply::Applied(alone)),
        (String::new(), DirectoryReply::Conflict(pair)),
    ];
    named.extend(
        ClaimFault::ALL
            .iter()
            .map(|fault| (format!(".{}", fault.variant()), DirectoryReply::Denied(*fault))),
    );
    let retry_ms = Span::from_millis(1_000);
    named.push((String::new(), DirectoryReply::Refused(Refusal::Busy { retry_ms })));
    named.push((String::new(), DirectoryReply::Close(Refusal::Gone)));
    named
}
