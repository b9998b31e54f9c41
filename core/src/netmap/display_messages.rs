//! Display messages: what the person at a device should know, shown by its client.

use serde_json::Value;

use crate::netmap::shared_data::SharedMapData;
use crate::state::model::Node;
use crate::tailcfg::capability::CapabilityVersion;
use crate::tailcfg::json;
use crate::tailcfg::notice::{DisplayMessage, DisplayMessages, Severity};

/// The field that shows the viewer's messages and removes earlier ones; empty if there are none.
pub(super) fn field(viewer: &Node, shared: &SharedMapData) -> String {
    let mut messages = DisplayMessages::new();
    let waiting: Vec<String> = viewer
        .waiting_routes()
        .map(|route| route.to_string())
        .collect();
    if !waiting.is_empty() {
        messages.extend([routes_await_approval(&waiting)]);
    }
    let tags = viewer.tags_without_login();
    if !tags.is_empty() {
        messages.extend([tags_need_login(tags, &shared.server_url)]);
    }
    if shared.home_is_offline {
        messages.extend([no_uplink()]);
    }
    match messages.is_empty() {
        true => String::new(),
        false => replacement(viewer, &messages),
    }
}

/// The field that removes all messages.
pub(super) fn removal(viewer: &Node) -> String {
    replacement(viewer, &DisplayMessages::new())
}

/// The field that replaces the viewer's messages by these, in the form that its client supports: `DisplayMessages` or
/// `Health`.
fn replacement(viewer: &Node, messages: &DisplayMessages) -> String {
    let version = CapabilityVersion::new(viewer.capability.into());
    if !version.shows_messages() {
        let texts = messages.values();
        let texts: Vec<String> = texts
            .map(|message| format!("{}: {}", message.title, message.text))
            .collect();
        return format!(r#""Health":{}"#, json::plain(&texts));
    }
    let mut all = serde_json::Map::from_iter([("*".to_owned(), Value::Null)]);
    all.extend(messages.iter().map(|(id, message)| {
        let message = serde_json::to_value(message).unwrap_or_default();
        ((*id).to_owned(), message)
    }));
    format!(r#""DisplayMessages":{}"#, json::plain(&all))
}

/// The node advertises routes that await approval.
fn routes_await_approval(routes: &[String]) -> (&'static str, DisplayMessage) {
    let text = format!(
        "An admin of this network must approve these routes before other devices can use them: {}.",
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

/// The client requests tags that a report cannot give. It refuses to log in again without `--login-server`
/// (`checkForAccidentalSettingReverts` in tailscale `cmd/tailscale/cli/up.go`), and prints the complete command if it
/// needs other settings as well.
fn tags_need_login(tags: &[Box<str>], server_url: &str) -> (&'static str, DisplayMessage) {
    let tags = tags.join(",");
    let text = format!(
        "Tags change with a new login only. To apply them: tailscale up --force-reauth --login-server={server_url} --advertise-tags={tags}"
    );
    let message = DisplayMessage {
        title: "Requested tags not applied".to_owned(),
        text,
        severity: Severity::Low,
        impacts_connectivity: false,
    };
    ("hearth-tags-need-login", message)
}

/// The server has no internet uplink.
fn no_uplink() -> (&'static str, DisplayMessage) {
    let message = DisplayMessage {
        title: "No internet uplink at home".to_owned(),
        text: "The control server cannot reach the internet. Devices at home stay connected; \
               devices elsewhere may be unable to reach them."
            .to_owned(),
        severity: Severity::Medium,
        impacts_connectivity: true,
    };
    ("hearth-home-is-offline", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::model::Owner;
    use crate::state::testing::World;

    fn viewer(capability: u16) -> Node {
        let (mut world, _) = World::with_user();
        let id = world.node_number(1);
        Node {
            capability,
            ..(**world.node(id)).clone()
        }
    }

    #[test]
    fn a_client_is_told_of_tags_that_only_a_login_can_give() {
        let told = |tags: &[&str], owner: Owner| {
            let viewer = Node {
                unmet_tags: tags.iter().map(|tag| Box::from(*tag)).collect(),
                owner,
                ..viewer(117)
            };
            let shared = SharedMapData::new("t.net".into(), &Default::default());
            field(&viewer, &shared.with_server_url("http://a".into()))
        };
        let user = || Owner::User(crate::id::UserId::FIRST);
        assert_eq!(told(&[], user()), "");
        let text = told(&["tag:a", "tag:b"], user());
        assert!(
            text.contains(
                "tailscale up --force-reauth --login-server=http://a --advertise-tags=tag:a,tag:b"
            ),
            "{text}"
        );
        let granted = Owner::Tags(["tag:a".into(), "tag:b".into()].into());
        assert_eq!(told(&["tag:b"], granted), "", "it has them");
    }

    #[test]
    fn messages_replace_the_earlier_ones_in_both_forms() {
        let (new, old) = (&viewer(117), &viewer(116));
        assert_eq!(removal(new), r#""DisplayMessages":{"*":null}"#);
        assert_eq!(removal(old), r#""Health":[]"#);
        let messages = DisplayMessages::from([
            no_uplink(),
            routes_await_approval(&["10.0.0.0/8".to_owned()]),
        ]);
        let text = format!("{{{}}}", replacement(new, &messages));
        let value: Value = serde_json::from_str(&text).unwrap();
        let offline = &value["DisplayMessages"]["hearth-home-is-offline"];
        assert_eq!(offline["Severity"], "medium");
        assert_eq!(offline["ImpactsConnectivity"], true);
        let old = replacement(old, &messages);
        assert!(
            old.contains("Routes await approval: ") && old.contains("10.0.0.0/8"),
            "{old}"
        );
    }
}
