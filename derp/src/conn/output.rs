//! The batch of frames that is being written.

use std::collections::VecDeque;
use std::io::IoSlice;

use crate::queue::{Packet, Queue};
use crate::stats::{DropReason, Drops, Tally};

/// Most slices of one vectored write: one for the small frames and one for each packet.
pub const MAX_SLICES: usize = 64;

/// Most notices about peers in one batch, which bounds its small frames to about 3 KB.
pub(crate) const MAX_NOTICES: usize = 64;

/// Small frames first, then packets. A new batch is put together only when the last one is all
/// written, so that packets wait in the queue, where the oldest can still be dropped, and not here.
#[derive(Default)]
pub(crate) struct Output {
    head: Vec<u8>,
    head_written: usize,
    packets: VecDeque<Packet>,
    /// Bytes of the first packet that are written.
    front_written: usize,
    sent: Tally,
}

impl Output {
    /// Where small frames are appended.
    pub(crate) fn head(&mut self) -> &mut Vec<u8> {
        &mut self.head
    }

    /// Takes packets, about `most` bytes in all but at least one.
    pub(crate) fn take_packets(&mut self, queue: &mut Queue, most: usize) {
        queue.note_written();
        let mut bytes = 0_usize;
        while bytes < most && self.packets.len() < MAX_SLICES.saturating_sub(1) {
            let Some(packet) = queue.pop() else { break };
            bytes = bytes.saturating_add(packet.frame().len());
            self.packets.push_back(packet);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_empty() && self.packets.is_empty()
    }

    /// What is left to write.
    pub(crate) fn slices(&self) -> heapless::Vec<IoSlice<'_>, MAX_SLICES> {
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

    /// Notes that `length` bytes were written.
    pub(crate) fn advance(&mut self, mut length: usize) {
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
    pub(crate) fn take_sent(&mut self) -> Tally {
        std::mem::take(&mut self.sent)
    }

    /// Drops what is not written and counts it.
    pub(crate) fn abandon(&mut self, drops: &mut Drops) {
        for packet in self.packets.drain(..) {
            drops.record(DropReason::WriteError, packet.payload());
        }
    }

    /// Gives unused memory back.
    pub(crate) fn release(&mut self) {
        if self.is_empty() {
            self.head = Vec::new();
            self.packets = VecDeque::new();
        }
    }
}
