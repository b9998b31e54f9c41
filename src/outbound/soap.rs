//! Requests to the router in front, as UPnP has them. Each has a deadline and a bound on its answer.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::net::body;
use crate::outbound::client::OutboundError;
use hearth_core::wan::portmap::upnp::{Action, Resource};

/// Fetches a resource, or has an action carried out. The answer has at most `most` bytes.
///
/// # Errors
/// [`OutboundError`]; a status that is not 200 is none.
pub async fn request(
    place: &Resource,
    action: Option<&Action>,
    most: usize,
    patience: Duration,
) -> Result<(StatusCode, Bytes), OutboundError> {
    let exchange = async {
        let stream = TcpStream::connect(place.address).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .uri(place.path.as_str())
            .header(HOST, place.address.to_string());
        let request = match action {
            None => request.body(Full::default()),
            Some(action) => request
                .method("POST")
                .header(CONTENT_TYPE, "text/xml; charset=\"utf-8\"")
                .header("SOAPAction", action.header.as_str())
                .body(Full::new(Bytes::from(action.body.clone()))),
        };
        let request = request.map_err(|_| OutboundError::Url)?;
        let answer = async move {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let content = body::read_limited(response.into_body(), most, patience).await?;
            Ok((status, content))
        };
        // The connection works only while it is polled. What is wrong with it, the answer says as well.
        let (answer, _) = tokio::join!(answer, connection);
        answer
    };
    timeout(patience, exchange)
        .await
        .unwrap_or(Err(OutboundError::Timeout))
}
