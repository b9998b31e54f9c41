//! The common half of the control server and the standalone relay: certificate, listeners and tasks; reload and
//! shutdown.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hearth_derp::ServerSecret;
use hearth_derp::udp::{StunCounters, StunOptions};
use tokio::sync::watch;

use super::ServeError;
use super::listeners::Listeners;
use crate::config::{Config, Host, Limits};
use crate::files::Saver;
use crate::logging::LogControl;
use crate::net::connection::{Connections, Service};
use crate::net::gate::Gate;
use crate::net::limits as http_limits;
use crate::net::proxies::Proxies;
use crate::net::tls::{self, Aes, CertNames, CertResolver, Identity};
use crate::outbound::client::Outbound;
use crate::relay::bootstrap_dns::BootstrapDns;
use crate::relay::setup as relay;
use crate::service::{Sockets, SystemdNotifier};
use crate::shutdown::{Shutdown, Signal, Signals};
use crate::status::addresses::Addresses;
use crate::status::http_counters::HttpCounters;
use crate::status::relay::Metrics;
use crate::supervise::Tasks;
use crate::system_clock;
use hearth_core::state::snapshot::Snapshot;

/// Connections get this part of the shutdown timeout (one half); the rest is for the database.
const TASKS_SHARE: u32 = 2;
/// Time after which relay clients reconnect to a restarting server.
const RECONNECT_IN: Duration = Duration::from_millis(500);
/// How long files for the next start may take at shutdown.
const SAVE_PATIENCE: Duration = Duration::from_secs(1);
/// How long relay clients try to reconnect.
const TRY_FOR: Duration = Duration::from_secs(60);

/// The common half of both servers.
pub(crate) struct Base {
    /// The addresses of the listeners.
    pub(super) addresses: Addresses,
    /// The certificate of TLS connections.
    pub(super) certificate: Arc<CertResolver>,
    /// Hash of the self-signed certificate; `None` with certificate files.
    pub(super) pin: Option<String>,
    /// Outgoing requests.
    pub(super) outbound: Arc<Outbound>,
    /// Saves files for the next start.
    pub(super) saver: Saver,
    /// Settings of the STUN responder.
    pub(super) stun: StunOptions,
    /// The trusted proxies.
    pub(crate) proxies: Arc<Proxies>,
    /// The gate that all connections but those of the admin socket and the metrics pass.
    pub(crate) gate: Gate,
    /// All tasks.
    pub(crate) tasks: Tasks,
    /// The request to stop.
    pub(crate) shutdown: Shutdown,
}

impl Base {
    /// Opens the listeners and the certificate.
    ///
    /// # Errors
    /// If an address is in use, or there is no certificate.
    pub(super) async fn open(
        config: &Config,
        sockets: Sockets,
    ) -> Result<(Self, Listeners), ServeError> {
        let identity = identity(config)?;
        let listeners = Listeners::bind(config, sockets).await?;
        let addresses = listeners.addresses(&config.server_url)?;
        Ok((Self::new(config, addresses, identity), listeners))
    }

    /// A server at these addresses, with this certificate and, if it is self-signed, its hash.
    pub(crate) fn new(
        config: &Config,
        addresses: Addresses,
        (identity, pin): (Identity, Option<String>),
    ) -> Self {
        let proxies = Arc::new(Proxies::new(config.trusted_proxies.clone()));
        Self {
            addresses,
            certificate: CertResolver::new(identity),
            pin,
            outbound: Arc::new(Outbound::default()),
            saver: Saver::default(),
            stun: relay::stun_options(config),
            gate: Gate::new(&http_limits(&config.limits), proxies.clone()),
            proxies,
            tasks: Tasks::new(),
            shutdown: Shutdown::new(),
        }
    }

    /// Starts the relay, unless it is off. `states` and `http` are those of the control server, if there is one.
    pub(crate) fn start_relay(
        &self,
        config: &Config,
        secret: ServerSecret,
        states: Option<watch::Receiver<Arc<Snapshot>>>,
        http: Option<Arc<HttpCounters>>,
    ) -> Metrics {
        let (tasks, shutdown) = (&self.tasks, &self.shutdown);
        let relay = relay::start(
            config,
            secret,
            states.clone(),
            &self.outbound,
            tasks,
            shutdown,
        );
        if let Some(relay) = &relay {
            relay::announce_key(&self.certificate, relay, tasks, shutdown);
        }
        Metrics {
            relay,
            stun: StunCounters::default(),
            http,
            states,
        }
    }

    /// Starts the bootstrap DNS.
    pub(super) fn start_names(&self, config: &Config) -> BootstrapDns {
        let names = BootstrapDns::new(config);
        let refreshing = names.clone().refresh(self.shutdown.clone());
        self.tasks.spawn("names", refreshing);
        names
    }

