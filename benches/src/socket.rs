//! TCP, TLS and Unix sockets behind one type.

use std::io::{self, Read, Write};
use std::net::{
    Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream, ToSocketAddrs as _,
};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use chatcore::address::Address;
use chatcore::id::Digest;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustls::{ClientConnection, StreamOwned};

use crate::tls;

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A socket that accepts others.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Socket {
    pub(crate) fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tls { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port))?;
                stream.set_nodelay(true)?;
                let session = tls::session(host).map_err(io::Error::other)?;
                let mut stream = StreamOwned::new(session, stream);
                // All of the handshake now, so that there is an exporter.
                stream.conn.complete_io(&mut stream.sock)?;
                Ok(Self::Tls(Box::new(stream)))
            }
            Address::Tcp { host, port } => Self::tcp(TcpStream::connect((host.as_str(), *port))?),
            Address::Unix(path) => UnixStream::connect(path).map(Self::Unix),
        }
    }

    /// Begins to connect by TCP from an address of this machine, and does not wait: it is connected, or
    /// has failed, once it can be written.
    pub(crate) fn begin(from: Ipv4Addr, to: SocketAddr) -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrV4::new(from, 0))?;
        match rustix::net::connect(&socket, &to) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Self::tcp(TcpStream::from(socket)),
            Err(error) => Err(error.into()),
        }
    }

    /// Why connecting failed, if it did.
    pub(crate) fn take_error(&self) -> io::Result<()> {
        let error = match self {
            Self::Tcp(stream) => stream.take_error()?,
            Self::Unix(stream) => stream.take_error()?,
            Self::Tls(stream) => stream.sock.take_error()?,
        };
        error.map_or(Ok(()), Err)
    }

    fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    /// What binds a log-in to it, when it is TLS.
    pub(crate) fn channel(&self) -> Option<Digest> {
        match self {
            Self::Tls(stream) => tls::channel_of(&stream.conn),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }

    pub(crate) fn make_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(true),
            Self::Unix(stream) => stream.set_nonblocking(true),
            Self::Tls(stream) => stream.sock.set_nonblocking(true),
        }
    }

    /// Bounds every blocking write.
    pub(crate) fn set_write_timeout(&self, timeout: std::time::Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_write_timeout(Some(timeout)),
            Self::Unix(stream) => stream.set_write_timeout(Some(timeout)),
            Self::Tls(stream) => stream.sock.set_write_timeout(Some(timeout)),
        }
    }

    /// Closes one way of it, or both, without a word of TLS.
    pub(crate) fn shut_down(&self, way: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(way),
            Self::Unix(stream) => stream.shutdown(way),
            Self::Tls(stream) => stream.sock.shutdown(way),
        }
    }

    /// Bounds every blocking read.
    pub(crate) fn set_read_timeout(&self, timeout: std::time::Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
            Self::Unix(stream) => stream.set_read_timeout(Some(timeout)),
            Self::Tls(stream) => stream.sock.set_read_timeout(Some(timeout)),
        }
    }
}

/// The one address that a server listens at by TCP.
pub(crate) fn socket_address(address: &Address) -> io::Result<SocketAddr> {
    match address {
        Address::Tcp { host, port } | Address::Tls { host, port } => {
            let mut found = (host.as_str(), *port).to_socket_addrs()?;
            found.next().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
        }
        Address::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(stream) => stream.flush(),
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.sock.as_fd(),
        }
    }
}

impl Listener {
    pub(crate) fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tls { .. } => Err(io::ErrorKind::Unsupported.into()),
            Address::Tcp { host, port } => TcpListener::bind((host.as_str(), *port)).map(Self::Tcp),
            Address::Unix(path) => UnixListener::bind(path).map(Self::Unix),
        }
    }

    /// Where `asked` really listens: a free port has a number now.
    pub(crate) fn address(&self, asked: &Address) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => {
                let local = listener.local_addr()?;
                Ok(Address::Tcp { host: local.ip().to_string(), port: local.port() })
            }
            Self::Unix(_) => Ok(asked.clone()),
        }
    }

    pub(crate) fn make_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.set_nonblocking(true),
            Self::Unix(listener) => listener.set_nonblocking(true),
        }
    }

    pub(crate) fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => Socket::tcp(listener.accept()?.0),
            Self::Unix(listener) => Ok(Socket::Unix(listener.accept()?.0)),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}
