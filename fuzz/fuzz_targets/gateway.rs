//! What another device of the local network answers: PCP, NAT-PMP, UPnP, and the kernel's netlink
//! messages. Nothing leads away from the device that answered.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use hearth_core::wan::mapping::{Port, Transport};
use hearth_core::wan::netlink::Table;
use hearth_core::wan::portmap::{nat_pmp, pcp, upnp};
use libfuzzer_sys::fuzz_target;

const DEVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const PORT: Port = Port {
    transport: Transport::Tcp,
    number: 8443,
};

fuzz_target!(|input: &[u8]| {
    let Some((mode, rest)) = input.split_first() else {
        return;
    };
    match mode % 4 {
        0 => {
            let _ = pcp::map_answer(rest, PORT, [7; 12]);
            let _ = nat_pmp::map_answer(rest, PORT);
            let _ = nat_pmp::address_answer(rest);
        }
        1 => {
            if let Some(resource) = upnp::found(rest, DEVICE) {
                assert_eq!(resource.address.ip(), DEVICE);
            }
        }
        2 => {
            let location = b"HTTP/1.1 200 OK\r\nLocation: http://192.0.2.1:5000/root.xml\r\n\r\n";
            let base = upnp::found(location, DEVICE).unwrap();
            let text = String::from_utf8_lossy(rest);
            if let Some(service) = upnp::service(&text, &base) {
                assert_eq!(service.control.address.ip(), DEVICE);
                assert!(!service.control.path.contains(['\r', '\n', ' ']));
            }
            let _ = upnp::address_answer(&text);
            let _ = upnp::refusal(&text);
        }
        _ => {
            let mut table = Table::default();
            let _ = table.read(rest, 1);
        }
    }
});
