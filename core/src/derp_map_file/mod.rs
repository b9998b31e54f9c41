//! DERP maps from elsewhere: parsed from JSON as tailscale.com serves it, or from YAML as Headscale uses it,
//! and merged.
//!
//! Pure: texts in, a map out. Must not know: the origin of the texts.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod yaml;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::tailcfg::derpmap::{DerpMap, DerpNode, DerpRegion, HomeParams};

/// Maximum of relays in a region; the largest known one has a handful.
const MAX_NODES: usize = 64;

/// Why a DERP map is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMap {
    /// The text is not JSON.
    #[error("not JSON: {0}")]
    Json(String),
    /// The text is not YAML of the supported subset.
    #[error("line {line}: {what}")]
    Yaml {
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// The text has no regions.
    #[error("missing `regions` (or `Regions`)")]
    NoRegions,
    /// A region's number is not from 1 to 65535.
    #[error("invalid region number {0:?}: must be from 1 to 65535")]
    Number(String),
    /// A region is invalid.
    #[error("region {0}: {1}")]
    Region(u16, String),
}

/// A part of a map: regions to add, and regions to remove.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Part {
    regions: BTreeMap<u16, Option<DerpRegion>>,
    scores: BTreeMap<u16, f64>,
}

impl Part {
    /// Parses JSON if the text starts like it, else YAML.
    ///
    /// # Errors
    /// [`InvalidMap`].
    pub fn read(text: &str) -> Result<Self, InvalidMap> {
        let value = match text.trim_start().starts_with('{') {
            true => {
                serde_json::from_str(text).map_err(|error| InvalidMap::Json(error.to_string()))?
            }
            false => yaml::read(text)?,
        };
        // Headscale's form is Go's in lower case.
        let Value::Object(map) = lower_case(value) else {
            return Err(InvalidMap::NoRegions);
        };
        let Some(Value::Object(entries)) = map.get("regions") else {
            return Err(InvalidMap::NoRegions);
        };
        let mut part = Self::default();
        for (number, region) in entries {
            let number = number_of(number)?;
            let region = match region {
                Value::Null => None,
                region => Some(region_of(number, region)?),
            };
            part.regions.insert(number, region);
        }
        let scores = map
            .get("homeparams")
            .and_then(|home| home.get("regionscore"));
        for (number, score) in scores.and_then(Value::as_object).into_iter().flatten() {
            let score = score.as_f64().filter(|score| *score > 0.0);
            part.scores.extend(
                score
                    .map(|score| (number_of(number), score))
                    .and_then(|(number, score)| Some((number.ok()?, score))),
            );
        }
        Ok(part)
    }

    /// A part with one region.
    pub fn one(region: DerpRegion, score: Option<f64>) -> Self {
        let number = region.region_id;
        Self {
            scores: score.map(|score| (number, score)).into_iter().collect(),
            regions: BTreeMap::from([(number, Some(region))]),
        }
    }
}

/// Merges parts; a later one overrides an earlier one. Relay names must be unique over all regions: regions with
/// duplicate names are left out, and their numbers returned.
pub fn join<'a>(parts: impl IntoIterator<Item = &'a Part>) -> (DerpMap, Vec<u16>) {
    let (mut regions, mut scores) = (BTreeMap::new(), BTreeMap::new());
    for part in parts {
        for (number, region) in &part.regions {
            match region {
                Some(region) => regions.insert(*number, region.clone()),
                None => regions.remove(number),
            };
        }
        scores.extend(part.scores.clone());
    }
    let (mut names, mut left_out) = (BTreeSet::new(), Vec::new());
    // The highest first, so that self-hosted regions (900 and up) win.
    for (number, region) in regions.iter().rev() {
        let own: BTreeSet<&str> = region.nodes.iter().map(|node| node.name.as_str()).collect();
        if own.len() < region.nodes.len() || own.iter().any(|name| names.contains(*name)) {
            left_out.push(*number);
        } else {
            names.extend(own.into_iter().map(str::to_owned));
        }
    }
    regions.retain(|number, _| !left_out.contains(number));
    scores.retain(|number, _| regions.contains_key(number));
    let home_params = (!scores.is_empty()).then_some(HomeParams {
        region_score: scores,
    });
    (
        DerpMap {
            home_params,
            regions,
        },
        left_out,
    )
}

fn lower_case(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let lower =
                |(key, value): (String, Value)| (key.to_ascii_lowercase(), lower_case(value));
            Value::Object(map.into_iter().map(lower).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(lower_case).collect()),
        other => other,
    }
}

/// The client packs the number into a port (tailscale `wgengine/magicsock/derp.go`).
fn number_of(text: &str) -> Result<u16, InvalidMap> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| InvalidMap::Number(text.to_owned()))
}

