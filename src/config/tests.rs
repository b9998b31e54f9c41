//! The configuration as a whole: defaults, flags before the file, and the example file.

use super::lan::LocalAddress;
use super::*;

mod closed;

fn at_home() -> Surroundings {
    let address = Ipv4Addr::new(192, 168, 1, 1);
    Surroundings {
        is_root: true,
        network: Network {
            addresses: vec![LocalAddress {
                interface: "br-lan".into(),
                address,
            }],
            route_source: None,
        },
        ..Surroundings::default()
    }
}

fn from_text(text: &str) -> Config {
    from_text_and_flags(text, Overrides::default())
}

fn from_text_and_flags(text: &str, flags: Overrides) -> Config {
    Config::build(
        RawConfig::parse("hearth.toml".into(), text),
        flags,
        &at_home(),
    )
}

fn warnings(config: &Config) -> Vec<String> {
    config.warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn an_empty_configuration_is_valid() {
    let config = Config::build(RawConfig::empty(), Overrides::default(), &at_home());
    assert_eq!(warnings(&config), [""; 0]);
    assert_eq!(config.server_url.as_str(), "http://192.168.1.1:8080");
    assert!(config.server_url_is_computed);
    assert_eq!(config.socket, Path::new("/var/lib/hearth/hearth.sock"));
    assert_eq!(config.base_domain.as_str(), DEFAULT_BASE_DOMAIN);
}

#[test]
fn flags_take_precedence_over_the_file() {
    let text = "server_url = \"https://a.example\"\ndata_dir = \"/a\"\nbase_domain = \"a.net\"\n\
                [listen]\nhttp = \":1\"\nhttps = \":2\"\nstun = \"off\"\n\
                [tls]\ncert_file = \"/a.crt\"\nkey_file = \"/a.key\"\n";
    let flags = Overrides {
        server_url: "https://b.example".parse().ok(),
        data_dir: Some("/b".into()),
        https: Some(ListenAddress(None)),
        tls_key: Some("/b.key".into()),
        base_domain: "b.net".parse().ok(),
        ..Overrides::default()
    };
    let config = from_text_and_flags(text, flags);
    assert_eq!(warnings(&config), [""; 0]);
    assert_eq!(config.server_url.as_str(), "https://b.example");
    assert_eq!(config.socket, Path::new("/b/hearth.sock"));
    assert_eq!(config.base_domain.as_str(), "b.net");
    assert_eq!(config.listen.http.map(|http| http.port()), Some(1));
    assert_eq!((config.listen.https, config.listen.stun), (None, None));
    assert_eq!(config.tls.map(|tls| tls.key), Some("/b.key".into()));
}

#[test]
fn faults_of_several_keys_are_named_at_one_of_them() {
    let text = "server_url = \"https://hearth.example.org\"\nbase_domain = \"example.org\"\n\
                [tls]\nkey_file = \"/a.key\"\n[prefixes]\nv4 = \"10.0.0.0/8\"\n\
                [node]\nexpiry = \"soon\"\n";
    let config = from_text(text);
    assert_eq!(
        warnings(&config),
        [
            "hearth.toml:2:1: `base_domain` must not contain the host of `server_url` (using hearth.internal)",
            "hearth.toml:4:1: `tls.key_file` requires `tls.cert_file` (ignored)",
            "hearth.toml:6:6: invalid value for `prefixes.v4`: expected a prefix inside 100.64.0.0/10 (until it is fixed: no new device gets an address)",
            "hearth.toml:8:10: invalid value for `node.expiry`: expected a duration such as `180d`, or `never` (until it is fixed: node keys expire after 1d)",
        ]
    );
    assert_eq!(config.prefixes.v4, Ipv4Range::ALL);
}

#[test]
fn a_typo_never_makes_the_relay_more_open() {
    let admission = |text: &str| {
        let config = from_text(&format!("[derp]\n{text}"));
        (config.derp.admission.clone(), config.warnings.len())
    };
    let url: WebUrl = "https://home.example/verify".parse().unwrap();
    let by_url = Admission::Url {
        url,
        is_fail_open: false,
    };
    let ask = "admit_url = \"https://home.example/verify\"\n";
    assert_eq!(admission(""), (Admission::Tailnet, 0));
    assert_eq!(admission("admit = \"open\""), (Admission::Open, 0));
    assert_eq!(admission(ask), (by_url.clone(), 0));
    assert_eq!(admission(&format!("{ask}admit = \"url\"")), (by_url, 0));
    for slip in ["admit = \"url\"", "admit = \"keys\"", "admit = \"opne\""] {
        assert_eq!(admission(slip), (Admission::Tailnet, 1), "{slip}");
    }
    // It may have been the URL, which may admit fewer.
    let slip = format!("{ask}admit = \"tailent\"");
    let nobody = Admission::Keys(Vec::new());
    assert_eq!(admission(&slip), (nobody.clone(), 1));
    for slip in [
        "admit_url = 5",
        "admit = \"keys\"\nadmit_keys = [\"nodekey:1\"]",
    ] {
        assert_eq!(admission(slip), (nobody.clone(), 1), "{slip}");
    }
}

#[test]
fn relay_settings_that_require_others_are_named() {
    let config = from_text(
        "[derp]\nmesh_with = [\"https://a.example\"]\nstun_lan_as_wan = true\nregion_score = 0.001\n",
    );
    assert_eq!(
        warnings(&config),
        [
            "hearth.toml:2:1: `derp.mesh_with` requires `derp.mesh_key_file` (ignored)",
            "hearth.toml:4:16: invalid value for `derp.region_score`: expected a factor from 0.01 to 100, such as `0.5` (using the default)",
        ]
    );
    assert!(config.derp.mesh_with.is_empty());
    assert!(
        config.derp.stun_lan_as_wan,
        "the public address is known otherwise"
    );
    let score = from_text("[derp]\nregion_score = 0.5\n").derp.region_score;
    assert_eq!(score.map(|score| score.factor()), Some(0.5));
}

#[test]
fn an_empty_list_of_addresses_is_not_the_same_as_none() {
    let addresses = |text: &str| {
        let config = from_text(&format!("[clients]\n{text}"));
        (config.clients.addresses, config.warnings.len())
    };
    assert_eq!(addresses(""), (None, 0));
    assert_eq!(addresses("addresses = []\n"), (Some(Vec::new()), 0));
    let one = "::1".parse().unwrap();
    assert_eq!(addresses("addresses = [\"::1\"]\n"), (Some(vec![one]), 0));
    assert_eq!(addresses("addresses = [\"home\"]\n"), (Some(Vec::new()), 1));
    let both = "addresses = [\"home\", \"::1\"]\n";
    assert_eq!(addresses(both), (Some(vec![one]), 1));
    let bad = from_text("[clients]\nlatest_version = \"new\"\n");
    assert_eq!(bad.clients.latest_version, None);
    assert_eq!(bad.warnings.len(), 1);
}

#[test]
fn the_base_domain_makes_room_for_the_server() {
    let config = from_text("server_url = \"https://hearth.internal\"\n");
    assert_eq!(config.base_domain.as_str(), OTHER_BASE_DOMAIN);
    assert_eq!(warnings(&config), [""; 0]);
}

#[test]
fn the_computed_url_follows_the_listeners() {
    let url = |text: &str| from_text(text).server_url.to_string();
    assert_eq!(
        url("[listen]\nhttp = \"off\"\n"),
        "https://192.168.1.1:8443"
    );
    assert_eq!(
        url("[listen]\nhttp = \"127.0.0.1:99\"\n"),
        "http://127.0.0.1:99"
    );
    let alone = Config::build(
        RawConfig::empty(),
        Overrides::default(),
        &Surroundings::default(),
    );
    assert_eq!(alone.server_url.as_str(), "http://127.0.0.1:8080");
    assert_eq!(warnings(&alone), [""; 0]);
    assert!(alone.follows_lan_address());
    assert!(!from_text("[listen]\nhttp = \"127.0.0.1:99\"\n").follows_lan_address());
    assert!(!from_text("server_url = \"http://192.168.1.1\"\n").follows_lan_address());
}

#[test]
fn data_goes_where_the_user_may_write() {
    let mut user = Surroundings {
        home: Some("/home/a".into()),
        ..Surroundings::default()
    };
    assert_eq!(
        user.default_data_dir(),
        Path::new("/home/a/.local/share/hearth")
    );
    user.data_home = Some("/data".into());
    assert_eq!(user.default_data_dir(), Path::new("/data/hearth"));
}

#[test]
fn on_openwrt_the_data_directory_is_that_of_the_package() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hearth");
    assert_eq!(openwrt_data(&file), None);
    std::fs::write(&file, "config hearth 'server'\n\t#option data_dir '/x'\n").unwrap();
    let root = |openwrt_data| Surroundings {
        is_root: true,
        openwrt_data,
        ..Surroundings::default()
    };
    let default = |file: &Path| root(openwrt_data(file)).default_data_dir();
    assert_eq!(default(&file), Path::new("/etc/hearth/data"));
    std::fs::write(
        &file,
        "config hearth 'server'\n\toption data_dir '/mnt/usb/hearth'\n",
    )
    .unwrap();
    assert_eq!(default(&file), Path::new("/mnt/usb/hearth"));
    assert_eq!(root(None).default_data_dir(), Path::new(SYSTEM_DATA_DIR));
}

