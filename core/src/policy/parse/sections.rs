//! The sections that define names, and those about single nodes.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net};

use super::{Reader, selector};
use crate::policy::ast::{Autogroup, ExtraRecord, NodeAttr, Selector};
use crate::policy::diagnostic::Position;
use crate::policy::hujson::{Kind, Member, Value};
use crate::policy::posture::Condition;
use crate::policy::ranges::Ranges;

impl Reader {
    pub(super) fn groups(&mut self, value: &Value) {
        for member in self.object(value).unwrap_or_default() {
            let name = member.name.as_str();
            if name.strip_prefix("group:").is_none_or(str::is_empty) {
                self.fault(
                    member.at,
                    format!("groups[{name:?}]: group names must start with group:"),
                );
            }
        }
        // The official service names the last of nested groups first.
        let mut members: Vec<&Member> = self.object(value).unwrap_or_default().iter().collect();
        members.sort_by(|one, other| other.name.cmp(&one.name));
        for member in members {
            let name = member.name.as_str();
            let mut users = Vec::new();
            for (at, user) in self.texts(&member.value) {
                let user = user.trim();
                if user.starts_with("group:") {
                    let what = "group members cannot be recursive";
                    self.fault(at, format!("groups[{name:?}]: {user:?}: {what}"));
                } else if !user.contains('@') || user.contains(':') {
                    let what = "a group member must be a user, with @ in its name";
                    let form = match user.is_empty() || user.contains(['@', ':']) {
                        true => "such as \"anna@\" or \"anna@example.com\"".to_owned(),
                        false => format!("such as \"{user}@\""),
                    };
                    self.fault(at, format!("groups[{name:?}]: {user:?}: {what}, {form}"));
                } else {
                    self.note_name(at, user);
                    users.push(user.into());
                }
            }
            self.note_name(member.at, name);
            self.policy.groups.insert(name.into(), users);
        }
    }

    pub(super) fn hosts(&mut self, value: &Value) {
        for member in self.object(value).unwrap_or_default() {
            let (name, text) = (member.name.as_str(), self.text(&member.value).trim());
            if name.is_empty() || name == "*" || name.contains([':', '@', '/']) {
                self.fault(member.at, format!("hosts[{name:?}]: invalid hostname"));
            } else if selector::prefix(name).is_some() {
                self.fault(
                    member.at,
                    format!("hosts[{name:?}]: a host name cannot be an address"),
                );
            }
            match selector::prefix(text) {
                Some(net) => {
                    self.note_name(member.at, name);
                    self.policy.hosts.insert(name.into(), net);
                }
                None if matches!(member.value.kind, Kind::Text(_)) => {
                    let what = selector::invalid_address(text);
                    self.fault(member.value.at, format!("hosts[{name:?}]: {what}"));
                }
                None => {}
            }
        }
    }

    pub(super) fn ipsets(&mut self, value: &Value) {
        let members = self.object(value).unwrap_or_default();
        let mut done = BTreeMap::new();
        for member in members {
            if member.name.strip_prefix("ipset:").is_none_or(str::is_empty) {
                let name = &member.name;
                self.fault(
                    member.at,
                    format!("ipsets[{name:?}]: IP set names must start with ipset:"),
                );
            }
            let mut open = Vec::new();
            self.ipset(members, member, &mut done, &mut open);
        }
        self.policy.ipsets = done;
    }

