//! The server as a whole: starts the parts in order, waits for signals, stops them in order.

mod banner;
mod dns;
mod listeners;
mod manager;
mod policy;
#[cfg(feature = "standalone-relay")]
mod standalone;
mod wan;

#[cfg(feature = "standalone-relay")]
pub use standalone::run as run_relay;

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hearth_derp::ServerSecret;
use hearth_derp::relay::Relay;
use hearth_derp::udp::StunCounters;
use tokio::sync::{Mutex, Notify, watch};

use crate::admin::authenticate::Gate;
use crate::admin::{About, AdminContext};
use crate::api::BoardStatus;
use crate::config::{Admission, Choice, Config, Host, Limits};
use crate::control::c2n::NodeCalls;
use crate::control::coalesce::coalesce_snapshots;
use crate::control::context::{ControlContext, ControlParts};
use crate::control::route_failover::ask_routers;
use crate::control::ts2021::NoiseServer;
use crate::engine::{Engine, Handle};

use crate::logging::LogControl;
use crate::net::connection::Connections;
use crate::net::tls::{Aes, Identity, Names, Served, TlsError};
use crate::net::{limits as http_limits, tls};
use crate::outbound::client::Outbound;
use crate::relay::bootstrap_dns::BootstrapDns;
use crate::relay::context::RelayContext;
use crate::relay::regions::Regions;
use crate::relay::setup as relay_setup;
use crate::relay_key::node_key;
use crate::routes::Router;
use crate::routes::table::ROUTES;
use crate::service::{Manager, Sockets};
use crate::shutdown::{Shutdown, Signal, Signals};
use crate::status::client_reports::ClientReports;
use crate::status::http_counters::HttpCounters;
use crate::status::relay::Numbers;
use crate::status::ssh_checks::SshChecks;
use crate::store::{Store, StoreError};
use crate::supervise::Tasks;
use crate::web::WebContext;
use dns::Dns;
use hearth_core::keys::{ChallengeKey, MachineSecret};
use hearth_core::netmap::{DialPlan, SharedMapData};
use hearth_core::state::addr::Prefixes;
use hearth_core::state::model::Settings;
use hearth_core::state::secret::{NoRandomness, random};
use listeners::Listeners;
use policy::PolicyFile;
use wan::{Watcher, WatcherParts};

/// The largest part of the time for stopping that connections may use; the rest is the database's.
const TASKS_SHARE: u32 = 2;
/// What relay clients are told of a restart: come back after this, and try for that long.
const RECONNECT_IN: Duration = Duration::from_millis(500);
/// See [`RECONNECT_IN`].
const TRY_FOR: Duration = Duration::from_secs(60);

