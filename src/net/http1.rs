//! HTTP/1 part of a connection: its first request head, its requests, and how it ends.
//!
//! The first head is read before hyper sees it, because a DERP client with fast start expects no HTTP
//! response. A response that carries an [`Upgrade`] ends the HTTP part, and the connection continues with
//! another protocol.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hearth_derp::relay::Rewind;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::net::limits::{Limits, MAX_HEAD_BYTES};
use crate::net::upgrade::{PendingResponse, Upgrade};
use crate::shutdown::Shutdown;

/// Most headers of a request.
const MAX_HEADERS: usize = 64;

/// Timeout for closing a finished connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Recognizes a fast-start request from its path and headers; several lines of a header are joined with commas.
pub type FastStart<'a> = &'a (dyn Fn(&str, &dyn Fn(&str) -> Vec<u8>) -> Option<Upgrade> + Sync);

/// How the HTTP part of a connection ended.
#[derive(Debug)]
pub enum Http1End<S> {
    /// The connection is closed.
    Closed,
    /// The connection continues with another protocol.
    Upgraded {
        /// The stream.
        stream: S,
        /// Bytes already received, to be read before those of the stream.
        received: Bytes,
        /// The protocol that takes over.
        upgrade: Upgrade,
    },
}

/// Why the HTTP part of a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum Http1Error {
    /// The transport failed.
    #[error("transport: {0}")]
    Transport(#[from] io::Error),
    /// No request arrived before the timeout.
    #[error("no request before the timeout")]
    Idle,
    /// The head of the first request did not arrive before the timeout.
    #[error("timeout while reading the request head")]
    SlowHead,
    /// The connection reached the time limit for plain HTTP.
    #[error("time limit for plain HTTP reached")]
    Lifetime,
    /// The client violated the HTTP protocol.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
}

/// Answers the requests of a connection until it ends, is upgraded, or the server stops.
///
/// # Errors
/// [`Http1Error`]; the connection is then dropped.
pub async fn serve<S>(
    mut stream: S,
    limits: &Limits,
    shutdown: &Shutdown,
    answer: &(dyn Fn(Request<Incoming>) -> PendingResponse + Sync),
    fast_start: FastStart<'_>,
) -> Result<Http1End<S>, Http1Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let head = tokio::select! {
        biased;
        () = shutdown.wait() => return Ok(Http1End::Closed),
        head = read_head(&mut stream, limits) => head?,
    };
    if head.is_empty() {
        return Ok(Http1End::Closed);
    }
    if let Some((received, upgrade)) = after_fast_start(&head, fast_start) {
        return Ok(Http1End::Upgraded {
            stream,
            received,
            upgrade,
        });
    }

    let slot: Arc<Mutex<Option<Upgrade>>> = Arc::default();
    let service = service_fn(|request| {
        let answer = answer(request);
        let slot = Arc::clone(&slot);
        let answered = async move {
            let mut response = answer.await;
            if let Some(upgrade) = response.extensions_mut().remove::<Upgrade>() {
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgrade);
            }
            Ok::<_, Infallible>(response)
        };
        Box::pin(answered) as Pin<Box<dyn Future<Output = _> + Send>>
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS);
    let rewound = Rewind::new(stream, head);
    let mut connection = http.serve_connection(TokioIo::new(rewound), service);

    let mut stopping = false;
    let mut lifetime = std::pin::pin!(sleep(limits.lifetime));
    loop {
        tokio::select! {
            biased;
            ended = std::future::poll_fn(|context| connection.poll_without_shutdown(context)) => {
                ended?;
                break;
            }
            () = shutdown.wait(), if !stopping => {
                Pin::new(&mut connection).graceful_shutdown();
                stopping = true;
            }
            () = &mut lifetime => return Err(Http1Error::Lifetime),
        }
    }
    let parts = connection.into_parts();
    let (mut stream, unread) = parts.io.into_inner().into_parts();
    let upgrade = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    match upgrade {
        Some(upgrade) => Ok(Http1End::Upgraded {
            stream,
            received: Bytes::from([parts.read_buf, unread].concat()),
            upgrade,
        }),
        None => {
            // The response is sent; a peer that misses the close loses nothing.
            let _ = timeout(CLOSE_TIMEOUT, stream.shutdown()).await;
            Ok(Http1End::Closed)
        }
    }
}

