//! Requests of administrators to nodes, client reports, and SSH checks.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use serde_json::Value;

use crate::admin::problem::{ApiError, Code};
use crate::admin::v1::nodes::{find, node_id};
use crate::admin::{ApiCall, ApiResult, json};
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

/// Timeout for the reply of a node; shorter than the timeout of the command line.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Longest URL of a page, in bytes.
const URL_BYTES: usize = 2048;

impl ApiCall<'_> {
    pub(crate) async fn ask_node(&self, id: &str) -> ApiResult {
        let request: AskNode = self.read()?;
        let node = self.node_with(id)?;
        let method = match request.method.as_str() {
            "" => "GET",
            method => method,
        };
        let c2n_request = C2nRequest {
            method,
            path: &request.path,
            body: request.body.as_bytes(),
            timeout: TIMEOUT,
        };
        let answer = self.admin.calls.ask(&node, &c2n_request).await?;
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

    fn node_with(&self, id: &str) -> Result<Arc<Node>, ApiError> {
        let snapshot = self.admin.engine.snapshot();
        let node = snapshot.node(node_id(id)?).cloned();
        Ok(node.ok_or(Rejected::NoSuchNode)?)
    }

    pub(crate) async fn ping_node(&self, id: &str) -> ApiResult {
        let request: PingNode = self.read()?;
        let node = self.node_with(id)?;
        if request.target.is_empty() {
            let time = self.admin.calls.reach(&node).await?;
            return json(&PingAnswer {
                pings: Vec::new(),
                reached_after_seconds: Some(time.as_secs_f64()),
            });
        }
        let target = self.address_of(&request.target)?;
        let mut kinds: Vec<&str> = request.types.iter().map(String::as_str).collect();
        if kinds.is_empty() {
            kinds.extend(ping::KINDS.first());
        }
        json(&PingAnswer {
            pings: self.admin.calls.ping(&node, target, &kinds).await?,
            reached_after_seconds: None,
        })
    }

    /// The address itself, or that of the node with this ID or name.
    fn address_of(&self, target: &str) -> Result<IpAddr, ApiError> {
        if let Ok(address) = target.parse() {
            return Ok(address);
        }
        let snapshot = self.admin.engine.snapshot();
        let node = find(&snapshot, &self.admin.about.base_domain, target)?;
        node.map(|node| IpAddr::V4(node.ipv4)).ok_or_else(|| {
            ApiError::invalid("target must be an IP address, a node ID or a node name")
        })
    }

    pub(crate) fn open_page(&self, id: &str) -> ApiResult {
        let request: OpenPage = self.read()?;
        let url = request.url.as_str();
        let is_web = url.starts_with("https://") || url.starts_with("http://");
        let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_web || !is_plain || url.len() > URL_BYTES {
            let fault = "url must begin with http:// or https:// and have no spaces";
            return Err(ApiError::invalid(fault));
        }
        let node = self.node_with(id)?;
        let queued = self.admin.calls.mailboxes.pop_browser(node.id, url);
        queued.map_err(NodeCallError::from)?;
        json(&EmptyAnswer {})
    }

    pub(crate) fn show_attributes(&self, id: &str) -> ApiResult {
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

    pub(crate) async fn set_attributes(&self, id: &str) -> ApiResult {
        let request: Attributes = self.read()?;
        let mut updates = Vec::new();
        for (name, value) in &request.attributes {
            let value = AttributeValue::from_json(value).ok_or_else(|| {
                ApiError::invalid(
                    "the value of an attribute must be a string, an integer, true, false or null",
                )
            })?;
            updates.push((name.as_str().into(), value));
        }
        let node = node_id(id)?;
        let engine = &self.admin.engine;
        engine.set_attributes(self.by(), node, updates).await?;
        self.show_attributes(id)
    }

    pub(crate) fn list_ssh_checks(&self) -> ApiResult {
        let snapshot = self.admin.engine.snapshot();
        let checks = self.admin.ssh_checks.list(self.now);
        let checks = checks.iter().map(|check| ssh_check(check, &snapshot));
        json(&SshChecksAnswer {
            checks: checks.collect(),
        })
    }

    pub(crate) fn decide_ssh_check(&self, approve: bool) -> ApiResult {
        let request: DecideSshCheck = self.read()?;
        let id = request.id.parse();
        let id = id.map_err(|fault| ApiError::invalid(&format!("invalid id: {fault}")))?;
        self.decide_ssh(&id, approve)
    }

    pub(crate) fn decide_ssh(&self, id: &AuthId, approve: bool) -> ApiResult {
        let decided = self.admin.ssh_checks.decide(id, approve, self.now);
        let attempt = decided.map_err(|fault| {
            let code = match fault {
                Undecidable::Unknown => Code::NotFound,
                Undecidable::Decided => Code::FailedPrecondition,
            };
            ApiError::new(code, fault.to_string())
        })?;
        let snapshot = self.admin.engine.snapshot();
        let [source, target] = [attempt.source, attempt.target].map(|id| snapshot.name_with_id(id));
        let user = &attempt.local_user;
        let verdict = if approve { "approved" } else { "rejected" };
        let by = self.principal.to_string();
        tracing::info!(source, target, %user, by, "SSH connection {verdict}");
        json(&EmptyAnswer {})
    }

    /// Whether this is the ID of an SSH check and not of a pending registration.
    pub(crate) fn is_ssh_check(&self, id: &AuthId) -> bool {
        self.admin.ssh_checks.find(id, self.now).is_some()
    }
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
        source: label_of(snapshot, check.attempt.source),
        target: label_of(snapshot, check.attempt.target),
        local_user: check.attempt.local_user.to_string(),
        created_at: check.since,
    }
}

impl From<NodeCallError> for ApiError {
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
