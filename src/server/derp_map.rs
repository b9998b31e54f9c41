//! The DERP map: how clients are told to reach hearth's own relay.

use std::net::IpAddr;

use crate::config::{Config, Host, Scheme};
use crate::http::app::Addresses;
use crate::tailcfg::derpmap::{DerpNode, DerpRegion};

/// hearth's own region. `pin` is the hash of a certificate of our own, which clients then demand. None
/// when there is no relay, or no way to it: clients speak to relays over TLS only.
pub(super) fn region(
    config: &Config,
    addresses: &Addresses,
    pin: Option<&str>,
) -> Option<DerpRegion> {
    let derp = &config.derp;
    let url = &addresses.url;
    let listener = addresses.https.map(|address| address.port());
    // An https URL says where TLS is reached from outside: a forwarded port, or a proxy in front.
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
    let (mut ipv4, mut ipv6) = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => (address.to_string(), "none".to_owned()),
        Ok(IpAddr::V6(address)) => ("none".to_owned(), address.to_string()),
        Err(_) => (String::new(), String::new()),
    };
    if let Some(address) = derp.ipv4 {
        ipv4 = address.to_string();
    }
    if let Some(address) = derp.ipv6 {
        ipv6 = address.to_string();
    }
    let stun = addresses.stun.map(|address| address.port());
    let stun_port = stun.map_or(-1, |listener| i32::from(derp.stun_port.unwrap_or(listener)));
    let has_port_80 = addresses.http.is_some_and(|address| address.port() == 80);
    let node = DerpNode {
        name: format!("{}a", derp.region_id),
        region_id: derp.region_id,
        host_name: host,
        // A proxy in front has a certificate of its own.
        cert_name: match (pin, listener) {
            (Some(hash), Some(_)) if !derp.is_stun_only => format!("sha256-raw:{hash}"),
            _ => String::new(),
        },
        can_port_80: has_port_80 && ipv4.parse::<IpAddr>().is_ok(),
        ipv4,
        ipv6,
        stun_port,
        derp_port: i32::from(port),
        stun_only: derp.is_stun_only,
        insecure_for_tests: false,
    };
    Some(DerpRegion {
        region_id: derp.region_id,
        region_code: derp.region_code.clone(),
        region_name: derp.region_name.clone(),
        nodes: vec![node],
        ..DerpRegion::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, Surroundings};
    use crate::derp_map::{Part, join};

    fn map(url: &str, pin: Option<&str>) -> String {
        let overrides = Overrides {
            server_url: Some(url.parse().unwrap()),
            ..Overrides::default()
        };
        let config = Config::load(overrides, &Surroundings::default());
        let addresses = Addresses {
            server_url: url.to_owned(),
            url: config.server_url.clone(),
            http: Some(([0, 0, 0, 0], 80).into()),
            https: Some(([0, 0, 0, 0], 8443).into()),
            stun: Some(([0, 0, 0, 0], 3478).into()),
            socket: "/dev/null".into(),
        };
        let own = region(&config, &addresses, pin).map(|region| Part::one(region, None));
        serde_json::to_string(&join(&own).0).unwrap()
    }

    #[test]
    fn at_home_the_certificate_is_pinned() {
        assert_eq!(
            map("http://192.168.1.1:8080", Some("ab12")),
            r#"{"Regions":{"900":{"RegionID":900,"RegionCode":"hearth","RegionName":"hearth","Nodes":[{"Name":"900a","RegionID":900,"HostName":"192.168.1.1","CertName":"sha256-raw:ab12","IPv4":"192.168.1.1","IPv6":"none","STUNPort":3478,"DERPPort":8443,"CanPort80":true}]}}}"#
        );
    }

    #[test]
    fn with_a_domain_clients_ask_dns_and_use_the_port_of_the_url() {
        assert_eq!(
            map("https://hearth.example.com", None),
            r#"{"Regions":{"900":{"RegionID":900,"RegionCode":"hearth","RegionName":"hearth","Nodes":[{"Name":"900a","RegionID":900,"HostName":"hearth.example.com","STUNPort":3478,"DERPPort":443}]}}}"#
        );
    }
}
