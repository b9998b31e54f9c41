//! Hostinfo: what a client reports about its machine.

use serde_json::value::RawValue;
use serde_json::{Map, Number, Value, json};

use crate::tailcfg::fields::{self, Fields, text_of};
use crate::tailcfg::json::{DecodeError, plain};

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

/// All fields that are read.
const FIELDS: &[&str] = &[
    "IPNVersion",
    "OS",
    "OSVersion",
    "Distro",
    "DistroVersion",
    "DeviceModel",
    "Hostname",
    "ShieldsUp",
    "ShareeNode",
    "sshHostKeys",
    "Userspace",
    "AppConnector",
    "PeerRelay",
    "Location",
    "NetInfo",
    "RoutableIPs",
    "RequestTags",
    "Services",
];

/// Source: `Location` in tailscale `tailcfg/tailcfg.go`.
const LOCATION: &[&str] = &[
    "Country",
    "CountryCode",
    "City",
    "CityCode",
    "Latitude",
    "Longitude",
    "Priority",
];

/// SSH host keys sent to peers, at most: a machine has one of each kind.
const HOST_KEYS_MAX: usize = 16;

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
    /// The value of a field, if it has this type.
    fn read(self, object: &Fields<'_>, name: &'static str) -> Option<Value> {
        let value = object.get(name)?;
        match self {
            Self::Text => text_of(value).map(Value::from),
            Self::Flag => object.flag(name).ok().map(Value::from),
            Self::Texts => host_keys(object, name),
            Self::Location => location(value),
        }
    }
}

/// The host keys; `None` if one of them is not a string.
fn host_keys(object: &Fields<'_>, name: &'static str) -> Option<Value> {
    let keys = object.list(name, HOST_KEYS_MAX, |key| {
        Some(text_of(key).map(Value::from))
    });
    let keys: Option<Vec<Value>> = keys.ok()?.into_iter().collect();
    keys.map(Value::Array)
}

/// The known fields of a location; `None` if one has another type.
fn location(value: &RawValue) -> Option<Value> {
    let object = Fields::of(value, LOCATION).ok()?;
    let mut kept = Map::new();
    for name in LOCATION {
        let Some(value) = object.get(name) else {
            continue;
        };
        let value = match *name {
            "Latitude" | "Longitude" => serde_json::from_str::<Number>(value.get())
                .ok()
                .map(Value::Number),
            "Priority" => serde_json::from_str::<i32>(value.get())
                .ok()
                .map(Value::from),
            _ => text_of(value).map(Value::from),
        };
        kept.insert((*name).to_owned(), value?);
    }
    Some(Value::Object(kept))
}

/// Services sent to peers, at most.
const SERVICES_MAX: usize = 16;

impl Hostinfo {
    /// Decodes the object.
    ///
    /// # Errors
    /// If it is not an object, or a used field has the wrong type.
    pub fn decode(value: &RawValue) -> Result<Self, DecodeError> {
        let object = Fields::of(value, FIELDS).map_err(|_| DecodeError::Field {
            field: "Hostinfo",
            expected: "an object",
        })?;
        let net_info = object.object("NetInfo", &["PreferredDERP"])?;
        let preferred_derp = net_info
            .map(|info| info.number("PreferredDERP"))
            .transpose()?;
        Ok(Self {
            raw: fields::without(value, "NetInfo")?.into(),
            shared: shared(&object)?.into(),
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

fn shared(object: &Fields<'_>) -> Result<String, DecodeError> {
    let mut kept = Map::new();
    for (name, kind) in SHARED {
        if let Some(value) = kind.read(object, name) {
            kept.insert(name.to_owned(), value);
        }
    }
    let services = object.list("Services", SERVICES_MAX, peer_api)?;
    if !services.is_empty() {
        kept.insert("Services".to_owned(), Value::Array(services));
    }
    Ok(plain(&kept))
}

/// The part of a service that peers need; `None` if they need none.
/// Source: `Service`, `PeerAPI4`, `PeerAPI6`, `PeerAPIDNS` in tailscale `tailcfg/tailcfg.go`.
fn peer_api(service: &RawValue) -> Option<Value> {
    let service = Fields::of(service, &["Proto", "Port"]).ok()?;
    let protocol = service.text("Proto").ok()?;
    let port = u16::try_from(service.number("Port").ok()?).ok()?;
    let is_wanted = matches!(&*protocol, "peerapi4" | "peerapi6" | "peerapi-dns-proxy");
    is_wanted.then(|| json!({"Proto": protocol, "Port": port}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Hostinfo {
        Hostinfo::decode(fields::parse(text.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn every_shared_field_is_read() {
        for (name, _) in SHARED {
            assert!(FIELDS.contains(&name), "{name}");
        }
    }

    /// The parts that are kept are bounded, however many values a client sends.
    #[test]
    fn a_hostinfo_full_of_values_is_read_without_them() {
        let many = |piece: &str| vec![piece; 20_000].join(",");
        for text in [
            format!(r#"{{"Location":{{{}}}}}"#, many(r#""City":"x""#)),
            format!(r#"{{"sshHostKeys":[{}]}}"#, many(r#""k""#)),
            format!(
                r#"{{"Services":[{}]}}"#,
                many(r#"{"Proto":"peerapi4","Port":1}"#)
            ),
            format!(r#"{{"Unknown":[{}]}}"#, many(r#"{"":{}}"#)),
        ] {
            let info = decode(&text);
            assert!(info.shared.len() < 1000, "{}", info.shared.len());
            assert!(info.routable_ips.is_empty());
        }
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
