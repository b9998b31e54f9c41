//! Pings: from a node to an address of another, or to this server.
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

/// Path to which nodes send a HEAD request outside of the Noise session, to prove that they reach this
/// server; `id` is the name of the call. Source: `PingResponseHandler` in headscale `hscontrol/noise.go`.
pub const REACHED: &str = "/machine/ping-response";

/// Timeout of clients, which report only success. Source: `doPingerPing`.
const TRIES: Duration = Duration::from_secs(10);

/// Timeout for the reply: the ping, and the way back.
const TIMEOUT: Duration = Duration::from_secs(12);

/// Longest ping result, in bytes.
const RESULT_BYTES: usize = 4 * 1024;

/// Ping types. Source: `PingType` in tailscale `tailcfg/tailcfg.go`.
pub const KINDS: [&str; 4] = ["disco", "TSMP", "ICMP", "peerapi"];

impl NodeCalls {
    /// Makes a node ping an address with these ping types, and returns each successful result, a
    /// `tailcfg.PingResponse`.
    ///
    /// # Errors
    /// When a type is not one of [`KINDS`], or the node is not connected.
    pub async fn ping(
        &self,
        node: &Node,
        target: IpAddr,
        kinds: &[&str],
    ) -> Result<Vec<Value>, NodeCallError> {
        let known = kinds.iter().all(|kind| KINDS.contains(kind));
        if !(1..=KINDS.len()).contains(&kinds.len()) || !known {
            let fault = "the ping types are disco, TSMP, ICMP and peerapi";
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
        let now = Instant::now();
        let deadline = now.checked_add(TIMEOUT).unwrap_or(now);
        let mut answers = Vec::new();
        while answers.len() < kinds.len() {
            let Ok(answer) = timeout_at(deadline, call.next()).await else {
                break;
            };
            answers.push(serde_json::from_slice(&answer).map_err(|_| NodeCallError::Answer)?);
        }
        Ok(answers)
    }

    /// Makes a node send a request to `server_url` over a new connection, and returns the time until it
    /// arrives.
    ///
    /// # Errors
    /// When the node is not connected, or no request arrives.
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
