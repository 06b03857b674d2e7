//! A chat server over blocking TCP of the standard library: threads that read, one that decides.
//!
//! Run it with `cargo run -p chatcore --example custom_transport`: two clients join on a free port
//! of this machine, talk, and the program ends. With an address as argument it serves there until
//! it is stopped, and `chat-client` can join.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chatcore::codec::{FrameBuffer, decode, encode_to_bytes};
use chatcore::engine::Config;
use chatcore::hub::Hub;
use chatcore::id::{
    Attach, ConnId, Counter, LogId, Nonce, PublicKey, RequestId, SessionId, Signature, Threshold,
};
use chatcore::log::Founding;
use chatcore::text::Untrusted;
use chatcore::time::{Moment, Now, Timestamp};
use chatcore::wire::{
    ClientFrame, Command, Login, LoginProof, Question, RecordBody, ServerFrame, ServerHello, Start,
};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// What the threads that read tell the one that decides.
enum Happened {
    Accepted(ConnId, TcpStream),
    Received(ConnId, Vec<u8>),
    Gone(ConnId),
}

fn main() -> Result<(), AnyError> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0"))?;
    let at = listener.local_addr()?;
    println!("listening on chat://{at}");
    let (happened, inbox) = mpsc::sync_channel(64);
    thread::spawn(move || accept(&listener, &happened));
    let server = thread::spawn(move || serve(&inbox));
    if address.is_some() {
        return server.join().map_err(|_| "the server failed")?;
    }
    let ana = thread::spawn(move || talk(at, "ana", "hello from ana"));
    let beto = thread::spawn(move || talk(at, "beto", "hello from beto"));
    for client in [ana, beto] {
        client.join().map_err(|_| "a client failed")??;
    }
    Ok(())
}

/// Accepts for ever, a thread a connection.
fn accept(listener: &TcpListener, happened: &SyncSender<Happened>) {
    for (number, stream) in (1_u64..).zip(listener.incoming().flatten()) {
        let (conn, happened) = (ConnId::new(number), happened.clone());
        thread::spawn(move || read(conn, stream, &happened));
    }
}

fn read(conn: ConnId, mut stream: TcpStream, happened: &SyncSender<Happened>) {
    let Ok(writer) = stream.try_clone() else { return };
    // The channel is closed only when the server has ended.
    let _ = happened.send(Happened::Accepted(conn, writer));
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        let received = bytes.get(..count).unwrap_or_default().to_vec();
        if happened.send(Happened::Received(conn, received)).is_err() {
            return;
        }
    }
    let _ = happened.send(Happened::Gone(conn));
}

/// Owns the hub and every writing side.
fn serve(inbox: &Receiver<Happened>) -> Result<(), AnyError> {
    let origin = Instant::now();
    let founding = Founding {
        log_id: LogId::new(random()?),
        server_key: PublicKey::new(random()?),
        threshold: Threshold::DEFAULT,
        operators: Vec::new(),
    };
    let mut hub = Hub::found(founding, Config::default(), read_clocks(origin), is_valid)?;
    let mut writers = BTreeMap::new();
    loop {
        let now = read_clocks(origin);
        let wait = hub.next_timeout().map_or(3_600_000, |at| at.since(now.moment).as_millis());
        match inbox.recv_timeout(Duration::from_millis(wait)) {
            Ok(Happened::Accepted(conn, stream)) => {
                // A reader that takes nothing for a second is cut off; a better server would go on
                // with the others meanwhile.
                stream.set_write_timeout(Some(Duration::from_secs(1)))?;
                writers.insert(conn, stream);
                hub.connect(read_clocks(origin), conn, Nonce::new(random()?));
            }
            Ok(Happened::Received(conn, bytes)) => hub.receive(read_clocks(origin), conn, &bytes),
            Ok(Happened::Gone(conn)) => {
                writers.remove(&conn);
                hub.disconnect(read_clocks(origin), conn);
            }
            Err(RecvTimeoutError::Timeout) => hub.timeout(read_clocks(origin)),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        write(&mut hub, &writers, read_clocks(origin));
    }
}

fn write(hub: &mut Hub, writers: &BTreeMap<ConnId, TcpStream>, now: Now) {
    while let Some(conn) = hub.poll_ready() {
        let bytes = hub.take(now, conn);
        let Some(mut writer) = writers.get(&conn) else { continue };
        if writer.write_all(&bytes).is_err() || hub.is_finished(conn) {
            // Its reader notices and reports that it is gone.
            let _ = writer.shutdown(Shutdown::Both);
        }
    }
}

fn read_clocks(origin: Instant) -> Now {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis);
    let moment = Moment::from_millis(millis(origin.elapsed()));
    Now { moment, wall: Timestamp::new(wall).unwrap_or_default() }
}

fn is_valid(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
    VerifyingKey::from_bytes(key.as_bytes())
        .is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A client that says one thing and listens until it has heard two.
fn talk(server: std::net::SocketAddr, name: &str, text: &str) -> Result<(), AnyError> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut buffer = FrameBuffer::default();
    let key = SigningKey::from_bytes(&random()?);
    stream.write_all(&encode_to_bytes(&ClientFrame::hello()))?;
    let mut heard = 0;
    while heard < 2 {
        let answers = match next(&mut stream, &mut buffer)? {
            ServerFrame::Hello(hello) => {
                let (session, attach) = (SessionId::new(random()?), Attach::ZERO);
                let ServerHello { nonce, server_key, log_id, generation, .. } = hello;
                let proof = LoginProof {
                    nonce,
                    server_key,
                    log_id,
                    generation,
                    channel: None,
                    session,
                    attach,
                    name,
                };
                let signature = Signature::new(key.sign(&proof.to_bytes()).to_bytes());
                let key = PublicKey::new(key.verifying_key().to_bytes());
                let name = Untrusted::new(name);
                vec![ClientFrame::Login(Login { name, key, session, attach, signature })]
            }
            ServerFrame::Welcome(_) => {
                let (room, request) = (Untrusted::new("lobby"), RequestId::ZERO);
                let question = Question::Join { room: room.clone(), start: Start::Last(100) };
                let body = Untrusted::new(text);
                let command = Command::Post { room, incarnation: None, body };
                let counter = Counter::ZERO.next();
                vec![
                    ClientFrame::Ask { request, question },
                    ClientFrame::Submit { counter, command },
                ]
            }
            ServerFrame::Record(record) => {
                if let RecordBody::Post { from, text } = record.body {
                    println!("[{name}] {from}: {}", text.as_str());
                    heard += 1;
                }
                vec![]
            }
            ServerFrame::Close(refusal) => return Err(refusal.to_string().into()),
            _ => vec![],
        };
        for answer in answers {
            stream.write_all(&encode_to_bytes(&answer))?;
        }
    }
    Ok(())
}

fn next(stream: &mut TcpStream, buffer: &mut FrameBuffer) -> Result<ServerFrame, AnyError> {
    loop {
        if let Some(frame) = buffer.next_frame()? {
            return Ok(decode(&frame)?);
        }
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes)?;
        if count == 0 {
            return Err("the server closed the connection".into());
        }
        buffer.feed(bytes.get(..count).unwrap_or_default());
    }
}
