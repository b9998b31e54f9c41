//! Interfaces, addresses and default routes of this machine, as the kernel reports them.
//!
//! The one place that asks: over rtnetlink, and where that is not allowed (as in some containers and jails) by the
//! source addresses that the kernel chooses.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netdevice, recv, send,
    socket_with,
};

use hearth_core::wan::Addresses;
use hearth_core::wan::netlink::{GROUPS, Progress, Request, Table, request};

/// Room for one datagram of the kernel, which are not longer. Source: `NLMSG_GOODSIZE` and
/// `netlink_dump` in Linux `net/netlink/af_netlink.c`.
const DATAGRAM: usize = 32 * 1024;

/// Most datagrams of one response: no home router has more routes, and the default routes come first.
const DATAGRAMS: usize = 64;

/// Documentation addresses (RFC 5737, RFC 3849) in place of an internet host: nothing is sent there.
const INTERNET: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        9,
    ),
];

/// Addresses and default routes, with the names of their interfaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// Addresses and default routes.
    pub table: Table,
    /// Names by interface number.
    pub names: BTreeMap<u32, String>,
}

impl Interfaces {
    /// Asks the kernel over netlink. Takes well under a millisecond.
    ///
    /// # Errors
    /// If the system does not allow netlink, or does not answer.
    pub fn read() -> io::Result<Self> {
        let socket = netlink(0)?;
        let mut table = Table::default();
        for (number, what) in [(1, Request::Addresses), (2, Request::Routes)] {
            send(&socket, &request(what, number), SendFlags::empty())?;
            read_response(&socket, &mut table, number)?;
        }
        let of_addresses = table.addresses.iter().map(|address| address.interface);
        let of_routes = table.routes.iter().map(|route| route.interface);
        let mut names = BTreeMap::new();
        for number in of_addresses.chain(of_routes) {
            names
                .entry(number)
                .or_insert_with(|| netdevice::index_to_name(&socket, number).unwrap_or_default());
        }
        Ok(Self { table, names })
    }

    /// The name of an interface; empty if unknown.
    pub fn name(&self, interface: u32) -> &str {
        self.names.get(&interface).map_or("", String::as_str)
    }
}

/// A socket on which the kernel announces changes of addresses and routes.
///
/// # Errors
/// If the system does not allow netlink.
pub fn watch() -> io::Result<OwnedFd> {
    netlink(GROUPS)
}

/// The source addresses of packets to the internet, one per family that has a route.
///
/// Connecting a UDP socket sends nothing, but makes the kernel choose a route.
pub fn route_sources() -> Addresses {
    let mut addresses = Addresses::default();
    for ip in INTERNET.into_iter().filter_map(route_source) {
        match ip {
            IpAddr::V4(v4) => addresses.v4 = Some(v4),
            IpAddr::V6(v6) => addresses.v6 = Some(v6),
        }
    }
    addresses
}

/// Whether this machine has a default route.
pub fn has_default_route() -> bool {
    match Interfaces::read() {
        Ok(interfaces) => !interfaces.table.routes.is_empty(),
        Err(_) => !route_sources().is_empty(),
    }
}

fn route_source(destination: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match destination {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(destination).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn netlink(groups: u32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Without a protocol it is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

fn read_response(socket: &OwnedFd, table: &mut Table, number: u32) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers_and_agrees_with_the_chosen_route() {
        let interfaces = Interfaces::read().unwrap();
        let addresses = &interfaces.table.addresses;
        let loopback = addresses
            .iter()
            .find(|address| address.ip == IpAddr::from([127, 0, 0, 1]))
            .unwrap();
        assert_eq!(interfaces.name(loopback.interface), "lo");
        let sources = route_sources();
        for source in sources.iter() {
            let is_known = addresses.iter().any(|address| address.ip == source);
            assert!(is_known, "{source}");
        }
        if interfaces.table.routes.iter().any(|route| !route.is_v6) {
            assert!(sources.v4.is_some());
        }
        assert_eq!(has_default_route(), !interfaces.table.routes.is_empty());
    }
}
