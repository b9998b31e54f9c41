//! DERP region of this server, as advertised in DERP maps.

use std::net::IpAddr;

use crate::config::{Config, Host, Scheme};
use crate::status::addresses::Addresses;
use hearth_core::tailcfg::derpmap::{DerpNode, DerpRegion};
use hearth_core::wan::{Addresses as Public, Kind, kind_of};

/// The self-signed certificate of this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Its hash, as 64 hexadecimal digits.
    pub sha256: String,
    /// Whether it is served at the advertised host and port, as seen from this machine; `None` while unknown.
    /// `Some(false)` is another certificate that clients trust: that of a proxy.
    pub is_served: Option<bool>,
}

/// Whether clients find the HTTPS listener itself, with its self-signed certificate, at the advertised host and
/// port. Otherwise a proxy is there, with a certificate of its own, and must not be pinned.
fn is_own_listener(config: &Config, addresses: &Addresses, host: &str, port: u16) -> bool {
    let Some(listener) = addresses.https else {
        return false;
    };
    let address = host.parse::<IpAddr>().ok();
    let is_local = host == "localhost" || address.is_some_and(|ip| ip.is_loopback());
    if listener.ip().is_loopback() && !is_local {
        return false;
    }
    // Another port is a forwarded one if no certificate can be in front: there is no name that has one, or
    // the certificate files of hearth itself could not be read.
    let has_no_authority = config.derp.host_name.is_none() || address.is_some();
    let is_plain = addresses.server_url.get().scheme() == Scheme::Http;
    let is_forwarded = config.tls.is_some() || (is_plain && has_no_authority);
    port == listener.port() || is_forwarded
}

/// Region of this server. `pin` is the self-signed certificate, whose hash clients require if they meet it;
/// `public` are the public addresses advertised so that clients need no DNS. `None` without a relay, or when it
/// is not reachable: clients connect to relays over TLS only.
pub fn region(
    config: &Config,
    addresses: &Addresses,
    pin: Option<&Pin>,
    public: Public,
) -> Option<DerpRegion> {
    let derp = &config.derp;
    let url = addresses.server_url.get();
    let listener = addresses.https.map(|address| address.port());
    // An https URL has the public TLS port: a forwarded port, or a reverse proxy.
    let from_url = (url.scheme() == Scheme::Https).then(|| url.port());
    let port = match derp.is_stun_only {
        true => 0,
        false => derp.port.or(from_url).or(listener)?,
    };
    if !derp.enabled || (derp.is_stun_only && addresses.stun.is_none()) {
        return None;
    }
    let host = match (&derp.host_name, url.host()) {
        (Some(name), _) => name.clone(),
        (None, Host::Name(name)) => name.to_string(),
        (None, Host::Address(address)) => address.to_string(),
    };
    let pin = pin.filter(|pin| {
        let is_served = pin.is_served;
        !derp.is_stun_only
            && listener.is_some()
            && is_served.unwrap_or_else(|| is_own_listener(config, addresses, &host, port))
    });
    let stun = addresses.stun.map(|address| address.port());
    let stun_port = stun.map_or(-1, |listener| i32::from(derp.stun_port.unwrap_or(listener)));
    let has_port_80 = addresses.http.is_some_and(|address| address.port() == 80);
    let set = Public {
        v4: derp.ipv4,
        v6: derp.ipv6,
    };
    let node = |letter: char, host: String, addresses: [String; 2]| {
        let [ipv4, ipv6] = addresses;
        DerpNode {
            name: format!("{}{letter}", derp.region_id),
            region_id: derp.region_id,
            host_name: host,
            cert_name: match pin {
                Some(pin) => format!("sha256-raw:{}", pin.sha256),
                None => String::new(),
            },
            can_port_80: has_port_80 && ipv4.parse::<IpAddr>().is_ok(),
            ipv4,
            ipv6,
            stun_port,
            derp_port: i32::from(port),
            stun_only: derp.is_stun_only,
            insecure_for_tests: false,
        }
    };
    let mut nodes = Vec::with_capacity(2);
    match host.parse::<IpAddr>() {
        // Clients resolve unknown addresses by DNS.
        Err(_) => nodes.push(node('a', host, texts(set.or(public), ""))),
        Ok(private) if kind_of(private) != Kind::Public => {
            let all = set.or(only(private));
            nodes.push(node('a', host, texts(all, NO_ADDRESS)));
            // Remote clients need a second node, which they use when the first does not answer. Its host name is
            // an address as well, for which only a self-signed certificate exists.
            let first = public.iter().next().filter(|_| pin.is_some());
            if let Some(first) = first {
                nodes.push(node('b', first.to_string(), texts(public, NO_ADDRESS)));
            }
        }
        Ok(host_address) => {
            let all = set.or(public).or(match public.is_empty() {
                true => only(host_address),
                false => Public::default(),
            });
            // A CA certificate is for the host name; a self-signed one is verified by its hash.
            let moved = all.iter().find(|ip| ip.is_ipv4() == host_address.is_ipv4());
            let name = match moved.filter(|_| pin.is_some()) {
                Some(moved) => moved.to_string(),
                None => host,
            };
            nodes.push(node('a', name, texts(all, NO_ADDRESS)));
        }
    }
    Some(DerpRegion {
        region_id: derp.region_id,
        region_code: derp.region_code.clone(),
        region_name: derp.region_name.clone(),
        nodes,
        ..DerpRegion::default()
    })
}

