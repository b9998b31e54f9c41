//! What a message to one node is made from.

use crate::clock::Timestamp;
use crate::netmap::shared_data::SharedMapData;
use crate::state::snapshot::Snapshot;

/// The inputs of a map message.
#[derive(Debug, Clone, Copy)]
pub struct MapContext<'a> {
    /// The data that all maps share.
    pub shared: &'a SharedMapData,
    /// The state to send.
    pub snapshot: &'a Snapshot,
    /// The current time, sent as `ControlTime`.
    pub now: Timestamp,
}