/// The example with its settings in force: a setting is `#key = value`, prose has a blank after
/// the `#`.
fn example_in_force() -> String {
    let example = include_str!("../../hearth.example.toml");
    let lines = example.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|first: char| first.is_ascii_lowercase()) => rest,
        _ => line,
    });
    lines.fold(String::new(), |text, line| text + line + "\n")
}

/// Keys whose default is not a constant: the example shows what they look like.
const COMPUTED: [&str; 37] = [
    "server_url",
    "data_dir",
    "socket",
    "tls.cert_file",
    "tls.key_file",
    "dns.nameservers",
    "dns.router",
    "dns.lan_domain",
    "dns.split",
    "dns.search_domains",
    "dns.records",
    "dns.records_file",
    "dns.wildcard",
    "dns.rules",
    "derp.host_name",
    "derp.ipv4",
    "derp.ipv6",
    "derp.port",
    "derp.stun_port",
    "derp.region_score",
    "derp.admit_url",
    "derp.admit_keys",
    "derp.mesh_with",
    "derp.mesh_key_file",
    "derp.map_files",
    "derp.map_urls",
    "policy.file",
    "clients.addresses",
    "clients.latest_version",
    "wan.interface",
    "wan.ipv4",
    "wan.ipv6",
    "wan.stun_servers",
    "wan.on_change",
    "backup.directory",
    "backup.command",
    "backup.recipients",
];

