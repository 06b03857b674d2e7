//! Connections: two streams that deliver in order, in pieces, late, and may break inside a frame.

use std::collections::VecDeque;

use bytes::Bytes;
use chatcore::id::ConnId;
use fastrand::Rng;

use crate::plan::NetOptions;
use crate::world::queue::{Event, Queue, Side};

/// Who is at the client's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialler {
    /// A client, and which of its runs.
    Client { client: usize, run: u64 },
    /// Somebody who does not keep to the protocol.
    Wild,
}

/// Something under way.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    End,
}

/// One direction.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pieces: VecDeque<Piece>,
    /// When the newest piece arrives: later ones do not overtake it.
    last_at: u64,
    /// Bytes that were sent and not read.
    pub(crate) unread: usize,
    /// Whether it carries nothing any more.
    pub(crate) silent: bool,
}

/// One connection.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "both ends, and what may be wrong between them")]
pub(crate) struct Conn {
    pub(crate) dialler: Dialler,
    pub(crate) boot: u64,
    pub(crate) to_server: Stream,
    pub(crate) to_client: Stream,
    /// Whether the client's end is open.
    pub(crate) client_open: bool,
    /// Whether the server's end is open.
    pub(crate) server_open: bool,
    /// Until when its client reads nothing.
    pub(crate) stalled_until: u64,
    /// Pieces that arrived meanwhile.
    pub(crate) waiting: usize,
    /// Whether the server was told that the socket is full.
    pub(crate) blocked: bool,
    /// Whether the client was logged in through it.
    pub(crate) welcomed: bool,
}

impl Conn {
    pub(crate) fn new(dialler: Dialler, boot: u64) -> Self {
        Self {
            dialler,
            boot,
            to_server: Stream::default(),
            to_client: Stream::default(),
            client_open: true,
            server_open: false,
            stalled_until: 0,
            waiting: 0,
            blocked: false,
            welcomed: false,
        }
    }

    fn stream(&mut self, to: Side) -> &mut Stream {
        match to {
            Side::Client => &mut self.to_client,
            Side::Server => &mut self.to_server,
        }
    }

    /// Takes the next piece that reached a side.
    pub(crate) fn arrive(&mut self, at: Side) -> Option<Piece> {
        let stream = self.stream(at);
        let piece = stream.pieces.pop_front();
        if let Some(Piece::Data(bytes)) = &piece {
            stream.unread -= bytes.len();
        }
        piece
    }

    /// Carries nothing any more.
    pub(crate) fn silence(&mut self) {
        (self.to_server.silent, self.to_client.silent) = (true, true);
    }

    /// Loses what is under way.
    pub(crate) fn lose(&mut self, to: Side) {
        let stream = self.stream(to);
        stream.pieces.clear();
        stream.unread = 0;
    }
}

/// What it takes to send.
pub(crate) struct Wire<'a> {
    pub(crate) now: u64,
    pub(crate) options: NetOptions,
    pub(crate) rng: &'a mut Rng,
    pub(crate) queue: &'a mut Queue,
}

impl Wire<'_> {
    fn delay(&mut self) -> u64 {
        self.rng.u64(self.options.delay_min..=self.options.delay_max)
    }

    /// Sends bytes, cut anywhere.
    pub(crate) fn send(&mut self, id: ConnId, conn: &mut Conn, to: Side, mut bytes: Bytes) {
        let stream = conn.stream(to);
        if stream.silent {
            stream.unread += bytes.len();
            return;
        }
        let pieces = self.rng.u8(1..=self.options.pieces_max);
        for _ in 1..pieces {
            if bytes.len() > 1 {
                let head = bytes.split_to(self.rng.usize(1..bytes.len()));
                self.push(id, conn, to, Piece::Data(head));
            }
        }
        self.push(id, conn, to, Piece::Data(bytes));
    }

    /// Says that nothing more comes.
    pub(crate) fn end(&mut self, id: ConnId, conn: &mut Conn, to: Side) {
        if !conn.stream(to).silent {
            self.push(id, conn, to, Piece::End);
        }
    }

    fn push(&mut self, id: ConnId, conn: &mut Conn, to: Side, piece: Piece) {
        let at = self.now + self.delay();
        let stream = conn.stream(to);
        stream.last_at = stream.last_at.max(at);
        if let Piece::Data(bytes) = &piece {
            stream.unread += bytes.len();
        }
        stream.pieces.push_back(piece);
        self.queue.push(stream.last_at, Event::Arrive(id, to));
    }
}
