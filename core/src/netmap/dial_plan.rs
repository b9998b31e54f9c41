//! The dial plan: server addresses that clients try before they ask DNS.

use std::net::IpAddr;

use crate::tailcfg::json;
use crate::tailcfg::notice::{ControlDialPlan, ControlIpCandidate};

/// A `tailcfg.ControlDialPlan` as JSON; the default is none, which leaves clients to DNS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DialPlan(String);

/// Dial timeout for LAN addresses, in seconds: clients on the LAN get an answer at once, and others must not
/// wait long.
const LAN_TIMEOUT: f64 = 2.0;

/// Dial timeout for other addresses, in seconds. Clients ask DNS only after all have failed.
const TIMEOUT: f64 = 5.0;

/// Delay of other addresses after LAN addresses, in seconds.
const LAN_HEAD_START: f64 = 0.2;

/// Withdraws a plan: clients keep theirs while the field is absent.
const NO_PLAN: &str = r#"{"Candidates":[]}"#;

impl DialPlan {
    /// The plan for a server at these addresses: LAN addresses first, then all others at the same time.
    pub fn new(addresses: &[IpAddr]) -> Self {
        if addresses.is_empty() {
            return Self::default();
        }
        let candidates = addresses.iter().map(|ip| {
            let is_lan = is_lan(*ip);
            ControlIpCandidate {
                ip: *ip,
                dial_start_delay_sec: if is_lan { 0.0 } else { LAN_HEAD_START },
                dial_timeout_sec: if is_lan { LAN_TIMEOUT } else { TIMEOUT },
                priority: if is_lan { 2 } else { 1 },
            }
        });
        Self(json::plain(&ControlDialPlan {
            candidates: candidates.collect(),
        }))
    }

    /// Whether there is no plan.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The field of a map response; without a plan it withdraws the one that the client has.
    pub fn field(&self) -> String {
        let plan = if self.is_empty() { NO_PLAN } else { &self.0 };
        format!(r#""ControlDialPlan":{plan}"#)
    }
}

fn is_lan(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lan_addresses_come_first_and_each_address_has_a_timeout() {
        let addresses = ["203.0.113.5", "192.168.1.1", "fd00::1"].map(|ip| ip.parse().unwrap());
        assert_eq!(
            DialPlan::new(&addresses).field(),
            concat!(
                r#""ControlDialPlan":{"Candidates":["#,
                r#"{"IP":"203.0.113.5","DialStartDelaySec":0.2,"DialTimeoutSec":5.0,"Priority":1},"#,
                r#"{"IP":"192.168.1.1","DialStartDelaySec":0.0,"DialTimeoutSec":2.0,"Priority":2},"#,
                r#"{"IP":"fd00::1","DialStartDelaySec":0.0,"DialTimeoutSec":2.0,"Priority":2}]}"#
            )
        );
        assert!(DialPlan::new(&[]).is_empty());
        assert_eq!(
            DialPlan::default().field(),
            r#""ControlDialPlan":{"Candidates":[]}"#
        );
    }
}
