//! What the port of the chat answers by HTTP: whether the server lives and takes messages, and a page
//! that tells people how to join. Nothing here can change anything, and nothing tells of rooms or users.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::admin::{Desk, Gate};
use crate::door;
use crate::host::EngineHandle;
use crate::metrics::Metrics;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use chatcore::address::Address;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

/// The most that a request line and its headers may take.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Headers that every answer carries: nothing is run, loaded, framed, guessed or kept.
const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    Plain,
    Tls,
}

/// Whether the server takes messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Readiness {
    Ready,
    StoreFull,
    Stopping,
}

/// The readiness as the engine's task last told it.
#[derive(Debug, Default)]
pub(crate) struct Health(AtomicU8);

impl Health {
    pub(crate) fn set(&self, readiness: Readiness) {
        self.0.store(readiness as u8, Ordering::Relaxed);
    }

    fn get(&self) -> Readiness {
        let told = self.0.load(Ordering::Relaxed);
        let all = [Readiness::Ready, Readiness::StoreFull];
        all.into_iter().find(|it| *it as u8 == told).unwrap_or(Readiness::Stopping)
    }
}

/// The pages of the socket for those who run the server, and their calls.
pub(crate) fn admin_pages(health: Arc<Health>, metrics: Metrics, desk: Desk, gate: Gate) -> Router {
    let engine = desk.engine.clone();
    let told = move || {
        let (metrics, engine) = (metrics.clone(), engine.clone());
        async move { metrics_page(&metrics, &engine).await }
    };
    let pages = Router::new()
        .route("/metrics", get(told))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is nothing here\n") });
    guarded(desk.beside(pages.with_state(health), gate))
}

async fn metrics_page(metrics: &Metrics, engine: &EngineHandle) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    match engine.counts().await {
        Some(counts) => {
            ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.text(&counts)).into_response()
        }
        None => (StatusCode::SERVICE_UNAVAILABLE, "the engine does not answer\n").into_response(),
    }
}

/// The pages of the chat's port.
pub(crate) fn pages(health: Arc<Health>, layer: Layer) -> Router {
    let pages = Router::new()
        .route("/", get(move |headers: HeaderMap| async move { page(&headers, layer) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is nothing here\n") });
    guarded(pages.with_state(health))
}

/// For whom there is no place.
pub(crate) fn busy() -> Router {
    let answer =
        (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], "the server is full\n");
    guarded(Router::new().fallback(move || async move { answer }))
}

/// For who comes unencrypted where that is not allowed.
pub(crate) fn encrypted_only() -> Router {
    let text = "only encrypted connections are taken here: use https://\n";
    guarded(Router::new().fallback(move || async move { (StatusCode::UPGRADE_REQUIRED, text) }))
}

/// Answers one request, and closes. What the peer has yet to say of it, as the rest of a head that is too
/// large, is read on for a while, unheard, so that the answer arrives.
pub(crate) async fn serve<S>(stream: S, pages: Router) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut connection = http1::Builder::new()
        .keep_alive(false)
        // Who has said all may close their side, as `nc -N` does, and is answered all the same.
        .half_close(true)
        .max_buf_size(HEAD_BYTES_MAX)
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(pages));
    let served = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    let mut stream = connection.into_parts().io.into_inner();
    stream.shutdown().await?;
    door::read_on(&mut stream).await;
    served.map_err(io::Error::other)
}

fn guarded(pages: Router) -> Router {
    pages.layer(map_response(|mut response: Response| async move {
        for (name, value) in HEADERS {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        Ok::<_, Infallible>(response)
    }))
}

async fn ready(State(health): State<Arc<Health>>) -> Response {
    let unready = |why| (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    match health.get() {
        Readiness::Ready => "ready\n".into_response(),
        Readiness::StoreFull => unready("the store is full\n"),
        Readiness::Stopping => unready("the server is stopping\n"),
    }
}

/// How to join by the address that the reader came by.
fn page(headers: &HeaderMap, layer: Layer) -> Html<String> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let address = host.and_then(|host| address_of(host, layer)).unwrap_or_default();
    Html(format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>chat-server</title>\n\
         <h1>chat-server</h1>\n<p>People talk here. Join from a terminal:\n\
         <pre>chat-client {address} --name YOU</pre>\n</html>\n"
    ))
}

/// The chat's address at a host that a request names. Only what is an address is repeated, so nothing
/// in it can be markup.
fn address_of(host: &str, layer: Layer) -> Option<Address> {
    let (scheme, port) = match layer {
        Layer::Plain => ("chat", 80),
        Layer::Tls => ("chats", 443),
    };
    // The ports of HTTP are those that it does not name.
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let port = if has_port { String::new() } else { format!(":{port}") };
    format!("{scheme}://{host}{port}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h5_page_repeats_only_hosts_that_are_addresses() {
        let of = |host: &str| address_of(host, Layer::Plain).map(|address| address.to_string());
        assert_eq!(of("example.org:5000").as_deref(), Some("chat://example.org:5000"));
        assert_eq!(of("example.org").as_deref(), Some("chat://example.org:80"));
        assert_eq!(of("[::1]").as_deref(), Some("chat://[::1]:80"));
        assert_eq!(of("[::1]:7").as_deref(), Some("chat://[::1]:7"));
        for host in ["<script>alert(1)</script>", "a b", "\"><b>", "x/../y", "", "&lt;"] {
            assert_eq!(of(host), None, "{host}");
        }
        let encrypted = address_of("example.org", Layer::Tls).map(|address| address.to_string());
        assert_eq!(encrypted.as_deref(), Some("chats://example.org:443"));
    }
}
