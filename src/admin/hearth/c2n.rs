//! What administrators have to say to nodes, and to hear from them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use serde_json::Value;

use crate::admin::problem::{Code, Fault};
use crate::admin::v1::nodes::node_id;
use crate::admin::{Answer, Call, json};
use crate::api::{
    AskNode, Attributes, DecideSshCheck, EmptyAnswer, NodeReply, OpenPage, PingAnswer, PingNode,
    SshCheck, SshChecksAnswer,
};
use crate::control::c2n::mailbox::Undelivered;
use crate::control::c2n::request::C2nRequest;
use crate::control::c2n::{NodeCallError, ping};
use crate::status::ssh_checks::{Check, Undecidable, Verdict};
use hearth_core::id::{AuthId, NodeId};
use hearth_core::state::attributes::AttributeValue;
use hearth_core::state::command::Rejected;
use hearth_core::state::model::Node;
use hearth_core::state::snapshot::Snapshot;

/// How long a node may take for its answer; less than the command line waits for ours.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longest address of a page, in bytes.
const URL_BYTES: usize = 2048;

impl Call<'_> {
    pub(crate) async fn ask_node(&self, id: &str) -> Answer {
        let wish: AskNode = self.read()?;
        let node = self.node_with(id)?;
        let method = match wish.method.as_str() {
            "" => "GET",
            method => method,
        };
        let question = C2nRequest {
            method,
            path: &wish.path,
            body: wish.body.as_bytes(),
            timeout: PATIENCE,
        };
        let answer = self.admin.calls.ask(&node, &question).await?;
        let (body, body_base64) = match String::from_utf8(answer.body.to_vec()) {
            Ok(text) => (text, String::new()),
            Err(other) => (String::new(), BASE64.encode(other.as_bytes())),
        };
        json(&NodeReply {
            status: answer.status,
            content_type: answer.content_type,
            body,
            body_base64,
        })
    }

    fn node_with(&self, id: &str) -> Result<Arc<Node>, Fault> {
        let snapshot = self.admin.engine.snapshot();
        let node = snapshot.node(node_id(id)?).cloned();
        Ok(node.ok_or(Rejected::NoSuchNode)?)
    }

    pub(crate) async fn ping_node(&self, id: &str) -> Answer {
        let wish: PingNode = self.read()?;
        let node = self.node_with(id)?;
        if wish.target.is_empty() {
            let time = self.admin.calls.reach(&node).await?;
            return json(&PingAnswer {
                pings: Vec::new(),
                reached_after_seconds: Some(time.as_secs_f64()),
            });
        }
        let target = address_of(&self.admin.engine.snapshot(), &wish.target)?;
        let mut kinds: Vec<&str> = wish.types.iter().map(String::as_str).collect();
        if kinds.is_empty() {
            kinds.extend(ping::KINDS.first());
        }
        json(&PingAnswer {
            pings: self.admin.calls.ping(&node, target, &kinds).await?,
            reached_after_seconds: None,
        })
    }

    pub(crate) fn open_page(&self, id: &str) -> Answer {
        let wish: OpenPage = self.read()?;
        let url = wish.url.as_str();
        let is_web = url.starts_with("https://") || url.starts_with("http://");
        let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_web || !is_plain || url.len() > URL_BYTES {
            let fault = "url must begin with http:// or https:// and have no blanks";
            return Err(Fault::invalid(fault));
        }
        let node = self.node_with(id)?;
        let told = self.admin.calls.mailboxes.pop_browser(node.id, url);
        told.map_err(NodeCallError::from)?;
        json(&EmptyAnswer {})
    }

    pub(crate) fn show_attributes(&self, id: &str) -> Answer {
        let id = node_id(id)?;
        let snapshot = self.admin.engine.snapshot();
        snapshot.node(id).ok_or(Rejected::NoSuchNode)?;
        let attributes = snapshot.attributes(id);
        let attributes = attributes.iter().map(|(name, value)| {
            let value = match value {
                AttributeValue::Text(text) => Value::from(&**text),
                AttributeValue::Number(number) => Value::from(*number),
                AttributeValue::Flag(flag) => Value::from(*flag),
            };
            (name.to_string(), value)
        });
        json(&Attributes {
            attributes: attributes.collect(),
        })
    }

    pub(crate) async fn set_attributes(&self, id: &str) -> Answer {
        let wish: Attributes = self.read()?;
        let mut updates = Vec::new();
        for (name, value) in &wish.attributes {
            let value = AttributeValue::from_json(value).ok_or_else(|| {
                Fault::invalid("a value is a text, a whole number, true, false or null")
            })?;
            updates.push((name.as_str().into(), value));
        }
        let node = node_id(id)?;
        let engine = &self.admin.engine;
        engine.set_attributes(self.by(), node, updates).await?;
        self.show_attributes(id)
    }

    pub(crate) fn list_ssh_checks(&self) -> Answer {
        let snapshot = self.admin.engine.snapshot();
        let checks = self.admin.ssh_checks.list(self.now);
        let checks = checks.iter().map(|check| ssh_check(check, &snapshot));
        json(&SshChecksAnswer {
            checks: checks.collect(),
        })
    }

    pub(crate) fn decide_ssh_check(&self, approve: bool) -> Answer {
        let wish: DecideSshCheck = self.read()?;
        let id = wish.id.parse();
        let id = id.map_err(|fault| Fault::invalid(&format!("invalid id: {fault}")))?;
        self.decide_ssh(&id, approve)
    }

    pub(crate) fn decide_ssh(&self, id: &AuthId, approve: bool) -> Answer {
        let decided = self.admin.ssh_checks.decide(id, approve, self.now);
        decided.map_err(|fault| {
            let code = match fault {
                Undecidable::Unknown => Code::NotFound,
                Undecidable::Decided => Code::FailedPrecondition,
            };
            Fault::new(code, fault.to_string())
        })?;
        json(&EmptyAnswer {})
    }

    /// Whether this is the id of an SSH connection and not of a login.
    pub(crate) fn is_ssh_check(&self, id: &AuthId) -> bool {
        self.admin.ssh_checks.find(id, self.now).is_some()
    }
}

