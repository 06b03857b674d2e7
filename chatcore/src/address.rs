//! Where a server is: the addresses that people and programs write.

use core::fmt;
use core::net::Ipv6Addr;
use core::str::FromStr;
use std::path::{Path, PathBuf};

/// The port of an address that names none.
pub const DEFAULT_PORT: u16 = 5000;

/// Where a server listens, or where a client finds it.
///
/// It is text that was taken apart, nothing more: nothing is looked up.
///
/// ```
/// use chatcore::address::Address;
///
/// let address: Address = "chat://localhost".parse().unwrap();
/// assert_eq!(address.to_string(), "chat://localhost:5000");
/// assert_eq!("::1".parse::<Address>().unwrap().to_string(), "chat://[::1]:5000");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `chat://host:port`: TCP without encryption.
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// The port; 0 lets a listener pick a free one.
        port: u16,
    },
    /// `chats://host:port`: TCP with TLS.
    Tls {
        /// A name or an IP address, without brackets.
        host: String,
        /// The port; 0 lets a listener pick a free one.
        port: u16,
    },
    /// `unix:/path`: a Unix socket.
    Unix(PathBuf),
}

/// Why a text is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// A scheme that does not exist.
    #[error("an address begins with chat://, chats:// or unix:, as in chat://127.0.0.1:5000")]
    Scheme,
    /// A scheme that is planned.
    #[error("{0} is not in this version yet: use chat://, chats:// or unix:")]
    NotYet(&'static str),
    /// There is no host.
    #[error("the address names no host: write chat://HOST:PORT, as in chat://127.0.0.1:5000")]
    NoHost,
    /// There is a port and no host.
    #[error("{0} is a port without a host: write chat://127.0.0.1:{0}")]
    PortAlone(u16),
    /// The host is neither a name nor an IP address.
    #[error(
        "the host is no name and no IP address: write chat://HOST:PORT, as in \
         chat://127.0.0.1:5000 or chat://[::1]:5000"
    )]
    Host,
    /// The port is no number up to 65535.
    #[error("the port must be a number from 0 to 65535; without :PORT it is 5000")]
    Port,
    /// Something follows host and port.
    #[error("nothing may follow the port: write chat://HOST:PORT")]
    Path,
    /// A path without the scheme of a Unix socket.
    #[error("for the path of a Unix socket write unix: before it, as in unix:/path/to/socket")]
    PathAlone,
    /// The path of a Unix socket is empty.
    #[error("the address names no path: write unix:/path/to/socket")]
    NoPath,
}

const NOT_YET: [&str; 4] = ["ws://", "wss://", "http://", "https://"];

impl Default for Address {
    /// `chat://127.0.0.1:5000`.
    fn default() -> Self {
        Self::Tcp { host: "127.0.0.1".to_owned(), port: DEFAULT_PORT }
    }
}

impl Address {
    /// The name or IP address, without brackets; `None` for a Unix socket.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Tcp { host, .. } | Self::Tls { host, .. } => Some(host),
            Self::Unix(_) => None,
        }
    }

    /// The path of a Unix socket.
    pub fn unix_path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Tcp { .. } | Self::Tls { .. } => None,
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Takes an address apart. `chat://` may be left out before a host.
    ///
    /// # Errors
    /// What is wrong with the text.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err(AddressError::NoPath),
                path => Ok(Self::Unix(path.into())),
            };
        }
        if let Some(scheme) = NOT_YET.into_iter().find(|scheme| text.starts_with(scheme)) {
            return Err(AddressError::NotYet(scheme));
        }
        if text.starts_with(['/', '.', '~']) {
            return Err(AddressError::PathAlone);
        }
        let is_encrypted = text.starts_with("chats://");
        let scheme = if is_encrypted { "chats://" } else { "chat://" };
        let rest = text.strip_prefix(scheme).unwrap_or(text);
        if rest.contains("://") || rest.starts_with("chat:/") || rest.starts_with("chats:/") {
            return Err(AddressError::Scheme);
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('/') {
            return Err(AddressError::Path);
        }
        // A number would be looked up as an address of four bytes, which nobody means.
        if let Ok(port) = rest.strip_prefix(':').unwrap_or(rest).parse() {
            return Err(AddressError::PortAlone(port));
        }
        let (host, port) = split_port(rest)?;
        check_host(host)?;
        let host = host.to_owned();
        Ok(if is_encrypted { Self::Tls { host, port } } else { Self::Tcp { host, port } })
    }
}

