//! The task that knows the addresses outside and tells of changes.

use std::net::IpAddr;
#[cfg(feature = "portmap")]
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hearth_derp::bucket::TokenBucket;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::host::{self, Ours};
use super::knowledge::Knowledge;
#[cfg(feature = "portmap")]
use super::portmap::{self, Front};
use super::system::System;
use super::{hook, outside};

use crate::config::lan::Network;
use crate::config::{Config, Host};
use crate::relay::bootstrap_dns::BootstrapDns;
use crate::relay::derp_map;
use crate::shutdown::Shutdown;
use crate::status::addresses::Addresses as Listening;
use crate::status::wan::{Refreshed, WanStatus};
use crate::supervise::Tasks;
use crate::system_clock;
use hearth_core::netmap::{DialPlan, SharedMapData};
use hearth_core::tailcfg::derpmap::DerpRegion;
use hearth_core::wan::mapping::Mapping;
#[cfg(feature = "portmap")]
use hearth_core::wan::mapping::{Port, Transport};
use hearth_core::wan::publish::{Place, Told};
use hearth_core::wan::report::Lookup;
use hearth_core::wan::{Addresses, NoticedBy, Report};

/// Time from the first news of the kernel to the look: a change comes as several of them.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// So many looks for news of the kernel at once, and one more each [`CALM`]: on routers whose routes change
/// all the time.
const LOOKS: u32 = 20;
/// See [`LOOKS`].
const CALM: Duration = Duration::from_secs(1);

/// How often hearth looks where the kernel tells of changes; it may have told nobody.
const RARELY: Duration = Duration::from_secs(5 * 60);

/// How often it looks where the kernel does not.
const OFTEN: Duration = Duration::from_secs(10);

/// Refreshes that wait.
const REFRESHES: usize = 8;

/// What the watcher is made of.
pub(in crate::server) struct WatcherParts<'a> {
    /// The configuration.
    pub(in crate::server) config: &'a Config,
    /// Where the server listens.
    pub(in crate::server) listening: &'a Listening,
    /// Hash of a certificate of our own.
    pub(in crate::server) pin: Option<&'a str>,
}

/// Knows the addresses outside and tells of changes.
pub(in crate::server) struct Watcher {
    config: Config,
    listening: Listening,
    pin: Option<String>,
    data_dir: PathBuf,
    system: System,
    known: Knowledge,
    kept: Ours,
    told: Told,
    region: watch::Sender<Option<DerpRegion>>,
    report: watch::Sender<Arc<Report>>,
    refreshes: mpsc::Receiver<oneshot::Sender<Refreshed>>,
    place: WanStatus,
    /// When it has to be settled again, without news.
    due: Option<Duration>,
    #[cfg(feature = "portmap")]
    front: watch::Sender<Front>,
}

/// What others say.
struct Others {
    lookups: watch::Receiver<Lookup>,
    learnt: watch::Receiver<Addresses>,
    mappings: watch::Receiver<Mapping>,
}

