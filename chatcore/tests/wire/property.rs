//! Arbitrary messages, arbitrary bytes, arbitrary pieces.

use bytes::{Bytes, BytesMut};
use chatcore::codec::{FrameBuffer, PREFIX_BYTES, decode, encode, encode_to_bytes};
use chatcore::id::{
    Attach, BootId, ByteCount, COUNTER_MAX, Counter, Generation, Incarnation, Index, KeyHash,
    LogId, Nonce, PublicKey, RequestId, Seq, SessionId, Signature, Threshold,
};
use chatcore::migration::NodeId;
use chatcore::migration::directory::{
    Claim, ClaimFault, DIRECTORY_FRAME_BYTES_MAX, DirectoryReply, DirectoryRequest, Host,
    Registration, SignedClaim, SignedRegistration,
};
use chatcore::text::{
    Body, HOST_ADDRESS_BYTES_MAX, RoomName, SERVICE_NAME_CHARS_MAX, ServiceName, Untrusted,
    UserName,
};
use chatcore::time::{Span, Timestamp};
use chatcore::wire::{
    ADDRESSES_MAX, Addresses, Answer, CheckpointStatus, ClientFrame, ClientHello, Command, Cursor,
    DiskStatus, GateState, HostStatus, JoinedRoom, List, Location, Login, Measure, Notice, Operate,
    Order, Question, Record, RecordBody, Refusal, Role, RoomInfo, ServerFrame, ServerHello, Start,
    StateFault, Status, StorageStatus, UserInfo, UserList, VersionRange, Welcome,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::golden::{Message, golden};
use crate::samples;

/// Every counter, with those at the ends of varints and of the range more often.
fn number() -> impl Strategy<Value = u64> {
    let edges = (0..=7_u32).prop_flat_map(|bytes| {
        let edge = 1_u64 << (7 * bytes);
        edge - 1..=edge
    });
    prop_oneof![0..=COUNTER_MAX, edges, Just(COUNTER_MAX)]
}

macro_rules! counters {
    ($($name:ident $type:ty,)*) => {
        $(fn $name() -> impl Strategy<Value = $type> {
            number().prop_map(|value| <$type>::new(value).unwrap())
        })*
    };
}

counters! {
    attach Attach,
    byte_count ByteCount,
    counter Counter,
    generation Generation,
    incarnation Incarnation,
    index Index,
    request RequestId,
    seq Seq,
    timestamp Timestamp,
}

macro_rules! byte_ids {
    ($($name:ident $type:ty, $bytes:ty,)*) => {
        $(fn $name() -> impl Strategy<Value = $type> {
            any::<$bytes>().prop_map(<$type>::new)
        })*
    };
}

byte_ids! {
    log_id LogId, [u8; 16],
    nonce Nonce, [u8; 32],
    public_key PublicKey, [u8; 32],
    session SessionId, [u8; 16],
}

fn signature() -> impl Strategy<Value = Signature> {
    any::<[[u8; 32]; 2]>()
        .prop_map(|halves| Signature::new(halves.concat().try_into().expect("64 bytes")))
}

fn threshold() -> impl Strategy<Value = Threshold> {
    (1..=u16::MAX).prop_map(|users| Threshold::new(users).unwrap())
}

fn untrusted<T>() -> impl Strategy<Value = Untrusted<T>> {
    any::<String>().prop_map(Untrusted::new)
}

fn user() -> impl Strategy<Value = UserName> {
    "[a-z0-9_]{1,32}|[а-я]{1,32}".prop_filter_map("reserved", |name| name.parse().ok())
}

fn room() -> impl Strategy<Value = RoomName> {
    "[a-z0-9_]{1,64}|[а-я]{1,64}".prop_map(|name| name.parse().unwrap())
}

fn body() -> impl Strategy<Value = Body> {
    "\\PC{1,50}".prop_filter_map("empty", |text| text.parse().ok())
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        (untrusted(), proptest::option::of(incarnation()), untrusted())
            .prop_map(|(room, incarnation, body)| Command::Post { room, incarnation, body }),
        (untrusted(), threshold()).prop_map(|(room, threshold)| Command::Reset { room, threshold }),
        (untrusted(), proptest::sample::select(Measure::ALL))
            .prop_map(|(user, measure)| Command::Moderate { user, measure }),
    ]
}

