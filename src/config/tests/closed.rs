//! A slip in the configuration never opens anything.

use proptest::prelude::*;

use super::*;
use crate::config::wan::Publish;

/// What each of these files restricts: a section, a key and a value, more closed than the default or not.
const RIGHT: &[(&str, &str, &str)] = &[
    ("listen", "http", "\"127.0.0.1:8080\""),
    ("listen", "http", "\"off\""),
    ("listen", "https", "\"192.168.1.1:8443\""),
    ("listen", "stun", "\"off\""),
    ("prefixes", "v4", "\"100.100.0.0/16\""),
    ("prefixes", "v6", "\"fd7a:115c:a1e0:ab::/64\""),
    ("node", "expiry", "\"90d\""),
    ("node", "expiry", "\"1d\""),
    ("node", "approval", "true"),
    ("derp", "enabled", "false"),
    ("derp", "stun_only", "true"),
    ("derp", "admit", "\"tailnet\""),
    ("derp", "admit_url", "\"https://home.example/verify\""),
    (
        "derp",
        "admit_keys",
        "[\"nodekey:0000000000000000000000000000000000000000000000000000000000000001\"]",
    ),
    ("derp", "admit_fail_open", "false"),
    ("policy", "file", "\"/etc/hearth/policy.hujson\""),
    ("clients", "addresses", "[]"),
    ("clients", "addresses", "[\"203.0.113.5\"]"),
    ("wan", "publish", "\"never\""),
    ("wan", "ipv4", "\"203.0.113.5\""),
    ("wan", "port_mapping", "false"),
    ("metrics", "listen", "\"127.0.0.1:9090\""),
    ("limits", "derp_client_rate", "\"1MiB\""),
    ("limits", "derp_total_rate", "1048576"),
];

/// What `now` allows and `right` does not.
fn opened(right: &Config, now: &Config) -> Vec<&'static str> {
    let listener =
        |right: Option<SocketAddr>, now: Option<SocketAddr>| now.is_some() && now != right;
    let relays = |config: &Config| config.derp.enabled && !config.derp.is_stun_only;
    let rate = |right: usize, now: usize| right != 0 && (now == 0 || now > right);
    let (old, new) = (&right.wan, &now.wan);
    let published = |wan: &WanSettings| (wan.publish, wan.ipv4);
    let is_range_lost = now.prefixes.is_lost;
    let checks = [
        ("http", listener(right.listen.http, now.listen.http)),
        ("https", listener(right.listen.https, now.listen.https)),
        ("stun", listener(right.listen.stun, now.listen.stun)),
        ("metrics", listener(right.metrics, now.metrics)),
        ("prefixes", !is_range_lost && now.prefixes != right.prefixes),
        (
            "expiry",
            right
                .node
                .expiry
                .is_some_and(|right| now.node.expiry.is_none_or(|now| now > right)),
        ),
        ("approval", right.node.approval && !now.node.approval),
        ("relay", relays(now) && !relays(right)),
        (
            "admission",
            !is_within(&now.derp.admission, &right.derp.admission),
        ),
        (
            "policy",
            right.policy.is_configured() && !now.policy.is_configured(),
        ),
        (
            "addresses",
            right.clients.addresses.as_ref().is_some_and(|right| {
                let now = now.clients.addresses.as_ref();
                now.is_none_or(|now| now.iter().any(|ip| !right.contains(ip)))
            }),
        ),
        (
            "publish",
            new.publish != Publish::Never && published(new) != published(old),
        ),
        ("mapping", new.port_mapping && !old.port_mapping),
        (
            "rate",
            rate(right.limits.derp_client_rate, now.limits.derp_client_rate),
        ),
        (
            "total",
            rate(right.limits.derp_total_rate, now.limits.derp_total_rate),
        ),
    ];
    let open = checks.into_iter().filter(|(_, is_open)| *is_open);
    open.map(|(what, _)| what).collect()
}

