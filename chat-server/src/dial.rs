//! Connecting to a server that listens at an address.

use std::io;
use std::pin::Pin;

use chatcore::address::Address;
use chatcore::id::Digest;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::tls;

/// Both directions of a connection.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// A connection, and its exporter when it is inside TLS.
pub(crate) async fn dial(address: &Address) -> io::Result<(Pin<Box<dyn Stream>>, Option<Digest>)> {
    Ok(match address {
        Address::Tcp { host, port } => {
            (Box::pin(TcpStream::connect((host.as_str(), *port)).await?), None)
        }
        Address::Tls { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            let (stream, channel) = tls::connect(stream, host).await?;
            (Box::pin(stream), Some(channel))
        }
        Address::Unix(path) => (Box::pin(UnixStream::connect(path).await?), None),
    })
}
