//! The `[dns]` section: resolvers, rules and extra records.

use std::collections::BTreeMap;

use super::fault::ConfigFault;
use super::file::RawConfig;
use super::name::DnsName;
use super::raw::RawTable;
use super::value::{List, Setting};
use hearth_core::state::dns::{
    DnsRecord, DnsRule, DnsSettings, Nameserver, RECORDS_MAX, Resolution,
};

const SPLIT: &str = "dns.split";
const RECORDS: &str = "dns.records";
const RULES: &str = "dns.rules";

/// Most rules: each is evaluated for every node.
const RULES_MAX: usize = 64;

/// Takes the section from a configuration file.
pub(super) fn take(raw: &mut RawConfig) -> DnsSettings {
    let split = raw.take(SPLIT);
    let usual = Resolution {
        nameservers: list(raw.take("dns.nameservers")),
        use_router: raw.take("dns.use_router").unwrap_or(false),
        override_local_dns: raw.take("dns.override_local_dns").unwrap_or(true),
        use_with_exit_node: raw.take("dns.use_with_exit_node").unwrap_or(false),
        split: split.map(|table| routes(raw, table)).unwrap_or_default(),
        search_domains: domains(raw.take("dns.search_domains")),
    };
    let lan_domain: Option<DnsName> = raw.take("dns.lan_domain");
    DnsSettings {
        magic_dns: raw.take("dns.magic_dns").unwrap_or(true),
        rules: rules(raw, &usual),
        usual,
        router: raw.take("dns.router").unwrap_or_default(),
        lan_domain: lan_domain.map(|domain| domain.as_str().into()),
        records: records(raw),
        records_file: raw.take("dns.records_file"),
        wildcard: list(raw.take("dns.wildcard")),
    }
}

fn list<T>(value: Option<List<T>>) -> Vec<T> {
    value.map(|List(items)| items).unwrap_or_default()
}

fn domains(value: Option<List<DnsName>>) -> Vec<Box<str>> {
    let domains = list(value).into_iter();
    domains.map(|domain| domain.as_str().into()).collect()
}

/// Split DNS: the resolvers of each domain.
fn routes(raw: &mut RawConfig, mut table: RawTable) -> BTreeMap<Box<str>, Vec<Nameserver>> {
    let mut routes = BTreeMap::new();
    for name in table.names() {
        let Ok(domain) = name.parse::<DnsName>() else {
            skip(
                raw,
                SPLIT,
                &table,
                format!("{name:?} is not a valid DNS name"),
            );
            continue;
        };
        // A typo must not become an empty list, which means that no resolver is asked.
        if let Some(List(nameservers)) = raw.take_from(&mut table, &name, SPLIT) {
            routes.insert(domain.as_str().into(), nameservers);
        }
    }
    routes
}

fn records(raw: &mut RawConfig) -> Vec<DnsRecord> {
    let mut records = Vec::new();
    for mut table in tables(raw, RECORDS, RECORDS_MAX) {
        let keys = ["name", "type", "value"];
        let texts = keys.map(|key| {
            let text: Option<String> = raw.take_from(&mut table, key, RECORDS);
            text.unwrap_or_default()
        });
        let [name, kind, value] = &texts;
        match DnsRecord::parse(name, kind, value) {
            Ok(record) => records.push(record),
            Err(fault) => skip(raw, RECORDS, &table, fault.to_string()),
        }
        raw.close_table(table, RECORDS, &keys);
    }
    records
}