/// An address itself, or that of the node with this id or name.
fn address_of(snapshot: &Snapshot, target: &str) -> Result<IpAddr, Fault> {
    if let Ok(address) = target.parse() {
        return Ok(address);
    }
    let by_id = target.parse().ok().and_then(|id| snapshot.node(id));
    let is_named = |node: &&Arc<Node>| *node.label == *target;
    let node = by_id.or_else(|| snapshot.nodes().iter().find(is_named));
    node.map(|node| IpAddr::V4(node.ipv4))
        .ok_or_else(|| Fault::invalid("target must be an address, or the id or name of a node"))
}

pub(super) fn label_of(snapshot: &Snapshot, id: NodeId) -> String {
    let node = snapshot.node(id);
    node.map(|node| node.label.to_string()).unwrap_or_default()
}

fn ssh_check(check: &Check, snapshot: &Snapshot) -> SshCheck {
    let state = match check.verdict {
        Verdict::Waiting => "waiting",
        Verdict::Approved => "approved",
        Verdict::Rejected => "rejected",
    };
    SshCheck {
        id: check.id.to_string(),
        state: state.into(),
        source: label_of(snapshot, check.way.source),
        target: label_of(snapshot, check.way.target),
        local_user: check.way.local_user.to_string(),
        created_at: check.since,
    }
}

impl From<NodeCallError> for Fault {
    fn from(error: NodeCallError) -> Self {
        let code = match &error {
            NodeCallError::Undelivered(Undelivered::NotConnected) => Code::FailedPrecondition,
            NodeCallError::Undelivered(Undelivered::TooLong) | NodeCallError::C2nRequest(_) => {
                Code::InvalidArgument
            }
            NodeCallError::Undelivered(Undelivered::Full) | NodeCallError::TooMany(_) => {
                Code::ResourceExhausted
            }
            NodeCallError::Timeout(_) => Code::DeadlineExceeded,
            NodeCallError::Answer => Code::Internal,
            NodeCallError::NoRandomness(_) => Code::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}
