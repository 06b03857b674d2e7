//! Calls of those who run the server: who may make them, and what they do.

use std::fs;
use std::future::poll_fn;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::pin::pin;
use std::process::Command;
use std::task::Poll;

use chat_server::{AdminToken, Server, ServerConfig, ServerKey, Stopped, TokenError, admin_calls};
use chatcore::address::Address;
use chatcore::id::SessionId;
use chatcore::limits::Limits;
use chatcore::wire::{ExpelFault, Refusal};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::killed::server as program;
use crate::peer::{PATIENCE, Peer, Stream, key_of};
use crate::private_folder;
use crate::program::Program;

/// What came back.
struct Told {
    status: u16,
    head: String,
    body: String,
}

impl Told {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    #[track_caller]
    fn refused(&self, status: u16, code: &str, text: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        let told = self.json();
        assert_eq!(told["code"], code, "{told}");
        assert!(told["text"].as_str().unwrap().contains(text), "{told}");
    }
}

/// Sends what is written here, with its last empty line added, and reads all that comes.
async fn send(address: &Address, request: &str) -> Told {
    let mut stream: Box<dyn Stream> = match address {
        Address::Tcp { host, port } => {
            Box::new(TcpStream::connect((host.as_str(), *port)).await.unwrap())
        }
        Address::Unix(path) => Box::new(UnixStream::connect(path).await.unwrap()),
        Address::Tls { .. } => panic!("{address}"),
    };
    stream.write_all(format!("{request}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(PATIENCE, read).await.expect("an answer in time").unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Told { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// Makes a call on a user.
async fn call(address: &Address, verb: &str, user: &str) -> Told {
    send(address, &format!("POST /users/{user}/{verb} HTTP/1.1\r\nHost: localhost")).await
}

/// A server, and the sockets of its chat and of those who run it.
struct House {
    server: Server,
    chat: Address,
    admin: Address,
    folder: TempDir,
}

impl House {
    async fn start(by_port: bool, limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let admin = if by_port {
            "127.0.0.1:0".to_owned()
        } else {
            format!("unix:{}", folder.path().join("admin").display())
        };
        let config = ServerConfig {
            listen: vec!["chat://127.0.0.1:0".parse().unwrap()],
            admin: Some(admin.parse().unwrap()),
            admin_token: Some(AdminToken::in_folder(folder.path()).unwrap()),
            threshold: chatcore::id::Threshold::new(1).unwrap(),
            limits,
            ..ServerConfig::new(ServerKey::ephemeral().unwrap())
        };
        let server = Server::start(config).await.unwrap();
        let (chat, admin) = (server.addresses()[0].clone(), server.admin().unwrap().clone());
        Self { server, chat, admin, folder }
    }

    async fn by_port() -> Self {
        Self::start(true, Limits::default()).await
    }

    async fn by_socket() -> Self {
        Self::start(false, Limits::default()).await
    }

    async fn call(&self, verb: &str, user: &str) -> Told {
        call(&self.admin, verb, user).await
    }

    fn token(&self) -> String {
        token_in(self.folder.path())
    }

    /// Whether somebody asked for its end.
    async fn is_to_stop(&self) -> bool {
        let mut asked = pin!(self.server.stop_asked());
        poll_fn(|context| Poll::Ready(asked.as_mut().poll(context).is_ready())).await
    }

    /// How many entries its journal has, as it says itself.
    async fn entries(&self) -> u64 {
        let token = self.token();
        let head =
            format!("GET /status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}");
        send(&self.admin, &head).await.json()["newest"].as_u64().unwrap()
    }
}

fn token_in(folder: &Path) -> String {
    fs::read_to_string(folder.join("admin.token")).unwrap().trim_end().to_owned()
}

/// What may be sent in place of the token.
fn wrong_rights(token: &str) -> [String; 8] {
    let (short, last) = token.split_at(42);
    let other = format!("{short}{}", if last == "A" { "E" } else { "A" });
    [
        String::new(),
        "\r\nAuthorization: Bearer".to_owned(),
        "\r\nAuthorization: Bearer ".to_owned(),
        format!("\r\nAuthorization: Bearer {short}"),
        format!("\r\nAuthorization: Bearer {other}"),
        format!("\r\nAuthorization: Basic {token}"),
        format!("\r\nAuthorization: {token}"),
        format!("\r\nCookie: token={token}"),
    ]
}

/// A call by a port is made by nobody who lacks the token, and by whoever has it.
async fn needs_the_token(method: &str, path: &str) {
    let house = House::by_port().await;
    let _ana = Peer::join(&house.chat, "ana").await;
    let mut bob = Peer::join(&house.chat, "bob").await;
    let before = house.entries().await;
    let token = house.token();
    let head = format!("{method} {} HTTP/1.1\r\nHost: localhost", path.replace("{name}", "bob"));
    for wrong in wrong_rights(&token) {
        let told = send(&house.admin, &format!("{head}{wrong}")).await;
        told.refused(401, "E_AUTH", "admin token");
        assert!(told.head.contains("\r\nwww-authenticate: bearer"), "{}", told.head);
    }
    assert_eq!(house.entries().await, before, "nothing happened");
    assert!(!house.is_to_stop().await);
    bob.post_and_wait("still here").await.expect("an answer");

    let told = send(&house.admin, &format!("{head}\r\nAuthorization: Bearer {token}")).await;
    let verb = path.rsplit('/').next().unwrap();
    assert_done(&house, verb, &told, before + 1).await;
}

/// A call did what its verb says, on `bob`, when the journal had so many entries.
async fn assert_done(house: &House, verb: &str, told: &Told, entries: u64) {
    let (status, answer) = match verb {
        "status" => (200, json!(entries)),
        "stop" => (202, json!({ "type": "stopping" })),
        _ => (200, json!({ "user": "bob", "measure": verb })),
    };
    let said = told.json();
    let said = if verb == "status" { &said["newest"] } else { &said };
    assert_eq!((told.status, said), (status, &answer));
    assert_eq!(house.is_to_stop().await, verb == "stop");
    let is_measure = !["status", "stop"].contains(&verb);
    assert_eq!(house.entries().await > entries, is_measure, "the journal says so");
}

/// For each call a test of its own.
macro_rules! rights {
    ($($test:ident: $method:literal $path:literal;)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                needs_the_token($method, $path).await;
            }
        )*

        const TESTED: &[(&str, &str)] = &[$(($method, $path)),*];
    };
}

rights! {
    f18_kick_needs_the_token: "POST" "/users/{name}/kick";
    f18_ban_needs_the_token: "POST" "/users/{name}/ban";
    f18_unban_needs_the_token: "POST" "/users/{name}/unban";
    f18_release_needs_the_token: "POST" "/users/{name}/release";
    f18_op_needs_the_token: "POST" "/users/{name}/op";
    f18_deop_needs_the_token: "POST" "/users/{name}/deop";
    f18_status_needs_the_token: "GET" "/status";
    f18_stop_needs_the_token: "POST" "/stop";
}

#[test]
fn f18_every_call_has_a_test_of_its_right() {
    let tested: Vec<_> =
        TESTED.iter().map(|(method, path)| (*method, (*path).to_owned())).collect();
    assert_eq!(admin_calls().collect::<Vec<_>>(), tested);
}

#[tokio::test]
async fn f18_port_whose_server_has_no_token_takes_no_calls() {
    let config = ServerConfig {
        admin: Some("127.0.0.1:0".parse().unwrap()),
        ..ServerConfig::new(ServerKey::ephemeral().unwrap())
    };
    let server = Server::start(config).await.unwrap();
    let admin = server.admin().unwrap();
    call(admin, "kick", "bob").await.refused(401, "E_AUTH", "admin token");
    let empty = "GET /status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ";
    assert_eq!(send(admin, empty).await.status, 401);
    assert_eq!(send(admin, "GET /metrics HTTP/1.1\r\nHost: localhost").await.status, 200);
}

#[tokio::test]
async fn f18_what_is_no_call_needs_the_token_too_but_for_metrics_and_health() {
    let house = House::by_port().await;
    for open in ["/metrics", "/healthz", "/readyz"] {
        let told = send(&house.admin, &format!("GET {open} HTTP/1.1\r\nHost: localhost")).await;
        assert_eq!(told.status, 200, "{open}");
    }
    for closed in ["/", "/metrics/", "/%6detrics", "//metrics", "/status?", "/healthz/../status"] {
        let told = send(&house.admin, &format!("GET {closed} HTTP/1.1\r\nHost: localhost")).await;
        assert_eq!(told.status, 401, "{closed}");
    }
}

#[tokio::test]
async fn i8_no_call_is_on_the_port_of_the_chat() {
    let house = House::by_port().await;
    let token = house.token();
    for (method, path) in admin_calls() {
        let path = path.replace("{name}", "bob");
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}");
        assert_eq!(send(&house.chat, &head).await.status, 404, "{path}");
    }
    assert!(!house.is_to_stop().await);
}

