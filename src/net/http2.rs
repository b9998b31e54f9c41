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
use super::revocation::Revocation;
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
/// accepted, and the running ones are awaited. A [`Revocation`] in the extensions of a response can end it.
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
    let mut requests = InlineExecutor::new();
    let polled = requests.polled();
    let service = service_fn(move |request| {
        seen.store(true, Ordering::Relaxed);
        let (answer, polled) = (answer(request), polled.clone());
        async move {
            let mut response = answer.await;
            if let Some(revocation) = response.extensions_mut().remove::<Revocation>() {
                polled.is_revoked_by(revocation);
            }
            Ok::<_, Infallible>(response)
        }
    });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::body::{Body, text};
    use crate::supervise::Tasks;
    use bytes::Bytes;
    use http_body_util::{BodyExt, Empty};
    use hyper::client::conn::http2::SendRequest;
    use hyper::{Response, StatusCode};
    use std::sync::Mutex;
    use std::time::Duration;
    use tokio::io::duplex;
    use tokio::time::timeout;

    /// Runs the client side of a connection.
    #[derive(Clone)]
    struct OnTasks(Tasks);

    impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for OnTasks {
        fn execute(&self, future: F) {
            self.0.spawn("client request", future);
        }
    }

    /// A connection to a server whose responses have the body that `make` makes, and can be revoked; those at `/other` are
    /// short.
    struct Served {
        requests: SendRequest<Empty<Bytes>>,
        begun: Arc<Mutex<Vec<Revocation>>>,
        shutdown: Shutdown,
        _tasks: Tasks,
    }

    impl Served {
        /// The peer has room for `window` bytes of each response until it reads.
        async fn start(window: u32, make: fn(Revocation) -> Body) -> Self {
            let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
            let (client, server) = duplex(1 << 20);
            let begun = Arc::<Mutex<Vec<Revocation>>>::default();
            let (seen, stop) = (begun.clone(), shutdown.clone());
            let answer = move |request: Request<Incoming>| -> PendingResponse {
                if request.uri().path() == "/other" {
                    return Box::pin(std::future::ready(text(StatusCode::OK, "well")));
                }
                let revocation = Revocation::default();
                let mut response = Response::new(make(revocation.clone()));
                seen.lock().unwrap().push(revocation.clone());
                response.extensions_mut().insert(revocation);
                Box::pin(std::future::ready(response))
            };
            tasks.spawn("server", async move {
                let _ = serve(server, &Limits::default(), &stop, answer).await;
            });
            let mut builder = hyper::client::conn::http2::Builder::new(OnTasks(tasks.clone()));
            builder.initial_stream_window_size(window);
            let (requests, connection) = builder.handshake(TokioIo::new(client)).await.unwrap();
            tasks.spawn("client", async {
                let _ = connection.await;
            });
            Self {
                requests,
                begun,
                shutdown,
                _tasks: tasks,
            }
        }

        async fn get(&mut self, path: &str) -> Response<Incoming> {
            let uri = format!("https://unused{path}");
            let request = Request::get(uri).body(Empty::new()).unwrap();
            self.requests.send_request(request).await.unwrap()
        }

        fn revoke(&self, place: usize) {
            self.begun.lock().unwrap()[place].revoke();
        }
    }

    async fn read(response: Response<Incoming>) -> Result<Bytes, hyper::Error> {
        let read = timeout(Duration::from_secs(5), response.into_body().collect());
        Ok(read.await.expect("it ends")?.to_bytes())
    }

    #[tokio::test]
    async fn a_revoked_response_is_reset_at_once_although_its_peer_reads_nothing() {
        // More than the window has room for: the body is never asked for its next piece.
        let mut served = Served::start(1000, |_| {
            Body::stream(|sender| async move {
                loop {
                    sender.send(Bytes::from(vec![0; 64 * 1024])).await;
                }
            })
        })
        .await;
        let unread = served.get("/").await;
        // Polls the connection again, with the response already stuck.
        assert_eq!(served.get("/other").await.status(), StatusCode::OK);
        served.revoke(0);
        let error = read(unread).await.unwrap_err();
        assert!(format!("{error:?}").contains("CANCEL"), "{error:?}");
        // The connection and its other requests go on.
        assert_eq!(read(served.get("/other").await).await.unwrap(), "well\n");
        served.shutdown.trigger();
    }

    #[tokio::test]
    async fn a_revoked_response_that_is_read_may_end_properly() {
        let mut served = Served::start(1000, |revocation| {
            Body::stream(|sender| async move {
                sender.send(Bytes::from_static(b"first,")).await;
                revocation.revoked().await;
                sender.send(Bytes::from_static(b"last")).await;
            })
        })
        .await;
        let ends = served.get("/").await;
        let stays = served.get("/").await;
        served.revoke(0);
        assert_eq!(read(ends).await.unwrap(), "first,last");
        served.revoke(1);
        assert_eq!(read(stays).await.unwrap(), "first,last");
    }
}
