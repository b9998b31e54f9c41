//! The `[wan]` section: public addresses and how hearth finds them.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::fault::ConfigFault;
use super::file::RawConfig;
use super::raw::{Item, RawValue};
use super::value::{Label, List, Setting, from_item, read_list, skipped_in};

/// Most STUN servers.
const MAX_STUN_SERVERS: usize = 4;

/// Most words of `wan.on_change`.
const MAX_WORDS: usize = 16;

/// The keys that decide which public addresses are advertised.
const PUBLISHED: [&str; 4] = ["wan.publish", "wan.interface", "wan.ipv4", "wan.ipv6"];

/// Whether public addresses are advertised to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Publish {
    /// Once the host of `server_url` has resolved to this machine.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// None of the three words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected `auto`, `always` or `never`")]
pub struct InvalidPublish;

impl FromStr for Publish {
    type Err = InvalidPublish;

    fn from_str(text: &str) -> Result<Self, InvalidPublish> {
        match text.trim().to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err(InvalidPublish),
        }
    }
}

impl Setting for Publish {
    const EXPECTED: &'static str = "one of `auto`, `always` and `never`";

    fn read(value: &RawValue) -> Option<Self> {
        match value {
            RawValue::Text(text) => text.parse().ok(),
            _ => None,
        }
    }
}

/// A STUN server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StunServer {
    /// Name or address, an IPv6 one without brackets.
    pub host: String,
    /// UDP port.
    pub port: u16,
}

/// Not a STUN server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected `host:port`")]
pub struct InvalidStunServer;

impl FromStr for StunServer {
    type Err = InvalidStunServer;

    fn from_str(text: &str) -> Result<Self, InvalidStunServer> {
        let (host, port) = text.rsplit_once(':').ok_or(InvalidStunServer)?;
        let port = port.parse().map_err(|_| InvalidStunServer)?;
        let bare = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or(InvalidStunServer)?,
            None => host,
        };
        let is_v6 = bare.parse::<Ipv6Addr>().is_ok();
        let is_name = !bare.is_empty()
            && bare.len() <= 253
            && bare
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        let is_valid = is_v6 == host.starts_with('[') && (is_v6 || is_name) && port != 0;
        is_valid
            .then(|| Self {
                host: bare.to_owned(),
                port,
            })
            .ok_or(InvalidStunServer)
    }
}

impl fmt::Display for StunServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Setting for List<StunServer> {
    const EXPECTED: &'static str = "a list of up to four servers such as `stun.example.org:3478`";

    fn read(value: &RawValue) -> Option<Self> {
        let List(servers) = read_list(value, from_item)?;
        (servers.len() <= MAX_STUN_SERVERS).then_some(Self(servers))
    }

    fn skipped(value: &RawValue) -> Vec<&Item> {
        skipped_in(value, from_item::<StunServer>)
    }
}

/// A program with its arguments; there is no shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The program, an absolute path.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// A program or none: an empty list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MaybeProgram(pub(super) Option<Program>);

impl Setting for MaybeProgram {
    const EXPECTED: &'static str = "a list with the absolute path of a program and its arguments";

    fn read(value: &RawValue) -> Option<Self> {
        let RawValue::List(items) = value else {
            return None;
        };
        // A program without one of its arguments is another one.
        let words = items
            .iter()
            .map(|item| item.value.text().map(str::to_owned));
        let words: Vec<String> = words.collect::<Option<_>>()?;
        let Some((path, arguments)) = words.split_first() else {
            return Some(Self(None));
        };
        let has_zero = words.iter().any(|word| word.contains('\0'));
        let is_valid = Path::new(path).is_absolute() && words.len() <= MAX_WORDS && !has_zero;
        is_valid.then(|| {
            Self(Some(Program {
                path: path.into(),
                arguments: arguments.to_vec(),
            }))
        })
    }
}

/// Public addresses and how hearth finds them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WanSettings {
    /// WAN interface; `None` is that of the default route.
    pub interface: Option<String>,
    /// Public IPv4 address, in place of the detected one.
    pub ipv4: Option<Ipv4Addr>,
    /// Public IPv6 address, in place of the detected one.
    pub ipv6: Option<Ipv6Addr>,
    /// Whether public addresses are advertised to clients.
    pub publish: Publish,
    /// STUN servers that are asked when this machine has no public address.
    pub stun_servers: Vec<StunServer>,
    /// Whether the upstream router is asked to forward the ports.
    pub port_mapping: bool,
    /// Program that runs after a change of the public addresses.
    pub on_change: Option<Program>,
}