/// Whether the first admits only clients that the second admits.
fn is_within(now: &Admission, right: &Admission) -> bool {
    match (now, right) {
        (Admission::Keys(now), Admission::Keys(right)) => now.iter().all(|key| right.contains(key)),
        (Admission::Keys(none), _) if none.is_empty() => true,
        (_, Admission::Open) | (Admission::Tailnet, Admission::Tailnet) => true,
        // A slip in a URL may make another one.
        (Admission::Url { is_fail_open, .. }, Admission::Url { .. }) => !is_fail_open,
        _ => false,
    }
}

fn check(right: &Config, text: &str, name: &str) -> Config {
    let raw = RawConfig::parse(name.into(), text);
    let now = Config::build(raw, Overrides::default(), &at_home());
    assert_eq!(opened(right, &now), [""; 0], "{text}\n{:?}", now.warnings);
    now
}

#[test]
fn every_key_is_in_the_table() {
    let mut raw = RawConfig::empty();
    let _ = Config::take(&mut raw, Overrides::default(), &at_home());
    for key in raw.known() {
        assert!(is_known(key), "{key}");
    }
}

#[test]
fn words_that_people_write_are_understood() {
    let approval = |text: &str| {
        let config = from_text(&format!("[node]\napproval = {text}\n"));
        (config.node.approval, config.warnings.len())
    };
    for yes in [
        "true",
        "1",
        "\"yes\"",
        "\"On\"",
        "\"1\"",
        "\"true\"",
        "\" YES \"",
    ] {
        assert_eq!(approval(yes), (true, 0), "{yes}");
    }
    for no in ["false", "0", "\"no\"", "\"off\""] {
        assert_eq!(approval(no), (false, 0), "{no}");
    }
    let expiry = |text: &str| {
        let config = from_text(&format!("[node]\nexpiry = {text}\n"));
        (
            config.node.expiry.map(value::show_duration),
            config.warnings.len(),
        )
    };
    for (text, days) in [
        ("\"180 days\"", "180d"),
        ("\"180D\"", "180d"),
        ("\"2 weeks\"", "14d"),
    ] {
        assert_eq!(expiry(text), (Some(days.to_owned()), 0), "{text}");
    }
    for never in ["\"never\"", "\"Never\"", "0", "\"none\""] {
        assert_eq!(expiry(never), (None, 0), "{never}");
    }
    for slip in [
        "180",
        "\"-1d\"",
        "\"soon\"",
        "true",
        "\"9999y\"",
        "\"180\"",
        "[]",
        "\"1M\"",
    ] {
        assert_eq!(expiry(slip), (Some("1d".to_owned()), 1), "{slip}");
    }
}

#[test]
fn a_damaged_listener_is_off_and_not_everywhere() {
    for slip in [
        "\"127.0.0.1:80800\"",
        "\"127.0.0.1\"",
        "\"\"",
        "70000",
        "true",
        "[]",
        "\"localhost\"",
    ] {
        for key in ["http", "https", "stun"] {
            let config = from_text(&format!("[listen]\n{key} = {slip}\n"));
            let listen = &config.listen;
            let found = [
                ("http", listen.http),
                ("https", listen.https),
                ("stun", listen.stun),
            ];
            let found = found.iter().find(|(name, _)| *name == key);
            assert_eq!(
                found.and_then(|(_, address)| *address),
                None,
                "{key} = {slip}"
            );
            let warning = &warnings(&config)[0];
            assert!(
                warning.ends_with(&format!("(until it is fixed: `listen.{key}` is off)")),
                "{warning}"
            );
        }
    }
    let localhost = from_text("[listen]\nhttp = \"localhost:8080\"\n");
    assert_eq!(localhost.listen.http, "127.0.0.1:8080".parse().ok());
    assert_eq!(warnings(&localhost), [""; 0]);
}

