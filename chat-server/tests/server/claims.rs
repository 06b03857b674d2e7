//! Claims to be somebody: only who has the key, on this connection, now, is believed.

use chatcore::id::{Attach, PublicKey, SessionId, Signature};
use chatcore::limits::Limits;
use chatcore::text::Untrusted;
use chatcore::wire::{
    Answer, AuthFault, ClientFrame, Login, LoginProof, NameFault, Refusal, ServerFrame, StateFault,
};
use ed25519_dalek::Signer as _;

use crate::Everywhere;
use crate::peer::{Peer, hello, join, key_of};

fn session_of(name: &str) -> SessionId {
    let key = key_of(name).verifying_key();
    SessionId::new(*key.as_bytes().first_chunk().unwrap())
}

/// Says hello, and gives the log-in of `ana` that a connection without TLS has to send.
async fn log_in_of_ana(peer: &mut Peer) -> Login {
    peer.send(&hello()).await;
    let Some(ServerFrame::Hello(hello)) = peer.next().await else { panic!("no hello") };
    let (key, session, attach) = (key_of("ana"), session_of("ana"), Attach::ZERO.next());
    let proof = LoginProof {
        nonce: hello.nonce,
        server_key: hello.server_key,
        log_id: hello.log_id,
        generation: hello.generation,
        channel: None,
        session,
        attach,
        name: "ana",
    };
    let signature = Signature::new(key.sign(&proof.to_bytes()).to_bytes());
    let key = PublicKey::new(key.verifying_key().to_bytes());
    Login { name: Untrusted::new("ana"), key, session, attach, signature }
}

#[tokio::test]
async fn g1_log_in_that_is_sent_again_is_worth_nothing() {
    let house = Everywhere::start(Limits::default()).await;
    let mut ana = Peer::connect(&house.addresses()[0]).await;
    let login = log_in_of_ana(&mut ana).await;
    ana.send(&ClientFrame::Login(login.clone())).await;
    assert!(matches!(ana.next().await, Some(ServerFrame::Welcome(_))));
    for address in house.addresses() {
        let mut thief = Peer::connect(address).await;
        log_in_of_ana(&mut thief).await;
        thief.send(&ClientFrame::Login(login.clone())).await;
        assert_eq!(thief.closed().await, Some(Refusal::Auth(AuthFault::Signature)));
    }
    // Nor on its own connection, which goes on.
    ana.send(&ClientFrame::Login(login)).await;
    let again = Refusal::State(StateFault::AlreadyLoggedIn);
    while ana.next().await != Some(ServerFrame::Rejected(again)) {}
    assert!(matches!(ana.ask(join("lobby")).await, Answer::Joined(_)));
}

#[tokio::test]
async fn g3_who_knows_name_session_and_public_key_and_guesses_the_rest_does_not_get_in() {
    let house = Everywhere::start(Limits::default()).await;
    let mut ana = Peer::join(&house.addresses()[0], "ana").await;
    for address in house.addresses() {
        let mut thief = Peer::connect(address).await;
        let of_another = thief.log_in_with("ana", &key_of("eve"), session_of("ana")).await;
        assert_eq!(of_another.unwrap_err(), Refusal::Name(NameFault::InUse));
        let mut thief = Peer::connect(address).await;
        let stolen = thief.log_in_with("eve", &key_of("eve"), session_of("ana")).await;
        assert_eq!(stolen.unwrap_err(), Refusal::Auth(AuthFault::Session));
        let mut thief = Peer::connect(address).await;
        let guess = Login { signature: Signature::new([7; 64]), ..log_in_of_ana(&mut thief).await };
        thief.send(&ClientFrame::Login(guess)).await;
        assert_eq!(thief.closed().await, Some(Refusal::Auth(AuthFault::Signature)));
    }
    ana.post("still here").await;
    assert_eq!(ana.next_answer().await, ana_is_heard());
}

fn ana_is_heard() -> ServerFrame {
    let counter = chatcore::id::Counter::ZERO.next();
    let incarnation = chatcore::id::Incarnation::ZERO.next();
    ServerFrame::Accepted { counter, room: "lobby".parse().unwrap(), incarnation, seq: None }
}

#[tokio::test]
async fn g4_nothing_is_resumed_before_the_log_in() {
    let house = Everywhere::start(Limits::default()).await;
    let first = Refusal::State(StateFault::LogInFirst);
    for address in house.addresses() {
        let mut peer = Peer::connect(address).await;
        peer.send(&hello()).await;
        assert!(matches!(peer.next().await, Some(ServerFrame::Hello(_))));
        assert_eq!(peer.ask(join("lobby")).await, Answer::Refused(first));
        let counter = peer.post("as if logged in").await;
        assert_eq!(peer.next_answer().await, ServerFrame::Refused { counter, refusal: first });
    }
    let mut ana = Peer::join_from_the_first(&house.addresses()[0], "ana").await;
    let mut bob = Peer::join(&house.addresses()[1], "bob").await;
    bob.post("the only one").await;
    assert_eq!(ana.posts(1).await, ["the only one"]);
}
