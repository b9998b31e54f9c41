//! Policy explanation: whether a connection is allowed, and by which rule.

use std::net::IpAddr;
use std::sync::Arc;

use crate::admin::problem::ApiError;
use crate::admin::v1::users;
use crate::admin::{ApiCall, ApiResult, json};
use crate::api::{WhyAnswer, WhyPair, WhyRule};
use hearth_core::id::NodeId;
use hearth_core::policy::protocol;
use hearth_core::state::model::Node;
use hearth_core::state::snapshot::Snapshot;

/// Most pairs in a response.
const PAIRS_MAX: usize = 64;

/// TCP, as an IP protocol number.
const TCP: u8 = 6;

/// One end of the connection.
#[derive(Debug, Clone)]
enum TrafficEnd {
    Node(Arc<Node>),
    Address(IpAddr),
}

impl ApiCall<'_> {
    /// `?src=&dst=&port=&proto=`: `src` and `dst` are nodes, users, tags or addresses.
    pub(crate) fn why(&self) -> ApiResult {
        let [src, dst, port, proto] = ["src", "dst", "port", "proto"].map(|key| self.query(key));
        let proto = protocol(proto).map_err(|fault| ApiError::invalid(&fault))?;
        let proto = proto.unwrap_or(TCP);
        let port = match (port, proto) {
            // These protocols have ports.
            ("", 6 | 17 | 132) => return Err(ApiError::invalid("missing port: add ?port=")),
            ("", _) => 0,
            (port, _) => port
                .parse()
                .map_err(|_| ApiError::invalid("port must be from 0 to 65535"))?,
        };
        let snapshot = self.admin.engine.snapshot();
        let (sources, destinations) = (self.ends(&snapshot, src)?, self.ends(&snapshot, dst)?);
        let mut answer = WhyAnswer {
            pairs: Vec::new(),
            more: 0,
        };
        for from in &sources {
            for to in &destinations {
                match answer.pairs.len() < PAIRS_MAX {
                    true => answer.pairs.push(pair(&snapshot, from, to, port, proto)),
                    false => answer.more = answer.more.saturating_add(1),
                }
            }
        }
        json(&answer)
    }

    fn ends(&self, snapshot: &Snapshot, name: &str) -> Result<Vec<TrafficEnd>, ApiError> {
        if name.is_empty() {
            return Err(ApiError::invalid("missing src or dst: add ?src= and ?dst="));
        }
        if let Ok(address) = name.parse::<IpAddr>() {
            let mut nodes = snapshot.nodes().iter();
            let own = |node: &&Arc<Node>| address == node.ipv4 || address == node.ipv6;
            let node = nodes.find(own).cloned();
            return Ok(vec![
                node.map_or(TrafficEnd::Address(address), TrafficEnd::Node),
            ]);
        }
        let base_domain = &self.admin.about.base_domain;
        let chosen = |is: &dyn Fn(&Node) -> bool| -> Vec<TrafficEnd> {
            let nodes = snapshot.nodes().iter().filter(|node| is(node));
            nodes.cloned().map(TrafficEnd::Node).collect()
        };
        // Tags are in upper or lower case, names of nodes in any.
        let full = match name.starts_with("tag:") {
            true => name.to_owned(),
            false => name.trim_end_matches('.').to_ascii_lowercase(),
        };
        let named = chosen(&|node| node.is_named(&full, base_domain));
        if !named.is_empty() {
            return Ok(named);
        }
        let login = name.strip_suffix('@').unwrap_or(name);
        let user = users::find(snapshot, name).or_else(|_| users::find(snapshot, login));
        let owned = user.map(|user| chosen(&|node| node.user() == Some(user)));
        match owned {
            Ok(owned) if !owned.is_empty() => Ok(owned),
            Ok(_) => Err(ApiError::invalid(&format!("user {name} has no nodes"))),
            Err(_) => Err(ApiError::invalid(&format!(
                "not found: {name:?} (expected a node, a user, a tag in use or an address)"
            ))),
        }
    }
}

fn pair(snapshot: &Snapshot, from: &TrafficEnd, to: &TrafficEnd, port: u16, proto: u8) -> WhyPair {
    let compiled = snapshot.compiled();
    let v6_only = match (from, to) {
        (TrafficEnd::Node(from), TrafficEnd::Node(to)) => compiled.without_ipv4(from.id, to.id),
        (TrafficEnd::Address(address), _) | (_, TrafficEnd::Address(address)) => address.is_ipv6(),
    };
    let (src, dst) = (from.address(v6_only), to.address(v6_only));
    let why = compiled.why(src, dst, port, proto);
    let apart = [from, to]
        .into_iter()
        .find_map(|end| end.apart(|id| compiled.node(id).is_some()));
    // The default is no rule of the policy.
    let rules = why.allowed_by.iter().filter(|cause| cause.line > 0);
    let rules = rules.map(|cause| WhyRule {
        rule: cause.rule.to_string(),
        line: cause.line,
    });
    WhyPair {
        source: from.name(),
        source_address: src.to_string(),
        destination: to.name(),
        destination_address: dst.to_string(),
        allowed: why.allowed() && apart.is_none(),
        rules: rules.collect(),
        reason: apart.unwrap_or_else(|| {
            let router = why.router.filter(|_| why.allowed());
            let router = router.and_then(|router| snapshot.node(router));
            format!(
                "{why}{}",
                router.map_or_else(String::new, |router| about_router(router))
            )
        }),
    }
}

/// The name of a subnet router, and why it does not pass on what the policy allows.
fn about_router(router: &Node) -> String {
    let name = &router.label;
    let fault = match () {
        () if !router.is_online() => ", which is offline",
        () if router.forwarding_off => ", but IP forwarding is off on it: see docs/routes.md",
        () if router.unhealthy => ", which does not answer",
        () => "",
    };
    format!(" ({name}{fault})")
}

impl TrafficEnd {
    fn name(&self) -> String {
        match self {
            Self::Node(node) => node.label.to_string(),
            Self::Address(address) => address.to_string(),
        }
    }

    fn address(&self, v6_only: bool) -> IpAddr {
        match self {
            Self::Node(node) if v6_only => node.ipv6.into(),
            Self::Node(node) => node.ipv4.into(),
            Self::Address(address) => *address,
        }
    }

    /// Why the node is isolated from all peers, whatever the policy; `None` when it is not.
    fn apart(&self, is_known: impl Fn(NodeId) -> bool) -> Option<String> {
        let Self::Node(node) = self else {
            return None;
        };
        let why = match () {
            () if node.expired => "its key has expired",
            () if !node.authorized => "it waits for approval",
            () if !is_known(node.id) => "it has never connected",
            () => return None,
        };
        Some(format!("denied: {} is isolated: {why}", node.label))
    }
}
