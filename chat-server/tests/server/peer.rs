//! A client that speaks the protocol frame by frame, so that a test can also break its rules.

use std::time::Duration;

use chatcore::address::Address;
use chatcore::codec::{FrameBuffer, decode, encode_to_bytes};
use chatcore::id::{Attach, Counter, Digest, PublicKey, RequestId, Seq, SessionId, Signature};
use chatcore::text::Untrusted;
use chatcore::wire::{
    Answer, ClientFrame, ClientHello, Command, Login, LoginProof, Question, Record, RecordBody,
    Refusal, Role, ServerFrame, Start, VersionRange, Welcome,
};
use ed25519_dalek::{Signer as _, SigningKey};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::anybody;

/// How long a test waits for something that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(crate) struct Peer {
    stream: Box<dyn Stream>,
    /// What binds a log-in to the connection.
    channel: Option<Digest>,
    buffer: FrameBuffer,
    counter: Counter,
    request: RequestId,
    /// Answers to commands that came before the answer to a question.
    passed: Vec<ServerFrame>,
}

impl Peer {
    /// Connects and says nothing.
    pub(crate) async fn connect(address: &Address) -> Self {
        match address {
            Address::Tcp { host, port } => Self::over(dial(host, *port).await),
            Address::Tls { host, port } => {
                let stream = dial(host, *port).await;
                let stream = anybody::connect(stream, host).await.expect("a handshake");
                let channel = channel_of(&stream);
                Self { channel: Some(channel), ..Self::over(stream) }
            }
            Address::Unix(path) => {
                Self::over(tokio::net::UnixStream::connect(path).await.expect("connect"))
            }
        }
    }

