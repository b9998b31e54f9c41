//! ssh, tests and sshTests.

use super::{Reader, duration};
use crate::policy::ast::{Autogroup, CheckPeriod, Selector, SshRule, SshTest, Test};
use crate::policy::hujson::{Kind, Value};
use crate::policy::resolved::localpart_domain;

impl Reader {
    pub(super) fn ssh_rules(&mut self, value: &Value) {
        for entry in self.list(value) {
            self.ssh_rule(entry);
        }
    }

    fn ssh_rule(&mut self, entry: &Value) {
        let (mut action, mut period) = (None, None);
        let mut rule = SshRule {
            at: entry.at,
            check: None,
            sources: Vec::new(),
            destinations: Vec::new(),
            users: Vec::new(),
            accept_env: Vec::new(),
            // `defaultSrcPosture` applies to the network access that a session needs anyway.
            postures: Vec::new(),
        };
        for member in self.object(entry).unwrap_or_default() {
            let value = &member.value;
            match member.name.to_ascii_lowercase().as_str() {
                name if name.starts_with('#') => {}
                "action" => action = Some((value.at, self.text(value).trim())),
                "src" => rule.sources = self.ssh_sources(value),
                "dst" => rule.destinations = self.ssh_destinations(value),
                "users" => {
                    rule.users = self.trimmed(value);
                    for (at, text) in self.texts(value) {
                        let domain = localpart_domain(text.trim());
                        let named = domain.map(|domain| (at, domain.into()));
                        self.policy.domains.extend(named);
                    }
                }
                "acceptenv" => rule.accept_env = self.trimmed(value),
                "checkperiod" if value.kind == Kind::Null => {}
                "checkperiod" => match check_period(self.text(value)) {
                    Ok(read) => period = Some(read),
                    Err(what) => self.fault(value.at, what),
                },
                "srcposture" => rule.postures = self.posture_names(value),
                "recorder" | "enforcerecorder" => {
                    self.fault(member.at, "SSH session recording is not supported");
                }
                _ => self.unknown(member),
            }
        }
        match action {
            None | Some((_, "")) => self.fault(entry.at, "action must be specified"),
            Some((_, "accept")) => {
                if period.is_some() {
                    self.fault(entry.at, "checkPeriod is only valid with action \"check\"");
                }
            }
            Some((_, "check")) => rule.check = Some(period.unwrap_or(CheckPeriod::DEFAULT)),
            Some((at, other)) => self.fault(at, format!("{other:?} is not a valid action")),
        }
        if rule.users.is_empty() {
            self.fault(entry.at, "users must be specified");
        }
        for user in rule
            .users
            .iter()
            .filter(|user| matches!(&***user, "" | "*"))
        {
            self.fault(entry.at, format!("user {user:?} is not valid"));
        }
        if rule.accept_env.iter().any(|name| name.is_empty()) {
            self.fault(entry.at, "acceptEnv values cannot be empty");
        }
        if let Err(what) = reachable(&rule.sources, &rule.destinations) {
            self.fault(entry.at, what);
        }
        self.policy.ssh.push(rule);
    }

    fn ssh_sources(&mut self, value: &Value) -> Vec<Selector> {
        let mut sources = Vec::new();
        for (at, text) in self.texts(value) {
            match self.selector(at, text) {
                Ok(selector) if selector.names_people() => sources.push(selector),
                Ok(_) => {
                    let forms = "users, groups, tags, autogroup:member, autogroup:admin, autogroup:owner and autogroup:tagged are valid";
                    self.fault(at, format!("invalid src {:?}; {forms}", text.trim()));
                }
                Err(what) => self.fault(at, what),
            }
        }
        sources
    }

    fn ssh_destinations(&mut self, value: &Value) -> Vec<Selector> {
        let mut destinations = Vec::new();
        for (at, text) in self.texts(value) {
            use Autogroup::{Member, Owned, Tagged};
            match self.selector(at, text) {
                Ok(
                    selector @ (Selector::User(_)
                    | Selector::Tag(_)
                    | Selector::Autogroup(Member | Tagged | Owned)),
                ) => destinations.push(selector),
                Err(what) if text.trim().starts_with("tag:") => self.fault(at, what),
                found => {
                    let why = found.err().map(|what| format!(" ({what})"));
                    let forms = "tags, users, autogroup:self, autogroup:member and autogroup:tagged are valid";
                    self.fault(
                        at,
                        format!(
                            "invalid dst {:?}; {forms}{}",
                            text.trim(),
                            why.unwrap_or_default()
                        ),
                    );
                }
            }
        }
        destinations
    }

