//! Tells the service manager how the process is.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use crate::system_clock;

/// The variable with the address of the service manager's socket. Source: `sd_notify(3)`.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// Longest status text, in bytes; the rest is cut off. It is shown on one line.
const STATUS_MAX: usize = 200;

/// How long a full queue of the service manager may hold the process up.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The way to the service manager, or to nobody. Clones share the way.
///
/// Nothing here fails: who does not hear is not told, and the log says why.
#[derive(Debug, Clone, Default)]
pub struct Manager(Option<Arc<Way>>);

#[derive(Debug)]
struct Way {
    socket: UnixDatagram,
    /// Looked up for each message, so that a service manager that has restarted is found again.
    address: SocketAddr,
}

impl Manager {
    /// The one that started this process and wants to be told (`$NOTIFY_SOCKET`), if there is one.
    pub fn of_this_process() -> Self {
        match std::env::var_os(VARIABLE) {
            Some(address) => Self::at(&address),
            None => Self::default(),
        }
    }

    /// The one that listens at this address: an absolute path, or `@` and a name without a file.
    pub fn at(address: &OsStr) -> Self {
        match way(address) {
            Ok(way) => Self(Some(Arc::new(way))),
            Err(fault) => {
                tracing::warn!(?address, %fault, "the service manager cannot be told anything");
                Self::default()
            }
        }
    }

    /// Whether anybody is told.
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// The process has started, or has read its configuration again, and does its work.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}\n", line(status)));
    }

    /// The process reads its configuration again; [`Manager::ready`] has to follow.
    pub fn reloading(&self) {
        // With the time systemd tells this answer from the answer to an earlier request.
        let now = system_clock::monotonic().as_micros();
        self.tell(&format!(
            "RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reading the configuration again\n"
        ));
    }

    /// The process ends.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping\n");
    }

    /// What the process does, for people.
    pub fn status(&self, status: &str) {
        self.tell(&format!("STATUS={}\n", line(status)));
    }

    /// The process lives; see [`super::Watchdog`].
    pub fn alive(&self) {
        self.tell("WATCHDOG=1\n");
    }

    fn tell(&self, message: &str) {
        let Some(way) = &self.0 else {
            return;
        };
        if let Err(fault) = way.socket.send_to_addr(message.as_bytes(), &way.address) {
            tracing::debug!(%fault, "the service manager was not told");
        }
    }
}

fn way(address: &OsStr) -> io::Result<Way> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => {
            let fault = "neither an absolute path nor an abstract name";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, fault));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    Ok(Way { socket, address })
}

/// The first line of a text, as far as it is shown. What follows would be read as another variable.
fn line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut length: usize = 0;
    let fits = |sign: &char| {
        length = length.saturating_add(sign.len_utf8());
        length <= STATUS_MAX
    };
    line.chars().take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut room = [0; 1024];
        let length = socket.recv(&mut room).unwrap();
        String::from_utf8(room[..length].to_vec()).unwrap()
    }

    #[test]
    fn each_message_is_one_datagram_with_a_line_for_each_variable() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::at(path.as_os_str());
        assert!(manager.is_there());
        manager.ready("serving\nMAINPID=1");
        assert_eq!(heard(&socket), "READY=1\nSTATUS=serving\n");
        manager.stopping();
        assert_eq!(heard(&socket), "STOPPING=1\nSTATUS=stopping\n");
        manager.alive();
        assert_eq!(heard(&socket), "WATCHDOG=1\n");
        manager.status(&"ä".repeat(300));
        assert_eq!(heard(&socket), format!("STATUS={}\n", "ä".repeat(100)));
        let before = system_clock::monotonic();
        manager.reloading();
        let text = heard(&socket);
        let time = text.lines().find_map(|line| {
            let micros = line.strip_prefix("MONOTONIC_USEC=")?;
            Some(Duration::from_micros(micros.parse().ok()?))
        });
        assert!(text.starts_with("RELOADING=1\n"), "{text}");
        assert!(time.is_some_and(|time| time.abs_diff(before) < Duration::from_secs(5)));
    }

    #[test]
    fn a_manager_that_has_restarted_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let first = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::at(path.as_os_str());
        drop(first);
        std::fs::remove_file(&path).unwrap();
        manager.status("nobody hears this");
        let second = UnixDatagram::bind(&path).unwrap();
        manager.status("back");
        assert_eq!(heard(&second), "STATUS=back\n");
    }

    #[test]
    fn abstract_names_are_understood_and_nonsense_is_nobody() {
        let name = format!("hearth-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        Manager::at(OsStr::new(&format!("@{name}"))).status("hello");
        assert_eq!(heard(&socket), "STATUS=hello\n");
        for nonsense in ["", "relative", "vsock:2:1234"] {
            assert!(!Manager::at(OsStr::new(nonsense)).is_there(), "{nonsense}");
        }
        Manager::default().ready("to nobody");
    }
}
