//! Hostinfo: what a client reports about its machine.

use serde_json::{Map, Value, json};

use crate::tailcfg::json::{self, DecodeError, Object};

/// The parts of `tailcfg.Hostinfo` that hearth uses, and the whole as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hostinfo {
    /// The whole object without `NetInfo`, which changes often.
    pub raw: Box<str>,
    /// The fields that other nodes may see.
    pub shared: Box<str>,
    /// Host name; any text.
    pub hostname: Box<str>,
    /// Operating system.
    pub os: Box<str>,
    /// Version of the operating system.
    pub os_version: Box<str>,
    /// Version of the client.
    pub client_version: Box<str>,
    /// Advertised routes, as sent.
    pub routable_ips: Box<[Box<str>]>,
    /// Requested tags, as sent.
    pub request_tags: Box<[Box<str>]>,
    /// Home DERP region (`NetInfo.PreferredDERP`); `None` if the request has no `NetInfo`.
    pub preferred_derp: Option<u16>,
}

/// Fields that peers need or show. Everything else is not sent to peers: log IDs, push tokens, network
/// details. Source: headscale `hscontrol/types/node.go` and the uses of `Hostinfo` in
/// tailscale `ipn/ipnlocal`, `ssh/tailssh`, `wgengine/magicsock`.
const SHARED: [(&str, FieldType); 14] = [
    ("IPNVersion", FieldType::Text),
    ("OS", FieldType::Text),
    ("OSVersion", FieldType::Text),
    ("Distro", FieldType::Text),
    ("DistroVersion", FieldType::Text),
    ("DeviceModel", FieldType::Text),
    ("Hostname", FieldType::Text),
    ("ShieldsUp", FieldType::Flag),
    ("ShareeNode", FieldType::Flag),
    ("sshHostKeys", FieldType::Texts),
    ("Userspace", FieldType::Flag),
    ("AppConnector", FieldType::Flag),
    ("PeerRelay", FieldType::Flag),
    ("Location", FieldType::Location),
];

/// Type of a shared field. A value of another type would make the map unreadable for every peer, so it is
/// left out.
#[derive(Clone, Copy)]
enum FieldType {
    Text,
    Flag,
    Texts,
    Location,
}

impl FieldType {
    fn fits(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Flag => value.is_boolean(),
            Self::Texts => value
                .as_array()
                .is_some_and(|texts| texts.iter().all(Value::is_string)),
            Self::Location => value.as_object().is_some_and(is_location),
        }
    }
}

/// Source: `Location` in tailscale `tailcfg/tailcfg.go`.
fn is_location(location: &Map<String, Value>) -> bool {
    location.iter().all(|(name, value)| match name.as_str() {
        "Country" | "CountryCode" | "City" | "CityCode" => value.is_string(),
        "Latitude" | "Longitude" => value.is_number(),
        "Priority" => value
            .as_i64()
            .is_some_and(|number| i32::try_from(number).is_ok()),
        _ => false,
    })
}

/// Services sent to peers, at most.
const SERVICES_MAX: usize = 16;

impl Hostinfo {
    /// Decodes the object.
    ///
    /// # Errors
    /// If a used field has the wrong type.
    pub fn decode(object: Object<'_>) -> Result<Self, DecodeError> {
        let net_info = object.object("NetInfo")?;
        let preferred_derp = net_info
            .map(|info| info.number("PreferredDERP"))
            .transpose()?;
        Ok(Self {
            raw: without_net_info(object).into(),
            shared: shared(object)?.into(),
            hostname: object.text("Hostname")?.into(),
            os: object.text("OS")?.into(),
            os_version: object.text("OSVersion")?.into(),
            client_version: object.text("IPNVersion")?.into(),
            routable_ips: object.texts("RoutableIPs")?,
            request_tags: object.texts("RequestTags")?,
            preferred_derp: preferred_derp.map(|region| u16::try_from(region).unwrap_or(0)),
        })
    }
}

fn without_net_info(object: Object<'_>) -> String {
    let kept = object
        .fields()
        .iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("NetInfo"));
    let kept: Map<String, Value> = kept
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Value::Object(kept).to_string()
}

fn shared(object: Object<'_>) -> Result<String, DecodeError> {
    let mut kept = Map::new();
    for (name, kind) in SHARED {
        if let Some(value) = object.get(name).filter(|value| kind.fits(value)) {
            kept.insert(name.to_owned(), value.clone());
        }
    }
    let services: Vec<Value> = object
        .list("Services")?
        .iter()
        .filter_map(peer_api)
        .take(SERVICES_MAX)
        .collect();
    if !services.is_empty() {
        kept.insert("Services".to_owned(), Value::Array(services));
    }
    Ok(json::plain(&kept))
}

/// The part of a service that peers need; `None` if they need none.
/// Source: `Service`, `PeerAPI4`, `PeerAPI6`, `PeerAPIDNS` in tailscale `tailcfg/tailcfg.go`.
fn peer_api(service: &Value) -> Option<Value> {
    let service = Object::of(service).ok()?;
    let protocol = service.text("Proto").ok()?;
    let port = u16::try_from(service.number("Port").ok()?).ok()?;
    let is_wanted = matches!(protocol, "peerapi4" | "peerapi6" | "peerapi-dns-proxy");
    is_wanted.then(|| json!({"Proto": protocol, "Port": port}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tailcfg::json;

    fn decode(text: &str) -> Hostinfo {
        let value = json::parse(text.as_bytes()).unwrap();
        Hostinfo::decode(Object::of(&value).unwrap()).unwrap()
    }

    #[test]
    fn private_parts_stay_with_the_server() {
        let info = decode(
            r#"{"OS":"linux","Hostname":"nas","BackendLogID":"secret","PushDeviceToken":"t",
                "NetInfo":{"PreferredDERP":900,"DERPLatency":{"900-v4":0.1}},
                "Services":[{"Proto":"peerapi4","Port":1},{"Proto":"tcp","Port":22}]}"#,
        );
        assert_eq!(info.preferred_derp, Some(900));
        assert!(!info.shared.contains("secret") && !info.shared.contains("tcp"));
        assert!(info.shared.contains("peerapi4"));
        assert!(info.raw.contains("secret") && !info.raw.contains("DERPLatency"));
    }

    #[test]
    fn what_peers_could_not_read_is_left_out() {
        let info = decode(
            r#"{"OS":"li\"nux","Distro":5,"ShieldsUp":"yes","Userspace":true,"sshHostKeys":["k",1],
                "Location":{"City":7},"DeviceModel":null,
                "Services":[{"Proto":"peerapi4","Port":99999},{"Proto":"peerapi6","Port":2,"Description":{}},3]}"#,
        );
        let expected =
            r#"{"OS":"li'nux","Services":[{"Port":2,"Proto":"peerapi6"}],"Userspace":true}"#;
        assert_eq!(&*info.shared, expected);
        let info = decode(r#"{"Location":{"City":"Oslo","Latitude":59.9,"Priority":1}}"#);
        assert!(info.shared.contains("Oslo"));
    }

    #[test]
    fn the_rust_clients_spelling_is_read() {
        let info = decode(r#"{"IpnVersion":"1","Os":"linux","NetInfo":{"PreferredDerp":7}}"#);
        assert_eq!((&*info.os, &*info.client_version), ("linux", "1"));
        assert_eq!(info.preferred_derp, Some(7));
        assert!(info.shared.contains(r#""OS":"linux""#));
    }
}
