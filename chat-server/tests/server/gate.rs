//! The gate, from end to end.

use chatcore::limits::Limits;
use chatcore::wire::ServerFrame;

use crate::peer::Peer;
use crate::start;

#[tokio::test]
async fn held_messages_reach_everybody_in_order_once_the_gate_opens() {
    let (_server, address) = start(Limits::default()).await;
    let mut ana = Peer::join(&address, "ana").await;
    for text in ["one", "two", "three"] {
        let counter = ana.post(text).await;
        let answer = ana.answer_to(counter).await;
        let held = matches!(answer, ServerFrame::Accepted { seq: None, .. });
        assert!(held, "held, and the place is not told: {answer:?}");
    }

    let mut beto = Peer::join(&address, "beto").await;
    assert_eq!(beto.posts(3).await, ["one", "two", "three"]);
    assert_eq!(ana.posts(3).await, ["one", "two", "three"]);

    beto.post("four").await;
    assert_eq!(ana.posts(1).await, ["four"]);
    let mut late = Peer::join(&address, "carla").await;
    assert_eq!(late.posts(4).await, ["one", "two", "three", "four"]);
}

#[tokio::test]
async fn gate_that_opened_stays_open_when_users_leave() {
    let (_server, address) = start(Limits::default()).await;
    let mut ana = Peer::join(&address, "ana").await;
    let beto = Peer::join(&address, "beto").await;
    drop(beto);
    let counter = ana.post("still here").await;
    let answer = ana.answer_to(counter).await;
    assert!(matches!(answer, ServerFrame::Accepted { seq: Some(_), .. }), "{answer:?}");
}
