//! Puts the server together: what answers requests, and the tasks behind it. What listens, and what asks the system and the
//! internet, is added by `serve`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use hearth_derp::Key;
use hearth_derp::relay::Relay;
use tokio::sync::{Mutex, Notify, watch};

use super::ServeError;
use super::base::{self, Base};
use super::copies::Copies;
use super::dns::{self, Dns};
use super::policy::PolicyFile;
use crate::admin::authenticate::ApiKeyGate;
use crate::admin::backups::Backups;
use crate::admin::{AdminContext, ServerInfo};
use crate::api::BoardStatus;
use crate::backup::whole::Source;
use crate::config::{Admission, Choice, Config};
use crate::control::c2n::NodeCalls;
use crate::control::coalesce::coalesce_snapshots;
use crate::control::context::{ControlContext, ControlParts};
use crate::control::route_failover::probe_routers;
use crate::control::ts2021::NoiseServer;
use crate::engine::Handle;
use crate::net::gate::Gate;
use crate::relay::bootstrap_dns::BootstrapDns;
use crate::relay::context::RelayContext;
use crate::relay::derp_map::Regions;
use crate::relay_key::node_key;
use crate::routes::table::ROUTES;
use crate::routes::{MACHINE, Router};
use crate::status::client_reports::ClientReports;
use crate::status::http_counters::HttpCounters;
use crate::status::public_url::{DroppedUpgrades, PublicUrlStatus};
use crate::status::relay::Metrics;
use crate::status::ssh_checks::SshChecks;
use crate::status::wan::WanStatus;
use crate::web::{WebContext, WrongKeys};
use hearth_core::keys::{ChallengeKey, MachineSecret};
use hearth_core::netmap::{DialPlan, SharedMapData};
use hearth_core::state::dns::DnsSettings;
use hearth_core::state::secret::random;
use hearth_core::tailcfg::derpmap::DerpRegion;

/// What a server is made of.
pub(crate) struct Parts {
    /// The state engine.
    pub(crate) engine: Handle,
    /// What was wrong with the database when it was opened.
    pub(crate) opening: Option<String>,
    /// The private key of the control server.
    pub(crate) noise: MachineSecret,
    /// The public key of the relay.
    pub(crate) relay_key: Key,
    /// Request counters.
    pub(crate) counters: Arc<HttpCounters>,
    /// The relay, and all counters.
    pub(crate) metrics: Metrics,
    /// The region of the own relay.
    pub(crate) region: watch::Receiver<Option<DerpRegion>>,
    /// The advertised addresses of the server.
    pub(crate) advertised: Vec<IpAddr>,
    /// The public addresses.
    pub(crate) wan: WanStatus,
    /// The checks of `server_url`.
    pub(crate) public_url: PublicUrlStatus,
}

/// A server that answers requests.
pub(crate) struct Assembly {
    /// Answers requests.
    pub(crate) router: Arc<Router>,
    /// Data that is the same in all maps.
    pub(crate) tailnet: watch::Sender<Arc<SharedMapData>>,
    /// The bootstrap DNS.
    pub(super) names: BootstrapDns,
    /// DNS settings of the configuration.
    pub(super) dns_settings: watch::Sender<Arc<DnsSettings>>,
    /// Has the policy file read again.
    pub(super) reload_policy: Arc<Notify>,
    /// Has the sources of the DERP map read again.
    pub(super) reload_regions: Arc<Notify>,
}

/// Request counters of all routes.
pub(crate) fn counters() -> Arc<HttpCounters> {
    let labels = ROUTES.iter().map(|route| (route.verb.name(), route.path));
    Arc::new(HttpCounters::new(labels))
}

