//! Where a server is: `chat://host:port` or `unix:/path`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The port of an address that names none.
pub const DEFAULT_PORT: u16 = 5000;

/// The address of a client that was given none.
pub const DEFAULT_ADDRESS: &str = "chat://127.0.0.1:5000";

/// The address of a server.
///
/// `Display` writes the normal form: the port is always there, an IPv6 address is in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// 1 to 65,535.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// A scheme that a later version will speak.
    #[error("{0}:// is not in this version yet; use chat://host:port or unix:/path")]
    NotYet(&'static str),
    /// No scheme, or one that is not of the chat.
    #[error("an address begins with chat:// or unix:, as in {DEFAULT_ADDRESS} or unix:/run/chat")]
    Scheme,
    /// The host is missing or malformed.
    #[error("the address names no host; write chat://host:port, and [..] around an IPv6 address")]
    Host,
    /// The port is not a number from 1 to 65,535.
    #[error("the port must be a number from 1 to 65535")]
    Port,
    /// Something follows the port.
    #[error("nothing may follow the port; a room is named by --room")]
    Path,
    /// The path of a Unix socket is missing.
    #[error("the address names no path; write unix:/path")]
    UnixPath,
}

/// Schemes that the contract names and this version does not speak.
const LATER: [&str; 5] = ["chats", "ws", "wss", "http", "https"];

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err(AddressError::UnixPath)
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let (scheme, rest) = text.split_once("://").ok_or(AddressError::Scheme)?;
        if let Some(later) = LATER.into_iter().find(|later| scheme.eq_ignore_ascii_case(later)) {
            return Err(AddressError::NotYet(later));
        }
        if !scheme.eq_ignore_ascii_case("chat") {
            return Err(AddressError::Scheme);
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(AddressError::Path);
        }
        let (host, port) = split_port(authority)?;
        Ok(Self::Tcp { host: host.to_ascii_lowercase(), port })
    }
}

/// Splits `host`, `host:port`, `[ipv6]` or `[ipv6]:port`.
fn split_port(authority: &str) -> Result<(&str, u16), AddressError> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(AddressError::Host)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| AddressError::Host)?;
            let port = after.strip_prefix(':');
            if port.is_none() && !after.is_empty() {
                return Err(AddressError::Host);
            }
            (host, port)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let unfit = |sign: char| sign.is_whitespace() || sign.is_control() || "@[]".contains(sign);
    if host.is_empty() || host.contains(unfit) || port.is_some_and(|port| port.contains(':')) {
        return Err(AddressError::Host);
    }
    Ok((host, port.map_or(Ok(DEFAULT_PORT), parse_port)?))
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err(AddressError::Port),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "chat://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "chat://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_normal(text: &str, normal: &str) {
        let address: Address = text.parse().unwrap();
        assert_eq!(address.to_string(), normal);
        assert_eq!(normal.parse(), Ok(address));
    }

    #[track_caller]
    fn assert_refused(text: &str, why: &AddressError) {
        assert_eq!(text.parse::<Address>().as_ref(), Err(why), "{text}");
    }

    #[test]
    fn port_is_5000_when_the_address_names_none() {
        assert_normal("chat://localhost", "chat://localhost:5000");
        assert_normal("chat://[::1]", "chat://[::1]:5000");
        assert_normal("chat://Chat.Example.ORG:80/", "chat://chat.example.org:80");
        assert_normal(DEFAULT_ADDRESS, DEFAULT_ADDRESS);
    }

    #[test]
    fn unix_path_is_kept_as_it_is() {
        assert_normal("unix:/run/Chat socket", "unix:/run/Chat socket");
        assert_refused("unix:", &AddressError::UnixPath);
    }

    #[test]
    fn schemes_of_a_later_version_are_named_as_such() {
        for scheme in LATER {
            assert_refused(&format!("{scheme}://host:1"), &AddressError::NotYet(scheme));
        }
        assert_refused("HTTPS://host", &AddressError::NotYet("https"));
        assert_refused("ftp://host", &AddressError::Scheme);
        assert_refused("host:5000", &AddressError::Scheme);
    }

    #[test]
    fn malformed_address_says_which_part_is_wrong() {
        for text in ["chat://", "chat://:1", "chat://::1", "chat://[::1", "chat://[no]", "chat://a b"]
        {
            assert_refused(text, &AddressError::Host);
        }
        for text in ["chat://a:", "chat://a:0", "chat://a:65536", "chat://a:+1", "chat://[::1]:x"] {
            assert_refused(text, &AddressError::Port);
        }
        assert_refused("chat://a:1/lobby", &AddressError::Path);
    }
}
