//! One port that speaks everything: what comes first decides, and what is none of it goes.

use chat_server::{
    AddressLimits, ListenError, Server, ServerConfig, ServerKey, StartError, Tls, TlsError,
};
use chatcore::address::Address;
use chatcore::id::Digest;
use chatcore::limits::Limits;
use chatcore::time::Span;
use chatcore::wire::{AuthFault, FrameFault, Refusal, ServerFrame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::anybody;
use crate::certificate::Certificate;
use crate::hello::TlsHello;
use crate::hostile::Others;
use crate::peer::{PATIENCE, Peer, dial, hello};
use crate::{Everywhere, start};

async fn dial_to(address: &Address) -> TcpStream {
    let (Address::Tcp { host, port } | Address::Tls { host, port }) = address else {
        panic!("{address} is no port");
    };
    dial(host, *port).await
}

/// Everything that comes after these bytes, until the server closes.
async fn answer_to(mut stream: impl crate::peer::Stream, bytes: &[u8]) -> Vec<u8> {
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    // A connection that is reset has ended, too.
    let _ = timeout(PATIENCE, read).await.expect("the server must close");
    answer
}

async fn get(stream: impl crate::peer::Stream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: chat.example:5000\r\n\r\n");
    String::from_utf8(answer_to(stream, request.as_bytes()).await).unwrap()
}

#[tokio::test]
async fn one_port_answers_frames_tls_and_http_and_each_inside_tls_too() {
    let house = Everywhere::start(Limits::default()).await;
    let [plain, encrypted, socket] = house.addresses() else { panic!("three ways in") };
    for address in [plain, encrypted, socket] {
        let mut peer = Peer::connect(address).await;
        peer.send(&hello()).await;
        assert!(matches!(peer.next().await, Some(ServerFrame::Hello(_))), "{address}");
    }
    let Address::Tcp { host, port } = plain else { panic!("{plain}") };
    let by_tls = anybody::connect(dial(host, *port).await, host)
        .await
        .expect("the plain port speaks TLS, too");
    assert!(get(by_tls, "/healthz").await.ends_with("\r\n\r\nok\n"));
    assert!(get(dial_to(plain).await, "/healthz").await.ends_with("\r\n\r\nok\n"));
    assert!(get(dial_to(plain).await, "/readyz").await.ends_with("\r\n\r\nready\n"));
    let page = get(dial_to(plain).await, "/").await;
    assert!(page.contains("chat-client chat://chat.example:5000 --name YOU"), "{page}");
}

#[tokio::test]
async fn i9_every_answer_forbids_scripts_frames_and_keeping() {
    let (_server, address) = start(Limits::default()).await;
    for path in ["/", "/healthz", "/nothing"] {
        let answer = get(dial_to(&address).await, path).await;
        for header in [
            "content-security-policy: default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
        ] {
            assert!(answer.contains(header), "{path} lacks {header}: {answer}");
        }
    }
}

#[tokio::test]
async fn i8_metrics_and_admin_calls_are_not_on_the_port_of_the_chat() {
    let (_server, address) = start(Limits::default()).await;
    for path in ["/metrics", "/admin", "/debug", "/status", "/chat"] {
        let answer = get(dial_to(&address).await, path).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a15_what_is_neither_frame_nor_tls_nor_http_is_refused_and_disturbs_nobody() {
    let (_server, address) = start(Limits::default()).await;
    let mut ana = Peer::join(&address, "ana").await;
    let mut beto = Peer::join(&address, "beto").await;
    for garbage in [&[0xFF; 64][..], &[1, 2, 3], b" GET / HTTP/1.1\r\n\r\n"] {
        let mut peer = Peer::connect(&address).await;
        peer.send_bytes(garbage).await;
        assert_eq!(peer.closed().await, Some(Refusal::Frame(FrameFault::TooLarge)));
    }
    // A banner begins as HTTP does, and is none.
    let banner = answer_to(dial_to(&address).await, b"SSH-2.0-OpenSSH_9.9\r\n\r\n").await;
    assert!(banner.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&banner));
    // TLS that is none, where there is a certificate and where there is none.
    let house = Everywhere::start(Limits::default()).await;
    let tls_and_noise = [&[0x16, 3, 1, 0, 16][..], &[0xAA; 16]].concat();
    answer_to(dial_to(&house.addresses()[1]).await, &tls_and_noise).await;
    assert_eq!(answer_to(dial_to(&address).await, &tls_and_noise).await, [0x15, 3, 3, 0, 2, 2, 40]);
    ana.post("undisturbed").await;
    assert_eq!(beto.posts(1).await, ["undisturbed"]);
}

#[tokio::test]
async fn a15_page_of_another_origin_can_drive_no_commands() {
    let (_server, address) = start(Limits::default()).await;
    // What a form or a script of another page can send is HTTP, whatever its body is.
    let body = chatcore::codec::encode_to_bytes(&hello()).repeat(3);
    let head = format!(
        "POST /chat HTTP/1.1\r\nHost: x\r\nOrigin: http://evil.example\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = answer_to(dial_to(&address).await, &[head.as_bytes(), &body].concat()).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[tokio::test]
async fn c2_half_a_tls_hello_and_half_a_request_are_cut_off_at_the_deadline() {
    let login_time = Span::from_millis(300);
    let house = Everywhere::start(Limits { login_time, ..Limits::default() }).await;
    let [plain, encrypted, _] = house.addresses() else { panic!("three ways in") };
    let mut ana = Peer::join(plain, "ana").await;
    for (address, half) in [
        (encrypted, &[0x16, 3, 1, 2, 0, 1, 0][..]),
        (encrypted, &[]),
        (plain, b"GET / HTTP/1.1\r\nHost: "),
        (plain, b""),
    ] {
        // What it says at the end, if anything, is no matter: that it ends is.
        answer_to(dial_to(address).await, half).await;
    }
    // Inside TLS as outside.
    let Address::Tls { host, .. } = encrypted else { panic!("{encrypted}") };
    for half in [&b"GET / HTTP/1.1\r\n"[..], b""] {
        let stream = anybody::connect(dial_to(encrypted).await, host).await.unwrap();
        answer_to(stream, half).await;
    }
    let counter = ana.post("still here").await;
    ana.answer_to(counter).await;
}

#[tokio::test]
async fn c2_handshake_counts_towards_the_time_to_log_in() {
    let login_time = Span::from_millis(400);
    let house = Everywhere::start(Limits { login_time, ..Limits::default() }).await;
    let mut peer = Peer::connect(&house.addresses()[1]).await;
    peer.send(&hello()).await;
    assert!(matches!(peer.next().await, Some(ServerFrame::Hello(_))));
    let refusal = peer.closed().await;
    assert_eq!(refusal, Some(Refusal::Limit(chatcore::wire::LimitFault::LoginTime)));
}

/// Time to log in that no test lives to see the end of.
const NO_DEADLINE: Span = Span::from_secs(600);

#[tokio::test]
async fn c9_storm_of_handshakes_leaves_those_inside_and_newcomers_their_time() {
    let limits = Limits { login_time: NO_DEADLINE, ..Limits::default() };
    let house = Everywhere::start(limits).await;
    let encrypted = &house.addresses()[1];
    let mut others = Others::talking(encrypted).await;
    let hello = TlsHello::default().to_bytes();
    // They stay where they are: in the middle of their hello, and after it.
    let mut stuck = Vec::new();
    for said in [&hello[..hello.len() / 2], &hello].repeat(100) {
        let mut stream = dial_to(encrypted).await;
        stream.write_all(said).await.unwrap();
        stuck.push(stream);
    }
    // They come again and again, and break off once they have cost the server its answer.
    let mut storm = JoinSet::new();
    for _ in 0..32 {
        let (address, hello) = (encrypted.clone(), hello.clone());
        storm.spawn(async move {
            loop {
                let mut stream = dial_to(&address).await;
                stream.write_all(&hello).await.unwrap();
                // It may be turned away.
                let _ = stream.read_u8().await;
            }
        });
    }
    for _ in 0..10 {
        others.assert_undisturbed().await;
    }
    timeout(PATIENCE, Peer::join(encrypted, "carla")).await.expect("newcomers must get in");
    others.assert_undisturbed().await;
}

#[tokio::test]
async fn c9_clients_that_must_say_hello_again_are_bounded_and_make_room_when_they_do_not() {
    const MAX: usize = 64;

    let limits = Limits { login_time: NO_DEADLINE, ..Limits::default() };
    let house = Everywhere::start(limits).await;
    let encrypted = &house.addresses()[1];
    let mut others = Others::talking(encrypted).await;
    let hello = TlsHello { has_key_share: false, ..TlsHello::default() }.to_bytes();
    let mut asks = JoinSet::new();
    for _ in 0..5 * MAX {
        let (address, hello) = (encrypted.clone(), hello.clone());
        asks.spawn(async move {
            let mut stream = dial_to(&address).await;
            stream.write_all(&hello).await.unwrap();
            let mut answer = [0; 43];
            let read = timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("in time");
            read.ok().map(|_| {
                assert_eq!(answer[11..], TlsHello::HELLO_AGAIN, "the random of RFC 8446, 4.1.3");
                stream
            })
        });
    }
    let asked = asks.join_all().await;
    let answered = asked.iter().flatten().count();
    assert!(answered >= MAX, "{answered} are told to say hello again");
    assert!(answered < asked.len(), "beyond, they are closed without a word");
    // The others' hellos are answered all the same.
    timeout(PATIENCE, Peer::join(encrypted, "carla")).await.expect("newcomers must get in");
    others.assert_undisturbed().await;
    for mut stream in asked.into_iter().flatten() {
        let rest = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
        rest.expect("who says nothing must make room").unwrap();
    }
}

#[tokio::test]
async fn a15_head_that_is_too_large_is_answered_and_read_on_so_that_the_answer_arrives() {
    let house = Everywhere::start(Limits::default()).await;
    let [plain, encrypted, _] = house.addresses() else { panic!("three ways in") };
    let by_tls = anybody::connect(dial_to(encrypted).await, "localhost").await.unwrap();
    let streams: [Box<dyn crate::peer::Stream>; 2] =
        [Box::new(dial_to(plain).await), Box::new(by_tls)];
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Giant: {}", "x".repeat(4 << 20));
    for mut stream in streams {
        // A connection that is reset meanwhile would break this off.
        let said = timeout(PATIENCE, stream.write_all(head.as_bytes())).await;
        said.expect("it is read in time").expect("all of it is read");
        let answer = answer_to(stream, &[]).await;
        assert!(answer.starts_with(b"HTTP/1.1 431 "), "{}", answer.escape_ascii());
    }
}

#[tokio::test]
async fn full_house_is_told_in_the_words_of_who_asks() {
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let (_server, address) = start(limits).await;
    let _inside = Peer::join(&address, "ana").await;
    let mut peer = Peer::connect(&address).await;
    peer.send(&hello()).await;
    assert!(matches!(peer.closed().await, Some(Refusal::Busy { .. })));
    let answer = get(dial_to(&address).await, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1"), "{answer}");
}

#[tokio::test]
async fn c5_connections_beyond_the_bound_of_an_address_are_closed_and_others_are_not() {
    let config = ServerConfig {
        listen: vec!["chat://127.0.0.1:0".parse().unwrap()],
        address_limits: AddressLimits {
            open_max: 3,
            holds_for_loopback: true,
            ..AddressLimits::default()
        },
        ..ServerConfig::new(ServerKey::ephemeral().unwrap())
    };
    let server = Server::start(config).await.unwrap();
    let address = server.addresses()[0].clone();
    let _ana = Peer::join(&address, "ana").await;
    let _beto = Peer::join(&address, "beto").await;
    let last = Peer::join(&address, "carla").await;
    assert!(answer_to(dial_to(&address).await, &[]).await.is_empty(), "without a word");
    // Another address of this machine.
    let Address::Tcp { port, .. } = address else { panic!("{address}") };
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let stream = socket.connect(format!("127.0.0.1:{port}").parse().unwrap()).await.unwrap();
    let mut other = Peer::over(stream);
    other.send(&hello()).await;
    assert!(matches!(other.next().await, Some(ServerFrame::Hello(_))));
    // Who leaves makes room.
    drop(last);
    let back = timeout(PATIENCE, async {
        loop {
            let mut peer = Peer::connect(&address).await;
            peer.send(&hello()).await;
            if let Some(ServerFrame::Hello(_)) = peer.next().await {
                return;
            }
        }
    });
    back.await.expect("there must be room again");
}

#[tokio::test]
async fn g2_log_in_holds_for_the_tls_connection_it_was_signed_for_and_no_other() {
    let house = Everywhere::start(Limits::default()).await;
    let encrypted = &house.addresses()[1];
    let bad = Err(Refusal::Auth(AuthFault::Signature));
    for channel in [None, Some(Digest::new([7; 32]))] {
        let mut peer = Peer::connect(encrypted).await;
        peer.pretend_channel(channel);
        assert_eq!(peer.log_in("ana").await.map(|_| ()), bad);
    }
    let mut peer = Peer::connect(&house.addresses()[0]).await;
    peer.pretend_channel(Some(Digest::new([7; 32])));
    assert_eq!(peer.log_in("ana").await.map(|_| ()), bad);
    let mut peer = Peer::connect(encrypted).await;
    assert!(peer.log_in("ana").await.is_ok());
}

#[tokio::test]
async fn i7_port_that_takes_only_tls_says_so_to_who_comes_without() {
    let house = Everywhere::start(Limits::default()).await;
    let encrypted = &house.addresses()[1];
    let mut peer = Peer::over(dial_to(encrypted).await);
    peer.send(&hello()).await;
    assert_eq!(peer.closed().await, Some(Refusal::Frame(FrameFault::Unencrypted)));
    let answer = get(dial_to(encrypted).await, "/healthz").await;
    assert!(answer.starts_with("HTTP/1.1 426 ") && answer.contains("https://"), "{answer}");
}

#[tokio::test]
async fn i7_addresses_of_other_machines_need_tls_or_the_word_plaintext() {
    let start_at = |address: &str, tls| {
        let config = ServerConfig {
            listen: vec![address.parse().unwrap()],
            tls,
            ..ServerConfig::new(ServerKey::ephemeral().unwrap())
        };
        Server::start(config)
    };
    let exposed = start_at("chat://0.0.0.0:0", None).await.unwrap_err();
    assert!(matches!(exposed, StartError::Listen(ListenError::Exposed { .. })), "{exposed}");
    let bare = start_at("chats://127.0.0.1:0", None).await.unwrap_err();
    assert!(matches!(bare, StartError::Listen(ListenError::NoCertificate { .. })), "{bare}");
    let folder = tempfile::tempdir().unwrap();
    let tls = Tls::self_signed(folder.path(), &[]).unwrap();
    let server = start_at("chat://0.0.0.0:0", Some(tls)).await.unwrap();
    let address = server.addresses()[0].to_string();
    assert!(address.starts_with("chats://0.0.0.0:"), "as clients have to write it: {address}");
}

#[test]
fn i7_key_that_others_can_read_or_that_is_of_another_certificate_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let one = Certificate::make(folder.path(), "one");
    let two = Certificate::make(folder.path(), "two");
    assert!(one.read().is_ok());
    let mixed = Tls::from_files(&one.file, &two.key).unwrap_err();
    assert!(matches!(mixed, TlsError::Unusable { .. }), "{mixed}");
    let swapped = Tls::from_files(&one.key, &one.key).unwrap_err();
    assert!(matches!(swapped, TlsError::NoCertificate(_)), "{swapped}");
    let absent = Tls::from_files(&folder.path().join("none"), &one.key).unwrap_err();
    assert!(matches!(absent, TlsError::Io { .. }), "{absent}");
    for mode in [0o644, 0o604, 0o620] {
        one.open_key_to(mode);
        let open = one.read().unwrap_err();
        assert!(matches!(open, TlsError::Open { mode: told, .. } if told == mode), "{open}");
    }
    one.open_key_to(0o640);
    assert!(one.read().is_ok(), "the group may read it");
}

#[tokio::test]
async fn i7_client_that_speaks_only_tls_1_2_is_told_so_and_gets_no_further() {
    let house = Everywhere::start(Limits::default()).await;
    let old = TlsHello { speaks_1_3: false, ..TlsHello::default() }.to_bytes();
    // A fatal alert, `protocol_version` (RFC 8446, section 6.2).
    let protocol_version = [0x15, 3, 3, 0, 2, 2, 70];
    for address in &house.addresses()[..2] {
        let mut others = Others::talking(address).await;
        assert_eq!(answer_to(dial_to(address).await, &old).await, protocol_version, "{address}");
        others.assert_undisturbed().await;
    }
}