fn rules(raw: &mut RawConfig, usual: &Resolution) -> Vec<DnsRule> {
    let mut rules = Vec::new();
    for table in tables(raw, RULES, RULES_MAX) {
        let mut resolution = usual.clone();
        let mut rule = Rule { raw, table };
        let target: Vec<String> = list(rule.take("target", "dns.rules.target"));
        if let Some(List(nameservers)) = rule.take("nameservers", "dns.rules.nameservers") {
            resolution.nameservers = nameservers;
            // A rule with resolvers uses those, unless it sets `use_router` itself.
            resolution.use_router = false;
        }
        if let Some(flag) = rule.take("use_router", "dns.rules.use_router") {
            resolution.use_router = flag;
        }
        if let Some(flag) = rule.take("override_local_dns", "dns.rules.override_local_dns") {
            resolution.override_local_dns = flag;
        }
        if let Some(flag) = rule.take("use_with_exit_node", "dns.rules.use_with_exit_node") {
            resolution.use_with_exit_node = flag;
        }
        if let Some(table) = rule.take("split", "dns.rules.split") {
            resolution.split = routes(rule.raw, table);
        }
        if let search @ Some(_) = rule.take("search_domains", "dns.rules.search_domains") {
            resolution.search_domains = domains(search);
        }
        let table = rule.table;
        match target.is_empty() {
            true => {
                let reason = "`target` is missing: the nodes that the rule applies to".to_owned();
                skip(raw, RULES, &table, reason);
            }
            false => {
                let target = target.into_iter().map(String::into_boxed_str).collect();
                rules.push(DnsRule { target, resolution });
            }
        }
        raw.close_table(table, RULES, &RULE_KEYS);
    }
    rules
}

/// The keys of a rule, for messages about unknown ones.
const RULE_KEYS: [&str; 7] = [
    "target",
    "nameservers",
    "use_router",
    "override_local_dns",
    "use_with_exit_node",
    "split",
    "search_domains",
];

/// A rule while it is read.
struct Rule<'a> {
    raw: &'a mut RawConfig,
    table: RawTable,
}

impl Rule<'_> {
    fn take<T: Setting>(&mut self, name: &str, key: &'static str) -> Option<T> {
        self.raw.take_from(&mut self.table, name, key)
    }
}

/// The tables of a list, at most `most`.
fn tables(raw: &mut RawConfig, key: &'static str, most: usize) -> Vec<RawTable> {
    let mut tables: Vec<RawTable> = list(raw.take(key));
    if let Some(first) = tables.get(most) {
        skip(raw, key, first, format!("more than {most} items"));
        tables.truncate(most);
    }
    tables
}