/// No address of this family. Source: `DERPNode.IPv4` in tailscale `tailcfg/derpmap.go`.
const NO_ADDRESS: &str = "none";

fn only(address: IpAddr) -> Public {
    match address {
        IpAddr::V4(v4) => Public {
            v4: Some(v4),
            v6: None,
        },
        IpAddr::V6(v6) => Public {
            v4: None,
            v6: Some(v6),
        },
    }
}

/// The addresses as strings, and `missing` for a family without one.
fn texts(addresses: Public, missing: &str) -> [String; 2] {
    let v4 = addresses.v4.map(|ip| ip.to_string());
    let v6 = addresses.v6.map(|ip| ip.to_string());
    [v4, v6].map(|text| text.unwrap_or_else(|| missing.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, Surroundings};
    use crate::status::addresses::CurrentUrl;
    use hearth_core::derp_map_file::{Part, join};

    fn map(url: &str, pin: Option<&str>) -> String {
        map_with(url, pin, Public::default())
    }

    fn map_with(url: &str, pin: Option<&str>, public: Public) -> String {
        let own = own_region(url, pin.map(pinned).as_ref(), public, |_, _| {});
        serde_json::to_string(&join(&own.map(|region| Part::one(region, None))).0).unwrap()
    }

    fn pinned(hash: &str) -> Pin {
        Pin {
            sha256: hash.to_owned(),
            is_served: None,
        }
    }

    fn own_region(
        url: &str,
        pin: Option<&Pin>,
        public: Public,
        change: impl FnOnce(&mut Config, &mut Addresses),
    ) -> Option<DerpRegion> {
        let overrides = Overrides {
            server_url: Some(url.parse().unwrap()),
            ..Overrides::default()
        };
        let mut config = Config::load(overrides, &Surroundings::default());
        let mut addresses = Addresses {
            server_url: CurrentUrl::new(config.server_url.clone()),
            http: Some(([0, 0, 0, 0], 80).into()),
            https: Some(([0, 0, 0, 0], 8443).into()),
            stun: Some(([0, 0, 0, 0], 3478).into()),
            socket: "/dev/null".into(),
        };
        change(&mut config, &mut addresses);
        region(&config, &addresses, pin, public)
    }

    /// Whether clients require the self-signed certificate.
    fn is_pinned(url: &str, pin: &Pin, change: impl FnOnce(&mut Config, &mut Addresses)) -> bool {
        let region = own_region(url, Some(pin), Public::default(), change).unwrap();
        region.nodes.iter().all(|node| !node.cert_name.is_empty())
    }

    #[test]
    fn the_own_certificate_is_pinned_only_where_clients_meet_it() {
        let unknown = pinned("ab");
        let pinned =
            |url, change: fn(&mut Config, &mut Addresses)| is_pinned(url, &unknown, change);
        let nothing: fn(&mut Config, &mut Addresses) = |_, _| {};
        // The listener itself, also by another port that a router forwards.
        assert!(pinned("http://192.168.1.1:8080", nothing));
        assert!(pinned("https://203.0.113.5:8443", nothing));
        assert!(pinned("https://home.example:8443", nothing));
        assert!(pinned("http://192.168.1.1:8080", |config, _| config
            .derp
            .port =
            Some(443)));
        assert!(pinned("https://home.example", |config, _| config
            .derp
            .port =
            Some(8443)));
        assert!(pinned("http://192.168.1.1:8080", |config, _| {
            config.derp.host_name = Some("relay.example".into());
        }));
        // A proxy.
        assert!(!pinned("https://home.example", nothing));
        assert!(!pinned("https://home.example:444", nothing));
        assert!(!pinned("https://192.168.1.1", nothing));
        assert!(!pinned("https://home.example", |config, _| config
            .derp
            .port =
            Some(443)));
        assert!(!pinned("http://192.168.1.1:8080", |config, _| {
            config.derp.host_name = Some("relay.example".into());
            config.derp.port = Some(443);
        }));
        assert!(!pinned("https://home.example:8443", |_, addresses| {
            addresses.https = "127.0.0.1:8443".parse().ok();
        }));
        for url in ["http://localhost:8080", "http://127.0.0.1:8080"] {
            assert!(pinned(url, |_, addresses| {
                addresses.https = "127.0.0.1:8443".parse().ok();
            }));
        }
        // The certificate files of hearth could not be read.
        assert!(pinned("https://home.example", |config, _| {
            config.tls = Some(crate::config::TlsFiles {
                cert: "/missing".into(),
                key: "/missing".into(),
            });
        }));
    }

    #[test]
    fn the_certificate_that_is_really_served_decides() {
        let seen = |is_served| Pin {
            is_served,
            ..pinned("ab")
        };
        for url in ["https://home.example", "https://home.example:8443"] {
            assert!(is_pinned(url, &seen(Some(true)), |_, _| {}), "{url}");
            assert!(!is_pinned(url, &seen(Some(false)), |_, _| {}), "{url}");
        }
        // Without a listener there is nothing of hearth to meet.
        let off = |config: &mut Config, addresses: &mut Addresses| {
            (config.derp.port, addresses.https) = (Some(443), None);
        };
        assert!(!is_pinned("https://home.example", &seen(Some(true)), off));
    }

    #[test]
    fn with_a_private_address_the_certificate_is_pinned() {
        assert_eq!(
            map("http://192.168.1.1:8080", Some("ab12")),
            r#"{"Regions":{"900":{"RegionID":900,"RegionCode":"hearth","RegionName":"hearth","Nodes":[{"Name":"900a","RegionID":900,"HostName":"192.168.1.1","CertName":"sha256-raw:ab12","IPv4":"192.168.1.1","IPv6":"none","STUNPort":3478,"DERPPort":8443,"CanPort80":true}]}}}"#
        );
    }

    #[test]
    fn with_a_domain_clients_use_dns_and_the_port_of_the_url() {
        assert_eq!(
            map("https://hearth.example.com", None),
            r#"{"Regions":{"900":{"RegionID":900,"RegionCode":"hearth","RegionName":"hearth","Nodes":[{"Name":"900a","RegionID":900,"HostName":"hearth.example.com","STUNPort":3478,"DERPPort":443}]}}}"#
        );
    }

    fn nodes(url: &str, pin: Option<&str>, public: [&str; 2]) -> Vec<String> {
        let [v4, v6] = public;
        let public = Public {
            v4: v4.parse().ok(),
            v6: v6.parse().ok(),
        };
        let map: serde_json::Value =
            serde_json::from_str(&map_with(url, pin, public)).expect("JSON");
        let nodes = map["Regions"]["900"]["Nodes"].as_array().expect("nodes");
        let text =
            |node: &serde_json::Value, key: &str| node[key].as_str().unwrap_or("").to_owned();
        let fields = ["Name", "HostName", "IPv4", "IPv6"];
        let line = |node| fields.map(|field| text(node, field)).join(" ");
        nodes.iter().map(line).collect()
    }

    #[test]
    fn public_addresses_make_dns_unnecessary() {
        let url = "https://hearth.example.com";
        let both = nodes(url, None, ["203.0.113.5", "2001:db8::1"]);
        assert_eq!(both, ["900a hearth.example.com 203.0.113.5 2001:db8::1"]);
        let one = nodes(url, None, ["", "2001:db8::1"]);
        assert_eq!(one, ["900a hearth.example.com  2001:db8::1"]);
    }

    #[test]
    fn an_address_as_the_name_follows_the_public_address() {
        let url = "https://203.0.113.5:8443";
        let moved = ["203.0.113.9", ""];
        assert_eq!(
            nodes(url, Some("ab"), moved),
            ["900a 203.0.113.9 203.0.113.9 none"]
        );
        assert_eq!(
            nodes(url, None, moved),
            ["900a 203.0.113.5 203.0.113.9 none"]
        );
        assert_eq!(
            nodes(url, Some("ab"), ["", ""]),
            ["900a 203.0.113.5 203.0.113.5 none"]
        );
    }

    #[test]
    fn with_a_private_url_the_public_address_comes_second() {
        let url = "http://192.168.1.1:8080";
        let home = "900a 192.168.1.1 192.168.1.1 none";
        let both = nodes(url, Some("ab"), ["203.0.113.5", "2001:db8::1"]);
        assert_eq!(both, [home, "900b 203.0.113.5 203.0.113.5 2001:db8::1"]);
        assert_eq!(nodes(url, None, ["203.0.113.5", ""]), [home]);
    }
}
