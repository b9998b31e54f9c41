//! `hearth nodes add-wireguard`.

use std::net::IpAddr;

use crate::api::{AddWireGuard, NumberText};
use crate::cli::args::{NewWireGuard, given};
use crate::cli::client::CliError;
use crate::cli::context::Ctx;
use crate::cli::output::{Output, cell};

/// Adds a device that runs plain WireGuard.
pub fn add(ctx: &Ctx, device: NewWireGuard) -> Result<Output, CliError> {
    let (ipv4, ipv6) = one_of_each("--ip", &device.ip)?;
    let (masquerade_v4, masquerade_v6) = one_of_each("--masquerade", &device.masquerade)?;
    let body = AddWireGuard {
        name: device.name,
        key: device.key,
        endpoints: given(device.endpoint),
        user: NumberText(device.user.unwrap_or_default()),
        tags: given(device.tags),
        ipv4,
        ipv6,
        routes: given(device.routes),
        exit_node: device.exit_node,
        exit_dns: given(device.dns),
        masquerade_v4,
        masquerade_v6,
    };
    let answer = ctx.client.post("/api/v1/node/wireguard", &body)?;
    let output = ctx.node(&answer, |node| {
        format!(
            "added {} as node {} with {}",
            cell(&node.given_name),
            node.id,
            node.ip_addresses.join(" and ")
        )
    })?;
    Ok(output.note(
        "Add every client that should reach it as a peer in the device's own WireGuard configuration: its \
         public key and address.",
    ))
}

/// The IPv4 and the IPv6 address of a list; empty where it has none.
fn one_of_each(flag: &str, list: &[IpAddr]) -> Result<(String, String), CliError> {
    let (v4, v6): (Vec<&IpAddr>, Vec<&IpAddr>) = list.iter().partition(|ip| ip.is_ipv4());
    let only = |family: &[&IpAddr]| match family {
        [] => Ok(String::new()),
        [one] => Ok(one.to_string()),
        _ => Err(CliError::Command(format!(
            "{flag} takes at most one address of each family"
        ))),
    };
    Ok((only(&v4)?, only(&v6)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart_by_family() {
        let list = ["fd7a::1".parse().unwrap(), "100.64.0.9".parse().unwrap()];
        let both = one_of_each("--ip", &list).unwrap();
        assert_eq!(both, ("100.64.0.9".into(), "fd7a::1".into()));
        let two = ["100.64.0.9".parse().unwrap(), "100.64.0.8".parse().unwrap()];
        assert!(one_of_each("--ip", &two).is_err());
    }
}