    pub(super) fn tests(&mut self, value: &Value) {
        for entry in self.list(value) {
            let mut test = Test {
                at: entry.at,
                src: Box::default(),
                proto: Box::default(),
                accept: Vec::new(),
                deny: Vec::new(),
            };
            for member in self.object(entry).unwrap_or_default() {
                let value = &member.value;
                match member.name.to_ascii_lowercase().as_str() {
                    name if name.starts_with('#') => {}
                    "src" | "user" => test.src = self.text(value).trim().into(),
                    "proto" => {
                        test.proto = match &value.kind {
                            Kind::Number(number) => number.as_str().into(),
                            _ => self.text(value).into(),
                        };
                    }
                    "accept" | "allow" => test.accept = self.trimmed(value),
                    "deny" => test.deny = self.trimmed(value),
                    // Tests do not take the posture of the source into account.
                    "srcpostureattrs" => {}
                    _ => self.unknown(member),
                }
            }
            self.policy.tests.push(test);
        }
    }

    pub(super) fn ssh_tests(&mut self, value: &Value) {
        for entry in self.list(value) {
            let mut test = SshTest {
                at: entry.at,
                src: Box::default(),
                dst: Vec::new(),
                accept: Vec::new(),
                deny: Vec::new(),
                check: Vec::new(),
            };
            for member in self.object(entry).unwrap_or_default() {
                let value = &member.value;
                match member.name.to_ascii_lowercase().as_str() {
                    name if name.starts_with('#') => {}
                    "src" => test.src = self.text(value).trim().into(),
                    "dst" => test.dst = self.trimmed(value),
                    "accept" => test.accept = self.trimmed(value),
                    "deny" => test.deny = self.trimmed(value),
                    "check" => test.check = self.trimmed(value),
                    _ => self.unknown(member),
                }
            }
            self.policy.ssh_tests.push(test);
        }
    }
}

fn check_period(text: &str) -> Result<CheckPeriod, String> {
    if text == "always" {
        return Ok(CheckPeriod::Always);
    }
    let (period, negative) = duration::parse(text)?;
    let shown = duration::text(period);
    if negative {
        return Err(format!("checkPeriod -{shown} must be a positive duration"));
    }
    if period > CheckPeriod::MAX {
        return Err(format!("checkPeriod {shown} is above the max (168h)"));
    }
    Ok(CheckPeriod::Every(period))
}

/// Devices of users are reachable by the same user only, not by others or by tags.
/// Source: `validateSSHSrcDstCombination` in headscale `hscontrol/policy/v2/types.go`.
fn reachable(sources: &[Selector], destinations: &[Selector]) -> Result<(), String> {
    let tagged = sources.iter().any(|source| {
        matches!(
            source,
            Selector::Tag(_) | Selector::Autogroup(Autogroup::Tagged)
        )
    });
    for destination in destinations {
        match destination {
            Selector::User(user) if tagged => {
                return Err(format!(
                    "tags in SSH source cannot access user-owned devices ({user}); use autogroup:tagged or specific tags as destinations instead"
                ));
            }
            Selector::User(user) => {
                let same = |source: &Selector| *source == Selector::User(user.clone());
                if sources.is_empty() || !sources.iter().all(same) {
                    return Err(format!(
                        "user destination requires source to contain only that same user {user:?}; use autogroup:self instead for same-user SSH access"
                    ));
                }
            }
            Selector::Autogroup(Autogroup::Owned) if tagged => {
                return Err("autogroup:self destination requires source to contain only users or groups, not tags or autogroup:tagged".to_owned());
            }
            Selector::Autogroup(Autogroup::Member) if tagged => {
                return Err(
                    "tags in SSH source cannot access autogroup:member (user-owned devices)"
                        .to_owned(),
                );
            }
            _ => {}
        }
    }
    Ok(())
}
