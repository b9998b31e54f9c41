//! The relay with what belongs to it: who is admitted, its limits, the other relays of the region.

use std::sync::Arc;
use std::time::Duration;

use hearth_derp::mesh_link::MeshLinkError;
use hearth_derp::relay::{MeshLinkEnd, Relay};
use hearth_derp::udp::StunOptions;
use hearth_derp::{Admit, MeshKey, Rates, ServerSecret};
use tokio::sync::watch;

use crate::config::{Admission, Config, Limits, Scheme, WebUrl};
use crate::files;
use crate::net::tls::{MetaCertificate, Served};
use crate::outbound::client::Outbound;
use crate::relay::admission::{AdmitAnyone, AdmitByUrl, AdmitKeys, AdmitNodes};
use crate::relay::upgrade as derp;
use crate::shutdown::Shutdown;
use crate::supervise::Tasks;
use crate::system_clock;
use hearth_core::clock::Timestamp;
use hearth_core::state::snapshot::Snapshot;

/// Time between two tries to reach another relay. Source: `retryInterval` in tailscale
/// `cmd/derper/mesh.go` by `RunWatchConnectionLoop`.
const RETRY: Duration = Duration::from_secs(5);

/// How long a connection to another relay may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// The longest file with a mesh key, in bytes.
const MAX_KEY_FILE: usize = 1024;

/// The certificate about the relay is good for 30 days; it is renewed long before, and when the clock
/// was set.
const RENEW_META: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How often its age is looked at.
const CHECK_META: Duration = Duration::from_secs(10 * 60);

/// The relay of this configuration and its tasks; none if it is off. `states` are those of the control
/// server, where there is one.
pub fn start(
    config: &Config,
    secret: ServerSecret,
    states: Option<watch::Receiver<Arc<Snapshot>>>,
    outbound: &Arc<Outbound>,
    tasks: &Tasks,
    shutdown: &Shutdown,
) -> Option<Relay> {
    let derp = &config.derp;
    if !derp.enabled || derp.is_stun_only {
        return None;
    }
    let mut by_url = None;
    let admit: Arc<dyn Admit> = match (&derp.admission, states) {
        (Admission::Tailnet, Some(states)) => Arc::new(AdmitNodes(states)),
        // Without a control server nobody is known.
        (Admission::Tailnet, None) => Arc::new(AdmitKeys::new(&[])),
        (Admission::Keys(keys), _) => Arc::new(AdmitKeys::new(keys)),
        (Admission::Open, _) => Arc::new(AdmitAnyone),
        (Admission::Url { url, is_fail_open }, _) => {
            let admit = AdmitByUrl::new(url, *is_fail_open, outbound.clone(), &config.limits);
            by_url = Some(admit.clone());
            Arc::new(admit)
        }
    };
    let mesh_key = mesh_key(config);
    let limits = limits(&config.limits);
    let relay = Relay::with_mesh_key(secret, limits, admit, mesh_key.clone());
    if let Some(by_url) = by_url {
        tasks.spawn(
            "admission",
            by_url.keep_asking(relay.clone(), shutdown.clone()),
        );
    }
    if let Some(key) = mesh_key {
        for url in &derp.mesh_with {
            let link = keep_link(relay.clone(), url.clone(), key.clone(), outbound.clone());
            let shutdown = shutdown.clone();
            tasks.spawn("mesh", async move {
                tokio::select! {
                    () = shutdown.wait() => {}
                    () = link => {}
                }
            });
        }
    }
    Some(relay)
}

/// A key that cannot be read must not keep the relay down: without it, it is alone in its region.
fn mesh_key(config: &Config) -> Option<MeshKey> {
    let path = config.derp.mesh_key_file.as_ref()?;
    let file = path.display();
    let contents = files::read(path, MAX_KEY_FILE)
        .inspect_err(|fault| tracing::error!(%file, %fault, "no mesh key: the relay is alone"))
        .ok()?;
    let text = zeroize::Zeroizing::new(contents);
    let key = std::str::from_utf8(&text)
        .ok()
        .and_then(|text| text.parse().ok());
    if key.is_none() {
        tracing::error!(%file, "not a mesh key (64 hex digits): the relay is alone");
    }
    key
}

