//! The crowd against both kinds of server, each inside this process.

use std::time::Duration;

use chat_server::{Server, ServerConfig, ServerKey};
use chatcore::address::Address;
use chatcore::id::Threshold;
use chatcore::limits::Limits;
use chatcore::text::Body;

use crate::ceiling;
use crate::conversation::{Conversation, Pace, Resident};
use crate::crowd::{Crowd, Load, Speaks};
use crate::senders::{Rooms, Senders, Until};
use crate::socket::{Listener, socket_address};
use crate::town::Town;

const LOAD: Load = Load { posts: 500, window: 16, time_limit: Duration::from_mins(1) };

fn free_port() -> Address {
    "chat://127.0.0.1:0".parse().unwrap()
}

fn text() -> Body {
    "hello".parse().unwrap()
}

/// Loads a server twice, so that the second run goes on where the first ended.
fn assert_everybody_gets_everything(address: &Address, speaks: Speaks) {
    let mut crowd = Crowd::gather(address, speaks, 7, &text()).unwrap();
    for _ in 0..2 {
        let outcome = crowd.run(&LOAD).unwrap();
        assert_eq!(outcome.deliveries, 8 * LOAD.posts);
        assert!(outcome.latencies.is_sorted() && !outcome.latencies.is_empty());
    }
}

#[test]
fn ceiling_gives_every_post_to_everybody() {
    let listener = Listener::bind(&free_port()).unwrap();
    let address = listener.address(&free_port()).unwrap();
    let server = std::thread::spawn(move || ceiling::serve(&listener, &text()));
    assert_everybody_gets_everything(&address, Speaks::Nothing);
    server.join().unwrap().unwrap();
}

/// Runs something against a chat server that keeps nothing.
fn with_chat_server(run: impl FnOnce(&Address)) {
    let folder = tempfile::tempdir().unwrap();
    let config = ServerConfig {
        listen: vec![free_port()],
        threshold: Threshold::new(1).unwrap(),
        ..ServerConfig::new(ServerKey::in_folder(folder.path()).unwrap())
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Server::start(config)).unwrap();
    run(&server.addresses()[0].clone());
    runtime.block_on(server.stop()).unwrap();
}

#[test]
fn chat_server_gives_every_post_to_everybody_in_order() {
    with_chat_server(|address| assert_everybody_gets_everything(address, Speaks::Chat));
}

#[test]
fn every_post_of_many_senders_is_acknowledged_once() {
    for rooms in [Rooms::One, Rooms::Own] {
        with_chat_server(|address| {
            let mut senders = Senders::gather(address, 5, rooms, &text()).unwrap();
            for _ in 0..2 {
                let outcome = senders.run(Until::Posts(200), 3).unwrap();
                assert_eq!((outcome.acknowledged, outcome.latencies.len()), (200, 200));
            }
        });
    }
}

#[test]
fn what_people_of_a_town_say_reaches_those_in_their_room() {
    with_chat_server(|address| {
        let mut town = Town::new(socket_address(address).unwrap()).unwrap();
        let people: Vec<Resident> = (0..7)
            .map(|person| Resident { person, name: format!("person{person}"), room: person % 2 })
            .collect();
        let names: Vec<_> =
            people.iter().map(|it| (it.name.clone(), format!("room{}", it.room))).collect();
        town.settle_all(&names, &Limits::default(), &mut |_, _| Ok(())).unwrap();
        assert_eq!(town.following(), 7);
        let pace = Pace { rate: 1_000, text_bytes: 20 };
        let mut conversation = Conversation::among(&people, pace);
        for _ in 0..2 {
            let mut left = 70;
            let outcome = conversation.run(&mut town, || {
                left -= 1;
                left >= 0
            });
            let outcome = outcome.unwrap();
            // Four people are in one room and three in the other, and each says as much.
            assert_eq!((outcome.posts, outcome.losses), (70, 0));
            assert_eq!(outcome.latencies.len(), 10 * (4 * 4 + 3 * 3));
        }
        town.close().unwrap();
    });
}
