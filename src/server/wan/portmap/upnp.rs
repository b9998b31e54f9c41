//! A router that speaks UPnP.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use crate::outbound::soap;
use hearth_core::wan::mapping::Port;
use hearth_core::wan::portmap::upnp::{
    Action, DESCRIPTION_MAX, FOUND_MAX, GROUP, ONLY_PERMANENT, Resource, Service, address_answer,
    found, refusal, searches, service,
};
use hearth_core::wan::portmap::{Granted, Refusal};

/// Timeout of a search: devices respond within a second (`MX: 1`).
const SEARCH: Duration = Duration::from_millis(2500);

/// Timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest response to an action, in bytes.
const ANSWER_MAX: usize = 16 * 1024;

/// Most locations that are tried.
const LOCATIONS: usize = 4;

/// A router and its service.
pub(super) struct Router {
    service: Service,
    own: Ipv4Addr,
}

impl Router {
    /// The router at `gateway`, if it speaks UPnP.
    pub(super) async fn find(own: Ipv4Addr, gateway: IpAddr) -> Option<Self> {
        let mut search = Search::start(own, gateway).await?;
        while let Some(resource) = search.next().await {
            let answer = soap::request(&resource, None, DESCRIPTION_MAX, TIMEOUT).await;
            let Ok((status, description)) = answer else {
                continue;
            };
            let description = String::from_utf8_lossy(&description);
            if let Some(service) = service(&description, &resource).filter(|_| status.is_success())
            {
                return Some(Self { service, own });
            }
        }
        None
    }

    pub(super) fn address(&self) -> IpAddr {
        self.service.control.address.ip()
    }

    /// Maps a port.
    pub(super) async fn map(
        &self,
        port: Port,
        lifetime: Duration,
    ) -> Result<Granted, Option<Refusal>> {
        let granted = |lifetime| Granted {
            external: port.number,
            lifetime,
        };
        let action = self.service.map(port, self.own, lifetime);
        match self.act(&action).await {
            Err(Some(ONLY_PERMANENT)) => {
                let action = self.service.map(port, self.own, Duration::ZERO);
                self.act(&action).await.map(|_| granted(Duration::ZERO))
            }
            done => done.map(|_| granted(lifetime)),
        }
    }

    /// Removes a mapping.
    pub(super) async fn unmap(&self, port: Port) {
        let _ = self.act(&self.service.unmap(port)).await;
    }

    /// The external address.
    pub(super) async fn external(&self) -> Option<Ipv4Addr> {
        let answer = self.act(&self.service.address()).await.ok()?;
        address_answer(&answer)
    }

    async fn act(&self, action: &Action) -> Result<String, Option<Refusal>> {
        let control = &self.service.control;
        let answer = soap::request(control, Some(action), ANSWER_MAX, TIMEOUT).await;
        let (status, content) = answer.map_err(|_| None)?;
        let content = String::from_utf8_lossy(&content).into_owned();
        match status.is_success() {
            true => Ok(content),
            false => Err(Some(refusal(&content))),
        }
    }
}

/// A search for a router.
struct Search {
    socket: UdpSocket,
    gateway: IpAddr,
    deadline: Instant,
    /// Locations so far.
    found: Vec<Resource>,
}

impl Search {
    /// Searches all of the network, since routers need not respond to anything else.
    async fn start(own: Ipv4Addr, gateway: IpAddr) -> Option<Self> {
        // Bound to the WAN address, it does not search the LAN.
        let socket = UdpSocket::bind((own, 0)).await.ok()?;
        for search in searches() {
            // A search that cannot be sent gets no response.
            let _ = socket.send_to(search.as_bytes(), GROUP).await;
        }
        Some(Self {
            socket,
            gateway,
            deadline: Instant::now() + SEARCH,
            found: Vec::new(),
        })
    }

    /// The next location of a description. Only the gateway's responses count: any other device could claim to be a
    /// router, and choose the address that is announced as that of this network.
    async fn next(&mut self) -> Option<Resource> {
        let mut buffer = [0; FOUND_MAX];
        while self.found.len() < LOCATIONS {
            let received = timeout_at(self.deadline, self.socket.recv_from(&mut buffer)).await;
            let (length, from) = received.ok()?.ok()?;
            let packet = buffer.get(..length).unwrap_or_default();
            let is_new =
                |resource: &Resource| from.ip() == self.gateway && !self.found.contains(resource);
            if let Some(resource) = found(packet, from.ip()).filter(is_new) {
                self.found.push(resource.clone());
                return Some(resource);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_gateway_is_believed() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = socket.local_addr().unwrap();
        let mut search = Search {
            socket,
            gateway: [127, 0, 0, 2].into(),
            deadline: Instant::now() + Duration::from_secs(20),
            found: Vec::new(),
        };
        let says = |own: &'static str, location: &'static str| async move {
            let socket = UdpSocket::bind((own, 0)).await.unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\nLOCATION: http://{location}/d.xml\r\n\r\n");
            socket.send_to(answer.as_bytes(), at).await.unwrap();
        };
        says("127.0.0.3", "127.0.0.3:80").await;
        says("127.0.0.3", "127.0.0.2:80").await;
        says("127.0.0.2", "127.0.0.3:80").await;
        for _ in 0..2 {
            says("127.0.0.2", "127.0.0.2:81").await;
        }
        says("127.0.0.2", "127.0.0.2:82").await;
        for port in [81, 82] {
            let found = search.next().await.unwrap();
            assert_eq!(found.address, (Ipv4Addr::new(127, 0, 0, 2), port).into());
        }
        search.deadline = Instant::now();
        assert_eq!(search.next().await, None);
    }
}
