//! Socket activation: listening sockets that the service manager opened before it started this process.
//!
//! They stay open while hearth restarts, so that clients wait instead of being refused. And the process needs no
//! permission to open low ports.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use crate::config::{ListenAddress, Overrides};

/// The environment variable with the number of sockets. Source: `sd_listen_fds(3)`.
const COUNT_VARIABLE: &str = "LISTEN_FDS";
/// Most sockets; more cannot be meant for hearth.
const SOCKETS_MAX: usize = 16;

/// Sockets by their use (`FileDescriptorName=` of the socket unit).
#[derive(Debug, Default)]
pub struct Sockets {
    /// `http`: plain HTTP.
    pub http: Vec<TcpListener>,
    /// `https`: the same over TLS.
    pub https: Vec<TcpListener>,
    /// `stun`: STUN (UDP).
    pub stun: Vec<UdpSocket>,
    /// Sockets that are not used.
    pub faults: Vec<SocketFault>,
}

/// Why a socket is not used.
#[derive(Debug, thiserror::Error)]
pub enum SocketFault {
    /// Its name is unknown.
    #[error(
        "ignoring socket `{0}` from the service manager: FileDescriptorName must be http, https or stun"
    )]
    Name(String),
    /// It is not a socket, or the system refuses it.
    #[error("ignoring socket `{name}` from the service manager: {source}")]
    Broken {
        /// Its name.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// The number of sockets is invalid.
    #[error(
        "ignoring all sockets from the service manager: LISTEN_FDS must be a number up to {SOCKETS_MAX}"
    )]
    Count,
}

impl Sockets {
    /// Takes the sockets of this process. Called once, at the start.
    pub fn of_this_process() -> Self {
        let Ok(count) = std::env::var(COUNT_VARIABLE) else {
            return Self::default();
        };
        let is_sane = count.parse().is_ok_and(|count: usize| count <= SOCKETS_MAX);
        let passed = sd_listen_fds::get();
        let mut sockets = Self::default();
        match passed.ok().filter(|_| is_sane) {
            Some(passed) => {
                for (name, socket) in passed {
                    let name = name.unwrap_or_default();
                    if let Err(fault) = sockets.take(name, &socket.into_std()) {
                        sockets.faults.push(fault);
                    }
                }
            }
            None => sockets.faults.push(SocketFault::Count),
        }
        sockets
    }

    fn take(&mut self, name: String, socket: &OwnedFd) -> Result<(), SocketFault> {
        // Unlike the original, the copy is not inherited by child processes.
        let copy = match socket.try_clone() {
            Ok(copy) => copy,
            Err(source) => return Err(SocketFault::Broken { name, source }),
        };
        match name.as_str() {
            "http" => self.http.push(copy.into()),
            "https" => self.https.push(copy.into()),
            "stun" => self.stun.push(copy.into()),
            _ => return Err(SocketFault::Name(name)),
        }
        Ok(())
    }

    /// The flags with the addresses of these sockets, which take precedence over flags and file: the server URL and
    /// the relay then match the actual listeners.
    pub fn override_flags(&self, flags: Overrides) -> Overrides {
        let tcp = |sockets: &[TcpListener]| address(sockets.first()?.local_addr().ok());
        let udp = |sockets: &[UdpSocket]| address(sockets.first()?.local_addr().ok());
        Overrides {
            http: tcp(&self.http).or(flags.http),
            https: tcp(&self.https).or(flags.https),
            stun: udp(&self.stun).or(flags.stun),
            ..flags
        }
    }

    /// Whether there are no sockets.
    pub fn is_empty(&self) -> bool {
        self.http.is_empty() && self.https.is_empty() && self.stun.is_empty()
    }
}

fn address(local: Option<SocketAddr>) -> Option<ListenAddress> {
    Some(ListenAddress(Some(local?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_sockets_override_their_flags_only() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let sockets = Sockets {
            https: vec![listener],
            ..Sockets::default()
        };
        let flags = Overrides {
            http: "off".parse().ok(),
            https: "off".parse().ok(),
            ..Overrides::default()
        };
        let flags = sockets.override_flags(flags);
        assert_eq!(flags.http, Some(ListenAddress(None)));
        assert_eq!(flags.https, Some(ListenAddress(Some(at))));
        assert_eq!(flags.stun, None);
        assert!(!sockets.is_empty() && Sockets::default().is_empty());
    }

    #[test]
    fn sockets_with_known_names_are_used_and_others_are_faults() {
        let (listener, socket) = (
            TcpListener::bind("127.0.0.1:0").unwrap(),
            UdpSocket::bind("127.0.0.1:0").unwrap(),
        );
        let addresses = (listener.local_addr().unwrap(), socket.local_addr().unwrap());
        let (listener, socket) = (OwnedFd::from(listener), OwnedFd::from(socket));
        let mut sockets = Sockets::default();
        sockets.take("http".into(), &listener).unwrap();
        sockets.take("stun".into(), &socket).unwrap();
        let fault = sockets.take("hearth.socket".into(), &listener).unwrap_err();
        assert!(fault.to_string().contains("`hearth.socket`"));
        let flags = sockets.override_flags(Overrides::default());
        assert_eq!(flags.http, Some(ListenAddress(Some(addresses.0))));
        assert_eq!(flags.stun, Some(ListenAddress(Some(addresses.1))));
    }
}
