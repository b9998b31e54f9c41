//! Port mapping on the upstream router: requests mappings, renews them, and removes them at shutdown.

mod gateway;
mod upnp;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use self::gateway::Gateway;
use crate::shutdown::Shutdown;
use hearth_core::state::secret::random;
use hearth_core::wan::mapping::{Mapped, Mapping, Port, Protocol};
use hearth_core::wan::portmap::{Granted, LIFETIME, Refusal};
use hearth_core::wan::{Kind, kind_of};

/// Timeout of the mappings of all ports.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Timeout of their removal: hearth has little time to stop.
const REMOVAL_TIMEOUT: Duration = Duration::from_millis(1200);

/// A mapping is renewed at half of its lifetime, but no earlier than this.
const SOONEST: Duration = Duration::from_secs(60);

/// And no later: a restarted router has lost its mappings, and may have another address.
const LATEST: Duration = Duration::from_secs(10 * 60);

/// Time until the next try after a failure.
const RETRY: Duration = Duration::from_secs(2 * 60);

/// The upstream router and the address of this machine on its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Upstream {
    /// The address of this machine.
    pub(super) own: Option<Ipv4Addr>,
    /// The router.
    pub(super) gateway: Option<IpAddr>,
}

/// A router that has responded.
enum Session {
    /// By PCP or NAT-PMP.
    Gateway(Gateway),
    /// By UPnP.
    Upnp(upnp::Router),
}

/// Why port mapping failed.
#[derive(Debug, thiserror::Error)]
enum MappingFault {
    #[error("no response to PCP, NAT-PMP or UPnP")]
    Silence,
    #[error("request refused: {0}")]
    Refused(Refusal),
    #[error("timeout")]
    Timeout,
    #[error("this machine has no WAN address")]
    NoAddress,
    #[error("the default gateway is unknown, and no other device is asked")]
    NoGateway,
    #[error("no random bytes from the system")]
    NoRandomness,
}

/// Keeps the ports mapped until the server stops.
pub(super) async fn keep_mapped(
    ports: Vec<Port>,
    mut upstream: watch::Receiver<Upstream>,
    result: watch::Sender<Mapping>,
    shutdown: Shutdown,
) {
    let mut session: Option<Session> = None;
    loop {
        let now = *upstream.borrow_and_update();
        let (mapping, pause) = tokio::select! {
            () = shutdown.wait() => break,
            mapped = map_all(&ports, now, &mut session) => mapped,
        };
        result.send_if_modified(|known| {
            if *known == mapping {
                return false;
            }
            if mapping.fault.is_empty() {
                tracing::info!(
                    ports = mapping.ports.len(),
                    "the upstream router forwards the ports"
                );
            } else {
                tracing::warn!(fault = mapping.fault, "port mapping failed");
            }
            *known = mapping;
            true
        });
        let mut next = std::pin::pin!(async {
            match pause {
                Some(pause) => sleep(pause).await,
                None => std::future::pending().await,
            }
        });
        tokio::select! {
            () = shutdown.wait() => break,
            () = &mut next => {}
            changed = upstream.changed() => {
                if changed.is_err() {
                    break;
                }
                // Another router or address: the old mappings expire.
                session = None;
            }
        }
    }
    if let Some(session) = session {
        // Without this the mappings expire.
        let _ = timeout(REMOVAL_TIMEOUT, session.unmap(&ports)).await;
    }
}

/// Maps all ports; returns the result and the time until renewal. With a public address there is nothing to do.
async fn map_all(
    ports: &[Port],
    upstream: Upstream,
    session: &mut Option<Session>,
) -> (Mapping, Option<Duration>) {
    let mut mapping = Mapping {
        is_wanted: true,
        gateway: upstream.gateway,
        ..Mapping::default()
    };
    let own = match upstream.own {
        Some(own) if kind_of(own.into()) == Kind::Public => return (mapping, None),
        Some(own) => own,
        None => {
            mapping.fault = MappingFault::NoAddress.to_string();
            return (mapping, None);
        }
    };
    let Some(gateway) = upstream.gateway else {
        *session = None;
        mapping.fault = MappingFault::NoGateway.to_string();
        return (mapping, None);
    };
    let asked = timeout(TIMEOUT, ask(ports, own, gateway, session)).await;
    match asked.unwrap_or(Err(MappingFault::Timeout)) {
        Ok((found, lifetime)) => {
            let half = if lifetime.is_zero() {
                LATEST
            } else {
                lifetime / 2
            };
            (found, Some(half.clamp(SOONEST, LATEST)))
        }
        Err(fault) => {
            *session = None;
            mapping.ports = ports.iter().map(|port| unmapped(*port)).collect();
            mapping.fault = fault.to_string();
            (mapping, Some(RETRY))
        }
    }
}

