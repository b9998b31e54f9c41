//! The control server: starts its parts in order and stops them in order.

mod admission;
mod banner;
mod base;
mod derp_map;
mod dns;
mod listeners;
mod notify;
mod policy;
mod regions;
mod relay;
#[cfg(feature = "standalone-relay")]
mod standalone;
mod wan;

#[cfg(feature = "standalone-relay")]
pub use standalone::run as run_relay;

use std::io;
use std::sync::Arc;

use hearth_derp::ServerSecret;
use tokio::sync::{Notify, watch};

use crate::api::BoardStatus;
use crate::config::{Admission, Choice, Config};
use crate::engine::{Engine, Handle};
use crate::http::app::{App, Parts};
use crate::http::routers::ask_routers;
use crate::keys::{MachineSecret, NodeKey};
use crate::logging::LogControl;
use crate::netmap::Tailnet;
use crate::netmap::notices::Notices;
use crate::service::{Sockets, SystemdNotifier};
use crate::state::addr::Prefixes;
use crate::state::model::Settings;
use crate::state::secret::NoRandomness;
use crate::store::{Store, StoreError};
use crate::tls::TlsError;
use base::Base;
use dns::Dns;
use policy::PolicyFile;
use regions::Regions;
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
    let (store, loaded) = Store::open(&config.data_dir, limits.database_cache)?;
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
    let watcher = Watcher::new(&WatcherParts {
        config,
        listening: &base.addresses,
        pin: base.pin.as_deref(),
    });

    let (mut policy, policy_place) = PolicyFile::new(config.policy.file.clone(), engine.clone());
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
    );
    let (dns_settings, settings) = watch::channel(Arc::new(config.dns.clone()));
    let mut dns = Dns::new(settings);
    let notices = Notices::new(watcher.server(), config.clients.latest_version);
    let tailnet = Tailnet::new(
        config.base_domain.to_string(),
        &regions.at_start(&engine.snapshot()),
    );
    let tailnet = tailnet.with_dns(dns.look()).with_notices(notices);
    let (new_tailnet, tailnet) = watch::channel(Arc::new(tailnet));
    let reload_regions = Arc::new(Notify::new());
    let keeping = regions.keep(
        new_tailnet.clone(),
        engine.watch(),
        reload_regions.clone(),
        shutdown.clone(),
    );
    tasks.spawn("DERP map", keeping);
    tasks.spawn("dns", dns.keep(new_tailnet.clone(), shutdown.clone()));
    let numbers = base.start_relay(config, derp, Some(engine.watch()));
    let names = base.start_names(config);
    let wan = watcher.place();
    let watching = watcher.keep(
        new_tailnet.clone(),
        names.clone(),
        tasks.clone(),
        shutdown.clone(),
    );
    tasks.spawn("public addresses", watching);
    let app = App::new(Parts {
        engine,
        tailnet,
        limits: config.limits.clone(),
        warnings: config.warnings.iter().map(ToString::to_string).collect(),
        board: board_status(&config.board),
        policy_place,
        addresses: base.addresses.clone(),
        noise: noise.public(),
        relay: numbers.relay.clone(),
        stun: numbers.stun.clone(),
        names,
        wan,
        served: base.certificate.clone(),
        certificate_is_own: base.pin.is_some(),
        memory_budget: config.board.budget(),
        tasks: tasks.clone(),
        shutdown: shutdown.clone(),
    });
    base.serve(config, listeners, app.clone(), noise, &numbers)?;
    tasks.spawn("route probes", ask_routers(app.clone(), config.routes));
    tasks.spawn("uplink", wan::watch_uplink(new_tailnet, shutdown));
    tasks.spawn(
        "admission",
        watch_admission(app.clone(), config.derp.admission == Admission::Tailnet),
    );

    let text = banner::banner(config, &app.addresses, &app.engine.snapshot());
    base::print(&text);
    tracing::info!(server_url = app.addresses.server_url, "ready");
    notify::start(notifier, &app, &tasks);
    let mut reloaded = |fresh: Config| {
        dns_settings.send_replace(Arc::new(fresh.dns));
        reload_regions.notify_one();
        reload_policy.notify_one();
        notify::ready(notifier, &app);
    };
    base.run(config, log, (reload, &mut reloaded), notifier, &numbers)
        .await;
    Ok(())
}

/// Drops cached data of deleted nodes, and disconnects nodes that lose admission to the relay if `is_by_tailnet`.
async fn watch_admission(app: Arc<App>, is_by_tailnet: bool) {
    let mut states = app.engine.watch();
    let mut seen = states.borrow().admission();
    loop {
        tokio::select! {
            biased;
            () = app.shutdown.wait() => return,
            changed = states.changed() => if changed.is_err() { return },
        }
        let snapshot = states.borrow_and_update().clone();
        app.fragments.prune(&snapshot);
        if snapshot.admission() != seen {
            seen = snapshot.admission();
            app.contact.prune(&snapshot);
            if let Some(relay) = app.relay.as_ref().filter(|_| is_by_tailnet) {
                relay.retain(|key| snapshot.admits(&NodeKey::from(*key)));
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
