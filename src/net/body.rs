//! Body: the one response type, short responses made with it, and reading a request body within limits.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// The body of a response.
#[derive(Debug, Default)]
pub struct Body(Content);

#[derive(Default)]
enum Content {
    #[default]
    Nothing,
    Whole(Bytes),
    Stream(Pin<Box<dyn Future<Output = ()> + Send>>, Sender),
}

impl Body {
    /// An empty body.
    pub const fn empty() -> Self {
        Self(Content::Nothing)
    }

    /// A streamed body: the pieces that `make` sends while the body is read. It ends when that future ends.
    ///
    /// The future is polled by the task that sends the body, only when the next piece can be sent. It needs no
    /// task and no queue of its own, and is dropped with the body when the peer disconnects.
    pub fn stream<F>(make: impl FnOnce(Sender) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let sender = Sender::default();
        Self(Content::Stream(Box::pin(make(sender.clone())), sender))
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("Nothing"),
            Self::Whole(bytes) => write!(f, "Whole({} bytes)", bytes.len()),
            Self::Stream(..) => f.write_str("Stream"),
        }
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Self::empty();
        }
        Self(Content::Whole(bytes))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Content::Stream(making, sender) = &mut self.0 {
            let is_over = making.as_mut().poll(context).is_ready();
            let piece = sender.slot().take();
            if is_over {
                self.0 = Content::Nothing;
            } else if piece.is_none() {
                return Poll::Pending;
            }
            return Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))));
        }
        Poll::Ready(match std::mem::take(&mut self.0) {
            Content::Whole(bytes) => Some(Ok(Frame::data(bytes))),
            _ => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Content::Nothing)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Nothing => SizeHint::with_exact(0),
            Content::Whole(bytes) => {
                SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
            }
            Content::Stream(..) => SizeHint::default(),
        }
    }
}

/// Sending half of a streamed body, with room for one piece.
#[derive(Debug, Clone, Default)]
pub struct Sender(Arc<Mutex<Option<Bytes>>>);

impl Sender {
    /// Sends one piece and waits until the next one can be sent.
    ///
    /// Only for the future of [`Body::stream`], which is polled again once the piece was taken, so no waker
    /// is registered here. Cancel safe: a piece is sent whole or not at all.
    pub async fn send(&self, piece: Bytes) {
        let mut piece = Some(piece);
        poll_fn(|_| {
            let mut slot = self.slot();
            if slot.is_some() {
                return Poll::Pending;
            }
            *slot = piece.take();
            match *slot {
                Some(_) => Poll::Pending,
                None => Poll::Ready(()),
            }
        })
        .await;
    }

    fn slot(&self) -> MutexGuard<'_, Option<Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A response without a body.
pub fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A response with a body of this content type.
pub fn typed(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// A plain-text response that ends with a newline, like `http.Error` of Go.
pub fn text(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = typed(
        status,
        "text/plain; charset=utf-8",
        format!("{message}\n").into_bytes(),
    );
    let nosniff = HeaderValue::from_static("nosniff");
    response
        .headers_mut()
        .insert("x-content-type-options", nosniff);
    response
}

/// A JSON response; a 500 when the value cannot be serialized.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => typed(status, "application/json", bytes),
        Err(error) => {
            tracing::error!(%error, "cannot serialize a response as JSON");
            text(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
        }
    }
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The body is longer than allowed.
    #[error("the request is too large")]
    TooLarge,
    /// The body did not arrive in time.
    #[error("the request took too long")]
    Timeout,
    /// Evicted: the memory budget was needed for newer bodies.
    #[error("too many requests at once; try again in a moment")]
    Crowded,
    /// The connection or the stream ended before the body did.
    #[error("the request is incomplete")]
    Broken,
}

impl ReadError {
    /// HTTP status of the error.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Crowded => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads a whole body of at most `max_bytes` within `deadline`.
/// A declared length above the limit is refused before anything is read. Memory grows with the bytes
/// received, not with the declared length. Not cancel safe: bytes already read are lost.
///
/// # Errors
/// [`ReadError`].
pub async fn read_limited<B>(
    body: B,
    max_bytes: usize,
    deadline: Duration,
) -> Result<Bytes, ReadError>
where
    B: HttpBody,
{
    let read = async {
        let mut body = pin!(body);
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > max_bytes {
            return Err(ReadError::TooLarge);
        }
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(mut data) = frame.map_err(|_| ReadError::Broken)?.into_data() else {
                continue;
            };
            if whole.len().saturating_add(data.remaining()) > max_bytes {
                return Err(ReadError::TooLarge);
            }
            while data.has_remaining() {
                let chunk = data.chunk();
                let length = chunk.len();
                whole.extend_from_slice(chunk);
                data.advance(length);
            }
        }
        Ok(Bytes::from(whole))
    };
    tokio::time::timeout(deadline, read)
        .await
        .unwrap_or(Err(ReadError::Timeout))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;

