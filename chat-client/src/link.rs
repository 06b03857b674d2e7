//! The connection to the server: dialling, frames in, bytes out.
//!
//! Invariant: [`Link::send`] only fills a buffer; bytes leave in [`Link::next`], which the driver
//! calls after everything that must come first is saved.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::BytesMut;
use chatcore::codec::{FrameCodec, FrameCodecError, encode};
use chatcore::id::Digest;
use chatcore::wire::{ClientFrame, ServerFrame};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_util::codec::FramedRead;

use crate::tls::{self, Fault, Trust};
use chatcore::address::Address;

/// How long one attempt to connect may take.
const DIAL_TIME: Duration = Duration::from_secs(10);

/// How long the last bytes may take to leave.
const CLOSE_TIME: Duration = Duration::from_secs(1);

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

type Dialled = (Box<dyn Socket>, Option<Digest>);
type Dialling = Pin<Box<dyn Future<Output = io::Result<Dialled>> + Send>>;
type Frames = FramedRead<ReadHalf<Box<dyn Socket>>, FrameCodec<ServerFrame, ClientFrame>>;

/// What happened to the connection.
#[derive(Debug)]
pub enum LinkEvent {
    /// It stands.
    Dialled {
        /// What binds a log-in to it, when it is inside TLS.
        channel: Option<Digest>,
    },
    /// A frame came.
    Frame(ServerFrame),
    /// It cannot be had, or is lost.
    Lost {
        /// Why, for people.
        reason: String,
    },
    /// It cannot be had, as the server's certificate is not to be trusted.
    Distrusted {
        /// Why, for people.
        reason: String,
    },
}

/// Whether frames are wanted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appetite {
    /// Frames are read.
    Read,
    /// Bytes are written, nothing is read.
    WriteOnly,
}

/// At most one connection, or an attempt at one.
#[derive(Default)]
pub struct Link {
    state: State,
}

#[derive(Default)]
enum State {
    #[default]
    Down,
    Dialling(Dialling),
    Up(Connection),
    /// Hung up by this side; what is buffered may still leave.
    Closing(Connection),
}

struct Connection {
    frames: Frames,
    sink: WriteHalf<Box<dyn Socket>>,
    out: BytesMut,
    /// Whether there are bytes that have not left: here, or in a transport that keeps some, as TLS.
    has_to_write: bool,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.state {
            State::Down => "down",
            State::Dialling(_) => "dialling",
            State::Up(_) => "up",
            State::Closing(_) => "closing",
        };
        write!(f, "Link({state})")
    }
}

impl Link {
    /// Begins to connect; an earlier connection is dropped. `trust` is for addresses with TLS.
    ///
    /// # Panics
    /// Later, in [`Link::next`], when an address with TLS comes without.
    pub fn dial(&mut self, address: &Address, trust: Option<&Trust>) {
        self.state = State::Dialling(Box::pin(connect(address.clone(), trust.cloned())));
    }

    /// Appends a frame to what is to be written; without a connection it is dropped.
    pub fn send(&mut self, frame: &ClientFrame) {
        if let State::Up(connection) = &mut self.state {
            encode(frame, &mut connection.out);
            connection.has_to_write = true;
        }
    }

    /// Ends the connection from this side.
    pub fn hang_up(&mut self) {
        self.state = match std::mem::take(&mut self.state) {
            State::Up(connection) => State::Closing(connection),
            State::Down | State::Dialling(_) | State::Closing(_) => State::Down,
        };
    }