/// Puts a server together and starts its tasks.
///
/// # Errors
/// If the system has no random bytes.
pub(crate) async fn assemble(
    config: &Config,
    base: &Base,
    parts: Parts,
) -> Result<Assembly, ServeError> {
    let Parts {
        engine,
        opening,
        noise,
        relay_key,
        counters,
        metrics,
        region,
        advertised,
        wan,
        public_url,
    } = parts;
    let (tasks, shutdown) = (base.tasks.clone(), base.shutdown.clone());
    let (mut policy, policy_status) = PolicyFile::new(&config.policy, engine.clone());
    policy.load().await;
    let reload_policy = Arc::new(Notify::new());
    tasks.spawn(
        "policy",
        policy.watch(reload_policy.clone(), shutdown.clone()),
    );
    let mut regions = Regions::new(
        &config.derp,
        region,
        config.limits.derp_map,
        &config.data_dir,
        base.outbound.clone(),
        base.saver.clone(),
    );
    let (dns_settings, settings) = watch::channel(Arc::new(config.dns.clone()));
    let mut dns = Dns::new(settings);
    let tailnet = SharedMapData::new(
        config.base_domain.to_string(),
        &regions.at_start(&engine.snapshot()),
    );
    let tailnet = tailnet.with_dns(dns.look());
    let tailnet = tailnet
        .with_dial_plan(DialPlan::new(&advertised))
        .with_server_url(base.addresses.server_url.to_string())
        .with_latest_client(config.clients.latest_version);
    let (new_tailnet, tailnet) = watch::channel(Arc::new(tailnet));
    let reserving = dns::reserve_names(engine.clone(), tailnet.clone()).await;
    tasks.spawn("reserved names", reserving);
    let naming = dns::warn_of_names(engine.watch(), tailnet.clone(), shutdown.clone());
    tasks.spawn("names", naming);
    let reload_regions = Arc::new(Notify::new());
    let keeping = regions.keep(
        new_tailnet.clone(),
        engine.watch(),
        reload_regions.clone(),
        shutdown.clone(),
    );
    tasks.spawn("DERP map", keeping);
    tasks.spawn("dns", dns.keep(new_tailnet.clone(), shutdown.clone()));
    let names = base.start_names(config);
    let keys = (noise.public().to_string(), node_key(&relay_key).to_string());
    let scratch = config.socket.parent().unwrap_or(&config.data_dir);
    let url = base.addresses.server_url.clone();
    let source = Source::of(config, url.to_string());
    let backups = Arc::new(Backups::new(engine.clone(), source, url, keys, scratch));
    let (copying, copy_status) = Copies::new(
        config.backup.clone(),
        &config.data_dir,
        backups.clone(),
        engine.clone(),
    );
    tasks.spawn("automatic backups", copying.keep(shutdown.clone()));
    let challenge = ChallengeKey::from_bytes(random()?);
    let http_limits = base::http_limits(&config.limits);
    let noise = NoiseServer::new(noise, challenge, http_limits, shutdown.clone());
    let calls = Arc::new(NodeCalls::new(
        base.addresses.server_url.clone(),
        &config.limits,
    ));
    let reports = Arc::new(ClientReports::new(config.limits.audit_entries));
    let ssh_checks = Arc::new(SshChecks::new(config.limits.ssh_checks));
    let (sender, updates) = watch::channel(engine.snapshot());
    let coalescing = coalesce_snapshots(engine.watch(), tailnet.clone(), sender, shutdown.clone());
    tasks.spawn("snapshots for map streams", coalescing);
    let control = ControlContext::new(ControlParts {
        engine: engine.clone(),
        updates,
        tailnet: tailnet.clone(),
        limits: config.limits.clone(),
        server_url: base.addresses.server_url.clone(),
        noise: Arc::new(noise),
        calls: calls.clone(),
        reports: reports.clone(),
        ssh_checks: ssh_checks.clone(),
        tasks: tasks.clone(),
        shutdown: shutdown.clone(),
        counters: counters.clone(),
    });
    let dropped_upgrades = Arc::new(DroppedUpgrades::default());
    let about = ServerInfo {
        addresses: base.addresses.clone(),
        base_domain: config.base_domain.to_string(),
        tailnet,
        warnings: config.warnings.iter().map(ToString::to_string).collect(),
        opening,
        is_closed: config.is_closed,
        board: board_status(&config.board),
        policy_status: policy_status.clone(),
        wan,
        public_url,
        dropped_upgrades: dropped_upgrades.clone(),
        served: base.certificate.clone(),
        certificate_is_own: base.pin.is_some(),
        memory_budget: config.board.budget(),
        relay: metrics.clone(),
        copies: copy_status,
        proxies: base.proxies.clone(),
    };
    let router = Router {
        control: control.clone(),
        relay: RelayContext {
            relay: metrics.relay.clone(),
            names: names.clone(),
        },
        admin: AdminContext {
            engine: engine.clone(),
            limits: config.limits.clone(),
            calls,
            reports,
            ssh_checks: ssh_checks.clone(),
            backups,
            about,
            policy_lock: Mutex::default(),
            gate: ApiKeyGate::default(),
        },
        web: WebContext {
            engine: engine.clone(),
            server_url: base.addresses.server_url.clone(),
            policy: policy_status,
            ssh_checks,
            wrong_keys: WrongKeys::default(),
        },
        counters,
        dropped_upgrades,
    };
    let probing = probe_routers(control.clone(), config.routes);
    tasks.spawn("route probes", probing);
    let relay = metrics.relay.clone();
    let relay = relay.filter(|_| config.derp.admission == Admission::Tailnet);
    let watching = watch_admission(control, relay, base.gate.clone());
    tasks.spawn("admission", watching);
    Ok(Assembly {
        router: Arc::new(router),
        tailnet: new_tailnet,
        names,
        dns_settings,
        reload_policy,
        reload_regions,
    })
}

/// Drops cached data of deleted nodes, and disconnects relay clients that are no longer admitted; `relay` is
/// `None` if admission does not depend on the tailnet. Control connections of machines without a node count as those of
/// strangers again.
async fn watch_admission(context: Arc<ControlContext>, relay: Option<Relay>, gate: Gate) {
    let mut states = context.engine.watch();
    let mut seen = states.borrow().admission();
    loop {
        tokio::select! {
            biased;
            () = context.shutdown.wait() => return,
            changed = states.changed() => if changed.is_err() { return },
        }
        let snapshot = states.borrow_and_update().clone();
        context.map_cache.prune(&snapshot);
        if snapshot.admission() != seen {
            seen = snapshot.admission();
            let exists = |id| snapshot.node(id).is_some();
            context.reports.retain(exists);
            context.ssh_checks.retain(exists);
            let machines = snapshot.nodes().iter();
            let machines: BTreeSet<&[u8; 32]> =
                machines.map(|node| node.machine.as_bytes()).collect();
            gate.demote(|holder| holder.kind() == MACHINE && !machines.contains(holder.key()));
            if let Some(relay) = &relay {
                relay.retain(|key| snapshot.admits(&node_key(key)));
            }
        }
    }
}

fn board_status(choice: &Choice) -> BoardStatus {
    let class = choice.class.as_ref().map(|class| class.name);
    let budget = choice.budget();
    BoardStatus {
        name: choice.name().to_owned(),
        id: choice
            .board
            .as_ref()
            .map(|board| board.id.clone())
            .unwrap_or_default(),
        source: choice.source.words().to_owned(),
        class: class.unwrap_or_default().to_owned(),
        memory_budget: budget.and_then(|bytes| u64::try_from(bytes).ok()),
    }
}
