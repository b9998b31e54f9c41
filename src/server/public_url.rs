//! Checks `server_url` and the advertised relay by the path that clients take.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hearth_derp::headers as derp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::wan::ask_stun;
use crate::config::{Host, Scheme, ServerUrl, WebUrl};
use crate::control::{key, ts2021};
use crate::net::tls::{Presented, Trust};
use crate::outbound::client::{Outbound, OutboundError};
use crate::outbound::probe::{Probed, ProbedUpgrade};
use crate::shutdown::Shutdown;
use crate::status::addresses::CurrentUrl;
use crate::status::public_url::PublicUrlStatus;
use crate::status::wan::WanStatus;
use hearth_core::doctor::Level;
use hearth_core::doctor::public_url::{Answer, PublicCheck, RelayCheck, Served};
use hearth_core::keys::MachineKey;
use hearth_core::tailcfg::derpmap::{DerpNode, DerpRegion};

/// Deadline of each question of a check; all are asked at the same time.
const PATIENCE: Duration = Duration::from_secs(4);

/// Longest response to `GET /key`, in bytes.
const KEY_BYTES: usize = 4096;

/// Time until the next check after one that found a problem: networks, DNS and proxies start slowly.
const RETRIES: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(5 * 60)];
/// The same after those.
const RETRY: Duration = Duration::from_secs(60 * 60);

/// Most queued requests for a check.
const ASKS: usize = 4;

/// `X-Tailscale-Handshake` of a check: too short, so that the server answers the upgrade with an error message.
const HANDSHAKE: &str = "X-Tailscale-Handshake: AA==\r\nContent-Length: 0\r\n";

/// What a [`Prober`] needs.
pub(super) struct ProberParts {
    /// Outgoing requests.
    pub(super) outbound: Arc<Outbound>,
    /// The `server_url`.
    pub(super) url: CurrentUrl,
    /// The Noise key of the server.
    pub(super) machine: MachineKey,
    /// The key of the relay, if it is on.
    pub(super) relay: Option<hearth_derp::Key>,
    /// The advertised region.
    pub(super) region: watch::Receiver<Option<DerpRegion>>,
    /// Hash of the self-signed certificate, if that is served.
    pub(super) pin: Option<String>,
    /// The public addresses.
    pub(super) wan: WanStatus,
}

/// Checks `server_url`.
pub(super) struct Prober {
    parts: ProberParts,
    results: watch::Sender<Option<Arc<PublicCheck>>>,
    asks: mpsc::Receiver<oneshot::Sender<Arc<PublicCheck>>>,
    /// IDs of the problems that were logged last.
    logged: Vec<&'static str>,
}

impl Prober {
    /// A prober that publishes its results in `results`, and the handle to ask it.
    pub(super) fn new(
        parts: ProberParts,
        results: watch::Sender<Option<Arc<PublicCheck>>>,
    ) -> (Self, PublicUrlStatus) {
        let (asking, asks) = mpsc::channel(ASKS);
        let status = PublicUrlStatus::new(results.subscribe(), asking);
        let prober = Self {
            parts,
            results,
            asks,
            logged: Vec::new(),
        };
        (prober, status)
    }

    /// Checks on request, at the start if `at_start`, and again later while there are problems.
    pub(super) async fn keep(mut self, at_start: bool, shutdown: Shutdown) {
        let mut retries = RETRIES.into_iter();
        let mut due = at_start.then_some(Duration::ZERO);
        let mut is_first = true;
        loop {
            let pause = async {
                match due {
                    Some(due) => sleep(due).await,
                    None => std::future::pending().await,
                }
            };
            let asker = tokio::select! {
                () = shutdown.wait() => return,
                Some(asker) = self.asks.recv() => Some(asker),
                () = pause => None,
            };
            let check = tokio::select! {
                () = shutdown.wait() => return,
                check = self.parts.check() => Arc::new(check),
            };
            self.results.send_replace(Some(check.clone()));
            // The network may be up only later.
            if !(is_first && check.is_unreachable()) {
                self.log(&check);
            }
            is_first = false;
            let more = std::iter::from_fn(|| self.asks.try_recv().ok());
            for asker in asker.into_iter().chain(more) {
                // The requester may be gone.
                let _ = asker.send(check.clone());
            }
            due = match check.is_good() {
                true => {
                    retries = RETRIES.into_iter();
                    None
                }
                false => Some(retries.next().unwrap_or(RETRY)),
            };
        }
    }

