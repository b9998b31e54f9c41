//! The task that tracks the public addresses and announces changes.

use std::net::IpAddr;
#[cfg(feature = "portmap")]
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hearth_shares::TokenBucket;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::host::{self, ServerHost};
#[cfg(feature = "portmap")]
use super::portmap::{self, Upstream};
use super::state::WanState;
use super::system::System;
use super::{hook, stun};
use crate::config::lan::Network;
use crate::config::{Config, Host};
use crate::files::Saver;
use crate::relay::bootstrap_dns::BootstrapDns;
use crate::relay::own_region::{self, Pin};
use crate::shutdown::Shutdown;
use crate::status::addresses::Addresses as Listening;
use crate::status::wan::{Refreshed, WanStatus};
use crate::supervise::Tasks;
use crate::system_clock;
use hearth_core::doctor::public_url::{PublicCheck, Served};
use hearth_core::netmap::{DialPlan, SharedMapData};
use hearth_core::tailcfg::derpmap::DerpRegion;
use hearth_core::wan::mapping::Mapping;
#[cfg(feature = "portmap")]
use hearth_core::wan::mapping::{Port, Transport};
use hearth_core::wan::publish::{Advertised, ConfiguredAddresses};
use hearth_core::wan::report::Lookup;
use hearth_core::wan::{Addresses, NoticedBy, Report};

/// Time from the first notification of the kernel to the update: a change causes several notifications.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Burst of updates after notifications of the kernel, and one more each [`CALM`]: on some routers routes change
/// all the time.
const BURST: u32 = 20;
/// See [`BURST`].
const CALM: Duration = Duration::from_secs(1);

/// Polling interval with notifications of the kernel, which may be lost.
const RARELY: Duration = Duration::from_secs(5 * 60);

/// Polling interval without notifications of the kernel.
const OFTEN: Duration = Duration::from_secs(10);

/// Most queued refreshes.
const REFRESHES: usize = 8;

/// The parts of a [`Watcher`].
pub(in crate::server) struct WatcherParts<'a> {
    /// The configuration.
    pub(in crate::server) config: &'a Config,
    /// The addresses of the listeners.
    pub(in crate::server) listening: &'a Listening,
    /// Hash of the self-signed certificate.
    pub(in crate::server) pin: Option<&'a str>,
    /// Checks of `server_url` and of the relay.
    pub(in crate::server) checks: watch::Receiver<Option<Arc<PublicCheck>>>,
    /// Saves files for the next start.
    pub(in crate::server) saver: Saver,
}

/// Tracks the public addresses and announces changes.
pub(in crate::server) struct Watcher {
    config: Config,
    listening: Listening,
    pin: Option<Pin>,
    checks: watch::Receiver<Option<Arc<PublicCheck>>>,
    data_dir: PathBuf,
    system: System,
    state: WanState,
    saved: ServerHost,
    saver: Saver,
    advertised: Advertised,
    region: watch::Sender<Option<DerpRegion>>,
    report: watch::Sender<Arc<Report>>,
    refreshes: mpsc::Receiver<oneshot::Sender<Refreshed>>,
    place: WanStatus,
    /// Time until the next update without news.
    due: Option<Duration>,
    #[cfg(feature = "portmap")]
    upstream: watch::Sender<Upstream>,
}

/// The results of the tasks that ask results.
struct Results {
    lookups: watch::Receiver<Lookup>,
    reported: watch::Receiver<Addresses>,
    mappings: watch::Receiver<Mapping>,
}

impl Watcher {
    /// Reads the addresses for the first time.
    pub(in crate::server) fn new(parts: &WatcherParts<'_>) -> Self {
        let config = parts.config;
        let url = parts.listening.server_url.get();
        let derp = &config.derp;
        let configured = ConfiguredAddresses {
            host: match url.host() {
                Host::Address(address) => Some(*address),
                Host::Name(_) => None,
            },
            relay: Addresses {
                v4: derp.ipv4,
                v6: derp.ipv6,
            },
            relay_is_elsewhere: derp.host_name.is_some(),
            more: config.clients.addresses.clone(),
        };
        let mut host = ServerHost::read(&config.data_dir, url.host());
        if !config.follows_lan_address() {
            host.stay();
        }
        let (region, _) = watch::channel(None);
        let (report, watched) = watch::channel(Arc::new(Report::default()));
        let (asking, refreshes) = mpsc::channel(REFRESHES);
        let mut watcher = Self {
            data_dir: config.data_dir.clone(),
            system: System::open(config.wan.interface.clone(), OFTEN.as_secs()),
            state: WanState::new(config.wan.clone(), configured, host.clone()),
            saved: host,
            saver: parts.saver.clone(),
            config: config.clone(),
            listening: parts.listening.clone(),
            pin: parts.pin.map(|hash| Pin {
                sha256: hash.to_owned(),
                is_served: None,
            }),
            checks: parts.checks.clone(),
            advertised: Advertised::default(),
            region,
            report,
            refreshes,
            place: WanStatus::new(watched, asking),
            due: None,
            #[cfg(feature = "portmap")]
            upstream: watch::channel(Upstream::default()).0,
        };
        watcher.look();
        watcher.update();
        if config.follows_lan_address() && watcher.state.lan.is_none() {
            let server_url = &watcher.listening.server_url;
            tracing::warn!(%server_url, "this machine has no private address yet: until it has one, only clients on it can connect");
        }
        watcher
    }

