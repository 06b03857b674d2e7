//! A network that breaks on demand: it carries connections to the server, and does to one of them
//! what it is told.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long a cut waits for bytes to cut in the middle.
const TEAR_TIME: Duration = Duration::from_millis(100);

const BUFFER_BYTES: usize = 16 << 10;

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is cut in the middle of the bytes under way, and both ends learn it.
    Cut(End),
    /// Nothing gets through for a while, in neither direction.
    Stall(Duration),
    /// What the client sends gets through and no answer comes back; later it is cut. So the server
    /// does what the client has to ask for again.
    Deaf(Duration),
    /// It is gone for one side; the other one learns it later.
    HalfOpen { unaware: Side, until: Duration },
}

/// How the ends learn of a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As of a peer that closed.
    Close,
    /// As of a peer that crashed.
    Reset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// Listens for clients. It ends with its connections when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) live: Live,
    _listener: JoinSet<()>,
}

/// The connections that can break.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live(Arc<Mutex<BTreeMap<u64, mpsc::Sender<Fault>>>>);

impl Live {
    /// Breaks the connection whose place is `pick` of all, from 0 to 1; false when there is none.
    pub(crate) fn hit(&self, pick: f64, fault: Fault) -> bool {
        let live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = Duration::from_secs(1).mul_f64(pick).as_nanos();
        let count = u128::try_from(live.len()).unwrap_or(0);
        let place = place.saturating_mul(count) / 1_000_000_000;
        let hit = live.values().nth(usize::try_from(place).unwrap_or(0));
        hit.is_some_and(|connection| connection.try_send(fault).is_ok())
    }

    fn insert(&self, number: u64, connection: mpsc::Sender<Fault>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(number, connection);
    }

    fn remove(&self, number: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }
}

impl Proxy {
    /// Listens on a free port of this machine for connections to `server`.
    pub(crate) async fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let live = Live::default();
        let mut task = JoinSet::new();
        task.spawn(listen(listener, server, live.clone()));
        Ok(Self { address, live, _listener: task })
    }
}

