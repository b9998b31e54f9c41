//! The configuration: the file and the flags, checked and completed with defaults.
//!
//! Two stages: [`file::RawConfig`] holds the keys as written, with their locations; [`Config`] holds
//! valid values only. Nothing in a file prevents the server from starting: a fault becomes a
//! [`Warning`], and the default is used, or, for a key that restricts something, the most closed value
//! ([`keys`]).

pub mod backup;
pub mod board;
pub mod budget;
pub mod clients;
pub mod derp;
mod dns;
pub mod fault;
pub mod file;
mod json_text;
pub mod keys;
pub mod lan;
pub mod limits;
mod mentions;
pub mod moment;
pub mod name;
pub mod near;
pub mod policy;
mod proxies;
pub mod raw;
mod toml_text;
pub mod url;
pub mod value;
pub mod wan;
pub mod web_url;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use backup::BackupSettings;
pub use board::choice::Choice;
pub use clients::ClientSettings;
pub use derp::{Admission, DerpSettings};
pub use fault::{ConfigFault, Warning};
pub use limits::Limits;
pub use name::DnsName;
pub use policy::PolicySettings;
pub use url::{Host, Scheme, ServerUrl};
pub use value::{Ipv4Range, Ipv6Range, ListenAddress, LogLevel};
pub use wan::WanSettings;
pub use web_url::WebUrl;

use crate::files;
use board::machine::Machine;
use file::RawConfig;
use hearth_core::state::dns::DnsSettings;
use hearth_core::wan::address::prefix_without;
use ipnet::IpNet;
use lan::Network;
use value::{Expiry, Range};

/// Default path of the configuration file.
pub const DEFAULT_FILE: &str = "/etc/hearth/hearth.toml";
/// Default data directory for root.
pub const SYSTEM_DATA_DIR: &str = "/var/lib/hearth";
/// The configuration of the OpenWrt package.
const UCI_FILE: &str = "/etc/config/hearth";
/// Default data directory of the OpenWrt package: [`SYSTEM_DATA_DIR`] is in memory there.
const OPENWRT_DATA_DIR: &str = "/etc/hearth/data";
/// Longest configuration of the OpenWrt package that is read, in bytes.
const MAX_UCI: usize = 256 * 1024;
/// The environment variable with the default data directory. Packages and containers set it.
pub const DATA_DIR_VARIABLE: &str = "HEARTH_DATA_DIR";
/// The socket of a server that was installed from a package.
pub const SYSTEM_SOCKET: &str = "/var/run/hearth/hearth.sock";
/// File name of the socket in the data directory.
pub const SOCKET_NAME: &str = "hearth.sock";
/// Default base domain of the tailnet. The top-level domain is reserved for private use (ICANN, 2024).
pub const DEFAULT_BASE_DOMAIN: &str = "hearth.internal";
/// Key expiry while `node.expiry` cannot be read: the shortest of the official service.
/// Source: <https://tailscale.com/docs/features/access-control/key-expiry>.
const DAMAGED_EXPIRY: Duration = Duration::from_secs(24 * 60 * 60);
/// Rate of the relay while its limit cannot be read, in bytes per second.
const DAMAGED_RATE: usize = 64 * 1024;
/// Default base domain of a server whose own host is inside the first one.
const OTHER_BASE_DOMAIN: &str = "tailnet.internal";

/// The addresses of the listeners; `None` is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Plain HTTP: control protocol, server key, web pages, relay.
    pub http: Option<SocketAddr>,
    /// The same over TLS.
    pub https: Option<SocketAddr>,
    /// STUN (UDP).
    pub stun: Option<SocketAddr>,
}

/// The certificate files; without them the server uses a self-signed certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain in PEM.
    pub cert: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
}

/// The prefixes from which nodes get their addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefixes {
    /// IPv4.
    pub v4: Ipv4Range,
    /// IPv6.
    pub v6: Ipv6Range,
    /// Whether one of them cannot be read: then no node gets a new address.
    pub is_lost: bool,
}

/// The `[node]` section: settings of nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSettings {
    /// Key expiry: time from login until a node's key expires; `None` is never.
    pub expiry: Option<Duration>,
    /// Device approval: whether each new device needs approval.
    pub approval: bool,
    /// How long an ephemeral node may be offline before it is deleted.
    pub ephemeral_timeout: Duration,
}

