//! Findings about connectivity: public addresses, the name of the server, ports.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::doctor::{Facts, Finding, Host, Level};
use crate::wan::address::prefix_without;
use crate::wan::mapping::{Mapped, Protocol, Transport};
use crate::wan::report::Lookup;
use crate::wan::{AddressSource, Kind, kind_of};

/// Advice for connections that are unreachable over IPv4.
const WAYS_IN: &str = "Ask your ISP for a public IPv4 address, or use IPv6 (open the ports for it), \
     or run `hearth derp` on a small VPS and add it to derp.map_files: remote devices then reach each other \
     through that relay.";

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let all = [
        uplink(facts),
        ipv4(facts),
        ipv6(facts),
        collision(facts),
        differs(facts),
        mapping(facts),
        url(facts),
        listener(facts),
        unreachable_listener(facts),
        stun(facts),
        ports(facts),
    ];
    all.into_iter().flatten().collect()
}

fn uplink(facts: &Facts) -> Option<Finding> {
    (!facts.wan.has_route).then(|| {
        Finding::new("wan.offline", Level::Warning, "No internet connection")
            .detail("This machine has no default route. LAN devices stay connected; remote devices cannot connect.")
            .advice("Check the internet connection of the router. If this machine is offline on purpose, ignore this.")
    })
}

fn ipv4(facts: &Facts) -> Option<Finding> {
    let wan = &facts.wan;
    let public = wan.public.v4;
    let Some(own) = facts.own_v4() else {
        let is_v6_only = public.is_none() && wan.public.v6.is_some();
        return is_v6_only.then(|| {
            Finding::new("wan.no-ipv4", Level::Warning, "No public IPv4 address")
                .detail("Devices in networks without IPv6, such as many hotels and offices, cannot reach this server.")
                .advice(WAYS_IN)
        });
    };
    let subject = match wan.interface.as_str() {
        "" => "This machine".to_owned(),
        interface => format!("Interface {interface}"),
    };
    let is_mapped = has_mappings(&wan.mapping.ports);
    match kind_of(own.into()) {
        Kind::Public => Some(
            Finding::new("wan.address", Level::Ok, "Public IPv4 address")
                .detail(format!("{subject} has the address {own}.")),
        ),
        Kind::Carrier => Some(carrier_nat(
            facts,
            format!("{subject} has the address {own}"),
        )),
        Kind::Private if is_mapped && public.is_some() => None,
        Kind::Private => {
            let title = "This machine is behind another router";
            let mut detail = format!(
                "{subject} has the private address {own} (double NAT if this machine is a router itself)."
            );
            if let Some(public) = public {
                let _ = write!(detail, " The public address is {public}.");
            }
            let mut advice = match needed(facts).as_str() {
                "" => "Set listen.https and listen.stun, and forward their ports in the upstream router.".to_owned(),
                ports => format!("Forward these ports to {own} in the upstream router: {ports}."),
            };
            if !wan.mapping.is_wanted {
                advice.push_str(
                    " Or set wan.port_mapping = true, and hearth asks that router to forward them.",
                );
            }
            if public.is_none() {
                advice.push_str(" Set wan.stun_servers to detect the public address.");
            }
            // A machine on the LAN of a home router is the normal set-up; a router behind another one is not.
            let is_on_lan = wan.lan == Some(own);
            let level = match wan.public.v6 {
                None if !is_on_lan => Level::Warning,
                _ => Level::Note,
            };
            Some(
                Finding::new("wan.double-nat", level, title)
                    .detail(detail)
                    .advice(advice),
            )
        }
        Kind::Local => Some(
            Finding::new("wan.local", Level::Warning, "The WAN address is unusable")
                .detail(format!(
                    "{subject} has the address {own}, which no other machine can reach."
                ))
                .advice(
                    "Check the internet connection of the router: usually the ISP assigned no address.",
                ),
        ),
    }
}

fn carrier_nat(facts: &Facts, mut detail: String) -> Finding {
    detail.push_str(
        ", which your ISP shares between several customers. It is unreachable from the internet over IPv4. \
         What works: the LAN, outgoing connections",
    );
    let (level, rest) = match facts.wan.public.v6 {
        Some(_) => (
            Level::Warning,
            ", and everything over IPv6. What does not: remote devices without IPv6 cannot reach this server \
             or its relay.",
        ),
        None => (
            Level::Problem,
            ". What does not: remote devices cannot reach this server or its relay at all.",
        ),
    };
    detail.push_str(rest);
    if facts.other_regions > 0 {
        detail.push_str(" Remote devices can reach each other through the other relays.");
    }
    let title = "Your ISP uses carrier-grade NAT (no public IPv4)";
    let finding = Finding::new("wan.carrier-nat", level, title);
    finding.detail(detail).advice(WAYS_IN)
}

