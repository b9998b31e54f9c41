//! The plain HTTP part of a connection: its first head, its requests, and how it ends.
//!
//! The first head is read before the HTTP library sees it, because a relay client with fast start
//! wants no HTTP answer at all. An answer that carries an [`Upgrade`] ends the HTTP part, and the
//! connection goes on as something else.
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

/// The most headers of a request.
const MAX_HEADERS: usize = 64;

/// How long a finished connection may take to close.
const CLOSE: Duration = Duration::from_secs(2);

/// Recognizes a request that expects no answer: gets its path and a look-up of its headers.
pub type FastStart<'a> = &'a (dyn Fn(&str, &dyn Fn(&str) -> Vec<u8>) -> Option<Upgrade> + Sync);

/// How the HTTP part of a connection ended.
#[derive(Debug)]
pub enum Ended<S> {
    /// The connection is closed.
    Closed,
    /// The connection goes on as something else.
    Upgraded {
        /// The connection.
        stream: S,
        /// What the client sent already, to be read before the stream.
        received: Bytes,
        /// What it becomes.
        upgrade: Upgrade,
    },
}

/// Why the HTTP part of a connection was given up.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// The transport failed.
    #[error("transport: {0}")]
    Transport(#[from] io::Error),
    /// No request came in time.
    #[error("no request in time")]
    Idle,
    /// The head of the first request did not arrive in time.
    #[error("the request's head took too long")]
    SlowHead,
    /// The connection was used for plain HTTP for too long.
    #[error("plain HTTP for too long")]
    Lifetime,
    /// The client broke the rules of HTTP.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
}

/// Answers the requests of a connection until it ends, becomes something else, or the server stops.
///
/// # Errors
/// [`FrontError`]; the connection is then dropped.
pub async fn serve<S>(
    mut stream: S,
    limits: &Limits,
    shutdown: &Shutdown,
    answer: &(dyn Fn(Request<Incoming>) -> PendingResponse + Sync),
    fast_start: FastStart<'_>,
) -> Result<Ended<S>, FrontError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let head = tokio::select! {
        biased;
        () = shutdown.wait() => return Ok(Ended::Closed),
        head = read_head(&mut stream, limits) => head?,
    };
    if head.is_empty() {
        return Ok(Ended::Closed);
    }
    if let Some((received, upgrade)) = after_fast_start(&head, fast_start) {
        return Ok(Ended::Upgraded {
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
            () = &mut lifetime => return Err(FrontError::Lifetime),
        }
    }
    let parts = connection.into_parts();
    let (mut stream, unread) = parts.io.into_inner().into_parts();
    let upgrade = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    match upgrade {
        Some(upgrade) => Ok(Ended::Upgraded {
            stream,
            received: Bytes::from([parts.read_buf, unread].concat()),
            upgrade,
        }),
        None => {
            // The answer is sent; a peer that does not take the farewell loses nothing.
            let _ = timeout(CLOSE, stream.shutdown()).await;
            Ok(Ended::Closed)
        }
    }
}

/// Reads until the first head is complete, or as long as a head may be; nothing when the peer leaves first.
async fn read_head<S: AsyncRead + Unpin>(
    stream: &mut S,
    limits: &Limits,
) -> Result<Bytes, FrontError> {
    let mut head = Vec::with_capacity(512);
    let first = timeout(limits.idle, stream.read_buf(&mut head)).await;
    if first.map_err(|_| FrontError::Idle)?? == 0 {
        return Ok(Bytes::new());
    }
    let rest = async {
        let mut seen = 0;
        while !has_end(head.get(seen..).unwrap_or_default()) && head.len() < MAX_HEAD_BYTES {
            // The end may lie across the border of two reads.
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
        .map_err(|_| FrontError::SlowHead)??;
    Ok(Bytes::from(head))
}

/// Whether an empty line is in these bytes.
fn has_end(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == b"\n\n") || bytes.windows(3).any(|line| line == b"\n\r\n")
}

/// What follows the head, if the head is one that wants frames and no answer.
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
        request
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.to_vec())
            .unwrap_or_default()
    };
    let upgrade = recognize(request.path?, &header)?;
    Some((received.slice(length..), upgrade))
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

    async fn run(stream: DuplexStream) -> Result<Ended<DuplexStream>, FrontError> {
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
        assert!(matches!(ended, Ok(Ended::Closed)));
        assert_eq!(text.matches("hello\n").count(), 2, "{text}");
    }

    #[tokio::test]
    async fn an_upgrade_gives_the_stream_back_with_what_followed() {
        let (mut client, server) = duplex(4096);
        let request = b"GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\nfirst";
        client.write_all(request).await.unwrap();
        let Ok(Ended::Upgraded {
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
    async fn fast_start_is_not_answered_however_it_is_cut() {
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
            let Ok(Ended::Upgraded {
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
        let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(9000));
        client.write_all(head.as_bytes()).await.unwrap();
        assert!(matches!(run(server).await, Err(FrontError::Http(_))));
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn slow_and_silent_peers_are_left() {
        let (_client, server) = duplex(4096);
        assert!(matches!(run(server).await, Err(FrontError::Idle)));
        let (mut client, server) = duplex(4096);
        client.write_all(b"GET / HT").await.unwrap();
        assert!(matches!(run(server).await, Err(FrontError::SlowHead)));
        let (mut client, server) = duplex(4096);
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(run(server).await.is_err(), "idle after a request");
    }

    #[tokio::test]
    async fn a_server_that_stops_lets_idle_connections_go() {
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
            assert!(matches!(ended, Ok(Ended::Closed)));
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