/// The `[routes]` section: health probes of subnet routers with the same route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteSettings {
    /// Time between two probes; `None` is never.
    pub probe_interval: Option<Duration>,
    /// Timeout of a probe.
    pub probe_timeout: Duration,
}

/// The configuration of the server. Every value is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// The URL that clients connect to.
    pub server_url: ServerUrl,
    /// Whether `server_url` is not set, so that it consists of the LAN address and the configured port
    /// of the listener, which is 0 if the system chooses it.
    pub server_url_is_computed: bool,
    /// The base domain of the tailnet.
    pub base_domain: DnsName,
    /// The directory of database, keys and certificate.
    pub data_dir: PathBuf,
    /// Path of the socket for the command line.
    pub socket: PathBuf,
    /// The listeners.
    pub listen: Listen,
    /// Addresses of trusted reverse proxies.
    pub trusted_proxies: Vec<IpNet>,
    /// The certificate files.
    pub tls: Option<TlsFiles>,
    /// The prefixes from which nodes get their addresses.
    pub prefixes: Prefixes,
    /// Settings of nodes.
    pub node: NodeSettings,
    /// Health probes of subnet routers.
    pub routes: RouteSettings,
    /// DNS of the tailnet.
    pub dns: DnsSettings,
    /// The relay.
    pub derp: DerpSettings,
    /// The source of the policy.
    pub policy: PolicySettings,
    /// What is advertised to clients.
    pub clients: ClientSettings,
    /// Public addresses and port mapping.
    pub wan: WanSettings,
    /// Automatic backups.
    pub backup: BackupSettings,
    /// The address of the metrics listener; `None` is off.
    pub metrics: Option<SocketAddr>,
    /// The log level.
    pub log_level: LogLevel,
    /// The detected or configured board.
    pub board: Choice,
    /// The limits: those of the board, changed by the file.
    pub limits: Limits,
    /// The faults of the configuration, in the order of the file.
    pub warnings: Vec<Warning>,
    /// Whether a part of the file was lost: it cannot be read, or has a syntax error.
    pub is_broken: bool,
    /// Whether something more closed than the default applies for a key that cannot be read.
    pub is_closed: bool,
}