    /// The region of the own relay, which follows the addresses.
    pub(in crate::server) fn region(&self) -> watch::Receiver<Option<DerpRegion>> {
        self.region.subscribe()
    }

    /// The advertised addresses of the server now.
    pub(in crate::server) fn server(&self) -> &[IpAddr] {
        &self.advertised.server
    }

    /// The handle for requests about the addresses.
    pub(in crate::server) fn place(&self) -> WanStatus {
        self.place.clone()
    }

    /// Announces changes to clients until the server stops. The tasks that ask others are spawned in `tasks`.
    pub(in crate::server) async fn keep(
        mut self,
        tailnet: watch::Sender<Arc<SharedMapData>>,
        names: BootstrapDns,
        tasks: Tasks,
        shutdown: Shutdown,
    ) {
        let (mut results, again) = self.ask_others(&tasks, &shutdown);
        let mut calm = TokenBucket::new(BURST, CALM);
        names.set_addresses(&self.advertised.server);
        loop {
            let poll = match self.system.noticed_by() {
                NoticedBy::Netlink => RARELY,
                NoticedBy::Polling => OFTEN,
            };
            let pause = self.due.map_or(poll, |due| due.min(poll));
            let asker = tokio::select! {
                () = shutdown.wait() => return,
                () = self.system.changed() => {
                    let wait = if calm.take(system_clock::now().mono) { DEBOUNCE } else { CALM };
                    sleep(wait).await;
                    self.system.drain();
                    self.look();
                    None
                }
                () = sleep_until(Instant::now() + pause) => {
                    self.look();
                    None
                }
                asker = self.refreshes.recv() => {
                    self.look();
                    again.iter().for_each(|task| task.notify_one());
                    asker
                }
                Ok(()) = self.checks.changed() => {
                    self.look_at_certificate();
                    None
                }
                Ok(()) = results.lookups.changed() => {
                    self.state.lookup = results.lookups.borrow_and_update().clone();
                    None
                }
                Ok(()) = results.reported.changed() => {
                    self.state.stun = *results.reported.borrow_and_update();
                    None
                }
                Ok(()) = results.mappings.changed() => {
                    self.state.mapping = results.mappings.borrow_and_update().clone();
                    // STUN servers confirm the address of the upstream router.
                    again.iter().for_each(|task| task.notify_one());
                    None
                }
            };
            if self.update() {
                again.iter().for_each(|task| task.notify_one());
            }
            tailnet.send_if_modified(|now| {
                let dial_plan = DialPlan::new(&self.advertised.server);
                let server_url = self.listening.server_url.to_string();
                let is_other = dial_plan != now.dial_plan || server_url != now.server_url;
                if is_other {
                    let new = (**now).clone().with_dial_plan(dial_plan);
                    *now = Arc::new(new.with_server_url(server_url));
                }
                is_other
            });
            names.set_addresses(&self.advertised.server);
            if let Some(asker) = asker {
                let changed = self.state.refresh();
                let report = self.report.borrow().clone();
                // The requester may be gone.
                let _ = asker.send(Refreshed { changed, report });
            }
        }
    }

