//! Talks to a running hearth over its socket.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::api::ErrorAnswer;
use crate::config::{Config, Overrides, SOCKET_NAME, SYSTEM_DATA_DIR, SYSTEM_SOCKET, Surroundings};
pub use crate::net::query::escaped;

/// Environment variable with the path of the socket.
pub const SOCKET_VARIABLE: &str = "HEARTH_SOCKET";

/// Longest answer that is read, in bytes: a full tailnet of nodes fits many times.
const ANSWER_MAX: u64 = 64 << 20;
/// Timeout of a request. Slow flash may need seconds for a commit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout of a backup: a small board compresses some hundred KB a second.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(300);

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Nothing listens at the socket.
    #[error("no hearth server answers at {}", .path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The socket may not be opened.
    #[error("permission denied: {}", .path.display())]
    Denied {
        /// The socket.
        path: PathBuf,
    },
    /// The socket cannot be opened for another reason.
    #[error("cannot open {}: {source}", .path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// No answer came in time.
    #[error("no answer from the server within {} s", .within.as_secs())]
    Timeout {
        /// The timeout.
        within: Duration,
    },
    /// The connection broke.
    #[error("the connection to the server broke: {0}")]
    Connection(io::Error),
    /// The answer cannot be read.
    #[error("unexpected answer from the server")]
    Answer,
    /// The server refused the request.
    #[error("{0}")]
    Refused(String),
    /// The command itself is invalid or failed.
    #[error("{0}")]
    Command(String),
    /// The person did not confirm the command.
    #[error("not confirmed; nothing was changed")]
    Declined,
}

impl CliError {
    /// The next step for a person, as a sentence.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotRunning { .. } => "Is `hearth serve` running? If it uses another data directory, \
                                        name its socket with `--socket PATH` or HEARTH_SOCKET."
                .into(),
            Self::Denied { .. } => match repeatable(std::env::args_os().skip(1)) {
                Some(line) => format!("Try: sudo {line}"),
                None => "Run the command as root or as the user that runs hearth.".into(),
            },
            Self::Timeout { .. } | Self::Connection(_) => {
                "See the log of the server (`journalctl -u hearth`, or `logread -e hearth` on OpenWrt).".into()
            }
            Self::Answer => "Is the server another version? Compare `hearth version` and `hearth status`.".into(),
            Self::Refused(message) => next(message)?.into(),
            Self::Socket { .. } | Self::Command(_) | Self::Declined => return None,
        })
    }
}