#[tokio::test]
async fn i8_unix_socket_takes_calls_of_its_owner_without_a_token() {
    let house = House::by_socket().await;
    let _ana = Peer::join(&house.chat, "ana").await;
    for (method, path) in admin_calls() {
        // Some of them free the name.
        let mut bob = Peer::connect(&house.chat).await;
        let _ = bob.log_in("bob").await;
        let path = path.replace("{name}", "bob");
        // Whatever a caller by a socket calls the machine.
        let told = send(&house.admin, &format!("{method} {path} HTTP/1.1\r\nHost: server")).await;
        assert!([200, 202].contains(&told.status), "{path}: {}", told.body);
    }
    assert!(house.is_to_stop().await);
}

#[tokio::test]
async fn i8_caller_who_closes_their_side_after_the_call_is_answered() {
    let house = House::by_socket().await;
    let mut bob = Peer::join(&house.chat, "bob").await;
    let Address::Unix(path) = &house.admin else { panic!("{}", house.admin) };
    let mut stream = UnixStream::connect(path).await.unwrap();
    let call = "POST /users/bob/kick HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(call.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(PATIENCE, read).await.expect("an answer in time").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(bob.closed().await, Some(Refusal::Expelled(ExpelFault::Kicked)));
}

#[tokio::test]
async fn i8_other_user_who_gets_at_the_unix_socket_is_not_heard() {
    if !rustix::process::geteuid().is_root() {
        return println!("not tried: only root can be somebody else");
    }
    let house = House::by_socket().await;
    let Address::Unix(path) = &house.admin else { panic!("{}", house.admin) };
    // As if its owner had been careless.
    fs::set_permissions(house.folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
    // What answers by HTTP is no chat server; what says nothing has hung up.
    for (uid, said) in [(0, "no chat server"), (65_534, "gave no answer")] {
        let mut stranger = program();
        stranger.args(["status", "--server", &house.admin.to_string()]).uid(uid);
        let asked = tokio::task::spawn_blocking(move || stranger.output());
        let output = asked.await.unwrap().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.contains(said), "{uid}: {stderr}");
    }
}

