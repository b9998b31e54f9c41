//! Compares the answer of a policy compiler with a recorded answer of the official service.
//!
//! A packet filter agrees when it admits the same (source, destination, port, protocol) and grants the same
//! capabilities, however it is cut into rules. Parts that the recording lacks are not compared, nor is the text
//! of a rejection.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;

/// The first difference between the recorded answer in `case` and `answer`; `None` when they agree.
pub fn difference(case: &Value, answer: &Value) -> Option<String> {
    let want = &case["expect"];
    if case["id"] != answer["id"] {
        return Some(format!("answered as {}", answer["id"]));
    }
    if (want["status"] == 200) != (answer["status"] == 200) {
        return Some(format!(
            "status {} ({}), want {} ({})",
            answer["status"], answer["message"], want["status"], want["message"]
        ));
    }
    if want["status"] != 200 {
        return None;
    }
    members(&want["nodes"]).find_map(|(name, want)| {
        let found = &answer["nodes"][name];
        let what = if found.is_null() {
            "missing".to_owned()
        } else {
            node_difference(&case["kind"], want, found)?
        };
        Some(format!("node {name}: {what}"))
    })
}

fn node_difference(kind: &Value, want: &Value, found: &Value) -> Option<String> {
    let is_recorded = |part: &str| want.get(part).is_some();
    if is_recorded("packet_filter") && !same_filter(&want["packet_filter"], &found["packet_filter"])
    {
        return Some(format!(
            "packet filter {}, want {}",
            found["packet_filter"], want["packet_filter"]
        ));
    }
    if is_recorded("peers")
        && let Some(what) = peers_difference(&want["peers"], &found["peers"])
    {
        return Some(what);
    }
    if is_recorded("ssh_rules") && plain(&want["ssh_rules"]) != plain(&found["ssh_rules"]) {
        return Some(format!(
            "SSH rules {}, want {}",
            found["ssh_rules"], want["ssh_rules"]
        ));
    }
    if kind == "nodeattrs" && names(&want["cap_map"]) != names(&found["cap_map"]) {
        return Some(format!(
            "capabilities {:?}, want {:?}",
            names(&found["cap_map"]),
            names(&want["cap_map"])
        ));
    }
    None
}