impl WanSettings {
    /// Takes the section from a configuration file. `is_root` says that a program would run as root: then there is
    /// none.
    pub(super) fn take(raw: &mut RawConfig, is_root: bool) -> Self {
        let interface: Option<Label> = raw.take("wan.interface");
        let List(stun_servers) = raw.take("wan.stun_servers").unwrap_or(List(Vec::new()));
        let mut settings = Self {
            interface: interface.map(|Label(name)| name),
            ipv4: raw.take("wan.ipv4"),
            ipv6: raw.take("wan.ipv6"),
            publish: raw.take("wan.publish").unwrap_or_default(),
            stun_servers,
            port_mapping: raw.take("wan.port_mapping").unwrap_or(false),
            on_change: raw
                .take("wan.on_change")
                .and_then(|MaybeProgram(program)| program),
        };
        // What is found in place of these may be an address that nobody should learn.
        if PUBLISHED.iter().any(|key| raw.is_damaged(key)) {
            settings.publish = Publish::Never;
        }
        if is_root && settings.on_change.take().is_some() {
            let location = raw.location_of("wan.on_change");
            let fault = ConfigFault::ProgramAsRoot {
                key: "wan.on_change",
            };
            raw.warn(location, fault);
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys;

    fn of(text: &str) -> (WanSettings, usize) {
        let mut raw = RawConfig::parse("hearth.toml".into(), &format!("[wan]\n{text}"));
        raw.close_possibly_meant(keys::is_known);
        let settings = WanSettings::take(&mut raw, false);
        (settings, raw.finish().len())
    }

    #[test]
    fn servers_are_hosts_with_ports() {
        for (text, host) in [
            ("stun.example.org:3478", "stun.example.org"),
            ("192.0.2.1:19302", "192.0.2.1"),
            ("[2001:db8::1]:3478", "2001:db8::1"),
        ] {
            let server: StunServer = text.parse().unwrap();
            assert_eq!(
                (server.host.as_str(), server.to_string().as_str()),
                (host, text)
            );
        }
        for text in [
            "",
            "a",
            "a:0",
            ":3478",
            "a b:1",
            "2001:db8::1",
            "[a]:1",
            "a:65536",
        ] {
            assert_eq!(text.parse::<StunServer>(), Err(InvalidStunServer), "{text}");
        }
    }

    #[test]
    fn a_command_is_a_path_and_words_and_never_a_line_for_a_shell() {
        let (settings, faults) = of("on_change = [\"/bin/x\", \"a b; $(c)\"]\n");
        let program = settings.on_change.unwrap();
        assert_eq!((program.path.as_path(), faults), (Path::new("/bin/x"), 0));
        assert_eq!(program.arguments, ["a b; $(c)"]);
        for slip in [
            "[\"x\"]",
            "\"/bin/x\"",
            "[\"/bin/x\\u0000\"]",
            "[\"/bin/x\", 1]",
        ] {
            let (settings, faults) = of(&format!("on_change = {slip}\n"));
            assert_eq!((settings.on_change, faults), (None, 1), "{slip}");
        }
        assert_eq!(of("on_change = []\n"), (WanSettings::default(), 0));
    }

    #[test]
    fn no_server_is_asked_by_default() {
        let (settings, faults) = of("");
        assert_eq!((settings, faults), (WanSettings::default(), 0));
    }

    #[test]
    fn with_a_slip_no_address_is_advertised() {
        for slip in [
            "publish = \"sometimes\"",
            "ipv4 = \"2001:db8::1\"",
            "interfaces = 5",
        ] {
            let (settings, _) = of(slip);
            assert_eq!(settings.publish, Publish::Never, "{slip}");
        }
        assert_eq!(of("publish = \"Always\"").0.publish, Publish::Always);
    }

    #[test]
    fn no_program_runs_as_root() {
        let text = "[wan]\non_change = [\"/bin/x\"]\n";
        let mut raw = RawConfig::parse("hearth.toml".into(), text);
        assert_eq!(WanSettings::take(&mut raw, true).on_change, None);
        let warnings = raw.finish();
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0]
                .to_string()
                .starts_with("hearth.toml:2:1: `wan.on_change` is never run as root")
        );
    }
}