/// Reads until the first head is complete or at its maximum length; `None` when the peer disconnects first.
async fn read_head<S: AsyncRead + Unpin>(
    stream: &mut S,
    limits: &Limits,
) -> Result<Bytes, Http1Error> {
    let mut head = Vec::with_capacity(512);
    let first = timeout(limits.first_byte, stream.read_buf(&mut head)).await;
    if first.map_err(|_| Http1Error::Idle)?? == 0 {
        return Ok(Bytes::new());
    }
    let rest = async {
        let mut seen = 0;
        while !has_end(head.get(seen..).unwrap_or_default()) && head.len() < MAX_HEAD_BYTES {
            // The end of the head can be split across two reads.
            seen = head.len().saturating_sub(2);
            let room = MAX_HEAD_BYTES.saturating_sub(head.len());
            head.reserve(room.min(1024));
            let room = u64::try_from(room).unwrap_or(0);
            if (&mut *stream).take(room).read_buf(&mut head).await? == 0 {
                return Ok(());
            }
        }
        Ok::<_, io::Error>(())
    };
    timeout(limits.head, rest)
        .await
        .map_err(|_| Http1Error::SlowHead)??;
    Ok(Bytes::from(head))
}

/// Whether `bytes` contains an empty line.
fn has_end(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == b"\n\n") || bytes.windows(3).any(|line| line == b"\n\r\n")
}

/// The bytes after the head, if the head is a fast-start request.
fn after_fast_start(received: &Bytes, recognize: FastStart<'_>) -> Option<(Bytes, Upgrade)> {
    if !received.starts_with(b"GET ") {
        return None;
    }
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = request.parse(received).ok()? else {
        return None;
    };
    let header = |name: &str| {
        let lines = request.headers.iter();
        let lines = lines.filter(|header| header.name.eq_ignore_ascii_case(name));
        joined(lines.map(|header| header.value))
    };
    let upgrade = recognize(request.path?, &header)?;
    Some((received.slice(length..), upgrade))
}

