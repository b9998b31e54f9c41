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

/// Most devices that are tried.
const DEVICES: usize = 4;

/// A router and its service.
pub(super) struct Router {
    service: Service,
    own: Ipv4Addr,
}

impl Router {
    /// Searches for a router, preferably the one at `gateway`.
    pub(super) async fn find(own: Ipv4Addr, gateway: Option<IpAddr>) -> Option<Self> {
        for resource in search(own, gateway).await {
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

/// The locations of the descriptions of routers, that of the gateway first.
async fn search(own: Ipv4Addr, gateway: Option<IpAddr>) -> Vec<Resource> {
    let mut found_at: Vec<Resource> = Vec::new();
    // Bound to the WAN address, it does not search the LAN.
    let Ok(socket) = UdpSocket::bind((own, 0)).await else {
        return found_at;
    };
    for search in searches() {
        // A search that cannot be sent gets no response.
        let _ = socket.send_to(search.as_bytes(), GROUP).await;
    }
    let deadline = Instant::now() + SEARCH;
    let mut buffer = [0; FOUND_MAX];
    while found_at.len() < DEVICES {
        let Ok(Ok((length, from))) = timeout_at(deadline, socket.recv_from(&mut buffer)).await
        else {
            break;
        };
        let packet = buffer.get(..length).unwrap_or_default();
        let is_gateway = Some(from.ip()) == gateway;
        match found(packet, from.ip()).filter(|resource| !found_at.contains(resource)) {
            Some(resource) if is_gateway => {
                found_at.insert(0, resource);
                break;
            }
            resource => found_at.extend(resource),
        }
    }
    found_at
}