fn ipv6(facts: &Facts) -> Option<Finding> {
    if let Some(v6) = facts.wan.public.v6 {
        return Some(
            Finding::new("wan.ipv6", Level::Ok, "Public IPv6 address")
                .detail(format!("The address is {v6}.")),
        );
    }
    facts.wan.has_route.then(|| {
        Finding::new("wan.no-ipv6", Level::Note, "No public IPv6 address")
            .detail("Direct connections between devices are less likely without IPv6.")
            .advice("Ask your ISP for IPv6, or enable it in the router.")
    })
}

fn collision(facts: &Facts) -> Option<Finding> {
    let own = facts.own_v4().filter(|own| facts.nodes_v4.contains(own))?;
    let title = "The ISP and the tailnet use the same address range";
    let detail = format!(
        "The WAN address is {own}, and nodes get addresses from {}. Traffic may go to the wrong one.",
        facts.nodes_v4
    );
    let advice = format!(
        "Set prefixes.v4 = \"{}\", restart hearth, and run `hearth nodes backfill-ips`.",
        prefix_without(own)
    );
    let finding = Finding::new("wan.prefix-collision", Level::Problem, title);
    Some(finding.detail(detail).advice(advice))
}

fn differs(facts: &Facts) -> Option<Finding> {
    let wan = &facts.wan;
    if let Some(of_router) = wan.mapping.external.filter(|ip| {
        let kind = kind_of((*ip).into());
        kind != Kind::Public
    }) {
        let title = "The upstream router is behind NAT itself";
        let detail = format!(
            "Its WAN address is {of_router}, which is unreachable from the internet over IPv4. Forwarding ports in it has no effect."
        );
        let finding = Finding::new("wan.upstream-nat", Level::Problem, title);
        return Some(finding.detail(detail).advice(WAYS_IN));
    }
    if wan.mapping.protocol == Some(Protocol::Upnp)
        && wan.own.public().v4.is_none()
        && let Some(of_router) = wan.mapping.external.filter(|ip| wan.public.v4 != Some(*ip))
    {
        let title = "The public address that UPnP reports is not confirmed";
        let stun = match wan.reported.v4 {
            Some(reported) => format!("STUN reports {reported}"),
            None => "no STUN server has reported an address".to_owned(),
        };
        let detail = format!(
            "The upstream router reports {of_router}; {stun}. Without confirmation the address is not announced to clients, because UPnP has no access control."
        );
        let advice = format!(
            "Set wan.stun_servers, enable PCP or NAT-PMP in that router, or set wan.ipv4 = \"{of_router}\" if the address never changes."
        );
        let finding = Finding::new("mapping.unconfirmed", Level::Warning, title);
        return Some(finding.detail(detail).advice(advice));
    }
    let (own, reported) = (wan.own.public().v4?, wan.reported.v4?);
    (own != reported).then(|| {
        let title = "STUN reports a different public address";
        let detail = format!(
            "The address of this machine is {own}; STUN reports {reported}. Outgoing packets take another route, or a NAT is in between."
        );
        let advice = format!(
            "If devices should connect to {reported}, set wan.ipv4 = \"{reported}\". If outgoing traffic uses a VPN, ignore this."
        );
        let finding = Finding::new("wan.outside-differs", Level::Warning, title);
        finding.detail(detail).advice(advice)
    })
}