/// The lines of a header, joined with commas. Source: RFC 9110 section 5.3.
pub fn joined<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let lines: Vec<&[u8]> = lines.collect();
    lines.join(&b", "[..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::body;
    use hyper::StatusCode;
    use tokio::io::{DuplexStream, duplex};

    fn upgrade() -> Upgrade {
        Upgrade::new("test", |_, _, _| Box::pin(std::future::ready(())))
    }

    fn answer(request: Request<Incoming>) -> PendingResponse {
        let mut response = match request.uri().path() {
            "/derp" => body::status(StatusCode::SWITCHING_PROTOCOLS),
            _ => body::text(StatusCode::OK, "hello"),
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            response.extensions_mut().insert(upgrade());
        }
        Box::pin(std::future::ready(response))
    }

    fn fast_start(path: &str, header: &dyn Fn(&str) -> Vec<u8>) -> Option<Upgrade> {
        (path == "/derp" && header("derp-fast-start") == b"1").then(upgrade)
    }

    async fn run(stream: DuplexStream) -> Result<Http1End<DuplexStream>, Http1Error> {
        serve(
            stream,
            &Limits::default(),
            &Shutdown::new(),
            &answer,
            &fast_start,
        )
        .await
    }

    #[tokio::test]
    async fn requests_are_answered_one_after_the_other() {
        let (mut client, server) = duplex(4096);
        let talk = async {
            let mut text = String::new();
            for connection in ["keep-alive", "close"] {
                let request = format!("GET / HTTP/1.1\r\nConnection: {connection}\r\n\r\n");
                client.write_all(request.as_bytes()).await.unwrap();
            }
            client.read_to_string(&mut text).await.unwrap();
            text
        };
        let (ended, text) = tokio::join!(run(server), talk);
        assert!(matches!(ended, Ok(Http1End::Closed)));
        assert_eq!(text.matches("hello\n").count(), 2, "{text}");
    }

    #[tokio::test]
    async fn an_upgrade_gives_the_stream_back_with_what_followed() {
        let (mut client, server) = duplex(4096);
        let request = b"GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\nfirst";
        client.write_all(request).await.unwrap();
        let Ok(Http1End::Upgraded {
            mut stream,
            received,
            upgrade,
        }) = run(server).await
        else {
            panic!("not upgraded");
        };
        assert_eq!(
            (received.as_ref(), upgrade.protocol()),
            (&b"first"[..], "test")
        );
        stream.write_all(b"frames").await.unwrap();
        drop(stream);
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
        assert!(text.ends_with("\r\n\r\nframes"), "{text}");
    }

    #[tokio::test]
    async fn fast_start_gets_no_response_however_it_is_split() {
        let request =
            b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n";
        for cut in 1..request.len() {
            let (mut client, server) = duplex(4096);
            let (early, late) = request.split_at(cut);
            let talk = async {
                client.write_all(early).await.unwrap();
                tokio::task::yield_now().await;
                client.write_all(late).await.unwrap();
            };
            let (ended, ()) = tokio::join!(run(server), talk);
            let Ok(Http1End::Upgraded {
                stream, received, ..
            }) = ended
            else {
                panic!("not upgraded when cut at {cut}");
            };
            drop(stream);
            assert!(received.is_empty());
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert!(answer.is_empty());
        }
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused() {
        let (mut client, server) = duplex(64 * 1024);
        let head = format!(
            "GET / HTTP/1.1\r\nX: {}\r\n\r\n",
            "x".repeat(MAX_HEAD_BYTES)
        );
        client.write_all(head.as_bytes()).await.unwrap();
        assert!(matches!(run(server).await, Err(Http1Error::Http(_))));
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
    }

    #[tokio::test]
    async fn nine_kilobytes_of_cookies_are_no_obstacle() {
        let (mut client, server) = duplex(64 * 1024);
        let talk = async {
            let mut text = String::new();
            for connection in ["keep-alive", "close"] {
                let cookies = "c".repeat(9 * 1024);
                let head = format!(
                    "GET / HTTP/1.1\r\nCookie: {cookies}\r\nConnection: {connection}\r\n\r\n"
                );
                client.write_all(head.as_bytes()).await.unwrap();
            }
            client.read_to_string(&mut text).await.unwrap();
            text
        };
        let (_, text) = tokio::join!(run(server), talk);
        assert_eq!(text.matches("HTTP/1.1 200 ").count(), 2, "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn slow_and_silent_peers_are_disconnected() {
        let (_client, server) = duplex(4096);
        let begun = tokio::time::Instant::now();
        assert!(matches!(run(server).await, Err(Http1Error::Idle)));
        assert_eq!(begun.elapsed().as_secs(), 30, "by the clock of the test");
        let (mut client, server) = duplex(4096);
        client.write_all(b"GET / HT").await.unwrap();
        let begun = tokio::time::Instant::now();
        assert!(matches!(run(server).await, Err(Http1Error::SlowHead)));
        assert_eq!(begun.elapsed().as_secs(), 10);
        let (mut client, server) = duplex(4096);
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(run(server).await.is_err(), "idle after a request");
    }

    #[tokio::test]
    async fn a_shutdown_closes_idle_connections() {
        let limits = Limits::default();
        for request in ["", "GET / HTTP/1.1\r\n\r\n"] {
            let shutdown = Shutdown::new();
            let (mut client, server) = duplex(4096);
            client.write_all(request.as_bytes()).await.unwrap();
            let stop = async {
                if !request.is_empty() {
                    client.read_exact(&mut [0; 16]).await.unwrap();
                }
                shutdown.trigger();
            };
            let (ended, ()) = tokio::join!(
                serve(server, &limits, &shutdown, &answer, &fast_start),
                stop
            );
            assert!(matches!(ended, Ok(Http1End::Closed)));
        }
    }

    #[test]
    fn the_end_of_a_head_is_an_empty_line() {
        for (head, ended) in [
            ("GET / HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.1\n\n", true),
            ("GET / HTTP/1.1\r\n\r", false),
            ("GET / HTTP/1.1\r\nA: b\r\n", false),
            ("A\r\n\r\nbody", true),
            ("\r\n", false),
        ] {
            assert_eq!(has_end(head.as_bytes()), ended, "{head:?}");
        }
    }
}