#[test]
fn unknown_sections_and_keys_close_what_they_may_mean() {
    for (text, closed) in [
        ("[polcy]\nfile = \"/p\"\n", "the last valid policy"),
        ("[policies]\nfile = \"/p\"\n", "the last valid policy"),
        (
            "[policy]\npath = \"/p\"\nfiel = \"/p\"\n",
            "the last valid policy",
        ),
        ("[nodes]\napproval = true\n", "need approval"),
        ("[node]\ndevice_approval = true\n", "need approval"),
        ("approval = true\n", "need approval"),
        (
            "[limits]\nlisten.https = \":443\"\n",
            "`listen.https` is off",
        ),
        (
            "[server]\nhttp = \"127.0.0.1:80\"\n",
            "`listen.http` is off",
        ),
        ("[derp]\nadmit-keys = []\n", "the relay admits nobody"),
        ("[Policy]\nFile = \"/p\"\n", "the last valid policy"),
        // The names of Headscale, and those that suggest themselves.
        ("[policy]\npath = \"/p\"\n", "the last valid policy"),
        ("policy_file = \"/p\"\n", "the last valid policy"),
        ("acl_policy_path = \"/p\"\n", "the last valid policy"),
        ("listen_addr = \"127.0.0.1:8080\"\n", "`listen.http` is off"),
        (
            "[listen]\naddress = \"127.0.0.1\"\n",
            "`listen.stun` is off",
        ),
        (
            "[prefixes]\nipv4 = \"100.100.0.0/16\"\n",
            "no new device gets an address",
        ),
        ("[node]\nkey_expiry = \"90d\"\n", "expire after 1d"),
        ("[node]\nexpiration = \"90d\"\n", "expire after 1d"),
        ("node-expiry = \"90d\"\n", "expire after 1d"),
        ("[polcy]\npath = \"/p\"\n", "the last valid policy"),
        ("[policy.source]\npath = \"/p\"\n", "the last valid policy"),
        ("policyPath = \"/p\"\n", "the last valid policy"),
        ("acl = \"/p\"\n", "the last valid policy"),
        ("[wan]\nadvertise = false\n", "are not advertised"),
        (
            "[derp.server]\nverify_clients = true\n",
            "nodes of this tailnet at most",
        ),
        ("[derp.server]\nenabled = false\n", "the relay is off"),
        (
            "[derp.server]\nstun_listen_addr = \"127.0.0.1:3478\"\n",
            "`listen.stun` is off",
        ),
        ("ip_prefixes = [\"100.100.0.0/16\"]\n", "no new device"),
        // A value where a section belongs.
        ("policy = \"/p\"\n", "the last valid policy"),
        ("polcy = \"/p\"\n", "the last valid policy"),
        ("[[policy]]\nfile = \"/p\"\n", "the last valid policy"),
        ("listen = \"off\"\n", "`listen.stun` is off"),
        ("derp = false\n", "the relay is off"),
        ("prefixes = \"100.100.0.0/16\"\n", "no new device"),
        ("prefix = \"100.100.0.0/16\"\n", "no new device"),
    ] {
        let config = from_text(text);
        let all = warnings(&config);
        assert!(
            all.last().is_some_and(|last| last.contains(closed)),
            "{text}: {all:?}"
        );
    }
    // A word with another meaning closes nothing.
    for text in [
        "[log]\nfile = \"/var/log/x\"\n",
        "[tls]\nport = 443\n",
        "[colours]\nred = 1\n",
        "metrics_listen_addr = \"127.0.0.1:9090\"\n",
        "[tls]\nletsencrypt_listen = \":http\"\n",
        "[logtail]\nenabled = false\n",
        "[prefixes]\nallocation = \"random\"\n",
    ] {
        let config = from_text(text);
        assert_eq!(config.warnings.len(), 1, "{text}");
        assert!(!config.policy.is_configured(), "{text}");
    }
}

#[test]
fn a_name_that_spells_out_a_key_closes_that_one_alone() {
    let config = from_text("listen_http = \"127.0.0.1:8080\"\n");
    assert_eq!(config.listen.http, None);
    assert_eq!(config.listen.https, from_text("").listen.https);
    let config = from_text("[derp.server]\nstun_listen_addr = \"127.0.0.1:3478\"\n");
    assert_eq!(config.listen.stun, None);
    assert_eq!(config.listen.http, from_text("").listen.http);
}

#[test]
fn a_value_in_place_of_a_section_is_named_with_the_header() {
    let config = from_text("policy = \"/p\"\n");
    let first = &warnings(&config)[0];
    assert!(
        first.ends_with("unknown key `policy`; did you mean `[policy]`?"),
        "{first}"
    );
}

