//! A router that speaks UPnP.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use crate::outbound::soap;
use hearth_core::wan::mapping::Port;
use hearth_core::wan::portmap::upnp::{
    Action, DESCRIPTION_MAX, FOUND_MAX, GROUP, ONLY_FOR_EVER, Place, Service, address_answer,
    found, refusal, searches, service,
};
use hearth_core::wan::portmap::{Granted, Refusal};

/// How long answers to a search are waited for: devices answer within a second (`MX: 1`).
const SEARCH: Duration = Duration::from_millis(2500);

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest answer to an action, in bytes.
const ANSWER_MAX: usize = 16 * 1024;

/// Most devices that are looked at.
const DEVICES: usize = 4;

/// A router and its service.
pub(super) struct Router {
    service: Service,
    own: Ipv4Addr,
}

impl Router {
    /// Searches for a router; that at `gateway` comes before others.
    pub(super) async fn find(own: Ipv4Addr, gateway: Option<IpAddr>) -> Option<Self> {
        for place in search(own, gateway).await {
            let answer = soap::request(&place, None, DESCRIPTION_MAX, PATIENCE).await;
            let Ok((status, description)) = answer else {
                continue;
            };
            let description = String::from_utf8_lossy(&description);
            if let Some(service) = service(&description, &place).filter(|_| status.is_success()) {
                return Some(Self { service, own });
            }
        }
        None
    }

    pub(super) fn address(&self) -> IpAddr {
        self.service.control.address.ip()
    }

    /// Has a port forwarded.
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
            Err(Some(ONLY_FOR_EVER)) => {
                let action = self.service.map(port, self.own, Duration::ZERO);
                self.act(&action).await.map(|_| granted(Duration::ZERO))
            }
            done => done.map(|_| granted(lifetime)),
        }
    }

    /// Has a port forwarded no more.
    pub(super) async fn unmap(&self, port: Port) {
        let _ = self.act(&self.service.unmap(port)).await;
    }

    /// The address outside.
    pub(super) async fn outside(&self) -> Option<Ipv4Addr> {
        let answer = self.act(&self.service.address()).await.ok()?;
        address_answer(&answer)
    }

    async fn act(&self, action: &Action) -> Result<String, Option<Refusal>> {
        let control = &self.service.control;
        let answer = soap::request(control, Some(action), ANSWER_MAX, PATIENCE).await;
        let (status, content) = answer.map_err(|_| None)?;
        let content = String::from_utf8_lossy(&content).into_owned();
        match status.is_success() {
            true => Ok(content),
            false => Err(Some(refusal(&content))),
        }
    }
}

/// Where the descriptions of routers are, that of the gateway first.
async fn search(own: Ipv4Addr, gateway: Option<IpAddr>) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    // Bound to the address outside, nobody at home is asked.
    let Ok(socket) = UdpSocket::bind((own, 0)).await else {
        return places;
    };
    for search in searches() {
        // One that cannot be sent is one that is not answered.
        let _ = socket.send_to(search.as_bytes(), GROUP).await;
    }
    let deadline = Instant::now() + SEARCH;
    let mut buffer = [0; FOUND_MAX];
    while places.len() < DEVICES {
        let Ok(Ok((length, from))) = timeout_at(deadline, socket.recv_from(&mut buffer)).await
        else {
            break;
        };
        let packet = buffer.get(..length).unwrap_or_default();
        let is_gateway = Some(from.ip()) == gateway;
        match found(packet, from.ip()).filter(|place| !places.contains(place)) {
            Some(place) if is_gateway => {
                places.insert(0, place);
                break;
            }
            place => places.extend(place),
        }
    }
    places
}
