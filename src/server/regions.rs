//! Where DERP maps come from: hearth's own region, files and URLs; and how clients hear of changes.
//!
//! The last good answer of each URL is kept on disk, so that hearth starts without the Internet.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::config::{DerpSettings, WebUrl};
use crate::derp_map::{InvalidMap, Part, join};
use crate::files;
use crate::http::outbound::{Outbound, OutboundError};
use crate::netmap::Tailnet;
use crate::shutdown::Shutdown;
use crate::tailcfg::derpmap::{DerpMap, DerpRegion};

/// Folder of the kept answers, below the data directory.
const FOLDER: &str = "derp-maps";

/// How long a URL may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A URL that did not answer is asked again after this, unless the usual time comes first.
const RETRY: Duration = Duration::from_secs(5 * 60);

/// Why a source gives no map.
#[derive(Debug, thiserror::Error)]
enum SourceFault {
    #[error("{0}")]
    File(#[from] std::io::Error),
    #[error("{0}")]
    Url(#[from] OutboundError),
    #[error("{0}")]
    Invalid(#[from] InvalidMap),
    #[error("not text")]
    NotText,
}

/// All sources, with what they said last.
pub(super) struct Regions {
    own: Option<Part>,
    urls: Vec<WebUrl>,
    files: Vec<PathBuf>,
    refresh: Duration,
    most_bytes: usize,
    folder: PathBuf,
    outbound: Arc<Outbound>,
    /// The last good part of each source, by its place: URLs first, then files.
    known: BTreeMap<usize, Part>,
}

impl Regions {
    /// The sources in the configuration. `own` is hearth's own region.
    pub(super) fn new(
        derp: &DerpSettings,
        own: Option<DerpRegion>,
        most_bytes: usize,
        data_dir: &Path,
        outbound: Arc<Outbound>,
    ) -> Self {
        let score = derp.region_score.map(|score| score.factor());
        Self {
            own: own.map(|region| Part::one(region, score)),
            urls: derp.map_urls.clone(),
            files: derp.map_files.clone(),
            refresh: derp.map_refresh,
            most_bytes,
            folder: data_dir.join(FOLDER),
            outbound,
            known: BTreeMap::new(),
        }
    }

    /// The map from files and kept answers, without asking anybody.
    pub(super) fn at_start(&mut self) -> DerpMap {
        for at in 0..self.urls.len() {
            let kept = files::read(&self.kept(at), self.most_bytes);
            // The first time there is none.
            if let Some(part) = kept.ok().and_then(|bytes| part_of(&bytes).ok()) {
                self.known.insert(at, part);
            }
        }
        self.read_files();
        self.joined()
    }

    /// Keeps the map of all clients as the sources have it: asks them at once, then now and then, and
    /// when told to by `again`.
    pub(super) async fn keep(
        mut self,
        tailnet: watch::Sender<Arc<Tailnet>>,
        again: Arc<Notify>,
        shutdown: Shutdown,
    ) {
        if self.urls.is_empty() && self.files.is_empty() {
            return;
        }
        loop {
            let all_answered = tokio::select! {
                () = shutdown.wait() => return,
                answered = self.ask_all() => answered,
            };
            self.read_files();
            let map = self.joined();
            tailnet.send_if_modified(|now| {
                let new = now.with_derp_map(&map);
                let is_other = new.derp_map != now.derp_map;
                if is_other {
                    tracing::info!(regions = map.regions.len(), "the relays have changed");
                    *now = Arc::new(new);
                }
                is_other
            });
            let pause = match all_answered {
                true => self.refresh,
                false => self.refresh.min(RETRY),
            };
            tokio::select! {
                () = shutdown.wait() => return,
                () = again.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Asks all URLs; says whether all gave a map.
    async fn ask_all(&mut self) -> bool {
        let mut all_answered = true;
        for at in 0..self.urls.len() {
            if let Err(fault) = self.ask(at).await {
                let url = self.urls.get(at).map(ToString::to_string);
                tracing::warn!(url, %fault, "no relays from this URL; what it said last counts");
                all_answered = false;
            }
        }
        all_answered
    }

    async fn ask(&mut self, at: usize) -> Result<(), SourceFault> {
        let Some(url) = self.urls.get(at) else {
            return Ok(());
        };
        let bytes = self.outbound.get(url, self.most_bytes, PATIENCE).await?;
        let part = part_of(&bytes)?;
        // Flash is spared: the same answer is not written again.
        if self.known.get(&at) != Some(&part) {
            if let Err(fault) = files::replace(&self.kept(at), &bytes) {
                tracing::warn!(%url, %fault, "the relays of this URL cannot be kept");
            }
            self.known.insert(at, part);
        }
        Ok(())
    }

    fn read_files(&mut self) {
        for (at, path) in self.files.iter().enumerate() {
            let read = || part_of(&files::read(path, self.most_bytes)?);
            match read() {
                Ok(part) => {
                    self.known.insert(self.urls.len().saturating_add(at), part);
                }
                Err(fault) => {
                    let file = path.display();
                    tracing::warn!(%file, %fault, "no relays from this file; what it said last counts");
                }
            }
        }
    }

    fn joined(&self) -> DerpMap {
        let (map, left_out) = join(self.known.values().chain(&self.own));
        if !left_out.is_empty() {
            tracing::warn!(
                ?left_out,
                "regions with names of relays that others have are left out"
            );
        }
        map
    }

    /// The file with the last good answer of a URL.
    fn kept(&self, at: usize) -> PathBuf {
        let url = self
            .urls
            .get(at)
            .map(ToString::to_string)
            .unwrap_or_default();
        let hash = ring::digest::digest(&ring::digest::SHA256, url.as_bytes());
        let name = data_encoding::HEXLOWER.encode(hash.as_ref().get(..8).unwrap_or_default());
        self.folder.join(format!("{name}.json"))
    }
}

fn part_of(bytes: &[u8]) -> Result<Part, SourceFault> {
    let text = std::str::from_utf8(bytes).map_err(|_| SourceFault::NotText)?;
    Ok(Part::read(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides, Surroundings};

    #[test]
    fn files_and_kept_answers_make_a_map_without_the_internet() {
        let dir = tempfile::tempdir().unwrap();
        let yaml = dir.path().join("derp.yaml");
        let region = "regions:\n  901:\n    nodes:\n    - name: 901a\n      hostname: h\n";
        files::replace(&yaml, region.as_bytes()).unwrap();
        let mut derp = Config::load(Overrides::default(), &Surroundings::default()).derp;
        derp.map_files = vec![yaml.clone(), dir.path().join("missing.yaml")];
        derp.map_urls = vec!["http://127.0.0.1:1/map".parse().unwrap()];
        let own = DerpRegion {
            region_id: 900,
            ..DerpRegion::default()
        };
        derp.region_score = Some(crate::config::value::Score(500));
        let outbound = Arc::new(Outbound::default());
        let mut regions = Regions::new(&derp, Some(own), 1024, dir.path(), outbound);
        let kept = regions.kept(0);
        files::replace(
            &kept,
            br#"{"Regions":{"1":{"Nodes":[{"Name":"1a","HostName":"h"}]}}}"#,
        )
        .unwrap();
        let map = regions.at_start();
        assert_eq!(map.regions.keys().collect::<Vec<_>>(), [&1, &900, &901]);
        let scores = map.home_params.unwrap().region_score;
        assert_eq!(scores, BTreeMap::from([(900, 0.5)]));
        // A file that breaks later takes nothing away.
        files::replace(&yaml, b"regions: {").unwrap();
        regions.read_files();
        assert_eq!(regions.joined().regions.len(), 3);
    }
}