#[test]
fn a_file_with_a_syntax_error_closes_what_it_mentions_and_keeps_the_rest() {
    let broken =
        "server_url = https://a.example\n[node]\napproval tru\n[listen]\nhttp = \"127.0.0.1:99\"\n";
    let config = from_text(broken);
    assert!(config.is_broken && config.node.approval);
    assert_eq!(config.listen.http, "127.0.0.1:99".parse().ok());
    assert_eq!(config.listen.https.map(|https| https.port()), Some(8443));
    assert!(!config.policy.is_configured());
    let config = from_text("[policy]\nfile = /etc/hearth/policy.hujson\n");
    assert!(config.policy.is_lost && config.policy.file.is_none());
    // Lines that are read mean only what they say.
    let config = from_text(
        "server_url = x\n[derp]\nipv4 = \"203.0.113.1\"\nadmit_url = \"https://a.example\"\n[limits]\nderp_admit_cache = 64\n",
    );
    assert_eq!(config.wan.publish, Publish::Auto);
    assert!(matches!(config.derp.admission, Admission::Url { .. }));
    // What stands below a broken header is in no section.
    let config = from_text("[tls]\n[node\napproval = true\n[metrics]\nlisten = \"127.0.0.1:9\"\n");
    assert!(config.node.approval && config.metrics == "127.0.0.1:9".parse().ok());
    let twice = from_text("[node]\napproval = false\n[derp]\n[node]\nexpiry = \"90d\"\n");
    assert!(
        warnings(&twice)[0].contains("section [node] is defined above"),
        "{:?}",
        twice.warnings
    );
    assert_eq!(twice.node.expiry, Some(DAMAGED_EXPIRY));
    // Two lines contradict each other.
    let config = from_text("[node]\napproval = false\napproval = true\n");
    assert!(config.node.approval);
}

#[test]
fn a_file_that_cannot_be_read_closes_everything_and_the_server_starts() {
    let flags = Overrides {
        config: Some("/nonexistent/hearth.toml".into()),
        ..Overrides::default()
    };
    let config = Config::load(flags.clone(), &at_home());
    let listen = &config.listen;
    assert_eq!((listen.http, listen.https, listen.stun), (None, None, None));
    assert!(config.is_broken && config.node.approval && config.policy.is_lost);
    assert_eq!(config.node.expiry, Some(DAMAGED_EXPIRY));
    assert_eq!(config.derp.admission, Admission::Keys(Vec::new()));
    assert!(
        warnings(&config)
            .iter()
            .any(|warning| warning.contains("cannot be read"))
    );
    // A flag takes precedence, and what it sets is not lost.
    let http = "127.0.0.1:99".parse().ok();
    let config = Config::load(Overrides { http, ..flags }, &at_home());
    assert_eq!(config.listen.http, "127.0.0.1:99".parse().ok());
    assert!(
        !warnings(&config)
            .iter()
            .any(|warning| warning.contains("`listen.http` is off"))
    );
}

#[test]
fn a_value_of_another_type_opens_nothing() {
    for (section, key, value) in RIGHT {
        let right = from_text(&format!("[{section}]\n{key} = {value}\n"));
        assert_eq!(warnings(&right), [""; 0], "{section}.{key}");
        let others = [
            "{}",
            "[5]",
            "1.5",
            "2026-01-01",
            "\"?\"",
            "\"\"",
            "-7",
            "[[]]",
            "{ x = 1 }",
            "",
        ];
        for other in others {
            check(
                &right,
                &format!("[{section}]\n{key} = {other}\n"),
                "hearth.toml",
            );
            check(
                &right,
                &format!("{section}.{key} = {other}\n"),
                "hearth.toml",
            );
        }
    }
}

/// Ways to spell a key in valid TOML, other than the right one.
const SPELLINGS: usize = 17;