fn start() -> impl Strategy<Value = Start> {
    prop_oneof![
        (incarnation(), seq())
            .prop_map(|(incarnation, seq)| Start::After(Cursor { incarnation, seq })),
        number().prop_map(Start::Last),
        seq().prop_map(Start::At),
    ]
}

fn question() -> impl Strategy<Value = Question> {
    prop_oneof![
        (untrusted(), start()).prop_map(|(room, start)| Question::Join { room, start }),
        untrusted().prop_map(|room| Question::Part { room }),
        untrusted().prop_map(|room| Question::Who { room }),
        Just(Question::Rooms),
        (untrusted(), untrusted()).prop_map(|(room, user)| Question::Whois { room, user }),
        (untrusted(), proptest::option::of(seq()), any::<u16>())
            .prop_map(|(room, before, limit)| Question::History { room, before, limit }),
    ]
}

fn client_frame() -> impl Strategy<Value = ClientFrame> {
    let login = (untrusted(), public_key(), session(), attach(), signature()).prop_map(
        |(name, key, session, attach, signature)| {
            ClientFrame::Login(Login { name, key, session, attach, signature })
        },
    );
    prop_oneof![
        any::<(u16, u16, u32)>().prop_map(|(min, max, features)| {
            let versions = VersionRange { min, max };
            let role = if features % 2 == 0 { Role::Client } else { Role::Node };
            ClientFrame::Hello(ClientHello { role, versions, features })
        }),
        login,
        (counter(), command())
            .prop_map(|(counter, command)| ClientFrame::Submit { counter, command }),
        (request(), question())
            .prop_map(|(request, question)| ClientFrame::Ask { request, question }),
        request().prop_map(|token| ClientFrame::Ping { token }),
        request().prop_map(|token| ClientFrame::Pong { token }),
        Just(ClientFrame::Leave),
        (public_key(), signature()).prop_map(|(key, signature)| {
            ClientFrame::Operate(Operate { key, order: Order::Status, signature })
        }),
        any::<[u8; 32]>().prop_map(|nonce| ClientFrame::Prove { nonce: Nonce::new(nonce) }),
    ]
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        5 => proptest::sample::select(samples::refusals()),
        1 => any::<(u16, u16)>()
            .prop_map(|(min, max)| Refusal::Version(VersionRange { min, max })),
        1 => counter().prop_map(|expect| Refusal::State(StateFault::Counter { expect })),
        1 => span().prop_map(|retry_ms| Refusal::Rate { retry_ms }),
        1 => span().prop_map(|retry_ms| Refusal::Busy { retry_ms }),
        1 => any::<(u32, u16)>().prop_map(|(have, need)| Refusal::Gate { have, need }),
    ]
}

fn gate() -> impl Strategy<Value = GateState> {
    (incarnation(), any::<u32>(), threshold(), any::<bool>()).prop_map(
        |(incarnation, users, threshold, open)| GateState { incarnation, users, threshold, open },
    )
}

fn user_list() -> impl Strategy<Value = UserList> {
    (room(), any::<u32>(), vec(user(), 0..5), seq()).prop_map(|(room, count, names, as_of)| {
        UserList { room, count, names: List::first_of(names), as_of }
    })
}

fn record() -> impl Strategy<Value = Record> {
    let body = prop_oneof![
        (user(), body()).prop_map(|(from, text)| RecordBody::Post { from, text }),
        user().prop_map(|user| RecordBody::Joined { user }),
        user().prop_map(|user| RecordBody::Left { user }),
    ];
    (room(), incarnation(), seq(), timestamp(), body)
        .prop_map(|(room, incarnation, seq, at, body)| Record { room, incarnation, seq, at, body })
}

