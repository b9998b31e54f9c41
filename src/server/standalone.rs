//! The relay and STUN alone, without a control server and without a database.

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use hearth_derp::ServerSecret;
use hearth_derp::udp::StunCounters;
use zeroize::Zeroizing;

use super::listeners::Listeners;
use super::{RECONNECT_IN, ServeError, TASKS_SHARE, TRY_FOR, aes, identity, system};
use crate::config::{Admission, Config};
use crate::files;
use crate::logging::LogControl;
use crate::net::connection::Connections;
use crate::net::tls;
use crate::net::tls::Served;
use crate::outbound::client::Outbound;
use crate::relay::bootstrap_dns::BootstrapDns;
use crate::relay::context::RelayContext;
use crate::relay::setup as relay_setup;
use crate::routes::RelayOnly;
use crate::service::{Manager, Sockets, Watchdog};
use crate::shutdown::{Shutdown, Signal, Signals};
use crate::status::addresses::Addresses;
use crate::status::relay::Numbers;
use crate::supervise::Tasks;
use hearth_core::state::secret::random;

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
    let manager = Manager::of_this_process();
    let mut signals = Signals::new().map_err(system("signal handlers"))?;
    let (identity, pin) = identity(config)?;
    let mut listeners = Listeners::bind(config, sockets).await?;
    let addresses = listeners.addresses(&config.server_url)?;
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let outbound = Arc::new(Outbound::default());
    let relay = relay_setup::start(config, secret, None, &outbound, &tasks, &shutdown);
    let numbers = Numbers {
        relay: relay.clone(),
        stun: StunCounters::default(),
        http: None,
    };
    let names = BootstrapDns::new(config);
    tasks.spawn("names", names.clone().refresh(shutdown.clone()));
    let limits = super::http_limits(&config.limits);
    let served = Served::new(identity);
    let tls = tls::server_config(served.clone(), aes(config))?;
    if let Some(relay) = &relay {
        relay_setup::tell(&served, relay, &tasks, &shutdown);
    }
    let service = Arc::new(RelayOnly {
        relay: RelayContext {
            relay: relay.clone(),
            names,
        },
        numbers: numbers.clone(),
    });
    let connections = Connections::new(service, limits, shutdown.clone());
    listeners.start_metrics(&numbers, &tasks, &shutdown);
    let stun = (&numbers.stun, relay_setup::stun_options(config));
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
            relay.set_rates(relay_setup::rates(&fresh.limits));
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
fn banner(config: &Config, addresses: &Addresses, pin: Option<&str>) -> String {
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
