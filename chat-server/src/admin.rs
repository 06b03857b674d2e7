//! Calls of those who run the server, on the socket of `--admin`: who may make them, and what they do.
//!
//! A Unix socket is its owner's alone, and who connects has to be that user or root. To a port of this
//! machine everybody on it can connect: a call there needs a token from a file that nobody else may
//! read. All that is not listed as open needs it, so that what is added later does, too. Pages in a
//! browser have no business here, wherever they are from and whatever name led them to this machine.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path as OfPath, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chatcore::address::Address;
use chatcore::engine::Counts;
use chatcore::id::Generation;
use chatcore::log::Founding;
use chatcore::text::UserName;
use chatcore::time::Span;
use chatcore::wire::{Measure, Refusal, TargetFault};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use crate::host::{EngineHandle, NoAnswer};
use crate::key::make_secret;

/// What can be called, by its word.
const CALLS: [(&str, Deed); 8] = [
    ("kick", Deed::Take(Measure::Kick)),
    ("ban", Deed::Take(Measure::Ban)),
    ("unban", Deed::Take(Measure::Unban)),
    ("release", Deed::Take(Measure::Release)),
    ("op", Deed::Take(Measure::Op)),
    ("deop", Deed::Take(Measure::Deop)),
    ("status", Deed::Tell),
    ("stop", Deed::Stop),
];

/// What needs no token: it changes nothing and names nobody.
const OPEN: [&str; 3] = ["/metrics", "/healthz", "/readyz"];

/// The most of what a caller wrote that a line of the log repeats.
const LOGGED_CHARS_MAX: usize = 128;

/// What a caller is told to wait when the server can keep nothing.
const STORE_RETRY: Span = Span::from_secs(1);

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// Takes a measure on a user.
    Take(Measure),
    /// Tells how much there is.
    Tell,
    /// Has the server stop in order.
    Stop,
}

impl Deed {
    const fn method(self) -> &'static str {
        match self {
            Self::Take(_) | Self::Stop => "POST",
            Self::Tell => "GET",
        }
    }

    fn path(self, word: &str) -> String {
        match self {
            Self::Take(_) => format!("/users/{{name}}/{word}"),
            Self::Tell | Self::Stop => format!("/{word}"),
        }
    }
}

/// Every call on the socket for those who run the server, as method and path; `{name}` stands for a
/// user's name, percent-encoded.
pub fn admin_calls() -> impl Iterator<Item = (&'static str, String)> {
    CALLS.into_iter().map(|(word, deed)| (deed.method(), deed.path(word)))
}

/// What a call on a port of this machine has to bring along: 256 random bits, known to whoever may
/// read a file.
#[derive(Clone)]
pub struct AdminToken {
    path: PathBuf,
    /// Of the text. Hashes are compared in constant time.
    hash: blake3::Hash,
}

impl fmt::Debug for AdminToken {
    /// Where it is, and nothing of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminToken").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Why the token cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file cannot be used.
    #[error("cannot use the admin token {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file can be read by others.
    #[error(
        "the admin token {} can be read by others (mode {mode:o}): delete it to get a new one, or run \
         chmod 600 on it if nobody has read it",
        path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds no token.
    #[error(
        "the admin token {} is damaged: it must hold 32 bytes in base64url; delete it to get a new one",
        .0.display()
    )]
    Damaged(PathBuf),
    /// No randomness can be had.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}

const TOKEN_BYTES: usize = 32;

/// The file's name in its folder.
const TOKEN: &str = "admin.token";

/// The most that is read of it: a token takes 43 characters and a newline.
const FILE_BYTES_MAX: u64 = 128;

