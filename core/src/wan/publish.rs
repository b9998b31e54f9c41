//! What clients are told about where the server is.

use std::net::{IpAddr, Ipv4Addr};

use crate::wan::address::{Addresses, Kind, kind_of};

/// Most addresses that clients are told.
pub const MAX_ADDRESSES: usize = 8;

/// Where the server is, as far as the configuration says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The address in `server_url`; `None` is a name.
    pub host: Option<IpAddr>,
    /// Addresses of the relay that the owner set.
    pub relay: Addresses,
    /// Whether the relay has a host of its own, so that its addresses say nothing about the server.
    pub relay_is_elsewhere: bool,
    /// More addresses of the server; an empty list forbids to tell any.
    pub more: Option<Vec<IpAddr>>,
}

/// What clients are told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// Where to find the server without DNS; empty leaves clients to DNS.
    pub server: Vec<IpAddr>,
    /// Where to find the relay, for families in which the owner set nothing.
    pub relay: Addresses,
}

/// The addresses outside as clients should be told them.
///
/// An address in `server_url` that this machine has is how people come to it: it stays, though the machine
/// may have others. One that it had is replaced.
pub fn outside_of(place: &Place, found: Addresses, all: &[IpAddr]) -> Addresses {
    let here = place.host.filter(|host| all.contains(host));
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

/// What clients are told when these are the addresses outside, and `home` is the one at home. An address at
/// home alone would not do: those elsewhere would wait for it in vain before they ask DNS.
pub fn told(place: &Place, outside: Addresses, home: Option<Ipv4Addr>) -> Told {
    let relay = match place.relay_is_elsewhere {
        true => Addresses::default(),
        false => outside,
    };
    let of_relay = match (place.relay_is_elsewhere, place.host) {
        (false, None) => place.relay,
        _ => Addresses::default(),
    };
    let public = of_relay.or(outside);
    let mut server: Vec<IpAddr> = Vec::new();
    if !public.is_empty() {
        // Behind another router the machine may have more than one private address; that in the URL is the
        // one that people use.
        let in_url = place.host.filter(|ip| kind_of(*ip) == Kind::Private);
        server.extend(in_url.or(home.map(IpAddr::V4)));
        server.extend(public.iter());
    }
    match place.more.as_deref() {
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
    Told { server, relay }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outside(v4: &str, v6: &str) -> Addresses {
        Addresses {
            v4: v4.parse().ok(),
            v6: v6.parse().ok(),
        }
    }

    fn texts(told: &Told) -> Vec<String> {
        told.server.iter().map(ToString::to_string).collect()
    }

    const HOME: Option<Ipv4Addr> = Some(Ipv4Addr::new(192, 168, 1, 1));

    #[test]
    fn the_address_at_home_is_told_only_together_with_one_outside() {
        let place = Place::default();
        let both = told(&place, outside("203.0.113.1", "2001:db8::1"), HOME);
        assert_eq!(texts(&both), ["192.168.1.1", "203.0.113.1", "2001:db8::1"]);
        assert_eq!(both.relay, outside("203.0.113.1", "2001:db8::1"));
        assert_eq!(told(&place, Addresses::default(), HOME), Told::default());
    }

    #[test]
    fn what_the_owner_set_comes_before_what_was_found_or_on_top_of_it() {
        let mut place = Place {
            relay: outside("198.51.100.1", ""),
            more: Some(vec![
                "203.0.113.9".parse().unwrap(),
                "192.168.1.1".parse().unwrap(),
            ]),
            ..Place::default()
        };
        let all = told(&place, outside("203.0.113.1", "2001:db8::1"), HOME);
        let expected = ["192.168.1.1", "198.51.100.1", "2001:db8::1", "203.0.113.9"];
        assert_eq!(texts(&all), expected);
        assert_eq!(texts(&told(&place, Addresses::default(), None)).len(), 3);
        place.more = Some(Vec::new());
        assert_eq!(
            texts(&told(&place, outside("203.0.113.1", ""), HOME)),
            [""; 0]
        );
    }

    #[test]
    fn a_relay_elsewhere_says_nothing_about_the_server() {
        let place = Place {
            relay: outside("198.51.100.1", ""),
            relay_is_elsewhere: true,
            ..Place::default()
        };
        assert_eq!(told(&place, Addresses::default(), HOME), Told::default());
        let found = told(&place, outside("203.0.113.1", ""), HOME);
        assert_eq!(texts(&found), ["192.168.1.1", "203.0.113.1"]);
        assert!(found.relay.is_empty());
    }

    #[test]
    fn an_address_in_the_url_that_is_still_there_stays() {
        let host: IpAddr = "203.0.113.1".parse().unwrap();
        let place = Place {
            host: Some(host),
            ..Place::default()
        };
        let found = outside("203.0.113.7", "2001:db8::1");
        let stays = outside_of(&place, found, &[host]);
        assert_eq!(stays, outside("203.0.113.1", "2001:db8::1"));
        assert_eq!(outside_of(&place, found, &[]), found);
        // A private one is the way in from home only.
        let home = Place {
            host: Some(HOME.unwrap().into()),
            ..Place::default()
        };
        assert_eq!(outside_of(&home, found, &[HOME.unwrap().into()]), found);
        let front = Some(Ipv4Addr::new(192, 168, 178, 20));
        for found in [None, front] {
            let all = texts(&told(&home, outside("203.0.113.7", ""), found));
            assert_eq!(all, ["192.168.1.1", "203.0.113.7"]);
        }
    }
}