async fn listen(listener: TcpListener, server: SocketAddr, live: Live) {
    let mut connections = JoinSet::new();
    for number in 0_u64.. {
        // A client that gave up in between is no reason to stop.
        let Ok((client, _)) = listener.accept().await else { continue };
        let (faults, told) = mpsc::channel(1);
        let live = live.clone();
        connections.spawn(async move {
            if let Ok(server) = TcpStream::connect(server).await {
                live.insert(number, faults);
                carry(client, server, told, || live.remove(number)).await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Whether bytes get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Running,
    Stopped,
    /// Only what the client sends.
    FromClient,
    /// Half of what is under way gets through, and nothing after it.
    Torn,
}

impl Flow {
    fn carries(self, sender: Side) -> bool {
        match self {
            Self::Running | Self::Torn => true,
            Self::Stopped => false,
            Self::FromClient => sender == Side::Client,
        }
    }

    /// Where the part ends that gets through of what is under way.
    fn end_of(self, under_way: &Range<usize>) -> usize {
        match self {
            Self::Torn => under_way.start.saturating_add(under_way.len().div_ceil(2)),
            Self::Running | Self::Stopped | Self::FromClient => under_way.end,
        }
    }
}

/// Carries bytes until either side ends or a fault ends it.
async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    mut faults: mpsc::Receiver<Fault>,
    is_over: impl FnOnce(),
) {
    // Frames are small and few at a time; waiting for more would only hide what is under way.
    let _best_effort = (client.set_nodelay(true), server.set_nodelay(true));
    let fatal = carry_until_fault(&mut client, &mut server, &mut faults).await;
    is_over();
    match fatal {
        Some(Fault::Cut(End::Reset)) => {
            let _gone_already = (client.set_zero_linger(), server.set_zero_linger());
        }
        Some(Fault::HalfOpen { unaware: Side::Client, until }) => {
            drop(server);
            sleep(until).await;
        }
        Some(Fault::HalfOpen { unaware: Side::Server, until }) => {
            drop(client);
            sleep(until).await;
        }
        Some(Fault::Cut(End::Close) | Fault::Stall(_) | Fault::Deaf(_)) | None => {}
    }
}

/// The fault that ends the connection; `None` when a side ended it.
async fn carry_until_fault(
    client: &mut TcpStream,
    server: &mut TcpStream,
    faults: &mut mpsc::Receiver<Fault>,
) -> Option<Fault> {
    let (set_flow, flow) = watch::channel(Flow::Running);
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let pumps = async {
        tokio::select! {
            () = pump(Side::Client, from_client, to_server, flow.clone()) => {}
            () = pump(Side::Server, from_server, to_client, flow.clone()) => {}
        }
    };
    tokio::pin!(pumps);
    loop {
        let fault = tokio::select! {
            () = &mut pumps => return None,
            fault = faults.recv() => fault?,
        };
        match fault {
            Fault::Stall(span) => {
                set_flow.send_replace(Flow::Stopped);
                let ended = timeout(span, &mut pumps).await;
                if ended.is_ok() {
                    return None;
                }
                set_flow.send_replace(Flow::Running);
            }
            Fault::Cut(_) => {
                set_flow.send_replace(Flow::Torn);
                let _nothing_to_tear = timeout(TEAR_TIME, &mut pumps).await;
                return Some(fault);
            }
            Fault::Deaf(span) => {
                set_flow.send_replace(Flow::FromClient);
                let _ended_before = timeout(span, &mut pumps).await;
                return Some(fault);
            }
            Fault::HalfOpen { .. } => return Some(fault),
        }
    }
}

/// Carries the bytes that `sender` sends.
async fn pump(
    sender: Side,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut flow: watch::Receiver<Flow>,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut under_way = 0..0;
    loop {
        let running = flow.wait_for(|state| state.carries(sender)).await;
        let Ok(state) = running.map(|state| *state) else { return };
        if under_way.is_empty() {
            tokio::select! {
                read = from.read(&mut buffer) => match read {
                    Ok(count) if count > 0 => under_way = 0..count,
                    Ok(_) | Err(_) => return,
                },
                Ok(()) = flow.changed() => {}
            }
            continue;
        }
        let end = state.end_of(&under_way);
        tokio::select! {
            written = to.write(&buffer[under_way.start..end]) => match written {
                Ok(count) if state != Flow::Torn => under_way.start += count,
                Ok(_) | Err(_) => return,
            },
            Ok(()) = flow.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client and a server at the ends of a proxied connection.
    async fn connect() -> (Proxy, TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        client.write_all(b"hi").await.unwrap();
        let mut bytes = [0; 2];
        server.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"hi");
        (proxy, client, server)
    }

    async fn read_to_end(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes)).await??;
        Ok(bytes)
    }

    #[tokio::test]
    async fn cut_lets_a_part_of_the_bytes_under_way_through() {
        let (proxy, mut client, mut server) = connect().await;
        assert!(proxy.live.hit(0.5, Fault::Cut(End::Close)));
        client.write_all(b"0123456789").await.unwrap();
        let bytes = read_to_end(&mut server).await.unwrap();
        assert!(b"0123456789".starts_with(&bytes), "{bytes:?}");
        assert!(bytes.len() < 10);
        assert_eq!(read_to_end(&mut client).await.unwrap_or_default(), b"");
        assert!(!proxy.live.hit(0.5, Fault::Cut(End::Close)));
    }

    #[tokio::test]
    async fn stalled_connection_loses_nothing() {
        let (proxy, mut client, mut server) = connect().await;
        assert!(proxy.live.hit(0.0, Fault::Stall(Duration::from_millis(50))));
        client.write_all(b"late").await.unwrap();
        drop(client);
        assert_eq!(read_to_end(&mut server).await.unwrap(), b"late");
    }

    #[tokio::test]
    async fn deaf_client_is_heard_and_hears_nothing() {
        let (proxy, mut client, mut server) = connect().await;
        assert!(proxy.live.hit(0.0, Fault::Deaf(Duration::from_millis(300))));
        client.write_all(b"post").await.unwrap();
        assert_eq!(read_to_end(&mut server).await.unwrap(), b"post");
        assert_eq!(read_to_end(&mut client).await.unwrap_or_default(), b"");
    }

    #[tokio::test]
    async fn half_open_connection_is_gone_for_one_side_and_later_for_the_other() {
        let (proxy, mut client, mut server) = connect().await;
        let until = Duration::from_millis(300);
        assert!(proxy.live.hit(0.99, Fault::HalfOpen { unaware: Side::Client, until }));
        assert_eq!(read_to_end(&mut server).await.unwrap(), b"");
        client.write_all(b"into the void").await.unwrap();
        assert_eq!(read_to_end(&mut client).await.unwrap_or_default(), b"");
    }
}
