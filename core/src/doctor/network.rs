//! The way to the outside: addresses, the name, ports.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::doctor::{Facts, Finding, Host, Level};
use crate::wan::mapping::{Mapped, Transport};
use crate::wan::report::Lookup;
use crate::wan::{Kind, OutsideFrom, kind_of};

/// What helps those whom nobody can reach over IPv4.
const WAYS_IN: &str = "Ask the provider for a public IPv4 address of your own, or use IPv6 (open the ports there), \
     or run `hearth derp` on a small rented server and name it in derp.map_files: then devices away reach each \
     other through it.";

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let all = [
        way_out(facts),
        ipv4(facts),
        ipv6(facts),
        collision(facts),
        differs(facts),
        mapping(facts),
        url(facts),
        listener(facts),
        stun(facts),
        ports(facts),
    ];
    all.into_iter().flatten().collect()
}

fn way_out(facts: &Facts) -> Option<Finding> {
    (!facts.wan.has_route).then(|| {
        Finding::new("wan.offline", Level::Warning, "There is no way to the internet")
            .detail("This machine has no default route. Devices at home stay connected; those elsewhere cannot come in.")
            .advice("Check the connection of the router. On a machine without internet on purpose nothing needs to be done.")
    })
}

fn ipv4(facts: &Facts) -> Option<Finding> {
    let wan = &facts.wan;
    let outside = wan.outside.v4;
    let Some(own) = facts.own_v4() else {
        let is_v6_only = outside.is_none() && wan.outside.v6.is_some();
        return is_v6_only.then(|| {
            Finding::new("wan.no-ipv4", Level::Warning, "There is no IPv4 outside")
                .detail("Devices in networks without IPv6, such as many hotels and offices, cannot reach this server.")
                .advice(WAYS_IN)
        });
    };
    let place = match wan.interface.as_str() {
        "" => "This machine".to_owned(),
        interface => format!("The interface {interface}"),
    };
    let has_v6 = wan.outside.v6.is_some();
    let is_by_mapping = has_mappings(&facts.wan.mapping.ports);
    match kind_of(own.into()) {
        Kind::Public => Some(
            Finding::new("wan.address", Level::Ok, "There is a public IPv4 address")
                .detail(format!("{place} has the address {own}.")),
        ),
        Kind::Carrier => {
            let mut detail = format!(
                "{place} has the address {own}, which the provider shares between several homes (carrier-grade NAT). \
                 Nobody outside can begin a connection to it over IPv4. What works: everything at home, connections \
                 that devices here begin"
            );
            detail.push_str(match has_v6 {
                true => {
                    ", and everything over IPv6. What does not: devices that are in networks without IPv6 cannot \
                         reach this server or its relay."
                }
                false => {
                    ". What does not: devices that are away cannot reach this server or its relay at all."
                }
            });
            if facts.other_regions > 0 {
                detail.push_str(
                    " Devices that are away can reach each other through the other relays.",
                );
            }
            let level = if has_v6 {
                Level::Warning
            } else {
                Level::Problem
            };
            let title = "The provider shares the IPv4 address between several homes";
            let finding = Finding::new("wan.carrier-nat", level, title);
            Some(finding.detail(detail).advice(WAYS_IN))
        }
        Kind::Private if is_by_mapping && outside.is_some() => None,
        Kind::Private => {
            let level = if has_v6 { Level::Note } else { Level::Warning };
            let title = "This machine is behind another router";
            let mut detail = format!(
                "{place} has the address {own}, which only machines at home can reach (double NAT where this machine is a router itself)."
            );
            if let Some(outside) = outside {
                let _ = write!(detail, " Outside, the address is {outside}.");
            }
            let mut advice = format!(
                "Forward these ports to {own} in the router in front: {}.",
                needed(facts)
            );
            if !wan.mapping.is_wanted {
                advice.push_str(
                    " Or set wan.port_mapping = true, and hearth asks that router for it.",
                );
            }
            if outside.is_none() {
                advice.push_str(" With wan.stun_servers hearth learns the address outside.");
            }
            Some(
                Finding::new("wan.double-nat", level, title)
                    .detail(detail)
                    .advice(advice),
            )
        }
        Kind::Local => Some(
            Finding::new(
                "wan.local",
                Level::Warning,
                "The address outside is of no use",
            )
            .detail(format!(
                "{place} has the address {own}, which nobody else can reach."
            ))
            .advice("Check the connection of the router: usually the provider gave it no address."),
        ),
    }
}

