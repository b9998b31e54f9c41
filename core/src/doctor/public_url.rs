//! What a client meets at `server_url` and at the advertised relay, and the findings about it.

use std::net::IpAddr;

use crate::clock::Timestamp;
use crate::doctor::{Facts, Finding, Level};
use crate::wan::address::is_near;
use crate::wan::report::Lookup;
use crate::wan::{Kind, Report, kind_of};

/// The certificate that a server presented, as clients judge it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Served {
    /// The self-signed certificate of this hearth.
    Own,
    /// A certificate of a trusted authority, valid for the name.
    Trusted,
    /// A certificate that clients reject, and why.
    Rejected(String),
    /// Not judged: this system has no CA certificates.
    Unjudged,
}

/// The answer to one question of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Not asked.
    Skipped,
    /// As expected.
    Good,
    /// No answer; the error.
    Unreachable(String),
    /// Another HTTP status than expected.
    Status(u16),
    /// The answer has the key of another server, or none.
    OtherServer,
    /// The upgrade was accepted, but no data followed.
    NoData,
}

/// The check of the advertised relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayCheck {
    /// Host and port.
    pub place: String,
    /// Whether clients expect the self-signed certificate of hearth, by its hash.
    pub is_pinned: bool,
    /// The certificate; `None` without a TLS handshake.
    pub certificate: Option<Served>,
    /// The answer to an upgrade request.
    pub upgrade: Answer,
}

/// What a client met, asked from the server itself: the name was resolved, and TLS verified by the CA
/// certificates of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicCheck {
    /// The `server_url`.
    pub url: String,
    /// The certificate; `None` over plain HTTP and without a TLS handshake.
    pub certificate: Option<Served>,
    /// The answer to `GET /key`.
    pub key: Answer,
    /// The answer to the upgrade to a control connection.
    pub control: Answer,
    /// The relay; `None` if none is advertised.
    pub relay: Option<RelayCheck>,
    /// Host and port of STUN, and its answer; `None` if none is advertised.
    pub stun: Option<(String, Answer)>,
}

/// An upgrade request that arrived without its `Upgrade` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedUpgrade {
    /// The address it came from: that of the proxy, or that of the client if the proxy is trusted to name it.
    pub source: IpAddr,
    /// The path of the request.
    pub path: String,
    /// When it arrived.
    pub at: Timestamp,
}

/// How the usual proxies pass upgrades on.
const PASS_UPGRADES: &str = "Configure the proxy to pass upgrades of any protocol, and reload it:\n\
    nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade; \
    with a map of $http_upgrade to $connection_upgrade.\n\
    Apache: ProxyPass / http://127.0.0.1:8080/ upgrade=ANY (2.4.47 or later; older ones pass WebSockets only).\n\
    Caddy, HAProxy, Traefik: they pass upgrades by themselves over HTTP/1.1; remove rules that delete Upgrade or Connection, \
    and do not use HTTP/2 to hearth.\n\
    Cloudflare: it passes WebSockets only; set the DNS record to \u{201c}DNS only\u{201d}.\n\
    Complete configurations: docs/reverse-proxy.md.";

