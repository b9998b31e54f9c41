//! The machine of the server: its disk, its clock, and the program that runs on it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hearth_core::clock::Timestamp;
use hearth_core::keys::MachineSecret;
use hearth_core::wan::Report;
use hearth_derp::ServerSecret;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::network::Network;
use crate::config::{Config, Overrides, Surroundings};
use crate::engine::{Handle, Simulated, Stop};
use crate::net::connection::Connections;
use crate::net::gate::Gate;
use crate::net::listener::{Serve, accept_all};
use crate::net::stream::Stream;
use crate::server::assembly::{self, Assembly, Parts};
use crate::server::base::{self, Base};
use crate::server::settings;
use crate::status::addresses::{Addresses, CurrentUrl};
use crate::status::public_url::PublicUrlStatus;
use crate::status::wan::WanStatus;
use crate::store::{Chance, Cut, Disk, Mood, Store};
use crate::supervise::Tasks;
use crate::system_clock::simulated::{self, Clocks};

/// How long connections may take to end at a shutdown.
const GRACE: Duration = Duration::from_secs(5);
/// What the clock of a machine without a battery shows when it is switched on.
const EPOCH: Timestamp = Timestamp::from_unix_ms(0);

/// What the wall clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shows {
    /// The right time, and so many days more.
    Off(i64),
    /// The time since it was switched on, after 1970.
    Uptime,
}

/// A machine.
pub(super) struct Machine {
    pub(super) disk: Disk,
    boot: u32,
    booted: Instant,
    shows: Shows,
    born: Instant,
    _directory: tempfile::TempDir,
    pub(super) config: Config,
    network: Network,
    hangs: Arc<AtomicBool>,
    pub(super) process: Option<Process>,
}

/// The running program.
pub(super) struct Process {
    pub(super) engine: Handle,
    stop: Stop,
    writer: Tasks,
    base: Base,
    relay: Option<hearth_derp::relay::Relay>,
    pub(super) gate: Gate,
    /// What other parts of the program would change.
    _assembly: Assembly,
}

/// The right time when a simulation begins: 2027-01-15.
const RIGHT: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

impl Machine {
    pub(super) fn new(seed: u64, network: Network, shows: Shows, approval: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut machine = Self {
            disk: Disk::seeded(seed),
            boot: 1,
            booted: Instant::now(),
            born: Instant::now(),
            shows,
            config: config(directory.path(), approval),
            _directory: directory,
            network,
            hangs: Arc::default(),
            process: None,
        };
        machine.set_clocks();
        machine
    }

    /// By how much its clock is wrong, in days; `None` in 1970.
    pub(super) fn error(&self) -> Option<i64> {
        match self.shows {
            Shows::Off(days) => Some(days),
            Shows::Uptime => None,
        }
    }

    pub(super) fn boot(&self) -> u32 {
        self.boot
    }

    /// Sets what its clock shows.
    pub(super) fn set_clock(&mut self, shows: Shows) {
        self.shows = shows;
        let wall_at_boot = self.wall_at_boot();
        simulated::set(Some(Clocks {
            wall_at_boot,
            ..self.clocks(self.started())
        }));
        // The writer sees it at its next look, which something causes soon.
        if let Some(process) = &self.process {
            process.engine.nudge();
        }
    }

    fn started(&self) -> Instant {
        simulated::get().map_or(self.booted, |clocks| clocks.started)
    }

    fn wall_at_boot(&self) -> Timestamp {
        match self.shows {
            Shows::Uptime => EPOCH,
            Shows::Off(days) => RIGHT.plus(self.booted - self.born).moved(days * 86_400_000),
        }
    }

    fn clocks(&self, started: Instant) -> Clocks {
        Clocks {
            booted: self.booted,
            started,
            boot: self.boot,
            wall_at_boot: self.wall_at_boot(),
        }
    }

    fn set_clocks(&mut self) {
        simulated::set(Some(self.clocks(Instant::now())));
    }