fn answer() -> impl Strategy<Value = Answer> {
    let info = (user(), public_key(), any::<(bool, bool)>())
        .prop_map(|(user, key, (connected, operator))| UserInfo { user, key, connected, operator });
    let joined =
        (room(), gate(), seq(), proptest::option::of(user_list()), any::<bool>()).prop_map(
            |(room, gate, after, users, opened)| JoinedRoom { room, gate, after, users, opened },
        );
    let room_info = (room(), gate()).prop_map(|(room, gate)| RoomInfo { room, gate });
    prop_oneof![
        joined.prop_map(Answer::Joined),
        room().prop_map(|room| Answer::Parted { room }),
        user_list().prop_map(Answer::Users),
        (vec(room_info, 0..5), any::<u32>())
            .prop_map(|(rooms, count)| Answer::Rooms { rooms: List::first_of(rooms), count }),
        info.prop_map(Answer::User),
        (room(), incarnation(), vec(record(), 0..5)).prop_map(|(room, incarnation, records)| {
            Answer::History { room, incarnation, records: List::first_of(records) }
        }),
        refusal().prop_map(Answer::Refused),
    ]
}

fn greeting() -> impl Strategy<Value = ServerFrame> {
    let hello = (any::<(u16, u32)>(), public_key(), log_id(), generation(), nonce()).prop_map(
        |((version, features), server_key, log_id, generation, nonce)| ServerHello {
            version,
            features,
            server_key,
            log_id,
            generation,
            nonce,
        },
    );
    let address = prop::option::of("[ -~é語]{1,60}".prop_map(|text| text.parse().unwrap()));
    let welcome = (user(), session(), counter(), (timestamp(), any::<bool>()), address).prop_map(
        |(user, session, last_counter, (opened, operator), address)| Welcome {
            user,
            session,
            last_counter,
            opened,
            operator,
            address,
        },
    );
    prop_oneof![hello.prop_map(ServerFrame::Hello), welcome.prop_map(ServerFrame::Welcome)]
}

fn room_frame() -> impl Strategy<Value = ServerFrame> {
    prop_oneof![
        record().prop_map(ServerFrame::Record),
        (room(), incarnation(), seq(), seq()).prop_map(|(room, incarnation, from, to)| {
            ServerFrame::Gap { room, incarnation, from, to }
        }),
        (room(), gate()).prop_map(|(room, gate)| ServerFrame::Gate { room, gate }),
        (room(), incarnation(), threshold()).prop_map(|(room, incarnation, threshold)| {
            ServerFrame::Reset { room, incarnation, threshold }
        }),
    ]
}

fn span() -> impl Strategy<Value = Span> {
    number().prop_map(Span::from_millis)
}

fn status() -> impl Strategy<Value = Status> {
    let checkpoint =
        (index(), span()).prop_map(|(entry, age_ms)| CheckpointStatus { entry, age_ms });
    let durability = proptest::sample::select(samples::durabilities().to_vec());
    let disk = (durability, prop::option::of(byte_count()), prop::option::of(checkpoint)).prop_map(
        |(durability, bytes, checkpoint)| {
            StorageStatus::Disk(DiskStatus { durability, bytes, checkpoint })
        },
    );
    let storage = prop_oneof![Just(StorageStatus::Memory), disk];
    let host = (span(), storage).prop_map(|(uptime_ms, storage)| HostStatus { uptime_ms, storage });
    let address = prop::option::of("[ -~é語]{1,60}".prop_map(|text| text.parse().unwrap()));
    let counts = any::<[u32; 5]>();
    (address, counts, (index(), index()), any::<bool>(), (byte_count(), host)).prop_map(
        |(address, counts, (newest, safe), store_full, (memory, host))| {
            let [connections, online, users, rooms, open] = counts;
            Status {
                address,
                connections,
                online,
                users,
                rooms,
                open,
                newest,
                safe,
                store_full,
                memory,
                host,
            }
        },
    )
}