#[test]
fn the_example_documents_every_key_and_nothing_else() {
    let example = RawConfig::parse("hearth.example.toml".into(), &example_in_force());
    // Root runs no programs.
    let user = Surroundings {
        is_root: false,
        ..at_home()
    };
    let config = Config::build(example, Overrides::default(), &user);
    assert_eq!(warnings(&config), [""; 0]);

    let mut nothing = RawConfig::empty();
    let _ = Config::take(&mut nothing, Overrides::default(), &at_home());
    let documented = keys_of(&example_in_force());
    for key in nothing.known() {
        assert!(
            documented.iter().any(|name| name == key),
            "`{key}` is missing from the example"
        );
    }
}

#[test]
fn the_example_shows_the_defaults() {
    let text = example_in_force();
    let is_computed = |line: &&str| {
        let key = line.split_once('=').map(|(key, _)| key.trim());
        key.is_some_and(|key| COMPUTED.contains(&key))
    };
    let lines = text.lines().filter(|line| !is_computed(line));
    let without_computed = lines.fold(String::new(), |text, line| text + line + "\n");
    let defaults = Config::build(RawConfig::empty(), Overrides::default(), &at_home());
    assert_eq!(from_text(&without_computed), defaults);
}

#[test]
fn a_line_at_the_end_of_the_example_is_read() {
    let example = include_str!("../../hearth.example.toml");
    let config = from_text(&format!(
        "{example}server_url = \"https://a.example\"\nlisten.https = \":443\"\n"
    ));
    assert_eq!(warnings(&config), [""; 0]);
    assert_eq!(config.server_url.as_str(), "https://a.example");
    assert_eq!(config.listen.https.map(|https| https.port()), Some(443));
    let section = from_text(&format!("{example}[node]\napproval = true\n"));
    assert_eq!(warnings(&section), [""; 0]);
    assert!(section.node.approval);
}

