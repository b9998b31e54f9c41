//! DNS records and the addresses that they resolve to.

use std::net::IpAddr;
use std::sync::Arc;

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
