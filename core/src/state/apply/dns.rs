//! DNS records: add, remove.

use std::sync::Arc;

use crate::state::apply::Applied;
use crate::state::command::{Rejected, Reply};
use crate::state::dns::{DnsRecord, RECORDS_MAX};
use crate::state::model::Model;
use crate::state::record::Record;

pub(super) fn add(model: &mut Model, records: &mut Vec<Record>, record: DnsRecord) -> Applied {
    if model.dns_records.contains(&record) {
        return Err(Rejected::DnsRecordExists(record.name));
    }
    if model.dns_records.len() >= RECORDS_MAX {
        return Err(Rejected::TooMany {
            what: "DNS records",
            limit: RECORDS_MAX,
        });
    }
    Arc::make_mut(&mut model.dns_records).insert(record.clone());
    records.push(Record::PutDnsRecord(record.clone()));
    model.changed = true;
    Ok(Reply::DnsRecord(record))
}

pub(super) fn delete(model: &mut Model, records: &mut Vec<Record>, record: DnsRecord) -> Applied {
    if !model.dns_records.contains(&record) {
        return Err(Rejected::NoSuchDnsRecord);
    }
    Arc::make_mut(&mut model.dns_records).remove(&record);
    records.push(Record::DeleteDnsRecord(record.clone()));
    model.changed = true;
    Ok(Reply::DnsRecord(record))
}