fn server_frame() -> impl Strategy<Value = ServerFrame> {
    let accepted = (counter(), room(), incarnation(), proptest::option::of(seq())).prop_map(
        |(counter, room, incarnation, seq)| ServerFrame::Accepted {
            counter,
            room,
            incarnation,
            seq,
        },
    );
    prop_oneof![
        greeting(),
        accepted,
        counter().prop_map(|counter| ServerFrame::Applied { counter }),
        (counter(), refusal())
            .prop_map(|(counter, refusal)| ServerFrame::Refused { counter, refusal }),
        (request(), answer()).prop_map(|(request, answer)| ServerFrame::Answer { request, answer }),
        room_frame(),
        refusal().prop_map(ServerFrame::Rejected),
        Just(ServerFrame::Notice(Notice::FirstUserIsOperator)),
        refusal().prop_map(ServerFrame::Close),
        request().prop_map(|token| ServerFrame::Ping { token }),
        request().prop_map(|token| ServerFrame::Pong { token }),
        status().prop_map(ServerFrame::Status),
        signature().prop_map(|signature| ServerFrame::Proof { signature }),
        move_frame(),
    ]
}

fn location() -> impl Strategy<Value = Location> {
    let address = "[ -~é語]{1,60}".prop_map(|text| text.parse().unwrap());
    let addresses = vec(address, 0..=ADDRESSES_MAX).prop_map(Addresses::first_of);
    let tls_key = prop::option::of(any::<[u8; 32]>().prop_map(KeyHash::new));
    let node = (public_key(), any::<[u8; 16]>().prop_map(BootId::new));
    (generation(), log_id(), node, tls_key, addresses).prop_map(
        |(generation, log_id, (key, boot), tls_key, addresses)| Location {
            generation,
            log_id,
            key,
            boot,
            tls_key,
            addresses,
        },
    )
}

fn move_frame() -> impl Strategy<Value = ServerFrame> {
    prop_oneof![
        location().prop_map(ServerFrame::Parked),
        location().prop_map(ServerFrame::Moved),
        (location(), span())
            .prop_map(|(target, within_ms)| ServerFrame::Prepare { target, within_ms }),
        Just(ServerFrame::Stay),
        generation().prop_map(|generation| ServerFrame::Generation { generation }),
    ]
}

fn host() -> impl Strategy<Value = Host> {
    let address = "[ -~é語]{1,60}".prop_map(|text| text.parse().unwrap());
    let node = (public_key(), any::<[u8; 16]>())
        .prop_map(|(key, boot)| NodeId { key, boot: BootId::new(boot) });
    let tls_key = prop::option::of(any::<[u8; 32]>().prop_map(KeyHash::new));
    (node, vec(address, 0..=ADDRESSES_MAX), tls_key).prop_map(|(node, addresses, tls_key)| Host {
        node,
        addresses: Addresses::first_of(addresses),
        tls_key,
    })
}

fn service() -> impl Strategy<Value = ServiceName> {
    "[a-z0-9_]{1,32}|[а-я]{1,32}".prop_map(|name| name.parse().unwrap())
}

fn directory_request() -> impl Strategy<Value = DirectoryRequest> {
    let standby = prop::option::of(host());
    let claim = (service(), log_id(), generation(), host(), standby, signature()).prop_map(
        |(service, log_id, expect, owner, standby, signature)| {
            let claim = Claim { service, log_id, expect, owner, standby };
            DirectoryRequest::Propose(SignedClaim { claim, signature })
        },
    );
    prop_oneof![
        service().prop_map(|service| DirectoryRequest::Locate { service }),
        (service(), generation())
            .prop_map(|(service, after)| DirectoryRequest::Watch { service, after }),
        claim,
    ]
}

fn registration() -> impl Strategy<Value = SignedRegistration> {
    let standby = prop::option::of(host());
    (service(), generation(), log_id(), host(), standby, signature()).prop_map(
        |(service, generation, log_id, owner, standby, signature)| {
            let registration = Registration { service, generation, log_id, owner, standby };
            SignedRegistration { registration, signature }
        },
    )
}

fn directory_reply() -> impl Strategy<Value = DirectoryReply> {
    prop_oneof![
        registration().prop_map(DirectoryReply::Registered),
        Just(DirectoryReply::Unregistered),
        registration().prop_map(DirectoryReply::Applied),
        registration().prop_map(DirectoryReply::Conflict),
        proptest::sample::select(ClaimFault::ALL).prop_map(DirectoryReply::Denied),
        refusal().prop_map(DirectoryReply::Refused),
        refusal().prop_map(DirectoryReply::Close),
    ]
}