fn ipv6(facts: &Facts) -> Option<Finding> {
    if let Some(v6) = facts.wan.outside.v6 {
        return Some(
            Finding::new("wan.ipv6", Level::Ok, "There is a public IPv6 address")
                .detail(format!("The address is {v6}.")),
        );
    }
    facts.wan.has_route.then(|| {
        Finding::new("wan.no-ipv6", Level::Note, "There is no IPv6")
            .detail("Devices reach each other directly less often without it.")
            .advice("Ask the provider for IPv6, or switch it on in the router.")
    })
}

fn collision(facts: &Facts) -> Option<Finding> {
    let own = facts.own_v4().filter(|own| facts.nodes_v4.contains(own))?;
    let instead = match own.octets() {
        [_, second, ..] if second < 96 => "100.112.0.0/16",
        _ => "100.80.0.0/16",
    };
    let title = "The provider gives the same addresses as the tailnet";
    let detail = format!(
        "The address outside is {own}, and nodes get theirs from {}. Traffic to one may end at the other.",
        facts.nodes_v4
    );
    let advice = format!(
        "Set prefixes.v4 = \"{instead}\", restart hearth, and run `hearth nodes backfill-ips`."
    );
    let finding = Finding::new("wan.prefix-collision", Level::Problem, title);
    Some(finding.detail(detail).advice(advice))
}

fn differs(facts: &Facts) -> Option<Finding> {
    let wan = &facts.wan;
    if let Some(of_router) = wan.mapping.outside.filter(|ip| {
        let kind = kind_of((*ip).into());
        kind != Kind::Public
    }) {
        let title = "The router in front is behind NAT itself";
        let detail = format!(
            "Outside, it has the address {of_router}, which nobody else can reach over IPv4. Ports that it forwards are of no use."
        );
        let finding = Finding::new("wan.upstream-nat", Level::Problem, title);
        return Some(finding.detail(detail).advice(WAYS_IN));
    }
    let (own, learnt) = (wan.own.public().v4?, wan.learnt.v4?);
    (own != learnt).then(|| {
        let title = "Others see another address than this machine has";
        let detail = format!(
            "The address of the machine is {own}; STUN says {learnt}. Packets leave by another way than the one in, or something translates addresses in between."
        );
        let advice = format!(
            "If people should come in at {learnt}, set wan.ipv4 = \"{learnt}\"; if a VPN is the way out, nothing needs to be done."
        );
        let finding = Finding::new("wan.outside-differs", Level::Warning, title);
        finding.detail(detail).advice(advice)
    })
}

