//! What a log-in signs, and what an order does.

use crate::id::{Attach, Digest, Generation, LogId, Nonce, PublicKey, SessionId};
use crate::wire::Order;

/// The label of the TLS exporter that a log-in or an order binds to: 32 bytes, with an empty context
/// (`tls-exporter` of RFC 9266).
pub const CHANNEL_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

const LOGIN_DOMAIN: &[u8] = b"chatcore log-in v1\0";
const OPERATE_DOMAIN: &[u8] = b"chatcore operate v1\0";
const SERVER_DOMAIN: &[u8] = b"chatcore server v1\0";

/// The statement that a client signs to log in.
///
/// It binds the proof to one connection (the server's nonce, the TLS channel if there is one), one
/// server (its key, its journal, its generation), one session and one name, so that no part of it
/// can be replayed elsewhere. The signed bytes are a fixed layout and not a serde encoding: they
/// must never change with a library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginProof<'a> {
    /// The nonce of the server's hello.
    pub nonce: Nonce,
    /// The server's key.
    pub server_key: PublicKey,
    /// The journal the client talks to.
    pub log_id: LogId,
    /// The generation of the server's hello.
    pub generation: Generation,
    /// The TLS exporter of the connection, when there is TLS.
    pub channel: Option<Digest>,
    /// The session.
    pub session: SessionId,
    /// The client's number for this log-in.
    pub attach: Attach,
    /// The name as sent.
    pub name: &'a str,
}

impl LoginProof<'_> {
    /// The bytes to sign: the domain tag, then every field in order, numbers big-endian, the
    /// channel as a byte 0 or as a byte 1 and 32 bytes, the name last and without a length.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(LOGIN_DOMAIN);
        bytes.extend_from_slice(self.nonce.as_bytes());
        bytes.extend_from_slice(self.server_key.as_bytes());
        bytes.extend_from_slice(self.log_id.as_bytes());
        bytes.extend_from_slice(&self.generation.get().to_be_bytes());
        append_channel(self.channel.as_ref(), &mut bytes);
        bytes.extend_from_slice(self.session.as_bytes());
        bytes.extend_from_slice(&self.attach.get().to_be_bytes());
        bytes.extend_from_slice(self.name.as_bytes());
        bytes
    }
}

/// The statement that somebody signs to give a server an order.
///
/// Like a [`LoginProof`] it holds for one connection to one server. Its domain tag differs, so neither
/// can stand for the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperateProof {
    /// The nonce of the server's hello.
    pub nonce: Nonce,
    /// The server's key.
    pub server_key: PublicKey,
    /// The journal it serves.
    pub log_id: LogId,
    /// The generation of the server's hello.
    pub generation: Generation,
    /// The TLS exporter of the connection, when there is TLS.
    pub channel: Option<Digest>,
    /// The order.
    pub order: Order,
}

impl OperateProof {
    /// The bytes to sign: the domain tag, then every field in order, numbers big-endian, the
    /// channel as a byte 0 or as a byte 1 and 32 bytes. The order comes last, as its name and a
    /// byte 0; what an order tells beside its name would follow.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(192);
        bytes.extend_from_slice(OPERATE_DOMAIN);
        bytes.extend_from_slice(self.nonce.as_bytes());
        bytes.extend_from_slice(self.server_key.as_bytes());
        bytes.extend_from_slice(self.log_id.as_bytes());
        bytes.extend_from_slice(&self.generation.get().to_be_bytes());
        append_channel(self.channel.as_ref(), &mut bytes);
        match self.order {
            Order::Status => bytes.extend_from_slice(b"status\0"),
        }
        bytes
    }
}

/// The statement that a server signs to prove that it has the key it names.
///
/// Like a [`LoginProof`] it holds for one connection: that of both nonces, and of the TLS channel if
/// there is one. Its domain tag differs, so that none can stand for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerProof {
    /// The client's nonce.
    pub challenge: Nonce,
    /// The nonce of the server's hello.
    pub nonce: Nonce,
    /// The server's key.
    pub server_key: PublicKey,
    /// The journal it serves.
    pub log_id: LogId,
    /// The generation of the server's hello.
    pub generation: Generation,
    /// The TLS exporter of the connection, when there is TLS.
    pub channel: Option<Digest>,
}

impl ServerProof {
    /// The bytes to sign: the domain tag, then every field in order, numbers big-endian, the channel as
    /// a byte 0 or as a byte 1 and 32 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(192);
        bytes.extend_from_slice(SERVER_DOMAIN);
        bytes.extend_from_slice(self.challenge.as_bytes());
        bytes.extend_from_slice(self.nonce.as_bytes());
        bytes.extend_from_slice(self.server_key.as_bytes());
        bytes.extend_from_slice(self.log_id.as_bytes());
        bytes.extend_from_slice(&self.generation.get().to_be_bytes());
        append_channel(self.channel.as_ref(), &mut bytes);
        bytes
    }
}

fn append_channel(channel: Option<&Digest>, bytes: &mut Vec<u8>) {
    match channel {
        None => bytes.push(0),
        Some(exporter) => {
            bytes.push(1);
            bytes.extend_from_slice(exporter.as_bytes());
        }
    }
}
