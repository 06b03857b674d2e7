//! Encrypted connections, and whom the client trusts.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use chat_server::{Server, ServerKey, Tls};
use chatcore::codec::encode_to_bytes;
use chatcore::wire::{FrameFault, Refusal, ServerFrame};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};

use crate::support::{Client, DEADLINE, World, json};

/// Certificates of an authority of this test's own.
struct Authority {
    world: World,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let world = World::without_server(1);
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        fs::write(world.path("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { world, issuer: Issuer::new(params, key) }
    }

    /// A server with a certificate for `host` that ends with the year.
    fn serve(&self, host: &str, last_year: i32) -> Server {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(last_year, 12, 31);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |name: &str| self.world.path(name);
        fs::write(path("server.crt"), certificate.pem()).unwrap();
        fs::write(path("tls-server.key"), key.serialize_pem()).unwrap();
        fs::set_permissions(
            path("tls-server.key"),
            std::os::unix::fs::PermissionsExt::from_mode(0o600),
        )
        .unwrap();
        let tls = Tls::from_files(&path("server.crt"), &path("tls-server.key")).unwrap();
        self.world.serve_as(&["chats://127.0.0.1:0"], |config| config.tls = Some(tls))
    }

    fn client(&self, address: &str, options: &[&str]) -> Client {
        let ca = self.world.path("ca.pem").display().to_string();
        let options = [&[address, "--json", "--name", "ana", "--tls-ca", &ca], options].concat();
        Client::start(&self.world.path(""), &options)
    }
}

/// A server that made its certificate itself, with the key in a folder.
fn serve_self_signed(world: &World, folder: &str, listen: &str) -> Server {
    let folder: PathBuf = world.path(folder);
    fs::create_dir_all(&folder).unwrap();
    let tls = Tls::self_signed(&folder, &[]).unwrap();
    world.serve_as(&[listen], |config| config.tls = Some(tls))
}

fn join(world: &World, address: &str, options: &[&str]) -> Client {
    let options = [&[address, "--json", "--name", "ana"], options].concat();
    Client::start(&world.path(""), &options)
}

/// Waits for the error that a client ends with.
fn refused(client: &mut Client, part: &str) {
    let error = client.event("error");
    assert_eq!(error["code"], "E_AUTH", "{error}");
    assert!(error["text"].as_str().unwrap().contains(part), "{error}");
    assert_eq!(client.exit().0, 4);
}

#[test]
fn i7_certificate_of_a_trusted_authority_is_taken_for_its_host_and_time_alone() {
    let authority = Authority::new();
    let server = authority.serve("127.0.0.1", 4000);
    let address = server.addresses()[0].to_string();
    let mut ana = authority.client(&address, &[]);
    assert_eq!(ana.event("connected")["server"], address);
    ana.say("hello");
    assert_eq!(ana.message("hello")["from"], "ana");
    ana.end_input();
    assert_eq!(ana.exit().0, 0);
    assert!(ana.diagnostics().is_empty(), "there is nothing to be told");

    let other = authority.serve("elsewhere.example", 4000);
    let mut ana = authority.client(&other.addresses()[0].to_string(), &[]);
    refused(&mut ana, "is not for 127.0.0.1, but for");
    let late = authority.serve("127.0.0.1", 2021);
    let mut ana = authority.client(&late.addresses()[0].to_string(), &[]);
    refused(&mut ana, "has expired");
    let alone = serve_self_signed(&authority.world, "alone", "chats://127.0.0.1:0");
    let mut ana = authority.client(&alone.addresses()[0].to_string(), &[]);
    refused(&mut ana, "not signed by an authority of --tls-ca");
    for server in [server, other, late, alone] {
        authority.world.stop(server);
    }
}

#[test]
fn i7_certificate_that_nobody_vouches_for_is_remembered_and_another_one_refused() {
    let world = World::without_server(1);
    let server = serve_self_signed(&world, "one", "chats://127.0.0.1:0");
    let address = server.addresses()[0].to_string();
    let mut ana = join(&world, &address, &[]);
    ana.event("connected");
    let told = ana.diagnostic("nobody vouches for the certificate of chats://127.0.0.1");
    let key = server.certificate().unwrap();
    assert!(told.contains(&key), "the server tells the same: {told} {key}");
    ana.end_input();
    assert_eq!(ana.exit().0, 0);
    world.stop(server);

    // The same key in a new certificate, as after a restart, is the same server.
    let server = serve_self_signed(&world, "one", &address);
    let mut ana = join(&world, &address, &[]);
    ana.event("connected");
    ana.end_input();
    assert_eq!((ana.exit().0, ana.diagnostics()), (0, Vec::new()));
    world.stop(server);

    let server = serve_self_signed(&world, "two", &address);
    refused(&mut join(&world, &address, &[]), "as before");
    let mut ana = join(&world, &address, &["--accept-new-key"]);
    ana.event("connected");
    ana.end_input();
    assert_eq!(ana.exit().0, 0);
    let mut ana = join(&world, &address, &[]);
    ana.event("connected");
    world.stop(server);
}

#[test]
fn i7_server_with_another_key_is_refused_until_it_is_accepted() {
    let world = World::without_server(1);
    let server = world.serve(&["chat://127.0.0.1:0"]);
    let address = server.addresses()[0].to_string();
    let mut ana = join(&world, &address, &[]);
    ana.event("connected");
    ana.end_input();
    assert_eq!(ana.exit().0, 0);
    world.stop(server);
    let server = world.serve_as(&[&address], |config| config.key = ServerKey::ephemeral().unwrap());
    refused(
        &mut join(&world, &address, &[]),
        "it is another server, or somebody pretends to be it",
    );
    let mut ana = join(&world, &address, &["--accept-new-key"]);
    ana.event("connected");
    world.stop(server);
}

#[test]
fn connection_in_the_wrong_manner_is_told_which_is_right() {
    let world = World::without_server(1);
    let plain = world.serve(&["chat://127.0.0.1:0"]);
    let address = plain.addresses()[0].to_string().replace("chat://", "chats://");
    let mut ana = join(&world, &address, &["--no-reconnect"]);
    let lost = ana.event("disconnected");
    assert!(lost["reason"].as_str().unwrap().contains("try chat://"), "{lost}");
    assert_eq!(ana.exit().0, 3);
    let encrypted = serve_self_signed(&world, "one", "chats://127.0.0.1:0");
    let address = encrypted.addresses()[0].to_string().replace("chats://", "chat://");
    let mut ana = join(&world, &address, &[]);
    let error = ana.event("error");
    assert_eq!(error["code"], "E_FRAME");
    assert!(error["text"].as_str().unwrap().contains("use chats://"), "{error}");
    assert_eq!(ana.exit().0, 4);
    world.stop(plain);
    world.stop(encrypted);
}

/// Answers each connection with the next of these bytes, and gives what clients said.
fn answer_each(answers: Vec<Vec<u8>>) -> (String, JoinHandle<Vec<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("chats://{}", listener.local_addr().unwrap());
    let answering = thread::spawn(move || {
        let answer_to = |answer: Vec<u8>| {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut said = vec![0; 1 << 10];
            let length = stream.read(&mut said).unwrap();
            said.truncate(length);
            // The client may have gone after the first words.
            let _ = stream.write_all(&answer).and_then(|()| stream.shutdown(Shutdown::Write));
            let _ = stream.read_to_end(&mut said);
            said
        };
        answers.into_iter().map(answer_to).collect()
    });
    (address, answering)
}

/// A server's hello that agrees to TLS 1.2 and no more.
fn hello_of_tls_1_2() -> Vec<u8> {
    let suite_of_1_2 = [0xC0, 0x2F, 0];
    let hello = [&[3, 3][..], &[7; 32], &[0], &suite_of_1_2].concat();
    let length = u8::try_from(hello.len()).unwrap();
    [&[0x16, 3, 3, 0, length + 4, 2, 0, 0, length][..], &hello].concat()
}

#[test]
fn i7_client_of_a_chats_address_says_nothing_in_the_clear_whoever_answers() {
    let world = World::without_server(1);
    let no_tls = [0x15, 3, 3, 0, 2, 2, 40].to_vec();
    let frame = ServerFrame::Close(Refusal::Frame(FrameFault::Unencrypted));
    let page = b"HTTP/1.1 200 OK\r\n\r\nuse chat://".to_vec();
    let answers = [
        (no_tls, "there is no TLS at this address"),
        (encode_to_bytes(&frame).to_vec(), "there is no TLS at this address"),
        (page, "there is no TLS at this address"),
        (hello_of_tls_1_2(), "only older versions of TLS than 1.3"),
        (Vec::new(), ""),
    ];
    let (bytes, reasons): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
    let (address, answering) = answer_each(bytes);
    let mut ana = join(&world, &address, &[]);
    ana.say("a secret");
    for reason in reasons {
        let lost = ana.event("disconnected");
        assert!(lost["reason"].as_str().unwrap().contains(reason), "{lost}");
    }
    for said in answering.join().unwrap() {
        // Records with a handshake or an alert, of which a hello is the first.
        let mut rest = said.as_slice();
        assert_eq!(rest[0], 0x16, "{said:?}");
        while let [kind, 3, 1 | 3, high, low, after @ ..] = rest {
            assert!([0x14, 0x15, 0x16].contains(kind), "{said:?}");
            rest = &after[u16::from_be_bytes([*high, *low]).into()..];
        }
        assert!(rest.is_empty(), "{said:?}");
    }
}

#[test]
fn client_that_reconnects_by_tls_goes_on_where_it_was() {
    let world = World::without_server(1);
    let server = serve_self_signed(&world, "one", "chats://127.0.0.1:0");
    let address = server.addresses()[0].to_string();
    let mut ana = join(&world, &address, &[]);
    ana.event("connected");
    ana.say("before");
    ana.message("before");
    world.stop(server);
    ana.event("disconnected");
    ana.say("between");
    let server = serve_self_signed(&world, "one", &address);
    ana.event("connected");
    ana.message("between");
    let lines: Vec<_> = (1..=300).map(|number| format!("{number} {}", "x".repeat(4_000))).collect();
    lines.iter().for_each(|line| ana.say(line));
    for line in &lines {
        assert_eq!(json(&ana.line(|shown| json(shown)["type"] == "message"))["text"], **line);
    }
    ana.end_input();
    assert_eq!(ana.exit().0, 0);
    world.stop(server);
}

#[test]
fn server_that_cannot_be_remembered_is_talked_to_all_the_same() {
    let world = World::new(1);
    // No folder can be made there.
    let nowhere = "/proc/no-such-folder/known";
    let mut ana = world.client(&["--json", "--name", "ana", "--known-servers", nowhere]);
    ana.event("connected");
    ana.diagnostic("the server's key is not remembered");
    ana.say("hello");
    ana.message("hello");
}