impl AdminToken {
    /// The token in `folder`, which has to be there; made if there is none.
    ///
    /// # Errors
    /// When the file cannot be made or read, is damaged, or is open to others.
    pub fn in_folder(folder: &Path) -> Result<Self, TokenError> {
        let path = folder.join(TOKEN);
        let at = |source| TokenError::Io { path: path.clone(), source };
        if !path.try_exists().map_err(at)? {
            let mut secret = [0; TOKEN_BYTES];
            getrandom::fill(&mut secret)?;
            let text = format!("{}\n", URL_SAFE_NO_PAD.encode(secret));
            make_secret(folder, TOKEN, text.as_bytes()).map_err(at)?;
        }
        let file = File::open(&path).map_err(at)?;
        let mode = file.metadata().map_err(at)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(TokenError::Open { path, mode });
        }
        let mut text = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(at)?;
        let text = text.trim_ascii();
        let secret = URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
        if secret.len() != TOKEN_BYTES {
            return Err(TokenError::Damaged(path));
        }
        Ok(Self { hash: blake3::hash(text), path })
    }

    /// The file that it is in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a request brings it along.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((scheme, token)) = given.and_then(|given| given.split_once(' ')) else {
            return false;
        };
        scheme.eq_ignore_ascii_case("bearer") && blake3::hash(token.trim().as_bytes()) == self.hash
    }
}

/// Whether whoever connected to the Unix socket runs the server: its own user, or root.
pub(crate) fn is_ours(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    match stream.peer_cred().map(|peer| peer.uid()) {
        Ok(uid) if uid == own || uid == 0 => true,
        Ok(uid) => {
            tracing::warn!(uid, "closed: another user connected to the socket of --admin");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "closed: who connected to the socket of --admin is not known");
            false
        }
    }
}

/// What a request has to bring along.
#[derive(Debug)]
pub(crate) enum Gate {
    /// Nothing: it came by a Unix socket, where who connects was looked at.
    Socket,
    /// The token; without one there are no calls. It came to a port of this host.
    Port { host: String, token: Option<AdminToken> },
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Denial {
    #[error("pages in a browser have no business here")]
    Page,
    #[error("this machine is not called that here: ask for localhost")]
    Host,
    #[error("this needs the server's admin token: send it as Authorization: Bearer TOKEN")]
    Token,
}

impl Gate {
    pub(crate) fn new(address: &Address, token: Option<AdminToken>) -> Self {
        match address {
            Address::Unix(_) => Self::Socket,
            Address::Tcp { host, .. } | Address::Tls { host, .. } => {
                Self::Port { host: host.clone(), token }
            }
        }
    }

    fn check(&self, request: &Request) -> Result<(), Denial> {
        let headers = request.headers();
        if headers.contains_key(header::ORIGIN) {
            return Err(Denial::Page);
        }
        let Self::Port { host, token } = self else { return Ok(()) };
        // A name that somebody else gives out may lead here, too.
        let in_head = headers.get_all(header::HOST).iter().map(HeaderValue::as_bytes);
        let in_line = request.uri().authority().map(|authority| authority.as_str().as_bytes());
        if !in_head.chain(in_line).all(|name| is_here(name, host)) {
            return Err(Denial::Host);
        }
        let has_token = || token.as_ref().is_some_and(|token| token.is_in(headers));
        if OPEN.contains(&request.uri().path()) || has_token() {
            Ok(())
        } else {
            Err(Denial::Token)
        }
    }
}

/// Whether the host that a request names is this machine: by no name, by itself, or as `--admin` says.
fn is_here(named: &[u8], own: &str) -> bool {
    if named.is_empty() {
        return true;
    }
    let Ok(authority) = Authority::try_from(named) else { return false };
    let bare = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let host = bare(authority.host());
    let is_loopback = host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    is_loopback || host == "localhost" || host == bare(own)
}

impl Denial {
    fn response(self) -> Response {
        let refused = |status, code: &str| {
            (status, json_of(&json!({ "code": code, "text": self.to_string() }))).into_response()
        };
        match self {
            Self::Page | Self::Host => refused(StatusCode::FORBIDDEN, "E_PERM"),
            Self::Token => {
                let mut response = refused(StatusCode::UNAUTHORIZED, "E_AUTH");
                let scheme = HeaderValue::from_static("Bearer");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
                response
            }
        }
    }
}

/// Where calls are carried out.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) engine: EngineHandle,
    pub(crate) founding: Founding,
    pub(crate) generation: Generation,
    /// Told when somebody wants the server to stop.
    pub(crate) stop: CancellationToken,
}

/// What became of a measure.
enum Outcome {
    Taken(UserName),
    Refused(Refusal),
    Unknown,
}

