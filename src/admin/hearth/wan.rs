//! Public addresses.

use std::net::IpAddr;

use crate::admin::fields::NoFields;
use crate::admin::problem::{ApiError, Code};
use crate::admin::{ApiCall, ApiResult, json};
use crate::api::{MappedPort, PortMapping, Wan};
use hearth_core::wan::mapping::Mapping;
use hearth_core::wan::{NoticedBy, Report, kind_of};

impl ApiCall<'_> {
    pub(crate) fn show_wan(&self) -> ApiResult {
        json(&shown(&self.admin.about.wan.report(), false))
    }

    /// Checks the addresses now; router scripts call this when the uplink changes.
    pub(crate) async fn refresh_wan(&self) -> ApiResult {
        let NoFields {} = self.read()?;
        let refreshed = self.admin.about.wan.refresh().await;
        let refreshed = refreshed.ok_or_else(|| {
            ApiError::new(
                Code::Unavailable,
                "cannot check the addresses now; try again in a moment",
            )
        })?;
        json(&shown(&refreshed.report, refreshed.changed))
    }
}

/// The report as JSON.
pub(in crate::admin) fn shown(report: &Report, changed: bool) -> Wan {
    let v4 = |ip: Option<std::net::Ipv4Addr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
    let v6 = |ip: Option<std::net::Ipv6Addr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
    let kind = report.own.v4.map(|ip| kind_of(IpAddr::V4(ip)).word());
    let noticed_by = match report.noticed_by {
        NoticedBy::Netlink => "netlink",
        NoticedBy::Polling => "looking",
    };
    Wan {
        changed,
        interface: report.interface.clone(),
        ipv4: v4(report.own.v4),
        ipv6: v6(report.own.v6),
        kind: kind.unwrap_or_default().to_owned(),
        outside_ipv4: v4(report.public.v4),
        outside_ipv6: v6(report.public.v6),
        outside_from: report.public_source.word().to_owned(),
        publishing: report.is_published,
        published: report.advertised.iter().map(ToString::to_string).collect(),
        since: report.since,
        noticed_by: noticed_by.to_owned(),
        port_mapping: mapping(&report.mapping),
    }
}

fn mapping(mapping: &Mapping) -> PortMapping {
    let ports = mapping.ports.iter().map(|mapped| MappedPort {
        protocol: mapped.port.transport.word().to_owned(),
        internal: mapped.port.number,
        external: mapped.external.unwrap_or_default(),
        mapped: mapped.external.is_some(),
    });
    let protocol = mapping.protocol.map(|protocol| protocol.word());
    PortMapping {
        enabled: mapping.is_wanted,
        protocol: protocol.unwrap_or_default().to_owned(),
        gateway: mapping.gateway.map(|ip| ip.to_string()).unwrap_or_default(),
        fault: mapping.fault.clone(),
        ports: ports.collect(),
    }
}
