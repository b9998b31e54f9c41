//! Talks to a running hearth over its socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::api::ErrorAnswer;
pub use crate::http::query::escaped;

/// Longest answer that is read, in bytes: a full tailnet of nodes fits many times.
const ANSWER_MAX: usize = 64 << 20;
/// How long an answer may take. Slow flash may need seconds for a commit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Nothing listens at the socket.
    #[error(
        "no hearth answers at {}: is `hearth serve` running? If its data is elsewhere, name the socket with `--socket PATH` or HEARTH_SOCKET",
        .path.display()
    )]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The socket may not be opened.
    #[error(
        "no permission to open {}: run this as root or as the user that runs hearth",
        .path.display()
    )]
    Denied {
        /// The socket.
        path: PathBuf,
    },
    /// The socket cannot be opened for another reason.
    #[error("cannot open {}: {source}", .path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No answer came in time.
    #[error("hearth gave no answer within {} s", .within.as_secs())]
    Timeout {
        /// The time that it had.
        within: Duration,
    },
    /// The connection broke.
    #[error("the connection to hearth broke: {0}")]
    Connection(#[from] hyper::Error),
    /// The answer is none that this program understands.
    #[error("hearth gave an answer that this program does not understand: is it another version?")]
    Answer,
    /// The server said no.
    #[error("{0}")]
    Refused(String),
    /// The command itself cannot be carried out.
    #[error("{0}")]
    Command(String),
}

impl From<serde_json::Error> for CliError {
    fn from(_: serde_json::Error) -> Self {
        Self::Answer
    }
}

/// The way to a running hearth: one connection for each request.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the server behind this socket.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// Asks for something.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn get(&self, path: &str) -> Result<Value, CliError> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// Asks for something that has to come within this time.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses or is late.
    pub async fn get_within(&self, path: &str, within: Duration) -> Result<Value, CliError> {
        tokio::time::timeout(within, self.exchange(Method::GET, path, Bytes::new()))
            .await
            .map_err(|_| CliError::Timeout { within })?
    }

    /// Has something done.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<Value, CliError> {
        let body = serde_json::to_vec(body)?;
        self.call(Method::POST, path, body.into()).await
    }

    /// Puts something in the place of what is there.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn put(&self, path: &str, body: &impl Serialize) -> Result<Value, CliError> {
        let body = serde_json::to_vec(body)?;
        self.call(Method::PUT, path, body.into()).await
    }

    /// Has something removed.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn delete(&self, path: &str) -> Result<Value, CliError> {
        self.call(Method::DELETE, path, Bytes::new()).await
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Value, CliError> {
        tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(method, path, body))
            .await
            .map_err(|_| CliError::Timeout {
                within: ANSWER_TIMEOUT,
            })?
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<Value, CliError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.socket_fault(error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "hearth")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|_| CliError::Answer)?;
        let answer = async move {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX)
                .collect()
                .await
                .map_err(|_| CliError::Answer)?;
            Ok::<_, CliError>((status, body.to_bytes()))
        };
        // The connection works only while it is polled, and ends when the sender is dropped. What
        // is wrong with it, the answer says as well.
        let (answer, _) = tokio::join!(answer, connection);
        let (status, body) = answer?;
        if status.is_success() {
            return Ok(serde_json::from_slice(&body)?);
        }
        let message = match serde_json::from_slice::<ErrorAnswer>(&body) {
            Ok(answer) => answer.message,
            Err(_) => format!("hearth answered {status}"),
        };
        Err(CliError::Refused(message))
    }

    fn socket_fault(&self, source: io::Error) -> CliError {
        let path = self.socket.clone();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                CliError::NotRunning { path }
            }
            io::ErrorKind::PermissionDenied => CliError::Denied { path },
            _ => CliError::Socket { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    async fn answer_of(raw: &'static [u8]) -> Result<Value, CliError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(raw).await.unwrap();
        };
        let client = Client::new(&path);
        let (_, answer) = tokio::join!(server, client.get("/x"));
        answer
    }

    #[tokio::test]
    async fn an_answer_is_read() {
        let answer = answer_of(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{\"a\": 1}").await;
        assert_eq!(answer.unwrap(), serde_json::json!({"a": 1}));
    }

    #[tokio::test]
    async fn a_refusal_shows_the_message_of_the_server() {
        let raw = b"HTTP/1.1 404 Not Found\r\nContent-Length: 50\r\n\r\n{\"code\":5,\"message\":\"node not found\",\"details\":[]}";
        assert_eq!(
            answer_of(raw).await.unwrap_err().to_string(),
            "node not found"
        );
    }

    #[tokio::test]
    async fn a_connection_that_breaks_is_a_fault() {
        assert!(answer_of(b"").await.is_err());
        assert!(
            answer_of(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}")
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn a_missing_socket_asks_whether_hearth_runs() {
        let fault = Client::new(Path::new("/nonexistent/s")).get("/x").await;
        let text = fault.unwrap_err().to_string();
        assert!(
            text.contains("is `hearth serve` running?") && text.contains("--socket"),
            "{text}"
        );
    }

    #[test]
    fn names_cannot_leave_their_part_of_the_path() {
        assert_eq!(escaped("a/../b c?ü"), "a%2F..%2Fb%20c%3F%C3%BC");
    }
}