/// The next step after a refusal that contains this. The messages themselves are those of Headscale, which programs
/// compare, and give no advice.
const NEXT: &[(&str, &str)] = &[
    (
        "expiration is in the past",
        "For example `hearth preauthkeys create --user NAME --expiration 24h`.",
    ),
    ("node not found", "See `hearth nodes list`."),
    (
        "user not found",
        "See `hearth users list`; create one with `hearth users create NAME`.",
    ),
    (
        "key not found",
        "See `hearth preauthkeys list` or `hearth apikeys list`.",
    ),
    ("no pending registration", "See `hearth pending list`."),
    ("SSH connection", "See `hearth ssh list`."),
    ("invalid id", "See `hearth ssh list`."),
    ("invalid auth_id", "See `hearth pending list`."),
    (
        "missing user",
        "Add `--user NAME`; see `hearth users list`.",
    ),
    (
        "is ambiguous",
        "See `hearth nodes list` and `hearth users list`.",
    ),
    (
        "was already approved or rejected",
        "See `hearth pending list` and `hearth nodes list`.",
    ),
    (
        "requested tags",
        "Who may have a tag is in `tagOwners` of the policy: see `hearth policy get`.",
    ),
    ("policy version not found", "See `hearth policy history`."),
    (
        "no earlier policy",
        "See `hearth policy history`; set one with `hearth policy set FILE`.",
    ),
    (
        "has no nodes",
        "Add a device with `hearth invite`, or name a node: see `hearth nodes list`.",
    ),
    ("no such DNS record", "See `hearth dns list`."),
    ("already has this record", "See `hearth dns list`."),
    (
        "invalid resolver",
        "See `hearth nodes add-wireguard --help`.",
    ),
    (
        "record",
        "For example `hearth dns add printer 192.168.1.20`.",
    ),
    (
        "IP address",
        "For example `hearth dns add printer 192.168.1.20`.",
    ),
    ("ALIAS value", "See `hearth nodes list`."),
    ("a user named", "See `hearth users list`."),
    (
        "invalid user name",
        "For example `hearth users create anna`.",
    ),
    (
        "user not empty",
        "See `hearth nodes list --user NAME`; move a node with `hearth nodes move NODE --user NAME`.",
    ),
    ("a node named", "See `hearth nodes list`."),
    (
        "invalid node name",
        "For example `hearth nodes rename NODE nas`.",
    ),
    (
        "invalid tag",
        "For example `hearth nodes tag NODE --tags tag:server`.",
    ),
    (
        "already registered to that owner",
        "See `hearth nodes list`; delete one with `hearth nodes delete NODE`.",
    ),
    ("address", "See `hearth nodes list`."),
    ("WireGuard-only", "See `hearth nodes add-wireguard --help`."),
    (
        "invalid attribute",
        "For example `hearth nodes attributes NODE custom:name=value`.",
    ),
    ("already used by node", "See `hearth nodes list`."),
    (
        "needs a user or tags",
        "For example `hearth preauthkeys create --user NAME`.",
    ),
    (
        "invalid route",
        "For example `hearth nodes approve-routes NODE --routes 192.168.1.0/24`.",
    ),
    (
        "the tailnet is full",
        "Delete nodes that are gone: see `hearth nodes list`.",
    ),
    ("too many users", "See `hearth users list`."),
    (
        "too many preauth keys",
        "Delete some: see `hearth preauthkeys list`.",
    ),
    (
        "too many API keys",
        "Delete some: see `hearth apikeys list`.",
    ),
    (
        "too many DNS records",
        "Delete some: see `hearth dns list`.",
    ),
    ("policy", "See `hearth policy check --help`."),
];

/// The next step after any other refusal.
const HELP: &str = "See `hearth help`; `hearth doctor` checks the server.";

/// The next step after a refusal, unless its message has it.
fn next(message: &str) -> Option<&'static str> {
    if message.contains("hearth ") {
        return None;
    }
    let known = NEXT.iter().find(|(part, _)| message.contains(part));
    Some(known.map_or(HELP, |(_, next)| next))
}

/// The command line with these arguments, if it can be typed again as it is, without quotes.
fn repeatable(arguments: impl Iterator<Item = OsString>) -> Option<String> {
    let arguments: Option<Vec<String>> = arguments
        .map(|argument| argument.into_string().ok().filter(|text| !text.is_empty()))
        .collect();
    let line = arguments?.join(" ");
    let is_simple = |byte: u8| byte.is_ascii_alphanumeric() || b" -_.,:/=@".contains(&byte);
    line.bytes()
        .all(is_simple)
        .then(|| format!("hearth {line}"))
}

impl From<serde_json::Error> for CliError {
    fn from(_: serde_json::Error) -> Self {
        Self::Answer
    }
}

/// A client of a running server: one connection for each request.
#[derive(Debug)]
pub struct Client {
    given: Option<PathBuf>,
    socket: OnceLock<PathBuf>,
}

impl Client {
    /// A client of the server behind this socket; without one, of the socket that `HEARTH_SOCKET` names, or
    /// the usual one. Which one that is, is looked up at the first request.
    pub fn new(socket: Option<PathBuf>) -> Self {
        Self {
            given: socket,
            socket: OnceLock::new(),
        }
    }

    fn socket(&self) -> &Path {
        let variable = || std::env::var_os(SOCKET_VARIABLE).map(PathBuf::from);
        self.socket.get_or_init(|| {
            let named = self.given.clone().or_else(variable);
            named.unwrap_or_else(usual_socket)
        })
    }

