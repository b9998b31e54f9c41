//! Whether a client is up to date, as clients show it.

use crate::release::Release;
use crate::state::model::Node;
use crate::tailcfg::json;
use crate::tailcfg::notice::ClientVersion;

/// The field `ClientVersion` of a map response; `None` if either version is unknown.
pub(super) fn field(latest: Option<Release>, viewer: &Node) -> Option<String> {
    let installed = Release::of_client(&viewer.hostinfo.client_version)?;
    let latest = latest?;
    let text = latest.to_string();
    let running_latest = installed >= latest;
    let version = json::plain(&ClientVersion {
        running_latest,
        latest_version: if running_latest { "" } else { &text },
    });
    Some(format!(r#""ClientVersion":{version}"#))
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
    fn a_client_gets_the_newest_version_if_its_own_is_known() {
        let latest = "1.102.5".parse().ok();
        let newer = Some(r#""ClientVersion":{"LatestVersion":"1.102.5"}"#);
        let is_latest = Some(r#""ClientVersion":{"RunningLatest":true}"#);
        for (client, expected) in [
            ("1.98.0-t1", newer),
            ("1.102.5-t1-g2", is_latest),
            ("1.103.1", is_latest),
            ("0.4.0-rs", newer),
            ("", None),
        ] {
            let viewer = viewer(client);
            assert_eq!(field(latest, &viewer).as_deref(), expected, "{client}");
            assert_eq!(field(None, &viewer), None);
        }
    }
}