/// Why the server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no certificate to serve.
    #[error("HTTPS: {0}")]
    Tls(#[from] TlsError),
    /// An address cannot be listened on.
    #[error("cannot listen on {what} {address}: {source}; choose another with {flag}")]
    Bind {
        /// The protocol.
        what: &'static str,
        /// The address or path.
        address: String,
        /// The flag that changes it.
        flag: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The system refuses something that every server needs.
    #[error("the system refuses {what}: {source}")]
    System {
        /// What it refuses.
        what: &'static str,
        /// What it says.
        source: io::Error,
    },
    /// The system gave no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// Runs the server until it is told to stop. `reload` reads the configuration again. Who handed `sockets` over
/// is told how the server is.
///
/// # Errors
/// When a part cannot start.
pub fn run(
    config: Config,
    log: &LogControl,
    reload: impl Fn() -> Config,
    sockets: Sockets,
) -> Result<(), ServeError> {
    let manager = Manager::of_this_process();
    manager.status("opening the database");
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
        .map_err(system("an event queue"))?;
    let serving = serve(
        &config,
        log,
        &reload,
        (handle, noise, derp),
        sockets,
        &manager,
    );
    let served = runtime.block_on(serving);
    // Whatever keeps a connection's task alive must not keep the process: the database is what counts.
    // Nor must a question to DNS that nobody answers: the thread that waits for it is left behind.
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
    reload: &impl Fn() -> Config,
    (engine, noise, derp): (Handle, MachineSecret, ServerSecret),
    sockets: Sockets,
    manager: &Manager,
) -> Result<(), ServeError> {
    let mut signals = Signals::new().map_err(system("signal handlers"))?;
    let (identity, pin) = identity(config)?;
    let mut listeners = Listeners::bind(config, sockets).await?;
    let addresses = listeners.addresses(&config.server_url)?;
    let watcher = Watcher::new(&WatcherParts {
        config,
        listening: &addresses,
        pin: pin.as_deref(),
    });

    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let (mut policy, policy_status) = PolicyFile::new(config.policy.file.clone(), engine.clone());
    policy.at_start().await;
    let policy_reread = Arc::new(Notify::new());
    tasks.spawn(
        "policy",
        policy.keep(policy_reread.clone(), shutdown.clone()),
    );
    let outbound = Arc::new(Outbound::default());
    let most_bytes = config.limits.derp_map;
    let data_dir = &config.data_dir;
    let own = watcher.region();
    let mut regions = Regions::new(&config.derp, own, most_bytes, data_dir, outbound.clone());
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
    let home = new_tailnet.clone();
    let outside = new_tailnet.clone();
    let reread = Arc::new(Notify::new());
    let keeping = regions.keep(
        new_tailnet.clone(),
        engine.watch(),
        reread.clone(),
        shutdown.clone(),
    );
    tasks.spawn("relays", keeping);
    tasks.spawn("dns", dns.keep(new_tailnet, shutdown.clone()));
    let states = Some(engine.watch());
    let relay = relay_setup::start(config, derp, states, &outbound, &tasks, &shutdown);
    let labels = ROUTES.iter().map(|route| (route.verb.name(), route.path));
    let counters = Arc::new(HttpCounters::new(labels));
    let numbers = Numbers {
        relay: relay.clone(),
        stun: StunCounters::default(),
        http: Some(counters.clone()),
    };
    let names = BootstrapDns::new(config);
    tasks.spawn("names", names.clone().refresh(shutdown.clone()));
    let wan = watcher.place();
    let watching = watcher.keep(outside, names.clone(), tasks.clone(), shutdown.clone());
    tasks.spawn("addresses outside", watching);
    let challenge = ChallengeKey::from_bytes(random()?);
    let http_limits = http_limits(&config.limits);
    let noise = NoiseServer::new(noise, challenge, http_limits.clone(), shutdown.clone());
    let served = Served::new(identity);
    let calls = Arc::new(NodeCalls::new(&addresses.server_url, &config.limits));
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
        server_url: addresses.server_url.clone(),
        noise: Arc::new(noise),
        calls: calls.clone(),
        reports: reports.clone(),
        ssh_checks: ssh_checks.clone(),
        tasks: tasks.clone(),
        shutdown: shutdown.clone(),
        counters: counters.clone(),
    });
    let about = About {
        addresses: addresses.clone(),
        base_domain: config.base_domain.to_string(),
        tailnet,
        warnings: config.warnings.iter().map(ToString::to_string).collect(),
        board: board_status(&config.board),
        policy_status: policy_status.clone(),
        wan,
        served: served.clone(),
        certificate_is_own: pin.is_some(),
        memory_budget: config.board.budget(),
        relay: numbers.clone(),
    };
    let router = Router {
        control: control.clone(),
        relay: RelayContext {
            relay: relay.clone(),
            names,
        },
        admin: AdminContext {
            engine: engine.clone(),
            limits: config.limits.clone(),
            calls,
            reports,
            ssh_checks: ssh_checks.clone(),
            about,
            policy_turn: Mutex::default(),
            gate: Gate::new(),
        },
        web: WebContext {
            engine: engine.clone(),
            server_url: addresses.server_url.clone(),
            policy: policy_status,
            ssh_checks,
        },
        counters,
    };
    let tls = tls::server_config(served.clone(), aes(config))?;
    if let Some(relay) = &relay {
        relay_setup::tell(&served, relay, &tasks, &shutdown);
    }
    let connections = Connections::new(Arc::new(router), http_limits, shutdown.clone());
    listeners.start_metrics(&numbers, &tasks, &shutdown);
    let stun = (&numbers.stun, relay_setup::stun_options(config));
    listeners.start(&connections, &config.limits, tls, stun, &tasks, &shutdown);
    tasks.spawn(
        "questions to routers",
        ask_routers(control.clone(), config.routes),
    );
    tasks.spawn(
        "way to the internet",
        wan::watch_home(home, shutdown.clone()),
    );
    tasks.spawn(
        "admission",
        watch_admission(
            control.clone(),
            relay
                .clone()
                .filter(|_| config.derp.admission == Admission::Tailnet),
        ),
    );

    let text = banner::banner(config, &addresses, &engine.snapshot());
    // Nobody may be reading; the log says the same to those who do.
    let _ = io::stdout()
        .write_all(text.as_bytes())
        .and_then(|()| io::stdout().flush());
    tracing::info!(server_url = addresses.server_url, "ready");
    manager::start(manager, &control, &tasks);

    while signals.next().await == Signal::Reload {
        manager.reloading();
        let fresh = reload();
        reload_files(config, &fresh, log, &served, pin.is_some());
        if let Some(relay) = &relay {
            relay.set_rates(relay_setup::rates(&fresh.limits));
        }
        dns_settings.send_replace(Arc::new(fresh.dns));
        reread.notify_one();
        policy_reread.notify_one();
        manager::tell_ready(manager, &control);
    }
    tracing::info!("stopping");
    manager.stopping();
    shutdown.trigger();
    if let Some(relay) = &relay {
        relay.shutdown(RECONNECT_IN, TRY_FOR);
    }
    let grace = config.limits.shutdown_timeout / TASKS_SHARE;
    tokio::select! {
        cut_off = tasks.finish(grace) => {
            if !cut_off.is_empty() {
                tracing::debug!(?cut_off, "tasks were cut off");
            }
        }
        _ = signals.next() => tracing::warn!("stopping at once"),
    }
    // Left behind, the file would only be in the way of a person who looks for a running server.
    let _ = std::fs::remove_file(&config.socket);
    Ok(())
}

