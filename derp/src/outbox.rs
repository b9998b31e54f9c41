//! The sending half of a connection or mesh link: the batch of frames that is being written, and
//! the deadlines of login and writes. Does no I/O.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Duration;

use crate::queue::{Packet, Queue};
use crate::stats::{DropReason, Drops, Tally};

/// Most slices of one vectored write: one for the small frames and one for each packet.
pub const MAX_SLICES: usize = 64;

/// Most notices about peers in one batch, which bounds its small frames to about 3 KB.
pub(crate) const MAX_NOTICES: usize = 64;

/// A deadline that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// The login took too long.
    Login,
    /// The peer accepted no bytes for the write timeout.
    Write,
}

/// Small frames first, then packets. The next batch is loaded only when the last one is fully
/// written, so that packets wait in the queue, where the oldest can still be dropped, and not here.
pub struct Outbox {
    head: Vec<u8>,
    head_written: usize,
    packets: VecDeque<Packet>,
    /// Bytes of the first packet that are written.
    front_written: usize,
    sent: Tally,
    write_timeout: Duration,
    /// Set while the peer accepts no bytes.
    write_deadline: Option<Duration>,
    /// None once the login is done.
    login_deadline: Option<Duration>,
}

impl Outbox {
    pub(crate) fn new(login_deadline: Duration, write_timeout: Duration) -> Self {
        Outbox {
            head: Vec::new(),
            head_written: 0,
            packets: VecDeque::new(),
            front_written: 0,
            sent: Tally::default(),
            write_timeout,
            write_deadline: None,
            login_deadline: Some(login_deadline),
        }
    }

    /// Ends the login deadline.
    pub(crate) fn login_done(&mut self) {
        self.login_deadline = None;
    }

    /// Changes how long the peer may accept no bytes.
    pub(crate) fn set_write_timeout(&mut self, timeout: Duration) {
        self.write_timeout = timeout;
    }

    /// Where small frames are appended.
    pub(crate) fn head(&mut self) -> &mut Vec<u8> {
        &mut self.head
    }

    /// Takes about `max` bytes of packets from a queue, but at least one packet.
    pub(crate) fn take_packets(&mut self, queue: &mut Queue, max: usize) {
        queue.note_written();
        let mut bytes = 0_usize;
        while bytes < max && self.packets.len() < MAX_SLICES.saturating_sub(1) {
            let Some(packet) = queue.pop() else { break };
            bytes = bytes.saturating_add(packet.frame().len());
            self.packets.push_back(packet);
        }
    }

    /// Whether the batch is fully written.
    pub fn is_empty(&self) -> bool {
        self.head.is_empty() && self.packets.is_empty()
    }

    /// The bytes to write now; empty if there are none.
    pub fn slices(&self) -> heapless::Vec<IoSlice<'_>, MAX_SLICES> {
        let head = self.head.get(self.head_written..).unwrap_or_default();
        let written = std::iter::once(self.front_written).chain(std::iter::repeat(0));
        let packets = self.packets.iter().zip(written);
        let packets =
            packets.map(|(packet, written)| packet.frame().get(written..).unwrap_or_default());
        std::iter::once(head)
            .chain(packets)
            .filter(|bytes| !bytes.is_empty())
            .map(IoSlice::new)
            .collect()
    }

    /// Notes that the first `length` bytes of [`Outbox::slices`] were written.
    pub fn transmitted(&mut self, length: usize) {
        self.write_deadline = None;
        self.advance(length);
    }

    /// Notes that the peer accepts no bytes at the moment: the write timeout starts, unless it
    /// already runs.
    pub fn blocked(&mut self, now: Duration) {
        self.write_deadline
            .get_or_insert(now.saturating_add(self.write_timeout));
    }

    fn advance(&mut self, mut length: usize) {
        let head = length.min(self.head.len().saturating_sub(self.head_written));
        self.head_written = self.head_written.saturating_add(head);
        length = length.saturating_sub(head);
        if self.head_written == self.head.len() {
            self.head.clear();
            self.head_written = 0;
        }
        while let Some(front) = self.packets.front() {
            let left = front.frame().len().saturating_sub(self.front_written);
            if length < left {
                self.front_written = self.front_written.saturating_add(length);
                return;
            }
            length = length.saturating_sub(left);
            self.front_written = 0;
            self.sent.record(front.payload().len());
            self.packets.pop_front();
        }
    }

    /// Packets written since the last call.
    pub fn take_sent(&mut self) -> Tally {
        std::mem::take(&mut self.sent)
    }

    /// Counts the packets that were loaded but not fully written, at the end of the connection.
    pub fn abandon(&mut self, drops: &mut Drops) {
        for packet in self.packets.drain(..) {
            drops.record(DropReason::WriteError, packet.payload());
        }
    }

    /// The earlier of the next deadline and `other`.
    pub(crate) fn next_deadline(&self, other: Duration) -> Duration {
        let deadlines = [self.login_deadline, self.write_deadline];
        deadlines.into_iter().flatten().fold(other, Duration::min)
    }

    /// Fails if a deadline has passed.
    pub(crate) fn check_deadlines(&self, now: Duration) -> Result<(), Expired> {
        if self.login_deadline.is_some_and(|at| at <= now) {
            return Err(Expired::Login);
        }
        if self.write_deadline.is_some_and(|at| at <= now) {
            return Err(Expired::Write);
        }
        Ok(())
    }

    /// Frees unused memory.
    pub(crate) fn release(&mut self) {
        if self.is_empty() {
            self.head = Vec::new();
            self.packets = VecDeque::new();
        }
    }
}
