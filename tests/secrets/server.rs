//! The program, started with a log of its own.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use data_encoding::BASE64;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hearth");

/// How often is looked whether something has happened, and how many times.
const LOOK: Duration = Duration::from_millis(25);
const LOOKS: usize = 1200;

/// A running server or relay.
pub struct Server {
    child: Child,
    directory: Option<tempfile::TempDir>,
    /// Its listener for plain HTTP.
    pub address: SocketAddr,
}

/// How a request shows its key.
pub enum Auth<'a> {
    None,
    Bearer(&'a str),
    Basic(&'a str),
}

/// An answer of HTTP.
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Server {
    /// Starts `hearth COMMAND` with a configuration that is made for its directory.
    pub async fn start(command: &str, config: impl Fn(&Path) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hearth.toml");
        hearth::files::replace(&file, config(directory.path()).as_bytes()).unwrap();
        let output = |name: &str| File::create(directory.path().join(name)).unwrap();
        let child = Command::new(PROGRAM)
            .args([command, "--config"])
            .arg(&file)
            .arg("--data-dir")
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(output("banner"))
            .stderr(output("log"))
            .spawn()
            .unwrap();
        let banner = directory.path().join("banner");
        let log = directory.path().join("log");
        let mut server = Self {
            child,
            directory: Some(directory),
            address: ([127, 0, 0, 1], 0).into(),
        };
        for _ in 0..LOOKS {
            let text = std::fs::read_to_string(&banner).unwrap();
            let is_ready = std::fs::read_to_string(&log).unwrap().contains(" ready");
            if let (Some(address), true) = (listener(&text), is_ready) {
                server.address = address;
                return server;
            }
            tokio::time::sleep(LOOK).await;
        }
        panic!("{command} does not start: {}", server.log());
    }

    /// A file in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.as_ref().unwrap().path().join(name)
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    /// Runs a command against it.
    pub async fn hearth(&self, line: &str) -> Output {
        tokio::process::Command::new(PROGRAM)
            .env("HEARTH_SOCKET", self.path("hearth.sock"))
            .args(line.split_whitespace())
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap()
    }

    /// Standard output of a command that succeeds.
    pub async fn good(&self, line: &str) -> String {
        let output = self.hearth(line).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// `GET` of a path.
    pub async fn get(&self, path: &str, auth: &Auth<'_>) -> Answer {
        http(self.address, "GET", path, auth, "").await
    }

    /// The listener that is not one of those for HTTP and HTTPS: the one for metrics.
    pub fn metrics(&self) -> SocketAddr {
        let banner = std::fs::read_to_string(self.path("banner")).unwrap();
        let process = self.child.id();
        let sockets = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
        let sockets: Vec<String> = sockets
            .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok())
            .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.replace(']', "")))
            .collect();
        // Fields: number, local address, remote address, state (0A listens) … 9 is the inode. Source: proc_net_tcp(5).
        let table = std::fs::read_to_string(format!("/proc/{process}/net/tcp")).unwrap();
        let mut ports = table.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_ours = fields[3] == "0A" && sockets.iter().any(|inode| inode == fields[9]);
            let (_, port) = fields[1].split_once(':')?;
            is_ours.then(|| u16::from_str_radix(port, 16).unwrap())
        });
        let port = ports
            .find(|port| !banner.contains(&format!(":{port}\n")))
            .unwrap();
        ([127, 0, 0, 1], port).into()
    }

    /// Stops it; gives its log and its directory.
    pub fn stop(mut self) -> (String, tempfile::TempDir) {
        let process = self.child.id().to_string();
        let stopping = Command::new("kill").args(["-TERM", &process]).status();
        assert!(stopping.unwrap().success());
        let ended = self.child.wait().unwrap();
        let log = self.log();
        assert!(ended.success(), "{ended}: {log}");
        (log, self.directory.take().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address of the line `http` in what the program says at its start.
fn listener(banner: &str) -> Option<SocketAddr> {
    let line = banner
        .lines()
        .find(|line| line.trim_start().starts_with("http "))?;
    let address = line.split_whitespace().last()?;
    address.trim_start_matches("http://").parse().ok()
}

/// One request on a connection of its own.
pub async fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    auth: &Auth<'_>,
    body: &str,
) -> Answer {
    let auth = match auth {
        Auth::None => String::new(),
        Auth::Bearer(key) => format!("Authorization: Bearer {key}\r\n"),
        Auth::Basic(key) => {
            let pair = BASE64.encode(format!("{key}:").as_bytes());
            format!("Authorization: Basic {pair}\r\n")
        }
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: hearth\r\nConnection: close\r\n{auth}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Answer {
        status: status.unwrap_or_else(|| panic!("{method} {path}: {answer}")),
        body: answer,
    }
}
