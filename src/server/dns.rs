//! DNS settings: the configuration, the records file and the addresses of this machine, with changes announced to
//! clients.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::lan::Network;
use crate::config::value::Ipv4Range;
use crate::engine::Handle;
use crate::files::{self, Stamp};
use crate::shutdown::Shutdown;
use crate::status::names;
use hearth_core::netmap::dns::taken_names;
use hearth_core::netmap::{DnsSources, SharedMapData};
use hearth_core::policy::{Diagnostic, Kind, Value, parse_hujson};
use hearth_core::state::dns::{DnsRecord, DnsSettings, RECORDS_MAX, ReservedNames};
use hearth_core::state::snapshot::Snapshot;

/// Time between two checks of the file and the addresses.
const INTERVAL: Duration = Duration::from_secs(2);

/// Longest records file, in bytes.
const FILE_MAX: usize = 512 * 1024;

/// Why nothing in a records file can be used.
#[derive(Debug, thiserror::Error)]
enum RecordsFault {
    #[error("{0}")]
    File(#[from] std::io::Error),
    #[error("invalid UTF-8")]
    NotText,
    #[error("{0}")]
    Json(Diagnostic),
    #[error("expected a list of records")]
    NoList,
}

/// The valid records of a file, and what is wrong with the others, each with its line.
#[derive(Debug, Default)]
struct FileRecords {
    records: Vec<DnsRecord>,
    faults: Vec<String>,
}

/// Most faults of a file that are logged.
const FAULTS_LOGGED: usize = 8;

/// The sources and their last contents.
pub(super) struct Dns {
    settings: watch::Receiver<Arc<DnsSettings>>,
    /// The records file and its stamp when it was read; `None` if it was missing.
    seen: Option<(PathBuf, Option<Stamp>)>,
    file_records: Arc<[DnsRecord]>,
}

impl Dns {
    /// The sources in these settings.
    pub(super) fn new(settings: watch::Receiver<Arc<DnsSettings>>) -> Self {
        Self {
            settings,
            seen: None,
            file_records: Arc::default(),
        }
    }

    /// The present contents of the sources. An invalid file keeps its last contents.
    pub(super) fn look(&mut self) -> DnsSources {
        let settings = self.settings.borrow_and_update().clone();
        match &settings.records_file {
            Some(path) => self.look_at(path),
            None => (self.seen, self.file_records) = (None, Arc::default()),
        }
        let mut sources = DnsSources {
            file_records: self.file_records.clone(),
            ..DnsSources::default()
        };
        if settings.needs_router() {
            let network = Network::of_this_machine();
            sources.home_address = network.home_address();
            sources.tailnet_addresses = tailnet_addresses(&network);
        }
        sources.settings = settings;
        sources
    }

