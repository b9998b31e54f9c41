//! How often devices may have something written: flash is for what people decide.
//!
//! What devices report is written with the next flush, and pending registrations not at all. What is left (new node keys,
//! earlier expiries, attributes) is charged to the machine, and joins of machines without a node to the preauth key.

use std::time::Duration;

use hearth_core::clock::Now;
use hearth_core::keys::MachineKey;
use hearth_core::state::command::{Command, PresentedKey, RequestedExpiry};
use hearth_core::state::model::Model;
use hearth_core::state::principal::Principal;
use hearth_shares::Buckets;

/// Writes by one machine: 32 at once, then one in 5 min.
const MACHINE: (u32, Duration) = (32, Duration::from_secs(300));
/// Interval of joins with one preauth key, once as many have joined as there may be nodes.
const KEY_INTERVAL: Duration = Duration::from_secs(10);
/// Most keys that have a share of their own; all others have one together.
const KEYS_MAX: usize = 1024;

/// Counts writes by devices.
pub(super) struct DeviceWrites {
    machines: Buckets<MachineKey>,
    keys: Buckets<Box<str>>,
}

/// Whose share a write is taken from.
pub(super) enum Charged {
    Machine(MachineKey),
    /// The public part of a preauth key.
    Key(Box<str>),
}

impl Charged {
    /// Who is charged for what a command writes: nobody for those of people, for a logout, which needs a login before it,
    /// and for what writes nothing.
    pub(super) fn for_command(command: &Command, by: &Principal, model: &Model) -> Option<Self> {
        match (command, by) {
            (Command::Register(request), _) if request.expiry != RequestedExpiry::Logout => {
                let mut nodes = model.nodes_of_machine(&request.machine);
                if nodes.next().is_some() {
                    return Some(Self::Machine(request.machine));
                }
                match &request.auth_key {
                    Some(PresentedKey::WellFormed { prefix, .. }) => {
                        Some(Self::Key(prefix.clone()))
                    }
                    Some(PresentedKey::Malformed) | None => None,
                }
            }
            (Command::RedeemPreAuthKey(_, PresentedKey::WellFormed { prefix, .. }), _) => {
                Some(Self::Key(prefix.clone()))
            }
            (Command::SetAttributes { .. }, Principal::Node { id }) => {
                model.node(*id).map(|node| Self::Machine(node.machine))
            }
            _ => None,
        }
    }
}

impl DeviceWrites {
    /// For a tailnet of at most `max_nodes`.
    pub(super) fn new(max_nodes: usize) -> Self {
        let joins = u32::try_from(max_nodes).unwrap_or(u32::MAX);
        Self {
            machines: Buckets::new(MACHINE.0, MACHINE.1, max_nodes),
            keys: Buckets::new(joins, KEY_INTERVAL, KEYS_MAX),
        }
    }

    /// Takes one write from a share. Returns false if it is used up.
    pub(super) fn take(&mut self, charged: Charged, now: Now) -> bool {
        match charged {
            Charged::Machine(machine) => self.machines.take(machine, now.mono),
            Charged::Key(prefix) => self.keys.take(prefix, now.mono),
        }
    }
}