/// One of them.
fn spelling(which: usize, section: &str, key: &str, value: &str, place: usize) -> String {
    let slip = |word: &str| {
        let mut slipped = word.to_owned();
        // Not the first letter: it may be all that tells two sections apart.
        slipped.insert(1 + place % (word.len() - 1), 'x');
        slipped
    };
    let big = |word: &str| {
        let (first, rest) = word.split_at(1);
        format!("{}{rest}", first.to_uppercase())
    };
    let header = |section: &str, key: &str| format!("[{section}]\n{key} = {value}\n");
    let top = |key: &str| format!("{key} = {value}\n");
    let dashes = |word: &str| word.replace('_', "-");
    match which {
        0 => top(section),
        1 => top(&slip(section)),
        2 => top(&big(section)),
        3 => format!("[[{section}]]\n{key} = {value}\n"),
        4 => format!("[[{}]]\n{key} = {value}\n", slip(section)),
        5 => format!("{section} = [{{ {key} = {value} }}]\n"),
        6 => top(&format!("{section}_{key}")),
        7 => top(&format!("{section}-{}", dashes(key))),
        8 => top(&format!("\"{section}.{key}\"")),
        9 => top(&format!("{section}{}", big(key))),
        10 => top(&format!(
            "{}_{}",
            section.to_uppercase(),
            key.to_uppercase()
        )),
        11 => header("server", &format!("{section}_{key}")),
        12 => header(&format!("server.{section}"), key),
        13 => header(section, &format!("my_{key}")),
        14 => header(section, &format!("{key}_x")),
        15 => header(section, &format!("x.{key}")),
        16.. => header(section, &format!("server.{}", big(key))),
    }
}

#[test]
fn another_spelling_of_a_key_opens_nothing() {
    for (section, key, value) in RIGHT {
        let right = from_text(&format!("[{section}]\n{key} = {value}\n"));
        for which in 0..SPELLINGS {
            for place in 0..section.len() {
                let text = spelling(which, section, key, value, place);
                check(&right, &text, "hearth.toml");
            }
        }
    }
}