#[test]
fn a_line_inside_of_another_section_is_named_with_the_section_it_belongs_to() {
    let lines = [
        (
            "server_url = \"https://a.example\"",
            "`limits.server_url`",
            "`server_url` belongs above the first [section]",
        ),
        (
            "listen.https = \":443\"",
            "`limits.listen.https`",
            "`listen.https` belongs under [listen] (line 1)",
        ),
        (
            "https = \":443\"",
            "`limits.https`",
            "`listen.https` belongs under [listen] (line 1)",
        ),
        (
            "wan.ipv4 = \"203.0.113.1\"",
            "`limits.wan.ipv4`",
            "`wan.ipv4` belongs under [wan]",
        ),
        (
            "approval = true",
            "`limits.approval`",
            "`node.approval` belongs under [node]",
        ),
    ];
    for (line, name, belongs) in lines {
        let config = from_text(&format!("[listen]\n[limits]\nnodes = 7\n{line}\n"));
        let expected = format!(
            "hearth.toml:4:1: unknown key {name}: this line is inside [limits], which begins at line 2; {belongs}"
        );
        assert_eq!(warnings(&config)[0], expected);
    }
    // What would have another meaning in another section is not suggested.
    for line in [
        "listen = \"127.0.0.1:80\"",
        "file = \"/x\"",
        "port = 443",
        "ipv4 = \"::\"",
    ] {
        let config = from_text(&format!("[limits]\n{line}\n"));
        let key = line.split(' ').next().unwrap();
        let expected = format!("hearth.toml:2:1: unknown key `limits.{key}`");
        let found = warnings(&config);
        assert!(found.contains(&expected), "{found:?}");
    }
}

#[test]
fn a_base_domain_in_which_others_answer_is_not_used() {
    for domain in ["local", "home.local", "localhost", "x.ts.net", "onion"] {
        let config = from_text(&format!("base_domain = \"{domain}\"\n"));
        assert_eq!(config.base_domain.as_str(), DEFAULT_BASE_DOMAIN, "{domain}");
        let [warning] = &warnings(&config)[..] else {
            panic!("{:?}", config.warnings);
        };
        assert!(warning.contains("must not be"), "{warning}");
    }
    let com = from_text("base_domain = \"com\"\n");
    assert!(warnings(&com)[0].contains("top-level domain"));
    for domain in [
        "home.arpa.example",
        "hearth.internal",
        "lan",
        "tailnet",
        "a.example",
    ] {
        let config = from_text(&format!("base_domain = \"{domain}\"\n"));
        assert_eq!(warnings(&config), [""; 0], "{domain}");
        assert_eq!(config.base_domain.as_str(), domain);
    }
    let same = from_text("server_url = \"https://a.example\"\nbase_domain = \"a.example\"\n");
    assert_eq!(same.base_domain.as_str(), DEFAULT_BASE_DOMAIN);
}

#[test]
fn a_server_url_with_a_path_is_refused_with_the_way_out() {
    let config = from_text("server_url = \"https://a.example/hearth\"\n");
    let [warning] = &warnings(&config)[..] else {
        panic!("{:?}", config.warnings);
    };
    assert!(warning.contains("has a path"), "{warning}");
    assert!(
        warning.contains("a host name or port of its own"),
        "{warning}"
    );
    assert!(config.server_url_is_computed);
}

#[test]
fn the_example_as_it_is_changes_nothing() {
    let defaults = Config::build(RawConfig::empty(), Overrides::default(), &at_home());
    let example = from_text(include_str!("../../hearth.example.toml"));
    assert_eq!(example, defaults);
}

/// The dotted names of the keys in a text.
fn keys_of(text: &str) -> Vec<String> {
    let table: toml::Table = text.parse().unwrap();
    let mut keys = Vec::new();
    for (name, value) in &table {
        match value.as_table() {
            Some(section) => keys.extend(section.keys().map(|key| format!("{name}.{key}"))),
            None => keys.push(name.clone()),
        }
    }
    keys
}