#[tokio::test]
async fn i8_page_in_a_browser_has_no_business_with_those_who_run_the_server() {
    for house in [House::by_port().await, House::by_socket().await] {
        let _bob = Peer::join(&house.chat, "bob").await;
        let token = house.token();
        let before = house.entries().await;
        for origin in ["http://evil.example", "null", "http://localhost", ""] {
            for line in ["POST /users/bob/kick", "POST /stop", "GET /status", "GET /metrics"] {
                let head = format!(
                    "{line} HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\
                     Authorization: Bearer {token}"
                );
                send(&house.admin, &head).await.refused(403, "E_PERM", "browser");
            }
        }
        assert_eq!(house.entries().await, before, "nothing happened");
        assert!(!house.is_to_stop().await);
    }
}

#[tokio::test]
async fn i8_name_that_somebody_points_to_this_machine_is_refused() {
    let house = House::by_port().await;
    let token = house.token();
    let ask = async |line: &str, hosts: &str| {
        let head = format!("{line}{hosts}\r\nAuthorization: Bearer {token}");
        send(&house.admin, &head).await
    };
    for host in ["localhost", "LocalHost:9464", "127.0.0.1:1", "127.3.2.1", "[::1]", "[::1]:5", ""]
    {
        let told = ask("GET /status HTTP/1.1", &format!("\r\nHost: {host}")).await;
        assert_eq!(told.status, 200, "{host}");
    }
    assert_eq!(ask("GET /status HTTP/1.0", "").await.status, 200);
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "8.8.8.8", "@"]
    {
        let told = ask("GET /metrics HTTP/1.1", &format!("\r\nHost: {host}")).await;
        told.refused(403, "E_PERM", "localhost");
    }
    let two = ask("GET /status HTTP/1.1", "\r\nHost: localhost\r\nHost: evil.example").await;
    assert_ne!(two.status, 200);
    let line = ask("GET http://evil.example/status HTTP/1.1", "\r\nHost: localhost").await;
    assert_ne!(line.status, 200);
}

