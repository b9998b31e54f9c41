//! DNS records.

use crate::admin::problem::{ApiError, Code};
use crate::admin::{ApiCall, ApiResult, json};
use crate::api::{self, CreateDnsRecord, DnsRecordAnswer, DnsRecordsAnswer};
use hearth_core::netmap::dns::{addresses_of, records_of};
use hearth_core::state::command::Rejected;
use hearth_core::state::dns::{DnsRecord, label_in};

/// Source of a record.
const FROM_CONFIGURATION: &str = "configuration";
/// See [`FROM_CONFIGURATION`].
const FROM_POLICY: &str = "policy";
/// See [`FROM_CONFIGURATION`].
const FROM_FILE: &str = "file";
/// See [`FROM_CONFIGURATION`].
const FROM_API: &str = "api";

impl ApiCall<'_> {
    pub(crate) fn list_dns_records(&self) -> ApiResult {
        let snapshot = self.admin.engine.snapshot();
        let tailnet = self.admin.about.tailnet.borrow().clone();
        let of = |source: &'static str| move |record| (source, record);
        let of_policy: Vec<DnsRecord> = records_of(snapshot.compiled().policy()).collect();
        let dns = &tailnet.dns;
        let records = (dns.settings.records.iter().map(of(FROM_CONFIGURATION)))
            .chain(of_policy.iter().map(of(FROM_POLICY)))
            .chain(dns.file_records.iter().map(of(FROM_FILE)))
            .chain(snapshot.dns_records().iter().map(of(FROM_API)));
        let records = records.map(|(source, record)| self.shown(source, record));
        json(&DnsRecordsAnswer {
            records: records.collect(),
        })
    }

    pub(crate) async fn add_dns_record(&self) -> ApiResult {
        let request: CreateDnsRecord = self.read()?;
        let record = DnsRecord::parse(&request.name, &request.r#type, &request.value);
        let record = record.map_err(|fault| ApiError::invalid(&fault.to_string()))?;
        self.check_name_of(&record)?;
        let engine = &self.admin.engine;
        engine.add_dns_record(self.by(), record.clone()).await?;
        json(&DnsRecordAnswer {
            record: self.shown(FROM_API, &record),
        })
    }

    /// Deletes all records of the name in the query, filtered by type and value if given.
    pub(crate) async fn delete_dns_records(&self) -> ApiResult {
        let request: CreateDnsRecord = self.read()?;
        let (name, kind, value) = (&*request.name, &*request.r#type, &*request.value);
        if name.is_empty() {
            return Err(ApiError::invalid("missing name: add ?name="));
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        let value = value.strip_suffix('.').unwrap_or(value);
        let snapshot = self.admin.engine.snapshot();
        let base_domain = &self.admin.about.base_domain;
        let is_meant = |record: &&DnsRecord| {
            // Lists show the full name.
            let names = [record.name.to_string(), record.full_name(base_domain)];
            names.iter().any(|known| known.eq_ignore_ascii_case(name))
                && (kind.is_empty() || record.kind().eq_ignore_ascii_case(kind))
                && (value.is_empty() || record.value.to_string().eq_ignore_ascii_case(value))
        };
        let meant = snapshot.dns_records().iter().filter(is_meant);
        let meant: Vec<DnsRecord> = meant.cloned().collect();
        if meant.is_empty() {
            return Err(Rejected::NoSuchDnsRecord.into());
        }
        let mut records = Vec::with_capacity(meant.len());
        for record in meant {
            let shown = self.shown(FROM_API, &record);
            let engine = &self.admin.engine;
            engine.delete_dns_record(self.by(), record).await?;
            records.push(shown);
        }
        json(&DnsRecordsAnswer { records })
    }

    /// Refuses a record with the name of a node: clients would mix its addresses with those of the node.
    fn check_name_of(&self, record: &DnsRecord) -> Result<(), ApiError> {
        let snapshot = self.admin.engine.snapshot();
        let label = label_in(&record.name, &self.admin.about.base_domain);
        let mut nodes = snapshot.nodes().iter();
        match nodes.find(|node| Some(&*node.label) == label) {
            Some(node) => {
                let (name, id) = (&node.label, node.id);
                let message = format!(
                    "{name:?} is already the name of node {id}; choose another name, or rename the node: \
                     `hearth nodes rename {name} NEW_NAME`"
                );
                Err(ApiError::new(Code::AlreadyExists, message))
            }
            None => Ok(()),
        }
    }

    fn shown(&self, source: &str, record: &DnsRecord) -> api::DnsRecord {
        let snapshot = self.admin.engine.snapshot();
        let base_domain = &self.admin.about.base_domain;
        let addresses = addresses_of(record, base_domain, &snapshot);
        api::DnsRecord {
            name: record.full_name(base_domain),
            r#type: record.kind().into(),
            value: record.value.to_string(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            source: source.into(),
        }
    }
}
