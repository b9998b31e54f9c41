//! What a map says beside the network: where the server is found, whether the client is new enough, and
//! messages for the person in front of it.

use std::net::IpAddr;

use serde_json::Value;

use crate::netmap::to_json;
use crate::release::Release;
use crate::state::model::Node;
use crate::tailcfg::capability::CapabilityVersion;
use crate::tailcfg::notice::{
    ClientVersion, ControlDialPlan, ControlIpCandidate, DisplayMessage, DisplayMessages, Severity,
};

/// Seconds for an address at home: who is there gets an answer at once, and who is elsewhere should not
/// wait long for none.
const HOME_TIMEOUT: f64 = 2.0;

/// Seconds for any other address. Only when all have failed do clients ask DNS.
const TIMEOUT: f64 = 5.0;

/// Seconds by which addresses at home come first.
const HEAD_START: f64 = 0.2;

/// What is the same in every map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notices {
    /// Where the server is found without DNS, as JSON; empty leaves clients to DNS.
    dial_plan: String,
    /// The newest client.
    latest: Option<Release>,
    /// Whether the server's home has no way to the internet.
    home_is_offline: bool,
}

impl Notices {
    /// Notices about a server at these addresses, and the newest client, where it is known.
    pub fn new(addresses: &[IpAddr], latest: Option<Release>) -> Self {
        Self {
            dial_plan: written(addresses),
            latest,
            home_is_offline: false,
        }
    }

    /// The same for a server at other addresses.
    pub fn with_addresses(&self, addresses: &[IpAddr]) -> Self {
        Self {
            dial_plan: written(addresses),
            ..self.clone()
        }
    }

    /// Whether clients are told another way to the server than by `other`.
    pub fn differ_in_dial_plan(&self, other: &Self) -> bool {
        self.dial_plan != other.dial_plan
    }

