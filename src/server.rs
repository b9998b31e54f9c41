//! The control server: starts its parts in order and stops them in order.

pub(crate) mod assembly;
mod banner;
pub(crate) mod base;
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

use std::io;
use std::path::Path;
use std::sync::Arc;

use hearth_derp::ServerSecret;
use hearth_derp::relay::Relay;
use tokio::sync::watch;

use crate::config::Config;
use crate::engine::{Engine, Handle};
use crate::logging::LogControl;
use crate::net::tls::TlsError;
use crate::service::{Sockets, SystemdNotifier};
use crate::shutdown::Signals;
use crate::store::{AuditLimits, Notice, Store, StoreError};
use assembly::{Assembly, Parts};
use base::Base;
use hearth_core::keys::MachineSecret;
use hearth_core::state::addr::Prefixes;
use hearth_core::state::model::Settings;
use hearth_core::state::secret::NoRandomness;
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
    /// Several addresses are in use or not available; there are at least two.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Binds(Vec<ServeError>),
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
    let opening = loaded.notice.as_ref().and_then(Notice::warning);
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
        (handle, noise, derp, opening),
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
    (engine, noise, derp, opening): (Handle, MachineSecret, ServerSecret, Option<String>),
    sockets: Sockets,
    notifier: &SystemdNotifier,
) -> Result<(), ServeError> {
    let signals = Signals::new().map_err(system("signal handlers"))?;
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
    let counters = assembly::counters();
    let states = Some(engine.watch());
    let relay_key = derp.public();
    let metrics = base.start_relay(config, derp, states, Some(counters.clone()));
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
    let public_addresses = wan.watch();
    let (prober, public_url) = Prober::new(parts, checks);
    let parts = Parts {
        engine: engine.clone(),
        opening,
        noise,
        relay_key,
        counters,
        metrics: metrics.clone(),
        region: watcher.region(),
        advertised: watcher.server().to_vec(),
        wan,
        public_url,
    };
    let Assembly {
        router,
        tailnet,
        names,
        dns_settings,
        reload_policy,
        reload_regions,
    } = assembly::assemble(config, &base, parts).await?;
    let watching = watcher.keep(tailnet.clone(), names, tasks.clone(), shutdown.clone());
    tasks.spawn("public addresses", watching);
    if config.derp.stun_lan_as_wan && config.derp.ipv4.is_none() {
        let for_lan = base.stun.for_lan.clone();
        let answering = wan::answer_lan(for_lan, public_addresses, shutdown.clone());
        tasks.spawn("STUN for the LAN", answering);
    }
    let control = router.control.clone();
    base.serve(config, listeners, router, &metrics)?;
    let is_configured = !config.server_url_is_computed;
    tasks.spawn("public URL", prober.keep(is_configured, shutdown.clone()));
    tasks.spawn("uplink", wan::watch_uplink(tailnet, shutdown));

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
    let reloading = (reload, &mut reloaded as &mut dyn FnMut(Option<Config>));
    base.run(signals, config, log, reloading, notifier, &metrics)
        .await;
    Ok(())
}

pub(crate) fn settings(config: &Config) -> Settings {
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