fn region_of(number: u16, value: &Value) -> Result<DerpRegion, InvalidMap> {
    #[derive(Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Region {
        regionid: Option<u16>,
        #[serde(deserialize_with = "text")]
        regioncode: String,
        #[serde(deserialize_with = "text")]
        regionname: String,
        latitude: f64,
        longitude: f64,
        avoid: bool,
        nomeasurenohome: bool,
        nodes: Vec<Node>,
    }
    #[derive(Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Node {
        #[serde(deserialize_with = "text")]
        name: String,
        #[serde(deserialize_with = "text")]
        hostname: String,
        #[serde(deserialize_with = "text")]
        certname: String,
        #[serde(deserialize_with = "text")]
        ipv4: String,
        #[serde(deserialize_with = "text")]
        ipv6: String,
        stunport: i32,
        stunonly: bool,
        derpport: i32,
        canport80: bool,
        insecurefortests: bool,
    }
    let fault = |what: &str| InvalidMap::Region(number, what.to_owned());
    let raw = Region::deserialize(value).map_err(|error| fault(&error.to_string()))?;
    if raw.regionid.is_some_and(|id| id != number) {
        return Err(fault("RegionID does not match"));
    }
    if raw.nodes.len() > MAX_NODES {
        return Err(fault("too many nodes"));
    }
    let mut nodes = Vec::new();
    for node in raw.nodes {
        let ports = (-1..=65_535).contains(&node.stunport) && (0..=65_535).contains(&node.derpport);
        if node.name.is_empty() || node.hostname.is_empty() || !ports {
            return Err(fault("a node needs a name, a host name and valid ports"));
        }
        nodes.push(DerpNode {
            name: node.name,
            region_id: number,
            host_name: node.hostname,
            cert_name: node.certname,
            ipv4: node.ipv4,
            ipv6: node.ipv6,
            stun_port: node.stunport,
            stun_only: node.stunonly,
            derp_port: node.derpport,
            can_port_80: node.canport80,
            insecure_for_tests: node.insecurefortests,
        });
    }
    Ok(DerpRegion {
        region_id: number,
        region_code: raw.regioncode,
        region_name: raw.regionname,
        latitude: raw.latitude,
        longitude: raw.longitude,
        avoid: raw.avoid,
        no_measure_no_home: raw.nomeasurenohome,
        nodes,
    })
}

/// A string, also if written as a number or null.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::String(text) => text,
        Value::Null => String::new(),
        Value::Number(number) => number.to_string(),
        _ => return Err(serde::de::Error::custom("expected a string")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `derp-example.yaml` of headscale, by its words.
    const YAML: &str = "# Comment\nregions:\n  1: null # Disable DERP region with ID 1\n  900:\n    regionid: 900\n    regioncode: custom\n    regionname: My Region\n    nodes:\n      - name: 900a\n        regionid: 900\n        hostname: myderp.example.com\n        ipv4: 198.51.100.1\n        ipv6: 2001:db8::1\n        stunport: 0\n        stunonly: false\n        derpport: 0\n";

    fn text(map: &DerpMap) -> String {
        serde_json::to_string(map).unwrap()
    }

    const EXPECTED: &str = r#"{"Regions":{"900":{"RegionID":900,"RegionCode":"custom","RegionName":"My Region","Nodes":[{"Name":"900a","RegionID":900,"HostName":"myderp.example.com","IPv4":"198.51.100.1","IPv6":"2001:db8::1"}]}}}"#;

    #[test]
    fn headscales_form_is_parsed() {
        let part = Part::read(YAML).unwrap();
        assert_eq!(text(&join([&part]).0), EXPECTED);
        assert_eq!(part.regions[&1], None);
    }

    #[test]
    fn json_is_parsed_and_written_back_unchanged() {
        let json = r#"{"HomeParams":{"RegionScore":{"1":0.5}},"Regions":{"1":{"RegionID":1,"RegionCode":"nyc","RegionName":"New York","Latitude":40.7,"Longitude":-74.0,"NoMeasureNoHome":true,"Nodes":[{"Name":"1f","RegionID":1,"HostName":"derp1f.example","CertName":"sha256-raw:ab","IPv4":"199.38.181.104","STUNPort":-1,"STUNOnly":true,"DERPPort":8443,"CanPort80":true}]}}}"#;
        let part = Part::read(json).unwrap();
        assert_eq!(text(&join([&part]).0), json);
        assert_eq!(
            Part::read(EXPECTED),
            Ok(Part {
                regions: Part::read(YAML)
                    .unwrap()
                    .regions
                    .into_iter()
                    .filter(|(_, region)| region.is_some())
                    .collect(),
                scores: BTreeMap::new(),
            })
        );
    }

    #[test]
    fn later_parts_win_and_can_remove() {
        let region = |name: &str| {
            Part::read(&format!(
                "regions:\n  1:\n    nodes:\n    - name: {name}\n      hostname: h\n"
            ))
            .unwrap()
        };
        let (map, left_out) = join([&region("a"), &region("b")]);
        assert_eq!(
            (map.regions[&1].nodes[0].name.as_str(), left_out.len()),
            ("b", 0)
        );
        let (map, _) = join([&region("a"), &Part::read(YAML).unwrap()]);
        assert_eq!(map.regions.keys().collect::<Vec<_>>(), [&900]);
        let twin = Part::read("regions: {}").unwrap();
        assert!(join([&twin]).0.regions.is_empty());
        let clash = region("900a");
        let (map, left_out) = join([&Part::read(EXPECTED).unwrap(), &clash]);
        assert_eq!((map.regions.len(), left_out), (1, vec![1]));
    }

    #[test]
    fn an_invalid_map_is_rejected_with_the_reason() {
        for (text, reason) in [
            ("", "missing `regions`"),
            ("{", "not JSON"),
            ("regions:\n  0:\n    nodes: []\n", "from 1 to 65535"),
            ("regions:\n  70000: null\n", "from 1 to 65535"),
            ("regions:\n  5:\n    regionid: 6\n", "does not match"),
            (
                "regions:\n  5:\n    nodes:\n    - name: a\n",
                "needs a name",
            ),
            ("regions:\n  5:\n    nodes: 7\n", "region 5"),
            ("regions:\n\t5: null\n", "line 2"),
        ] {
            let fault = Part::read(text).unwrap_err().to_string();
            assert!(fault.contains(reason), "{text:?}: {fault}");
        }
    }
}
