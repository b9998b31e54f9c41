//! DERP map sources: the region of this server, the policy, files and URLs.
//!
//! The last valid response of each URL is kept on disk, so that hearth starts without internet access.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use crate::config::{DerpSettings, WebUrl};
use crate::files::{self, Saver};
use crate::outbound::client::{Outbound, OutboundError};
use crate::shutdown::Shutdown;
use hearth_core::derp_map_file::{InvalidMap, Part, join};
use hearth_core::netmap::SharedMapData;
use hearth_core::policy::Policy;
use hearth_core::state::snapshot::Snapshot;
use hearth_core::tailcfg::derpmap::{DerpMap, DerpRegion};

/// Directory of the kept responses, below the data directory.
const FOLDER: &str = "derp-maps";

/// Timeout of a request to a URL.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Retry interval of a URL that failed, unless the regular interval is shorter.
const RETRY: Duration = Duration::from_secs(5 * 60);

/// Why a source has no map.
#[derive(Debug, thiserror::Error)]
enum SourceFault {
    #[error("{0}")]
    File(#[from] std::io::Error),
    #[error("{0}")]
    Url(#[from] OutboundError),
    #[error("{0}")]
    Invalid(#[from] InvalidMap),
    #[error("invalid UTF-8")]
    NotText,
}

/// All sources of regions, with the last valid map of each.
pub struct Regions {
    /// Region of this server, which changes with its public address.
    own: watch::Receiver<Option<DerpRegion>>,
    score: Option<f64>,
    urls: Vec<WebUrl>,
    files: Vec<PathBuf>,
    refresh: Duration,
    most_bytes: usize,
    folder: PathBuf,
    outbound: Arc<Outbound>,
    saver: Saver,
    /// Last valid part of each source: URLs first, then files.
    known: BTreeMap<usize, Part>,
    /// Last policy, and its part.
    policy: Option<Arc<Policy>>,
    of_policy: Option<Part>,
    /// The policy omits the regions of the URLs.
    omits_urls: bool,
}

impl Regions {
    /// The sources in the configuration. `own` is the region of this server.
    pub fn new(
        derp: &DerpSettings,
        own: watch::Receiver<Option<DerpRegion>>,
        most_bytes: usize,
        data_dir: &Path,
        outbound: Arc<Outbound>,
        saver: Saver,
    ) -> Self {
        Self {
            own,
            score: derp.region_score.map(|score| score.factor()),
            urls: derp.map_urls.clone(),
            files: derp.map_files.clone(),
            refresh: derp.map_refresh,
            most_bytes,
            folder: data_dir.join(FOLDER),
            outbound,
            saver,
            known: BTreeMap::new(),
            policy: None,
            of_policy: None,
            omits_urls: false,
        }
    }

    /// Map from the policy, files and kept responses, without network requests.
    pub fn at_start(&mut self, snapshot: &Snapshot) -> DerpMap {
        for at in 0..self.urls.len() {
            let kept = files::read(&self.cache_path(at), self.most_bytes);
            // No kept response on the first start.
            if let Some(part) = kept.ok().and_then(|bytes| part_of(&bytes).ok()) {
                self.known.insert(at, part);
            }
        }
        self.read_files();
        self.read_policy(snapshot);
        self.joined()
    }

    /// Keeps the DERP map of all clients up to date: fetches the URLs at once, then at each interval and on
    /// each message of `again`. Changes of the policy and of the own region apply at once, also during a
    /// request.
    pub async fn keep(
        mut self,
        tailnet: watch::Sender<Arc<SharedMapData>>,
        mut states: watch::Receiver<Arc<Snapshot>>,
        again: Arc<Notify>,
        shutdown: Shutdown,
    ) {
        loop {
            let asking = ask_all(self.urls.clone(), self.outbound.clone(), self.most_bytes);
            let asked = tokio::select! {
                () = shutdown.wait() => return,
                stopped = self.follow(&tailnet, &mut states) => return stopped,
                answers = asking => answers,
            };
            let all_answered = self.store_responses(asked);
            self.read_files();
            self.read_policy(&states.borrow_and_update().clone());
            self.announce(&tailnet);
            let pause = match all_answered {
                true => self.refresh,
                false => self.refresh.min(RETRY),
            };
            let has_sources = !self.urls.is_empty() || !self.files.is_empty();
            let pause = async move {
                match has_sources {
                    true => tokio::time::sleep(pause).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.wait() => return,
                stopped = self.follow(&tailnet, &mut states) => return stopped,
                () = again.notified() => {}
                () = pause => {}
            }
        }
    }

    /// Publishes each change of the policy and of the own region, until the server stops. Cancel safe.
    async fn follow(
        &mut self,
        tailnet: &watch::Sender<Arc<SharedMapData>>,
        states: &mut watch::Receiver<Arc<Snapshot>>,
    ) {
        loop {
            tokio::select! {
                changed = states.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if self.read_policy(&states.borrow_and_update().clone()) {
                        self.announce(tailnet);
                    }
                }
                changed = self.own.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.announce(tailnet);
                }
            }
        }
    }

    fn announce(&self, tailnet: &watch::Sender<Arc<SharedMapData>>) {
        let map = self.joined();
        tailnet.send_if_modified(|now| {
            let new = now.with_derp_map(&map);
            let is_other = new.derp_map != now.derp_map;
            if is_other {
                tracing::info!(regions = map.regions.len(), "DERP map changed");
                *now = Arc::new(new);
            }
            is_other
        });
    }

    /// Reads the regions of the policy if it has changed; true when it has.
    fn read_policy(&mut self, snapshot: &Snapshot) -> bool {
        let policy = snapshot.compiled().policy();
        let is_same = match (policy, &self.policy) {
            (Some(now), Some(before)) => Arc::ptr_eq(now, before),
            (None, None) => true,
            _ => false,
        };
        if is_same {
            return false;
        }
        self.policy = policy.cloned();
        self.of_policy = None;
        self.omits_urls = false;
        let Some(text) = policy.and_then(|policy| policy.derp_map_json()) else {
            return true;
        };
        match Part::read(&text) {
            Ok(part) => {
                self.omits_urls = omits_default_regions(&text);
                self.of_policy = Some(part);
            }
            Err(fault) => tracing::warn!(%fault, "invalid derpMap in the policy"),
        }
        true
    }

    /// Stores the responses of the URLs, in their order; true when all returned a map.
    fn store_responses(&mut self, answers: Vec<Result<(Bytes, Part), SourceFault>>) -> bool {
        let mut all_answered = true;
        for (at, answer) in answers.into_iter().enumerate() {
            let url = self.urls.get(at).map(ToString::to_string);
            match answer {
                // The same response is not written again, to reduce flash wear.
                Ok((_, part)) if self.known.get(&at) == Some(&part) => {}
                Ok((bytes, part)) => {
                    self.saver.save(self.cache_path(at), bytes.to_vec());
                    self.known.insert(at, part);
                }
                Err(fault) => {
                    tracing::warn!(url, %fault, "no DERP map from this URL; keeping its last regions");
                    all_answered = false;
                }
            }
        }
        all_answered
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
                    tracing::warn!(%file, %fault, "no DERP map from this file; keeping its last regions");
                }
            }
        }
    }

    fn joined(&self) -> DerpMap {
        let urls = self.urls.len();
        let counts = |(at, _): &(&usize, &Part)| !(self.omits_urls && **at < urls);
        let known = self.known.iter().filter(counts).map(|(_, part)| part);
        let own = self.own.borrow().clone();
        let own = own.map(|region| Part::one(region, self.score));
        let (map, left_out) = join(known.chain(&self.of_policy).chain(&own));
        if !left_out.is_empty() {
            tracing::warn!(?left_out, "regions skipped: duplicate node names");
        }
        map
    }

    /// Path of the kept response of a URL.
    fn cache_path(&self, at: usize) -> PathBuf {
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

/// Fetches all URLs, one after the other.
async fn ask_all(
    urls: Vec<WebUrl>,
    outbound: Arc<Outbound>,
    most_bytes: usize,
) -> Vec<Result<(Bytes, Part), SourceFault>> {
    let mut answers = Vec::with_capacity(urls.len());
    for url in urls {
        let answer = outbound.get(&url, most_bytes, TIMEOUT).await;
        let answer = answer.map_err(SourceFault::from);
        answers.push(answer.and_then(|bytes| Ok((bytes.clone(), part_of(&bytes)?))));
    }
    answers
}

/// Whether a map replaces that of tailscale.com, which hearth gets from URLs.
/// Source: `DERPMap.OmitDefaultRegions` in tailscale `tailcfg/derpmap.go`.
fn omits_default_regions(text: &str) -> bool {
    #[derive(Default, serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Map {
        #[serde(default, alias = "OmitDefaultRegions")]
        omit_default_regions: bool,
    }
    serde_json::from_str::<Map>(text).is_ok_and(|map| map.omit_default_regions)
}

