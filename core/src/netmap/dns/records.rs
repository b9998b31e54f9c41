//! DNS records and the addresses that they resolve to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::id::NodeId;
use crate::netmap::shared_data::SharedMapData;
use crate::policy::{ExtraRecord, Policy};
use crate::state::dns::{DnsRecord, DnsValue, RECORDS_MAX, label_in};
use crate::state::model::Node;
use crate::state::snapshot::Snapshot;

/// The records of the policy (`extraDNSRecords`), at most [`RECORDS_MAX`].
pub fn records_of(policy: Option<&Arc<Policy>>) -> impl Iterator<Item = DnsRecord> {
    let records = policy.map_or(&[][..], |policy| policy.extra_records());
    let read = |record: &ExtraRecord| {
        let record = DnsRecord::parse(&record.name, &record.kind, &record.value).ok();
        record.filter(|record| !matches!(record.value, DnsValue::Alias(_)))
    };
    records.iter().filter_map(read).take(RECORDS_MAX)
}

/// One line for each record that has the name of a device. `hearth dns add` refuses such a record; in a file it is
/// served, and clients answer with the addresses of both (`dnsConfigForNetmap` in tailscale
/// `ipn/ipnlocal/node_backend.go` appends those of records to those of nodes).
pub fn taken_names(snapshot: &Snapshot, shared: &SharedMapData) -> Vec<String> {
    let of = |source: &'static str| move |record| (source, record);
    let of_policy: Vec<DnsRecord> = records_of(snapshot.compiled().policy()).collect();
    let dns = &shared.dns;
    let records = (dns.settings.records.iter().map(of("configuration")))
        .chain(of_policy.iter().map(of("policy")))
        .chain(dns.file_records.iter().map(of("records file")))
        .chain(snapshot.dns_records().iter().map(of("hearth dns")));
    let base_domain = &*shared.base_domain;
    let names: BTreeSet<(&str, &str)> = records
        .filter_map(|(source, record)| {
            let label = label_in(&record.name, base_domain)?;
            // An alias of a device for itself adds nothing.
            let is_itself = matches!(&record.value, DnsValue::Alias(target) if label_in(target, base_domain) == Some(label));
            (!is_itself).then_some((label, source))
        })
        .collect();
    if names.is_empty() {
        return Vec::new();
    }
    let nodes = snapshot.nodes().iter();
    let labels: BTreeMap<&str, NodeId> = nodes.map(|node| (&*node.label, node.id)).collect();
    let lines = names.into_iter().filter_map(|(label, source)| {
        let id = labels.get(label)?;
        Some(format!(
            "the DNS record {label} ({source}) has the name of a device (node {id}): clients mix the addresses of both. Rename the record, or the device: `hearth nodes rename -i {id} NEW_NAME`"
        ))
    });
    lines.collect()
}

/// The current addresses of a record, sorted; none if there is no node with the label of an alias, or the device chose
/// it itself.
pub fn addresses_of(record: &DnsRecord, base_domain: &str, snapshot: &Snapshot) -> Vec<IpAddr> {
    match &record.value {
        DnsValue::A(address) => vec![(*address).into()],
        DnsValue::Aaaa(address) => vec![(*address).into()],
        DnsValue::Alias(target) => {
            let label = label_in(target, base_domain);
            let is_target = |node: &&Arc<Node>| {
                has_name(node) && node.label_chosen && Some(&*node.label) == label
            };
            let node = snapshot.nodes().iter().find(is_target);
            node.map_or(Vec::new(), |node| vec![node.ipv4.into(), node.ipv6.into()])
        }
    }
}

/// Whether names resolve to a node: it is approved and not expired.
pub(super) fn has_name(node: &Node) -> bool {
    node.is_active() && !node.expired
}
