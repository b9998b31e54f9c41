//! Has the router in front forward the ports, renews that, and takes it back at the end.

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

/// How long all ports together may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it may take to take them back: hearth has little time to stop.
const LAST_PATIENCE: Duration = Duration::from_millis(1200);

/// At half of its time a forwarding is renewed, but no earlier than this.
const SOONEST: Duration = Duration::from_secs(60);

/// And no later: a router that was restarted has forgotten all, and its address may be another one.
const LATEST: Duration = Duration::from_secs(10 * 60);

/// A router that did not answer is asked again after this.
const RETRY: Duration = Duration::from_secs(2 * 60);

/// What is between this machine and the router in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Front {
    /// The address of this machine there.
    pub(super) own: Option<Ipv4Addr>,
    /// The router.
    pub(super) gateway: Option<IpAddr>,
}

/// A router that has answered.
enum Session {
    /// By PCP or NAT-PMP.
    Gateway(Gateway),
    /// By UPnP.
    Upnp(upnp::Router),
}

/// Why the router forwards nothing.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("no router answers to PCP, NAT-PMP or UPnP")]
    Silence,
    #[error("the router refuses: {0}")]
    Refused(Refusal),
    #[error("the router takes too long")]
    Timeout,
    #[error("this machine has no address")]
    NoAddress,
    #[error("no random bytes from the system")]
    NoRandomness,
}

/// Keeps the ports forwarded until the server stops. `front` is where this machine stands.
pub(super) async fn keep_mapped(
    ports: Vec<Port>,
    mut front: watch::Receiver<Front>,
    told: watch::Sender<Mapping>,
    shutdown: Shutdown,
) {
    let mut session: Option<Session> = None;
    loop {
        let now = *front.borrow_and_update();
        let (mapping, pause) = tokio::select! {
            () = shutdown.wait() => break,
            mapped = map_all(&ports, now, &mut session) => mapped,
        };
        told.send_if_modified(|known| {
            if *known == mapping {
                return false;
            }
            if mapping.fault.is_empty() {
                tracing::info!(
                    ports = mapping.ports.len(),
                    "the router in front forwards the ports"
                );
            } else {
                tracing::warn!(
                    fault = mapping.fault,
                    "the router in front forwards no ports"
                );
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
            changed = front.changed() => {
                if changed.is_err() {
                    break;
                }
                // Another router, or another address: what was there ends by itself.
                session = None;
            }
        }
    }
    if let Some(session) = session {
        // The forwardings end in time without this as well.
        let _ = timeout(LAST_PATIENCE, session.unmap(&ports)).await;
    }
}

/// Has all ports forwarded; gives how that went and when to renew it. Without need there is nothing to renew.
async fn map_all(
    ports: &[Port],
    front: Front,
    session: &mut Option<Session>,
) -> (Mapping, Option<Duration>) {
    let mut mapping = Mapping {
        is_wanted: true,
        gateway: front.gateway,
        ..Mapping::default()
    };
    let own = match front.own {
        Some(own) if kind_of(own.into()) == Kind::Public => return (mapping, None),
        Some(own) => own,
        None => {
            mapping.fault = Fault::NoAddress.to_string();
            return (mapping, None);
        }
    };
    let asked = timeout(PATIENCE, ask(ports, own, front.gateway, session)).await;
    match asked.unwrap_or(Err(Fault::Timeout)) {
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
            mapping.ports = ports.iter().map(|port| not(*port)).collect();
            mapping.fault = fault.to_string();
            (mapping, Some(RETRY))
        }
    }
}

/// Asks by the protocol that worked last, else by each in turn.
async fn ask(
    ports: &[Port],
    own: Ipv4Addr,
    gateway: Option<IpAddr>,
    session: &mut Option<Session>,
) -> Result<(Mapping, Duration), Fault> {
    let mut refused = None;
    if let Some(known) = session.take()
        && let Ok(mapped) = known.map(ports).await
    {
        *session = Some(known);
        return Ok(mapped);
    }
    if let Some(gateway) = gateway {
        let nonce = random().map_err(|_| Fault::NoRandomness)?;
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
    Err(refused.map_or(Fault::Silence, Fault::Refused))
}

fn not(port: Port) -> Mapped {
    Mapped {
        port,
        external: None,
    }
}

impl Session {
    /// Has the ports forwarded; gives the shortest time for which they are, zero for ever. One port that is
    /// refused does not keep the others from being forwarded.
    ///
    /// # Errors
    /// When none is: why, or `None` when there is no answer.
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
                    not(*port)
                }
                // No answer, or none that is understood, will not become one with the next port.
                Err(other) => return Err(other),
            });
        }
        let has_none = mapping.ports.iter().all(|mapped| mapped.external.is_none());
        match refused {
            Some(refusal) if has_none => return Err(Some(refusal)),
            Some(refusal) => mapping.fault = Fault::Refused(refusal).to_string(),
            None => {}
        }
        mapping.outside = match self {
            Self::Gateway(gateway) => gateway.outside().await,
            Self::Upnp(router) => router.outside().await,
        };
        Ok((mapping, shortest.unwrap_or_default()))
    }

    /// Has the ports forwarded no more.
    async fn unmap(&self, ports: &[Port]) {
        for port in ports {
            match self {
                Self::Gateway(gateway) => gateway.unmap(*port).await,
                Self::Upnp(router) => router.unmap(*port).await,
            }
        }
    }
}