/// Flags; each takes precedence over its key in the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overrides {
    /// `--config`; without it [`DEFAULT_FILE`] is read if it exists.
    pub config: Option<PathBuf>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--server-url`.
    pub server_url: Option<ServerUrl>,
    /// `--http`.
    pub http: Option<ListenAddress>,
    /// `--https`.
    pub https: Option<ListenAddress>,
    /// `--tls-cert`.
    pub tls_cert: Option<PathBuf>,
    /// `--tls-key`.
    pub tls_key: Option<PathBuf>,
    /// `--stun`.
    pub stun: Option<ListenAddress>,
    /// `--base-domain`.
    pub base_domain: Option<DnsName>,
    /// `--socket`.
    pub socket: Option<PathBuf>,
    /// `--board`.
    pub board: Option<String>,
}

/// The environment that the defaults depend on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// Whether the process runs as root.
    pub is_root: bool,
    /// `$HEARTH_DATA_DIR`.
    pub data_dir: Option<PathBuf>,
    /// `$HOME`.
    pub home: Option<PathBuf>,
    /// `$XDG_DATA_HOME`.
    pub data_home: Option<PathBuf>,
    /// The data directory of the OpenWrt package, which its service passes as a flag.
    pub openwrt_data: Option<PathBuf>,
    /// The LAN addresses of this machine.
    pub network: Network,
    /// The hardware.
    pub machine: Machine,
}

impl Surroundings {
    /// Asks the system.
    pub fn of_this_process() -> Self {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        Self {
            is_root: rustix::process::geteuid().is_root(),
            data_dir: variable(DATA_DIR_VARIABLE).filter(|path| path.is_absolute()),
            home: variable("HOME").filter(|path| path.is_absolute()),
            data_home: variable("XDG_DATA_HOME").filter(|path| path.is_absolute()),
            openwrt_data: openwrt_data(Path::new(UCI_FILE)),
            network: Network::of_this_machine(),
            machine: Machine::of_this_process(),
        }
    }

    /// The data directory when neither a flag nor the file sets it.
    pub fn default_data_dir(&self) -> PathBuf {
        if let Some(directory) = &self.data_dir {
            return directory.clone();
        }
        if self.is_root {
            return self
                .openwrt_data
                .clone()
                .unwrap_or_else(|| SYSTEM_DATA_DIR.into());
        }
        let below_home = || Some(self.home.as_ref()?.join(".local/share"));
        match self.data_home.clone().or_else(below_home) {
            Some(directory) => directory.join("hearth"),
            None => "hearth-data".into(),
        }
    }
}

/// The data directory in the configuration of the OpenWrt package; `None` where that is not installed.
fn openwrt_data(file: &Path) -> Option<PathBuf> {
    let text = String::from_utf8(files::read(file, MAX_UCI).ok()?).ok()?;
    let set = text.lines().find_map(|line| {
        let value = line.trim().strip_prefix("option data_dir")?;
        let path = value.trim().trim_matches(['\'', '"']);
        path.starts_with('/').then(|| path.into())
    });
    Some(set.unwrap_or_else(|| OPENWRT_DATA_DIR.into()))
}

impl Config {
    /// Reads the file that the flags name, or else [`DEFAULT_FILE`] if it exists, and completes it with
    /// the flags and the defaults.
    pub fn load(overrides: Overrides, surroundings: &Surroundings) -> Self {
        // A file that is there and cannot be read may say something.
        let default_file = || {
            let path = Path::new(DEFAULT_FILE);
            let found = std::fs::symlink_metadata(path);
            let is_missing = found.is_err_and(|fault| fault.kind() == io::ErrorKind::NotFound);
            (!is_missing).then(|| path.into())
        };
        let file = overrides.config.clone().or_else(default_file);
        let raw = match &file {
            Some(path) => RawConfig::read(path),
            None => RawConfig::empty(),
        };
        let mut config = Self::build(raw, overrides, surroundings);
        config.file = file;
        config
    }

    fn build(mut raw: RawConfig, flags: Overrides, surroundings: &Surroundings) -> Self {
        let mut config = Self::take(&mut raw, flags, surroundings);
        config.is_broken = raw.is_broken();
        config.is_closed = raw.is_closed();
        config.warnings = raw.finish();
        config
    }

    /// Whether `server_url` follows the LAN address of this machine: it is not configured, and its listener accepts
    /// connections at all addresses.
    pub fn follows_lan_address(&self) -> bool {
        let listener = url_listener(&self.listen).1;
        self.server_url_is_computed && listener.ip().is_unspecified()
    }

    /// Takes every key from `raw`. What remains there is unknown.
    fn take(raw: &mut RawConfig, flags: Overrides, surroundings: &Surroundings) -> Self {
        raw.close_possibly_meant(is_known);
        let listen = listen(raw, &flags);
        let trusted_proxies = proxies::take(raw);
        let server_url = raw.take("server_url");
        let server_url = flags.server_url.or(server_url);
        let server_url_is_computed = server_url.is_none();
        let server_url = server_url.unwrap_or_else(|| computed_url(&listen, surroundings));
        if server_url.is_plain_and_public() {
            raw.warn(raw.location_of("server_url"), ConfigFault::PlainAndPublic);
        }
        let base_domain = base_domain(raw, flags.base_domain, &server_url);

        let data_dir = raw.take("data_dir");
        let data_dir = flags
            .data_dir
            .or(data_dir)
            .unwrap_or_else(|| surroundings.default_data_dir());
        let socket = raw.take("socket");
        let socket = flags
            .socket
            .or(socket)
            .unwrap_or_else(|| data_dir.join(SOCKET_NAME));
        let tls = tls(raw, flags.tls_cert, flags.tls_key);

        let prefixes = Prefixes {
            v4: raw.take("prefixes.v4").unwrap_or(Ipv4Range::ALL),
            v6: raw.take("prefixes.v6").unwrap_or(Ipv6Range::ALL),
            is_lost: raw.is_damaged("prefixes.v4") || raw.is_damaged("prefixes.v6"),
        };
        warn_of_carrier(raw, prefixes.v4, &surroundings.network);
        let ephemeral_range = Range {
            least: Duration::from_secs(60),
            most: Duration::from_secs(365 * 24 * 60 * 60),
        };
        let node = NodeSettings {
            expiry: expiry(raw),
            approval: raw.take_or("node.approval", false, true),
            ephemeral_timeout: raw
                .take_in_range("node.ephemeral_timeout", ephemeral_range)
                .unwrap_or(Duration::from_secs(30 * 60)),
        };
        let timeout_range = Range {
            least: Duration::from_secs(1),
            most: Duration::from_secs(60),
        };
        let routes = RouteSettings {
            probe_interval: raw
                .take("routes.probe_interval")
                .unwrap_or(Expiry(Some(Duration::from_secs(10))))
                .0,
            probe_timeout: raw
                .take_in_range("routes.probe_timeout", timeout_range)
                .unwrap_or(Duration::from_secs(5)),
        };
        let dns = dns::take(raw);
        let derp = DerpSettings::take(raw, Admission::Tailnet);
        let policy = PolicySettings::take(raw);
        let clients = ClientSettings::take(raw);
        let wan = WanSettings::take(raw, surroundings.is_root);
        let metrics = raw.take("metrics.listen");
        let metrics = metrics.and_then(|ListenAddress(address)| address);
        let log_level = raw.take("log.level").unwrap_or(LogLevel::Info);
        let board = board(raw, flags.board, &surroundings.machine);
        let backup = BackupSettings::take(raw, &board, surroundings.is_root);
        let mut limits = Limits::take(raw, board.limits.clone());
        if raw.is_damaged("limits.derp_client_rate") {
            limits.derp_client_rate = DAMAGED_RATE;
        }
        if raw.is_damaged("limits.derp_total_rate") {
            limits.derp_total_rate = DAMAGED_RATE;
        }
        warn_of_memory(raw, &board, &limits);
        Self {
            file: None,
            server_url,
            server_url_is_computed,
            base_domain,
            data_dir,
            socket,
            listen,
            trusted_proxies,
            tls,
            prefixes,
            node,
            routes,
            dns,
            derp,
            policy,
            clients,
            wan,
            backup,
            metrics,
            log_level,
            board,
            limits,
            warnings: Vec::new(),
            is_broken: false,
            is_closed: false,
        }
    }
}

/// Whether there is such a key.
fn is_known(key: &str) -> bool {
    match key.strip_prefix("limits.") {
        Some(limit) => Limits::default()
            .rows()
            .iter()
            .any(|(name, _)| *name == limit),
        None => keys::is_known(key),
    }
}

fn listen(raw: &mut RawConfig, flags: &Overrides) -> Listen {
    let mut address = |key, flag: Option<ListenAddress>, port| {
        let in_file = raw.take_or(key, ListenAddress::everywhere(port), ListenAddress(None));
        if flag.is_some() {
            raw.ignore(key);
        }
        flag.unwrap_or(in_file).0
    };
    let listen = Listen {
        http: address("listen.http", flags.http, 8080),
        https: address("listen.https", flags.https, 8443),
        stun: address("listen.stun", flags.stun, 3478),
    };
    if listen.http.is_none() && listen.https.is_none() {
        raw.warn(raw.location_of("listen.http"), ConfigFault::NoListener);
    }
    listen
}

fn board(raw: &mut RawConfig, flag: Option<String>, machine: &Machine) -> Choice {
    let in_file: Option<String> = raw.take("board");
    let is_of_file = flag.is_none();
    let requested = flag.or(in_file);
    let (choice, is_known) = Choice::make(requested.as_deref(), machine);
    if let Some(name) = requested.filter(|_| !is_known) {
        let fault = ConfigFault::UnknownBoard {
            near: board::near(&name),
            name,
            instead: choice.name().to_owned(),
        };
        let location = raw.location_of("board").filter(|_| is_of_file);
        raw.warn(location, fault);
    }
    choice
}

/// Warns if the limits allow more memory than the budget of the board. Those of the board itself never do.
fn warn_of_memory(raw: &mut RawConfig, board: &Choice, limits: &Limits) {
    let needs = budget::Needs::of(limits).total();
    let Some(budget) = board.budget().filter(|budget| needs > *budget) else {
        return;
    };
    let fault = ConfigFault::OverBudget {
        needs: budget::show_mib(needs),
        budget: budget::show_mib(budget),
        board: board.name().to_owned(),
    };
    raw.warn(None, fault);
}

/// Warns if this machine has a CGNAT address inside the prefix of the nodes.
fn warn_of_carrier(raw: &mut RawConfig, nodes: Ipv4Range, network: &Network) {
    let Some(local) = network.carrier_address() else {
        return;
    };
    if !nodes.contains(local.address) {
        return;
    }
    let fault = ConfigFault::CarrierAddress {
        interface: local.interface.clone(),
        address: local.address,
        instead: prefix_without(local.address),
    };
    raw.warn(None, fault);
}

/// Key expiry. One beyond a century is a slip; `never` is a word.
fn expiry(raw: &mut RawConfig) -> Option<Duration> {
    const MOST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    let Expiry(expiry) = raw.take_or("node.expiry", Expiry(None), Expiry(Some(DAMAGED_EXPIRY)));
    if expiry.is_none_or(|expiry| expiry <= MOST) {
        return expiry;
    }
    let location = raw.location_of("node.expiry");
    raw.out_of_range("node.expiry", location, "1s", "36500d");
    Some(DAMAGED_EXPIRY)
}

/// The listener that a computed URL leads to. With both off it is the default one.
fn url_listener(listen: &Listen) -> (Scheme, SocketAddr) {
    match (listen.http, listen.https) {
        (Some(http), _) => (Scheme::Http, http),
        (None, Some(https)) => (Scheme::Https, https),
        (None, None) => (Scheme::Http, SocketAddr::from(([0, 0, 0, 0], 8080))),
    }
}

/// `http://<LAN address>:<port>`, or the address that the listener is bound to. Before the machine has a LAN
/// address it is that of this machine alone.
fn computed_url(listen: &Listen, surroundings: &Surroundings) -> ServerUrl {
    let (scheme, listener) = url_listener(listen);
    if !listener.ip().is_unspecified() {
        return ServerUrl::at(scheme, listener);
    }
    let address = surroundings.network.home_address();
    let address = IpAddr::V4(address.unwrap_or(Ipv4Addr::LOCALHOST));
    ServerUrl::at(scheme, SocketAddr::new(address, listener.port()))
}