    /// Starts the configured tasks that ask others; returns their results and what makes them ask again.
    fn ask_others(&self, tasks: &Tasks, shutdown: &Shutdown) -> (Results, Vec<Arc<Notify>>) {
        let wan = &self.config.wan;
        let mut again = Vec::new();
        let mut notified = || {
            let notify = Arc::new(Notify::new());
            again.push(notify.clone());
            notify
        };
        let (found, lookups) = watch::channel(Lookup::None);
        if let Host::Name(name) = self.listening.server_url.get().host() {
            let name = name.to_string();
            let resolving = host::keep_resolving(name, found, notified(), shutdown.clone());
            tasks.spawn("DNS name of the server", resolving);
        }
        let (answers, reported) = watch::channel(Addresses::default());
        if !wan.stun_servers.is_empty() {
            let servers = wan.stun_servers.clone();
            let asking = stun::keep_asking(servers, answers, notified(), shutdown.clone());
            tasks.spawn("STUN client", asking);
        }
        let mappings = self.map_ports(tasks, shutdown);
        if let Some(program) = wan.on_change.clone() {
            let reports = self.report.subscribe();
            let running = hook::keep_running(program, reports, shutdown.clone());
            tasks.spawn("wan.on_change", running);
        }
        let results = Results {
            lookups,
            reported,
            mappings,
        };
        (results, again)
    }

    /// Starts port mapping, if configured.
    #[cfg(feature = "portmap")]
    fn map_ports(&self, tasks: &Tasks, shutdown: &Shutdown) -> watch::Receiver<Mapping> {
        let (result, mappings) = watch::channel(self.state.mapping.clone());
        if self.config.wan.port_mapping {
            let port = |transport, address: Option<SocketAddr>| {
                address.map(|address| Port {
                    transport,
                    number: address.port(),
                })
            };
            let listening = &self.listening;
            // Never plain HTTP, over which clients cannot verify the key of the server when they join.
            let ports = [
                port(Transport::Tcp, listening.https),
                port(Transport::Udp, listening.stun),
            ];
            let ports = ports.into_iter().flatten().collect();
            let upstream = self.upstream.subscribe();
            let mapping = portmap::keep_mapped(ports, upstream, result, shutdown.clone());
            tasks.spawn("port mapping", mapping);
        }
        mappings
    }

    /// Reports that this build has no port mapping, if configured.
    #[cfg(not(feature = "portmap"))]
    fn map_ports(&self, _: &Tasks, _: &Shutdown) -> watch::Receiver<Mapping> {
        let mut mapping = self.state.mapping.clone();
        if self.config.wan.port_mapping {
            mapping.fault = "this build has no port mapping (feature `portmap`)".into();
            tracing::warn!("wan.port_mapping: {}", mapping.fault);
        }
        let (result, mut mappings) = watch::channel(Mapping::default());
        result.send_replace(mapping);
        mappings.mark_changed();
        mappings
    }

    /// Remembers which certificate clients meet at the relay; a check without an answer changes nothing.
    fn look_at_certificate(&mut self) {
        let check = self.checks.borrow_and_update().clone();
        let relay = check.as_ref().and_then(|check| check.relay.as_ref());
        let is_own = match relay.and_then(|relay| relay.certificate.as_ref()) {
            Some(Served::Own) => true,
            Some(Served::Trusted) => false,
            Some(Served::Rejected(_) | Served::Unjudged) | None => return,
        };
        if let Some(pin) = &mut self.pin {
            pin.is_served = Some(is_own);
        }
    }

    fn look(&mut self) {
        self.state.wan = self.system.look();
        self.follow_lan_address(&Network::of_this_machine());
        #[cfg(feature = "portmap")]
        {
            let upstream = Upstream {
                own: self.state.wan.addresses.v4,
                gateway: self.state.wan.gateway,
            };
            self.upstream.send_if_modified(|now| {
                // A lost address soon comes back, or another one comes.
                let is_other = upstream.own.is_some() && *now != upstream;
                if is_other {
                    *now = upstream;
                }
                is_other
            });
        }
    }

    /// Takes the LAN address, also for a `server_url` that follows it. Without one the last one stays.
    fn follow_lan_address(&mut self, network: &Network) {
        let url = self.listening.server_url.get();
        let current = match url.host() {
            Host::Address(IpAddr::V4(v4)) if self.config.follows_lan_address() => Some(*v4),
            _ => None,
        };
        self.state.lan = network.home_address_after(current);
        let Some(lan) = self
            .state
            .lan
            .filter(|lan| current.is_some_and(|current| current != *lan))
        else {
            return;
        };
        let server_url = url.with_host(Host::Address(lan.into()));
        tracing::warn!(
            %server_url,
            before = %url,
            "the LAN address of this machine has changed, and the server URL with it; devices that joined with the URL before are offline until this machine has that address again: give it a fixed address (DHCP reservation), or set server_url"
        );
        self.listening.server_url.set(server_url);
        let now = system_clock::now().wall;
        self.state.moved_to(lan.into(), now);
    }

