//! The relay and STUN alone, without a control server and without a database.

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use hearth_derp::ServerSecret;
use hearth_derp::udp::StunCounters;
use zeroize::Zeroizing;

use super::listeners::Listeners;
use super::{RECONNECT_IN, ServeError, TASKS_SHARE, TRY_FOR, aes, identity, relay, system};
use crate::config::{Admission, Config};
use crate::http::bootstrap::BootstrapDns;
use crate::http::connection::Connections;
use crate::http::numbers::Numbers;
use crate::http::outbound::Outbound;
use crate::http::standalone::RelayOnly;
use crate::http::ts2021::Control;
use crate::keys::{ChallengeKey, MachineSecret};
use crate::logging::LogControl;
use crate::service::{SystemdNotifier, Sockets, Watchdog};
use crate::shutdown::{Shutdown, Signal, Signals};
use crate::state::secret::random;
use crate::supervise::Tasks;
use crate::tls::{self, CertResolver};
use crate::{files, http};

/// The relay's private key, below the data directory: 32 bytes.
const KEY_FILE: &str = "relay.key";
/// What the service manager shows while the relay works.
const READY: &str = "relaying";

/// Runs the relay until it is told to stop. `reload` reads the configuration again. Who handed `sockets` over is
/// told how the relay is.
///
/// # Errors
/// When a part cannot start.
pub fn run(
    config: Config,
    log: &LogControl,
    reload: impl Fn() -> Config,
    sockets: Sockets,
) -> Result<(), ServeError> {
    let secret = secret(&config.data_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("an event queue"))?;
    let served = runtime.block_on(serve(&config, log, &reload, secret, sockets));
    runtime.shutdown_background();
    served
}

/// The kept key, or a new one. Other relays and clients know the relay by it.
fn secret(data_dir: &Path) -> Result<ServerSecret, ServeError> {
    let path = data_dir.join(KEY_FILE);
    match files::read(&path, 32).map(Zeroizing::new) {
        Ok(bytes) => match <[u8; 32]>::try_from(bytes.as_slice()) {
            Ok(bytes) => return Ok(ServerSecret::from_bytes(bytes)),
            Err(_) => {
                let fault = io::Error::new(io::ErrorKind::InvalidData, "not a key of 32 bytes");
                return Err(system("the relay's key file relay.key")(fault));
            }
        },
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
        Err(fault) => return Err(system("the relay's key file relay.key")(fault)),
    }
    let secret = ServerSecret::from_bytes(random()?);
    files::replace(&path, &*Zeroizing::new(secret.to_bytes()))
        .map_err(system("the relay's key file relay.key"))?;
    Ok(secret)
}

async fn serve(
    config: &Config,
    log: &LogControl,
    reload: &impl Fn() -> Config,
    secret: ServerSecret,
    sockets: Sockets,
) -> Result<(), ServeError> {
    let manager = SystemdNotifier::of_this_process();
    let mut signals = Signals::new().map_err(system("signal handlers"))?;
    let (identity, pin) = identity(config)?;
    let mut listeners = Listeners::bind(config, sockets).await?;
    let addresses = listeners.addresses(&config.server_url)?;
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let outbound = Arc::new(Outbound::default());
    let relay = relay::start(config, secret, None, &outbound, &tasks, &shutdown);
    let numbers = Numbers {
        relay: relay.clone(),
        stun: StunCounters::default(),
    };
    let names = BootstrapDns::new(config);
    tasks.spawn("names", names.clone().refresh(shutdown.clone()));
    let limits = super::http_limits(&config.limits);
    // No request ever becomes a control connection: the key is nobody's.
    let control = Control::new(
        MachineSecret::from_bytes(random()?),
        ChallengeKey::from_bytes(random()?),
        limits.clone(),
        shutdown.clone(),
    );
    let served = CertResolver::new(identity);
    let tls = tls::server_config(served.clone(), aes(config))?;
    if let Some(relay) = &relay {
        relay::tell(&served, relay, &tasks, &shutdown);
    }
    let service = Arc::new(RelayOnly {
        numbers: numbers.clone(),
        names,
    });
    let connections = Connections::new(service, Arc::new(control), limits, shutdown.clone());
    listeners.start_metrics(&numbers, &tasks, &shutdown);
    let stun = (&numbers.stun, relay::stun_options(config));
    listeners.start(&connections, &config.limits, tls, stun, &tasks, &shutdown);

    let text = banner(config, &addresses, pin.as_deref());
    // Nobody may be reading; the log says the same to those who do.
    let _ = io::stdout()
        .write_all(text.as_bytes())
        .and_then(|()| io::stdout().flush());
    if config.derp.admission == Admission::Tailnet {
        tracing::warn!("nobody is admitted: set `admit_url`, `admit_keys` or `admit` in [derp]");
    }
    tracing::info!("relay ready");
    manager.ready(READY);
    if let Some(watchdog) = Watchdog::of_this_process(&manager) {
        let stop = shutdown.clone();
        // There is nothing but the event loop, on which the watchdog itself runs.
        let keeping = async move { watchdog.keep(|| std::future::ready(true), stop).await };
        tasks.spawn("watchdog", keeping);
    }

    while signals.next().await == Signal::Reload {
        manager.reloading();
        let fresh = reload();
        super::reload_files(config, &fresh, log, &served, pin.is_some());
        if let Some(relay) = &relay {
            relay.set_rates(relay::rates(&fresh.limits));
        }
        manager.ready(READY);
    }
    tracing::info!("stopping");
    manager.stopping();
    shutdown.trigger();
    if let Some(relay) = &relay {
        relay.shutdown(RECONNECT_IN, TRY_FOR);
    }
    let grace = config.limits.shutdown_timeout / TASKS_SHARE;
    tokio::select! {
        _ = tasks.finish(grace) => {}
        _ = signals.next() => tracing::warn!("stopping at once"),
    }
    let _ = std::fs::remove_file(&config.socket);
    Ok(())
}

/// What a person needs to know to use the relay.
fn banner(config: &Config, addresses: &http::app::Addresses, pin: Option<&str>) -> String {
    let mut text = format!("hearth {} relay\n", env!("CARGO_PKG_VERSION"));
    let listeners = [
        ("http", addresses.http),
        ("https", addresses.https),
        ("stun", addresses.stun),
    ];
    for (name, address) in listeners {
        let address = address.map_or("off".to_owned(), |address| address.to_string());
        text.push_str(&format!("  {name:<8} {address}\n"));
    }
    if let Some(pin) = pin {
        text.push_str(&format!("  CertName sha256-raw:{pin}\n"));
    }
    let admits = match &config.derp.admission {
        Admission::Tailnet => "nobody: set `admit_url` or `admit_keys` in [derp]".to_owned(),
        Admission::Url { url, .. } => format!("whom {url} lets in"),
        Admission::Keys(keys) => format!("the owners of {} keys", keys.len()),
        Admission::Open => "anybody".to_owned(),
    };
    text.push_str(&format!("  admits   {admits}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_a_broken_one_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let first = secret(dir.path()).unwrap().public();
        assert_eq!(secret(dir.path()).unwrap().public(), first);
        files::replace(&dir.path().join(KEY_FILE), b"short").unwrap();
        assert!(secret(dir.path()).is_err());
    }
}