impl Desk {
    /// Adds the calls to what is open to all who can connect, and lets in whom the gate does.
    pub(crate) fn beside(self, pages: Router, gate: Gate) -> Router {
        let gate = Arc::new(gate);
        pages.merge(self.calls()).layer(from_fn(move |request: Request, next: Next| {
            let gate = Arc::clone(&gate);
            async move {
                match gate.check(&request) {
                    Ok(()) => next.run(request).await,
                    Err(denial) => {
                        let path = cut(request.uri().path());
                        tracing::info!(path, outcome = %denial, "admin call refused");
                        denial.response()
                    }
                }
            }
        }))
    }

    fn calls(self) -> Router {
        let add = |calls: Router<Arc<Self>>, (word, deed): (&'static str, Deed)| {
            let call = match deed {
                Deed::Take(measure) => post(
                    move |State(desk): State<Arc<Self>>, name: Result<OfPath<String>, _>| async move {
                        desk.take(word, measure, name).await
                    },
                ),
                Deed::Tell => {
                    get(move |State(desk): State<Arc<Self>>| async move { desk.tell(word).await })
                }
                Deed::Stop => {
                    post(move |State(desk): State<Arc<Self>>| async move { desk.stop(word) })
                }
            };
            calls.route(&deed.path(word), call)
        };
        CALLS.into_iter().fold(Router::new(), add).with_state(Arc::new(self))
    }

    async fn take(
        &self,
        word: &'static str,
        measure: Measure,
        name: Result<OfPath<String>, PathRejection>,
    ) -> Response {
        // What is not UTF-8 is no name, as this is none.
        let name = name.map_or_else(|_| char::REPLACEMENT_CHARACTER.into(), |OfPath(name)| name);
        let outcome = self.measure(&name, measure).await;
        let (user, became) = match &outcome {
            Outcome::Taken(user) => (user.as_str(), "done"),
            Outcome::Refused(refusal) => (name.as_str(), refusal.code()),
            Outcome::Unknown => (name.as_str(), "no answer"),
        };
        audit(word, Some(user), became);
        match outcome {
            Outcome::Taken(user) => {
                json_of(&json!({ "user": user.as_str(), "measure": word })).into_response()
            }
            Outcome::Refused(refusal) => refused(&refusal),
            Outcome::Unknown => no_answer("no answer in time: it may be done yet"),
        }
    }

    async fn measure(&self, name: &str, measure: Measure) -> Outcome {
        let user: UserName = match name.parse() {
            Ok(user) => user,
            Err(error) => return Outcome::Refused(Refusal::from(error)),
        };
        match self.engine.moderate(user.clone(), measure).await {
            Ok(Ok(())) => Outcome::Taken(user),
            Ok(Err(refusal)) => Outcome::Refused(refusal),
            Err(NoAnswer) => Outcome::Unknown,
        }
    }

    async fn tell(&self, word: &'static str) -> Response {
        let counts = self.engine.counts().await;
        audit(word, None, if counts.is_some() { "done" } else { "no answer" });
        match counts {
            Some(counts) => json_of(&self.status(&counts)).into_response(),
            None => no_answer("no answer in time"),
        }
    }

    /// In the words of `chat-server status --json`.
    fn status(&self, counts: &Counts) -> Value {
        let Counts { connections, online, users, rooms, open, newest, safe, store_full, memory } =
            *counts;
        json!({
            "type": "status",
            "server_key": self.founding.server_key,
            "log_id": self.founding.log_id,
            "generation": self.generation,
            "connections": connections,
            "online": online,
            "users": users,
            "rooms": rooms,
            "gates_open": open,
            "gates_closed": rooms.saturating_sub(open),
            "newest": newest,
            "safe": safe,
            "memory_bytes": memory,
            "store": { "full": store_full },
        })
    }

    fn stop(&self, word: &'static str) -> Response {
        audit(word, None, "done");
        self.stop.cancel();
        (StatusCode::ACCEPTED, json_of(&json!({ "type": "stopping" }))).into_response()
    }
}

fn audit(verb: &str, user: Option<&str>, outcome: &str) {
    tracing::info!(verb, user = user.map(cut), outcome, "admin call");
}

/// Of what a caller wrote as much as a line of the log may have; the log puts escapes for the rest.
fn cut(text: &str) -> String {
    text.chars().take(LOGGED_CHARS_MAX).collect()
}

