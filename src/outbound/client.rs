//! Outbound HTTP requests. Each has its own connection, a deadline and a limit on the response;
//! redirects are not followed.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use hearth_derp::headers as derp;
use http_body_util::Full;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{Host, Scheme, WebUrl};
use crate::net::body;
use crate::net::stream::Stream;
use crate::net::tls::client::{ClientTls, ClientTlsError};

/// Longest response head to an upgrade request, in bytes.
const MAX_HEAD: usize = 4096;

/// Why an outbound request failed.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// TLS failed.
    #[error("{0}")]
    Tls(#[from] ClientTlsError),
    /// The deadline passed.
    #[error("timeout")]
    Timeout,
    /// The server violated the HTTP protocol.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// The response is too long or incomplete.
    #[error("response: {0}")]
    Body(#[from] body::ReadError),
    /// The server answered with an error status.
    #[error("the server answered {0}")]
    Status(StatusCode),
    /// The response to an upgrade request is not an upgrade.
    #[error("the server did not upgrade to DERP")]
    NoUpgrade,
    /// The URL is not supported.
    #[error("unsupported URL")]
    Url,
}

/// HTTP client.
#[derive(Debug, Default)]
pub struct Outbound {
    pub(super) tls: ClientTls,
}

impl Outbound {
    /// Fetches a URL; the response has at most `most` bytes.
    ///
    /// # Errors
    /// [`OutboundError`], also when the status is not 200.
    pub async fn get(
        &self,
        url: &WebUrl,
        most: usize,
        patience: Duration,
    ) -> Result<Bytes, OutboundError> {
        let exchange = self.exchange(Method::GET, url, Bytes::new(), most, patience);
        within(patience, exchange).await
    }

    /// Posts JSON to a URL; the response has at most `most` bytes.
    ///
    /// # Errors
    /// [`OutboundError`], also when the status is not 200.
    pub async fn post(
        &self,
        url: &WebUrl,
        json: Vec<u8>,
        most: usize,
        patience: Duration,
    ) -> Result<Bytes, OutboundError> {
        let exchange = self.exchange(Method::POST, url, json.into(), most, patience);
        within(patience, exchange).await
    }

    /// Connects to the relay of another server. Returns the connection and the bytes received after the response.
    ///
    /// # Errors
    /// [`OutboundError`], also when the server is not a relay.
    pub async fn relay(
        &self,
        url: &WebUrl,
        patience: Duration,
    ) -> Result<(Stream, Bytes), OutboundError> {
        within(patience, async {
            let mut stream = self.connect(url).await?;
            let answer = upgrade(&mut stream, url, "GET", derp::UPGRADE, "").await?;
            match answer.status {
                101 => Ok((stream, answer.rest)),
                _ => Err(OutboundError::NoUpgrade),
            }
        })
        .await
    }

    async fn exchange(
        &self,
        method: Method,
        url: &WebUrl,
        content: Bytes,
        most: usize,
        patience: Duration,
    ) -> Result<Bytes, OutboundError> {
        let stream = self.connect(url).await?;
        request(stream, method, url, content, most, patience).await
    }

    async fn connect(&self, url: &WebUrl) -> Result<Stream, OutboundError> {
        let stream = connect(url, &[]).await?;
        if url.server.scheme() == Scheme::Http {
            return Ok(Box::new(stream));
        }
        Ok(Box::new(self.tls.connect(url, stream).await?))
    }
}

/// Connects to the server of a URL: to the first of these addresses that answers, or by DNS without any.
pub(super) async fn connect(url: &WebUrl, addresses: &[IpAddr]) -> io::Result<TcpStream> {
    let port = url.server.port();
    let stream = match url.server.host() {
        _ if !addresses.is_empty() => {
            let places: Vec<SocketAddr> = addresses.iter().map(|ip| (*ip, port).into()).collect();
            TcpStream::connect(places.as_slice()).await?
        }
        Host::Name(name) => TcpStream::connect((name.as_str(), port)).await?,
        Host::Address(address) => TcpStream::connect((*address, port)).await?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a request and reads its response of at most `most` bytes.
pub(super) async fn request(
    stream: Stream,
    method: Method,
    url: &WebUrl,
    content: Bytes,
    most: usize,
    patience: Duration,
) -> Result<Bytes, OutboundError> {
    let mut request = Request::builder()
        .method(method)
        .uri(url.path.as_str())
        .header(HOST, authority(url))
        .header(ACCEPT, HeaderValue::from_static("application/json"));
    if !content.is_empty() {
        request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let request = request
        .body(Full::new(content))
        .map_err(|_| OutboundError::Url)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async move {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(OutboundError::Status(response.status()));
        }
        Ok(body::read_limited(response.into_body(), most, patience).await?)
    };
    let (mut answer, mut connection) = (pin!(answer), pin!(connection));
    tokio::select! {
        biased;
        answered = &mut answer => answered,
        // The bytes before the end still count.
        _ = &mut connection => answer.await,
    }
}

fn authority(url: &WebUrl) -> String {
    let (server, port) = (&url.server, url.server.port());
    match port == server.scheme().default_port() {
        true => server.host().to_string(),
        false => format!("{}:{port}", server.host()),
    }
}

pub(super) async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, OutboundError>>,
) -> Result<T, OutboundError> {
    timeout(patience, work)
        .await
        .unwrap_or(Err(OutboundError::Timeout))
}

/// The response to an upgrade request.
pub(super) struct UpgradeAnswer {
    /// HTTP status; 101 is an upgrade.
    pub(super) status: u16,
    /// The key of a relay, as in the header; empty without one.
    pub(super) relay_key: Vec<u8>,
    /// The bytes received after the response.
    pub(super) rest: Bytes,
}

/// Sends an upgrade request and reads the response. `headers` are more header lines, each with its line end.
pub(super) async fn upgrade(
    stream: &mut Stream,
    url: &WebUrl,
    method: &str,
    protocol: &str,
    headers: &str,
) -> Result<UpgradeAnswer, OutboundError> {
    let (path, host) = (&url.path, authority(url));
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: {protocol}\r\nConnection: Upgrade\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut received = Vec::new();
    loop {
        if received.len() >= MAX_HEAD || stream.read_buf(&mut received).await? == 0 {
            return Err(OutboundError::NoUpgrade);
        }
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(&received);
        let status = parsed.map_err(|_| OutboundError::NoUpgrade)?;
        let httparse::Status::Complete(length) = status else {
            continue;
        };
        let is_key = |header: &&httparse::Header<'_>| {
            header.name.eq_ignore_ascii_case(derp::PUBLIC_KEY_HEADER)
        };
        let relay_key = response.headers.iter().find(is_key);
        return Ok(UpgradeAnswer {
            status: response.code.unwrap_or_default(),
            relay_key: relay_key
                .map(|header| header.value.to_vec())
                .unwrap_or_default(),
            rest: Bytes::from(received.split_off(length)),
        });
    }
}
