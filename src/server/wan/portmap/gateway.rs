//! A router that speaks PCP or NAT-PMP.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use hearth_core::wan::mapping::{Port, Protocol};
use hearth_core::wan::portmap::pcp::Nonce;
use hearth_core::wan::portmap::{ANSWER_MAX, Granted, Refusal, SERVER_PORT, nat_pmp, pcp};

/// Timeout of each try; the RFCs have more tries (RFC 6886 section 3.1), which home routers do not need.
const TRIES: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_millis(1000),
];

/// A router and the protocol that it is asked by.
pub(super) struct Gateway {
    socket: UdpSocket,
    address: IpAddr,
    own: Ipv4Addr,
    nonce: Nonce,
    protocol: Protocol,
    /// The external address, which PCP returns with each port.
    external: Mutex<Option<Ipv4Addr>>,
}

impl Gateway {
    /// The router at this address; `None` if it is unreachable.
    pub(super) async fn new(
        protocol: Protocol,
        address: IpAddr,
        own: Ipv4Addr,
        nonce: Nonce,
    ) -> Option<Self> {
        Self::at(protocol, SocketAddr::new(address, SERVER_PORT), own, nonce).await
    }

    async fn at(
        protocol: Protocol,
        address: SocketAddr,
        own: Ipv4Addr,
        nonce: Nonce,
    ) -> Option<Self> {
        // PCP requests must come from the mapped address (RFC 6887 section 8.1).
        let socket = UdpSocket::bind((own, 0)).await.ok()?;
        // Packets from others are not received.
        socket.connect(address).await.ok()?;
        Some(Self {
            socket,
            address: address.ip(),
            own,
            nonce,
            protocol,
            external: Mutex::new(None),
        })
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    /// Maps a port.
    pub(super) async fn map(
        &self,
        port: Port,
        lifetime: Duration,
    ) -> Result<Granted, Option<Refusal>> {
        let granted = match self.protocol {
            Protocol::Pcp => {
                let request = pcp::map_request(port, self.own, self.nonce, lifetime);
                let read = |packet: &[u8]| pcp::map_answer(packet, port, self.nonce);
                let answer = self.ask(&request, read).await.ok_or(None)?;
                answer.map(|(granted, external)| {
                    let mut known = self
                        .external
                        .lock()
                        .unwrap_or_else(|lock| lock.into_inner());
                    *known = external;
                    granted
                })
            }
            _ => {
                let request = nat_pmp::map_request(port, lifetime);
                let read = |packet: &[u8]| nat_pmp::map_answer(packet, port);
                self.ask(&request, read).await.ok_or(None)?
            }
        };
        granted.map_err(Some)
    }

    /// Removes a mapping. Without a response it expires.
    pub(super) async fn unmap(&self, port: Port) {
        let request = match self.protocol {
            Protocol::Pcp => pcp::map_request(port, self.own, self.nonce, Duration::ZERO),
            _ => nat_pmp::map_request(port, Duration::ZERO).to_vec(),
        };
        let _ = self.socket.send(&request).await;
    }

    /// The external address.
    pub(super) async fn external(&self) -> Option<Ipv4Addr> {
        if self.protocol == Protocol::Pcp {
            return *self
                .external
                .lock()
                .unwrap_or_else(|lock| lock.into_inner());
        }
        let request = nat_pmp::ADDRESS_REQUEST;
        self.ask(&request, nat_pmp::address_answer).await?.ok()
    }

    /// The response of the router, if any.
    async fn ask<A>(&self, request: &[u8], read: impl Fn(&[u8]) -> Option<A>) -> Option<A> {
        let mut buffer = [0; ANSWER_MAX];
        for patience in TRIES {
            self.socket.send(request).await.ok()?;
            let answer = timeout(patience, async {
                loop {
                    let length = self.socket.recv(&mut buffer).await.ok()?;
                    let packet = buffer.get(..length).unwrap_or_default();
                    if let Some(answer) = read(packet) {
                        return Some(answer);
                    }
                }
            });
            if let Ok(answer) = answer.await {
                // An error of the socket means that nothing listens there.
                return answer;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::wan::mapping::Transport;

    const PORT: Port = Port {
        transport: Transport::Tcp,
        number: 8080,
    };

    #[tokio::test]
    async fn a_lost_request_is_sent_again_and_a_mapping_is_removed() {
        let router = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let own = Ipv4Addr::LOCALHOST;
        let address = router.local_addr().unwrap();
        let gateway = Gateway::at(Protocol::NatPmp, address, own, [0; 12]).await;
        let gateway = gateway.unwrap();
        let serving = async {
            let mut packet = [0; 64];
            router.recv_from(&mut packet).await.unwrap();
            let (_, from) = router.recv_from(&mut packet).await.unwrap();
            let answer = [
                0, 130, 0, 0, 0, 0, 0, 9, 0x1f, 0x90, 0x1f, 0x91, 0, 0, 0x0e, 0x10,
            ];
            router.send_to(&answer, from).await.unwrap();
            let (length, _) = router.recv_from(&mut packet).await.unwrap();
            packet[..length].to_vec()
        };
        let asking = async {
            let granted = gateway.map(PORT, Duration::from_secs(7200)).await.unwrap();
            gateway.unmap(PORT).await;
            granted
        };
        let (last, granted) = tokio::join!(serving, asking);
        assert_eq!(granted.external, 8081);
        assert_eq!(last, nat_pmp::map_request(PORT, Duration::ZERO));
    }

    #[tokio::test]
    async fn where_nothing_listens_there_is_no_delay() {
        let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = gone.local_addr().unwrap();
        drop(gone);
        let own = Ipv4Addr::LOCALHOST;
        let gateway = Gateway::at(Protocol::Pcp, address, own, [0; 12]).await;
        let answer = gateway.unwrap().map(PORT, Duration::from_secs(7200)).await;
        assert_eq!(answer, Err(None));
    }
}