#[tokio::test]
async fn kicked_user_is_told_and_may_come_back() {
    let house = House::by_socket().await;
    let mut bob = Peer::join(&house.chat, "bob").await;
    assert_eq!(house.call("kick", "bob").await.status, 200);
    let told = bob.closed().await.expect("a reason");
    assert_eq!((told.code(), told.to_string().as_str()), ("E_PERM", "you were sent away"));
    Peer::join(&house.chat, "bob").await;
}

#[tokio::test]
async fn banned_user_may_not_log_in_until_the_ban_ends() {
    let house = House::by_socket().await;
    let mut bob = Peer::join(&house.chat, "bob").await;
    assert_eq!(house.call("ban", "bob").await.status, 200);
    let banned = Refusal::Expelled(ExpelFault::Banned);
    assert_eq!(bob.closed().await, Some(banned));
    assert_eq!(Peer::connect(&house.chat).await.log_in("bob").await.unwrap_err(), banned);
    house.call("op", "bob").await.refused(409, "E_TARGET", "the user is banned");
    assert_eq!(house.call("unban", "bob").await.status, 200);
    Peer::join(&house.chat, "bob").await;
}

#[tokio::test]
async fn released_name_is_free_for_another_key() {
    let house = House::by_socket().await;
    let mut bob = Peer::join(&house.chat, "bob").await;
    let (key, session) = (key_of("another bob"), SessionId::new([9; 16]));
    let mut other = Peer::connect(&house.chat).await;
    assert!(other.log_in_with("bob", &key, session).await.is_err(), "the name is bob's");
    assert_eq!(house.call("release", "bob").await.status, 200);
    assert_eq!(bob.closed().await, Some(Refusal::Expelled(ExpelFault::Released)));
    let mut other = Peer::connect(&house.chat).await;
    let welcome = other.log_in_with("bob", &key, session).await.unwrap();
    assert_eq!(welcome.user.as_str(), "bob");
}

#[tokio::test]
async fn op_and_deop_are_told_at_the_next_log_in() {
    let house = House::by_socket().await;
    // The first user is an operator by founding.
    let _ana = Peer::join(&house.chat, "ana").await;
    for (verb, operator) in [("op", true), ("deop", false)] {
        Peer::connect(&house.chat).await.log_in("bob").await.unwrap();
        assert_eq!(house.call(verb, "bob").await.status, 200);
        let welcome = Peer::connect(&house.chat).await.log_in("bob").await.unwrap();
        assert_eq!(welcome.operator, operator, "{verb}");
    }
}

