//! The server as a library, over real sockets.

mod gate;
mod hostile;
mod lifecycle;
mod peer;
mod program;

use chat_server::{Server, ServerConfig, ServerKey};
use chatcore::address::Address;
use chatcore::limits::Limits;

/// A server on a free port of this machine.
async fn start(limits: Limits) -> (Server, Address) {
    let config = ServerConfig {
        listen: vec!["chat://127.0.0.1:0".parse().unwrap()],
        limits,
        ..ServerConfig::new(ServerKey::ephemeral().unwrap())
    };
    let server = Server::start(config).await.unwrap();
    let address = server.addresses()[0].clone();
    (server, address)
}
