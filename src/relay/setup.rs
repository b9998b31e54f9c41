//! Starts the relay: admission, limits, mesh links.

use std::sync::Arc;
use std::time::Duration;

use hearth_derp::mesh_link::MeshLinkError;
use hearth_derp::relay::{MeshLinkEnd, Relay};
use hearth_derp::udp::{AddressForLan, StunOptions};
use hearth_derp::{Admit, MeshKey, Rates, ServerSecret};
use hearth_shares::TokenBucket;
use tokio::sync::watch;

use crate::config::{Admission, Config, Limits, Scheme, WebUrl};
use crate::files;
use crate::net::tls::{CertResolver, MetaCertificate};
use crate::outbound::client::Outbound;
use crate::relay::admission::{AdmitAnyone, AdmitByUrl, AdmitKeys, AdmitNodes};
use crate::relay::http as derp;
use crate::shutdown::Shutdown;
use crate::supervise::Tasks;
use crate::system_clock;
use hearth_core::clock::Timestamp;
use hearth_core::state::snapshot::Snapshot;

/// Retry interval of mesh links. Source: `retryInterval` in tailscale
/// `cmd/derper/mesh.go` by `RunWatchConnectionLoop`.
const RETRY: Duration = Duration::from_secs(5);

/// Log lines about a mesh link: so many at once, and then one in this interval. A link may come and go all the time.
const LOG_LINES: (u32, Duration) = (8, Duration::from_secs(5 * 60));

/// Timeout for connecting to another relay.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest mesh key file, in bytes.
const MAX_KEY_FILE: usize = 1024;

/// Age at which the meta certificate of the relay is renewed. It is valid for 30 days; it is also renewed when the
/// clock was set.
const RENEW_METACERT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Interval of checking its age.
const CHECK_METACERT: Duration = Duration::from_secs(10 * 60);

/// Starts the relay of this configuration and its tasks; `None` if it is disabled. `states` are the snapshots
/// of the control server, if there is one.
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
        // Without a control server no nodes are known.
        (Admission::Tailnet, None) => Arc::new(AdmitKeys::new(&[])),
        (Admission::Keys(keys), _) => Arc::new(AdmitKeys::new(keys)),
        (Admission::Open, states) => Arc::new(AdmitAnyone(states)),
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
            by_url.keep_checking(relay.clone(), shutdown.clone()),
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

/// An unreadable mesh key must not stop the relay; it then has no mesh links.
fn mesh_key(config: &Config) -> Option<MeshKey> {
    let path = config.derp.mesh_key_file.as_ref()?;
    let file = path.display();
    let contents = files::read(path, MAX_KEY_FILE)
        .inspect_err(
            |fault| tracing::error!(%file, %fault, "cannot read the mesh key file; mesh is off"),
        )
        .ok()?;
    let text = zeroize::Zeroizing::new(contents);
    let key = std::str::from_utf8(&text)
        .ok()
        .and_then(|text| text.parse().ok());
    if key.is_none() {
        tracing::error!(%file, "invalid mesh key (expected 64 hex digits); mesh is off");
    }
    key
}

