//! The standalone relay: DERP and STUN without a control server and without a database.

use std::io;
use std::path::Path;
use std::sync::Arc;

use hearth_derp::ServerSecret;
use zeroize::Zeroizing;

use super::base::{self, Base};
use super::{ServeError, system};
use crate::config::{Admission, Config};
use crate::files;
use crate::logging::LogControl;
use crate::relay::context::RelayContext;
use crate::routes::RelayOnly;
use crate::service::{Sockets, SystemdNotifier, Watchdog};
use crate::shutdown::Signals;
use crate::status::addresses::Addresses;
use crate::status::public_url::DroppedUpgrades;
use hearth_core::state::secret::random;

/// The relay's private key, below the data directory: 32 bytes.
const KEY_FILE: &str = "relay.key";
/// Status that the service manager shows.
const READY: &str = "relaying";

/// Runs the relay until a signal to stop. `reload` reads the configuration again. `sockets` are those of the
/// service manager, which is notified of the state of the relay.
///
/// # Errors
/// If a part cannot start.
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
        .map_err(system("an event loop"))?;
    let served = runtime.block_on(serve(&config, log, &reload, secret, sockets));
    runtime.shutdown_background();
    served
}

/// The key in the data directory, or a new one. It identifies the relay to clients and mesh peers.
fn secret(data_dir: &Path) -> Result<ServerSecret, ServeError> {
    let path = data_dir.join(KEY_FILE);
    match files::read(&path, 32).map(Zeroizing::new) {
        Ok(bytes) => match <[u8; 32]>::try_from(bytes.as_slice()) {
            Ok(bytes) => return Ok(ServerSecret::from_bytes(bytes)),
            Err(_) => {
                let fault = io::Error::new(io::ErrorKind::InvalidData, "expected 32 bytes");
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
    reload: &dyn Fn() -> Config,
    secret: ServerSecret,
    sockets: Sockets,
) -> Result<(), ServeError> {
    let notifier = SystemdNotifier::of_this_process();
    let signals = Signals::new().map_err(system("signal handlers"))?;
    let (base, listeners) = Base::open(config, sockets).await?;
    let metrics = base.start_relay(config, secret, None, None);
    let service = Arc::new(RelayOnly {
        relay: RelayContext {
            relay: metrics.relay.clone(),
            names: base.start_names(config),
        },
        metrics: metrics.clone(),
        dropped_upgrades: DroppedUpgrades::default(),
    });
    base.serve(config, listeners, service, &metrics)?;

    base::print(&banner(config, &base.addresses, base.pin.as_deref()));
    if config.derp.admission == Admission::Tailnet {
        tracing::warn!("no client is admitted: set `admit_url`, `admit_keys` or `admit` in [derp]");
    }
    tracing::info!("relay ready");
    notifier.ready(READY);
    if let Some(watchdog) = Watchdog::of_this_process(&notifier) {
        let stop = base.shutdown.clone();
        // Only the event loop is monitored, which runs the watchdog itself.
        let keeping = async move { watchdog.keep(|| std::future::ready(true), stop).await };
        base.tasks.spawn("watchdog", keeping);
    }
    let mut reloaded = |_: Option<Config>| notifier.ready(READY);
    let reloading = (reload, &mut reloaded as &mut dyn FnMut(Option<Config>));
    base.run(signals, config, log, reloading, &notifier, &metrics)
        .await;
    Ok(())
}

/// The text on standard output: listeners, certificate, admission.
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
        Admission::Tailnet => "no client: set `admit_url` or `admit_keys` in [derp]".to_owned(),
        Admission::Url { url, .. } => format!("clients that {url} admits"),
        Admission::Keys(keys) => format!("{} node key(s)", keys.len()),
        Admission::Open => "anyone".to_owned(),
    };
    text.push_str(&format!("  admits   {admits}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_created_once_and_an_invalid_one_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let first = secret(dir.path()).unwrap().public();
        assert_eq!(secret(dir.path()).unwrap().public(), first);
        files::replace(&dir.path().join(KEY_FILE), b"short").unwrap();
        assert!(secret(dir.path()).is_err());
    }
}