    /// Announces changes of the sources to clients.
    pub(super) async fn keep(
        mut self,
        tailnet: watch::Sender<Arc<SharedMapData>>,
        shutdown: Shutdown,
    ) {
        loop {
            let changes = {
                let settings = self.settings.borrow();
                settings.records_file.is_some() || settings.needs_router()
            };
            let pause = async {
                match changes {
                    true => tokio::time::sleep(INTERVAL).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.wait() => return,
                changed = self.settings.changed() => if changed.is_err() { return },
                () = pause => {}
            }
            let sources = self.look();
            tailnet.send_if_modified(|now| {
                let is_other = *now.dns != sources;
                if is_other {
                    tracing::info!("DNS settings changed");
                    *now = Arc::new(now.with_dns(sources));
                }
                is_other
            });
        }
    }

    fn look_at(&mut self, path: &Path) {
        let stamp = Stamp::of(path);
        let is_same_file = self.seen.as_ref().is_some_and(|(seen, _)| seen == path);
        if is_same_file && self.seen.as_ref().is_some_and(|(_, seen)| *seen == stamp) {
            return;
        }
        if !is_same_file {
            self.file_records = Arc::default();
        }
        self.seen = Some((path.to_owned(), stamp));
        match read(path) {
            Ok(FileRecords { records, faults }) => {
                let file = path.display();
                for fault in faults.iter().take(FAULTS_LOGGED) {
                    tracing::warn!(%file, %fault, "invalid record (skipped)");
                }
                if let Some(more) = faults
                    .len()
                    .checked_sub(FAULTS_LOGGED)
                    .filter(|more| *more > 0)
                {
                    tracing::warn!(%file, more, "more invalid records (skipped)");
                }
                self.file_records = records.into();
            }
            Err(fault) => {
                let file = path.display();
                tracing::warn!(%file, %fault, "invalid records file; keeping its last records");
            }
        }
    }
}

/// Reserves the names that the configuration uses now, before any device can take one of them, and later those of
/// changed configurations.
pub(super) async fn reserve_names(
    engine: Handle,
    mut tailnet: watch::Receiver<Arc<SharedMapData>>,
) -> impl Future<Output = ()> {
    reserve_now(&engine, &mut tailnet).await;
    async move {
        while tailnet.changed().await.is_ok() {
            reserve_now(&engine, &mut tailnet).await;
        }
    }
}

async fn reserve_now(engine: &Handle, tailnet: &mut watch::Receiver<Arc<SharedMapData>>) {
    let names = {
        let shared = tailnet.borrow_and_update();
        let dns = &shared.dns;
        ReservedNames::of(&shared.base_domain, &dns.settings, &dns.file_records)
    };
    if let Err(fault) = engine.reserve_names(names).await {
        tracing::warn!(%fault, "cannot reserve the names that the configuration uses");
    }
}

/// Logs the names that mean no device, since no administrator chose them, and the records that have the name of a device:
/// at the start, and what is new when the settings, the policy or the records changed.
pub(super) async fn warn_of_names(
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    mut tailnet: watch::Receiver<Arc<SharedMapData>>,
    shutdown: Shutdown,
) {
    let mut logged = BTreeSet::new();
    loop {
        let (snapshot, shared) = {
            let shared = tailnet.borrow_and_update().clone();
            (snapshots.borrow_and_update().clone(), shared)
        };
        let lines: BTreeSet<String> = names_to_log(&snapshot, &shared).collect();
        for line in lines.difference(&logged) {
            tracing::warn!("{line}");
        }
        logged = lines;
        loop {
            tokio::select! {
                () = shutdown.wait() => return,
                changed = snapshots.changed() => if changed.is_err() { return },
                changed = tailnet.changed() => if changed.is_err() { return },
            }
            let (now, now_shared) = (snapshots.borrow_and_update(), tailnet.borrow_and_update());
            let policy = |snapshot: &Snapshot| snapshot.compiled().policy().map(Arc::as_ptr);
            if now_shared.dns_version != shared.dns_version
                || !Arc::ptr_eq(now.dns_records(), snapshot.dns_records())
                || policy(&now) != policy(&snapshot)
            {
                break;
            }
        }
    }
}

fn names_to_log(snapshot: &Snapshot, shared: &SharedMapData) -> impl Iterator<Item = String> {
    let dns = &shared.dns;
    let (settings, records) = (&dns.settings, &dns.file_records);
    let unconfirmed = names::unconfirmed(snapshot, &shared.base_domain, settings, records);
    unconfirmed.into_iter().chain(taken_names(snapshot, shared))
}

/// Reads a file in the format of Headscale. Source: `readExtraRecordsFromPath` in headscale
/// `hscontrol/dns/extrarecords.go`.
fn read(path: &Path) -> Result<FileRecords, RecordsFault> {
    let bytes = files::read(path, FILE_MAX)?;
    let text = str::from_utf8(&bytes).map_err(|_| RecordsFault::NotText)?;
    let Kind::List(list) = parse_hujson(text).map_err(RecordsFault::Json)?.kind else {
        return Err(RecordsFault::NoList);
    };
    let mut found = FileRecords::default();
    for item in &list {
        match record_of(item) {
            Ok(record) if found.records.len() < RECORDS_MAX => found.records.push(record),
            Ok(_) => {
                let line = item.at.line;
                let fault = format!("line {line}: more than {RECORDS_MAX} records");
                found.faults.push(fault);
                break;
            }
            Err(fault) => found.faults.push(format!("line {}: {fault}", item.at.line)),
        }
    }
    Ok(found)
}

/// A record of the file. Names of fields are in any case, as for Go, which reads the file in Headscale.
fn record_of(item: &Value) -> Result<DnsRecord, String> {
    let Kind::Object(members) = &item.kind else {
        return Err(format!("expected a record, found {}", item.is()));
    };
    let text = |name: &str| {
        let member = members
            .iter()
            .find(|member| member.name.eq_ignore_ascii_case(name));
        match member.map(|member| &member.value.kind) {
            Some(Kind::Text(text)) => Ok(text.as_str()),
            None | Some(Kind::Null) => Ok(""),
            Some(_) => Err(format!("field {name}: expected a string")),
        }
    };
    let (name, kind, value) = (text("name")?, text("type")?, text("value")?);
    DnsRecord::parse(name, kind, value).map_err(|fault| fault.to_string())
}

fn tailnet_addresses(network: &Network) -> Arc<[Ipv4Addr]> {
    let addresses = network.addresses.iter().map(|local| local.address);
    let mut addresses: Vec<Ipv4Addr> = addresses
        .filter(|address| Ipv4Range::ALL.contains(*address))
        .collect();
    // The order of the system may change.
    addresses.sort_unstable();
    addresses.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watching(path: &Path) -> (watch::Sender<Arc<DnsSettings>>, Dns) {
        let settings = DnsSettings {
            records_file: Some(path.into()),
            ..DnsSettings::default()
        };
        let (sender, settings) = watch::channel(Arc::new(settings));
        (sender, Dns::new(settings))
    }

    #[test]
    fn a_changed_file_is_reloaded_and_an_invalid_one_keeps_its_last_records() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.json");
        let (settings, mut dns) = watching(&path);
        let mut names = |text: Option<&str>| {
            if let Some(text) = text {
                files::replace(&path, text.as_bytes()).unwrap();
            }
            let records = dns.look().file_records;
            let names = records.iter().map(|record| record.name.to_string());
            names.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(None), "");
        let one = r#"[{"name": "a.example", "type": "A", "value": "100.64.0.3"}]"#;
        assert_eq!(names(Some(one)), "a.example");
        let two = r#"[{"Name": "b", "Value": "fd00::1"}, {"name": "c", "value": "nas"}]"#;
        assert_eq!(names(Some(two)), "b c");
        for slip in ["", "{}", "[", r#"{"name": "d", "value": "::1"}"#] {
            assert_eq!(names(Some(slip)), "b c", "{slip}");
        }
        assert_eq!(names(Some("[]")), "");
        assert_eq!(names(Some(one)), "a.example");
        settings.send_replace(Arc::default());
        assert_eq!(names(None), "");
    }