/// Refuses what no resolver could make sense of.
fn check_host(host: &str) -> Result<(), AddressError> {
    let is_of_a_name = |sign: char| sign.is_alphanumeric() || ['-', '.', '_'].contains(&sign);
    let is_of_a_zone = |sign: char| sign.is_ascii_graphic() && !"[]%:".contains(sign);
    let is_v6 = |text: &str| text.parse::<Ipv6Addr>().is_ok();
    if host.is_empty() {
        return Err(AddressError::NoHost);
    }
    // The part of an IPv6 address behind `%` names an interface, which may be called much.
    let is_v6 = match host.split_once('%') {
        Some((address, zone)) => {
            is_v6(address) && !zone.is_empty() && zone.chars().all(is_of_a_zone)
        }
        None => is_v6(host),
    };
    if is_v6 || host.chars().all(is_of_a_name) { Ok(()) } else { Err(AddressError::Host) }
}

/// Splits `host:port`, `[v6]:port`, or either without a port.
fn split_port(text: &str) -> Result<(&str, u16), AddressError> {
    // Digits alone: `parse` would take a sign, too.
    let parse = |port: &str| {
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        port.parse().ok().filter(|_| digits).ok_or(AddressError::Port)
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(AddressError::Host)?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, parse(port)?)),
            None if rest.is_empty() => Ok((host, DEFAULT_PORT)),
            None => Err(AddressError::Port),
        };
    }
    match text.split_once(':') {
        // More than one colon and no brackets: an IPv6 address without a port.
        Some((_, port)) if port.contains(':') => Ok((text, DEFAULT_PORT)),
        Some((host, port)) => Ok((host, parse(port)?)),
        None => Ok((text, DEFAULT_PORT)),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write_host("chat", host, *port, f),
            Self::Tls { host, port } => write_host("chats", host, *port, f),
            // `unix://` is read as `unix:`, so a path that begins with both slashes needs four.
            Self::Unix(path) if path.as_os_str().as_encoded_bytes().starts_with(b"//") => {
                write!(f, "unix://{}", path.display())
            }
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn write_host(scheme: &str, host: &str, port: u16, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if host.contains(':') {
        write!(f, "{scheme}://[{host}]:{port}")
    } else {
        write!(f, "{scheme}://{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> Result<String, AddressError> {
        text.parse().map(|address: Address| address.to_string())
    }

    #[test]
    fn address_forms_are_normalised() {
        for (text, wanted) in [
            ("chat://127.0.0.1:5000", "chat://127.0.0.1:5000"),
            ("localhost:0", "chat://localhost:0"),
            ("chat://example.org/", "chat://example.org:5000"),
            ("[::1]:7", "chat://[::1]:7"),
            ("::1", "chat://[::1]:5000"),
            ("fe80::1%eth0", "chat://[fe80::1%eth0]:5000"),
            ("[fe80::1%br+lan.7]:7", "chat://[fe80::1%br+lan.7]:7"),
            ("chat:7", "chat://chat:7"),
            ("chats://example.org", "chats://example.org:5000"),
            ("chats://[::1]:7/", "chats://[::1]:7"),
            ("bücher.example", "chat://bücher.example:5000"),
            ("unix:/run/chat.sock", "unix:/run/chat.sock"),
            ("unix:///run/chat.sock", "unix:/run/chat.sock"),
            ("unix:////run/chat.sock", "unix:////run/chat.sock"),
        ] {
            assert_eq!(normal(text).as_deref(), Ok(wanted), "{text}");
            assert_eq!(normal(wanted).as_deref(), Ok(wanted), "{wanted}");
        }
    }

    #[test]
    fn bad_addresses_say_what_is_wrong() {
        for (text, error) in [
            ("", AddressError::NoHost),
            ("chat://", AddressError::NoHost),
            (":", AddressError::Port),
            ("5001", AddressError::PortAlone(5001)),
            (":5001", AddressError::PortAlone(5001)),
            ("chat://:5000", AddressError::PortAlone(5000)),
            ("a host", AddressError::Host),
            ("[::1", AddressError::Host),
            ("chat:127.0.0.1:5000", AddressError::Host),
            ("chat:/127.0.0.1", AddressError::Scheme),
            ("chats:/127.0.0.1", AddressError::Scheme),
            ("chats://", AddressError::NoHost),
            ("chats://:5000", AddressError::PortAlone(5000)),
            ("/tmp/chat.sock", AddressError::PathAlone),
            ("./chat.sock", AddressError::PathAlone),
            ("chat://host:99999", AddressError::Port),
            ("chat://host:", AddressError::Port),
            ("chat://host:+7", AddressError::Port),
            ("[[host]:7", AddressError::Host),
            ("a]:b:c", AddressError::Host),
            ("::2%]:7", AddressError::Host),
            ("fe80::1%", AddressError::Host),
            ("fe80::1%eth0%1", AddressError::Host),
            ("[fe80::1%a b]:7", AddressError::Host),
            ("chat://host:1/room", AddressError::Path),
            ("ftp://host", AddressError::Scheme),
            ("unix:", AddressError::NoPath),
            ("wss://host", AddressError::NotYet("wss://")),
        ] {
            assert_eq!(normal(text), Err(error), "{text}");
            assert!(error.to_string().contains(':'), "{text} must be told what to write: {error}");
        }
    }
}
