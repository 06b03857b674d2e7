//! A chat inside a web service: the service knows its users, the hub knows the chat.
//!
//! `POST /lobby/NAME` says something, `GET /lobby/NAME` shows what that user has not seen yet. The
//! first of them makes the user join. Run it with `cargo run -p chatcore --example axum`: it starts
//! on a free port of this machine, asks itself a few things over HTTP and ends. With an address as
//! argument it serves there until it is stopped; try it with curl.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use chatcore::engine::Config;
use chatcore::hub::Hub;
use chatcore::id::{
    Attach, ConnId, Counter, LogId, Nonce, PublicKey, RequestId, SessionId, Signature, Threshold,
};
use chatcore::log::Founding;
use chatcore::text::Untrusted;
use chatcore::time::{Moment, Now};
use chatcore::wire::{
    Answer, ClientFrame, Command, JoinedRoom, Login, Question, RecordBody, ServerFrame, Start,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// The chat of the service: the hub, and the connection that stands for each user.
struct Chat {
    hub: Hub,
    users: HashMap<String, User>,
    origin: Instant,
}

#[derive(Clone, Copy)]
struct User {
    conn: ConnId,
    counter: Counter,
}

type Shared = Arc<Mutex<Chat>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), AnyError> {
    let chat: Shared = Arc::new(Mutex::new(Chat::new()?));
    let service = Router::new().route("/lobby/{name}", post(say).get(listen)).with_state(chat);
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0")).await?;
    let at = listener.local_addr()?;
    println!("listening on http://{at}");
    let server = tokio::spawn(async move { axum::serve(listener, service).await });
    if address.is_some() {
        return Ok(server.await??);
    }
    request(at, "POST /lobby/ana", "is anybody there?").await?;
    let held = request(at, "GET /lobby/ana", "").await?;
    assert!(held.contains("held: 1 of 2"), "one user opens no gate: {held}");
    request(at, "POST /lobby/beto", "now I am").await?;
    let seen = request(at, "GET /lobby/beto", "").await?;
    assert!(seen.contains("ana: is anybody there?\n"), "the gate is open: {seen}");
    println!("{seen}");
    Ok(())
}

async fn say(
    State(chat): State<Shared>,
    Path(name): Path<String>,
    text: String,
) -> (StatusCode, String) {
    answer(chat.lock().unwrap_or_else(PoisonError::into_inner).say(&name, &text))
}

async fn listen(State(chat): State<Shared>, Path(name): Path<String>) -> (StatusCode, String) {
    answer(chat.lock().unwrap_or_else(PoisonError::into_inner).listen(&name))
}

fn answer(result: Result<String, AnyError>) -> (StatusCode, String) {
    match result {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

impl Chat {
    fn new() -> Result<Self, AnyError> {
        let founding = Founding {
            log_id: LogId::new([1; 16]),
            server_key: PublicKey::new([2; 32]),
            threshold: Threshold::DEFAULT,
            operators: Vec::new(),
        };
        // The service has checked who asks before it comes here, so no key has to.
        let hub = Hub::found(founding, Config::default(), Now::default(), |_, _, _| true)?;
        Ok(Self { hub, users: HashMap::new(), origin: Instant::now() })
    }

    fn say(&mut self, name: &str, text: &str) -> Result<String, AnyError> {
        let mut user = self.user(name)?;
        user.counter = user.counter.next();
        self.users.insert(name.to_owned(), user);
        let (room, body) = (Untrusted::new("lobby"), Untrusted::new(text));
        let command = Command::Post { room, incarnation: None, body };
        let submit = ClientFrame::Submit { counter: user.counter, command };
        self.hub.receive_frame(self.now(), user.conn, submit);
        Ok(String::new())
    }

    fn listen(&mut self, name: &str) -> Result<String, AnyError> {
        let conn = self.user(name)?.conn;
        let mut text = String::new();
        for frame in self.hub.take_frames(self.now(), conn) {
            match frame {
                ServerFrame::Record(record) => match record.body {
                    RecordBody::Post { from, text: said } => {
                        writeln!(text, "{from}: {}", said.as_str())?;
                    }
                    RecordBody::Joined { user } => writeln!(text, "* {user} has joined")?,
                    RecordBody::Left { user } => writeln!(text, "* {user} has left")?,
                },
                ServerFrame::Answer { answer: Answer::Joined(JoinedRoom { gate, .. }), .. }
                | ServerFrame::Gate { gate, .. }
                    if !gate.open =>
                {
                    writeln!(text, "* held: {} of {} users", gate.users, gate.threshold)?;
                }
                ServerFrame::Refused { refusal, .. } => writeln!(text, "! {refusal}")?,
                ServerFrame::Close(refusal) => return Err(refusal.to_string().into()),
                _ => {}
            }
        }
        Ok(text)
    }

    /// The connection of a user; made, logged in and in the lobby when there is none.
    fn user(&mut self, name: &str) -> Result<User, AnyError> {
        if let Some(user) = self.users.get(name) {
            return Ok(*user);
        }
        let number = u8::try_from(self.users.len()).map_err(|_| "no more users")?;
        let conn = ConnId::new(number.into());
        let now = self.now();
        self.hub.connect(now, conn, Nonce::new([0; 32]));
        self.hub.receive_frame(now, conn, ClientFrame::hello());
        let (key, session) = (PublicKey::new([number; 32]), SessionId::new([number; 16]));
        let (attach, signature) = (Attach::ZERO, Signature::new([0; 64]));
        let login = Login { name: Untrusted::new(name), key, session, attach, signature };
        self.hub.receive_frame(now, conn, ClientFrame::Login(login));
        let question = Question::Join { room: Untrusted::new("lobby"), start: Start::Last(100) };
        let ask = ClientFrame::Ask { request: RequestId::ZERO, question };
        self.hub.receive_frame(now, conn, ask);
        let user = User { conn, counter: Counter::ZERO };
        self.users.insert(name.to_owned(), user);
        Ok(user)
    }

    fn now(&self) -> Now {
        let millis = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { moment: Moment::from_millis(millis), ..Now::default() }
    }
}

/// One HTTP request of the demonstration.
async fn request(server: std::net::SocketAddr, what: &str, body: &str) -> Result<String, AnyError> {
    let mut stream = TcpStream::connect(server).await?;
    let length = body.len();
    let request = format!(
        "{what} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    let (head, text) = response.split_once("\r\n\r\n").ok_or("no answer")?;
    if head.starts_with("HTTP/1.1 200") { Ok(text.to_owned()) } else { Err(text.into()) }
}