    /// Accepts connections and hands their requests to `service`.
    pub(super) fn serve(
        &self,
        config: &Config,
        mut listeners: Listeners,
        service: Arc<dyn Service>,
        metrics: &Metrics,
    ) -> Result<(), ServeError> {
        let limits = http_limits(&config.limits);
        let tls = tls::server_config(self.certificate.clone(), aes(config))?;
        let proxies = self.proxies.clone();
        let connections = Connections::new(service, limits, proxies, self.shutdown.clone());
        listeners.start_metrics(metrics, &self.tasks, &self.shutdown);
        listeners.start(
            &connections,
            &self.gate,
            tls,
            (&metrics.stun, &self.stun),
            &self.tasks,
            &self.shutdown,
        );
        Ok(())
    }

    /// Reloads the configuration at SIGHUP, and stops everything at SIGTERM or SIGINT. `reloaded` gets each new
    /// configuration, and `None` for one that is broken.
    pub(super) async fn run(
        self,
        mut signals: Signals,
        config: &Config,
        log: &LogControl,
        (reload, reloaded): (&dyn Fn() -> Config, &mut dyn FnMut(Option<Config>)),
        notifier: &SystemdNotifier,
        metrics: &Metrics,
    ) {
        while signals.next().await == Signal::Reload {
            notifier.reloading();
            let fresh = reload();
            for warning in &fresh.warnings {
                tracing::warn!("{warning}");
            }
            if fresh.is_broken {
                // What is not read might be what restricts something.
                tracing::error!(
                    "the configuration cannot be read completely; keeping the current one"
                );
                reloaded(None);
                continue;
            }
            self.reload(config, &fresh, log);
            if let Some(relay) = &metrics.relay {
                relay.set_rates(relay::rates(&fresh.limits));
            }
            reloaded(Some(fresh));
        }
        tracing::info!("stopping");
        notifier.stopping();
        self.shutdown.trigger();
        if let Some(relay) = &metrics.relay {
            relay.shutdown(RECONNECT_IN, TRY_FOR);
        }
        let grace = config.limits.shutdown_timeout / TASKS_SHARE;
        tokio::select! {
            aborted = self.tasks.finish(grace) => {
                if !aborted.is_empty() {
                    tracing::debug!(?aborted, "tasks aborted at the shutdown timeout");
                }
            }
            _ = signals.next() => tracing::warn!("second signal: stopping immediately"),
        }
        self.saver.finish(SAVE_PATIENCE);
        // A leftover socket would mislead a person who looks for a running server.
        let _ = std::fs::remove_file(&self.addresses.socket);
    }

    /// Applies the settings that can change at runtime: log level and certificate.
    fn reload(&self, running: &Config, fresh: &Config, log: &LogControl) {
        log.set_level(fresh.log_level);
        let sections = needs_restart(running, fresh);
        if !sections.is_empty() {
            let sections = sections.join(", ");
            tracing::warn!("changed settings that take effect after a restart: {sections}");
        }
        let Some(files) = &fresh.tls else {
            tracing::info!("configuration reloaded");
            return;
        };
        if self.pin.is_some() {
            // Clients know the hash of the self-signed certificate and accept no other.
            tracing::warn!("the certificate files take effect after a restart");
            return;
        }
        match Identity::load(&files.cert, &files.key) {
            Ok(identity) => {
                self.certificate.replace(identity);
                tracing::info!("configuration and certificate reloaded");
            }
            Err(fault) => {
                tracing::error!(%fault, "cannot reload the certificate; keeping the current one");
            }
        }
    }
}

/// Prints a text on standard output. Nobody may be reading it; the log has the same facts.
pub(super) fn print(text: &str) {
    let mut output = io::stdout();
    let _ = output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush());
}

/// Whether a setting has changed that cannot change at runtime.
fn needs_restart(running: &Config, fresh: &Config) -> Vec<&'static str> {
    let without_reloadable = Config {
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
    let (is, was) = (&without_reloadable, running);
    let sections = [
        ("server_url", is.server_url != was.server_url),
        ("base_domain", is.base_domain != was.base_domain),
        ("data_dir", is.data_dir != was.data_dir),
        (
            "listen",
            (&is.listen, &is.socket) != (&was.listen, &was.socket),
        ),
        ("trusted_proxies", is.trusted_proxies != was.trusted_proxies),
        ("tls", fresh.tls.is_some() != running.tls.is_some()),
        ("prefixes", is.prefixes != was.prefixes),
        ("node", is.node != was.node),
        ("routes", is.routes != was.routes),
        ("derp", is.derp != was.derp),
        ("policy", is.policy != was.policy),
        ("clients", is.clients != was.clients),
        ("wan", is.wan != was.wan),
        ("backup", is.backup != was.backup),
        ("metrics", is.metrics != was.metrics),
        (
            "limits",
            (&is.limits, &is.board) != (&was.limits, &was.board),
        ),
    ];
    let changed = sections.into_iter().filter(|(_, is_changed)| *is_changed);
    let mut changed: Vec<&str> = changed.map(|(name, _)| name).collect();
    if changed.is_empty() && without_reloadable != *running {
        changed.push("others");
    }
    changed
}

