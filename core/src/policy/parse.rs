//! Parses a policy: strict, and every error with its position.
//!
//! Messages are those of the official service where they are known.

mod duration;
mod rules;
mod sections;
pub mod selector;
mod ssh;

use std::sync::Arc;

use super::ast::{Policy, Selector};
use super::diagnostic::{Diagnostic, Position};
use super::hujson::{self, Kind, Member, Value};
use selector::ParsedSelector;

/// Errors that are reported; more would not help.
const MAX_FAULTS: usize = 100;

impl Policy {
    /// Parses a policy.
    ///
    /// # Errors
    ///
    /// All errors, at most a hundred; never empty. A text without a policy, empty or `null`, is one: it must not be
    /// taken for `{}`, which allows everything.
    pub fn parse(text: &str) -> Result<Self, Vec<Diagnostic>> {
        if text.trim_start_matches('\u{feff}').trim().is_empty() {
            return Err(vec![Diagnostic::empty_policy()]);
        }
        let root = hujson::parse(text).map_err(|fault| vec![fault])?;
        if root.kind == Kind::Null {
            return Err(vec![Diagnostic::empty_policy()]);
        }
        let mut reader = Reader::default();
        reader.policy(&root);
        reader.faults.truncate(MAX_FAULTS);
        match reader.faults.is_empty() {
            true => Ok(reader.policy),
            false => Err(reader.faults),
        }
    }
}

/// Parses a section.
type Read = fn(&mut Reader, &Value);

/// The policy so far, and its errors.
#[derive(Default)]
struct Reader {
    policy: Policy,
    faults: Vec<Diagnostic>,
}

impl Reader {
    fn policy(&mut self, root: &Value) {
        let Some(members) = self.object(root) else {
            return;
        };
        for member in members {
            if !SECTIONS
                .iter()
                .any(|known| known.eq_ignore_ascii_case(&member.name))
            {
                self.unknown(member);
            }
        }
        let tests = ["tests", "sshTests"];
        let at = members.iter().find(|member| {
            tests
                .iter()
                .any(|name| name.eq_ignore_ascii_case(&member.name))
        });
        self.policy.tests_at = at.map(|member| member.at).unwrap_or_default();
        let section = |name: &str| {
            let mut members = members.iter();
            let found = members.find(|member| member.name.eq_ignore_ascii_case(name));
            found
                .map(|member| &member.value)
                .filter(|value| value.kind != Kind::Null)
        };
        // Definitions first, then the sections that use them.
        let definitions: [(&str, Read); 6] = [
            ("groups", Self::groups),
            ("hosts", Self::hosts),
            ("ipsets", Self::ipsets),
            ("tagOwners", Self::tag_owners),
            ("postures", Self::postures),
            ("defaultSrcPosture", Self::default_postures),
        ];
        let uses: [(&str, Read); 12] = [
            ("acls", Self::acls),
            ("ssh", Self::ssh_rules),
            ("grants", Self::grants),
            ("nodeAttrs", Self::node_attrs),
            ("autoApprovers", Self::auto_approvers),
            ("tests", Self::tests),
            ("sshTests", Self::ssh_tests),
            ("randomizeClientPort", |reader, value| {
                reader.policy.randomize_client_port = reader.boolean(value);
            }),
            ("disableIPv4", |reader, value| {
                reader.policy.disable_ipv4 = reader.boolean(value);
            }),
            ("OneCGNATRoute", Self::one_cgnat),
            ("derpMap", Self::derp_map),
            ("extraDNSRecords", Self::extra_records),
        ];
        for (name, read) in definitions.into_iter().chain(uses) {
            if let Some(value) = section(name) {
                read(self, value);
            }
        }
        self.rules_or_none(members);
    }

    /// Whether the policy has rules at all: without `acls` and `grants` everyone reaches everyone. A list that is null
    /// counts as an empty one, which allows nothing: a person who writes it has taken all rules out, and programs write
    /// it for an empty list (Go, for a nil slice). Headscale reads it as a list that is missing; of the official service
    /// no answer to it is recorded.
    fn rules_or_none(&mut self, members: &[Member]) {
        let is_list = |member: &&Member| {
            let mut names = ["acls", "grants"].into_iter();
            names.any(|name| name.eq_ignore_ascii_case(&member.name))
        };
        let lists: Vec<&Member> = members.iter().filter(is_list).collect();
        self.policy.open = lists.is_empty();
        let are_null = lists.iter().all(|list| list.value.kind == Kind::Null);
        if let Some(null) = lists.first().filter(|_| are_null) {
            let message = format!(
                "{:?} is null, which allows nothing, like []; remove it if everything is to be allowed",
                null.name
            );
            let note = Diagnostic::at(null.value.at, message);
            self.policy.notes.push(note);
        }
    }

