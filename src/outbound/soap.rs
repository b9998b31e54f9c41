//! SOAP requests to the upstream router (UPnP). Each has a deadline and a limit on the response.
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

/// Fetches a resource, or calls an action. The response has at most `most` bytes.
///
/// # Errors
/// [`OutboundError`]; a status other than 200 is not an error.
pub async fn request(
    target: &Resource,
    action: Option<&Action>,
    most: usize,
    patience: Duration,
) -> Result<(StatusCode, Bytes), OutboundError> {
    let exchange = async {
        let stream = TcpStream::connect(target.address).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .uri(target.path.as_str())
            .header(HOST, target.address.to_string());
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
        // The connection makes progress only while it is polled. Its errors also appear in the response.
        let (answer, _) = tokio::join!(answer, connection);
        answer
    };
    timeout(patience, exchange)
        .await
        .unwrap_or(Err(OutboundError::Timeout))
}
