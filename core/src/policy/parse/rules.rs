//! acls and grants.

use std::sync::Arc;

use super::{Reader, selector};
use crate::policy::ast::{Access, Autogroup, Ports, Rule, Selector};
use crate::policy::diagnostic::{Diagnostic, Position};
use crate::policy::hujson::{Kind, Value};

/// The official service's message for a source other than users with the destination `autogroup:self`.
const SELF_SOURCES: &str =
    "autogroup:self can only be used with users, groups, or supported autogroups";

/// Capabilities in the tailscale.com domain that a grant may give.
/// Source: `tailscaleCapAllowlist` in headscale `hscontrol/policy/v2/types.go`.
const GRANTABLE: &[&str] = &[
    "tailscale.com/cap/drive",
    "tailscale.com/cap/relay",
    "tailscale.com/cap/webui",
    "tailscale.com/cap/kubernetes",
    "tailscale.com/cap/tsidp",
    "tailscale.com/cap/secrets",
];

impl Reader {
    pub(super) fn acls(&mut self, value: &Value) {
        for (index, entry) in self.list(value).iter().enumerate() {
            self.acl(index, entry);
        }
    }

    fn acl(&mut self, index: usize, entry: &Value) {
        let (mut action, mut sources, mut proto) = (None, Vec::new(), None);
        let mut destinations: Vec<(Position, Selector, Vec<Ports>)> = Vec::new();
        let mut postures = self.policy.default_postures.clone();
        for member in self.object(entry).unwrap_or_default() {
            let value = &member.value;
            match member.name.to_ascii_lowercase().as_str() {
                name if name.starts_with('#') => {}
                "action" => action = Some(self.text(value)),
                // `users` and `ports` are the old names.
                "src" | "users" => sources = self.sources(value),
                "dst" | "ports" => {
                    for (at, text) in self.texts(value) {
                        match self.destination_and_ports(at, text) {
                            Ok((selector, ports)) => destinations.push((at, selector, ports)),
                            Err(what) => self.fault(at, what),
                        }
                    }
                }
                "proto" => match selector::protocol(&self.proto_text(value)) {
                    Ok(read) => proto = read,
                    Err(what) => self.fault(value.at, what),
                },
                "srcposture" => postures = self.posture_names(value),
                _ => self.unknown(member),
            }
        }
        match action {
            Some("accept") => {}
            Some(other) => self.fault(entry.at, format!("action={other:?} is not supported")),
            None => self.fault(entry.at, "action must be specified"),
        }
        if let Some(proto) = proto.filter(|proto| !selector::has_ports(*proto))
            && let Some((at, ..)) = destinations
                .iter()
                .find(|(.., ports)| *ports != [Ports::ALL])
        {
            let message = format!(
                "protocol number {proto} does not support specific ports, only \"*\" is allowed"
            );
            self.fault(*at, message);
        }
        let is_self = |(_, selector, _): &(_, Selector, _)| {
            *selector == Selector::Autogroup(Autogroup::Owned)
        };
        // `*` is allowed: only devices of the same user match.
        if destinations.iter().any(is_self)
            && let Some((at, _)) = sources
                .iter()
                .find(|(_, source)| *source != Selector::Any && !is_of_users(source))
        {
            self.fault(*at, SELF_SOURCES);
        }
        let sources: Vec<Selector> = sources.into_iter().map(|(_, source)| source).collect();
        let mut groups: Vec<(Vec<Ports>, Vec<Selector>)> = Vec::new();
        for (_, selector, ports) in destinations {
            match groups.iter_mut().find(|(known, _)| *known == ports) {
                Some((_, selectors)) => selectors.push(selector),
                None => groups.push((ports, vec![selector])),
            }
        }
        for (ports, destinations) in groups {
            self.policy.rules.push(Rule {
                at: entry.at,
                name: format!("acls[{index}]").into(),
                sources: sources.clone(),
                destinations,
                access: vec![Access { proto, ports }],
                app: Arc::default(),
                via: Vec::new(),
                postures: postures.clone(),
            });
        }
    }

