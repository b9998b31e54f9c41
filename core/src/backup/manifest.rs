//! The manifest: what a backup is of. Nothing in it is secret.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// Version of the format that this program writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// What a backup is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Version of the format of the archive.
    format: u32,
    /// Version of hearth that made it.
    pub hearth: String,
    /// When it was made.
    pub created: Timestamp,
    /// The URL that clients connect to.
    #[serde(default)]
    pub server_url: String,
    /// Public Noise key of the server (`mkey:…`), which `GET /key` shows.
    #[serde(default)]
    pub noise_key: String,
    /// Public key of the relay (`nodekey:…`).
    #[serde(default)]
    pub relay_key: String,
    /// SHA-256 of the self-signed certificate, in hexadecimal digits; empty without one.
    #[serde(default)]
    pub certificate: String,
    /// Number of nodes.
    #[serde(default)]
    pub nodes: usize,
    /// Number of users.
    #[serde(default)]
    pub users: usize,
    /// The age recipients of automatic backups.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// Files that could not be read, each with the reason.
    #[serde(default)]
    pub missing: Vec<String>,
    /// The files of the configuration.
    #[serde(default)]
    pub settings: Vec<Setting>,
}

/// A file of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Its name below `settings/`.
    pub name: String,
    /// Where it was. For people: nothing is written there.
    pub path: String,
}

impl Manifest {
    /// A manifest of this version of the format, with nothing about the server yet.
    pub fn new(hearth: &str, created: Timestamp) -> Self {
        Self {
            format: FORMAT,
            hearth: hearth.to_owned(),
            created,
            server_url: String::new(),
            noise_key: String::new(),
            relay_key: String::new(),
            certificate: String::new(),
            nodes: 0,
            users: 0,
            recipients: Vec::new(),
            missing: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// Whether this program reads this version of the format.
    pub(super) const fn is_readable(&self) -> bool {
        self.format <= FORMAT
    }
}