#[tokio::test]
async fn call_that_cannot_be_carried_out_says_why() {
    let house = House::start(false, Limits { bans_max: 1, ..Limits::default() }).await;
    let (_ana, _bob) = (Peer::join(&house.chat, "ana").await, Peer::join(&house.chat, "bob").await);
    house.call("kick", "nobody").await.refused(404, "E_TARGET", "there is no such user");
    house.call("kick", "").await.refused(400, "E_NAME", "may not be empty");
    house.call("kick", "a%20b").await.refused(400, "E_NAME", "may not contain");
    house.call("kick", "%ff").await.refused(400, "E_NAME", "a name may not");
    house.call("kick", &"x".repeat(4_000)).await.refused(400, "E_NAME", "at most 32");
    assert_eq!(house.call("ban", "ana").await.status, 200);
    house.call("ban", "bob").await.refused(409, "E_LIMIT", "no more users can be banned");
    for unknown in ["/users/bob", "/users/bob/kick/", "/users/bob/promote", "/kick"] {
        let told = send(&house.admin, &format!("POST {unknown} HTTP/1.1\r\nHost: x")).await;
        assert_eq!(told.status, 404, "{unknown}");
    }
    for (method, path) in admin_calls() {
        let path = path.replace("{name}", "bob");
        for other in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            if other != method {
                let told = send(&house.admin, &format!("{other} {path} HTTP/1.1\r\nHost: x")).await;
                assert_eq!(told.status, 405, "{other} {path}");
            }
        }
    }
    assert!(!house.is_to_stop().await);
}

#[tokio::test]
async fn name_may_be_written_in_other_letters_and_a_body_is_not_read() {
    let house = House::by_socket().await;
    let _bob = Peer::join(&house.chat, "bjørn").await;
    for spelling in ["bj%C3%B8rn", "BJ%c3%98RN", "%62j%C3%B8rn"] {
        let told = house.call("kick", spelling).await;
        assert_eq!(told.json(), json!({ "user": "bjørn", "measure": "kick" }), "{spelling}");
    }
    let head = "POST /users/bj%C3%B8rn/kick HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000000";
    assert_eq!(send(&house.admin, head).await.status, 200, "nobody waits for what is not sent");
}

#[tokio::test]
async fn status_by_a_call_says_what_the_command_says() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (socket, data) =
        (format!("unix:{}", folder.path().join("admin").display()), data.to_str().unwrap());
    let listen = ["--listen", "chat://127.0.0.1:0", "--admin", &socket, "--data", data];
    let mut running = Program::start_by(program(), &[&["--json", "-n", "1"][..], &listen].concat());
    let address = running.address();
    let mut ana = Peer::join(&address, "ana").await;
    ana.post_and_wait("one").await;
    let called = send(&socket.parse().unwrap(), "GET /status HTTP/1.1\r\nHost: x").await.json();
    let mut command = program();
    command.args(["status", "--json", "--data", data, "--server", &address.to_string()]);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let called = called.as_object().unwrap();
    assert!(called.len() > 10, "{called:?}");
    for (word, value) in called {
        match word.as_str() {
            "store" => assert_eq!(value["full"], told["store"]["full"]),
            // It counts its own connection.
            "connections" => {
                assert_eq!(value.as_u64().map(|n| n + 1), told["connections"].as_u64());
            }
            _ => assert_eq!(*value, told[word], "{word}"),
        }
    }
}