fn peers_difference(want: &Value, found: &Value) -> Option<String> {
    if names(want) != names(found) {
        return Some(format!("peers {:?}, want {:?}", names(found), names(want)));
    }
    members(want).find_map(|(peer, want)| {
        ["allowed_ips", "primary_routes"]
            .into_iter()
            .find(|part| texts(&want[*part]) != texts(&found[peer][*part]))
            .map(|part| {
                format!(
                    "peer {peer}: {part} {}, want {}",
                    found[peer][part], want[part]
                )
            })
    })
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn names(value: &Value) -> BTreeSet<&str> {
    members(value).map(|(name, _)| name.as_str()).collect()
}

fn texts(value: &Value) -> BTreeSet<&str> {
    items(value).filter_map(Value::as_str).collect()
}

/// The value without empty members and without the order of its lists.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, value)| !is_empty(value))
            .map(|(name, value)| (name.clone(), plain(value)))
            .collect(),
        Value::Array(list) => {
            let mut list: Vec<Value> = list.iter().map(plain).collect();
            list.sort_by_key(Value::to_string);
            Value::Array(list)
        }
        other => other.clone(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// An address or a port: the family (4 or 6; 0 for ports) and the number.
type Point = (u8, u128);

/// One side of what a rule allows: an inclusive range, or a capability of the source (`cap:…`).
#[derive(Clone)]
enum Side {
    Range(Point, Point),
    Capability(String),
}

/// What a rule allows: source, destination, port, and what else must be equal.
struct Row {
    sides: [Side; 3],
    rest: String,
}

fn same_filter(want: &Value, found: &Value) -> bool {
    let (want_access, want_grants) = rows(want);
    let (found_access, found_grants) = rows(found);
    same_rows(&want_access, &found_access) && same_rows(&want_grants, &found_grants)
}

/// The access and the capability grants of a list of `FilterRule`.
fn rows(rules: &Value) -> (Vec<Row>, Vec<Row>) {
    let (mut access, mut grants) = (Vec::new(), Vec::new());
    for rule in items(rules) {
        let sources: Vec<Side> = texts(&rule["SrcIPs"]).into_iter().flat_map(sides).collect();
        add_access(rule, &sources, &mut access);
        for grant in items(&rule["CapGrant"]) {
            add_grant(grant, &sources, &mut grants);
        }
    }
    (access, grants)
}

fn add_access(rule: &Value, sources: &[Side], access: &mut Vec<Row>) {
    let mut protocols: Vec<String> = items(&rule["IPProto"]).map(Value::to_string).collect();
    if protocols.is_empty() {
        // TCP, UDP, ICMP and ICMPv6. Source: tailcfg.FilterRule.
        protocols = ["6", "17", "1", "58"].map(str::to_owned).to_vec();
    }
    for destination in items(&rule["DstPorts"]) {
        let port = |name: &str, default: u64| {
            let number = destination["Ports"][name].as_u64();
            (0, u128::from(number.unwrap_or(default)))
        };
        let ports = Side::Range(port("First", 0), port("Last", 65_535));
        for to in sides(destination["IP"].as_str().unwrap_or_default()) {
            for (from, protocol) in pairs(sources, &protocols) {
                access.push(Row {
                    sides: [from.clone(), to.clone(), ports.clone()],
                    rest: protocol.clone(),
                });
            }
        }
    }
}

fn add_grant(grant: &Value, sources: &[Side], grants: &mut Vec<Row>) {
    let mut capabilities: BTreeMap<&str, String> = members(&grant["CapMap"])
        .map(|(name, values)| (name.as_str(), plain(values).to_string()))
        .collect();
    for name in texts(&grant["Caps"]) {
        capabilities.insert(name, "[]".to_owned());
    }
    let capabilities: Vec<String> = capabilities
        .into_iter()
        .map(|(name, values)| match values.as_str() {
            "null" => format!("{name} []"),
            values => format!("{name} {values}"),
        })
        .collect();
    for to in texts(&grant["Dsts"]).into_iter().flat_map(sides) {
        for (from, capability) in pairs(sources, &capabilities) {
            grants.push(Row {
                sides: [from.clone(), to.clone(), Side::Range((0, 0), (0, 0))],
                rest: capability.clone(),
            });
        }
    }
}

fn pairs<'a, A, B>(left: &'a [A], right: &'a [B]) -> impl Iterator<Item = (&'a A, &'a B)> {
    left.iter()
        .flat_map(move |one| right.iter().map(move |other| (one, other)))
}

/// `*`, an address, a prefix, a range `a-b`, or `cap:…`.
fn sides(text: &str) -> Vec<Side> {
    const ALL: [(Point, Point); 2] = [((4, 0), (4, u32::MAX as u128)), ((6, 0), (6, u128::MAX))];
    if text == "*" {
        return ALL.map(|(first, last)| Side::Range(first, last)).to_vec();
    }
    if text.starts_with("cap:") {
        return vec![Side::Capability(text.to_owned())];
    }
    let (first, last) = if let Some((first, last)) = text.split_once('-') {
        (point(first), point(last))
    } else if text.contains('/') {
        let network: ipnet::IpNet = text.parse().expect("a prefix");
        (
            of_address(network.network()),
            of_address(network.broadcast()),
        )
    } else {
        (point(text), point(text))
    };
    vec![Side::Range(first, last)]
}

fn point(text: &str) -> Point {
    of_address(text.parse().expect("an address"))
}

fn of_address(address: IpAddr) -> Point {
    match address {
        IpAddr::V4(address) => (4, u32::from(address).into()),
        IpAddr::V6(address) => (6, address.into()),
    }
}

/// Whether both allow the same, compared cell by cell between all the borders of either.
fn same_rows(want: &[Row], found: &[Row]) -> bool {
    let mut borders: [BTreeSet<Point>; 3] = Default::default();
    let mut texts = BTreeSet::new();
    for row in want.iter().chain(found) {
        texts.insert(row.rest.as_str());
        for (side, borders) in row.sides.iter().zip(&mut borders) {
            match side {
                Side::Range(first, last) => {
                    borders.insert(*first);
                    borders.insert(after(*last));
                }
                Side::Capability(name) => {
                    texts.insert(name);
                }
            }
        }
    }
    let borders = borders.map(|borders| borders.into_iter().collect::<Vec<_>>());
    let texts: Vec<&str> = texts.into_iter().collect();
    cells(want, &borders, &texts) == cells(found, &borders, &texts)
}

fn after((family, number): Point) -> Point {
    number
        .checked_add(1)
        .map_or((family + 1, 0), |next| (family, next))
}

/// The cells that the rows cover, by the numbers of the borders below them, or by those of names from behind.
fn cells(rows: &[Row], borders: &[Vec<Point>; 3], texts: &[&str]) -> BTreeSet<[usize; 4]> {
    let number = |text: &str| texts.binary_search(&text).expect("a known text");
    let mut cells = BTreeSet::new();
    for row in rows {
        let mut spans = row
            .sides
            .iter()
            .zip(borders)
            .map(|(side, borders)| match side {
                Side::Range(first, last) => {
                    let below = |limit: &Point| borders.partition_point(|border| border < limit);
                    below(first)..below(&after(*last))
                }
                Side::Capability(name) => {
                    let place = usize::MAX - 1 - number(name);
                    place..place + 1
                }
            });
        let [from, to, ports] = std::array::from_fn(|_| spans.next().expect("three sides"));
        let rest = number(&row.rest);
        for source in from {
            for destination in to.clone() {
                cells.extend(ports.clone().map(|port| [source, destination, port, rest]));
            }
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn case(kind: &str, node: &Value) -> Value {
        json!({"id": "x", "kind": kind, "expect": {"status": 200, "message": null, "nodes": {"a": node}}})
    }

    fn answer(node: &Value) -> Value {
        json!({"id": "x", "status": 200, "nodes": {"a": node}})
    }

    fn agree(kind: &str, want: &Value, found: &Value) -> bool {
        difference(&case(kind, want), &answer(found)).is_none()
    }

    fn filter(sources: &[&str], destinations: &Value) -> Value {
        json!({"packet_filter": [{"SrcIPs": sources, "DstPorts": destinations}]})
    }

    #[test]
    fn a_filter_that_is_cut_otherwise_agrees_and_one_that_admits_another_does_not() {
        let range = |ip: &str, first: u16, last: u16| json!({"IP": ip, "Ports": {"First": first, "Last": last}});
        let whole = filter(&["10.0.0.0/31"], &json!([range("10.1.0.1", 1, 9)]));
        let cut = filter(
            &["10.0.0.1", "10.0.0.0"],
            &json!([range("10.1.0.1", 5, 9), range("10.1.0.1-10.1.0.1", 1, 6)]),
        );
        assert!(agree("acl", &whole, &cut));
        for other in [
            filter(&["10.0.0.0/30"], &json!([range("10.1.0.1", 1, 9)])),
            filter(&["10.0.0.0/31"], &json!([range("10.1.0.2", 1, 9)])),
            filter(&["10.0.0.0/31"], &json!([range("10.1.0.1", 1, 10)])),
            filter(&["10.0.0.0/31", "cap:x"], &json!([range("10.1.0.1", 1, 9)])),
            json!({"packet_filter": null}),
        ] {
            assert!(!agree("acl", &whole, &other), "{other}");
            assert!(!agree("acl", &other, &whole), "{other}");
        }
    }

    #[test]
    fn protocols_and_grants_are_part_of_a_filter() {
        let rule = |protocols: &[u8]| json!({"packet_filter": [{"SrcIPs": ["*"], "DstPorts": [{"IP": "*"}], "IPProto": protocols}]});
        assert!(agree("acl", &rule(&[]), &rule(&[58, 1, 17, 6])));
        assert!(!agree("acl", &rule(&[]), &rule(&[6])));
        let grant = |values: &Value| json!({"packet_filter": [{"SrcIPs": ["*"], "CapGrant": [{"Dsts": ["::1/128"], "CapMap": {"c": values}}]}]});
        assert!(agree(
            "grant",
            &grant(&json!([1, 2])),
            &grant(&json!([2, 1]))
        ));
        assert!(agree("grant", &grant(&json!(null)), &grant(&json!([]))));
        assert!(!agree("grant", &grant(&json!([1])), &grant(&json!([2]))));
    }

    #[test]
    fn peers_routes_ssh_rules_and_capabilities_are_compared() {
        let peers =
            |ips: &[&str]| json!({"peers": {"b": {"allowed_ips": ips, "primary_routes": null}}});
        assert!(agree("acl", &peers(&["1", "2"]), &peers(&["2", "1"])));
        assert!(!agree("acl", &peers(&["1", "2"]), &peers(&["1"])));
        assert!(!agree("acl", &peers(&["1"]), &json!({"peers": {}})));
        let rules = |user: &str| json!({"ssh_rules": [{"sshUsers": {"root": user}, "action": {"accept": true}}]});
        assert!(agree("ssh", &rules("="), &rules("=")));
        assert!(!agree("ssh", &rules("="), &rules("")));
        let map = |name: &str| json!({"cap_map": {name: null}});
        assert!(agree("nodeattrs", &map("a"), &map("a")));
        assert!(!agree("nodeattrs", &map("a"), &map("b")));
    }

    #[test]
    fn a_missing_node_another_case_and_another_status_are_differences() {
        let case = case("acl", &json!({}));
        assert!(difference(&case, &json!({"id": "x", "status": 200, "nodes": {}})).is_some());
        assert!(difference(&case, &json!({"id": "y", "status": 200})).is_some());
        assert!(difference(&case, &json!({"id": "x", "status": 400})).is_some());
    }
}