    /// A protocol by name or, also without quotes, by number.
    fn proto_text(&mut self, value: &Value) -> String {
        match &value.kind {
            Kind::Number(number) => number.clone(),
            _ => self.text(value).to_owned(),
        }
    }

    fn destination_and_ports(
        &mut self,
        at: Position,
        text: &str,
    ) -> Result<(Selector, Vec<Ports>), String> {
        let text = text.trim();
        let read = self.split_destination(at, text);
        let is_host = |name: &str| self.policy.hosts.contains_key(name);
        match read {
            Err(what) => Err(match selector::with_ports(text, is_host) {
                Some(form) => {
                    format!("{what}; a destination in acls needs ports, such as {form:?}")
                }
                None => what,
            }),
            Ok(read) => {
                // IPv6 addresses have colons of their own.
                if text.parse::<std::net::Ipv6Addr>().is_ok()
                    && let Some((host, port)) = text.rsplit_once(':')
                {
                    let message = format!(
                        "{text:?} is taken for the address {host} with port {port}; write \"[{host}]:{port}\" or \"[{text}]:*\""
                    );
                    self.policy.notes.push(Diagnostic::at(at, message));
                }
                Ok(read)
            }
        }
    }

    fn split_destination(
        &mut self,
        at: Position,
        text: &str,
    ) -> Result<(Selector, Vec<Ports>), String> {
        let (host, ports) = selector::host_and_ports(text)?;
        let ports = selector::ports(ports).map_err(|what| format!("dst={text:?}: {what}"))?;
        let found = self
            .selector(at, &host)
            .map_err(|what| format!("dst={host:?}: {what}"))?;
        Ok((destination(found, &host)?, ports))
    }

    pub(super) fn grants(&mut self, value: &Value) {
        for (index, entry) in self.list(value).iter().enumerate() {
            self.grant(index, entry);
        }
    }

    fn grant(&mut self, index: usize, entry: &Value) {
        let mut sources = Vec::new();
        let mut rule = Rule {
            at: entry.at,
            name: format!("grants[{index}]").into(),
            sources: Vec::new(),
            destinations: Vec::new(),
            access: Vec::new(),
            app: Arc::default(),
            via: Vec::new(),
            postures: self.policy.default_postures.clone(),
        };
        let faults = self.faults.len();
        for member in self.object(entry).unwrap_or_default() {
            let value = &member.value;
            match member.name.to_ascii_lowercase().as_str() {
                name if name.starts_with('#') => {}
                "src" => sources = self.sources(value),
                "dst" => rule.destinations = self.grant_destinations(value),
                "ip" => {
                    for (at, text) in self.texts(value) {
                        match access(text.trim()) {
                            Ok(access) => rule.access.push(access),
                            Err(what) => self.fault(at, what),
                        }
                    }
                }
                "app" => {
                    let app = self.app(value);
                    for name in app.keys() {
                        if let Err(what) = grantable(name) {
                            self.fault(value.at, what);
                        }
                    }
                    rule.app = Arc::new(app);
                }
                "via" => rule.via = self.via(value),
                "srcposture" => rule.postures = self.posture_names(value),
                _ => self.unknown(member),
            }
        }
        if rule.access.is_empty() && rule.app.is_empty() && faults == self.faults.len() {
            self.fault(entry.at, "ip and app can not both be empty");
        }
        let to = |group| rule.destinations.contains(&Selector::Autogroup(group));
        if !rule.app.is_empty() && to(Autogroup::Internet) {
            self.fault(entry.at, "cannot use app grants with autogroup:internet");
        }
        if to(Autogroup::Owned)
            && let Some((at, _)) = sources.iter().find(|(_, source)| !is_of_users(source))
        {
            self.fault(*at, SELF_SOURCES);
        }
        rule.sources = sources.into_iter().map(|(_, source)| source).collect();
        self.policy.rules.push(rule);
    }