/// The certificate of the files, or a self-signed one and its hash.
///
/// An unreadable certificate must not stop the server: with a self-signed one the relay works, and so do clients
/// that know the Noise key. New clients that connect over HTTPS see a TLS error.
pub(crate) fn identity(config: &Config) -> Result<(Identity, Option<String>), ServeError> {
    if let Some(files) = &config.tls {
        match Identity::load(&files.cert, &files.key) {
            Ok(identity) => return Ok((identity, None)),
            Err(fault) => {
                tracing::error!(%fault, "serving a self-signed certificate instead; fix the file and restart");
            }
        }
    }
    let now = system_clock::now().wall;
    let identity = Identity::self_signed(&config.data_dir, &own_names(config), now)?;
    let pin = identity.sha256().to_owned();
    Ok((identity, Some(pin)))
}

/// The names of the self-signed certificate: those of the server and of the relay.
fn own_names(config: &Config) -> CertNames {
    let mut names = CertNames {
        common_name: "hearth".to_owned(),
        dns: Vec::new(),
        addresses: vec![IpAddr::from([127, 0, 0, 1])],
    };
    let relay = config.derp.host_name.as_deref();
    let relay = relay.and_then(|name| match name.parse() {
        Ok(address) => Some(Host::Address(address)),
        Err(_) => name.parse().ok().map(Host::Name),
    });
    for host in [Some(config.server_url.host().clone()), relay]
        .into_iter()
        .flatten()
    {
        match host {
            Host::Name(name) => names.dns.push(name.to_string()),
            Host::Address(address) => names.addresses.push(address),
        }
    }
    names.dns.dedup();
    names.addresses.dedup();
    names
}

/// Whether the board has AES instructions; unknown machines are assumed to have them.
fn aes(config: &Config) -> Aes {
    match &config.board.board {
        Some(board) if !board.aes => Aes::InSoftware,
        _ => Aes::InHardware,
    }
}

/// The limits of connections. Every field is listed, so that a new one must be mapped.
pub(crate) fn http_limits(limits: &Limits) -> http_limits::Limits {
    let as_u32 = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let fixed = http_limits::Limits::default();
    http_limits::Limits {
        connections: limits.connections,
        reserved_for_strangers: limits.reserved_for_strangers(),
        connections_per_source: limits.connections_per_address,
        stranger_life: fixed.stranger_life,
        admin_connections: fixed.admin_connections,
        tls_handshake: limits.handshake_timeout,
        first_byte: fixed.first_byte.min(limits.idle_timeout),
        head: limits.handshake_timeout,
        idle: limits.idle_timeout,
        lifetime: fixed.lifetime,
        noise_handshake: limits.handshake_timeout,
        first_request: fixed.first_request,
        streams: as_u32(limits.http2_streams),
        window_bytes: as_u32(limits.http2_window),
        send_bytes: limits.http2_send_buffer,
        header_list_bytes: fixed.header_list_bytes,
        ping: fixed.ping,
        pong: fixed.pong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, Surroundings};

    #[test]
    fn the_self_signed_certificate_has_the_names_of_server_and_relay() {
        let names = |url: &str, relay: Option<&str>| {
            let overrides = Overrides {
                server_url: url.parse().ok(),
                ..Overrides::default()
            };
            let mut config = Config::load(overrides, &Surroundings::default());
            config.derp.host_name = relay.map(str::to_owned);
            let names = own_names(&config);
            let addresses = names.addresses.iter().map(ToString::to_string);
            names.dns.into_iter().chain(addresses).collect::<Vec<_>>()
        };
        let home = "http://192.168.1.1:8080";
        assert_eq!(names(home, None), ["127.0.0.1", "192.168.1.1"]);
        let relay = names(home, Some("relay.example"));
        assert_eq!(relay, ["relay.example", "127.0.0.1", "192.168.1.1"]);
        let both = names("https://home.example", Some("relay.example"));
        assert_eq!(both, ["home.example", "relay.example", "127.0.0.1"]);
        let same = names("https://home.example", Some("home.example"));
        assert_eq!(same, ["home.example", "127.0.0.1"]);
        let address = names("https://home.example", Some("203.0.113.1"));
        assert_eq!(address, ["home.example", "127.0.0.1", "203.0.113.1"]);
        // A label that is no DNS name cannot be in a certificate.
        assert_eq!(names(home, Some("my relay")), ["127.0.0.1", "192.168.1.1"]);
    }
}