fn mapping(facts: &Facts) -> Option<Finding> {
    let mapping = &facts.wan.mapping;
    // With an address of one's own there is nobody to ask.
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
        let title = "The router in front forwards no ports";
        let fault = match mapping.fault.as_str() {
            "" => "no answer yet",
            fault => fault,
        };
        let advice =
            "Switch UPnP, NAT-PMP or PCP on in that router, or forward the ports there by hand.";
        let finding = Finding::new("mapping.failed", Level::Warning, title);
        return Some(finding.detail(format!("{fault}.")).advice(advice));
    }
    if !other.is_empty() {
        let title = "The router in front gave other ports";
        let detail = format!("It forwards {}.", other.join(", "));
        let advice = "Set server_url, derp.port and derp.stun_port accordingly, or free the ports in that router.";
        let finding = Finding::new("mapping.other-ports", Level::Warning, title);
        return Some(finding.detail(detail).advice(advice));
    }
    let ports: Vec<String> = mapping.ports.iter().map(port_of).collect();
    let title = "The router in front forwards the ports";
    let detail = format!("By {by}: {}.", ports.join(", "));
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
    let leads_to = match &wan.lookup {
        Lookup::None => return None,
        Lookup::Failed(fault) => {
            let title = format!("{name} leads nowhere");
            let detail = format!(
                "DNS: {fault}. Devices find this server only as long as they remember its addresses."
            );
            let advice = "Check the name at your DNS provider, and the dynamic DNS service of the router (ddns-scripts on OpenWrt).";
            let finding = Finding::new("url.no-address", Level::Problem, title);
            return Some(finding.detail(detail).advice(advice));
        }
        Lookup::Found(leads_to) => leads_to,
    };
    let says: Vec<String> = leads_to.iter().map(ToString::to_string).collect();
    let says = says.join(", ");
    let outside: Vec<IpAddr> = wan.outside.iter().collect();
    let own: Vec<IpAddr> = wan.own.iter().chain(wan.home.map(IpAddr::V4)).collect();
    if leads_to.iter().any(|ip| outside.contains(ip)) {
        let title = format!("{name} leads here");
        return Some(
            Finding::new("url.name", Level::Ok, title).detail(format!("DNS says {says}.")),
        );
    }
    if leads_to.iter().any(|ip| own.contains(ip)) {
        let title = format!("{name} leads here, from home only");
        let detail = format!(
            "DNS says {says} on this machine. That may differ for those who ask from outside."
        );
        return Some(Finding::new("url.name-at-home", Level::Note, title).detail(detail));
    }
    let is = match outside.as_slice() {
        [] => "no public address is known".to_owned(),
        [first, ..] => format!("the address outside is {first}"),
    };
    if wan.is_published {
        let title = format!("{name} leads to an old address");
        let detail = format!(
            "DNS says {says}; {is}. Devices that are connected were told the new address; others wait for DNS."
        );
        let advice = "Check the dynamic DNS service of the router (ddns-scripts on OpenWrt), and the time to live of the name: 60 s is good.";
        let finding = Finding::new("url.old-address", Level::Warning, title);
        return Some(finding.detail(detail).advice(advice));
    }
    let title = format!("{name} leads elsewhere");
    let detail = format!("DNS says {says}; {is}.");
    let advice = "With a proxy or tunnel in front that is right. If the name should lead here, set up dynamic DNS for it; clients are told the addresses of this machine from then on (or with wan.publish = \"always\").";
    let finding = Finding::new("url.elsewhere", Level::Note, title);
    Some(finding.detail(detail).advice(advice))
}

fn url_with_address(facts: &Facts, address: IpAddr) -> Option<Finding> {
    let url = &facts.server_url;
    let outside = facts.wan.outside;
    match kind_of(address) {
        Kind::Public if outside.is_empty() || outside.iter().any(|ip| ip == address) => Some(
            Finding::new("url.address", Level::Ok, "server_url leads here")
                .detail(format!("It is {url}.")),
        ),
        Kind::Public => {
            let title = "server_url has another address than this machine";
            let detail = format!(
                "It is {url}. Devices that joined were told where the server is now; new ones cannot join by it."
            );
            let advice =
                "Use a name that a dynamic DNS service keeps up to date, and set server_url to it.";
            let finding = Finding::new("url.old-address", Level::Warning, title);
            Some(finding.detail(detail).advice(advice))
        }
        Kind::Local => {
            let title = "server_url can be reached on this machine only";
            let advice = "Set server_url to an address at home or to a name.";
            let finding = Finding::new("url.local", Level::Problem, title);
            Some(finding.detail(format!("It is {url}.")).advice(advice))
        }
        Kind::Private | Kind::Carrier => {
            let title = "New devices can join at home only";
            let mut detail = format!("server_url is {url}, which leads here from home only.");
            detail.push_str(match facts.wan.told.is_empty() {
                true => " Devices that are away have no way to this server.",
                false => {
                    " Devices that have joined were told the addresses outside as well, and come in there while the ports are open."
                }
            });
            let advice = "Get a name (dynamic DNS) that leads to the address outside, and set server_url = \"https://NAME\" with a certificate for it; or use the tailnet at home only.";
            let finding = Finding::new("url.private", Level::Note, title);
            Some(finding.detail(detail).advice(advice))
        }
    }
}

