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
use chatcore::wire::{ClientFrame, ServerFrame};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_util::codec::FramedRead;

use chatcore::address::Address;

/// How long one attempt to connect may take.
const DIAL_TIME: Duration = Duration::from_secs(10);

/// How long the last bytes may take to leave.
const CLOSE_TIME: Duration = Duration::from_secs(1);

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

type Dialling = Pin<Box<dyn Future<Output = io::Result<Box<dyn Socket>>> + Send>>;
type Frames = FramedRead<ReadHalf<Box<dyn Socket>>, FrameCodec<ServerFrame, ClientFrame>>;

/// What happened to the connection.
#[derive(Debug)]
pub enum LinkEvent {
    /// It stands.
    Dialled,
    /// A frame came.
    Frame(ServerFrame),
    /// It cannot be had, or is lost.
    Lost {
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
    /// Begins to connect; an earlier connection is dropped.
    pub fn dial(&mut self, address: &Address) {
        self.state = State::Dialling(Box::pin(connect(address.clone())));
    }

    /// Appends a frame to what is to be written; without a connection it is dropped.
    pub fn send(&mut self, frame: &ClientFrame) {
        if let State::Up(connection) = &mut self.state {
            encode(frame, &mut connection.out);
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
                Ok(socket) => {
                    self.state = State::Up(Connection::new(socket));
                    LinkEvent::Dialled
                }
                Err(error) => self.lost(for_people(&error)),
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
        Self { frames, sink, out: BytesMut::new() }
    }

    /// The next frame, or why there will be none.
    async fn next(&mut self, appetite: Appetite) -> Result<ServerFrame, String> {
        loop {
            tokio::select! {
                frame = self.frames.next(), if appetite == Appetite::Read => {
                    return received(frame);
                }
                written = self.sink.write_buf(&mut self.out), if !self.out.is_empty() => {
                    // A connection that takes no bytes may still have a last frame to be read.
                    if written.is_err() {
                        self.out.clear();
                    }
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

async fn connect(address: Address) -> io::Result<Box<dyn Socket>> {
    let attempt = async {
        Ok::<Box<dyn Socket>, io::Error>(match address {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host, port)).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    };
    match timeout(DIAL_TIME, attempt).await {
        Ok(connected) => connected,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s")),
    }
}
