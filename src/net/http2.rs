//! HTTP/2 on a stream, with all requests in the task of the connection.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;

use super::inline_executor::InlineExecutor;
use super::limits::Limits;
use super::upgrade::PendingResponse;
use crate::shutdown::Shutdown;

/// The smallest frame size that HTTP/2 allows, in bytes. Source: RFC 9113 section 6.5.2.
const FRAME_BYTES: u32 = 16 * 1024;

/// Why an HTTP/2 connection failed.
#[derive(Debug, thiserror::Error)]
pub enum Http2Error {
    /// No request arrived before the timeout.
    #[error("no request after the handshake")]
    Idle,
    /// The client violated the protocol, or disconnected.
    #[error("HTTP/2: {0}")]
    Http(#[from] hyper::Error),
}

/// Answers the requests of a connection until it ends or the server stops. On shutdown no new requests are
/// accepted, and the running ones are awaited.
///
/// Not an `async fn`, which would reserve memory for the stream next to the connection that contains it.
pub fn serve<S>(
    stream: S,
    limits: &Limits,
    shutdown: &Shutdown,
    answer: impl Fn(Request<Incoming>) -> PendingResponse + Send + Sync + 'static,
) -> impl Future<Output = Result<(), Http2Error>> + Send
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&asked);
    let service = service_fn(move |request| {
        seen.store(true, Ordering::Relaxed);
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut requests = InlineExecutor::new();
    let mut http = http2::Builder::new(requests.spawner());
    http.timer(TokioTimer::new())
        .initial_connection_window_size(limits.window_bytes)
        .initial_stream_window_size(limits.window_bytes)
        .max_frame_size(FRAME_BYTES)
        .max_send_buf_size(limits.send_bytes)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_list_bytes)
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.pong);
    let mut connection = Box::pin(http.serve_connection(TokioIo::new(stream), service));
    let patience = limits.first_request;
    async move {
        let mut first_request = std::pin::pin!(sleep(patience));
        let (mut stopping, mut waiting) = (false, true);
        loop {
            tokio::select! {
                biased;
                ended = poll_fn(|context| requests.poll(connection.as_mut(), context)) => {
                    return Ok(ended?);
                }
                () = shutdown.wait(), if !stopping => {
                    connection.as_mut().graceful_shutdown();
                    requests.connection_changed();
                    stopping = true;
                }
                () = &mut first_request, if waiting => {
                    if !asked.load(Ordering::Relaxed) {
                        return Err(Http2Error::Idle);
                    }
                    waiting = false;
                }
            }
        }
    }
}
