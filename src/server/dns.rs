//! DNS settings: the configuration, the records file and the addresses of this machine, with changes announced to
//! clients.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::lan::Network;
use crate::config::value::Ipv4Range;
use crate::files::{self, Stamp};
use crate::shutdown::Shutdown;
use hearth_core::netmap::{DnsSources, SharedMapData};
use hearth_core::state::dns::{DnsRecord, DnsSettings, InvalidRecord, RECORDS_MAX};
use hearth_core::tailcfg::json;
use hearth_core::tailcfg::json::{DecodeError, Object};

/// Time between two checks of the file and the addresses.
const INTERVAL: Duration = Duration::from_secs(2);

/// Longest records file, in bytes.
const FILE_MAX: usize = 512 * 1024;

/// Why a records file is invalid.
#[derive(Debug, thiserror::Error)]
enum RecordsFault {
    #[error("{0}")]
    File(#[from] std::io::Error),
    #[error("{0}")]
    Json(#[from] DecodeError),
    #[error("expected a list of records")]
    NoList,
    #[error("record {number}: {fault}")]
    Field { number: usize, fault: DecodeError },
    #[error("record {number}: {fault}")]
    Record { number: usize, fault: InvalidRecord },
    #[error("more than {RECORDS_MAX} records")]
    TooMany,
}

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
            Ok(records) => self.file_records = records,
            Err(fault) => {
                let file = path.display();
                tracing::warn!(%file, %fault, "invalid records file; keeping its last records");
            }
        }
    }
}

/// Reads a file in the format of Headscale. Source: `readExtraRecordsFromPath` in headscale
/// `hscontrol/dns/extrarecords.go`.
fn read(path: &Path) -> Result<Arc<[DnsRecord]>, RecordsFault> {
    let bytes = files::read(path, FILE_MAX)?;
    let list = json::parse(&bytes)?;
    let list = list.as_array().ok_or(RecordsFault::NoList)?;
    if list.len() > RECORDS_MAX {
        return Err(RecordsFault::TooMany);
    }
    let mut records = Vec::with_capacity(list.len());
    for (item, number) in list.iter().zip(1..) {
        let field = |fault| RecordsFault::Field { number, fault };
        let object = Object::of(item).map_err(field)?;
        let text = |name| object.text(name).map_err(field);
        let (name, kind, value) = (text("Name")?, text("Type")?, text("Value")?);
        let record = DnsRecord::parse(name, kind, value);
        records.push(record.map_err(|fault| RecordsFault::Record { number, fault })?);
    }
    Ok(records.into())
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
        for slip in [
            "",
            "{}",
            "[",
            r#"[{"name": "d", "value": "::1", "type": "A"}]"#,
        ] {
            assert_eq!(names(Some(slip)), "b c", "{slip}");
        }
        assert_eq!(names(Some("[]")), "");
        assert_eq!(names(Some(one)), "a.example");
        settings.send_replace(Arc::default());
        assert_eq!(names(None), "");
    }

    #[test]
    fn faults_name_the_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.json");
        let fault = |text: &str| {
            files::replace(&path, text.as_bytes()).unwrap();
            read(&path).unwrap_err().to_string()
        };
        let good = r#"{"name": "a", "value": "::1"}"#;
        assert_eq!(
            fault(&format!(r#"[{good}, {{"name": 5}}]"#)),
            "record 2: field Name: expected a string"
        );
        assert!(
            fault(&format!(r#"[{good}, {{"name": "*.a"}}]"#))
                .starts_with("record 2: invalid record name \"*.a\": wildcards")
        );
        let many = vec![good; RECORDS_MAX + 1].join(",");
        assert_eq!(fault(&format!("[{many}]")), "more than 1024 records");
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