fn mapping(facts: &Facts) -> Option<Finding> {
    let mapping = &facts.wan.mapping;
    // With a public address no router needs to be asked.
    if !mapping.is_wanted || facts.wan.own.public().v4.is_some() {
        return None;
    }
    let by = mapping.protocol.map_or("", |protocol| protocol.word());
    let other: Vec<String> = (mapping.ports.iter())
        .filter_map(|mapped| {
            let external = mapped.external?;
            let (port, word) = (mapped.port.number, mapped.port.transport.word());
            (external != port).then(|| format!("{external} instead of {port} ({word})"))
        })
        .collect();
    if !mapping.fault.is_empty() || !has_mappings(&mapping.ports) {
        let title = "Port mapping failed";
        let fault = match mapping.fault.as_str() {
            "" => "no response yet",
            fault => fault,
        };
        let advice = "Enable UPnP, NAT-PMP or PCP in the upstream router, or forward the ports there manually.";
        let finding = Finding::new("mapping.failed", Level::Warning, title);
        return Some(finding.detail(format!("Error: {fault}.")).advice(advice));
    }
    if !other.is_empty() {
        let title = "The upstream router assigned different ports";
        let detail = format!("It forwards {}.", other.join(", "));
        let advice = "Set server_url, derp.port and derp.stun_port to these ports, or free the usual ports in that router.";
        let finding = Finding::new("mapping.other-ports", Level::Warning, title);
        return Some(finding.detail(detail).advice(advice));
    }
    let ports: Vec<String> = mapping.ports.iter().map(port_of).collect();
    let title = "The upstream router forwards the ports";
    let detail = format!("Protocol {by}: {}.", ports.join(", "));
    Some(Finding::new("mapping", Level::Ok, title).detail(detail))
}

fn has_mappings(ports: &[Mapped]) -> bool {
    !ports.is_empty() && ports.iter().all(|mapped| mapped.external.is_some())
}

fn port_of(mapped: &Mapped) -> String {
    format!("{} ({})", mapped.port.number, mapped.port.transport.word())
}

fn url(facts: &Facts) -> Option<Finding> {
    let name = match &facts.host {
        Host::Name(name) => name,
        Host::Address(address) => return url_with_address(facts, *address),
    };
    let wan = &facts.wan;
    let found = match &wan.lookup {
        Lookup::None => return None,
        Lookup::Failed(fault) => {
            let title = format!("{name} does not resolve");
            let detail = format!(
                "DNS: {fault}. Devices find this server only while they remember its addresses."
            );
            let advice = "Check the name at your DNS provider, and the dynamic DNS client of the router (ddns-scripts on OpenWrt).";
            let finding = Finding::new("url.no-address", Level::Problem, title);
            return Some(finding.detail(detail).advice(advice));
        }
        Lookup::Found(found) => found,
    };
    let addresses: Vec<String> = found.iter().map(ToString::to_string).collect();
    let addresses = addresses.join(", ");
    let public: Vec<IpAddr> = wan.public.iter().collect();
    let own: Vec<IpAddr> = wan.own.iter().chain(wan.lan.map(IpAddr::V4)).collect();
    if found.iter().any(|ip| public.contains(ip)) {
        let title = format!("{name} resolves to this server");
        return Some(
            Finding::new("url.name", Level::Ok, title).detail(format!("DNS: {addresses}.")),
        );
    }
    if found.iter().any(|ip| own.contains(ip)) {
        let title = format!("{name} resolves to a private address of this server");
        let detail =
            format!("DNS on this machine: {addresses}. Remote devices may get a different answer.");
        return Some(Finding::new("url.name-at-home", Level::Note, title).detail(detail));
    }
    let is = match public.as_slice() {
        [] => "no public address is known".to_owned(),
        [first, ..] => format!("the public address is {first}"),
    };
    if wan.is_published {
        let title = format!("{name} resolves to an old address");
        let detail = format!(
            "DNS: {addresses}; {is}. Connected devices have the new address; others must wait for DNS."
        );
        let advice = "Check the dynamic DNS client of the router (ddns-scripts on OpenWrt), and lower the TTL of the name to 60 s.";
        let finding = Finding::new("url.old-address", Level::Warning, title);
        return Some(finding.detail(detail).advice(advice));
    }
    let title = format!("{name} resolves to another machine");
    let detail = format!("DNS: {addresses}; {is}.");
    let advice = "This is correct with a proxy or tunnel. Otherwise set up dynamic DNS for the name; hearth then advertises its public addresses to clients (wan.publish = \"always\" does so at once).";
    let finding = Finding::new("url.elsewhere", Level::Note, title);
    Some(finding.detail(detail).advice(advice))
}