    /// Sends a GET request.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub fn get(&self, path: &str) -> Result<Value, CliError> {
        self.get_within(path, ANSWER_TIMEOUT)
    }

    /// Sends a GET request with a timeout of its own.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses or is late.
    pub fn get_within(&self, path: &str, within: Duration) -> Result<Value, CliError> {
        self.exchange("GET", path, &[], within)
    }

    /// Sends a POST request.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub fn post(&self, path: &str, body: &impl Serialize) -> Result<Value, CliError> {
        self.exchange("POST", path, &serde_json::to_vec(body)?, ANSWER_TIMEOUT)
    }

    /// Sends a PUT request.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub fn put(&self, path: &str, body: &impl Serialize) -> Result<Value, CliError> {
        self.exchange("PUT", path, &serde_json::to_vec(body)?, ANSWER_TIMEOUT)
    }

    /// Sends a DELETE request.
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
        let (status, body) = self.request(method, path, body, within)?;
        if (200..300).contains(&status) {
            return Ok(serde_json::from_slice(&body)?);
        }
        Err(refused(status, &body))
    }

    /// Sends a GET request for something that is not JSON.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub fn download(&self, path: &str) -> Result<Vec<u8>, CliError> {
        let (status, body) = self.request("GET", path, &[], DOWNLOAD_TIMEOUT)?;
        match (200..300).contains(&status) {
            true => Ok(body),
            false => Err(refused(status, &body)),
        }
    }

    /// Sends a request and gives status and body of the answer.
    fn request(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
        within: Duration,
    ) -> Result<(u16, Vec<u8>), CliError> {
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
        let (status, head) = parse(&answer)?;
        answer.drain(..head);
        Ok((status, answer))
    }

    fn connect(&self, patience: Duration) -> io::Result<UnixStream> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.connect_timeout(&SockAddr::unix(self.socket())?, patience)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        Ok(OwnedFd::from(socket).into())
    }

    fn socket_fault(&self, source: io::Error) -> CliError {
        let path = self.socket().to_owned();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                CliError::NotRunning { path }
            }
            io::ErrorKind::PermissionDenied => CliError::Denied { path },
            _ => CliError::Socket { path, source },
        }
    }
}

/// The socket of the server that the default configuration describes. A person without a server of their own
/// means that of the system.
fn usual_socket() -> PathBuf {
    let config = Config::load(Overrides::default(), &Surroundings::of_this_process());
    let of_system = Path::new(SYSTEM_DATA_DIR).join(SOCKET_NAME);
    first_existing([config.socket, of_system, SYSTEM_SOCKET.into()])
}

/// The first of these sockets that exists, or else that may exist; otherwise the first one. Messages then name it.
fn first_existing<const N: usize>(sockets: [PathBuf; N]) -> PathBuf {
    let is_there = |path: &&PathBuf| path.metadata().is_ok();
    // No permission to look is a sign that it exists.
    let may_be = |path: &&PathBuf| {
        let error = path.metadata().err();
        error.is_some_and(|error| error.kind() != io::ErrorKind::NotFound)
    };
    let mut found = sockets.iter().find(is_there);
    found = found.or_else(|| sockets.iter().find(may_be));
    let found = found.cloned();
    found.unwrap_or_else(|| sockets.into_iter().next().unwrap_or_default())
}

fn refused(status: u16, body: &[u8]) -> CliError {
    CliError::Refused(match serde_json::from_slice::<ErrorAnswer>(body) {
        Ok(answer) => answer.message,
        Err(_) => format!("hearth answered {status}"),
    })
}

/// Status of a complete answer, and the length of its head.
fn parse(answer: &[u8]) -> Result<(u16, usize), CliError> {
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
        (Some(status), Some(body)) if length == Some(body.len()) => Ok((status, head)),
        _ => Err(CliError::Answer),
    }
}

