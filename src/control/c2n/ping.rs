//! Has a node ping another, or show that it reaches this server.
//!
//! Source: tailscale `control/controlclient/direct.go` (`answerPing`, `doPingerPing`, `answerHeadPing`).

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use crate::control::c2n::calls::ReplyChannel;
use crate::control::c2n::request::noise_url;
use crate::control::c2n::{NodeCallError, NodeCalls};
use hearth_core::state::model::Node;
use hearth_core::tailcfg::notice::PingRequest;

/// Where nodes show by a HEAD that they reach this server outside of the Noise tunnel; the name of the
/// call is the value of `id`. Source: `PingResponseHandler` in headscale `hscontrol/noise.go`.
pub const REACHED: &str = "/machine/ping-response";

/// How long clients try; one that fails says nothing. Source: `doPingerPing`.
const TRIES: Duration = Duration::from_secs(10);

/// How long answers are waited for: a ping, and the way back.
const PATIENCE: Duration = Duration::from_secs(12);

/// Longest result of a ping, in bytes.
const RESULT_BYTES: usize = 4 * 1024;

/// Kinds of ping. Source: `PingType` in tailscale `tailcfg/tailcfg.go`.
pub const KINDS: [&str; 4] = ["disco", "TSMP", "ICMP", "peerapi"];

impl NodeCalls {
    /// Has a node ping an address in these ways, and gives what it says of each that worked, as
    /// `tailcfg.PingResponse`.
    ///
    /// # Errors
    /// When a kind is none of [`KINDS`], or the node is not connected.
    pub async fn ping(
        &self,
        node: &Node,
        target: IpAddr,
        kinds: &[&str],
    ) -> Result<Vec<Value>, NodeCallError> {
        let known = kinds.iter().all(|kind| KINDS.contains(kind));
        if !(1..=KINDS.len()).contains(&kinds.len()) || !known {
            let fault = "the kinds of ping are disco, TSMP, ICMP and peerapi";
            return Err(NodeCallError::C2nRequest(fault));
        }
        let mut call =
            self.pending
                .begin(ReplyChannel::Noise(node.machine), kinds.len(), RESULT_BYTES)?;
        let request = PingRequest {
            url: &noise_url(call.name()),
            url_is_noise: true,
            types: &kinds.join(","),
            ip: Some(target),
            payload: "",
        };
        self.mailboxes.ping(node.id, &request)?;
        let deadline = Instant::now() + PATIENCE;
        let mut answers = Vec::new();
        while answers.len() < kinds.len() {
            let Ok(answer) = timeout_at(deadline, call.next()).await else {
                break;
            };
            answers.push(serde_json::from_slice(&answer).map_err(|_| NodeCallError::Answer)?);
        }
        Ok(answers)
    }

    /// Has a node send a request to the server's URL as if it were new, and gives the time until that
    /// arrives.
    ///
    /// # Errors
    /// When the node is not connected, or nothing arrives.
    pub async fn reach(&self, node: &Node) -> Result<Duration, NodeCallError> {
        let mut call = self.pending.begin(ReplyChannel::Plain, 1, 0)?;
        let request = PingRequest {
            url: &format!("{}{REACHED}?id={}", self.server_url, call.name()),
            url_is_noise: false,
            types: "",
            ip: None,
            payload: "",
        };
        self.mailboxes.ping(node.id, &request)?;
        let asked = Instant::now();
        let arrived = timeout(TRIES, call.next()).await;
        arrived.map_err(|_| NodeCallError::Timeout(TRIES))?;
        Ok(asked.elapsed())
    }
}
