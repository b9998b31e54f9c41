//! Requests to this server itself by its public URL, as clients make them. A certificate that clients would
//! reject is reported and not refused: nothing secret is sent.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::config::{Scheme, WebUrl};
use crate::net::stream::Stream;
use crate::net::tls::Presented;
use crate::outbound::client::{self, Outbound, OutboundError};

/// Time in which the first bytes after the response to an upgrade must arrive.
const DATA_TIMEOUT: Duration = Duration::from_secs(2);

/// What a request met.
#[derive(Debug)]
pub struct Probed<T> {
    /// The certificate; `None` over plain HTTP and without a TLS handshake.
    pub certificate: Option<Presented>,
    /// The answer.
    pub answer: Result<T, OutboundError>,
}

/// An upgrade that was accepted or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbedUpgrade {
    /// HTTP status; 101 is an upgrade.
    pub status: u16,
    /// The key of a relay in the response, as in its header; empty without one.
    pub relay_key: Vec<u8>,
    /// Whether data followed an upgrade.
    pub has_data: bool,
}

impl Outbound {
    /// Fetches a URL, at these addresses instead of DNS if there are any. The response has at most `most` bytes.
    pub async fn probe(
        &self,
        url: &WebUrl,
        addresses: &[IpAddr],
        most: usize,
        patience: Duration,
    ) -> Probed<Bytes> {
        let mut certificate = None;
        let answer = client::within(patience, async {
            let stream = self.observed(url, addresses, &mut certificate).await?;
            client::request(stream, Method::GET, url, Bytes::new(), most, patience).await
        });
        let answer = answer.await;
        Probed {
            certificate,
            answer,
        }
    }

    /// Requests an upgrade, at these addresses instead of DNS if there are any. `headers` are more header lines,
    /// each with its line end.
    pub async fn probe_upgrade(
        &self,
        url: &WebUrl,
        addresses: &[IpAddr],
        (method, protocol, headers): (&str, &str, &str),
        patience: Duration,
    ) -> Probed<ProbedUpgrade> {
        let mut certificate = None;
        let answer = client::within(patience, async {
            let mut stream = self.observed(url, addresses, &mut certificate).await?;
            let answer = client::upgrade(&mut stream, url, method, protocol, headers).await?;
            let mut has_data = !answer.rest.is_empty();
            if answer.status == 101 && !has_data {
                let mut first = [0];
                let read = timeout(DATA_TIMEOUT, stream.read(&mut first)).await;
                has_data = matches!(read, Ok(Ok(1..)));
            }
            Ok(ProbedUpgrade {
                status: answer.status,
                relay_key: answer.relay_key,
                has_data,
            })
        });
        let answer = answer.await;
        Probed {
            certificate,
            answer,
        }
    }

    async fn observed(
        &self,
        url: &WebUrl,
        addresses: &[IpAddr],
        certificate: &mut Option<Presented>,
    ) -> Result<Stream, OutboundError> {
        let stream = client::connect(url, addresses).await?;
        if url.server.scheme() == Scheme::Http {
            return Ok(Box::new(stream));
        }
        let (stream, presented) = self.tls.observe(url, stream).await?;
        *certificate = Some(presented);
        Ok(Box::new(stream))
    }
}