impl Watcher {
    /// Looks for the first time.
    pub(in crate::server) fn new(parts: &WatcherParts<'_>) -> Self {
        let config = parts.config;
        let derp = &config.derp;
        let place = Place {
            host: match parts.listening.url.host() {
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
        let ours = Ours::read(&config.data_dir, parts.listening.url.host());
        let (region, _) = watch::channel(None);
        let (report, watched) = watch::channel(Arc::new(Report::default()));
        let (asking, refreshes) = mpsc::channel(REFRESHES);
        let mut watcher = Self {
            data_dir: config.data_dir.clone(),
            system: System::open(config.wan.interface.clone()),
            known: Knowledge::new(config.wan.clone(), place, ours.clone()),
            kept: ours,
            config: config.clone(),
            listening: parts.listening.clone(),
            pin: parts.pin.map(str::to_owned),
            told: Told::default(),
            region,
            report,
            refreshes,
            place: WanStatus::new(watched, asking),
            due: None,
            #[cfg(feature = "portmap")]
            front: watch::channel(Front::default()).0,
        };
        watcher.look();
        watcher.settle();
        watcher
    }

    /// hearth's own region, which follows the addresses.
    pub(in crate::server) fn region(&self) -> watch::Receiver<Option<DerpRegion>> {
        self.region.subscribe()
    }

    /// Where clients find the server without DNS, as it is now.
    pub(in crate::server) fn server(&self) -> &[IpAddr] {
        &self.told.server
    }

    /// Where others ask about the addresses.
    pub(in crate::server) fn place(&self) -> WanStatus {
        self.place.clone()
    }

    /// Tells clients of changes until the server stops. The tasks that ask others are among `tasks`.
    pub(in crate::server) async fn keep(
        mut self,
        tailnet: watch::Sender<Arc<SharedMapData>>,
        names: BootstrapDns,
        tasks: Tasks,
        shutdown: Shutdown,
    ) {
        let (mut others, again) = self.ask_others(&tasks, &shutdown);
        let mut calm = TokenBucket::new(LOOKS, CALM);
        names.tell(&self.told.server);
        loop {
            let poll = match self.system.noticed_by() {
                NoticedBy::Netlink => RARELY,
                NoticedBy::Looking => OFTEN,
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
                Ok(()) = others.lookups.changed() => {
                    self.known.lookup = others.lookups.borrow_and_update().clone();
                    None
                }
                Ok(()) = others.learnt.changed() => {
                    self.known.stun = *others.learnt.borrow_and_update();
                    None
                }
                Ok(()) = others.mappings.changed() => {
                    self.known.mapping = others.mappings.borrow_and_update().clone();
                    None
                }
            };
            if self.settle() {
                again.iter().for_each(|task| task.notify_one());
            }
            tailnet.send_if_modified(|now| {
                let dial_plan = DialPlan::new(&self.told.server);
                let is_other = dial_plan != now.dial_plan;
                if is_other {
                    *now = Arc::new((**now).clone().with_dial_plan(dial_plan));
                }
                is_other
            });
            names.tell(&self.told.server);
            if let Some(asker) = asker {
                let changed = self.known.refresh();
                let report = self.report.borrow().clone();
                // Whoever asked may have gone.
                let _ = asker.send(Refreshed { changed, report });
            }
        }
    }

    /// Starts whatever asks others, as far as the owner wants it. Those that ask anew when told to come with it.
    fn ask_others(&self, tasks: &Tasks, shutdown: &Shutdown) -> (Others, Vec<Arc<Notify>>) {
        let wan = &self.config.wan;
        let mut again = Vec::new();
        let mut told_to = || {
            let told_to = Arc::new(Notify::new());
            again.push(told_to.clone());
            told_to
        };
        let (found, lookups) = watch::channel(Lookup::None);
        if let Host::Name(name) = self.listening.url.host() {
            let name = name.to_string();
            let looking = host::keep_looking(name, found, told_to(), shutdown.clone());
            tasks.spawn("name of the server", looking);
        }
        let (said, learnt) = watch::channel(Addresses::default());
        if !wan.stun_servers.is_empty() {
            let servers = wan.stun_servers.clone();
            let asking = outside::keep_asking(servers, said, told_to(), shutdown.clone());
            tasks.spawn("address outside", asking);
        }
        let mappings = self.map_ports(tasks, shutdown);
        if let Some(program) = wan.on_change.clone() {
            let reports = self.report.subscribe();
            let running = hook::keep_running(program, reports, shutdown.clone());
            tasks.spawn("wan.on_change", running);
        }
        let others = Others {
            lookups,
            learnt,
            mappings,
        };
        (others, again)
    }

    /// Has the ports forwarded, if the owner wants it.
    #[cfg(feature = "portmap")]
    fn map_ports(&self, tasks: &Tasks, shutdown: &Shutdown) -> watch::Receiver<Mapping> {
        let (told, mappings) = watch::channel(self.known.mapping.clone());
        if self.config.wan.port_mapping {
            let port = |transport, address: Option<SocketAddr>| {
                address.map(|address| Port {
                    transport,
                    number: address.port(),
                })
            };
            let listening = &self.listening;
            let ports = [
                port(Transport::Tcp, listening.http),
                port(Transport::Tcp, listening.https),
                port(Transport::Udp, listening.stun),
            ];
            let ports = ports.into_iter().flatten().collect();
            let front = self.front.subscribe();
            let mapping = portmap::keep_mapped(ports, front, told, shutdown.clone());
            tasks.spawn("port forwarding", mapping);
        }
        mappings
    }

    /// Says that this program cannot, if the owner wants it.
    #[cfg(not(feature = "portmap"))]
    fn map_ports(&self, _: &Tasks, _: &Shutdown) -> watch::Receiver<Mapping> {
        let mut mapping = self.known.mapping.clone();
        if self.config.wan.port_mapping {
            mapping.fault =
                "this program was built without port mapping (feature `portmap`)".into();
            tracing::warn!("wan.port_mapping: {}", mapping.fault);
        }
        let (told, mut mappings) = watch::channel(Mapping::default());
        told.send_replace(mapping);
        mappings.mark_changed();
        mappings
    }

    fn look(&mut self) {
        self.known.outer = self.system.look();
        self.known.home = Network::of_this_machine().home_address();
        #[cfg(feature = "portmap")]
        {
            let front = Front {
                own: self.known.outer.addresses.v4,
                gateway: self.known.outer.gateway,
            };
            self.front.send_if_modified(|now| {
                // An address that is gone for a moment comes back, or another one comes.
                let is_other = front.own.is_some() && *now != front;
                if is_other {
                    *now = front;
                }
                is_other
            });
        }
    }

    /// Draws the conclusions; says whether the addresses outside have changed.
    fn settle(&mut self) -> bool {
        let now = system_clock::now();
        let outcome = self.known.settle(now.mono, now.wall);
        self.due = outcome.again_in;
        self.told = outcome.told;
        let report = self.known.report(self.system.noticed_by());
        if outcome.is_change {
            let ipv4 = report.outside.v4.map(|ip| ip.to_string());
            let ipv6 = report.outside.v6.map(|ip| ip.to_string());
            let interface = &report.interface;
            tracing::info!(
                interface,
                ipv4,
                ipv6,
                "the addresses outside are others now"
            );
        }
        if self.kept != self.known.ours {
            self.kept = self.known.ours.clone();
            self.kept.write(&self.data_dir);
        }
        let pin = self.pin.as_deref();
        let region = derp_map::region(&self.config, &self.listening, pin, self.told.relay);
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