/// Each side is on the heap: what makes them up, all together, is too large for the stack of a test.
fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        3 => client_frame().prop_map(Message::Client).boxed(),
        3 => server_frame().prop_map(Message::Server).boxed(),
        1 => directory_request().prop_map(Message::Node).boxed(),
        1 => directory_reply().prop_map(Message::Directory).boxed(),
    ]
}

#[test]
fn a13_longest_claim_fits_in_a_frame() {
    let longest = "x".repeat(HOST_ADDRESS_BYTES_MAX);
    let addresses = Addresses::first_of(vec![longest.parse().unwrap(); ADDRESSES_MAX]);
    let [_, mut claim] = samples::claims();
    claim.service = "語".repeat(SERVICE_NAME_CHARS_MAX).parse().unwrap();
    claim.expect = Generation::MAX;
    claim.owner = Host { addresses, ..claim.owner };
    claim.standby = Some(claim.owner.clone());
    let signature = Signature::new([0xFF; 64]);
    let frame = encode_to_bytes(&DirectoryRequest::Propose(SignedClaim { claim, signature }));
    assert!(frame.len() - PREFIX_BYTES <= DIRECTORY_FRAME_BYTES_MAX, "{}", frame.len());
}

/// The whole frames of a stream fed in these pieces, and then the rest.
fn frames_of(stream: &[u8], pieces: &[usize]) -> Vec<Bytes> {
    let mut buffer = FrameBuffer::default();
    let (mut frames, mut rest) = (Vec::new(), stream);
    for len in pieces.iter().chain(&[usize::MAX]) {
        let (piece, after) = rest.split_at((*len).min(rest.len()));
        buffer.feed(piece);
        rest = after;
        while let Ok(Some(frame)) = buffer.next_frame() {
            frames.push(frame);
        }
    }
    frames
}

proptest! {
    #[test]
    fn messages_survive_frames_and_json(message in message()) {
        let frame = message.encode();
        let back = message.decode_alike(&frame[PREFIX_BYTES..]);
        prop_assert_eq!(back.as_ref(), Ok(&message));
        let json = message.to_json();
        prop_assert!(!json.contains('\n'));
        prop_assert_eq!(message.parse_json_alike(&json).unwrap(), message);
    }

    #[test]
    fn status_is_short_whatever_it_tells(status in status()) {
        let frame = Message::Server(ServerFrame::Status(status)).encode();
        prop_assert!(frame.len() <= 512, "{} bytes", frame.len());
    }

    #[test]
    fn a4_stream_in_any_pieces_gives_the_same_messages(
        sent in vec(client_frame(), 1..8),
        pieces in vec(0..40_usize, 0..60),
    ) {
        let mut stream = BytesMut::new();
        for frame in &sent {
            encode(frame, &mut stream);
        }
        let got: Vec<ClientFrame> =
            frames_of(&stream, &pieces).iter().map(|frame| decode(frame).unwrap()).collect();
        prop_assert_eq!(got, sent);
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_are_the_one_encoding_of_a_message(
        bytes in vec(any::<u8>(), 0..200),
        pieces in vec(0..40_usize, 0..10),
        tag in 0..24_u8,
    ) {
        frames_of(&bytes, &pieces);
        // A tag that exists gets further than a random one.
        let frame = [&[tag], &bytes[..]].concat();
        let mut all = golden();
        all.dedup_by_key(|(_, message)| core::mem::discriminant(message));
        prop_assert_eq!(all.len(), 4, "each side of a chat and of a directory");
        for (_, like) in all {
            if let Ok(message) = like.decode_alike(&frame) {
                prop_assert_eq!(&message.encode()[PREFIX_BYTES..], &frame);
            }
        }
    }

    #[test]
    fn a7_messages_with_some_bytes_changed_are_refused_or_canonical(
        message in message(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut frame = message.encode()[PREFIX_BYTES..].to_vec();
        for (place, byte) in changes {
            let place = place.index(frame.len());
            frame[place] = byte;
        }
        if let Ok(other) = message.decode_alike(&frame) {
            prop_assert_eq!(&other.encode()[PREFIX_BYTES..], &frame);
        }
    }
}
