//! Notifications to the service manager.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use crate::system_clock;

/// The environment variable with the address of the service manager's socket. Source: `sd_notify(3)`.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// Longest status, in bytes; the rest is truncated. It is shown on one line.
const STATUS_MAX: usize = 200;

/// Timeout of a notification when the queue of the service manager is full.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends notifications to the service manager, if there is one. Clones share the socket.
///
/// Nothing here fails: failures are logged.
#[derive(Debug, Clone, Default)]
pub struct SystemdNotifier(Option<Arc<NotifySocket>>);

#[derive(Debug)]
struct NotifySocket {
    socket: UnixDatagram,
    /// Resolved for each message, so that a restarted service manager is found again.
    address: SocketAddr,
}

impl SystemdNotifier {
    /// The service manager of this process (`$NOTIFY_SOCKET`), if there is one.
    pub fn of_this_process() -> Self {
        match std::env::var_os(VARIABLE) {
            Some(address) => Self::at(&address),
            None => Self::default(),
        }
    }

    /// The service manager at this address: an absolute path, or `@` and an abstract name.
    pub fn at(address: &OsStr) -> Self {
        match open(address) {
            Ok(socket) => Self(Some(Arc::new(socket))),
            Err(fault) => {
                tracing::warn!(?address, %fault, "cannot notify the service manager");
                Self::default()
            }
        }
    }

    /// Whether there is a service manager.
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// The process has started or reloaded its configuration, and is ready.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}\n", line(status)));
    }

    /// The process reloads its configuration; [`SystemdNotifier::ready`] must follow.
    pub fn reloading(&self) {
        // By the time systemd matches this to its request.
        let now = system_clock::monotonic().as_micros();
        self.send(&format!(
            "RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reloading the configuration\n"
        ));
    }

    /// The process stops.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stopping\n");
    }

    /// The status, for people.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={}\n", line(status)));
    }

    /// The watchdog keepalive; see [`super::Watchdog`].
    pub fn alive(&self) {
        self.send("WATCHDOG=1\n");
    }

    fn send(&self, message: &str) {
        let Some(notify) = &self.0 else {
            return;
        };
        if let Err(fault) = notify
            .socket
            .send_to_addr(message.as_bytes(), &notify.address)
        {
            tracing::debug!(%fault, "cannot notify the service manager");
        }
    }
}

fn open(address: &OsStr) -> io::Result<NotifySocket> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => {
            let fault = "expected an absolute path or an abstract name";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, fault));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    Ok(NotifySocket { socket, address })
}

/// The first line of a text, truncated. A further line would be another variable.
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
        let notifier = SystemdNotifier::at(path.as_os_str());
        assert!(notifier.is_there());
        notifier.ready("serving\nMAINPID=1");
        assert_eq!(heard(&socket), "READY=1\nSTATUS=serving\n");
        notifier.stopping();
        assert_eq!(heard(&socket), "STOPPING=1\nSTATUS=stopping\n");
        notifier.alive();
        assert_eq!(heard(&socket), "WATCHDOG=1\n");
        notifier.status(&"ä".repeat(300));
        assert_eq!(heard(&socket), format!("STATUS={}\n", "ä".repeat(100)));
        let before = system_clock::monotonic();
        notifier.reloading();
        let text = heard(&socket);
        let time = text.lines().find_map(|line| {
            let micros = line.strip_prefix("MONOTONIC_USEC=")?;
            Some(Duration::from_micros(micros.parse().ok()?))
        });
        assert!(text.starts_with("RELOADING=1\n"), "{text}");
        assert!(time.is_some_and(|time| time.abs_diff(before) < Duration::from_secs(5)));
    }

    #[test]
    fn a_restarted_service_manager_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let first = UnixDatagram::bind(&path).unwrap();
        let notifier = SystemdNotifier::at(path.as_os_str());
        drop(first);
        std::fs::remove_file(&path).unwrap();
        notifier.status("nobody hears this");
        let second = UnixDatagram::bind(&path).unwrap();
        notifier.status("back");
        assert_eq!(heard(&second), "STATUS=back\n");
    }

    #[test]
    fn abstract_names_are_supported_and_invalid_addresses_ignored() {
        let name = format!("hearth-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        SystemdNotifier::at(OsStr::new(&format!("@{name}"))).status("hello");
        assert_eq!(heard(&socket), "STATUS=hello\n");
        for nonsense in ["", "relative", "vsock:2:1234"] {
            assert!(
                !SystemdNotifier::at(OsStr::new(nonsense)).is_there(),
                "{nonsense}"
            );
        }
        SystemdNotifier::default().ready("to nobody");
    }
}
