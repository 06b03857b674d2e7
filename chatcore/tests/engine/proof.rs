//! The server proves that it has its key.

use chatcore::engine::{Input, Output};
use chatcore::id::{ConnId, Nonce, Signature};
use chatcore::wire::{ClientFrame, ServerProof};

use crate::rig::{Rig, hello, rig};

const CHALLENGE: Nonce = Nonce::new([8; 32]);

fn prove() -> ClientFrame {
    ClientFrame::Prove { nonce: CHALLENGE }
}

/// A connection that has said hello.
fn greeted(label: &str) -> Rig {
    let mut rig = rig();
    rig.dial(label);
    rig.send(label, hello());
    rig.forget();
    rig
}

#[test]
fn g2_proof_is_over_both_nonces_and_all_that_tells_one_connection_from_another() {
    let mut rig = greeted("ana");
    let conn = rig.peers["ana"].conn;
    rig.engine.handle(rig.now, Input::Frame { conn, frame: prove() }).unwrap();
    let founding = rig.engine.founding();
    let proof = ServerProof {
        challenge: CHALLENGE,
        nonce: rig.nonce,
        server_key: founding.server_key,
        log_id: founding.log_id,
        generation: rig.setup.config().generation,
        channel: None,
    };
    let message = proof.to_bytes();
    assert!(message.starts_with(b"chatcore server v1\0"));
    assert_eq!(rig.engine.poll_output(), Some(Output::Sign { conn, message }));
}

#[test]
fn proof_comes_once_and_before_the_welcome() {
    let mut rig = greeted("ana");
    rig.send("ana", prove());
    assert_eq!(rig.heard("ana"), ["proof"]);
    rig.send("ana", prove());
    assert_eq!(rig.heard("ana"), ["rejected E_STATE log in first"]);
}

#[test]
fn proof_is_asked_for_after_the_hello_and_before_the_log_in_alone() {
    let mut rig = rig();
    rig.dial("ana");
    rig.send("ana", prove());
    assert_eq!(rig.heard("ana"), ["rejected E_STATE log in first"]);
    rig.login("bob");
    rig.forget();
    rig.send("bob", prove());
    assert_eq!(rig.heard("bob"), ["rejected E_STATE already logged in"]);
}

#[test]
fn signature_for_nobody_is_dropped() {
    let mut rig = greeted("ana");
    let signature = Signature::new([5; 64]);
    for conn in [rig.peers["ana"].conn, ConnId::new(999)] {
        rig.input(Input::Signed { conn, signature });
    }
    rig.drive();
    assert_eq!(rig.heard("ana"), Vec::<String>::new());
}
