//! Listening sockets that the service manager opened before it started this process.
//!
//! Such sockets stay open while hearth restarts: who connects meanwhile waits instead of being refused. And
//! the process needs no right to open low ports.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use crate::config::{ListenAddress, Overrides};

/// How many sockets there are. Source: `sd_listen_fds(3)`.
const COUNT_VARIABLE: &str = "LISTEN_FDS";
/// More sockets than this are none that were meant for hearth.
const SOCKETS_MAX: usize = 16;

/// Sockets handed over, by what they are for (`FileDescriptorName=` of the socket's unit).
#[derive(Debug, Default)]
pub struct Sockets {
    /// `http`: plain HTTP.
    pub http: Vec<TcpListener>,
    /// `https`: the same inside TLS.
    pub https: Vec<TcpListener>,
    /// `stun`: STUN (UDP).
    pub stun: Vec<UdpSocket>,
    /// What was handed over and cannot be used.
    pub faults: Vec<SocketFault>,
}

/// Why a socket that was handed over is not used.
#[derive(Debug, thiserror::Error)]
pub enum SocketFault {
    /// Its name says nothing.
    #[error(
        "the socket `{0}` that was handed over is not used: its FileDescriptorName is none of http, https and stun"
    )]
    Name(String),
    /// It is none, or the system refuses it.
    #[error("the socket `{name}` that was handed over is not used: {source}")]
    Broken {
        /// Its name.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// The variables say something else than how many there are, or far too many.
    #[error(
        "no socket that was handed over is used: LISTEN_FDS is not a number up to {SOCKETS_MAX}"
    )]
    Count,
}

impl Sockets {
    /// Takes what was handed over to this process. To be called once, at the start: what has been taken is
    /// owned.
    pub fn of_this_process() -> Self {
        let Ok(count) = std::env::var(COUNT_VARIABLE) else {
            return Self::default();
        };
        let is_sane = count.parse().is_ok_and(|count: usize| count <= SOCKETS_MAX);
        let handed_over = sd_listen_fds::get();
        let mut sockets = Self::default();
        match handed_over.ok().filter(|_| is_sane) {
            Some(handed_over) => {
                for (name, socket) in handed_over {
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
        // The copy, unlike the original, is not passed on to programs that this one runs.
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

    /// The flags with the addresses of these sockets: they come before what flags and file say, so that all
    /// that is told of the listeners (the server's URL, relays) fits the sockets that there are.
    pub fn come_before(&self, flags: Overrides) -> Overrides {
        let tcp = |sockets: &[TcpListener]| address(sockets.first()?.local_addr().ok());
        let udp = |sockets: &[UdpSocket]| address(sockets.first()?.local_addr().ok());
        Overrides {
            http: tcp(&self.http).or(flags.http),
            https: tcp(&self.https).or(flags.https),
            stun: udp(&self.stun).or(flags.stun),
            ..flags
        }
    }

    /// Whether nothing was handed over.
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
    fn addresses_of_sockets_come_before_flags_and_leave_the_others() {
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
        let flags = sockets.come_before(flags);
        assert_eq!(flags.http, Some(ListenAddress(None)));
        assert_eq!(flags.https, Some(ListenAddress(Some(at))));
        assert_eq!(flags.stun, None);
        assert!(!sockets.is_empty() && Sockets::default().is_empty());
    }

    #[test]
    fn what_has_a_name_of_ours_is_taken_and_the_rest_is_a_fault() {
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
        let flags = sockets.come_before(Overrides::default());
        assert_eq!(flags.http, Some(ListenAddress(Some(addresses.0))));
        assert_eq!(flags.stun, Some(ListenAddress(Some(addresses.1))));
    }
}
