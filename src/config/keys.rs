//! Every key of the configuration, and what applies while it is written and cannot be read.
//!
//! A slip of the pen must not open anything: for each key this table says which of its values is the
//! most closed one. Where that is not the default, the message about the key says what applies instead,
//! and the place that takes the key has the value (`RawConfig::take_or`, `RawConfig::is_damaged`). The
//! comments say what more open means.

use super::near::is_near;

/// What applies while a key is written and cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damaged {
    /// The default: no value of the key lets anyone in or shows anything to anyone.
    Default,
    /// The default, which is the most closed value.
    ClosedDefault,
    /// Something more closed than the default, in words.
    Closed(&'static str),
}

use Damaged::{Closed, ClosedDefault, Default};

/// The keys outside of `[limits]`, and the limits that are not bounded by default.
const KEYS: &[(&str, Damaged)] = &[
    ("server_url", Default),
    ("base_domain", Default),
    ("data_dir", Default),
    ("socket", Default),
    ("board", Default),
    // More addresses at which hearth can be reached.
    ("listen.http", Closed("`listen.http` is off")),
    ("listen.https", Closed("`listen.https` is off")),
    ("listen.stun", Closed("`listen.stun` is off")),
    // Clients that can pretend to be any other.
    ("listen.trusted_proxies", ClosedDefault),
    ("tls.cert_file", Default),
    ("tls.key_file", Default),
    // Addresses that others do not expect a node to have.
    ("prefixes.v4", Closed(NO_NEW_NODES)),
    ("prefixes.v6", Closed(NO_NEW_NODES)),
    // Keys of devices that stay valid for longer.
    ("node.expiry", Closed("node keys expire after 1d")),
    // Devices that join without approval.
    ("node.approval", Closed("new devices need approval")),
    ("node.ephemeral_timeout", Default),
    ("routes.probe_interval", Default),
    ("routes.probe_timeout", Default),
    ("dns.magic_dns", Default),
    ("dns.nameservers", Default),
    ("dns.override_local_dns", Default),
    ("dns.use_router", Default),
    ("dns.router", Default),
    ("dns.lan_domain", Default),
    ("dns.use_with_exit_node", Default),
    ("dns.split", Default),
    ("dns.search_domains", Default),
    ("dns.records", Default),
    ("dns.records_file", Default),
    // More nodes that answer for names below their own.
    ("dns.wildcard", ClosedDefault),
    ("dns.rules", Default),
    // A relay where none was wanted.
    ("derp.enabled", Closed("the relay is off")),
    ("derp.stun_only", Closed("the relay is off")),
    ("derp.region_id", Default),
    ("derp.region_code", Default),
    ("derp.region_name", Default),
    ("derp.host_name", Default),
    ("derp.ipv4", Default),
    ("derp.ipv6", Default),
    ("derp.port", Default),
    ("derp.stun_port", Default),
    ("derp.region_score", Default),
    // More clients of the relay.
    ("derp.admit", Closed(NO_STRANGERS)),
    ("derp.admit_url", Closed("the relay admits nobody")),
    ("derp.admit_keys", Closed("the relay admits nobody")),
    ("derp.admit_fail_open", ClosedDefault),
    ("derp.mesh_with", ClosedDefault),
    ("derp.mesh_key_file", ClosedDefault),
    ("derp.map_files", Default),
    ("derp.map_urls", Default),
    ("derp.map_refresh", Default),
    ("derp.stun_lan_as_wan", ClosedDefault),
    // Without a policy every device reaches every other.
    (
        "policy.file",
        Closed("the last valid policy applies, and if there is none, no device reaches another"),
    ),
    // Addresses of the server that devices learn.
    (
        "clients.addresses",
        Closed("no addresses of the server are advertised"),
    ),
    ("clients.latest_version", Default),
    // Public addresses that devices learn.
    ("wan.interface", Closed(NOT_PUBLISHED)),
    ("wan.ipv4", Closed(NOT_PUBLISHED)),
    ("wan.ipv6", Closed(NOT_PUBLISHED)),
    ("wan.publish", Closed(NOT_PUBLISHED)),
    ("wan.stun_servers", ClosedDefault),
    ("wan.port_mapping", ClosedDefault),
    ("wan.on_change", ClosedDefault),
    // A page without access control.
    ("metrics.listen", ClosedDefault),
    ("log.level", Default),
    // The other limits have a bound by default, that of the board. These are unlimited.
    (
        "limits.derp_client_rate",
        Closed("the relay forwards 64KiB per second and client"),
    ),
    (
        "limits.derp_total_rate",
        Closed("the relay forwards 64KiB per second"),
    ),
];

const NO_NEW_NODES: &str = "no new device gets an address";
const NO_STRANGERS: &str = "the relay admits nodes of this tailnet at most";
const NOT_PUBLISHED: &str = "public addresses are not advertised";

/// Sections all of whose keys restrict something: so does any unknown key in them, such as `listen.address`,
/// `listen_addr` or `policy.path`.
const RESTRICTIVE_SECTIONS: [&str; 3] = ["listen", "policy", "prefixes"];

/// Last parts of names that say nothing without their section.
const GENERIC: [&str; 12] = [
    "file",
    "listen",
    "enabled",
    "interface",
    "ipv4",
    "ipv6",
    "v4",
    "v6",
    "port",
    "level",
    "router",
    "publish",
];

/// What applies while `key` cannot be read.
pub fn damaged(key: &str) -> Damaged {
    let mut keys = KEYS.iter();
    keys.find(|(name, _)| *name == key)
        .map_or(Default, |(_, damaged)| *damaged)
}

/// The keys whose default is not necessarily what applies while they cannot be read.
pub(super) fn restrictive() -> impl Iterator<Item = &'static str> {
    let keys = KEYS.iter().filter(|(_, damaged)| *damaged != Default);
    keys.map(|(name, _)| *name)
}

/// Whether there is such a key outside of `[limits]`.
pub fn is_known(key: &str) -> bool {
    KEYS.iter().any(|(name, _)| *name == key)
}

/// Whether the last part of a name says nothing without its section.
pub(super) fn is_generic(last: &str) -> bool {
    GENERIC.contains(&last)
}

/// Whether there is such a section.
fn is_section(name: &str) -> bool {
    let is_of_key = |(key, _): &(&str, Damaged)| parts(key).0 == name;
    name == "limits" || !name.is_empty() && KEYS.iter().any(is_of_key)
}

/// Whether an unknown word, inside of `parent`, may be a misspelled `key`.
pub(super) fn may_mean(word: &str, parent: &str, key: &str) -> bool {
    let word = plain(word);
    let (section, last) = parts(key);
    let is_last_of_another =
        |word: &str| KEYS.iter().any(|(name, _)| parts(name).1 == word) && word != last;
    let is_alike = word == last
        || !is_last_of_another(&word)
            && (is_near(&word, last) || last.len() > 4 && word.contains(last));
    let parent = plain(parent);
    // Inside of another section a generic word has another meaning.
    let is_inside = parent == section || !is_section(&parent);
    if RESTRICTIVE_SECTIONS.contains(&section) {
        let mut sections = word.split('_').filter(|part| is_section(part));
        let is_named =
            word != section && (sections.next(), sections.next()) == (Some(section), None);
        if is_named || parent == section && !is_known(&format!("{section}.{word}")) {
            return true;
        }
    }
    is_alike && (is_inside || !is_generic(last))
}

/// A word as keys are written.
pub(super) fn plain(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

/// The section of a key and the rest of its name.
pub(super) fn parts(key: &str) -> (&str, &str) {
    key.split_once('.').unwrap_or(("", key))
}