    pub(crate) fn over(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            channel: None,
            buffer: FrameBuffer::default(),
            counter: Counter::ZERO,
            request: RequestId::ZERO,
            passed: Vec::new(),
        }
    }

    /// What the log-in is bound to from now on, whatever secures the connection.
    pub(crate) fn pretend_channel(&mut self, channel: Option<Digest>) {
        self.channel = channel;
    }

    /// Connects, logs in with a key made from the name, and joins the lobby from the beginning.
    pub(crate) async fn join(address: &Address, name: &str) -> Self {
        let mut peer = Self::connect(address).await;
        peer.log_in(name).await.expect("the log-in must be accepted");
        let joined = peer.ask(join("lobby")).await;
        assert!(matches!(joined, Answer::Joined(_)), "{joined:?}");
        peer
    }

    /// Connects, logs in and joins the lobby, to be sent all of its history.
    pub(crate) async fn join_from_the_first(address: &Address, name: &str) -> Self {
        let mut peer = Self::connect(address).await;
        peer.log_in(name).await.expect("the log-in must be accepted");
        let start = Start::At(Seq::ZERO.next());
        let joined = peer.ask(Question::Join { room: Untrusted::new("lobby"), start }).await;
        assert!(matches!(joined, Answer::Joined(_)), "{joined:?}");
        peer
    }

    pub(crate) async fn log_in(&mut self, name: &str) -> Result<Welcome, Refusal> {
        let key = key_of(name);
        let session = SessionId::new(*key.verifying_key().as_bytes().first_chunk().unwrap());
        self.log_in_with(name, &key, session).await
    }

    /// Says hello and logs in.
    pub(crate) async fn log_in_with(
        &mut self,
        name: &str,
        key: &SigningKey,
        session: SessionId,
    ) -> Result<Welcome, Refusal> {
        self.try_log_in(name, key, session).await.expect("welcome or close, not the end")
    }

    /// As [`Self::log_in_with`]; `None` when the connection just ends.
    async fn try_log_in(
        &mut self,
        name: &str,
        key: &SigningKey,
        session: SessionId,
    ) -> Option<Result<Welcome, Refusal>> {
        self.send(&hello()).await;
        let ServerFrame::Hello(hello) = self.next().await? else {
            panic!("the server must say hello");
        };
        let attach = Attach::ZERO.next();
        let proof = LoginProof {
            nonce: hello.nonce,
            server_key: hello.server_key,
            log_id: hello.log_id,
            generation: hello.generation,
            channel: self.channel,
            session,
            attach,
            name,
        };
        let login = Login {
            name: Untrusted::new(name),
            key: PublicKey::new(key.verifying_key().to_bytes()),
            session,
            attach,
            signature: Signature::new(key.sign(&proof.to_bytes()).to_bytes()),
        };
        self.send(&ClientFrame::Login(login)).await;
        match self.next().await? {
            ServerFrame::Welcome(welcome) => {
                self.counter = welcome.last_counter;
                Some(Ok(welcome))
            }
            ServerFrame::Close(refusal) => Some(Err(refusal)),
            other => panic!("welcome or close, not {other:?}"),
        }
    }

    /// As [`Self::join`] for a server that may break down; `None` when it does, or refuses.
    pub(crate) async fn try_join(address: &Address, name: &str) -> Option<Self> {
        let Address::Tcp { host, port } = address else { panic!("{address} is no port") };
        let stream = TcpStream::connect((host.as_str(), *port)).await.ok()?;
        let mut peer = Self::over(stream);
        let key = key_of(name);
        let session = SessionId::new(*key.verifying_key().as_bytes().first_chunk().unwrap());
        peer.try_log_in(name, &key, session).await?.ok()?;
        let joined = peer.try_ask(join("lobby")).await?;
        matches!(joined, Answer::Joined(_)).then_some(peer)
    }

    pub(crate) async fn send(&mut self, frame: &ClientFrame) {
        self.send_bytes(&encode_to_bytes(frame)).await;
    }

    /// Sends bytes as they are; a server that has closed already may refuse them.
    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// Submits a post without waiting for the answer.
    pub(crate) async fn post(&mut self, text: &str) -> Counter {
        let (room, body) = (Untrusted::new("lobby"), Untrusted::new(text));
        self.submit(Command::Post { room, incarnation: None, body }).await
    }

    /// Submits a command without waiting for the answer.
    pub(crate) async fn submit(&mut self, command: Command) -> Counter {
        self.counter = self.counter.next();
        let counter = self.counter;
        self.send(&ClientFrame::Submit { counter, command }).await;
        counter
    }

    /// The number that the next post will have.
    pub(crate) fn next_counter(&self) -> Counter {
        self.counter.next()
    }

    /// The last post was refused for now: its number is free.
    pub(crate) fn take_back(&mut self) {
        self.counter = self.counter.previous();
    }

    /// Posts and waits for the answer; `None` when the connection ends before.
    pub(crate) async fn post_and_wait(&mut self, text: &str) -> Option<ServerFrame> {
        let wanted = self.post(text).await;
        loop {
            let frame = self.next().await?;
            if counter_of(&frame) == Some(wanted) {
                return Some(frame);
            }
        }
    }

    /// Waits for the answer to any command; everything before it is dropped.
    pub(crate) async fn next_answer(&mut self) -> ServerFrame {
        loop {
            let frame = self.next().await.expect("an answer");
            if counter_of(&frame).is_some() {
                return frame;
            }
        }
    }

    /// The answer to a command, if it came while an answer to a question was waited for.
    pub(crate) fn answer_if_any(&mut self, wanted: Counter) -> Option<ServerFrame> {
        let place = self.passed.iter().position(|frame| counter_of(frame) == Some(wanted))?;
        Some(self.passed.swap_remove(place))
    }

    /// Asks and waits for the answer; answers to commands are kept, everything else before it is
    /// dropped.
    pub(crate) async fn ask(&mut self, question: Question) -> Answer {
        self.try_ask(question).await.expect("an answer")
    }

    async fn try_ask(&mut self, question: Question) -> Option<Answer> {
        self.request = self.request.next();
        let request = self.request;
        self.send(&ClientFrame::Ask { request, question }).await;
        loop {
            match self.next().await? {
                ServerFrame::Answer { request: label, answer } if label == request => {
                    return Some(answer);
                }
                frame if counter_of(&frame).is_some() => self.passed.push(frame),
                _ => {}
            }
        }
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<ServerFrame> {
        tokio::time::timeout(PATIENCE, self.read()).await.expect("a frame or the end in time")
    }

    /// Waits for the answer to a command; everything before it is dropped.
    pub(crate) async fn answer_to(&mut self, wanted: Counter) -> ServerFrame {
        if let Some(frame) = self.answer_if_any(wanted) {
            return frame;
        }
        loop {
            let frame = self.next_answer().await;
            if counter_of(&frame) == Some(wanted) {
                return frame;
            }
        }
    }

    /// Waits until `count` posts came and returns their texts.
    pub(crate) async fn posts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        while texts.len() < count {
            let frame = self.next().await.expect("a record");
            if let ServerFrame::Record(Record { body: RecordBody::Post { text, .. }, .. }) = frame {
                texts.push(text.as_str().to_owned());
            }
        }
        texts
    }

    /// Waits for a post or for somebody to leave; true for the latter.
    pub(crate) async fn next_post_or_leave(&mut self) -> bool {
        loop {
            match self.next().await.expect("a record") {
                ServerFrame::Record(Record { body: RecordBody::Post { .. }, .. }) => return false,
                ServerFrame::Record(Record { body: RecordBody::Left { .. }, .. }) => return true,
                _ => {}
            }
        }
    }

    /// Waits for the last frame and the end of the connection.
    pub(crate) async fn closed(&mut self) -> Option<Refusal> {
        let mut last = None;
        while let Some(frame) = self.next().await {
            if let ServerFrame::Close(refusal) = frame {
                last = Some(refusal);
            }
        }
        last
    }

    async fn read(&mut self) -> Option<ServerFrame> {
        loop {
            if let Some(frame) = self.buffer.next_frame().expect("well-formed frames") {
                return Some(decode(&frame).expect("canonical frames"));
            }
            match self.stream.read_buf(self.buffer.as_mut()).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

/// The command that a frame answers, if it answers one.
fn counter_of(frame: &ServerFrame) -> Option<Counter> {
    match frame {
        ServerFrame::Accepted { counter, .. }
        | ServerFrame::Applied { counter }
        | ServerFrame::Refused { counter, .. } => Some(*counter),
        _ => None,
    }
}

pub(crate) fn hello() -> ClientFrame {
    let versions = VersionRange::SUPPORTED;
    ClientFrame::Hello(ClientHello { role: Role::Client, versions, features: 0 })
}

pub(crate) fn join(room: &str) -> Question {
    Question::Join { room: Untrusted::new(room), start: Start::Last(1_000) }
}

pub(crate) fn history(room: &str, before: Option<Seq>, limit: u16) -> Question {
    Question::History { room: Untrusted::new(room), before, limit }
}

/// A key that is always the same for a name.
pub(crate) fn key_of(name: &str) -> SigningKey {
    let mut seed = [0; 32];
    seed.iter_mut().zip(name.bytes()).for_each(|(place, byte)| *place = byte);
    SigningKey::from_bytes(&seed)
}

pub(crate) async fn dial(host: &str, port: u16) -> TcpStream {
    TcpStream::connect((host, port)).await.expect("connect")
}

/// The connection's `tls-exporter`, as RFC 9266 has it.
fn channel_of(stream: &TlsStream<TcpStream>) -> Digest {
    let (_, session) = stream.get_ref();
    let label = b"EXPORTER-Channel-Binding";
    Digest::new(session.export_keying_material([0; 32], label, Some(&[])).unwrap())
}