fn url_with_address(facts: &Facts, address: IpAddr) -> Option<Finding> {
    let url = &facts.server_url;
    let public = facts.wan.public;
    match kind_of(address) {
        Kind::Public if public.is_empty() || public.iter().any(|ip| ip == address) => Some(
            Finding::new(
                "url.address",
                Level::Ok,
                "server_url is an address of this server",
            )
            .detail(format!("server_url is {url}.")),
        ),
        Kind::Public => {
            let title = "server_url is not an address of this server";
            let detail = format!(
                "server_url is {url}. Connected devices have the current address; new devices cannot join."
            );
            let advice = "Set server_url to a name that a dynamic DNS service keeps up to date.";
            let finding = Finding::new("url.old-address", Level::Warning, title);
            Some(finding.detail(detail).advice(advice))
        }
        Kind::Local => {
            let title = "server_url works on this machine only";
            let advice = "Set server_url to a LAN address or a name.";
            let finding = Finding::new("url.local", Level::Problem, title);
            Some(
                finding
                    .detail(format!("server_url is {url}."))
                    .advice(advice),
            )
        }
        Kind::Private | Kind::Carrier if is_lost(facts, address) => {
            let title = format!("server_url names {address}, no longer an address of this machine");
            let detail = match facts.wan.lan {
                Some(lan) => format!(
                    "server_url is {url}; the LAN address of this machine is {lan}. New devices cannot join."
                ),
                None => format!(
                    "server_url is {url}; this machine has no LAN address. New devices cannot join."
                ),
            };
            let advice = "Give this machine its old address again (a DHCP reservation in the router), or change server_url and log devices in again with `tailscale login --login-server=URL`. Without server_url in the configuration it follows the address. If a port forward or a proxy has the address, ignore this.";
            let finding = Finding::new("url.lost-address", Level::Warning, title);
            Some(finding.detail(detail).advice(advice))
        }
        Kind::Private | Kind::Carrier => {
            let title = "New devices can join from the LAN only";
            let mut detail = format!("server_url is {url}, which is reachable from the LAN only.");
            detail.push_str(match facts.wan.advertised.is_empty() {
                true => " Remote devices cannot reach this server.",
                false => {
                    " Devices that have joined also know the public addresses and connect to them if the ports are open."
                }
            });
            let advice = "Get a (dynamic) DNS name for the public address, and set server_url = \"https://NAME\" with a certificate for it; or keep it so (docs/away.md describes what works without a domain).";
            let finding = Finding::new("url.private", Level::Note, title);
            Some(finding.detail(detail).advice(advice))
        }
    }
}

/// Whether this private address is one that this machine does not have.
fn is_lost(facts: &Facts, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !facts.local_v4.is_empty() && !facts.local_v4.contains(&v4),
        IpAddr::V6(_) => false,
    }
}

/// A listener at which the host of `server_url` cannot arrive: another family, or another address of this machine.
fn unreachable_listener(facts: &Facts) -> Option<Finding> {
    let (listener, key) = match facts.is_https {
        true => (facts.https?, "listen.https"),
        false => (facts.http?, "listen.http"),
    };
    let hosts: Vec<IpAddr> = match (&facts.host, &facts.wan.lookup) {
        (Host::Address(address), _) => vec![*address],
        (Host::Name(_), Lookup::Found(found)) => found.clone(),
        (Host::Name(_), _) => Vec::new(),
    };
    let at = listener.ip();
    // A proxy on this machine forwards to a loopback address, whatever the host is.
    if hosts.is_empty() || at.is_loopback() {
        return None;
    }
    let accepts = |host: &IpAddr| {
        let is_all = at.is_unspecified() && (at.is_ipv6() || host.is_ipv4());
        // A router may forward from a public address to this one.
        let is_forwarded = host.is_ipv4() == at.is_ipv4() && kind_of(*host) == Kind::Public;
        is_all || *host == at || !at.is_unspecified() && is_forwarded
    };
    if hosts.iter().any(accepts) {
        return None;
    }
    let is_family = hosts.iter().all(|host| host.is_ipv4() != at.is_ipv4());
    let title = match is_family {
        true => format!(
            "server_url leads to {}, but {key} accepts {} only",
            if at.is_ipv4() { "IPv6" } else { "IPv4" },
            if at.is_ipv4() { "IPv4" } else { "IPv6" },
        ),
        false => format!("{key} does not accept connections to the host of server_url"),
    };
    let detail = format!(
        "server_url is {}, and {key} is {listener}.",
        facts.server_url
    );
    let advice = format!(
        "Set {key} = \"[::]:{}\", which accepts IPv6 and IPv4 at all addresses, unless a proxy accepts these connections.",
        listener.port()
    );
    let finding = Finding::new("url.unreachable-listener", Level::Problem, title);
    Some(finding.detail(detail).advice(advice))
}