/// The base domain, which must not contain the server: MagicDNS answers for all names in it.
/// Source: `isSafeServerURL` in headscale `hscontrol/types/config.go`.
fn base_domain(raw: &mut RawConfig, flag: Option<DnsName>, server_url: &ServerUrl) -> DnsName {
    let hides_server = |domain: &DnsName| match server_url.host() {
        Host::Name(host) => host.is_within(domain),
        Host::Address(_) => false,
    };
    let in_file = raw.take("base_domain");
    let Some(domain) = flag.or(in_file) else {
        return default_base_domain(hides_server);
    };
    let location = raw.location_of("base_domain");
    let reason = domain.reserved_for();
    if reason.is_none() && !hides_server(&domain) {
        if !domain.as_str().contains('.') && !PRIVATE_DOMAINS.contains(&domain.as_str()) {
            let domain = domain.to_string();
            raw.warn(location, ConfigFault::TopLevelBaseDomain { domain });
        }
        return domain;
    }
    let default = default_base_domain(hides_server);
    let instead = default.to_string();
    let fault = match reason {
        Some(reason) => ConfigFault::BadBaseDomain {
            domain: domain.to_string(),
            reason,
            instead,
        },
        None => ConfigFault::HostInBaseDomain { instead },
    };
    raw.warn(location, fault);
    default
}