fn skip(raw: &mut RawConfig, key: &'static str, table: &RawTable, reason: String) {
    raw.warn_about(table, ConfigFault::BadItem { key, reason });
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::state::dns::Router;

    fn read(text: &str) -> (DnsSettings, Vec<String>) {
        let mut raw = RawConfig::parse("hearth.toml".into(), text);
        let settings = take(&mut raw);
        let warnings = raw.finish();
        (settings, warnings.iter().map(ToString::to_string).collect())
    }

    fn good(text: &str) -> DnsSettings {
        let (settings, warnings) = read(text);
        assert_eq!(warnings, [""; 0], "{text}");
        settings
    }

    #[test]
    fn an_empty_section_changes_nothing() {
        assert_eq!(good("[dns]\n"), DnsSettings::default());
    }

    #[test]
    fn lists_and_tables_are_read_in_both_toml_forms() {
        let inline = good(
            "[dns]\nsplit = { \"Corp.Example\" = [\"10.0.0.53\"], \"ads.example\" = [] }\n\
             records = [{ name = \"nas\", value = \"192.168.1.2\" }]\n\
             rules = [{ target = [\"tag:kids\"], nameservers = [\"1.1.1.3\"] }]\n",
        );
        let blocks = good(
            "[dns.split]\n\"corp.example\" = [\"10.0.0.53\"]\n\"ads.example\" = []\n\
             [[dns.records]]\nname = \"nas\"\ntype = \"A\"\nvalue = \"192.168.1.2\"\n\
             [[dns.rules]]\ntarget = [\"tag:kids\"]\nnameservers = [\"1.1.1.3\"]\n",
        );
        assert_eq!(inline, blocks);
        assert_eq!(inline.usual.split.len(), 2);
        assert_eq!((inline.records.len(), inline.rules.len()), (1, 1));
    }

    #[test]
    fn a_rule_changes_only_what_it_sets() {
        let settings = good(
            "[dns]\nuse_router = true\nnameservers = [\"9.9.9.9\"]\nrouter = \"tag:router\"\n\
             lan_domain = \"lan\"\nwildcard = [\"nas\", \"tag:web\"]\n\
             search_domains = [\"a.example\"]\n\
             [[dns.rules]]\ntarget = [\"group:x\", \"anna@\"]\nnameservers = [\"1.1.1.3\"]\n\
             [[dns.rules]]\ntarget = [\"*\"]\noverride_local_dns = false\n\
             split = { \"corp.example\" = [\"10.0.0.53\"] }\nsearch_domains = []\n",
        );
        assert!(matches!(settings.router, Router::Node(_)));
        assert_eq!(settings.wildcard.len(), 2);
        let [first, second] = &*settings.rules else {
            panic!("{:?}", settings.rules)
        };
        assert!(!first.resolution.use_router && first.resolution.override_local_dns);
        assert_eq!(&*first.resolution.search_domains[0], "a.example");
        assert!(second.resolution.use_router && !second.resolution.override_local_dns);
        assert_eq!(second.resolution.split.len(), 1);
        assert!(second.resolution.search_domains.is_empty());
    }

    #[test]
    fn one_invalid_item_of_a_list_voids_only_itself() {
        let (settings, warnings) = read(
            "[dns]\nnameservers = [\"9.9.9.9\",\n  \"dns.example\",\n  5, \"1.1.1.1\"]\n\
             wildcard = [\"a b\", \"tag:web\"]\n",
        );
        let resolvers: Vec<&str> = (settings.usual.nameservers.iter())
            .map(Nameserver::as_str)
            .collect();
        assert_eq!(resolvers, ["9.9.9.9", "1.1.1.1"]);
        assert_eq!(settings.wildcard.len(), 1);
        let expected = "expected a list of DNS resolvers, each an address such as `192.168.1.1` or an `https://` URL";
        assert_eq!(
            warnings[..2],
            [
                format!(
                    "hearth.toml:3:3: invalid item in `dns.nameservers` (skipped): \"dns.example\"; {expected}"
                ),
                format!(
                    "hearth.toml:4:3: invalid item in `dns.nameservers` (skipped): 5; {expected}"
                ),
            ]
        );
        assert!(
            warnings[2]
                .starts_with("hearth.toml:5:13: invalid item in `dns.wildcard` (skipped): \"a b\"")
        );
        assert_eq!(warnings.len(), 3);
    }

    #[test]
    fn faults_are_named_and_the_rest_is_used() {
        let (settings, warnings) = read(
            "[dns]\nnameservers = [\"dns.example\"]\n\
             [dns.split]\n\"a b\" = [\"10.0.0.1\"]\n\"c.example\" = \"10.0.0.1\"\n\"d.example\" = [\"10.0.0.1\"]\n\
             [[dns.records]]\nname = \"nas\"\nvalue = \"192.168.1.2\"\nttl = 5\n\
             [[dns.records]]\nname = \"nas\"\nvalues = \"192.168.1.2\"\n\
             [[dns.rules]]\nnameservers = [\"1.1.1.3\"]\n",
        );
        assert_eq!(
            warnings,
            [
                "hearth.toml:2:15: invalid value for `dns.nameservers`: expected a list of DNS resolvers, each an address such as `192.168.1.1` or an `https://` URL (using the default)",
                "hearth.toml:3:1: invalid item in `dns.split` (skipped): \"a b\" is not a valid DNS name",
                "hearth.toml:5:15: invalid value for `dns.split`: expected a list of DNS resolvers, each an address such as `192.168.1.1` or an `https://` URL (using the default)",
                "hearth.toml:10:1: unknown key `dns.records.ttl`",
                "hearth.toml:11:1: invalid item in `dns.records` (skipped): invalid ALIAS value \"\": expected a node name",
                "hearth.toml:13:1: unknown key `dns.records.values`; did you mean `dns.records.value`?",
                "hearth.toml:14:1: invalid item in `dns.rules` (skipped): `target` is missing: the nodes that the rule applies to",
            ]
        );
        assert_eq!(settings.usual.split.len(), 1);
        assert_eq!((settings.records.len(), settings.rules.len()), (1, 0));
    }
}