    /// Starts the program.
    ///
    /// # Errors
    /// Why the database cannot be opened, or that it was not as it should be.
    pub(super) async fn start(&mut self) -> Result<(), String> {
        self.set_clocks();
        let config = &self.config;
        let (mut store, loaded) =
            Store::open_on(&self.disk).map_err(|fault| format!("does not start: {fault}"))?;
        if let Some(notice) = &loaded.notice {
            return Err(format!("the database was damaged: {notice:?}"));
        }
        store.limit_audit(crate::store::AuditLimits {
            entries: config.limits.audit_log_entries,
            bytes: config.limits.audit_log_bytes,
        });
        let noise = MachineSecret::from_bytes(*loaded.secrets.noise);
        let derp = ServerSecret::from_bytes(*loaded.secrets.derp);
        let bounds = (config.limits.engine_queue, config.limits.engine_batch);
        let engine = Simulated::start(store, loaded, settings(config), bounds, self.hangs.clone());
        let writer = Tasks::new();
        writer.spawn("engine", engine.writer);
        let handle = engine.handle;
        let addresses = Addresses {
            server_url: CurrentUrl::new(config.server_url.clone()),
            http: None,
            https: None,
            stun: None,
            socket: config.socket.clone(),
        };
        let identity = base::identity(config).map_err(|fault| fault.to_string())?;
        let base = Base::new(config, addresses, identity);
        let counters = assembly::counters();
        let relay_key = derp.public();
        let states = Some(handle.watch());
        let metrics = base.start_relay(config, derp, states, Some(counters.clone()));
        let (_, report) = watch::channel(Arc::new(Report::default()));
        let parts = Parts {
            engine: handle.clone(),
            opening: None,
            noise,
            relay_key,
            counters,
            metrics: metrics.clone(),
            region: watch::channel(None).1,
            advertised: Vec::new(),
            wan: WanStatus::new(report, mpsc::channel(1).0),
            public_url: PublicUrlStatus::new(watch::channel(None).1, mpsc::channel(1).0),
        };
        let assembly = assembly::assemble(config, &base, parts).await;
        let assembly = assembly.map_err(|fault| fault.to_string())?;
        let connections = Connections::new(
            assembly.router.clone(),
            base::http_limits(&config.limits),
            base.proxies.clone(),
            base.shutdown.clone(),
        );
        let serve: Serve<Stream> =
            Box::new(move |stream, ticket| Box::pin(connections.clone().plain(stream, ticket)));
        let (gate, tasks) = (base.gate.clone(), base.tasks.clone());
        let shutdown = base.shutdown.clone();
        let door = self.network.open();
        let accepting = accept_all(door, gate.clone(), shutdown, tasks, serve);
        base.tasks.spawn("listener", accepting);
        self.process = Some(Process {
            engine: handle,
            stop: engine.stop,
            writer,
            relay: metrics.relay,
            gate,
            _assembly: assembly,
            base,
        });
        Ok(())
    }

    /// Stops the program as a service manager does.
    pub(super) async fn stop(&mut self) {
        self.network.close();
        let Some(process) = self.process.take() else {
            return;
        };
        process.base.shutdown.trigger();
        if let Some(relay) = &process.relay {
            relay.shutdown(Duration::from_millis(500), Duration::from_secs(60));
        }
        process.base.tasks.finish(GRACE).await;
        process.stop.stop();
        process.writer.finish(GRACE).await;
    }

    /// Kills the program: nothing more is written.
    pub(super) async fn kill(&mut self) {
        self.network.close();
        let Some(process) = self.process.take() else {
            return;
        };
        self.disk.set(Mood::Gone);
        process.writer.finish(Duration::ZERO).await;
        process.base.tasks.finish(Duration::ZERO).await;
        drop(process);
        self.hangs.store(false, Ordering::Release);
        self.disk.set(Mood::Works);
    }

    /// Cuts the power, and switches the machine on again, with what its disk then has and what its clock then shows.
    pub(super) async fn cut_power(&mut self, cut: Cut, shows: Shows, chance: &mut Chance) {
        let durable = self.disk.durable();
        self.kill().await;
        self.network.cut(None);
        self.disk = durable.after(cut, chance);
        self.boot += 1;
        self.booted = Instant::now();
        self.shows = shows;
        self.set_clocks();
    }

    /// Whether the disk answers nothing.
    pub(super) fn set_hanging(&self, hangs: bool) {
        self.hangs.store(hangs, Ordering::Release);
    }
}

fn config(directory: &Path, approval: bool) -> Config {
    let file = directory.join("hearth.toml");
    // An empty file would count as one that was lost, and close everything.
    std::fs::write(&file, "# simulation\n").expect("a file");
    let overrides = Overrides {
        config: Some(file),
        data_dir: Some(directory.to_owned()),
        server_url: "http://203.0.113.1:8080".parse().ok(),
        ..Overrides::default()
    };
    let mut config = Config::load(overrides, &Surroundings::default());
    config.node.approval = approval;
    config.node.expiry = Some(super::LOGIN);
    config.backup.every = None;
    config.routes.probe_interval = None;
    config.limits.keepalive = Duration::from_secs(10 * 60);
    config.limits.connections = super::CONNECTIONS;
    config
}