    /// Parses a set, and first those that it uses. `open` are the sets that use this one.
    fn ipset<'v>(
        &mut self,
        all: &'v [Member],
        member: &'v Member,
        done: &mut BTreeMap<Box<str>, Ranges>,
        open: &mut Vec<&'v str>,
    ) {
        let name = member.name.as_str();
        if done.contains_key(name) {
            return;
        }
        open.push(name);
        let mut set = Ranges::default();
        for (at, entry) in self.texts(&member.value) {
            let entry = entry.trim();
            let (add, what) = match entry.split_once(char::is_whitespace) {
                Some(("add", what)) => (true, what.trim()),
                Some(("remove", what)) => (false, what.trim()),
                _ => (true, entry),
            };
            let found = if let Some(net) = selector::prefix(what) {
                Ok(Ranges::from_nets(&[net]))
            } else if let Some(range) = selector::range(what) {
                Ok(range)
            } else if what.starts_with("ipset:") {
                match all.iter().find(|other| other.name == what) {
                    None => Err(format!("ipset not found: {what:?}")),
                    // Depth is bounded by the number of sets, and that by the length of a policy.
                    Some(_) if open.contains(&what) || open.len() > 100 => {
                        Err(format!("{what:?}: IP sets cannot be recursive"))
                    }
                    Some(other) => {
                        self.ipset(all, other, done, open);
                        Ok(done.get(what).cloned().unwrap_or_default())
                    }
                }
            } else {
                let host = what.strip_prefix("host:").unwrap_or(what);
                let host = self.policy.hosts.get(host);
                host.map(|net| Ranges::from_nets(&[*net]))
                    .ok_or_else(|| selector::invalid_address(what))
            };
            match found {
                Ok(found) if add => set.push_all(&found),
                Ok(found) => {
                    set.normalize();
                    set = set.without(&found);
                }
                Err(what) => self.fault(at, format!("ipsets[{name:?}]: {what}")),
            }
        }
        set.normalize();
        open.pop();
        done.insert(name.into(), set);
    }

    pub(super) fn tag_owners(&mut self, value: &Value) {
        let members = self.object(value).unwrap_or_default();
        for member in members {
            let name = &member.name;
            if let Err(what) = selector::tag_name(name) {
                self.fault(member.at, format!("tagOwners[\"{name}\"]: {what}"));
            }
            self.note_name(member.at, name);
            self.policy
                .tag_owners
                .insert(name.as_str().into(), Vec::new());
        }
        for member in members {
            let place = format!("tagOwners[\"{}\"]: ", member.name);
            let owners = self.people(&member.value, &place);
            self.policy
                .tag_owners
                .insert(member.name.as_str().into(), owners);
        }
    }

    /// Users, groups, tags and the autogroups of users.
    fn people(&mut self, value: &Value, place: &str) -> Vec<Selector> {
        let mut people = Vec::new();
        for (at, text) in self.texts(value) {
            match self.selector(at, text) {
                Ok(selector) if selector.names_people() => people.push(selector),
                Ok(_) => self.fault(
                    at,
                    format!("{place}{text:?} is not a user, group, tag or autogroup of users"),
                ),
                Err(what) => self.fault(at, format!("{place}{what}")),
            }
        }
        people
    }

    pub(super) fn postures(&mut self, value: &Value) {
        for member in self.object(value).unwrap_or_default() {
            let name = member.name.as_str();
            if name.strip_prefix("posture:").is_none_or(str::is_empty) {
                self.fault(
                    member.at,
                    format!("postures[{name:?}]: posture names must start with posture:"),
                );
            }
            let mut conditions = Vec::new();
            for (at, text) in self.texts(&member.value) {
                match Condition::parse(text) {
                    Ok(condition) => conditions.push(condition),
                    Err(what) => self.fault(at, format!("postures[{name:?}]: {what}")),
                }
            }
            self.policy.postures.insert(name.into(), conditions);
        }
    }

    pub(super) fn default_postures(&mut self, value: &Value) {
        self.policy.default_postures = self.posture_names(value);
    }

    /// Names of postures that are defined.
    pub(super) fn posture_names(&mut self, value: &Value) -> Vec<Box<str>> {
        let mut names = Vec::new();
        for (at, name) in self.texts(value) {
            if !self.policy.postures.contains_key(name) {
                let message = format!("posture not found: {name:?}; define it in \"postures\"");
                self.fault(at, message);
            }
            names.push(name.into());
        }
        names
    }

    pub(super) fn node_attrs(&mut self, value: &Value) {
        for entry in self.list(value) {
            let mut read = NodeAttr {
                targets: Vec::new(),
                attrs: Vec::new(),
                app: BTreeMap::new(),
                pools: Vec::new(),
            };
            for member in self.object(entry).unwrap_or_default() {
                let value = &member.value;
                match member.name.to_ascii_lowercase().as_str() {
                    "target" => {
                        for (at, text) in self.texts(value) {
                            match self.selector(at, text) {
                                Ok(Selector::Autogroup(
                                    Autogroup::Owned
                                    | Autogroup::Internet
                                    | Autogroup::DangerAll
                                    | Autogroup::Nonroot,
                                )) => self.fault(
                                    at,
                                    format!("nodeAttrs target does not support {text:?}"),
                                ),
                                Ok(selector) => read.targets.push(selector),
                                Err(what) => self.fault(at, what),
                            }
                        }
                    }
                    "attr" => read.attrs = self.trimmed(value),
                    "app" => read.app = self.app(value),
                    "ippool" => {
                        for (at, text) in self.texts(value) {
                            match pool(text) {
                                Ok(net) => read.pools.push(net),
                                Err(what) => self.fault(at, what),
                            }
                        }
                    }
                    _ => self.unknown(member),
                }
            }
            self.policy.node_attrs.push(read);
        }
    }

    /// Capabilities and their values.
    pub(super) fn app(&mut self, value: &Value) -> BTreeMap<Box<str>, Vec<serde_json::Value>> {
        let mut app = BTreeMap::new();
        for member in self.object(value).unwrap_or_default() {
            let values = self
                .list(&member.value)
                .iter()
                .map(Value::to_json)
                .collect();
            app.insert(member.name.as_str().into(), values);
        }
        app
    }

    pub(super) fn auto_approvers(&mut self, value: &Value) {
        for member in self.object(value).unwrap_or_default() {
            match member.name.to_ascii_lowercase().as_str() {
                "routes" => {
                    for member in self.object(&member.value).unwrap_or_default() {
                        let people = self.people(&member.value, "autoApprovers: ");
                        match selector::prefix(&member.name) {
                            Some(net) => self.policy.route_approvers.push((net, people)),
                            None => {
                                let what = selector::invalid_address(&member.name);
                                self.fault(member.at, format!("autoApprovers: {what}"));
                            }
                        }
                    }
                }
                "exitnode" => {
                    self.policy.exit_approvers = self.people(&member.value, "autoApprovers: ");
                }
                "services" => self.fault(member.at, "autoApprovers: services are not supported"),
                _ => self.unknown(member),
            }
        }
    }

    pub(super) fn one_cgnat(&mut self, value: &Value) {
        self.policy.one_cgnat = match self.text(value) {
            "" => None,
            "mac-always" => Some(true),
            "mac-never" => Some(false),
            text => {
                let message =
                    format!("OneCGNATRoute {text:?} is not \"mac-always\" or \"mac-never\"");
                self.fault(value.at, message);
                None
            }
        };
    }

    pub(super) fn derp_map(&mut self, value: &Value) {
        if self.object(value).is_some() {
            self.policy.derp_map = Some(value.to_json());
        }
    }

    pub(super) fn extra_records(&mut self, value: &Value) {
        for entry in self.list(value) {
            let (mut name, mut kind, mut target) = ("", "", "");
            for member in self.object(entry).unwrap_or_default() {
                match member.name.to_ascii_lowercase().as_str() {
                    "name" => name = self.text(&member.value),
                    "type" => kind = self.text(&member.value),
                    "value" => target = self.text(&member.value),
                    _ => self.unknown(member),
                }
            }
            let address = target.parse::<std::net::IpAddr>();
            let fits = address.is_ok_and(|address| match kind {
                "" => true,
                "A" => address.is_ipv4(),
                "AAAA" => address.is_ipv6(),
                _ => false,
            });
            if name.is_empty() || !fits {
                let message =
                    "a record needs a name, the type A or AAAA, and an address as its value";
                self.fault(entry.at, message);
            }
            self.policy.extra_records.push(ExtraRecord {
                name: name.into(),
                kind: kind.into(),
                value: target.into(),
            });
        }
    }

    /// The sources of a rule.
    pub(super) fn sources(&mut self, value: &Value) -> Vec<(Position, Selector)> {
        let mut sources = Vec::new();
        for (at, text) in self.texts(value) {
            match self.selector(at, text) {
                Ok(Selector::Autogroup(Autogroup::Owned)) => {
                    self.fault(at, "\"autogroup:self\" not valid on the src side of a rule");
                }
                Ok(Selector::Autogroup(Autogroup::Internet | Autogroup::Nonroot)) => {
                    self.fault(at, format!("{text:?} not valid on the src side of a rule"));
                }
                Ok(selector) => sources.push((at, selector)),
                Err(what) => self.fault(at, format!("src={what}")),
            }
        }
        sources
    }
}

/// An IP pool. Source: `validateNodeAttrIPPool` in headscale `hscontrol/policy/v2/types.go`.
fn pool(text: &str) -> Result<Ipv4Net, String> {
    let Some(IpNet::V4(net)) = selector::prefix(text) else {
        return Err(format!("ipPool: {}", selector::invalid_address(text)));
    };
    let inside = |outer: [u8; 4], bits| {
        let outer = Ipv4Net::new_assert(outer.into(), bits);
        (
            outer.contains(&net),
            outer.contains(&net) || net.contains(&outer),
        )
    };
    let (within, _) = inside([100, 64, 0, 0], 10);
    if !within {
        return Err(format!("ipPool {text:?} must be within 100.64.0.0/10"));
    }
    for (reserved, bits) in [([100, 100, 100, 0], 24), ([100, 115, 92, 0], 23)] {
        if inside(reserved, bits).1 {
            return Err(format!("ipPool {text:?} must not overlap reserved ranges"));
        }
    }
    Ok(net)
}
