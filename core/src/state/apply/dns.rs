//! DNS records: add, remove.

use crate::state::apply::{Applied, node};
use crate::state::command::{Outcome, Rejected};
use crate::state::dns::{DnsRecord, DnsValue, RECORDS_MAX, label_in};
use crate::state::event::{Action, Target, Values};
use crate::state::tx::Tx;

pub(super) fn add(tx: &mut Tx<'_>, record: DnsRecord) -> Applied {
    if tx.dns_records.contains(&record) {
        return Err(Rejected::DnsRecordExists(record.name));
    }
    if tx.dns_records.len() >= RECORDS_MAX {
        return Err(Rejected::TooMany {
            what: "DNS records",
            limit: RECORDS_MAX,
        });
    }
    if let DnsValue::Alias(target) = &record.value {
        let names = tx.reserved.clone();
        if let Some(label) = label_in(target, &names.base_domain) {
            node::choose_label(tx, label);
        }
    }
    let values = Values::made(&value(&record), "");
    tx.event(Action::Create, Target::dns_record(&record), values);
    tx.put_dns_record(record);
    Ok(Outcome::Done)
}

pub(super) fn delete(tx: &mut Tx<'_>, record: DnsRecord) -> Applied {
    if !tx.dns_records.contains(&record) {
        return Err(Rejected::NoSuchDnsRecord);
    }
    let values = Values::change(&value(&record), "");
    tx.event(Action::Delete, Target::dns_record(&record), values);
    tx.remove_dns_record(record);
    Ok(Outcome::Done)
}

fn value(record: &DnsRecord) -> String {
    format!("{} {}", record.kind(), record.value)
}