/// Damage to a text at a place, by a word or by cutting off what follows.
#[derive(Debug, Clone)]
enum Slip {
    Insert(&'static str),
    Delete,
    CutOff,
}

fn slip() -> impl Strategy<Value = Slip> {
    let words = prop::sample::select(vec!["x", "\u{a7}", "\"", "[", "=", " x", "{"]);
    prop_oneof![
        4 => words.prop_map(Slip::Insert),
        2 => Just(Slip::Delete),
        1 => Just(Slip::CutOff),
    ]
}

/// A file that closes everything.
const WHOLE: &str = "\
base_domain = \"a.example\"
[listen]
http = \"127.0.0.1:8080\"
https = \"off\"
stun = \"off\"
[prefixes]
v4 = \"100.100.0.0/16\"
[node]
expiry = \"90d\"
approval = true
[dns]
nameservers = [\"9.9.9.9\", \"1.1.1.1\"]
rules = [{ target = [\"tag:kids\"], nameservers = [\"1.1.1.3\"] }]
[derp]
enabled = false
admit = \"tailnet\"
[policy]
file = \"/etc/hearth/policy.hujson\"
[clients]
addresses = []
[wan]
publish = \"never\"
port_mapping = false
[limits]
nodes = 50
derp_total_rate = \"1MiB\"
";

/// A file with values that go over lines, and so many lines of comments before and in it.
fn with_comments(lines: usize) -> String {
    let comment = "# A line of a comment, as the example file has many of them.\n".repeat(lines);
    let text = WHOLE
        .replace(
            "[listen]\n",
            "data_dir = \"\"\"\n/srv/hearth\"\"\"\n[listen]\n",
        )
        .replace("[\"9.9.9.9\", ", "[\n  \"9.9.9.9\", # one\n  ")
        .replace("admit = \"tailnet\"", "admit_keys = [\n]");
    let (first, second) = text.split_once("[policy]").unwrap();
    format!("{comment}{first}{comment}[policy]{second}")
}

/// The configuration in a file of this name with these bytes.
#[expect(clippy::disallowed_methods, reason = "nobody misses a file of a test")]
fn loaded(name: &str, bytes: &[u8]) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let flags = Overrides {
        config: Some(path),
        ..Overrides::default()
    };
    Config::load(flags, &at_home())
}

#[test]
fn a_file_that_was_emptied_closes_everything_and_the_warning_names_the_way_out() {
    let right = from_text(WHOLE);
    let blank: [&[u8]; 7] = [
        b"",
        b"\n",
        b" \t\r\n\n",
        b"\0",
        &[0; 4096],
        b"\n\0\0\0",
        "\u{feff}".as_bytes(),
    ];
    for bytes in blank {
        for (name, fill) in [("hearth.toml", "`# no settings`"), ("hearth.json", "`{}`")] {
            let config = loaded(name, bytes);
            assert_eq!(opened(&right, &config), [""; 0], "{name} {bytes:?}");
            let listen = &config.listen;
            assert_eq!((listen.http, listen.https, listen.stun), (None, None, None));
            assert!(config.is_broken && config.policy.is_lost && config.node.approval);
            let all = warnings(&config);
            let named = all.iter().find(|text| text.contains("the file is empty"));
            assert!(
                named.is_some_and(|text| text.contains(name) && text.contains(fill)),
                "{all:?}"
            );
        }
    }
}

#[test]
fn a_file_without_settings_has_the_defaults() {
    let defaults = from_text("");
    let example = include_str!("../../../hearth.example.toml");
    let fills = ["# no settings", "#\n", "# one\n\n# two\n", example];
    for text in fills.map(|text| format!("{}\n", text.trim_end())) {
        let mut config = loaded("hearth.toml", text.as_bytes());
        assert!(config.file.take().is_some());
        assert_eq!(warnings(&config), [""; 0], "{text}");
        assert_eq!(config, defaults, "{text}");
    }
    for text in ["{}", "{}\n", "// none\n{\n}\n"] {
        let config = loaded("hearth.json", text.as_bytes());
        assert_eq!(warnings(&config), [""; 0], "{text}");
        assert!(config.listen.http.is_some() && !config.is_closed);
    }
    // Named by those who want to have no settings.
    let flags = Overrides {
        config: Some("/dev/null".into()),
        ..Overrides::default()
    };
    let config = Config::load(flags, &at_home());
    assert_eq!(
        (warnings(&config).len(), config.listen),
        (0, defaults.listen)
    );
}

/// What is left of a file opens nothing, unless it is a whole file by itself: then the lines that it has count.
#[test]
fn a_file_that_was_cut_off_opens_nothing() {
    let whole = with_comments(1);
    let right = from_text(&whole);
    assert_eq!(warnings(&right), [""; 0]);
    let mut closed = 0;
    for end in 0..whole.len() {
        let cut = &whole[..end];
        let now = match end {
            0 => loaded("hearth.toml", b""),
            _ => from_text(cut),
        };
        if now.is_broken {
            assert_eq!(opened(&right, &now), [""; 0], "{cut}\n{:?}", now.warnings);
            closed += 1;
            continue;
        }
        let lines = &cut[..cut.rfind('\n').map_or(0, |at| at + 1)];
        let before = from_text(lines);
        let lost = opened(&right, &before);
        let more = opened(&right, &now);
        let is_lost = |what: &&str| before.is_broken || lost.contains(what);
        assert!(more.iter().all(is_lost), "{cut}\n{more:?}");
    }
    // Most cuts are within a line.
    assert!(closed > WHOLE.len() / 2, "{closed}");
}

#[test]
fn a_json_file_that_was_cut_off_opens_nothing() {
    let whole = r#"{
  // What programs write.
  "listen": {"http": "127.0.0.1:8080", "https": "off", "stun": "off"},
  "prefixes": {"v4": "100.100.0.0\/16"},
  "dns": {"nameservers": ["9.9.9.9", "1.1.1.1"], "search_domains": ["a\"}].example"]},
  "node": {"expiry": "90d", "approval": true}, /* more */
  "policy": {"file": "/etc/hearth/policy.hujson"}
}"#;
    let of = |text: &str| {
        let raw = RawConfig::parse("hearth.json".into(), text);
        Config::build(raw, Overrides::default(), &at_home())
    };
    let right = of(whole);
    assert!(right.policy.is_configured() && right.node.approval);
    for end in 1..whole.len() {
        let now = of(&whole[..end]);
        assert!(now.is_broken);
        assert_eq!(opened(&right, &now), [""; 0], "{}", &whole[..end]);
    }
}

#[test]
fn blocks_of_nul_bytes_open_nothing() {
    const BLOCK: usize = 4096;
    let text = with_comments(80);
    let (whole, right) = (text.as_bytes(), from_text(&text));
    assert_eq!(warnings(&right), [""; 0]);
    let json = r#"{"node": {"approval": true}, "policy": {"file": "/p"}}"#;
    assert!(whole.len() > 2 * BLOCK);
    for start in (0..whole.len()).step_by(BLOCK) {
        for end in [whole.len().min(start + BLOCK), whole.len()] {
            let mut damaged = whole.to_vec();
            damaged[start..end].fill(0);
            let config = loaded("hearth.toml", &damaged);
            assert_eq!(opened(&right, &config), [""; 0], "{start}..{end}");
            let all = warnings(&config).join("\n");
            assert!(all.contains("as after a power failure"), "{all}");
        }
    }
    for start in 0..json.len() {
        let mut damaged = json.as_bytes().to_vec();
        damaged[start..].fill(0);
        let config = loaded("hearth.json", &damaged);
        assert!(config.node.approval && config.policy.is_lost, "{start}");
    }
}

/// A slip in the last line is one of that line alone if the line was ended, which a file that was cut off seldom has.
#[test]
fn a_slip_in_a_last_line_that_is_ended_closes_what_it_means_alone() {
    let config = from_text("[node]\napproval = tru\n");
    assert!(config.node.approval && config.listen.http.is_some());
    assert!(!config.policy.is_configured());
    let config = from_text("[node]\napproval = tru");
    assert!(config.node.approval && config.listen.http.is_none() && config.policy.is_lost);
    let all = warnings(&config);
    assert!(
        all.iter()
            .any(|warning| warning.starts_with("hearth.toml:2:15: the file ends too early")),
        "{all:?}"
    );
    // A slip further up is none of the end.
    let config = from_text("[node]\napproval = tru\n[dns]\nmagic_dns = true");
    assert!(config.listen.http.is_some());
}

proptest! {
    #[test]
    fn no_slip_in_a_whole_file_opens_anything(
        word in prop::sample::select(vec!["x", "\u{a7}", "\"", "[", "]", "=", " x", "{", "\"\"\"", "'"]),
        place in any::<prop::sample::Index>(),
    ) {
        let right = from_text(WHOLE);
        assert_eq!(warnings(&right), [""; 0]);
        let mut damaged = WHOLE.to_owned();
        damaged.insert_str(place.index(WHOLE.len()), word);
        check(&right, &damaged, "hearth.toml");
    }

    #[test]
    fn no_slip_of_the_pen_opens_anything(
        (section, key, value) in prop::sample::select(RIGHT),
        slip in slip(),
        place in any::<prop::sample::Index>(),
    ) {
        let head = format!("[{section}]\n{key}");
        let text = format!("{head} = {value}\n");
        let right = from_text(&text);
        let mut damaged = text.clone();
        match slip {
            Slip::Insert(word) => {
                // Not before the header, and not in the middle of an escape.
                let at = 1 + place.index(text.len() - 2);
                damaged.insert_str(at, word);
            }
            // Without one of its digits a value is another valid one.
            Slip::Delete => {
                damaged.remove(place.index(head.len()));
            }
            // Of a word, three letters must be left.
            Slip::CutOff => {
                let from = section.len() + 3 + key.len().min(3);
                damaged.truncate(from + place.index(text.len() - from));
            }
        }
        // That is another key.
        prop_assume!(!damaged.contains("http = \"192.168.1.1"));
        let now = check(&right, &damaged, "hearth.toml");
        prop_assert!(!now.data_dir.as_os_str().is_empty());
    }

    #[test]
    fn no_slip_in_a_json_file_opens_anything(
        (section, key, value) in prop::sample::select(RIGHT),
        place in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let head = format!("{{\"{section}\": {{\"{key}\": ");
        let text = format!("{head}{value}}}}}");
        let name = "hearth.json";
        let raw = RawConfig::parse(name.into(), &text);
        let right = Config::build(raw, Overrides::default(), &at_home());
        let mut damaged = text.clone();
        let from = head.len() - 1;
        match is_cut {
            true => damaged.truncate(from + place.index(text.len() - from)),
            false => damaged.insert(from + place.index(text.len() - from), 'x'),
        }
        check(&right, &damaged, name);
    }
}