/// Base domains of one label that are not public. Sources: the ICANN board's resolution on `internal`, and RFC
/// 6762 appendix G.
const PRIVATE_DOMAINS: [&str; 8] = [
    "internal", "intranet", "private", "corp", "home", "lan", "tailnet", "hearth",
];

#[expect(
    clippy::expect_used,
    reason = "both names are constants, and a test parses them"
)]
fn default_base_domain(hides_server: impl Fn(&DnsName) -> bool) -> DnsName {
    [DEFAULT_BASE_DOMAIN, OTHER_BASE_DOMAIN]
        .into_iter()
        .filter_map(|name| name.parse().ok())
        .find(|domain| !hides_server(domain))
        .expect("a host cannot be within two domains that are not within each other")
}

fn tls(raw: &mut RawConfig, cert: Option<PathBuf>, key: Option<PathBuf>) -> Option<TlsFiles> {
    let (cert_in_file, key_in_file) = (raw.take("tls.cert_file"), raw.take("tls.key_file"));
    match (cert.or(cert_in_file), key.or(key_in_file)) {
        (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
        (None, None) => None,
        (cert, _) => {
            let (key, missing) = match cert {
                Some(_) => ("tls.cert_file", "tls.key_file"),
                None => ("tls.key_file", "tls.cert_file"),
            };
            raw.warn(raw.location_of(key), ConfigFault::Alone { key, missing });
            None
        }
    }
}

#[cfg(test)]
mod tests;
