//! The addresses that are advertised to clients.

use std::net::{IpAddr, Ipv4Addr};

use crate::wan::address::{Addresses, Kind, kind_of};

/// Most advertised addresses.
pub const MAX_ADDRESSES: usize = 8;

/// The configured addresses of the server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfiguredAddresses {
    /// The address in `server_url`; `None` if it has a name.
    pub host: Option<IpAddr>,
    /// Addresses of the relay.
    pub relay: Addresses,
    /// Whether the relay has its own host name, so that its addresses are not those of the server.
    pub relay_is_elsewhere: bool,
    /// More addresses of the server; an empty list advertises none at all.
    pub more: Option<Vec<IpAddr>>,
}

/// The advertised addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Advertised {
    /// Addresses of the server; empty leaves clients to DNS.
    pub server: Vec<IpAddr>,
    /// Addresses of the relay, for families without a configured one.
    pub relay: Addresses,
}

/// The public addresses to advertise.
///
/// A public address in `server_url` that this machine still has is kept, even if it has others. One that it
/// no longer has is replaced.
pub fn advertised_public(
    configured: &ConfiguredAddresses,
    found: Addresses,
    all: &[IpAddr],
) -> Addresses {
    let here = configured.host.filter(|host| all.contains(host));
    match here.filter(|host| kind_of(*host) == Kind::Public) {
        Some(IpAddr::V4(v4)) => Addresses {
            v4: Some(v4),
            ..found
        },
        Some(IpAddr::V6(v6)) => Addresses {
            v6: Some(v6),
            ..found
        },
        None => found,
    }
}

/// The addresses to advertise, given the public addresses and the LAN address. A LAN address alone is not
/// advertised: remote clients would wait for it before they ask DNS.
pub fn advertise(
    configured: &ConfiguredAddresses,
    public: Addresses,
    lan: Option<Ipv4Addr>,
) -> Advertised {
    let relay = match configured.relay_is_elsewhere {
        true => Addresses::default(),
        false => public,
    };
    let of_relay = match (configured.relay_is_elsewhere, configured.host) {
        (false, None) => configured.relay,
        _ => Addresses::default(),
    };
    let all_public = of_relay.or(public);
    let mut server: Vec<IpAddr> = Vec::new();
    if !all_public.is_empty() {
        // Behind another router the machine may have several private addresses; the one in the URL is in use.
        let in_url = configured.host.filter(|ip| kind_of(*ip) == Kind::Private);
        server.extend(in_url.or(lan.map(IpAddr::V4)));
        server.extend(all_public.iter());
    }
    match configured.more.as_deref() {
        Some([]) => server.clear(),
        Some(more) => server.extend(more),
        None => {}
    }
    let mut known = Vec::new();
    server.retain(|ip| {
        let is_new = !known.contains(ip);
        known.push(*ip);
        is_new
    });
    server.truncate(MAX_ADDRESSES);
    Advertised { server, relay }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(v4: &str, v6: &str) -> Addresses {
        Addresses {
            v4: v4.parse().ok(),
            v6: v6.parse().ok(),
        }
    }

    fn texts(advertised: &Advertised) -> Vec<String> {
        advertised.server.iter().map(ToString::to_string).collect()
    }

    const LAN: Option<Ipv4Addr> = Some(Ipv4Addr::new(192, 168, 1, 1));

    #[test]
    fn the_lan_address_is_advertised_only_with_a_public_one() {
        let configured = ConfiguredAddresses::default();
        let both = advertise(&configured, public("203.0.113.1", "2001:db8::1"), LAN);
        assert_eq!(texts(&both), ["192.168.1.1", "203.0.113.1", "2001:db8::1"]);
        assert_eq!(both.relay, public("203.0.113.1", "2001:db8::1"));
        assert_eq!(
            advertise(&configured, Addresses::default(), LAN),
            Advertised::default()
        );
    }

    #[test]
    fn configured_addresses_replace_or_add_to_detected_ones() {
        let mut configured = ConfiguredAddresses {
            relay: public("198.51.100.1", ""),
            more: Some(vec![
                "203.0.113.9".parse().unwrap(),
                "192.168.1.1".parse().unwrap(),
            ]),
            ..ConfiguredAddresses::default()
        };
        let all = advertise(&configured, public("203.0.113.1", "2001:db8::1"), LAN);
        let expected = ["192.168.1.1", "198.51.100.1", "2001:db8::1", "203.0.113.9"];
        assert_eq!(texts(&all), expected);
        assert_eq!(
            texts(&advertise(&configured, Addresses::default(), None)).len(),
            3
        );
        configured.more = Some(Vec::new());
        assert_eq!(
            texts(&advertise(&configured, public("203.0.113.1", ""), LAN)),
            [""; 0]
        );
    }

    #[test]
    fn the_address_of_a_separate_relay_is_not_that_of_the_server() {
        let configured = ConfiguredAddresses {
            relay: public("198.51.100.1", ""),
            relay_is_elsewhere: true,
            ..ConfiguredAddresses::default()
        };
        assert_eq!(
            advertise(&configured, Addresses::default(), LAN),
            Advertised::default()
        );
        let found = advertise(&configured, public("203.0.113.1", ""), LAN);
        assert_eq!(texts(&found), ["192.168.1.1", "203.0.113.1"]);
        assert!(found.relay.is_empty());
    }

    #[test]
    fn an_address_in_the_url_that_the_machine_still_has_is_kept() {
        let host: IpAddr = "203.0.113.1".parse().unwrap();
        let configured = ConfiguredAddresses {
            host: Some(host),
            ..ConfiguredAddresses::default()
        };
        let found = public("203.0.113.7", "2001:db8::1");
        let stays = advertised_public(&configured, found, &[host]);
        assert_eq!(stays, public("203.0.113.1", "2001:db8::1"));
        assert_eq!(advertised_public(&configured, found, &[]), found);
        // A private one is reachable from the LAN only.
        let home = ConfiguredAddresses {
            host: Some(LAN.unwrap().into()),
            ..ConfiguredAddresses::default()
        };
        assert_eq!(
            advertised_public(&home, found, &[LAN.unwrap().into()]),
            found
        );
        let front = Some(Ipv4Addr::new(192, 168, 178, 20));
        for found in [None, front] {
            let all = texts(&advertise(&home, public("203.0.113.7", ""), found));
            assert_eq!(all, ["192.168.1.1", "203.0.113.7"]);
        }
    }
}