    const SOON: Duration = Duration::from_secs(5);

    async fn collect(response: Response<Body>) -> Bytes {
        response.into_body().collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn answers_have_their_type_and_text() {
        let answer = json(StatusCode::CREATED, &["a"]);
        assert_eq!(answer.status(), StatusCode::CREATED);
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(answer.body().size_hint().exact(), Some(5));
        assert_eq!(collect(answer).await, r#"["a"]"#);
        let answer = text(StatusCode::BAD_REQUEST, "no");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        assert_eq!(collect(answer).await, "no\n");
        assert!(status(StatusCode::NO_CONTENT).body().is_end_stream());
    }

    async fn next(body: &mut Body) -> Option<Bytes> {
        let frame = body.frame().await?;
        frame.unwrap().into_data().ok()
    }

    #[tokio::test]
    async fn a_streamed_body_runs_only_as_far_as_it_is_read() {
        let made = Arc::new(Mutex::new(0));
        let seen = made.clone();
        let mut body = Body::stream(|sender| async move {
            for piece in ["one", "two"] {
                *made.lock().unwrap() += 1;
                sender.send(Bytes::from_static(piece.as_bytes())).await;
            }
        });
        assert_eq!(*seen.lock().unwrap(), 0);
        assert_eq!(next(&mut body).await.unwrap(), "one");
        assert_eq!(*seen.lock().unwrap(), 1);
        assert!(!body.is_end_stream());
        assert_eq!(next(&mut body).await.unwrap(), "two");
        assert_eq!(next(&mut body).await, None);
        assert!(body.is_end_stream());
        assert_eq!(next(&mut body).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_streamed_body_waits_for_what_its_future_waits_for() {
        let mut body = Body::stream(|sender| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            // The piece is sent although the wait for it was cancelled.
            tokio::select! { biased;
                () = sender.send(Bytes::from_static(b"late")) => {}
                () = std::future::ready(()) => {}
            }
        });
        let early = tokio::time::timeout(Duration::from_millis(999), next(&mut body)).await;
        assert!(early.is_err());
        assert_eq!(next(&mut body).await.unwrap(), "late");
        assert_eq!(next(&mut body).await, None);
    }

    #[test]
    fn the_future_of_a_body_is_dropped_with_it() {
        let held = Arc::new(());
        let guard = held.clone();
        let body = Body::stream(|_| async move { drop(guard) });
        assert_eq!(Arc::strong_count(&held), 2);
        drop(body);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn reading_stops_at_the_limit_and_at_the_deadline() {
        let full = |length: usize| Full::new(Bytes::from(vec![0; length]));
        let read = read_limited(full(10), 10, SOON).await;
        assert_eq!(read.map(|bytes| bytes.len()), Ok(10));
        assert_eq!(
            read_limited(full(11), 10, SOON).await,
            Err(ReadError::TooLarge)
        );

        let body = Body::stream(|sender| async move {
            for _ in 0..3 {
                sender.send(Bytes::from_static(b"1234")).await;
            }
        });
        assert_eq!(read_limited(body, 10, SOON).await, Err(ReadError::TooLarge));

        let body = Body::stream(|_| std::future::pending());
        assert_eq!(read_limited(body, 10, SOON).await, Err(ReadError::Timeout));

        let broken = one_error();
        assert_eq!(read_limited(broken, 10, SOON).await, Err(ReadError::Broken));
    }

    fn one_error() -> impl HttpBody<Data = Bytes, Error = std::io::Error> {
        struct Once(bool);
        impl HttpBody for Once {
            type Data = Bytes;
            type Error = std::io::Error;
            fn poll_frame(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
                let first = std::mem::replace(&mut self.0, false);
                Poll::Ready(first.then(|| Err(std::io::ErrorKind::ConnectionReset.into())))
            }
        }
        Once(true)
    }
}