impl PublicCheck {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.findings(&Report::default())
            .iter()
            .all(|finding| finding.level < Level::Warning)
    }

    /// Whether clients can connect to the control server.
    pub fn control_works(&self) -> bool {
        self.key == Answer::Good && self.control == Answer::Good
    }

    /// Whether the server did not answer at all. It is worth another try: networks and proxies start slowly.
    pub fn is_unreachable(&self) -> bool {
        matches!(self.key, Answer::Unreachable(_))
    }

    /// The findings, given the public addresses.
    pub fn findings(&self, wan: &Report) -> Vec<Finding> {
        let mut findings: Vec<Finding> = [self.control_finding(wan), self.certificate_finding()]
            .into_iter()
            .flatten()
            .collect();
        if let Some(relay) = &self.relay {
            findings.extend(relay.finding(wan));
        }
        findings.extend(self.stun_finding());
        if findings.is_empty() && self.control_works() {
            let mut detail =
                "This machine connected to it as a client does: key, control connection".to_owned();
            let is_asked = |answer: &Answer| *answer == Answer::Good;
            if self
                .relay
                .as_ref()
                .is_some_and(|relay| is_asked(&relay.upgrade))
            {
                detail.push_str(", relay");
            }
            if self
                .stun
                .as_ref()
                .is_some_and(|(_, answer)| is_asked(answer))
            {
                detail.push_str(", STUN");
            }
            let title = "server_url works from this machine";
            findings
                .push(Finding::new("public.url", Level::Ok, title).detail(format!("{detail}.")));
        }
        findings
    }

    fn control_finding(&self, wan: &Report) -> Option<Finding> {
        let url = &self.url;
        match (&self.key, &self.control) {
            (Answer::Unreachable(fault), _) | (Answer::Good, Answer::Unreachable(fault)) => {
                Some(unreachable(url, fault, wan))
            }
            (Answer::Status(status), _) => {
                let title = "server_url does not lead to hearth";
                let detail = format!(
                    "GET {url}/key was answered with {status} by another server or a proxy."
                );
                let advice = "Let the proxy forward all paths to hearth, or change server_url.";
                let finding = Finding::new("public.key", Level::Problem, title);
                Some(finding.detail(detail).advice(advice))
            }
            (Answer::OtherServer | Answer::NoData, _) => {
                let title = "server_url leads to another server";
                let detail = format!("{url}/key has another key than this server.");
                let advice =
                    "Check the DNS name, the port forwarding and the proxy, or change server_url.";
                let finding = Finding::new("public.key", Level::Problem, title);
                Some(finding.detail(detail).advice(advice))
            }
            (_, control) => no_upgrade(
                "public.upgrade",
                "A proxy does not pass upgrades to hearth",
                &format!("POST {url}/ts2021 with Upgrade: tailscale-control-protocol"),
                "Devices cannot connect to the control server.",
                control,
            ),
        }
    }

    fn certificate_finding(&self) -> Option<Finding> {
        let url = &self.url;
        let fault = match self.certificate.as_ref()? {
            Served::Trusted => return None,
            Served::Unjudged => return Some(unjudged(url)),
            Served::Own => "it is the self-signed certificate of hearth",
            Served::Rejected(fault) => fault,
        };
        let title = "Devices reject the certificate at server_url";
        let advice = "Set tls.cert_file and tls.key_file to a certificate of a public CA for the name, with its chain; \
            with a proxy, set it there.";
        let finding = Finding::new("public.certificate", Level::Problem, title);
        Some(finding.detail(format!("{url}: {fault}.")).advice(advice))
    }

    /// UDP does not pass a proxy for HTTP, and loopback of a NAT is often for TCP only.
    fn stun_finding(&self) -> Option<Finding> {
        let (place, answer) = self.stun.as_ref()?;
        let Answer::Unreachable(fault) = answer else {
            return None;
        };
        let title = "STUN does not answer at its advertised address";
        let detail = format!(
            "UDP {place}: {fault}. Devices then cannot detect their public address, and use the relay more often."
        );
        let advice = "Forward this UDP port to hearth (a reverse proxy passes HTTP only), or set derp.ipv4 and derp.ipv6 to \
            the addresses of hearth.";
        let finding = Finding::new("public.stun", Level::Warning, title);
        Some(finding.detail(detail).advice(advice))
    }
}

impl RelayCheck {
    fn finding(&self, wan: &Report) -> Option<Finding> {
        let place = &self.place;
        if let Answer::Unreachable(fault) = &self.upgrade {
            let title = "The advertised relay cannot be reached";
            let detail = format!(
                "{place}: {fault}. Devices without a direct connection cannot reach each other."
            );
            let finding = Finding::new("public.relay", level_of_unreachable(wan), title);
            return Some(finding.detail(detail + excuse(wan)).advice(
                "Open the port, or forward it to listen.https; with a proxy on another port, set derp.port to it.",
            ));
        }
        let fault = match (&self.certificate, self.is_pinned) {
            (Some(Served::Own), true)
            | (Some(Served::Trusted | Served::Unjudged) | None, false) => None,
            (Some(_), true) => Some(
                "devices expect the self-signed certificate of hearth, and a proxy has another one"
                    .to_owned(),
            ),
            (Some(Served::Own), false) => {
                Some("it is the self-signed certificate of hearth".to_owned())
            }
            (Some(Served::Rejected(fault)), false) => Some(fault.clone()),
            (None, true) => None,
        };
        if let Some(fault) = fault {
            let title = "Devices reject the certificate of the relay";
            let advice = "Advertise the relay where its certificate is: derp.host_name and derp.port are those of the proxy \
                with a certificate of a public CA, or derp.port is the port of listen.https.";
            let finding = Finding::new("public.relay-certificate", Level::Problem, title);
            return Some(finding.detail(format!("{place}: {fault}.")).advice(advice));
        }
        no_upgrade(
            "public.relay",
            "A proxy does not pass upgrades to the relay",
            &format!("GET https://{place}/derp with Upgrade: DERP"),
            "Devices without a direct connection cannot reach each other.",
            &self.upgrade,
        )
    }
}

