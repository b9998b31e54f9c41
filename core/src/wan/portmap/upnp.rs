//! UPnP Internet Gateway Device: as much of SSDP, SOAP and XML as forwards a port.
//!
//! Source: UPnP Device Architecture 1.0, WANIPConnection:1 and WANPPPConnection:1 of the UPnP Forum. Only the few
//! XML elements that matter are searched for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::wan::mapping::{Port, Transport};
use crate::wan::portmap::{Refusal, seconds};

/// Multicast group and port of SSDP.
pub const GROUP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 255, 255, 250)), 1900);

/// Longest response to a search, in bytes.
pub const FOUND_MAX: usize = 2048;

/// Longest description of a device, in bytes.
pub const DESCRIPTION_MAX: usize = 64 * 1024;

/// Longest path of a request, in bytes.
const PATH_MAX: usize = 512;

/// Services with port mapping, in order of preference.
const SERVICES: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

/// Searched devices: both versions.
const DEVICES: [&str; 2] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
];

/// A resource on the router: address and path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Address.
    pub address: SocketAddr,
    /// Path.
    pub path: String,
}

/// The port mapping service of a router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Control URL.
    pub control: Resource,
    /// Service type.
    pub kind: &'static str,
}

/// The search messages, one for each version of the device.
pub fn searches() -> [String; 2] {
    DEVICES.map(|device| {
        format!(
            "M-SEARCH * HTTP/1.1\r\nHOST: {GROUP}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: {device}\r\n\r\n"
        )
    })
}

/// The location of the description in a response to a search. It must be on the responding device: a response
/// must not redirect hearth elsewhere.
pub fn found(packet: &[u8], from: IpAddr) -> Option<Resource> {
    let text = std::str::from_utf8(packet).ok()?;
    let mut lines = text.lines();
    lines
        .next()
        .filter(|first| first.starts_with("HTTP/1.") && first.contains(" 200"))?;
    let location = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim()
            .eq_ignore_ascii_case("location")
            .then(|| value.trim())
    })?;
    resource(location).filter(|resource| resource.address.ip() == from)
}

/// The port mapping service in the description of the device at `base`.
pub fn service(description: &str, base: &Resource) -> Option<Service> {
    let url_base = element(description, "URLBase").and_then(resource);
    let base = url_base
        .filter(|resource| resource.address.ip() == base.address.ip())
        .map_or(base.address, |resource| resource.address);
    SERVICES.into_iter().find_map(|kind| {
        let mut rest = description;
        while let Some((_, after)) = rest.split_once("<service>") {
            let (one, after) = after.split_once("</service>")?;
            rest = after;
            if element(one, "serviceType") != Some(kind) {
                continue;
            }
            let control = element(one, "controlURL")?;
            let control = match resource(control) {
                Some(resource) if resource.address.ip() == base.ip() => resource,
                Some(_) => continue,
                None => Resource {
                    address: base,
                    path: path(control)?,
                },
            };
            return Some(Service { control, kind });
        }
        None
    })
}

/// An action: header and body of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// Value of the header `SOAPAction`.
    pub header: String,
    /// The body.
    pub body: String,
}

impl Service {
    /// The request for the external address.
    pub fn address(&self) -> Action {
        self.action("GetExternalIPAddress", "")
    }

    /// The request for a mapping to `own`; a `lifetime` of zero is forever.
    pub fn map(&self, port: Port, own: Ipv4Addr, lifetime: Duration) -> Action {
        let arguments = format!(
            "{}<NewInternalPort>{}</NewInternalPort><NewInternalClient>{own}</NewInternalClient>\
             <NewEnabled>1</NewEnabled><NewPortMappingDescription>hearth</NewPortMappingDescription>\
             <NewLeaseDuration>{}</NewLeaseDuration>",
            external(port),
            port.number,
            seconds(lifetime)
        );
        self.action("AddPortMapping", &arguments)
    }

    /// The request to remove a mapping.
    pub fn unmap(&self, port: Port) -> Action {
        self.action("DeletePortMapping", &external(port))
    }

