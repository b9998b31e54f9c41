//! UPnP Internet Gateway Device: as much of SSDP, SOAP and XML as forwards a port.
//!
//! Source: UPnP Device Architecture 1.0, WANIPConnection:1 and WANPPPConnection:1 of the UPnP Forum. XML is
//! looked through for the few elements that matter; what is not found that way is not there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::wan::mapping::{Port, Transport};
use crate::wan::portmap::{Refusal, seconds};

/// Where routers are searched for: the group and port of SSDP.
pub const GROUP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 255, 255, 250)), 1900);

/// Longest answer to a search that is looked at, in bytes.
pub const FOUND_MAX: usize = 2048;

/// Longest description of a device, in bytes.
pub const DESCRIPTION_MAX: usize = 64 * 1024;

/// Longest path that is asked for, in bytes.
const PATH_MAX: usize = 512;

/// Who may forward ports, the better first.
const SERVICES: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

/// What is searched for: both versions of the device.
const DEVICES: [&str; 2] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
];

/// A resource of the router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where it is.
    pub address: SocketAddr,
    /// Its path.
    pub path: String,
}

/// The service of a router that forwards ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Where it takes requests.
    pub control: Place,
    /// What it is called.
    pub kind: &'static str,
}

/// The searches, one for each version of the device.
pub fn searches() -> [String; 2] {
    DEVICES.map(|device| {
        format!(
            "M-SEARCH * HTTP/1.1\r\nHOST: {GROUP}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: {device}\r\n\r\n"
        )
    })
}

/// Where the description is of a device that answered a search. It has to be with the device itself: an answer
/// must not send hearth elsewhere.
pub fn found(packet: &[u8], from: IpAddr) -> Option<Place> {
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
    place(location).filter(|place| place.address.ip() == from)
}

/// The service that forwards ports, in the description of a device that is at `base`.
pub fn service(description: &str, base: &Place) -> Option<Service> {
    let url_base = element(description, "URLBase").and_then(place);
    let base = url_base
        .filter(|place| place.address.ip() == base.address.ip())
        .map_or(base.address, |place| place.address);
    SERVICES.into_iter().find_map(|kind| {
        let mut rest = description;
        while let Some((_, after)) = rest.split_once("<service>") {
            let (one, after) = after.split_once("</service>")?;
            rest = after;
            if element(one, "serviceType") != Some(kind) {
                continue;
            }
            let control = element(one, "controlURL")?;
            let control = match place(control) {
                Some(place) if place.address.ip() == base.ip() => place,
                Some(_) => continue,
                None => Place {
                    address: base,
                    path: path(control)?,
                },
            };
            return Some(Service { control, kind });
        }
        None
    })
}

/// The name of an action and the body of the request for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// What stands in the header `SOAPAction`.
    pub header: String,
    /// The body.
    pub body: String,
}

impl Service {
    /// Asks for the address outside.
    pub fn address(&self) -> Action {
        self.action("GetExternalIPAddress", "")
    }

    /// Asks for a port to be forwarded to `own`; a `lifetime` of zero is for ever.
    pub fn map(&self, port: Port, own: Ipv4Addr, lifetime: Duration) -> Action {
        let arguments = format!(
            "{}<NewInternalPort>{}</NewInternalPort><NewInternalClient>{own}</NewInternalClient>\
             <NewEnabled>1</NewEnabled><NewPortMappingDescription>hearth</NewPortMappingDescription>\
             <NewLeaseDuration>{}</NewLeaseDuration>",
            outside(port),
            port.number,
            seconds(lifetime)
        );
        self.action("AddPortMapping", &arguments)
    }

    /// Asks for a port to be forwarded no more.
    pub fn unmap(&self, port: Port) -> Action {
        self.action("DeletePortMapping", &outside(port))
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

/// The arguments that name a port outside.
fn outside(port: Port) -> String {
    let protocol = match port.transport {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
    };
    format!(
        "<NewRemoteHost></NewRemoteHost><NewExternalPort>{}</NewExternalPort><NewProtocol>{protocol}</NewProtocol>",
        port.number
    )
}

/// The address outside that an answer says.
pub fn address_answer(answer: &str) -> Option<Ipv4Addr> {
    element(answer, "NewExternalIPAddress")?.parse().ok()
}

/// What an answer with an error says.
pub fn refusal(answer: &str) -> Refusal {
    let code = element(answer, "errorCode").and_then(|code| code.parse().ok());
    match code {
        Some(606) => Refusal::Forbidden,
        Some(718) => Refusal::Taken,
        Some(code) => Refusal::Other(code),
        None => Refusal::Version,
    }
}

/// That a router forwards ports for ever or not at all. Source: WANIPConnection:1, error 725.
pub const ONLY_FOR_EVER: Refusal = Refusal::Other(725);

/// The text of the first element with this name, whatever stands before the name.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = xml;
    while let Some(at) = rest.find(name) {
        let (before, after) = rest.split_at_checked(at)?;
        let after = after.get(name.len()..)?;
        rest = after;
        let opens = before.rfind('<').and_then(|open| before.get(open..));
        // Nothing but a prefix may stand between the bracket and the name.
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
fn place(url: &str) -> Option<Place> {
    let rest = url.strip_prefix("http://")?;
    let end = rest.find('/').unwrap_or(rest.len());
    let (host, rest) = rest.split_at_checked(end)?;
    let (ip, port) = match host.split_once(':') {
        Some((ip, port)) => (ip, port.parse().ok()?),
        None => (host, 80),
    };
    let ip: Ipv4Addr = ip.parse().ok()?;
    Some(Place {
        address: SocketAddr::new(ip.into(), port),
        path: path(rest)?,
    })
}

/// A path that can stand in a request.
fn path(text: &str) -> Option<String> {
    let is_good = text.len() <= PATH_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    // Only a path: another scheme has its colon before the first slash.
    let is_path = !text
        .split('/')
        .next()
        .is_some_and(|first| first.contains(':'));
    (is_good && is_path).then(|| match text.starts_with('/') {
        true => text.replace("&amp;", "&"),
        false => format!("/{}", text.replace("&amp;", "&")),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 178, 1));

    fn base() -> Place {
        place("http://192.168.178.1:49000/igddesc.xml").unwrap()
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
        assert_eq!(refusal(fault), ONLY_FOR_EVER);
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
            let _ = place(&text);
        }
    }
}