    /// Logs problems once, and when they are gone.
    fn log(&mut self, check: &PublicCheck) {
        let mut findings = check.findings(&self.parts.wan.report());
        findings.retain(|finding| finding.level >= Level::Warning);
        let ids: Vec<&str> = findings.iter().map(|finding| finding.id).collect();
        if ids == self.logged {
            return;
        }
        for finding in &findings {
            tracing::warn!("{}: {} See `hearth doctor`.", finding.title, finding.detail);
        }
        if ids.is_empty() {
            tracing::info!(server_url = check.url, "server_url works from this machine");
        }
        self.logged = ids;
    }
}

impl ProberParts {
    async fn check(&self) -> PublicCheck {
        let region = self.region.borrow().clone();
        let node = region.and_then(|region| region.nodes.into_iter().next());
        let (key, control, relay, stun) = tokio::join!(
            self.key(),
            self.control(),
            self.relay(node.as_ref()),
            stun(node.as_ref()),
        );
        PublicCheck {
            url: self.url.to_string(),
            certificate: key.0.or(control.0),
            key: key.1,
            control: control.1,
            relay,
            stun,
        }
    }

    async fn key(&self) -> (Option<Served>, Answer) {
        let url = url(
            self.url.get(),
            &format!("/key?v={}", key::FIRST_NOISE_VERSION),
        );
        if is_left_out(&url) {
            return (None, Answer::Skipped);
        }
        let probed = self.outbound.probe(&url, &[], KEY_BYTES, PATIENCE).await;
        let answer = match probed.answer {
            Ok(bytes) if machine_key(&bytes) == Some(self.machine) => Answer::Good,
            Ok(_) => Answer::OtherServer,
            Err(fault) => failed(fault),
        };
        (self.served(probed.certificate), answer)
    }

    async fn control(&self) -> (Option<Served>, Answer) {
        let url = url(self.url.get(), ts2021::PATH);
        let request = ("POST", ts2021::PROTOCOL, HANDSHAKE);
        let (served, answer, _) = self.upgrade(&url, &[], request).await;
        (served, answer)
    }

    /// The relay that clients connect to first.
    async fn relay(&self, node: Option<&DerpNode>) -> Option<RelayCheck> {
        let node = node.filter(|node| !node.stun_only)?;
        let key = self.relay.as_ref()?;
        let host = host(node)?;
        let port = u16::try_from(node.derp_port).ok().filter(|port| *port != 0);
        let port = port.unwrap_or(Scheme::Https.default_port());
        let place = format!("{host}:{port}");
        let url = url(ServerUrl::new(Scheme::Https, host, Some(port)), derp::PATH);
        let request = ("GET", derp::UPGRADE, "");
        let (certificate, mut upgrade, relay_key) =
            self.upgrade(&url, &addresses(node), request).await;
        if upgrade == Answer::Good && relay_key != derp::public_key_hex(key).into_bytes() {
            upgrade = Answer::OtherServer;
        }
        Some(RelayCheck {
            place,
            is_pinned: !node.cert_name.is_empty(),
            certificate,
            upgrade,
        })
    }

    async fn upgrade(
        &self,
        url: &WebUrl,
        addresses: &[IpAddr],
        request: (&str, &str, &str),
    ) -> (Option<Served>, Answer, Vec<u8>) {
        if is_left_out(url) {
            return (None, Answer::Skipped, Vec::new());
        }
        let probing = self
            .outbound
            .probe_upgrade(url, addresses, request, PATIENCE);
        let Probed {
            certificate,
            answer,
        } = probing.await;
        let (answer, relay_key) = match answer {
            Ok(ProbedUpgrade {
                status: 101,
                relay_key,
                has_data,
            }) => match has_data {
                true => (Answer::Good, relay_key),
                false => (Answer::NoData, relay_key),
            },
            Ok(other) => (Answer::Status(other.status), Vec::new()),
            Err(fault) => (failed(fault), Vec::new()),
        };
        (self.served(certificate), answer, relay_key)
    }

    fn served(&self, presented: Option<Presented>) -> Option<Served> {
        presented.map(|presented| match presented.trust {
            _ if Some(&presented.sha256) == self.pin.as_ref() => Served::Own,
            Trust::Trusted => Served::Trusted,
            Trust::Rejected(fault) => Served::Rejected(fault),
            Trust::NoCaCertificates => Served::Unjudged,
        })
    }
}

/// STUN at the addresses of a relay. The first that answers counts, as for clients.
async fn stun(node: Option<&DerpNode>) -> Option<(String, Answer)> {
    let node = node.filter(|node| node.stun_port >= 0)?;
    let port = u16::try_from(node.stun_port).ok()?;
    let host = host(node)?;
    let place = format!("{host}:{port}");
    let asking = async {
        let known = addresses(node);
        let places: Vec<SocketAddr> = match &host {
            _ if !known.is_empty() => known.into_iter().map(|ip| (ip, port).into()).collect(),
            Host::Address(address) => vec![(*address, port).into()],
            Host::Name(name) => {
                let found = tokio::net::lookup_host((name.as_str(), port)).await;
                found.map_err(|fault| fault.to_string())?.collect()
            }
        };
        for place in places {
            if ask_stun(place).await.is_some() {
                return Ok(());
            }
        }
        Err("no response".to_owned())
    };
    let answer = match timeout(PATIENCE, asking).await {
        Ok(Ok(())) => Answer::Good,
        Ok(Err(fault)) => Answer::Unreachable(fault),
        Err(_) => Answer::Unreachable("timeout".to_owned()),
    };
    Some((place, answer))
}