    fn action(&self, name: &str, arguments: &str) -> Action {
        let kind = self.kind;
        Action {
            header: format!("\"{kind}#{name}\""),
            body: format!(
                "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
                 s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body><u:{name} xmlns:u=\"{kind}\">\
                 {arguments}</u:{name}></s:Body></s:Envelope>\r\n"
            ),
        }
    }
}

/// The arguments of an external port.
fn external(port: Port) -> String {
    let protocol = match port.transport {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
    };
    format!(
        "<NewRemoteHost></NewRemoteHost><NewExternalPort>{}</NewExternalPort><NewProtocol>{protocol}</NewProtocol>",
        port.number
    )
}

/// The external address in a response.
pub fn address_answer(answer: &str) -> Option<Ipv4Addr> {
    element(answer, "NewExternalIPAddress")?.parse().ok()
}

/// The error in a response.
pub fn refusal(answer: &str) -> Refusal {
    let code = element(answer, "errorCode").and_then(|code| code.parse().ok());
    match code {
        Some(606) => Refusal::Forbidden,
        Some(718) => Refusal::Taken,
        Some(code) => Refusal::Other(code),
        None => Refusal::Version,
    }
}

/// The router supports permanent mappings only. Source: WANIPConnection:1, error 725.
pub const ONLY_PERMANENT: Refusal = Refusal::Other(725);

/// The text of the first element with this name and any prefix.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = xml;
    while let Some(at) = rest.find(name) {
        let (before, after) = rest.split_at_checked(at)?;
        let after = after.get(name.len()..)?;
        rest = after;
        let opens = before.rfind('<').and_then(|open| before.get(open..));
        // Only a prefix may be between the bracket and the name.
        let is_name = opens.is_some_and(|tag| {
            tag == "<" || tag.ends_with(':') && !tag.contains(['/', '>', ' ', '!', '?'])
        });
        let Some((attributes, text)) = after.split_once('>') else {
            continue;
        };
        let is_whole = attributes.is_empty() || attributes.starts_with(char::is_whitespace);
        if is_name && is_whole {
            return text.split_once('<').map(|(text, _)| text.trim());
        }
    }
    None
}

/// `http://<IPv4 address>[:port]/path`; names are not looked up.
fn resource(url: &str) -> Option<Resource> {
    let rest = url.strip_prefix("http://")?;
    let end = rest.find('/').unwrap_or(rest.len());
    let (host, rest) = rest.split_at_checked(end)?;
    let (ip, port) = match host.split_once(':') {
        Some((ip, port)) => (ip, port.parse().ok()?),
        None => (host, 80),
    };
    let ip: Ipv4Addr = ip.parse().ok()?;
    Some(Resource {
        address: SocketAddr::new(ip.into(), port),
        path: path(rest)?,
    })
}