    /// Updates everything that depends on the addresses; returns whether the public addresses have changed.
    fn update(&mut self) -> bool {
        let now = system_clock::now();
        let outcome = self.state.update(now.mono, now.wall);
        self.due = outcome.again_in;
        self.advertised = outcome.advertised;
        let report = self.state.report(self.system.noticed_by());
        if outcome.is_change {
            let ipv4 = report.public.v4.map(|ip| ip.to_string());
            let ipv6 = report.public.v6.map(|ip| ip.to_string());
            let interface = &report.interface;
            match report.since {
                _ if report.public.is_empty() => tracing::info!(interface, "public address lost"),
                None => tracing::info!(interface, ipv4, ipv6, "public address"),
                Some(_) => tracing::info!(interface, ipv4, ipv6, "public address changed"),
            }
        }
        if self.saved != self.state.host {
            self.saved = self.state.host.clone();
            self.saved.write(&self.data_dir, &self.saver);
        }
        let pin = self.pin.as_ref();
        let region = own_region::region(&self.config, &self.listening, pin, self.advertised.relay);
        self.region.send_if_modified(|now| {
            let is_other = *now != region;
            *now = region;
            is_other
        });
        self.report.send_if_modified(|now| {
            let is_other = **now != report;
            if is_other {
                *now = Arc::new(report);
            }
            is_other
        });
        outcome.is_change
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::lan::LocalAddress;
    use crate::config::{Overrides, ServerUrl, Surroundings};
    use crate::status::addresses::CurrentUrl;

    fn watcher(dir: &tempfile::TempDir, server_url: Option<ServerUrl>) -> Watcher {
        let overrides = Overrides {
            data_dir: Some(dir.path().into()),
            server_url,
            ..Overrides::default()
        };
        let config = Config::load(overrides, &Surroundings::default());
        Watcher::new(&WatcherParts {
            listening: &Listening {
                server_url: CurrentUrl::new(config.server_url.clone()),
                http: config.listen.http,
                https: config.listen.https,
                stun: config.listen.stun,
                socket: config.socket.clone(),
            },
            config: &config,
            pin: Some("ab"),
            checks: watch::channel(None).1,
            saver: Saver::default(),
        })
    }

    fn network(addresses: &[(&str, [u8; 4])]) -> Network {
        let addresses = addresses.iter().map(|(interface, address)| LocalAddress {
            interface: (*interface).into(),
            address: (*address).into(),
        });
        Network {
            addresses: addresses.collect(),
            route_source: None,
        }
    }

    /// The URL, and the host names of the relay.
    fn seen(watcher: &mut Watcher, addresses: &[(&str, [u8; 4])]) -> (String, Vec<String>) {
        watcher.follow_lan_address(&network(addresses));
        watcher.update();
        let region = watcher.region.borrow().clone();
        let nodes = region.map(|region| region.nodes).unwrap_or_default();
        let hosts = nodes.into_iter().map(|node| node.host_name);
        (
            watcher.listening.server_url.to_string(),
            hosts.take(1).collect(),
        )
    }

    #[tokio::test]
    async fn a_url_that_is_not_configured_and_the_relay_follow_the_lan_address() {
        let dir = tempfile::tempdir().unwrap();
        let mut watcher = watcher(&dir, None);
        let shared = watcher.listening.server_url.clone();
        for address in [[192, 168, 1, 31], [192, 168, 1, 77], [10, 0, 0, 2]] {
            let host = std::net::Ipv4Addr::from(address).to_string();
            let expected = (format!("http://{host}:8080"), vec![host]);
            assert_eq!(seen(&mut watcher, &[("eth0", address)]), expected);
            assert_eq!(shared.to_string(), expected.0);
        }
        // A lost address soon comes back, or another one comes.
        let lost = seen(&mut watcher, &[("lo", [127, 0, 0, 1])]);
        assert_eq!(lost.0, "http://10.0.0.2:8080");
    }

    #[tokio::test]
    async fn a_configured_url_stays() {
        let dir = tempfile::tempdir().unwrap();
        let url = "http://192.168.1.31:8080";
        let mut watcher = watcher(&dir, url.parse().ok());
        assert_eq!(seen(&mut watcher, &[("eth0", [10, 0, 0, 2])]).0, url);
    }
}
