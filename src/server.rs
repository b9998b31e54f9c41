//! The control server: starts its parts in order and stops them in order.

mod banner;
mod base;
mod copies;
mod copy_store;
mod dns;
mod listeners;
mod notify;
mod policy;
mod public_url;
#[cfg(feature = "standalone-relay")]
mod standalone;
mod wan;

#[cfg(feature = "standalone-relay")]
pub use standalone::run as run_relay;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use hearth_derp::ServerSecret;
use hearth_derp::relay::Relay;
use tokio::sync::{Mutex, Notify, watch};

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
use crate::engine::{Engine, Handle};

use crate::logging::LogControl;
use crate::net::gate::Gate;
use crate::net::tls::TlsError;
use crate::relay::context::RelayContext;
use crate::relay::derp_map::Regions;
use crate::relay_key::node_key;
use crate::routes::table::ROUTES;
use crate::routes::{MACHINE, Router};
use crate::service::{Sockets, SystemdNotifier};
use crate::status::client_reports::ClientReports;
use crate::status::http_counters::HttpCounters;
use crate::status::public_url::DroppedUpgrades;
use crate::status::ssh_checks::SshChecks;
use crate::store::{AuditLimits, Notice, Store, StoreError};
use crate::web::{WebContext, WrongKeys};
use base::Base;
use copies::Copies;
use dns::Dns;
use hearth_core::keys::{ChallengeKey, MachineSecret};
use hearth_core::netmap::{DialPlan, SharedMapData};
use hearth_core::state::addr::Prefixes;
use hearth_core::state::model::Settings;
use hearth_core::state::secret::{NoRandomness, random};
use policy::PolicyFile;
use public_url::{Prober, ProberParts};
use wan::{Watcher, WatcherParts};

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The database is unusable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no certificate.
    #[error("HTTPS: {0}")]
    Tls(#[from] TlsError),
    /// An address is in use or not available.
    #[error("cannot listen on {what} {address}: {source}; use {flag} to change it")]
    Bind {
        /// The protocol.
        what: &'static str,
        /// The address or path.
        address: String,
        /// The flag that changes it.
        flag: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// The system refused a resource.
    #[error("the system refused {what}: {source}")]
    System {
        /// The resource.
        what: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// The system has no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// Runs the server until a signal to stop. `reload` reads the configuration again. `sockets` are those of the
/// service manager, which is notified of the state of the server.
///
/// # Errors
/// If a part cannot start.
pub fn run(
    config: Config,
    log: &LogControl,
    reload: impl Fn() -> Config,
    sockets: Sockets,
) -> Result<(), ServeError> {
    let notifier = SystemdNotifier::of_this_process();
    notifier.status("opening the database");
    let limits = &config.limits;
    let (mut store, loaded) = Store::open(&config.data_dir, limits.database_cache)?;
    if let Some(notice) = &loaded.notice {
        log_notice(notice);
    }
    if let Some(fault) = &loaded.unwritable {
        tracing::error!(%fault, "the database cannot be written; serving what it has, changes are refused until it can");
    }
    store.limit_audit(AuditLimits {
        entries: limits.audit_log_entries,
        bytes: limits.audit_log_bytes,
    });
    for skipped in &loaded.skipped {
        let (table, key, fault) = (skipped.table, &skipped.key, skipped.fault);
        tracing::error!(table, key, %fault, "skipping an unreadable database record (left in place)");
    }
    let noise = MachineSecret::from_bytes(*loaded.secrets.noise);
    let derp = ServerSecret::from_bytes(*loaded.secrets.derp);
    let (queue, batch) = (limits.engine_queue, limits.engine_batch);
    let (engine, handle) = Engine::start(store, loaded, settings(&config), queue, batch)
        .map_err(system("a thread"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("an event loop"))?;
    let serving = serve(
        &config,
        log,
        &reload,
        (handle, noise, derp),
        sockets,
        &notifier,
    );
    let served = runtime.block_on(serving);
    // A hanging connection must not keep the process from closing the database. Nor must a DNS lookup without
    // an answer: its thread is left behind.
    runtime.shutdown_background();
    engine.stop();
    served
}

/// Logs what happened to the database when it was opened.
fn log_notice(notice: &Notice) {
    match notice {
        Notice::Repaired { reason, kept } => tracing::error!(
            reason,
            kept = %kept.display(),
            "the database was damaged; no record is lost, and a new file was written"
        ),
        Notice::Restored {
            reason,
            backup,
            kept,
        } => tracing::error!(
            reason,
            backup = %backup.display(),
            kept = %kept.as_deref().unwrap_or(Path::new("-")).display(),
            "the database was damaged or lost; restored the newest good backup, and changes made since are lost"
        ),
        Notice::Migrated { from, kept } => tracing::warn!(
            schema = from,
            kept = %kept.display(),
            "the database was converted to the schema of this version; to go back to the version before, restore the kept file with `hearth restore`"
        ),
    }
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> ServeError {
    move |source| ServeError::System { what, source }
}

async fn serve(
    config: &Config,
    log: &LogControl,
    reload: &dyn Fn() -> Config,
    (engine, noise, derp): (Handle, MachineSecret, ServerSecret),
    sockets: Sockets,
    notifier: &SystemdNotifier,
) -> Result<(), ServeError> {
    let (base, listeners) = Base::open(config, sockets).await?;
    let (tasks, shutdown) = (base.tasks.clone(), base.shutdown.clone());
    let (checks, checked) = watch::channel(None);
    let watcher = Watcher::new(&WatcherParts {
        config,
        listening: &base.addresses,
        pin: base.pin.as_deref(),
        checks: checked,
        saver: base.saver.clone(),
    });

    let (mut policy, policy_status) = PolicyFile::new(&config.policy, engine.clone());
    policy.load().await;
    let reload_policy = Arc::new(Notify::new());
    tasks.spawn(
        "policy",
        policy.watch(reload_policy.clone(), shutdown.clone()),
    );
    let mut regions = Regions::new(
        &config.derp,
        watcher.region(),
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
        .with_dial_plan(DialPlan::new(watcher.server()))
        .with_latest_client(config.clients.latest_version);
    let (new_tailnet, tailnet) = watch::channel(Arc::new(tailnet));
    let reserving = dns::reserve_names(engine.clone(), tailnet.clone()).await;
    tasks.spawn("reserved names", reserving);
    dns::warn_of_unconfirmed_names(&engine.snapshot(), &tailnet.borrow());
    let reload_regions = Arc::new(Notify::new());
    let keeping = regions.keep(
        new_tailnet.clone(),
        engine.watch(),
        reload_regions.clone(),
        shutdown.clone(),
    );
    tasks.spawn("DERP map", keeping);
    tasks.spawn("dns", dns.keep(new_tailnet.clone(), shutdown.clone()));
    let labels = ROUTES.iter().map(|route| (route.verb.name(), route.path));
    let counters = Arc::new(HttpCounters::new(labels));
    let states = Some(engine.watch());
    let derp_key = derp.public();
    let metrics = base.start_relay(config, derp, states, Some(counters.clone()));
    let names = base.start_names(config);
    let wan = watcher.place();
    let parts = ProberParts {
        outbound: base.outbound.clone(),
        url: base.addresses.server_url.clone(),
        machine: noise.public(),
        relay: metrics.relay.as_ref().map(Relay::public_key),
        region: watcher.region(),
        pin: base.pin.clone(),
        wan: wan.clone(),
    };
    let (prober, public_url) = Prober::new(parts, checks);
    let watching = watcher.keep(
        new_tailnet.clone(),
        names.clone(),
        tasks.clone(),
        shutdown.clone(),
    );
    tasks.spawn("public addresses", watching);
    if config.derp.stun_lan_as_wan && config.derp.ipv4.is_none() {
        let answering = wan::answer_lan(base.stun.for_lan.clone(), wan.watch(), shutdown.clone());
        tasks.spawn("STUN for the LAN", answering);
    }
    let keys = (noise.public().to_string(), node_key(&derp_key).to_string());
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
            names,
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
    base.serve(config, listeners, Arc::new(router), &metrics)?;
    let is_configured = !config.server_url_is_computed;
    tasks.spawn("public URL", prober.keep(is_configured, shutdown.clone()));
    let probing = probe_routers(control.clone(), config.routes);
    tasks.spawn("route probes", probing);
    tasks.spawn("uplink", wan::watch_uplink(new_tailnet, shutdown));
    let relay = metrics.relay.clone();
    let relay = relay.filter(|_| config.derp.admission == Admission::Tailnet);
    let watching = watch_admission(control.clone(), relay, base.gate.clone());
    tasks.spawn("admission", watching);

    let text = banner::banner(config, &base.addresses, &engine.snapshot());
    base::print(&text);
    tracing::info!(server_url = %base.addresses.server_url, "ready");
    notify::start(notifier, &control, &tasks);
    let mut reloaded = |fresh: Option<Config>| {
        if let Some(fresh) = fresh {
            dns_settings.send_replace(Arc::new(fresh.dns));
        }
        reload_regions.notify_one();
        reload_policy.notify_one();
        notify::ready(notifier, &control);
    };
    base.run(config, log, (reload, &mut reloaded), notifier, &metrics)
        .await;
    Ok(())
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

fn settings(config: &Config) -> Settings {
    let (v4, v6) = (config.prefixes.v4, config.prefixes.v6);
    let prefixes = Prefixes::new((v4.first(), v4.bits()), (v6.first(), v6.bits()));
    Settings {
        prefixes: prefixes.unwrap_or_default(),
        prefixes_are_lost: config.prefixes.is_lost,
        policy_is_configured: config.policy.is_configured(),
        node_expiry: config.node.expiry,
        device_approval: config.node.approval,
        ephemeral_timeout: config.node.ephemeral_timeout,
        offline_grace: config.limits.offline_grace,
        restart_grace: config.limits.restart_grace,
        flush_interval: config.limits.flush_interval,
        max_nodes: config.limits.nodes,
        max_users: config.limits.users,
        max_preauth_keys: config.limits.preauth_keys,
        max_api_keys: config.limits.api_keys,
        max_pending: config.limits.pending_registrations,
        pending_lifetime: config.limits.pending_timeout,
    }
}