#[test]
fn a_cgnat_address_inside_the_prefix_of_the_nodes_is_a_warning_with_advice() {
    let mut surroundings = at_home();
    surroundings.network.addresses.push(LocalAddress {
        interface: "wan".into(),
        address: Ipv4Addr::new(100, 71, 2, 3),
    });
    let config = |text: &str| {
        let raw = RawConfig::parse("hearth.toml".into(), text);
        Config::build(raw, Overrides::default(), &surroundings)
    };
    let collides = config("");
    let [warning] = &warnings(&collides)[..] else {
        panic!("{:?}", collides.warnings);
    };
    assert!(
        warning.starts_with("wan has the CGNAT address 100.71.2.3"),
        "{warning}"
    );
    let way_out = "prefixes.v4 = \"100.112.0.0/16\"";
    assert!(warning.contains(way_out), "{warning}");
    assert!(!collides.warnings.iter().any(Warning::is_of_configuration));
    assert_eq!(warnings(&config(way_out)), [""; 0]);
}

#[test]
fn json_says_the_same_as_toml() {
    let toml = "server_url = \"https://a.example\"\n[node]\napproval = true\nexpiry = \"90d\"\n\
                [dns]\nnameservers = [\"9.9.9.9\"]\nsplit = { \"corp.example\" = [] }\n\
                records = [{ name = \"nas\", value = \"192.168.1.2\" }]\n\
                rules = [{ target = [\"tag:kids\"], nameservers = [\"1.1.1.3\"] }]\n\
                [derp]\nregion_score = 0.5\nport = 443\n[limits]\nnodes = 64\nderp_pool = \"1MiB\"\n";
    let json = r#"{"server_url": "https:\/\/a.example", "node": {"approval": true, "expiry": "90d"},
        "dns": {"nameservers": ["9.9.9.9"], "split": {"corp.example": []},
            "records": [{"name": "nas", "value": "192.168.1.2"}],
            "rules": [{"target": ["tag:kids"], "nameservers": ["1.1.1.3"]}]},
        "derp": {"region_score": 0.5, "port": 443}, "limits": {"nodes": 64, "derp_pool": "1MiB"}}"#;
    let build = |name: &str, text| {
        let raw = RawConfig::parse(name.into(), text);
        Config::build(raw, Overrides::default(), &at_home())
    };
    let config = build("hearth.json", json);
    assert_eq!(warnings(&config), [""; 0]);
    assert_eq!(config, build("hearth.toml", toml));
}

fn with_board(text: &str, board: Option<&str>) -> Config {
    let flags = Overrides {
        board: board.map(str::to_owned),
        ..Overrides::default()
    };
    from_text_and_flags(text, flags)
}

#[test]
fn limits_follow_from_the_board_and_the_file_changes_single_ones() {
    let config = with_board("board = \"memory-128\"\n[limits]\nusers = 7\n", None);
    assert_eq!(warnings(&config), [""; 0]);
    assert_eq!((config.limits.users, config.board.limits.users), (7, 32));
    assert_eq!(config.limits.nodes, config.board.limits.nodes);
    let flag = with_board("board = \"memory-128\"\n", Some("memory-64"));
    assert_eq!(flag.board.name(), "memory-64");
    assert_eq!(from_text("").limits, Limits::default());
}

#[test]
fn an_unknown_board_and_limits_above_the_budget_are_warnings() {
    let unknown = with_board("\nboard = \"memory-129\"\n", None);
    assert_eq!(
        warnings(&unknown),
        [
            "hearth.toml:2:1: unknown board `memory-129`; did you mean `memory-128`? (using unknown); `hearth board list` shows all boards"
        ]
    );
    assert!(unknown.warnings.iter().all(Warning::is_of_configuration));
    let large = with_board(
        "[limits]\nmap_streams = 100\nconnections = 200\n",
        Some("memory-128"),
    );
    let [warning] = &large.warnings[..] else {
        panic!("{:?}", large.warnings);
    };
    assert!(!warning.is_of_configuration());
    let words = warning.to_string();
    assert!(words.starts_with("[limits] can use up to 20."), "{words}");
    assert!(
        words.contains("the budget of memory-128 is 14.0 MiB"),
        "{words}"
    );
    // An unknown machine has no memory budget.
    assert_eq!(
        warnings(&with_board("[limits]\nnodes = 16384\n", None)),
        [""; 0]
    );
}
