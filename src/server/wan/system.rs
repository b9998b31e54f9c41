//! What the system says about its addresses, and when it has news.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netdevice, recv, send,
    socket_with,
};
use tokio::net::UnixDatagram;

use super::home::has_way_out;
use hearth_core::wan::choose::{Outer, choose};
use hearth_core::wan::netlink::{GROUPS, Progress, Question, Table, question};
use hearth_core::wan::{Addresses, NoticedBy};

/// Room for one datagram of the kernel; it makes them no longer. Source: `NLMSG_GOODSIZE` and
/// `netlink_dump` in Linux `net/netlink/af_netlink.c`.
const DATAGRAM: usize = 32 * 1024;

/// Most datagrams of one answer: routers with more routes than fit are no homes, and the default routes come
/// first.
const DATAGRAMS: usize = 64;

/// Documentation addresses (RFC 5737, RFC 3849) that stand for "the internet": nothing is sent there.
const FAR_AWAY: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        9,
    ),
];

/// The system's network.
pub(super) struct System {
    /// Where the kernel tells of changes; `None` where it does not, as in some containers.
    events: Option<UnixDatagram>,
    wanted: Option<String>,
}

impl System {
    /// Begins to listen for changes. `wanted` is the interface that the owner chose.
    pub(super) fn open(wanted: Option<String>) -> Self {
        let events = netlink(GROUPS).and_then(|socket| {
            // tokio has no socket of this kind; all that is done with it is to wait and to receive.
            UnixDatagram::from_std(std::os::unix::net::UnixDatagram::from(socket))
        });
        if let Err(fault) = &events {
            tracing::info!(%fault, "the system does not tell of new addresses: hearth looks now and then");
        }
        Self {
            events: events.ok(),
            wanted,
        }
    }

    /// How changes are noticed.
    pub(super) fn noticed_by(&self) -> NoticedBy {
        match self.events {
            Some(_) => NoticedBy::Netlink,
            None => NoticedBy::Looking,
        }
    }

    /// Waits until something may have changed, and forgets what is known of it. Cancel safe.
    pub(super) async fn changed(&self) {
        let Some(events) = &self.events else {
            return std::future::pending().await;
        };
        if events.readable().await.is_err() {
            return std::future::pending().await;
        }
        self.drain();
    }

    /// Forgets the news that have come so far.
    pub(super) fn drain(&self) {
        let Some(events) = &self.events else {
            return;
        };
        let mut buffer = [0; 4096];
        // More than these come with the next turn. A fault such as a full buffer is news as well.
        for _ in 0..DATAGRAMS {
            match events.try_recv(&mut buffer) {
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Looks at the addresses. Takes well under a millisecond.
    pub(super) fn look(&self) -> Outer {
        match self.ask() {
            Ok(outer) => outer,
            Err(fault) => {
                tracing::debug!(%fault, "no answer about addresses from the kernel");
                guess()
            }
        }
    }

    fn ask(&self) -> io::Result<Outer> {
        let socket = netlink(0)?;
        let mut table = Table::default();
        for (number, what) in [(1, Question::Addresses), (2, Question::Routes)] {
            send(&socket, &question(what, number), SendFlags::empty())?;
            read_answer(&socket, &mut table, number)?;
        }
        let of_addresses = table.addresses.iter().map(|address| address.interface);
        let of_routes = table.routes.iter().map(|route| route.interface);
        let mut names = BTreeMap::new();
        for number in of_addresses.chain(of_routes) {
            names
                .entry(number)
                .or_insert_with(|| netdevice::index_to_name(&socket, number).unwrap_or_default());
        }
        Ok(choose(&table, &names, self.wanted.as_deref()))
    }
}

fn netlink(groups: u32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Without a protocol it is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

fn read_answer(socket: &OwnedFd, table: &mut Table, number: u32) -> io::Result<()> {
    let mut buffer = vec![0; DATAGRAM];
    for _ in 0..DATAGRAMS {
        let (length, _) = recv(socket, &mut *buffer, RecvFlags::empty())?;
        match table.read(buffer.get(..length).unwrap_or_default(), number) {
            Progress::More => {}
            Progress::Done => return Ok(()),
            Progress::Refused => return Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
    Ok(())
}

/// Without the kernel's tables: the addresses from which packets would leave.
fn guess() -> Outer {
    let source = |far_away: SocketAddr| {
        let any: IpAddr = match far_away {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(far_away).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let mut addresses = Addresses::default();
    for ip in FAR_AWAY.into_iter().filter_map(source) {
        match ip {
            IpAddr::V4(v4) => addresses.v4 = Some(v4),
            IpAddr::V6(v6) => addresses.v6 = Some(v6),
        }
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    Outer {
        interface: String::new(),
        addresses: Addresses {
            v4: addresses.v4,
            v6: addresses.public().v6,
        },
        all: interfaces.iter().map(if_addrs::Interface::ip).collect(),
        has_route: has_way_out(),
        gateway: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_answers_and_both_ways_of_looking_agree() {
        let system = System::open(None);
        let outer = system.ask().unwrap();
        let loopback: IpAddr = [127, 0, 0, 1].into();
        assert!(!outer.all.contains(&loopback), "{outer:?}");
        let named: Vec<IpAddr> = outer.addresses.iter().collect();
        assert!(named.iter().all(|ip| outer.all.contains(ip)), "{outer:?}");
        let guessed = guess();
        if outer.addresses.v4.is_some() && guessed.addresses.v4.is_some() {
            assert_eq!(outer.addresses.v4, guessed.addresses.v4);
        }
        assert_eq!(outer.has_route, has_way_out());
    }
}