fn host(node: &DerpNode) -> Option<Host> {
    match node.host_name.parse() {
        Ok(address) => Some(Host::Address(address)),
        Err(_) => node.host_name.parse().ok().map(Host::Name),
    }
}

/// The addresses of a relay in the DERP map; without any, clients ask DNS.
fn addresses(node: &DerpNode) -> Vec<IpAddr> {
    let texts = [&node.ipv4, &node.ipv6];
    texts
        .into_iter()
        .filter_map(|text| text.parse().ok())
        .collect()
}

fn url(server: ServerUrl, path: &str) -> WebUrl {
    WebUrl {
        server,
        path: path.to_owned(),
        pin: None,
    }
}

/// Whether this build cannot connect to the URL.
fn is_left_out(url: &WebUrl) -> bool {
    url.server.scheme() == Scheme::Https && !cfg!(feature = "https-client")
}

fn failed(fault: OutboundError) -> Answer {
    match fault {
        OutboundError::Status(status) => Answer::Status(status.as_u16()),
        // A whole answer that is none of hearth's.
        OutboundError::Body(_) => Answer::OtherServer,
        fault => Answer::Unreachable(fault.to_string()),
    }
}

/// The key in the response to `GET /key`.
fn machine_key(answer: &[u8]) -> Option<MachineKey> {
    let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
    answer.get("publicKey")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::wan::Report;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    const OWN: [u8; 32] = [1; 32];

    fn key_answer(key: [u8; 32]) -> String {
        let key = MachineKey::from_bytes(key);
        let body = format!(r#"{{"legacyPublicKey":"","publicKey":"{key}"}}"#);
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")
    }

    /// The check of a server that answers `GET /key` and the upgrade in this way.
    async fn check(key: &str, upgrade: &str) -> PublicCheck {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = CurrentUrl::new(ServerUrl::at(Scheme::Http, listener.local_addr().unwrap()));
        let parts = ProberParts {
            outbound: Arc::default(),
            url,
            machine: MachineKey::from_bytes(OWN),
            relay: None,
            region: watch::channel(None).1,
            pin: None,
            wan: WanStatus::new(
                watch::channel(Arc::new(Report::default())).1,
                mpsc::channel(1).0,
            ),
        };
        let serving = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let answer = match head.starts_with("GET /key?v=") {
                    true => key,
                    false => {
                        let line = "\r\nUpgrade: tailscale-control-protocol\r\n";
                        assert!(
                            head.starts_with("POST /ts2021 ") && head.contains(line),
                            "{head}"
                        );
                        upgrade
                    }
                };
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        tokio::select! {
            check = parts.check() => check,
            () = serving => unreachable!("it serves without end"),
        }
    }

    #[tokio::test]
    async fn a_check_tells_the_faults_of_a_proxy_apart() {
        let good = key_answer(OWN);
        let upgrade =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: tailscale-control-protocol\r\n\r\n";
        let check = |key: &str, upgrade: &str| {
            let (key, upgrade) = (key.to_owned(), upgrade.to_owned());
            async move {
                let check = check(&key, &upgrade).await;
                (check.key, check.control)
            }
        };
        let with_data = format!("{upgrade}\x03");
        assert_eq!(check(&good, &with_data).await, (Answer::Good, Answer::Good));
        assert_eq!(check(&good, upgrade).await, (Answer::Good, Answer::NoData));
        let refused = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
        let spoilt = (Answer::Good, Answer::Status(400));
        assert_eq!(check(&good, refused).await, spoilt);
        let elsewhere = check(&key_answer([2; 32]), &with_data).await;
        assert_eq!(elsewhere.0, Answer::OtherServer);
        let page = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(
            check(page, page).await,
            (Answer::OtherServer, Answer::Status(200))
        );
        let long = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{}",
            "x".repeat(9999)
        );
        assert_eq!(check(&long, refused).await.0, Answer::OtherServer);
        let moved = "HTTP/1.1 301 Moved Permanently\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(
            check(moved, moved).await,
            (Answer::Status(301), Answer::Status(301))
        );
        let (key, control) = check("", "").await;
        for answer in [key, control] {
            assert!(matches!(answer, Answer::Unreachable(_)), "{answer:?}");
        }
    }
}