fn unreachable(url: &str, fault: &str, wan: &Report) -> Finding {
    let title = "server_url cannot be reached from this machine";
    let detail = format!("{url}: {fault}. Devices cannot join or receive changes.") + excuse(wan);
    let advice = "Check that the name resolves to this machine or its proxy, that the port is open or forwarded, and that \
        the proxy runs. Test from a mobile network: open /health at this URL.";
    Finding::new("public.unreachable", level_of_unreachable(wan), title)
        .detail(detail)
        .advice(advice)
}

/// An unreachable server is a problem, unless this machine cannot tell.
fn level_of_unreachable(wan: &Report) -> Level {
    match excuse(wan) {
        "" => Level::Problem,
        _ => Level::Warning,
    }
}

/// Why the server may be reachable from elsewhere, or soon; empty for no reason.
fn excuse(wan: &Report) -> &'static str {
    let is_behind_nat = wan
        .own
        .v4
        .is_some_and(|own| kind_of(own.into()) != Kind::Public);
    if is_behind_nat {
        return " It may be reachable from elsewhere: many routers do not let their LAN connect to the public address \
             (NAT loopback).";
    }
    match &wan.lookup {
        Lookup::Found(found)
            if wan.is_published && !wan.public.iter().any(|ip| found.contains(&ip)) =>
        {
            " DNS still has an old address."
        }
        _ => "",
    }
}

fn no_upgrade(
    id: &'static str,
    title: &str,
    request: &str,
    consequence: &str,
    answer: &Answer,
) -> Option<Finding> {
    let what = match answer {
        Answer::Good | Answer::Skipped | Answer::Unreachable(_) => return None,
        Answer::Status(status) => format!("{request} was answered with {status} instead of 101."),
        Answer::OtherServer => format!("{request} was answered by another server."),
        Answer::NoData => format!("{request} was accepted, but no data followed."),
    };
    let finding = Finding::new(id, Level::Problem, title);
    Some(
        finding
            .detail(format!("{what} {consequence}"))
            .advice(PASS_UPGRADES),
    )
}

fn unjudged(url: &str) -> Finding {
    let title = "The certificate at server_url was not verified";
    let detail = format!("{url}: this system has no CA certificates.");
    Finding::new("public.certificate", Level::Note, title)
        .detail(detail)
        .advice("Install the package ca-certificates (OpenWrt: ca-bundle).")
}

impl DroppedUpgrade {
    /// One line about it.
    pub const TITLE: &str = "A proxy removes the Upgrade header of clients";

    /// Whether it comes from this machine or its LAN, where proxies are, and not from a stranger.
    pub fn is_nearby(&self) -> bool {
        is_near(self.source)
    }

    fn finding(&self) -> Finding {
        let detail = format!(
            "At {} a request for {} arrived from {} without its Upgrade header. Clients behind this proxy cannot connect.",
            self.at, self.path, self.source
        );
        // Anyone on the internet can send such a request.
        let level = match self.is_nearby() {
            true => Level::Problem,
            false => Level::Warning,
        };
        Finding::new("proxy.upgrade", level, Self::TITLE)
            .detail(detail)
            .advice(PASS_UPGRADES)
    }
}

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = match &facts.public {
        Some(check) => check.findings(&facts.wan),
        None => Vec::new(),
    };
    // The check itself found the same.
    let is_known = findings
        .iter()
        .any(|finding| finding.id == "public.upgrade");
    let dropped = facts.dropped_upgrade.as_ref().filter(|_| !is_known);
    findings.extend(dropped.map(DroppedUpgrade::finding));
    findings
}