#[tokio::test]
async fn c12_stop_by_a_call_is_answered_and_drains_as_a_signal_does() {
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", folder.path().join("admin").display());
    let options =
        ["--json", "--ephemeral", "--listen", "chat://127.0.0.1:0", "--admin", socket.as_str()];
    let mut running = Program::start_by(program(), &options);
    let address = running.address();
    let mut ana = Peer::join(&address, "ana").await;
    ana.post("the last word").await;
    let told = send(&socket.parse().unwrap(), "POST /stop HTTP/1.1\r\nHost: x").await;
    assert_eq!((told.status, told.json()), (202, json!({ "type": "stopping" })));
    assert_eq!(ana.closed().await, Some(Refusal::Gone));
    let admin = running.line();
    assert!(admin.contains(r#""type":"admin""#), "{admin}");
    let last = running.line();
    let (status, _) = running.wait();
    assert_eq!(status.code(), Some(0));
    assert!(last.contains(r#""type":"stopped""#) && last.contains("POST /stop"), "{last}");
}

#[tokio::test]
async fn c12_program_around_the_server_is_told_that_a_stop_is_asked_for() {
    let house = House::by_socket().await;
    let asked = house.server.stop_asked();
    let idle = UnixStream::connect(house.folder.path().join("admin")).await.unwrap();
    let told = send(&house.admin, "POST /stop HTTP/1.1\r\nHost: x").await;
    assert_eq!(told.status, 202);
    asked.await;
    // It serves on until it is stopped, which a caller who says nothing does not prevent.
    Peer::join(&house.chat, "ana").await;
    assert_eq!(house.server.stop().await.unwrap(), Stopped::Drained);
    drop(idle);
}

/// Starts the program with a port for those who run it; where that is, and the line about it.
fn start_with_port(
    command: Command,
    folder: &Path,
    options: &[&str],
) -> (Program, Address, Address) {
    let data = folder.to_str().unwrap();
    let listen = ["--listen", "chat://127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", data];
    let mut running =
        Program::start_by(command, &[&["--json", "-n", "1"][..], &listen, options].concat());
    let chat = running.address();
    let line = running.line();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event.as_object().unwrap().len(), 2, "no more than type and url: {event}");
    let admin = event["url"].as_str().unwrap().parse().unwrap();
    (running, chat, admin)
}

#[tokio::test]
async fn h7_calls_are_logged_line_by_line_and_the_token_never_is() {
    let folder = tempfile::tempdir().unwrap();
    let (running, chat, admin) = start_with_port(program(), folder.path(), &["--log", "trace"]);
    let token = token_in(folder.path());
    let _bob = Peer::join(&chat, "bob").await;
    let right = format!("Host: localhost\r\nAuthorization: Bearer {token}");
    let nasty = "%0a%1b%5b2J2026-11-28T00:00:00Z%20ERROR%20made%20up%e2%80%ae";
    for line in [
        "POST /users/BOB/kick".to_owned(),
        "POST /users/nobody/ban".to_owned(),
        format!("POST /users/{nasty}/op"),
        "GET /status".to_owned(),
    ] {
        send(&admin, &format!("{line} HTTP/1.1\r\n{right}")).await;
    }
    let almost = format!("Host: localhost\r\nAuthorization: Bearer {}x", &token[..42]);
    send(&admin, &format!("POST /users/{nasty}/deop HTTP/1.1\r\n{almost}")).await;
    send(&admin, &format!("POST /stop HTTP/1.1\r\n{right}")).await;
    let (status, log) = running.wait();
    assert_eq!(status.code(), Some(0));
    for (said, times) in [
        (r#"admin call verb="kick" user="bob" outcome="done""#, 1),
        (r#"admin call verb="ban" user="nobody" outcome="E_TARGET""#, 1),
        (r#"admin call verb="op" user="\n\u{1b}[2J2026-"#, 1),
        (r#"admin call verb="status" outcome="done""#, 1),
        (r#"admin call verb="stop" outcome="done""#, 1),
        ("admin call refused path=\"/users/", 1),
        ("admin call", 6),
    ] {
        assert_eq!(log.matches(said).count(), times, "{said}: {log}");
    }
    assert!(!log.contains(&token[..42]), "nothing of the token: {log}");
    for line in log.lines() {
        let made_up = line.starts_with("2026-11-28T00:00:00Z ERROR");
        assert!(!made_up && !line.chars().any(char::is_control), "{line:?}");
    }
}

#[tokio::test]
async fn l6_token_is_made_once_for_its_owner_alone_and_goes_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.token");
    let (running, _, admin) = start_with_port(program(), folder.path(), &[]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let token = token_in(folder.path());
    assert_eq!(token.len(), 43, "256 bits in base64url");
    running.signal(Signal::TERM);
    let (_, stderr) = running.wait();
    assert!(!stderr.contains(&token), "{stderr}");
    let (running, chat, again) = start_with_port(program(), folder.path(), &[]);
    assert_eq!(token_in(folder.path()), token, "it is kept");
    assert_ne!(admin, chat);
    let right = format!("Host: localhost\r\nAuthorization: Bearer {token}");
    assert_eq!(send(&again, &format!("GET /status HTTP/1.1\r\n{right}")).await.status, 200);

    let copy = folder.path().join("copy");
    chat_server::backup(folder.path(), &copy, &mut |_| {}).unwrap();
    assert!(copy.join("server.key").exists() && !copy.join("admin.token").exists());
    let mut exported = Vec::new();
    chat_server::export(folder.path(), &mut exported, &mut |_| {}).unwrap();
    assert!(!String::from_utf8(exported).unwrap().contains(&token));
    let data = folder.path().to_str().unwrap();
    let mut print = program();
    print.args(["--admin", "127.0.0.1:0", "--data", data, "--print-config"]);
    let printed = String::from_utf8(print.output().unwrap().stdout).unwrap();
    assert!(printed.contains("127.0.0.1:0") && !printed.contains(&token), "{printed}");
    drop(running);
}

#[tokio::test]
async fn l6_token_that_others_can_read_or_that_is_none_is_refused() {
    let folder = private_folder();
    let path = folder.path().join("admin.token");
    let (first, second) = (
        AdminToken::in_folder(folder.path()).unwrap(),
        AdminToken::in_folder(folder.path()).unwrap(),
    );
    assert_eq!(format!("{first:?}"), format!("AdminToken {{ path: {path:?}, .. }}"));
    assert_eq!(first.path(), second.path());
    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let open = AdminToken::in_folder(folder.path()).unwrap_err();
    assert!(matches!(open, TokenError::Open { mode: 0o644, .. }), "{open}");
    let data = folder.path().to_str().unwrap();
    let options =
        ["--ephemeral", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", data];
    let (status, stderr) = Program::start_by(program(), &options).wait();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("admin.token") && stderr.contains("read by others"), "{stderr}");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    for text in ["", "\n", "short", &"A".repeat(44), &"A".repeat(500)] {
        fs::write(&path, text).unwrap();
        let damaged = AdminToken::in_folder(folder.path()).unwrap_err();
        assert!(matches!(damaged, TokenError::Damaged(_)), "{text:?}: {damaged}");
    }
}

#[test]
fn unix_socket_needs_no_token_and_people_are_told_where_the_token_of_a_port_is() {
    let folder = tempfile::tempdir().unwrap();
    let (data, socket) = (folder.path().join("data"), folder.path().join("admin"));
    let (token, data) = (data.join("admin.token"), data.to_str().unwrap());
    let socket = format!("unix:{}", socket.display());
    for (admin, told, is_made) in [
        (socket.as_str(), "and calls taken, at the socket", false),
        ("127.0.0.1:0", "Calls there need the token in", true),
    ] {
        let options = ["--ephemeral", "--listen", "127.0.0.1:0", "--data", data, "--admin", admin];
        let mut running = Program::start_by(program(), &options);
        let mut line = running.line();
        while !line.contains(told) {
            assert!(!line.contains("stopped"), "{told} must be said");
            line = running.line();
        }
        assert_eq!(token.exists(), is_made);
        if is_made {
            assert!(line.contains(token.to_str().unwrap()), "{line}");
        }
    }
}