fn part_of(bytes: &[u8]) -> Result<Part, SourceFault> {
    let text = std::str::from_utf8(bytes).map_err(|_| SourceFault::NotText)?;
    Ok(Part::read(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides, Surroundings};
    use hearth_core::state::testing::World;

    #[test]
    fn files_and_kept_responses_make_a_map_without_the_internet() {
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
        let own = watch::channel(Some(own)).1;
        let mut regions = Regions::new(&derp, own, 1024, dir.path(), outbound, Saver::default());
        let kept = regions.cache_path(0);
        files::replace(
            &kept,
            br#"{"Regions":{"1":{"Nodes":[{"Name":"1a","HostName":"h"}]}}}"#,
        )
        .unwrap();
        let map = regions.at_start(&World::new().snapshot());
        assert_eq!(map.regions.keys().collect::<Vec<_>>(), [&1, &900, &901]);
        let scores = map.home_params.unwrap().region_score;
        assert_eq!(scores, BTreeMap::from([(900, 0.5)]));
        // A file that becomes invalid later removes nothing.
        files::replace(&yaml, b"regions: {").unwrap();
        regions.read_files();
        assert_eq!(regions.joined().regions.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_regions_of_a_policy_come_and_go_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let derp = Config::load(Overrides::default(), &Surroundings::default()).derp;
        let own = DerpRegion {
            region_id: 900,
            ..DerpRegion::default()
        };
        let outbound = Arc::new(Outbound::default());
        let (change, of_us) = watch::channel(Some(own.clone()));
        let mut regions = Regions::new(&derp, of_us, 1024, dir.path(), outbound, Saver::default());
        let (mut world, _) = World::with_user();
        let map = regions.at_start(&world.snapshot());
        let (sender, mut tailnets) =
            watch::channel(Arc::new(SharedMapData::new("t.net".into(), &map)));
        let (states, watched) = watch::channel(Arc::new(world.snapshot()));
        let shutdown = Shutdown::new();
        let kept = regions.keep(sender, watched, Arc::default(), shutdown.clone());
        let seen = async {
            let policy = r#"{"derpMap": {"OmitDefaultRegions": true, "Regions": {"901": {"RegionID": 901,
                "RegionCode": "x", "Nodes": [{"Name": "x", "RegionID": 901, "HostName": "h"}]}}}}"#;
            for (text, regions) in [(policy, "901"), ("{}", "900")] {
                world.set_policy(text);
                states.send_replace(Arc::new(world.snapshot()));
                let has = text == policy;
                let is_announced =
                    |now: &Arc<SharedMapData>| now.derp_map.contains("\"901\"") == has;
                let now = tailnets.wait_for(is_announced).await.unwrap();
                assert!(now.derp_map.contains(regions) && now.derp_map.contains("900"));
            }
            // The own region is published again when it has changed.
            change.send_replace(Some(DerpRegion {
                region_name: "moved".into(),
                ..own
            }));
            let is_announced = |now: &Arc<SharedMapData>| now.derp_map.contains("moved");
            tailnets.wait_for(is_announced).await.unwrap();
            shutdown.trigger();
        };
        tokio::join!(kept, seen);
    }

    #[tokio::test]
    async fn a_slow_url_delays_no_other_change() {
        let dir = tempfile::tempdir().unwrap();
        // It accepts connections and never responds.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/map", silent.local_addr().unwrap());
        let mut derp = Config::load(Overrides::default(), &Surroundings::default()).derp;
        derp.map_urls = vec![url.parse().unwrap()];
        let (change, own) = watch::channel(None);
        let mut regions = Regions::new(
            &derp,
            own,
            1024,
            dir.path(),
            Arc::default(),
            Saver::default(),
        );
        let (world, _) = World::with_user();
        let map = regions.at_start(&world.snapshot());
        let (sender, mut tailnets) =
            watch::channel(Arc::new(SharedMapData::new("t.net".into(), &map)));
        let (_states, watched) = watch::channel(Arc::new(world.snapshot()));
        let shutdown = Shutdown::new();
        let kept = regions.keep(sender, watched, Arc::default(), shutdown.clone());
        let seen = async {
            let region = DerpRegion {
                region_id: 900,
                ..DerpRegion::default()
            };
            change.send_replace(Some(region));
            let is_announced = |now: &Arc<SharedMapData>| now.derp_map.contains("900");
            let announced = tokio::time::timeout(TIMEOUT / 2, tailnets.wait_for(is_announced));
            assert!(announced.await.is_ok());
            shutdown.trigger();
        };
        tokio::join!(kept, seen);
    }

    #[test]
    fn a_policy_can_omit_the_regions_of_urls() {
        let dir = tempfile::tempdir().unwrap();
        let mut derp = Config::load(Overrides::default(), &Surroundings::default()).derp;
        derp.map_urls = vec!["http://127.0.0.1:1/map".parse().unwrap()];
        let outbound = Arc::new(Outbound::default());
        let own = watch::channel(None).1;
        let mut regions = Regions::new(&derp, own, 1024, dir.path(), outbound, Saver::default());
        let kept = br#"{"Regions":{"1":{"Nodes":[{"Name":"1a","HostName":"h"}]}}}"#;
        files::replace(&regions.cache_path(0), kept).unwrap();
        let (mut world, _) = World::with_user();
        let numbers = |map: DerpMap| map.regions.into_keys().collect::<Vec<_>>();
        assert_eq!(numbers(regions.at_start(&world.snapshot())), [1]);
        world.set_policy(r#"{"derpMap": {"omitDefaultRegions": true, "regions": {}}}"#);
        assert!(regions.read_policy(&world.snapshot()));
        assert!(numbers(regions.joined()).is_empty());
        assert!(!regions.read_policy(&world.snapshot()));
    }
}