/// An answer as its type. It is parsed from its text: a second deserializer, out of a [`Value`], would cost
/// the program 80 KB.
///
/// # Errors
/// When it has another shape.
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
        let answer = Client::new(Some(path)).get("/x");
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
        let fault = Client::new(Some("/nonexistent/s".into())).get("/x");
        let fault = fault.unwrap_err();
        assert!(fault.to_string().contains("/nonexistent/s"), "{fault}");
        let hint = fault.hint().unwrap();
        assert!(
            hint.contains("Is `hearth serve` running?") && hint.contains("--socket"),
            "{hint}"
        );
    }

    #[test]
    fn a_refusal_ends_with_the_command_that_helps() {
        let hint = |text: &str| CliError::Refused(text.into()).hint();
        assert_eq!(
            hint("node not found").as_deref(),
            Some("See `hearth nodes list`.")
        );
        for (refusal, command) in [
            ("there is no earlier policy", "`hearth policy history`"),
            ("user anna has no nodes", "`hearth invite`"),
        ] {
            let next = hint(refusal).unwrap();
            assert!(next.contains(command), "{refusal}: {next}");
        }
        assert_eq!(hint("something else").as_deref(), Some(HELP));
        assert_eq!(hint("do this: `hearth status`"), None);
    }

    #[test]
    fn every_refusal_of_the_state_has_a_next_step() {
        use hearth_core::state::command::Rejected;
        let name = || Box::<str>::from("x");
        let id = hearth_core::id::NodeId::FIRST;
        for rejected in [
            Rejected::TooManyNodes { limit: 1 },
            Rejected::NoAddress,
            Rejected::TagsNotPermitted("[\"tag:a\"]".into()),
            Rejected::NoSuchUser,
            Rejected::NoSuchNode,
            Rejected::NoSuchKey,
            Rejected::NoSuchPolicy,
            Rejected::NoSuchLogin,
            Rejected::LoginDecided,
            Rejected::UserNameTaken(name()),
            Rejected::BadUserName(name()),
            Rejected::UserHasNodes { nodes: 1 },
            Rejected::NodeNameTaken(name()),
            Rejected::BadNodeName(name()),
            Rejected::BadTag(name()),
            Rejected::NoTags,
            Rejected::MachineHasNode(id),
            Rejected::AddressTaken([100, 64, 0, 1].into(), id),
            Rejected::WireGuardOnly,
            Rejected::NoEndpoint,
            Rejected::BadResolver(name()),
            Rejected::KeyTaken(id),
            Rejected::BadAttribute(name()),
            Rejected::KeyWithoutOwner,
            Rejected::NoSuchDnsRecord,
            Rejected::DnsRecordExists(name()),
            Rejected::TooMany {
                what: "users",
                limit: 1,
            },
        ] {
            let text = rejected.to_string();
            let step = next(&text).unwrap_or(&text);
            assert!(step.contains("`hearth ") && step != HELP, "{text}: {step}");
        }
    }

    #[test]
    fn without_permission_the_same_command_is_offered_with_sudo() {
        let line = |words: &[&str]| repeatable(words.iter().map(OsString::from));
        assert_eq!(line(&["status"]).as_deref(), Some("hearth status"));
        assert_eq!(
            line(&["nodes", "list", "-o", "json"]).as_deref(),
            Some("hearth nodes list -o json")
        );
        assert_eq!(line(&["users", "create", "a b;c"]), None);
        assert_eq!(line(&["nodes", "approve-routes", "-r", ""]), None);
    }

    #[test]
    fn the_socket_is_looked_for_where_servers_have_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        let look = || first_existing([path("own"), path("system"), path("package")]);
        assert_eq!(look(), path("own"), "messages name the usual one");
        crate::files::replace(&path("package"), b"").unwrap();
        assert_eq!(look(), path("package"));
        crate::files::replace(&path("own"), b"").unwrap();
        assert_eq!(look(), path("own"));
        // Below a file nothing can be looked at, which is no proof that nothing is there.
        let hidden = path("own").join("socket");
        assert_eq!(first_existing([path("none"), hidden.clone()]), hidden);
        assert_eq!(first_existing([hidden, path("package")]), path("package"));
    }

    #[test]
    fn names_cannot_leave_their_part_of_the_path() {
        assert_eq!(escaped("a/../b c?ü"), "a%2F..%2Fb%20c%3F%C3%BC");
    }
}