    fn fault(&mut self, at: Position, message: impl Into<String>) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(Diagnostic::at(at, message));
        }
    }

    fn expected(&mut self, what: &str, value: &Value) {
        self.fault(value.at, format!("expected {what}, found {}", value.is()));
    }

    fn unknown(&mut self, member: &Member) {
        self.fault(member.at, format!("unknown field: {:?}", member.name));
    }

    /// The members of an object; null has none.
    fn object<'v>(&mut self, value: &'v Value) -> Option<&'v [Member]> {
        match &value.kind {
            Kind::Object(members) => Some(members),
            Kind::Null => Some(&[]),
            _ => {
                self.expected("an object", value);
                None
            }
        }
    }

    /// The values of a list; null has none.
    fn list<'v>(&mut self, value: &'v Value) -> &'v [Value] {
        match &value.kind {
            Kind::List(values) => values,
            Kind::Null => &[],
            _ => {
                self.expected("a list", value);
                &[]
            }
        }
    }

    /// A string; null is empty.
    fn text<'v>(&mut self, value: &'v Value) -> &'v str {
        match &value.kind {
            Kind::Text(text) => text,
            Kind::Null => "",
            _ => {
                self.expected("a string", value);
                ""
            }
        }
    }

    /// The strings of a list, each with its position.
    fn texts<'v>(&mut self, value: &'v Value) -> Vec<(Position, &'v str)> {
        let mut texts = Vec::new();
        for value in self.list(value) {
            match &value.kind {
                Kind::Text(text) => texts.push((value.at, text.as_str())),
                _ => self.expected("a string", value),
            }
        }
        texts
    }

    /// The strings of a list, trimmed.
    fn trimmed(&mut self, value: &Value) -> Vec<Box<str>> {
        let texts = self.texts(value);
        texts
            .into_iter()
            .map(|(_, text)| text.trim().into())
            .collect()
    }

    fn boolean(&mut self, value: &Value) -> bool {
        match value.kind {
            Kind::Bool(value) => value,
            _ => {
                self.expected("true or false", value);
                false
            }
        }
    }

    /// Parses a selector and looks up its name. Groups may also come from the identity provider: [`Compiled::check`]
    /// says whether they exist.
    ///
    /// [`Compiled::check`]: crate::policy::Compiled::check
    fn selector(&mut self, at: Position, text: &str) -> Result<Selector, String> {
        let found = self.policy.selector(text)?;
        if let Selector::Group(name) = &found
            && !self.policy.groups.contains_key(name)
        {
            self.policy.foreign_groups.push((at, name.clone()));
        }
        if let Selector::Domain(name) = &found {
            self.policy.domains.push((at, name.clone()));
        }
        if let Selector::User(name) = &found {
            self.note_name(at, name);
        }
        Ok(found)
    }

    /// Notes where a name is defined or first used.
    fn note_name(&mut self, at: Position, name: &str) {
        self.policy.named_at.entry(name.into()).or_insert(at);
    }
}

impl Policy {
    /// Parses a selector and looks up its name.
    pub(super) fn selector(&self, text: &str) -> Result<Selector, String> {
        let found = match selector::selector(text)? {
            ParsedSelector::Whole(Selector::Tag(tag)) if !self.tag_owners.contains_key(&tag) => {
                return Err(format!(
                    "tag not found: {tag:?}; define it in \"tagOwners\""
                ));
            }
            ParsedSelector::Whole(selector) => return Ok(selector),
            ParsedSelector::Host(name) => self.hosts.get(&name).copied().map(selector::addresses),
            ParsedSelector::IpSet(name) => {
                let set = self.ipsets.get(&name).cloned();
                set.map(|set| Selector::Addresses(Arc::from([set])))
            }
        };
        found.ok_or_else(|| selector::unknown_name(text.trim()))
    }
}

/// Names of the sections.
const SECTIONS: &[&str] = &[
    "groups",
    "hosts",
    "ipsets",
    "tagOwners",
    "postures",
    "defaultSrcPosture",
    "acls",
    "grants",
    "ssh",
    "nodeAttrs",
    "autoApprovers",
    "tests",
    "sshTests",
    "randomizeClientPort",
    "disableIPv4",
    "OneCGNATRoute",
    "derpMap",
    "extraDNSRecords",
];

#[cfg(test)]
mod tests;