    /// The field with the way to the server, for those who were told another one.
    pub fn dial_plan_field(&self) -> String {
        let plan = match self.dial_plan.as_str() {
            "" => NO_PLAN,
            plan => plan,
        };
        format!(r#""ControlDialPlan":{plan}"#)
    }

    /// The same after the way to the internet went away or came back.
    pub fn with_home_offline(&self, home_is_offline: bool) -> Self {
        Self {
            home_is_offline,
            ..self.clone()
        }
    }

    /// What a person in front of this node should know, as the field that shows it, and shows nothing
    /// else any more; empty when there is nothing.
    pub fn messages(&self, viewer: &Node) -> String {
        let mut messages = DisplayMessages::new();
        let waiting: Vec<String> = viewer
            .waiting_routes()
            .map(|route| route.to_string())
            .collect();
        if !waiting.is_empty() {
            let (id, message) = routes_await_approval(&waiting);
            messages.insert(id, message);
        }
        if self.home_is_offline {
            let (id, message) = home_is_offline();
            messages.insert(id, message);
        }
        match messages.is_empty() {
            true => String::new(),
            false => messages_field(viewer, &messages),
        }
    }

    /// The fields of a whole map, each after a comma. `had_plan` is whether the client may remember a way to
    /// the server that is none any more.
    pub fn fields(&self, viewer: &Node, had_plan: bool) -> String {
        let mut fields = String::new();
        if had_plan || !self.dial_plan.is_empty() {
            fields.push(',');
            fields.push_str(&self.dial_plan_field());
        }
        let installed = Release::of_client(&viewer.hostinfo.client_version);
        if let (Some(latest), Some(installed)) = (self.latest, installed) {
            fields.push_str(r#","ClientVersion":"#);
            fields.push_str(&client_version(latest, installed));
        }
        fields
    }
}

/// What takes a plan back: clients keep theirs when they are told none.
const NO_PLAN: &str = r#"{"Candidates":[]}"#;

/// The plan as JSON; empty for no addresses.
fn written(addresses: &[IpAddr]) -> String {
    match addresses {
        [] => String::new(),
        addresses => to_json(&dial_plan(addresses)),
    }
}

/// How clients try these addresses: those at home first, then all others at the same time.
fn dial_plan(addresses: &[IpAddr]) -> ControlDialPlan {
    let candidates = addresses.iter().map(|ip| {
        let is_home = is_home(*ip);
        ControlIpCandidate {
            ip: *ip,
            dial_start_delay_sec: if is_home { 0.0 } else { HEAD_START },
            dial_timeout_sec: if is_home { HOME_TIMEOUT } else { TIMEOUT },
            priority: if is_home { 2 } else { 1 },
        }
    });
    ControlDialPlan {
        candidates: candidates.collect(),
    }
}

fn is_home(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback(),
    }
}

fn client_version(latest: Release, installed: Release) -> String {
    let text = latest.to_string();
    let running_latest = installed >= latest;
    to_json(&ClientVersion {
        running_latest,
        latest_version: if running_latest { "" } else { &text },
    })
}

/// The field that shows exactly these messages from now on, in the form that the viewer's client knows. The earlier ones are taken back in either form.
pub fn messages_field(viewer: &Node, messages: &DisplayMessages) -> String {
    let version = CapabilityVersion::new(viewer.capability.into());
    if !version.shows_messages() {
        let texts = messages.values();
        let texts: Vec<String> = texts
            .map(|message| format!("{}: {}", message.title, message.text))
            .collect();
        return format!(r#""Health":{}"#, to_json(&texts));
    }
    let mut all = serde_json::Map::from_iter([("*".to_owned(), Value::Null)]);
    all.extend(messages.iter().map(|(id, message)| {
        let message = serde_json::to_value(message).unwrap_or_default();
        ((*id).to_owned(), message)
    }));
    format!(r#""DisplayMessages":{}"#, to_json(&all))
}

/// The node offers routes that nobody has approved yet.
fn routes_await_approval(routes: &[String]) -> (&'static str, DisplayMessage) {
    let text = format!(
        "The owner of the network has to approve these routes before others can use them: {}.",
        routes.join(", ")
    );
    let message = DisplayMessage {
        title: "Routes await approval".to_owned(),
        text,
        severity: Severity::Low,
        impacts_connectivity: false,
    };
    ("hearth-routes-await-approval", message)
}

/// The home of the server has no way to the internet.
fn home_is_offline() -> (&'static str, DisplayMessage) {
    let message = DisplayMessage {
        title: "Home has no internet".to_owned(),
        text: "The control server cannot reach the internet. Devices at home stay connected; \
               those elsewhere may not find them."
            .to_owned(),
        severity: Severity::Medium,
        impacts_connectivity: true,
    };
    ("hearth-home-is-offline", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::model::Hostinfo;
    use crate::state::testing::World;
    use std::sync::Arc;

    fn viewer(client_version: &str) -> Node {
        let (mut world, _) = World::with_user();
        let id = world.node_number(1);
        let mut node = (**world.node(id)).clone();
        node.hostinfo = Arc::new(Hostinfo {
            client_version: client_version.into(),
            ..Hostinfo::default()
        });
        node
    }

    #[test]
    fn addresses_at_home_come_first_and_each_has_time() {
        let addresses = ["203.0.113.5", "192.168.1.1", "fd00::1"].map(|ip| ip.parse().unwrap());
        let fields = Notices::new(&addresses, None).fields(&viewer("1.2.3"), false);
        assert_eq!(
            fields,
            concat!(
                r#","ControlDialPlan":{"Candidates":["#,
                r#"{"IP":"203.0.113.5","DialStartDelaySec":0.2,"DialTimeoutSec":5.0,"Priority":1},"#,
                r#"{"IP":"192.168.1.1","DialStartDelaySec":0.0,"DialTimeoutSec":2.0,"Priority":2},"#,
                r#"{"IP":"fd00::1","DialStartDelaySec":0.0,"DialTimeoutSec":2.0,"Priority":2}]}"#
            )
        );
        assert_eq!(Notices::default().fields(&viewer("1.2.3"), false), "");
    }

    #[test]
    fn a_client_is_told_of_a_newer_one_when_its_own_is_known() {
        let notices = Notices::new(&[], "1.102.5".parse().ok());
        for (client, expected) in [
            (
                "1.98.0-t1",
                r#","ClientVersion":{"LatestVersion":"1.102.5"}"#,
            ),
            (
                "1.102.5-t1-g2",
                r#","ClientVersion":{"RunningLatest":true}"#,
            ),
            ("1.103.1", r#","ClientVersion":{"RunningLatest":true}"#),
            (
                "0.4.0-rs",
                r#","ClientVersion":{"LatestVersion":"1.102.5"}"#,
            ),
            ("", ""),
        ] {
            assert_eq!(notices.fields(&viewer(client), false), expected, "{client}");
        }
    }

    #[test]
    fn messages_replace_the_earlier_ones_in_both_forms() {
        let of = |capability| Node {
            capability,
            ..viewer("")
        };
        let (new, old) = (&of(117), &of(116));
        let none = DisplayMessages::new();
        assert_eq!(
            messages_field(new, &none),
            r#""DisplayMessages":{"*":null}"#
        );
        assert_eq!(messages_field(old, &none), r#""Health":[]"#);
        let one = DisplayMessages::from([
            home_is_offline(),
            routes_await_approval(&["10.0.0.0/8".to_owned()]),
        ]);
        let text = format!("{{{}}}", messages_field(new, &one));
        let value: Value = serde_json::from_str(&text).unwrap();
        let offline = &value["DisplayMessages"]["hearth-home-is-offline"];
        assert_eq!(offline["Severity"], "medium");
        assert_eq!(offline["ImpactsConnectivity"], true);
        let old = messages_field(old, &one);
        assert!(
            old.contains("Routes await approval: ") && old.contains("10.0.0.0/8"),
            "{old}"
        );
    }
}