    #[test]
    fn an_invalid_record_voids_only_itself_and_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.json");
        let found = |text: &str| {
            files::replace(&path, text.as_bytes()).unwrap();
            let FileRecords { records, faults } = read(&path).unwrap();
            let names: Vec<String> = records
                .iter()
                .map(|record| record.name.to_string())
                .collect();
            (names.join(" "), faults)
        };
        let (names, faults) = found(
            "[\n{\"name\": \"a\", \"value\": \"::1\"},\n{\"name\": 5},\n7,\n{\"name\": \"*.a\", \"value\": \"::1\"},\n\
             {\"NAME\": \"b\", \"value\": \"300.1.1.1\"},\n{\"Name\": \"c\", \"Value\": \"nas\", \"ttl\": 5}\n]\n",
        );
        assert_eq!(names, "a c");
        let begins = [
            "line 3: field name: expected a string",
            "line 4: expected a record, found a number",
            "line 5: invalid record name \"*.a\": wildcards",
            "line 6: invalid IP address \"300.1.1.1\"",
        ];
        assert_eq!(faults.len(), begins.len());
        for (fault, begin) in faults.iter().zip(begins) {
            assert!(fault.starts_with(begin), "{fault}");
        }
        let many = vec![r#"{"name": "a", "value": "::1"}"#; RECORDS_MAX + 5].join(",");
        let (_, faults) = found(&format!("[{many}]"));
        assert_eq!(faults, ["line 1: more than 1024 records"]);
    }

    #[tokio::test(start_paused = true)]
    async fn changes_of_file_and_configuration_are_announced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.json");
        let (settings, mut dns) = watching(&path);
        let first = SharedMapData::new("t.net".into(), &Default::default()).with_dns(dns.look());
        let (sender, mut tailnets) = watch::channel(Arc::new(first));
        let shutdown = Shutdown::new();
        let kept = dns.keep(sender, shutdown.clone());
        let seen = async {
            files::replace(&path, br#"[{"name": "a", "value": "::1"}]"#).unwrap();
            let tailnet = tailnets.wait_for(|now| !now.dns.file_records.is_empty());
            assert_eq!(tailnet.await.unwrap().dns_version, 2);
            let other = DnsSettings {
                magic_dns: false,
                ..DnsSettings::default()
            };
            settings.send_replace(Arc::new(other));
            let tailnet = tailnets.wait_for(|now| !now.dns.settings.magic_dns).await;
            assert!(tailnet.unwrap().dns.file_records.is_empty());
            shutdown.trigger();
        };
        tokio::join!(kept, seen);
    }
}
