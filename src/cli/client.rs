//! Talks to a running hearth over its socket.

use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::api::ErrorAnswer;
pub use crate::net::query::escaped;

/// Longest answer that is read, in bytes: a full tailnet of nodes fits many times.
const ANSWER_MAX: u64 = 64 << 20;
/// How long the server may say nothing. Slow flash may need seconds for a commit.
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
    Connection(io::Error),
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
    pub fn get(&self, path: &str) -> Result<Value, CliError> {
        self.get_within(path, ANSWER_TIMEOUT)
    }

    /// Asks for something; the server may say nothing for so long.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses or is late.
    pub fn get_within(&self, path: &str, within: Duration) -> Result<Value, CliError> {
        self.exchange("GET", path, &[], within)
    }

    /// Has something done.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub fn post(&self, path: &str, body: &impl Serialize) -> Result<Value, CliError> {
        self.exchange("POST", path, &serde_json::to_vec(body)?, ANSWER_TIMEOUT)
    }

    /// Puts something in the place of what is there.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub fn put(&self, path: &str, body: &impl Serialize) -> Result<Value, CliError> {
        self.exchange("PUT", path, &serde_json::to_vec(body)?, ANSWER_TIMEOUT)
    }

    /// Has something removed.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub fn delete(&self, path: &str) -> Result<Value, CliError> {
        self.exchange("DELETE", path, &[], ANSWER_TIMEOUT)
    }

    fn exchange(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
        within: Duration,
    ) -> Result<Value, CliError> {
        let connected = self.connect(within);
        let mut stream = connected.map_err(|error| self.socket_fault(error))?;
        let fault = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => CliError::Timeout { within },
            _ => CliError::Connection(error),
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: hearth\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all(&[head.as_bytes(), body].concat())
            .map_err(fault)?;
        let mut answer = Vec::new();
        let mut stream = stream.take(ANSWER_MAX);
        stream.read_to_end(&mut answer).map_err(fault)?;
        let (status, body) = parse(&answer)?;
        if (200..300).contains(&status) {
            return Ok(serde_json::from_slice(body)?);
        }
        let message = match serde_json::from_slice::<ErrorAnswer>(body) {
            Ok(answer) => answer.message,
            Err(_) => format!("hearth answered {status}"),
        };
        Err(CliError::Refused(message))
    }

    fn connect(&self, patience: Duration) -> io::Result<UnixStream> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.connect_timeout(&SockAddr::unix(&self.socket)?, patience)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        Ok(OwnedFd::from(socket).into())
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

/// Status and body of an answer that has come to its end.
fn parse(answer: &[u8]) -> Result<(u16, &[u8]), CliError> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(head)) = response.parse(answer) else {
        return Err(CliError::Answer);
    };
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
    match (response.code, answer.get(head..)) {
        (Some(status), Some(body)) if length == Some(body.len()) => Ok((status, body)),
        _ => Err(CliError::Answer),
    }
}

/// An answer as the type that it is. It is read from its text: a second way of reading, out of a [`Value`],
/// would cost the program 80 KB.
///
/// # Errors
/// When the server means something else by it.
pub fn read<T: DeserializeOwned>(answer: &Value) -> Result<T, CliError> {
    Ok(serde_json::from_str(&answer.to_string())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread;

    fn answer_of(raw: &'static [u8]) -> Result<Value, CliError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 4096];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(raw).unwrap();
        });
        let answer = Client::new(&path).get("/x");
        server.join().unwrap();
        answer
    }

    #[test]
    fn an_answer_is_read() {
        let answer = answer_of(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{\"a\": 1}");
        assert_eq!(answer.unwrap(), serde_json::json!({"a": 1}));
    }

    #[test]
    fn a_refusal_shows_the_message_of_the_server() {
        let raw = b"HTTP/1.1 404 Not Found\r\nContent-Length: 50\r\n\r\n{\"code\":5,\"message\":\"node not found\",\"details\":[]}";
        assert_eq!(answer_of(raw).unwrap_err().to_string(), "node not found");
    }

    #[test]
    fn a_connection_that_breaks_is_a_fault() {
        assert!(answer_of(b"").is_err());
        assert!(answer_of(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}").is_err());
    }

    #[test]
    fn a_missing_socket_asks_whether_hearth_runs() {
        let fault = Client::new(Path::new("/nonexistent/s")).get("/x");
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
