//! HTTP/2 on a stream, with all requests in the task of the connection.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep};

use super::gate::Ticket;
use super::inline_executor::InlineExecutor;
use super::limits::Limits;
use super::upgrade::PendingResponse;
use crate::shutdown::Shutdown;

/// The smallest frame size that HTTP/2 allows, in bytes. Source: RFC 9113 section 6.5.2.
const FRAME_BYTES: u32 = 16 * 1024;

/// Why an HTTP/2 connection failed.
#[derive(Debug, thiserror::Error)]
pub enum Http2Error {
    /// The connection of a stranger is without requests.
    #[error("no request before the timeout")]
    Idle,
    /// The client violated the protocol, or disconnected.
    #[error("HTTP/2: {0}")]
    Http(#[from] hyper::Error),
}

/// Answers the requests of a connection until it ends or the server stops. On shutdown no new requests are
/// accepted, and the running ones are awaited. A connection that is not proven by then ends when it is without requests
/// for a while.
///
/// Not an `async fn`, which would reserve memory for the stream next to the connection that contains it.
pub fn serve<S>(
    stream: S,
    limits: &Limits,
    shutdown: &Shutdown,
    ticket: Ticket,
    answer: impl Fn(Request<Incoming>) -> PendingResponse + Send + Sync + 'static,
) -> impl Future<Output = Result<(), Http2Error>> + Send
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::default());
    let seen = Arc::clone(&activity);
    let service = service_fn(move |request| {
        let running = Running::begin(&seen);
        let answer = answer(request);
        async move {
            let response = answer.await;
            drop(running);
            Ok::<_, Infallible>(response)
        }
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
    let (first_request, idle) = (limits.first_request, limits.idle);
    async move {
        let mut check = std::pin::pin!(sleep(first_request));
        let mut stopping = false;
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
                () = &mut check => {
                    if !activity.was_active() && !ticket.is_proven() {
                        return Err(Http2Error::Idle);
                    }
                    let now = Instant::now();
                    check.as_mut().reset(now.checked_add(idle).unwrap_or(now));
                }
            }
        }
    }
}

/// What requests a connection has.
#[derive(Default)]
struct Activity {
    running: AtomicUsize,
    begun: AtomicBool,
}

impl Activity {
    /// Whether a request is running or was begun since this was asked last.
    fn was_active(&self) -> bool {
        let begun = self.begun.swap(false, Ordering::Relaxed);
        begun || self.running.load(Ordering::Relaxed) > 0
    }
}

/// A request that waits for its response.
struct Running(Arc<Activity>);

impl Running {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.begun.store(true, Ordering::Relaxed);
        activity.running.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}