type Json = ([(HeaderName, &'static str); 1], String);

fn json_of(value: &Value) -> Json {
    ([(header::CONTENT_TYPE, "application/json")], format!("{value}\n"))
}

fn no_answer(text: &str) -> Response {
    let body = json_of(&json!({ "code": "E_TIMEOUT", "text": text }));
    (StatusCode::GATEWAY_TIMEOUT, body).into_response()
}

fn refused(refusal: &Refusal) -> Response {
    let body = json_of(&json!({ "code": refusal.code(), "text": refusal.to_string() }));
    let mut response = (status_of(refusal), body).into_response();
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        let wait = if let Refusal::Busy { retry_ms } | Refusal::Rate { retry_ms } = refusal {
            *retry_ms
        } else {
            STORE_RETRY
        };
        let seconds = wait.as_millis().div_ceil(1_000).max(1);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

const fn status_of(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::Name(_) => StatusCode::BAD_REQUEST,
        Refusal::Target(TargetFault::User | TargetFault::Room) => StatusCode::NOT_FOUND,
        Refusal::Target(TargetFault::Oneself | TargetFault::Founder | TargetFault::Banned)
        | Refusal::Limit(_) => StatusCode::CONFLICT,
        Refusal::Store | Refusal::Busy { .. } | Refusal::Rate { .. } | Refusal::Gone => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        // None of these is ever said of a measure of those who run the server.
        Refusal::Frame(_)
        | Refusal::Decode(_)
        | Refusal::Version(_)
        | Refusal::State(_)
        | Refusal::Auth(_)
        | Refusal::Perm
        | Refusal::Command
        | Refusal::Gate { .. }
        | Refusal::Snapshot
        | Refusal::Crypto
        | Refusal::Expelled(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use chatcore::id::{LogId, PublicKey, Threshold};
    use chatcore::wire::LimitFault;
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn every_measure_can_be_called_by_the_word_it_has_elsewhere() {
        for measure in Measure::ALL {
            let call = CALLS.iter().find(|(_, deed)| *deed == Deed::Take(*measure));
            let word = serde_json::to_value(measure).unwrap();
            assert_eq!(call.map(|(word, _)| json!(word)), Some(word));
        }
    }

    #[tokio::test]
    async fn engine_that_does_not_answer_leaves_it_open_whether_a_measure_is_taken() {
        let founding = Founding {
            log_id: LogId::new([0; 16]),
            server_key: PublicKey::new([0; 32]),
            threshold: Threshold::DEFAULT,
            operators: Vec::new(),
        };
        // Nobody is at the other end.
        let engine = EngineHandle::new(mpsc::channel(1).0);
        let (generation, stop) = (Generation::ZERO, CancellationToken::new());
        let desk = Desk { engine, founding, generation, stop };
        let measure = desk.take("kick", Measure::Kick, Ok(OfPath("bob".to_owned()))).await;
        assert_eq!(measure.status(), StatusCode::GATEWAY_TIMEOUT);
        let body = axum::body::to_bytes(measure.into_body(), 1 << 10).await.unwrap();
        let told: Value = serde_json::from_slice(&body).unwrap();
        let text = "no answer in time: it may be done yet";
        assert_eq!(told, json!({ "code": "E_TIMEOUT", "text": text }));
        assert_eq!(desk.tell("status").await.status(), StatusCode::GATEWAY_TIMEOUT);
    }

    #[test]
    fn refusal_that_passes_says_when_to_ask_again() {
        let retry_of = |refusal| {
            let response = refused(&refusal);
            let retry = response.headers().get(header::RETRY_AFTER);
            (response.status().as_u16(), retry.map(|retry| retry.to_str().unwrap().to_owned()))
        };
        let after = |seconds: &str| Some(seconds.to_owned());
        let retry_ms = Span::from_millis(2_001);
        assert_eq!(retry_of(Refusal::Store), (503, after("1")));
        assert_eq!(retry_of(Refusal::Busy { retry_ms }), (503, after("3")));
        assert_eq!(retry_of(Refusal::Busy { retry_ms: Span::ZERO }), (503, after("1")));
        assert_eq!(retry_of(Refusal::Limit(LimitFault::Bans)), (409, None));
        assert_eq!(retry_of(Refusal::Target(TargetFault::User)), (404, None));
        assert_eq!(retry_of(Refusal::Target(TargetFault::Banned)), (409, None));
    }
}