/// A path that is valid in a request.
fn path(text: &str) -> Option<String> {
    let is_valid = text.len() <= PATH_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    // Only a path: another scheme has its colon before the first slash.
    let is_path = !text
        .split('/')
        .next()
        .is_some_and(|first| first.contains(':'));
    (is_valid && is_path).then(|| match text.starts_with('/') {
        true => text.replace("&amp;", "&"),
        false => format!("/{}", text.replace("&amp;", "&")),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 178, 1));

    fn base() -> Resource {
        resource("http://192.168.178.1:49000/igddesc.xml").unwrap()
    }

    const DESCRIPTION: &str = r#"<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0">
        <device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><serviceList>
        <service><serviceType>urn:schemas-any-com:service:Any:1</serviceType><controlURL>/any</controlURL></service>
        </serviceList><deviceList><device><serviceList>
        <service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>
        <serviceId>x</serviceId><controlURL>/igdupnp/control/WANIPConn1?a=1&amp;b=2</controlURL></service>
        </serviceList></device></deviceList></device></root>"#;

    #[test]
    fn a_router_is_found_only_where_it_answers_from() {
        let answer = b"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=1800\r\nLocation: http://192.168.178.1:49000/igddesc.xml\r\nST: x\r\n\r\n";
        assert_eq!(found(answer, ROUTER), Some(base()));
        assert_eq!(found(answer, [192, 168, 178, 66].into()), None);
        assert_eq!(
            found(
                b"NOTIFY * HTTP/1.1\r\nLocation: http://192.168.178.1/\r\n\r\n",
                ROUTER
            ),
            None
        );
        for location in [
            "http://fritz.box/x",
            "https://192.168.178.1/x",
            "http://192.168.178.1:x/",
            "",
        ] {
            let answer = format!("HTTP/1.1 200 OK\r\nLOCATION: {location}\r\n\r\n");
            assert_eq!(found(answer.as_bytes(), ROUTER), None, "{location}");
        }
    }

    #[test]
    fn the_service_is_found_in_the_description_and_is_with_the_router() {
        let found = service(DESCRIPTION, &base()).unwrap();
        assert_eq!(found.kind, SERVICES[1]);
        assert_eq!(found.control.address, base().address);
        assert_eq!(found.control.path, "/igdupnp/control/WANIPConn1?a=1&b=2");
        let elsewhere = DESCRIPTION.replace("/igdupnp", "http://192.0.2.1/igdupnp");
        assert_eq!(service(&elsewhere, &base()), None);
        let other_port = DESCRIPTION.replace(
            "<device>",
            "<URLBase>http://192.168.178.1:80/</URLBase><device>",
        );
        let found = service(&other_port, &base()).unwrap();
        assert_eq!(found.control.address.port(), 80);
        for end in 0..DESCRIPTION.len() {
            let _ = service(DESCRIPTION.get(..end).unwrap_or_default(), &base());
        }
    }

    #[test]
    fn actions_name_the_port_and_answers_are_read() {
        let service = service(DESCRIPTION, &base()).unwrap();
        let port = Port {
            transport: Transport::Tcp,
            number: 8443,
        };
        let action = service.map(port, [192, 168, 178, 20].into(), Duration::from_secs(7200));
        assert_eq!(
            action.header,
            "\"urn:schemas-upnp-org:service:WANIPConnection:1#AddPortMapping\""
        );
        for part in [
            "<NewExternalPort>8443<",
            "<NewProtocol>TCP<",
            "<NewInternalClient>192.168.178.20<",
            "<NewLeaseDuration>7200<",
        ] {
            assert!(action.body.contains(part), "{part}");
        }
        let answer = r#"<s:Envelope><s:Body><u:GetExternalIPAddressResponse xmlns:u="x"><NewExternalIPAddress>203.0.113.5</NewExternalIPAddress></u:GetExternalIPAddressResponse></s:Body></s:Envelope>"#;
        assert_eq!(address_answer(answer), Some([203, 0, 113, 5].into()));
        assert_eq!(
            address_answer("<NewExternalIPAddress></NewExternalIPAddress>"),
            None
        );
        let fault = r#"<s:Fault><detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>725</errorCode></UPnPError></detail></s:Fault>"#;
        assert_eq!(refusal(fault), ONLY_PERMANENT);
        assert_eq!(refusal("<html>"), Refusal::Version);
    }

    #[test]
    fn elements_are_found_by_their_whole_name() {
        assert_eq!(element("<ab>1</ab><b>2</b>", "b"), Some("2"));
        assert_eq!(element("<x:b k='v'> 3 </x:b>", "b"), Some("3"));
        assert_eq!(element("</b><bc>1</bc>", "b"), None);
        assert_eq!(element("<b", "b"), None);
    }

    proptest! {
        #[test]
        fn whatever_a_device_says_is_read_without_fear(text in ".{0,300}", name in "[a-z]{1,3}") {
            let _ = element(&text, &name);
            let _ = service(&text, &base());
            let _ = found(text.as_bytes(), ROUTER);
            let _ = resource(&text);
        }
    }
}