/// Keeps a mesh link to another relay of the region.
async fn keep_link(relay: Relay, url: WebUrl, key: MeshKey, outbound: Arc<Outbound>) {
    let url = match url.has_no_path() {
        true => url.with_path(derp::PATH),
        false => url,
    };
    if url.server.scheme() == Scheme::Http {
        tracing::warn!(%url, "the mesh key is sent over plain HTTP and can be intercepted; use https://");
    }
    // An outage is logged once.
    let mut last = String::new();
    let mut log = TokenBucket::new(LOG_LINES.0, LOG_LINES.1);
    let mut may_log = || log.take(system_clock::now().mono);
    loop {
        let end = match outbound.relay(&url, CONNECT_TIMEOUT).await {
            Ok((stream, rest)) => {
                if may_log() {
                    tracing::info!(%url, "mesh peer connected");
                }
                last.clear();
                let end = relay.serve_mesh_link(stream, rest, key.clone()).await;
                if end == MeshLinkEnd::Error(MeshLinkError::ConnectedToSelf) {
                    tracing::info!(%url, "this mesh peer is the relay itself; ignored");
                    return;
                }
                end.to_string()
            }
            Err(fault) => fault.to_string(),
        };
        if end != last && may_log() {
            tracing::warn!(%url, fault = end, "mesh peer disconnected");
            last = end;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Limits of the relay.
fn limits(limits: &Limits) -> hearth_derp::Limits {
    let fixed = hearth_derp::Limits::default();
    hearth_derp::Limits {
        connections: limits.derp_connections,
        connections_per_address: limits.derp_connections_per_address,
        logins: limits.derp_logins,
        login_timeout: limits.handshake_timeout,
        client_info_bytes: fixed.client_info_bytes,
        write_timeout: limits.derp_write_timeout,
        keepalive: fixed.keepalive,
        keepalive_jitter: fixed.keepalive_jitter,
        linger: fixed.linger,
        queue_slots: limits.derp_queue_packets,
        data_queue_bytes: limits.derp_queue,
        disco_queue_bytes: fixed.disco_queue_bytes,
        pool_bytes: limits.derp_pool,
        pool_reserve_bytes: fixed.pool_reserve_bytes,
        partial_bytes: fixed.partial_bytes,
        batch_bytes: fixed.batch_bytes,
        destinations_per_key: fixed.destinations_per_key,
        peer_gone_pending: fixed.peer_gone_pending,
        rates: rates(limits),
        idle_timeout: limits.derp_idle_timeout,
        mesh_keys: limits.derp_mesh_keys,
        mesh_write_timeout: fixed.mesh_write_timeout,
    }
}

/// Rate limits of clients. These can change while the relay runs.
pub fn rates(limits: &Limits) -> Rates {
    let as_u32 = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    Rates {
        client_bytes_per_second: as_u32(limits.derp_client_rate),
        client_burst_bytes: as_u32(limits.derp_client_burst),
        total_bytes_per_second: as_u32(limits.derp_total_rate),
        total_burst_bytes: as_u32(limits.derp_total_burst),
    }
}

/// STUN settings. With `derp.stun_lan_as_wan` private sources get `derp.ipv4`; without that the caller sets their address.
pub fn stun_options(config: &Config) -> StunOptions {
    let options = StunOptions {
        answers_per_second: u32::try_from(config.limits.stun_rate).unwrap_or(u32::MAX),
        for_lan: AddressForLan::default(),
    };
    let set = config.derp.ipv4.filter(|_| config.derp.stun_lan_as_wan);
    options.for_lan.set(set);
    options
}

/// Announces the key of the relay to clients in the TLS handshake until the server stops.
pub fn announce_key(
    certificate: &Arc<CertResolver>,
    relay: &Relay,
    tasks: &Tasks,
    shutdown: &Shutdown,
) {
    let renewing = renew_meta(certificate.clone(), relay.public_key(), shutdown.clone());
    tasks.spawn("meta certificate", renewing);
}

/// Keeps a valid meta certificate in the certificate chain.
async fn renew_meta(certificate: Arc<CertResolver>, key: hearth_derp::Key, shutdown: Shutdown) {
    let key = hearth_derp::headers::public_key_hex(&key);
    let mut made: Option<Timestamp> = None;
    loop {
        let now = system_clock::now().wall;
        let since = made.map(|made| now.since(made).max(made.since(now)));
        if since.is_none_or(|since| since > RENEW_METACERT) {
            match MetaCertificate::new(&key, hearth_derp::frame::PROTOCOL_VERSION, now) {
                Ok(meta) => certificate.set_meta(meta),
                Err(fault) => {
                    tracing::warn!(%fault, "cannot create the meta certificate of the relay")
                }
            }
            made = Some(now);
        }
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(CHECK_METACERT) => {}
        }
    }
}