/// Forgets nodes that are gone, and disconnects relay clients that are no longer admitted; `relay` is `None`
/// where the tailnet does not decide about that.
async fn watch_admission(context: Arc<ControlContext>, relay: Option<Relay>) {
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
            if let Some(relay) = &relay {
                relay.retain(|key| snapshot.admits(&node_key(key)));
            }
        }
    }
}

/// Takes over what can change while the server runs: the log level and the certificate (and, elsewhere,
/// the rates of the relay and DNS).
fn reload_files(
    running: &Config,
    fresh: &Config,
    log: &LogControl,
    served: &Served,
    is_pinned: bool,
) {
    for warning in &fresh.warnings {
        tracing::warn!("{warning}");
    }
    log.set_level(fresh.log_level);
    let restart = Config {
        log_level: running.log_level,
        limits: Limits {
            derp_client_rate: running.limits.derp_client_rate,
            derp_client_burst: running.limits.derp_client_burst,
            derp_total_rate: running.limits.derp_total_rate,
            derp_total_burst: running.limits.derp_total_burst,
            ..fresh.limits.clone()
        },
        warnings: running.warnings.clone(),
        tls: running.tls.clone(),
        dns: running.dns.clone(),
        ..fresh.clone()
    };
    if restart != *running || fresh.tls.is_some() != running.tls.is_some() {
        tracing::warn!("some of the changed settings take effect only after a restart");
    }
    let Some(files) = &fresh.tls else {
        tracing::info!("configuration read again");
        return;
    };
    if is_pinned {
        // Clients have been told to accept the self-signed certificate and no other.
        tracing::warn!("the certificate file is served after a restart");
        return;
    }
    match Identity::load(&files.cert, &files.key) {
        Ok(identity) => {
            served.replace(identity);
            tracing::info!("configuration and certificate read again");
        }
        Err(fault) => tracing::error!(%fault, "the certificate stays as it was"),
    }
}

/// The owner's certificate, or one of our own, with its hash for clients to pin.
///
/// A certificate that cannot be read must not keep a tailnet down: with one of our own the relay works,
/// and so do clients that know the Noise key. New clients that come by https are told by their TLS.
fn identity(config: &Config) -> Result<(Identity, Option<String>), ServeError> {
    if let Some(files) = &config.tls {
        match Identity::load(&files.cert, &files.key) {
            Ok(identity) => return Ok((identity, None)),
            Err(fault) => {
                tracing::error!(%fault, "a self-signed certificate is served instead; mend the file and restart");
            }
        }
    }
    let mut names = Names {
        common_name: "hearth".to_owned(),
        dns: Vec::new(),
        addresses: vec![IpAddr::from([127, 0, 0, 1])],
    };
    match config.server_url.host() {
        Host::Name(name) => names.dns.push(name.to_string()),
        Host::Address(address) => names.addresses.push(*address),
    }
    let identity = Identity::self_signed(&config.data_dir, &names)?;
    let pin = identity.sha256().to_owned();
    Ok((identity, Some(pin)))
}

/// What the board says; of others the best is assumed.
fn aes(config: &Config) -> Aes {
    match &config.board.board {
        Some(board) if !board.aes => Aes::InSoftware,
        _ => Aes::InHardware,
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

fn http_limits(limits: &Limits) -> http_limits::Limits {
    let as_u32 = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    http_limits::Limits {
        connections: limits.connections,
        connections_per_source: limits.connections_per_address,
        handshakes: limits.handshakes,
        tls_handshake: limits.handshake_timeout,
        head: limits.handshake_timeout,
        noise_handshake: limits.handshake_timeout,
        idle: limits.idle_timeout,
        streams: as_u32(limits.http2_streams),
        window_bytes: as_u32(limits.http2_window),
        send_bytes: limits.http2_send_buffer,
        ..http_limits::Limits::default()
    }
}
