//! Peers that break the rules: each loses its connection, and nobody else anything.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use chatcore::address::Address;
use chatcore::codec::encode_to_bytes;
use chatcore::id::Counter;
use chatcore::limits::Limits;
use chatcore::text::Untrusted;
use chatcore::time::Span;
use chatcore::wire::{
    ClientFrame, Command, DecodeFault, FrameFault, LimitFault, Refusal, ServerFrame, StateFault,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use crate::peer::{Peer, hello};
use crate::{Everywhere, start};

/// Two people who talk: what a hostile peer must not disturb.
pub(crate) struct Others {
    ana: Peer,
    beto: Peer,
}

impl Others {
    pub(crate) async fn talking(address: &Address) -> Self {
        let ana = Peer::join(address, "ana").await;
        let beto = Peer::join(address, "beto").await;
        Self { ana, beto }
    }

    pub(crate) async fn assert_undisturbed(&mut self) {
        self.ana.post("do you hear me?").await;
        while self.beto.posts(1).await != ["do you hear me?"] {}
    }
}

/// What a peer that sends these bytes before anything else is told at the end, in whichever way it
/// came.
async fn verdict_on(bytes: &[u8]) -> Option<Refusal> {
    let house = Everywhere::start(Limits::default()).await;
    let mut others = Others::talking(&house.addresses()[0]).await;
    let mut verdicts = Vec::new();
    for address in house.addresses() {
        let mut peer = Peer::connect(address).await;
        peer.send_bytes(bytes).await;
        verdicts.push(peer.closed().await);
        others.assert_undisturbed().await;
    }
    let first = verdicts[0];
    assert!(verdicts.iter().all(|verdict| *verdict == first), "{verdicts:?}");
    first
}

#[tokio::test]
async fn a1_length_prefix_over_the_limit_is_refused_from_the_header_alone() {
    let too_large = Some(Refusal::Frame(FrameFault::TooLarge));
    assert_eq!(verdict_on(&[0xFF; 4]).await, too_large);
    assert_eq!(verdict_on(&1_025_u32.to_be_bytes()).await, too_large);
}

#[tokio::test]
async fn a1_frame_over_64_kib_is_refused_after_log_in() {
    let house = Everywhere::start(Limits::default()).await;
    for address in house.addresses() {
        let mut others = Others::talking(address).await;
        let mut peer = Peer::join(address, "eva").await;
        peer.send_bytes(&65_537_u32.to_be_bytes()).await;
        assert_eq!(peer.closed().await, Some(Refusal::Frame(FrameFault::TooLarge)));
        others.assert_undisturbed().await;
    }
}

#[tokio::test]
async fn a2_frame_of_exactly_the_limit_is_read() {
    // A frame that is large enough is no frame of any kind, and so is refused for what it is.
    let mut at_the_limit = 1_024_u32.to_be_bytes().to_vec();
    at_the_limit.resize(4 + 1_024, 0xFF);
    assert_eq!(verdict_on(&at_the_limit).await, Some(Refusal::Decode(DecodeFault::Number)));
}

#[tokio::test]
async fn a3_empty_frame_is_refused() {
    assert_eq!(verdict_on(&[0; 4]).await, Some(Refusal::Frame(FrameFault::Empty)));
}

#[tokio::test]
async fn a4_frames_that_come_byte_by_byte_are_frames() {
    let house = Everywhere::start(Limits::default()).await;
    for address in house.addresses() {
        let mut peer = Peer::connect(address).await;
        for byte in encode_to_bytes(&hello()) {
            peer.send_bytes(&[byte]).await;
        }
        assert!(matches!(peer.next().await, Some(ServerFrame::Hello(_))));
    }
}

#[tokio::test]
async fn a5_connection_that_ends_inside_a_frame_is_gone_and_nothing_is_half_done() {
    let house = Everywhere::start(Limits::default()).await;
    for address in house.addresses() {
        let mut others = Others::talking(address).await;
        let mut peer = Peer::join(address, "eva").await;
        let body = Untrusted::new("half a post");
        let command = Command::Post { room: Untrusted::new("lobby"), incarnation: None, body };
        let whole =
            encode_to_bytes(&ClientFrame::Submit { counter: Counter::ZERO.next(), command });
        peer.send_bytes(&whole[..whole.len() - 1]).await;
        drop(peer);
        others.ana.post("a whole one").await;
        assert_eq!(others.beto.posts(1).await, ["a whole one"]);
        // Its name and session are free to come back to.
        Peer::join(address, "eva").await;
    }
}

#[tokio::test]
async fn a6_a7_a8_frames_that_are_not_canonical_are_refused() {
    for (frame, fault) in [
        // A token of eleven bytes.
        (&[4, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1][..], DecodeFault::Number),
        // The kind of a ping in two bytes.
        (&[0x84, 0x00, 0][..], DecodeFault::NotCanonical),
        // A ping and one byte more.
        (&[4, 0, 0][..], DecodeFault::TrailingBytes),
        // A kind that does not exist.
        (&[77][..], DecodeFault::Value),
        // A ping without its token.
        (&[4][..], DecodeFault::Truncated),
    ] {
        let mut bytes = u32::try_from(frame.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(frame);
        assert_eq!(verdict_on(&bytes).await, Some(Refusal::Decode(fault)), "{frame:?}");
    }
}

#[tokio::test]
async fn b1_third_frame_before_log_in_closes() {
    let house = Everywhere::start(Limits::default()).await;
    for address in house.addresses() {
        let mut peer = Peer::connect(address).await;
        for _ in 0..2 {
            peer.send(&ClientFrame::Leave).await;
            let refusal = Refusal::State(StateFault::LogInFirst);
            assert_eq!(peer.next().await, Some(ServerFrame::Rejected(refusal)));
        }
        peer.send(&ClientFrame::Leave).await;
        assert_eq!(peer.closed().await, Some(Refusal::State(StateFault::LogInFirst)));
    }
}

#[tokio::test]
async fn c2_hello_that_dribbles_is_cut_off_at_the_deadline() {
    let login_time = Span::from_millis(300);
    let house = Everywhere::start(Limits { login_time, ..Limits::default() }).await;
    for address in house.addresses() {
        let mut others = Others::talking(address).await;
        let mut peer = Peer::connect(address).await;
        // One byte of the hello and no more: it is the deadline that ends it.
        peer.send_bytes(&encode_to_bytes(&hello())[..1]).await;
        assert_eq!(peer.closed().await, Some(Refusal::Limit(LimitFault::LoginTime)));
        others.assert_undisturbed().await;
    }
}

#[tokio::test]
async fn c2_connections_that_do_not_log_in_leave_slots_for_those_who_do() {
    let limits = Limits { connections_max: 16, greeting_percent: 25, ..Limits::default() };
    let (_server, address) = start(limits).await;
    let mut others = Others::talking(&address).await;
    let mut idle = Vec::new();
    for _ in 0..4 {
        let mut peer = Peer::connect(&address).await;
        peer.send(&hello()).await;
        assert!(matches!(peer.next().await, Some(ServerFrame::Hello(_))));
        idle.push(peer);
    }
    let mut fifth = Peer::connect(&address).await;
    fifth.send(&hello()).await;
    assert!(matches!(fifth.closed().await, Some(Refusal::Busy { .. })));
    drop(idle.pop());
    // A slot is free as soon as the server has noticed.
    let welcome = tokio::time::timeout(crate::peer::PATIENCE, async {
        loop {
            let mut peer = Peer::connect(&address).await;
            peer.send(&hello()).await;
            if let Some(ServerFrame::Hello(_)) = peer.next().await {
                return peer;
            }
        }
    });
    welcome.await.expect("a slot must become free");
    others.assert_undisturbed().await;
}

#[tokio::test]
async fn connection_that_is_turned_away_and_stays_is_told_why_and_given_up() {
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let (server, address) = start(limits).await;
    let _only_one = Peer::join(&address, "ana").await;
    let (mut near, far) = tokio::io::duplex(1 << 10);
    server.attach(far).await;
    let given_up = tokio::time::timeout(crate::peer::PATIENCE, async {
        let mut told = Vec::new();
        near.read_to_end(&mut told).await.unwrap();
        // It is heard out until nobody holds the other end any more.
        while near.write_all(&[0; 64]).await.is_ok() {}
        told
    });
    let told = given_up.await.expect("the server must let go");
    let busy = ServerFrame::Close(Refusal::Busy { retry_ms: Span::from_secs(1) });
    assert_eq!(told, encode_to_bytes(&busy));
}

/// A stream whose reading side has a bug.
struct Faulty;

impl AsyncRead for Faulty {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        panic!("this connection was made to fail");
    }
}

impl AsyncWrite for Faulty {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn c13_panic_in_one_connection_closes_it_and_no_other() {
    // Two slots for greetings: one that leaks would leave too few for what follows.
    let limits = Limits { connections_max: 8, greeting_percent: 25, ..Limits::default() };
    let (server, address) = start(limits).await;
    let mut others = Others::talking(&address).await;
    for _ in 0..8 {
        server.attach(Faulty).await;
    }
    others.assert_undisturbed().await;
    let welcome = tokio::time::timeout(crate::peer::PATIENCE, async {
        loop {
            let mut peer = Peer::connect(&address).await;
            peer.send(&hello()).await;
            if let Some(ServerFrame::Hello(_)) = peer.next().await {
                return;
            }
        }
    });
    welcome.await.expect("failed connections must give their slots back");
}

#[tokio::test]
async fn c1_reader_that_never_reads_is_closed_and_delays_nobody() {
    let (stall_time, grace) = (Span::from_millis(200), Span::from_millis(1));
    // Ana says more at once than she may otherwise.
    let (bytes_per_second, bytes_burst) = (1 << 30, 1 << 30);
    let limits = Limits { stall_time, grace, bytes_per_second, bytes_burst, ..Limits::default() };
    for way in 0..3 {
        // Anew, so that nobody left in an earlier way.
        let house = Everywhere::start(limits.clone()).await;
        let address = &house.addresses()[way];
        let mut others = Others::talking(address).await;
        let mut stuck = Peer::join(address, "eva").await;
        // Posts until she is gone: the system's buffers take the first megabytes for her.
        let text = "x".repeat(8_000);
        let mut left = false;
        while !left {
            let counter = others.ana.post(&text).await;
            others.ana.answer_to(counter).await;
            left = others.beto.next_post_or_leave().await;
        }
        while stuck.next().await.is_some() {}
        others.assert_undisturbed().await;
    }
}