fn listener(facts: &Facts) -> Option<Finding> {
    if facts.control_works() {
        return None;
    }
    let (scheme, listener, key) = match facts.is_https {
        true => ("https", facts.https, "listen.https"),
        false => ("http", facts.http, "listen.http"),
    };
    let url = &facts.server_url;
    let Some(listener) = listener else {
        let title = format!("server_url is {scheme}, but {key} is off");
        let advice = format!(
            "Set {key}, unless a reverse proxy accepts these connections and forwards them."
        );
        let finding = Finding::new("url.no-listener", Level::Warning, title);
        return Some(
            finding
                .detail(format!("server_url is {url}."))
                .advice(advice),
        );
    };
    let is_here = facts
        .host_address()
        .is_some_and(|address| kind_of(address) != Kind::Public);
    if listener.port() == facts.port {
        return None;
    }
    let detail = format!("server_url is {url}, and {key} is {listener}.");
    let level = if is_here { Level::Warning } else { Level::Note };
    let (title, advice) = match facts.is_https {
        true => (
            format!(
                "Port {} must be forwarded to {}",
                facts.port,
                listener.port()
            ),
            "Forward the port in the router or the reverse proxy, or change one of the two.",
        ),
        // Plain HTTP is for the LAN: never forwarded by a router.
        false => (
            format!(
                "server_url has port {}, and {key} has {}",
                facts.port,
                listener.port()
            ),
            "Use the same port in both.",
        ),
    };
    Some(
        Finding::new("url.other-port", level, title)
            .detail(detail)
            .advice(advice),
    )
}

fn stun(facts: &Facts) -> Option<Finding> {
    if !facts.relay_is_on && facts.other_regions == 0 {
        let title = "There is no relay";
        let detail = "Devices without a direct connection cannot reach each other.";
        let advice = "Set derp.enabled = true, or add relays by derp.map_urls or derp.map_files.";
        let finding = Finding::new("relay.none", Level::Problem, title);
        return Some(finding.detail(detail).advice(advice));
    }
    (facts.stun.is_none() && facts.other_regions == 0).then(|| {
        let title = "STUN is off";
        let detail = "Devices cannot detect their public address, and use the relay more often.";
        let finding = Finding::new("stun.off", Level::Warning, title);
        finding.detail(detail).advice("Set listen.stun.")
    })
}

/// Open ports cannot be verified from inside.
fn ports(facts: &Facts) -> Option<Finding> {
    let wan = &facts.wan;
    if wan.public_source == AddressSource::None || has_mappings(&wan.mapping.ports) {
        return None;
    }
    let title = "Ports to open for remote devices";
    let ports = needed(facts);
    if ports.is_empty() {
        return None;
    }
    let detail = format!(
        "{ports}. hearth cannot verify from inside whether the firewall of this machine or of the upstream router lets them through. Never open the port of plain HTTP (listen.http) to the internet."
    );
    let advice = "Open them for IPv4 and IPv6 (on OpenWrt: \u{201c}Open ports on the firewall\u{201d} in the settings of hearth), and test from a mobile network.";
    Some(
        Finding::new("ports.needed", Level::Note, title)
            .detail(detail)
            .advice(advice),
    )
}

/// The ports to open to the internet: HTTPS and STUN. Never that of plain HTTP, over which clients cannot verify the
/// key of the server when they join.
fn needed(facts: &Facts) -> String {
    let is_open = |address: &SocketAddr| !address.ip().is_loopback();
    // Behind a proxy the relay has the port of the proxy.
    let has_proxy = |port| facts.is_https && facts.control_works() && port != facts.port;
    let https = facts.https.filter(is_open);
    let https =
        https.filter(|https| (facts.relay_is_on || facts.is_https) && !has_proxy(https.port()));
    let tcp = https.into_iter().map(|address| (Transport::Tcp, address));
    let stun = facts.stun.filter(is_open);
    let udp = stun.into_iter().map(|address| (Transport::Udp, address));
    let ports: Vec<String> = tcp
        .chain(udp)
        .map(|(transport, address)| format!("{} ({})", address.port(), transport.word()))
        .collect();
    ports.join(", ")
}