/// Tries the protocol that worked last, else each in turn. Nobody but the default gateway is asked.
async fn ask(
    ports: &[Port],
    own: Ipv4Addr,
    gateway: IpAddr,
    session: &mut Option<Session>,
) -> Result<(Mapping, Duration), MappingFault> {
    let mut refused = None;
    if let Some(known) = session.take()
        && let Ok(mapped) = known.map(ports).await
    {
        *session = Some(known);
        return Ok(mapped);
    }
    let nonce = random().map_err(|_| MappingFault::NoRandomness)?;
    for protocol in [Protocol::Pcp, Protocol::NatPmp] {
        let Some(gateway) = Gateway::new(protocol, gateway, own, nonce).await else {
            continue;
        };
        let found = Session::Gateway(gateway);
        match found.map(ports).await {
            Ok(mapped) => {
                *session = Some(found);
                return Ok(mapped);
            }
            Err(Some(refusal)) if refusal != Refusal::Version => refused = Some(refusal),
            Err(_) => {}
        }
    }
    if let Some(router) = upnp::Router::find(own, gateway).await {
        let found = Session::Upnp(router);
        match found.map(ports).await {
            Ok(mapped) => {
                *session = Some(found);
                return Ok(mapped);
            }
            Err(Some(refusal)) => refused = Some(refusal),
            Err(None) => {}
        }
    }
    Err(refused.map_or(MappingFault::Silence, MappingFault::Refused))
}

fn unmapped(port: Port) -> Mapped {
    Mapped {
        port,
        external: None,
    }
}

impl Session {
    /// Maps the ports; returns the shortest lifetime, where zero is forever. A refused port does not affect the
    /// others.
    ///
    /// # Errors
    /// If no port is mapped: the refusal, or `None` without a response.
    async fn map(&self, ports: &[Port]) -> Result<(Mapping, Duration), Option<Refusal>> {
        let mut mapping = Mapping {
            is_wanted: true,
            protocol: Some(match self {
                Self::Gateway(gateway) => gateway.protocol(),
                Self::Upnp(_) => Protocol::Upnp,
            }),
            gateway: Some(match self {
                Self::Gateway(gateway) => gateway.address(),
                Self::Upnp(router) => router.address(),
            }),
            ..Mapping::default()
        };
        let mut shortest: Option<Duration> = None;
        let mut refused = None;
        for port in ports {
            let granted: Result<Granted, Option<Refusal>> = match self {
                Self::Gateway(gateway) => gateway.map(*port, LIFETIME).await,
                Self::Upnp(router) => router.map(*port, LIFETIME).await,
            };
            mapping.ports.push(match granted {
                Ok(granted) => {
                    if !granted.lifetime.is_zero() {
                        let known = shortest.unwrap_or(granted.lifetime);
                        shortest = Some(known.min(granted.lifetime));
                    }
                    Mapped {
                        port: *port,
                        external: Some(granted.external),
                    }
                }
                Err(Some(refusal)) if refusal != Refusal::Version => {
                    refused = Some(refusal);
                    unmapped(*port)
                }
                // Without a valid response the next port will not succeed either.
                Err(other) => return Err(other),
            });
        }
        let has_none = mapping.ports.iter().all(|mapped| mapped.external.is_none());
        match refused {
            Some(refusal) if has_none => return Err(Some(refusal)),
            Some(refusal) => mapping.fault = MappingFault::Refused(refusal).to_string(),
            None => {}
        }
        mapping.external = match self {
            Self::Gateway(gateway) => gateway.external().await,
            Self::Upnp(router) => router.external().await,
        };
        Ok((mapping, shortest.unwrap_or_default()))
    }

    /// Removes the mappings.
    async fn unmap(&self, ports: &[Port]) {
        for port in ports {
            match self {
                Self::Gateway(gateway) => gateway.unmap(*port).await,
                Self::Upnp(router) => router.unmap(*port).await,
            }
        }
    }
}
