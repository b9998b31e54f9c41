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
    ("backup.directory", Default),
    ("backup.every", Default),
    ("backup.keep", Default),
    // Programs that get all keys.
    ("backup.command", ClosedDefault),
    // A backup that should have been encrypted.
    ("backup.recipients", Closed("`backup.command` is not run")),
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
const RESTRICTIVE_SECTIONS: [&str; 5] = ["listen", "prefixes", "policy", "wan", "metrics"];

/// Other words for one in a name.
const SYNONYMS: [(&str, &str); 6] = [
    ("acl", "policy"),
    ("acls", "policy"),
    ("bind", "listen"),
    ("addr", "address"),
    ("addrs", "addresses"),
    ("admission", "admit"),
];

/// Names of Headscale and derper for keys that have another name here. Source: Headscale `hscontrol/types/config.go`,
/// `cmd/derper` of Tailscale.
const FOREIGN: [(&str, &str); 2] = [
    ("verify_clients", "derp.admit"),
    ("verify_client_url", "derp.admit_url"),
];

/// Names of Headscale that resemble keys of this table and mean none of them.
const WITHOUT_MEANING: [&str; 6] = [
    "tls_letsencrypt_listen",
    "prefixes_allocation",
    "logtail_enabled",
    "taildrop_enabled",
    "auto_update_enabled",
    "derp_auto_update_enabled",
];

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

/// An unknown name, in the words that it consists of.
pub(super) struct Name {
    /// All its words, including those of the sections it is in.
    words: Vec<String>,
    /// The sections it is in, the outermost first.
    parents: Vec<String>,
    /// Its own name.
    leaf: String,
}

impl Name {
    /// Takes a dotted name apart: `_`, `-`, `.`, a space and a change of case part words.
    pub(super) fn of(name: &str) -> Self {
        let mut words = vec![String::new()];
        let mut is_small = false;
        for letter in name.chars() {
            let parts = matches!(letter, '_' | '-' | '.' | ' ');
            if parts || is_small && letter.is_uppercase() {
                words.push(String::new());
            }
            if let Some(word) = words.last_mut().filter(|_| !parts) {
                word.extend(letter.to_lowercase());
            }
            is_small = letter.is_lowercase();
        }
        words.retain(|word| !word.is_empty());
        for word in &mut words {
            *word = usual(word).to_owned();
        }
        let mut parents: Vec<String> = name.split('.').map(plain).collect();
        let leaf = parents.pop().unwrap_or_default();
        Self {
            words,
            parents,
            leaf,
        }
    }

    /// Whether this may be `key`, misspelled or in a wrong place.
    pub(super) fn may_mean(&self, key: &str) -> bool {
        let joined = self.words.join("_");
        if WITHOUT_MEANING.contains(&&*joined) {
            return false;
        }
        let mut foreign = FOREIGN.iter();
        if self.has_all_words_of(key)
            || foreign.any(|(name, meant)| *meant == key && joined.ends_with(name))
        {
            return true;
        }
        let (section, last) = parts(key);
        let names_section = |word: &str| !section.is_empty() && names(word, section);
        let is_in = |parent: &String| usual(parent) == section || is_related(parent, section);
        let is_named = self.words.iter().any(|word| names_section(word))
            || !section.is_empty() && self.parents.iter().any(is_in);
        let is_section_alone = self.parents.is_empty() && usual(&self.leaf) == section;
        if is_named
            && !is_section_alone
            && RESTRICTIVE_SECTIONS.contains(&section)
            && !self.names_a_key_of(section)
        {
            return true;
        }
        let rest: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let rest: Vec<&str> = rest
            .into_iter()
            .filter(|word| !names_section(word))
            .collect();
        let is_alike = |word: &str| {
            word == last
                || !is_of_another(word, last)
                    && (is_near(word, last) || (is_named || last.len() > 4) && word.contains(last))
        };
        // Inside of another section a generic word has another meaning.
        let is_inside = is_named || !self.words.iter().any(|word| is_section(word));
        let is_stem_of = |word: &&str| is_stem(word, last) && !is_of_another(word, last);
        is_alike(&self.leaf) && (is_inside || !is_generic(last))
            || is_alike(&joined) && (is_named || !is_generic(last))
            || is_named && is_alike(&rest.join("_"))
            || is_inside
                && (is_named || !is_generic(last))
                && !is_of_another(&self.leaf, last)
                && rest.iter().any(is_stem_of)
    }

    /// Whether this is the name of the section of `key`, or near it: what is no table there stands for all its keys.
    pub(super) fn may_be_section_of(&self, key: &str) -> bool {
        let section = parts(key).0;
        let leaf = usual(&self.leaf);
        let is_elsewhere = self.parents.iter().any(|parent| is_section(parent));
        let is_one_word = self.words.last().is_some_and(|last| last == leaf);
        !section.is_empty()
            && !self.names_a_key_of(section)
            && (leaf == section
                || is_one_word && !is_elsewhere && !is_section(leaf) && is_related(leaf, section))
    }

    /// Whether it says `section.last`, in whatever order and with whatever else.
    fn has_all_words_of(&self, key: &str) -> bool {
        let mut words = key.split(['.', '_']);
        key.contains('.') && words.all(|word| self.words.iter().any(|own| own == usual(word)))
    }

    /// Whether the word for this section belongs to a key that the name spells out.
    fn names_a_key_of(&self, section: &str) -> bool {
        let has_word = |key: &str| key.split(['.', '_']).any(|word| word == section);
        let mut keys = KEYS.iter();
        keys.any(|(key, _)| has_word(key) && self.has_all_words_of(key))
    }
}

/// A word as the table has it.
fn usual(word: &str) -> &str {
    let mut synonyms = SYNONYMS.iter();
    let found = synonyms.find(|(other, _)| *other == word);
    found.map_or(word, |(_, usual)| usual)
}

/// Whether a word of a name stands for a section.
fn names(word: &str, section: &str) -> bool {
    word == section || is_stem(word, section) || section.len() > 4 && is_near(word, section)
}

/// Whether two words differ by a slip or by their endings.
fn is_related(word: &str, other: &str) -> bool {
    is_near(word, other) || is_stem(word, other)
}

/// Whether `word` is `other` with something appended, or has most of it in common.
fn is_stem(word: &str, other: &str) -> bool {
    let pairs = word.bytes().zip(other.bytes());
    let common = pairs.take_while(|(a, b)| a == b).count();
    let shorter = word.len().min(other.len());
    common >= 4 && common == other.len() || common >= 5 && common * 3 >= shorter * 2
}

/// Whether a word is the last part of a key and that part is not `last`, or says nothing because it is a section.
fn is_of_another(word: &str, last: &str) -> bool {
    let is_last = |word: &str| KEYS.iter().any(|(name, _)| parts(name).1 == word);
    word != last && (is_last(word) || is_section(word))
}

/// A word as keys are written.
pub(super) fn plain(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

/// The section of a key and the rest of its name.
pub(super) fn parts(key: &str) -> (&str, &str) {
    key.split_once('.').unwrap_or(("", key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_restrictive_sections_are_those_in_which_every_key_restricts_something() {
        let keys = KEYS.iter().map(|(key, _)| *key);
        let mut sections: Vec<&str> = keys.map(|key| parts(key).0).collect();
        sections.dedup();
        sections.retain(|section| {
            let mut inside = KEYS.iter().filter(|(key, _)| parts(key).0 == *section);
            // The other limits are not in the table.
            *section != "limits" && inside.all(|(_, damaged)| *damaged != Default)
        });
        assert_eq!(sections, RESTRICTIVE_SECTIONS);
    }
}