/// Keeps a link to another relay of the region.
async fn keep_link(relay: Relay, url: WebUrl, key: MeshKey, outbound: Arc<Outbound>) {
    let url = match url.has_no_path() {
        true => url.with_path(derp::PATH),
        false => url,
    };
    if url.server.scheme() == Scheme::Http {
        tracing::warn!(%url, "the mesh key goes to this relay over plain HTTP: whoever is between can take it");
    }
    // A relay that is down for long is told of once.
    let mut last = String::new();
    loop {
        let end = match outbound.relay(&url, CONNECT).await {
            Ok((stream, rest)) => {
                tracing::info!(%url, "linked to a relay of the region");
                last.clear();
                let end = relay.serve_mesh_link(stream, rest, key.clone()).await;
                if end == MeshLinkEnd::Error(MeshLinkError::ConnectedToSelf) {
                    tracing::info!(%url, "this is the relay itself: no link to it");
                    return;
                }
                end.to_string()
            }
            Err(fault) => fault.to_string(),
        };
        if end != last {
            tracing::warn!(%url, fault = end, "no link to a relay of the region");
            last = end;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The bounds of the relay.
fn limits(limits: &Limits) -> hearth_derp::Limits {
    hearth_derp::Limits {
        connections: limits.derp_connections,
        connections_per_address: limits.derp_connections_per_address,
        logins: limits.derp_logins,
        queue_slots: limits.derp_queue_packets,
        data_queue_bytes: limits.derp_queue,
        pool_bytes: limits.derp_pool,
        login_timeout: limits.handshake_timeout,
        write_timeout: limits.derp_write_timeout,
        idle_timeout: limits.derp_idle_timeout,
        rates: rates(limits),
        mesh_keys: limits.derp_mesh_keys,
        ..hearth_derp::Limits::default()
    }
}

/// How fast clients may send. These can change while the relay runs.
pub fn rates(limits: &Limits) -> Rates {
    let as_u32 = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    Rates {
        client_bytes_per_second: as_u32(limits.derp_client_rate),
        client_burst_bytes: as_u32(limits.derp_client_burst),
        total_bytes_per_second: as_u32(limits.derp_total_rate),
        total_burst_bytes: as_u32(limits.derp_total_burst),
    }
}

/// How STUN is answered.
pub fn stun_options(config: &Config) -> StunOptions {
    StunOptions {
        answers_per_second: u32::try_from(config.limits.stun_rate).unwrap_or(u32::MAX),
        public_ipv4_for_lan: config.derp.ipv4.filter(|_| config.derp.stun_lan_as_wan),
    }
}

/// Tells clients about the relay in the TLS handshake, as long as the server runs.
pub fn tell(served: &Arc<Served>, relay: &Relay, tasks: &Tasks, shutdown: &Shutdown) {
    let telling = tell_of_relay(served.clone(), relay.public_key(), shutdown.clone());
    tasks.spawn("relay certificate", telling);
}

/// Keeps a certificate about the relay in the chain that clients get, and renews it while it is good.
async fn tell_of_relay(served: Arc<Served>, key: hearth_derp::Key, shutdown: Shutdown) {
    let key = hearth_derp::http::public_key_hex(&key);
    let mut made: Option<Timestamp> = None;
    loop {
        let now = system_clock::now().wall;
        let since = made.map(|made| now.since(made).max(made.since(now)));
        if since.is_none_or(|since| since > RENEW_META) {
            match MetaCertificate::new(&key, hearth_derp::frame::PROTOCOL_VERSION, now) {
                Ok(meta) => served.tell_of_relay(meta),
                Err(fault) => tracing::warn!(%fault, "no certificate about the relay"),
            }
            made = Some(now);
        }
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(CHECK_META) => {}
        }
    }
}