    /// Waits for what happens next and writes meanwhile; for ever when there is no connection. It
    /// may be dropped and called again.
    pub async fn next(&mut self, appetite: Appetite) -> LinkEvent {
        match &mut self.state {
            State::Down => std::future::pending().await,
            State::Dialling(dialling) => match dialling.await {
                Ok((socket, channel)) => {
                    self.state = State::Up(Connection::new(socket));
                    LinkEvent::Dialled { channel }
                }
                Err(error) => match tls::fault_of(&error) {
                    Some(Fault::Certificate(reason)) => {
                        self.state = State::Down;
                        LinkEvent::Distrusted { reason }
                    }
                    Some(Fault::Other(reason)) => self.lost(reason),
                    None => self.lost(for_people(&error)),
                },
            },
            State::Up(connection) => match connection.next(appetite).await {
                Ok(frame) => LinkEvent::Frame(frame),
                Err(reason) => self.lost(reason),
            },
            State::Closing(connection) => {
                // Nobody waits for this connection any more, whatever becomes of it.
                let _closed = connection.close().await;
                self.state = State::Down;
                std::future::pending().await
            }
        }
    }

    /// A frame that is there already. It writes nothing.
    pub fn next_ready(&mut self) -> Option<LinkEvent> {
        let State::Up(connection) = &mut self.state else { return None };
        let frame = connection.frames.next().now_or_never()?;
        Some(match received(frame) {
            Ok(frame) => LinkEvent::Frame(frame),
            Err(reason) => self.lost(reason),
        })
    }

    /// Writes what is left, in bounded time.
    pub async fn finish(&mut self) {
        if let State::Up(mut connection) | State::Closing(mut connection) =
            std::mem::take(&mut self.state)
        {
            // Best effort: the server notices the end of a connection in any case.
            let _late = timeout(CLOSE_TIME, connection.close()).await;
        }
    }

    fn lost(&mut self, reason: String) -> LinkEvent {
        self.state = State::Down;
        LinkEvent::Lost { reason }
    }
}

impl Connection {
    fn new(socket: Box<dyn Socket>) -> Self {
        let (source, sink) = tokio::io::split(socket);
        let frames = FramedRead::new(source, FrameCodec::default());
        Self { frames, sink, out: BytesMut::new(), has_to_write: false }
    }

    /// The next frame, or why there will be none.
    async fn next(&mut self, appetite: Appetite) -> Result<ServerFrame, String> {
        loop {
            tokio::select! {
                frame = self.frames.next(), if appetite == Appetite::Read => {
                    return received(frame);
                }
                written = write_some(&mut self.sink, &mut self.out), if self.has_to_write => {
                    // A connection that takes no bytes may still have a last frame to be read.
                    if written.is_err() {
                        self.out.clear();
                    }
                    self.has_to_write = !self.out.is_empty();
                }
                () = std::future::pending() => {}
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.sink.write_all_buf(&mut self.out).await?;
        self.sink.shutdown().await
    }
}

/// Writes some of what is there, and once nothing is, has all of it leave. It may be dropped and called
/// again.
async fn write_some(sink: &mut WriteHalf<Box<dyn Socket>>, out: &mut BytesMut) -> io::Result<()> {
    if !out.is_empty() {
        sink.write_buf(out).await?;
    }
    if out.is_empty() { sink.flush().await } else { Ok(()) }
}

fn received(frame: Option<Result<ServerFrame, FrameCodecError>>) -> Result<ServerFrame, String> {
    match frame {
        Some(Ok(frame)) => Ok(frame),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("the server closed the connection".to_owned()),
    }
}

/// An error without the number that the operating system gives it.
fn for_people(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

async fn connect(address: Address, trust: Option<Trust>) -> io::Result<Dialled> {
    match timeout(DIAL_TIME, attempt(address, trust.as_ref())).await {
        Ok(connected) => connected,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s")),
    }
}

async fn attempt(address: Address, trust: Option<&Trust>) -> io::Result<Dialled> {
    Ok(match address {
        Address::Tcp { host, port } => (Box::new(connect_tcp(&host, port).await?), None),
        Address::Tls { host, port } => {
            let trust = trust.expect("who dials by TLS trusts somebody");
            let stream = connect_tcp(&host, port).await?;
            let (stream, channel) = trust.connect(stream, &host).await?;
            (Box::new(stream), Some(channel))
        }
        Address::Unix(path) => (Box::new(UnixStream::connect(path).await?), None),
    })
}

async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