    fn grant_destinations(&mut self, value: &Value) -> Vec<Selector> {
        let mut destinations = Vec::new();
        for (at, text) in self.texts(value) {
            let text = text.trim();
            if selector::prefix(text).is_some_and(|net| net.prefix_len() == 0) {
                let what = "to allow all IP addresses, use \"*\" or \"autogroup:internet\"";
                self.fault(at, format!("dst {text:?}: {what}"));
                continue;
            }
            let found = self
                .selector(at, text)
                .map_err(|what| format!("dst={what}"));
            match found.and_then(|found| destination(found, text)) {
                Ok(found) => destinations.push(found),
                Err(what) => {
                    let split = selector::host_and_ports(text).ok();
                    let split = split.filter(|(host, ports)| {
                        selector::ports(ports).is_ok() && self.policy.selector(host).is_ok()
                    });
                    let advice = match split {
                        Some((host, ports)) => format!(
                            "; in grants the ports are in \"ip\": \"dst\": [{host:?}], \"ip\": [{ports:?}]"
                        ),
                        None => String::new(),
                    };
                    self.fault(at, format!("{what}{advice}"));
                }
            }
        }
        destinations
    }

    fn via(&mut self, value: &Value) -> Vec<Box<str>> {
        let mut via = Vec::new();
        for (at, text) in self.texts(value) {
            let text = text.trim();
            if !text.starts_with("tag:") {
                self.fault(at, "via can only be a tag");
            } else if !self.policy.tag_owners.contains_key(text) {
                self.fault(at, format!("tag {text:?} not found"));
            } else {
                via.push(text.into());
            }
        }
        via
    }
}

/// Whether a source stands for users.
fn is_of_users(source: &Selector) -> bool {
    use Autogroup::{Admin, Member, Nobody, Owner};
    matches!(
        source,
        Selector::User(_)
            | Selector::Domain(_)
            | Selector::Group(_)
            | Selector::Autogroup(Member | Admin | Owner | Nobody)
    )
}

fn destination(selector: Selector, text: &str) -> Result<Selector, String> {
    match selector {
        Selector::Autogroup(Autogroup::DangerAll) => {
            Err("cannot use autogroup:danger-all as a dst".to_owned())
        }
        Selector::Autogroup(Autogroup::Nonroot) => {
            Err(format!("{text:?} not valid on the dst side of a rule"))
        }
        selector => Ok(selector),
    }
}

/// An entry of `ip`: `*`, ports, or `protocol:ports`.
fn access(text: &str) -> Result<Access, String> {
    let Some((proto, ports)) = text.split_once(':') else {
        return Ok(Access {
            proto: None,
            ports: selector::ports(text)?,
        });
    };
    if ports.contains(':') {
        return Err(format!(
            "{text:?}: expected only one colon in Internet protocol and port type"
        ));
    }
    let ports = selector::ports(ports)?;
    let number = match proto {
        "" => return Err(format!("{text:?}: expected a protocol before the colon")),
        proto => selector::protocol(proto)?,
    };
    if let Some(number) = number.filter(|number| !selector::has_ports(*number))
        && ports != [Ports::ALL]
    {
        return Err(format!(
            "protocol number {number} does not support specific ports, only \"*\" is allowed"
        ));
    }
    Ok(Access {
        proto: number,
        ports,
    })
}

/// Whether a grant may give a capability.
fn grantable(name: &str) -> Result<(), &'static str> {
    let form = name.split_once('/').is_some_and(|(domain, path)| {
        !domain.is_empty() && !path.is_empty() && !domain.ends_with(':')
    });
    if !form {
        return Err("capability name must have the form {domain}/{path}");
    }
    match name.starts_with("tailscale.com/") && !GRANTABLE.contains(&name) {
        true => Err("capability name must not be in the tailscale.com domain"),
        false => Ok(()),
    }
}