fn listener(facts: &Facts) -> Option<Finding> {
    let (scheme, listener, key) = match facts.is_https {
        true => ("https", facts.https, "listen.https"),
        false => ("http", facts.http, "listen.http"),
    };
    let url = &facts.server_url;
    let Some(listener) = listener else {
        let title = format!("server_url is {scheme}, and nothing listens for it");
        let advice = format!(
            "Switch {key} on, unless a proxy in front takes these connections and hands them on."
        );
        let finding = Finding::new("url.no-listener", Level::Warning, title);
        return Some(
            finding
                .detail(format!("server_url is {url}; {key} is off."))
                .advice(advice),
        );
    };
    let is_here = facts
        .host_address()
        .is_some_and(|address| kind_of(address) != Kind::Public);
    if listener.port() == facts.port {
        return None;
    }
    let title = format!(
        "Port {} has to lead to port {}",
        facts.port,
        listener.port()
    );
    let detail = format!("server_url is {url}, and {key} is {listener}.");
    let level = if is_here { Level::Warning } else { Level::Note };
    let advice = "Forward the port in the router or the proxy, or change one of the two.";
    Some(
        Finding::new("url.other-port", level, title)
            .detail(detail)
            .advice(advice),
    )
}

fn stun(facts: &Facts) -> Option<Finding> {
    if !facts.relay_is_on && facts.other_regions == 0 {
        let title = "There is no relay";
        let detail = "Devices that cannot reach each other directly are not connected at all.";
        let advice = "Set derp.enabled = true, or name relays in derp.map_urls or derp.map_files.";
        let finding = Finding::new("relay.none", Level::Problem, title);
        return Some(finding.detail(detail).advice(advice));
    }
    (facts.stun.is_none() && facts.other_regions == 0).then(|| {
        let title = "Nothing answers STUN";
        let detail = "Devices do not learn their own address outside, and connect through the relay more often.";
        let finding = Finding::new("stun.off", Level::Warning, title);
        finding.detail(detail).advice("Switch listen.stun on.")
    })
}

/// From inside it cannot be seen whether ports are open.
fn ports(facts: &Facts) -> Option<Finding> {
    let wan = &facts.wan;
    let by = match wan.outside_from {
        OutsideFrom::Nowhere => return None,
        _ if has_mappings(&wan.mapping.ports) => return None,
        _ => "the firewall of this router, or of the one in front",
    };
    let title = "Ports that have to be open for devices away";
    let detail = format!(
        "{}. Whether they are cannot be seen from inside; {by} decides.",
        needed(facts)
    );
    let advice = "Open them for IPv4 and IPv6 (on OpenWrt: \u{201c}Reachable from the internet\u{201d} in the settings of hearth), and try from a mobile network.";
    Some(
        Finding::new("ports.needed", Level::Note, title)
            .detail(detail)
            .advice(advice),
    )
}

/// The ports that people come in by.
fn needed(facts: &Facts) -> String {
    let of_url = match facts.is_https {
        true => facts.https,
        false => facts.http,
    };
    let relay = facts.https.filter(|_| facts.relay_is_on);
    let tcp = of_url
        .into_iter()
        .chain(relay)
        .map(|address| (Transport::Tcp, address));
    let udp = facts
        .stun
        .into_iter()
        .map(|address| (Transport::Udp, address));
    let mut ports: Vec<String> = tcp
        .chain(udp)
        .map(|(transport, address)| format!("{} ({})", address.port(), transport.word()))
        .collect();
    ports.dedup();
    ports.join(", ")
}
