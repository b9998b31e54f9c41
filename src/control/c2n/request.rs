//! C2N requests (control to node): an HTTP request is sent in the map stream, and the node
//! posts its HTTP response back.
//!
//! Source: tailscale `feature/c2n/c2n.go` (`answerC2NPing`), and `ipn/ipnlocal/c2n.go` for the paths.
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
use data_encoding::BASE64;

use crate::control::c2n::calls::ReplyChannel;
use crate::control::c2n::{NodeCallError, NodeCalls};
use hearth_core::state::model::Node;
use hearth_core::tailcfg::notice::PingRequest;

/// Path prefix to which nodes post their responses, inside the Noise session; followed by the name of the call.
pub const ANSWERS: &str = "/machine/c2n/";

/// Most headers of a response.
const MAX_HEADERS: usize = 32;

/// An HTTP request to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct C2nRequest<'a> {
    /// HTTP method.
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Body; may be empty.
    pub body: &'a [u8],
    /// Timeout.
    pub timeout: Duration,
}

/// The HTTP response of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct C2nResponse {
    /// HTTP status.
    pub status: u16,
    /// Content type; empty when missing.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
}

impl NodeCalls {
    /// Sends a request to a node and waits for its response.
    ///
    /// Cancel safe, but the node may still process the request and its response is lost.
    ///
    /// # Errors
    /// When the node is not connected, does not reply in time, or replies with something other than HTTP.
    pub async fn ask(
        &self,
        node: &Node,
        c2n_request: &C2nRequest<'_>,
    ) -> Result<C2nResponse, NodeCallError> {
        let payload = BASE64.encode(&c2n_request.request()?);
        let mut call =
            self.pending
                .begin(ReplyChannel::Noise(node.machine), 1, self.answer_bytes)?;
        let request = PingRequest {
            url: &noise_url(call.name()),
            url_is_noise: true,
            types: "c2n",
            ip: None,
            payload: &payload,
        };
        self.mailboxes.ping(node.id, &request)?;
        let answer = tokio::time::timeout(c2n_request.timeout, call.next()).await;
        let bytes = answer.map_err(|_| NodeCallError::Timeout(c2n_request.timeout))?;
        C2nResponse::read(&bytes).ok_or(NodeCallError::Answer)
    }
}

/// URL of a call inside the Noise session, where clients ignore the host.
pub(super) fn noise_url(call: &str) -> String {
    format!("https://unused{ANSWERS}{call}")
}

impl C2nRequest<'_> {
    /// The request in HTTP/1.1 format.
    fn request(&self) -> Result<Vec<u8>, NodeCallError> {
        let is_method = self.method.bytes().all(|byte| byte.is_ascii_uppercase());
        if self.method.is_empty() || !is_method {
            return Err(NodeCallError::C2nRequest("invalid HTTP method"));
        }
        // Anything but visible ASCII would end the line, or be read differently by the node.
        if !self.path.starts_with('/') || !self.path.bytes().all(|byte| byte.is_ascii_graphic()) {
            let fault = "the path must begin with `/` and have no spaces (escape them as `%20`)";
            return Err(NodeCallError::C2nRequest(fault));
        }
        let head = format!(
            "{} {} HTTP/1.1\r\nHost: node\r\nC2n-Handler-Timeout: {}s\r\nContent-Length: {}\r\n\r\n",
            self.method,
            self.path,
            self.timeout.as_secs().max(1),
            self.body.len(),
        );
        Ok([head.as_bytes(), self.body].concat())
    }
}

impl C2nResponse {
    /// Parses a response, with a body up to its length or up to the end.
    fn read(bytes: &Bytes) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head) = response.parse(bytes).ok()? else {
            return None;
        };
        let header = |name: &str| {
            let mut headers = response.headers.iter();
            let found = headers.find(|header| header.name.eq_ignore_ascii_case(name));
            found.and_then(|header| std::str::from_utf8(header.value).ok())
        };
        if header("transfer-encoding").is_some() {
            return None;
        }
        let mut body = bytes.slice(head..);
        if let Some(length) = header("content-length") {
            let length = length.trim().parse().ok()?;
            if length > body.len() {
                return None;
            }
            body.truncate(length);
        }
        Some(Self {
            status: response.code?,
            content_type: header("content-type").unwrap_or_default().to_owned(),
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c2n_request<'a>(method: &'a str, path: &'a str) -> C2nRequest<'a> {
        C2nRequest {
            method,
            path,
            body: b"hello",
            timeout: Duration::from_secs(20),
        }
    }

    #[test]
    fn a_request_cannot_smuggle_another() {
        let request = c2n_request("POST", "/echo?x=1").request().unwrap();
        let expected = "POST /echo?x=1 HTTP/1.1\r\nHost: node\r\nC2n-Handler-Timeout: 20s\r\n\
            Content-Length: 5\r\n\r\nhello";
        assert_eq!(String::from_utf8(request).unwrap(), expected);
        for (method, path) in [
            ("", "/"),
            ("get", "/"),
            ("GET", "echo"),
            ("GET", "/a b"),
            ("GET", "/a\r\nX: y"),
            ("GET /x HTTP/1.1\r\n", "/"),
            ("GET", "/ä"),
        ] {
            assert!(
                c2n_request(method, path).request().is_err(),
                "{method} {path}"
            );
        }
    }

    #[test]
    fn answers_are_read_as_go_and_rust_write_them() {
        let read = |text: &'static str| C2nResponse::read(&Bytes::from_static(text.as_bytes()));
        let go = read("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\nhi");
        let expected = C2nResponse {
            status: 200,
            content_type: "text/plain".into(),
            body: Bytes::from_static(b"hi"),
        };
        assert_eq!(go, Some(expected));
        let rust = read("HTTP/1.1 400 Bad Request\r\n\r\nunknown c2n path").unwrap();
        assert_eq!((rust.status, &*rust.body), (400, &b"unknown c2n path"[..]));
        let empty = read("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert!(empty.body.is_empty());
        for broken in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            assert_eq!(read(broken), None, "{broken}");
        }
    }
}
