//! Splits a stream of bytes into frames. A frame that is complete in the input is not copied. Does
//! no I/O.

use crate::Limits;
use crate::frame::{HEADER_LEN, Header, Kind};
use crate::pool::{Pool, Reservation};

/// What to do with a frame.
pub(crate) enum Plan {
    /// Pass its body on.
    Take(Kind),
    /// Skip it.
    Skip,
}

/// What the input contained.
pub(crate) enum Item<'a> {
    /// A frame with its body.
    Frame(Kind, &'a [u8]),
    /// The start of a frame that is skipped.
    Skipped,
    /// A frame that is skipped because the pool has no room for it.
    PoolExhausted,
}

/// Buffer for the start of one frame.
///
/// Invariants: `partial` includes the header; it is empty while `skip` is not zero. Its capacity
/// beyond `Limits::partial_bytes` is charged to the pool by `reserved`.
#[derive(Default)]
pub(crate) struct Deframer {
    partial: Vec<u8>,
    reserved: Option<Reservation>,
    /// Bytes of the input still to skip.
    skip: u32,
    /// `partial` is a complete frame, which the last call returned.
    delivered: bool,
}

impl Deframer {
    /// Finds the next frame. Returns how much of the input was consumed, and what it contained.
    ///
    /// # Errors
    /// Those of `plan`.
    pub(crate) fn next<'a, E>(
        &'a mut self,
        input: &'a [u8],
        plan: impl Fn(Header) -> Result<Plan, E>,
        pool: &Pool,
        limits: &Limits,
    ) -> Result<(usize, Option<Item<'a>>), E> {
        if std::mem::take(&mut self.delivered) {
            self.clear(limits.partial_bytes);
        }
        if self.skip > 0 {
            let skipped = input
                .len()
                .min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.skip = self
                .skip
                .saturating_sub(u32::try_from(skipped).unwrap_or(u32::MAX));
            return Ok((skipped, None));
        }
        let held = self.partial.len();
        // The header may be split between `partial` and the input.
        let missing = HEADER_LEN.saturating_sub(held);
        let Some((head, rest)) = input.split_at_checked(missing) else {
            self.partial.extend_from_slice(input);
            return Ok((input.len(), None));
        };
        let mut header = [0; HEADER_LEN];
        header
            .iter_mut()
            .zip(self.partial.iter().chain(head))
            .for_each(|(to, from)| *to = *from);
        let header = Header::decode(&header);
        let kind = match plan(header)? {
            Plan::Take(kind) => kind,
            Plan::Skip => {
                self.clear(limits.partial_bytes);
                self.skip = header.length;
                return Ok((missing, Some(Item::Skipped)));
            }
        };
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        if held == 0
            && let Some(body) = rest.get(..length)
        {
            return Ok((
                missing.saturating_add(length),
                Some(Item::Frame(kind, body)),
            ));
        }
        let whole = HEADER_LEN.saturating_add(length);
        let wanted = whole.saturating_sub(held).min(input.len());
        if !self.make_room(held.saturating_add(wanted), whole, pool, limits) {
            let held_body = u32::try_from(held.saturating_sub(HEADER_LEN)).unwrap_or(u32::MAX);
            self.clear(0);
            self.skip = header.length.saturating_sub(held_body);
            return Ok((missing, Some(Item::PoolExhausted)));
        }
        self.partial
            .extend_from_slice(input.get(..wanted).unwrap_or_default());
        if self.partial.len() < whole {
            return Ok((wanted, None));
        }
        self.delivered = true;
        Ok((
            wanted,
            Some(Item::Frame(
                kind,
                self.partial.get(HEADER_LEN..).unwrap_or_default(),
            )),
        ))
    }

    /// Grows the capacity to at least `needed`. It grows with the bytes that arrived, not with the
    /// length in the header, so that a header alone costs nothing; it never exceeds `whole`, the
    /// size of the frame.
    fn make_room(&mut self, needed: usize, whole: usize, pool: &Pool, limits: &Limits) -> bool {
        let capacity = self.partial.capacity();
        if capacity >= needed {
            return true;
        }
        let capacity = needed
            .max(capacity.saturating_mul(2))
            .max(limits.partial_bytes)
            .min(whole);
        let charge = capacity.saturating_sub(limits.partial_bytes);
        // No frame takes more than half of the free pool, so that smaller ones still fit.
        let spare = limits.pool_reserve_bytes.saturating_add(charge);
        let paid = match &mut self.reserved {
            _ if charge == 0 => true,
            Some(reserved) => reserved.grow_to(charge, spare),
            none => {
                *none = pool.reserve(charge, spare);
                none.is_some()
            }
        };
        if paid {
            self.partial
                .reserve_exact(capacity.saturating_sub(self.partial.len()));
        }
        paid
    }

    /// Clears the buffer, and frees its memory if it is more than `keep` bytes.
    fn clear(&mut self, keep: usize) {
        self.partial.clear();
        if self.partial.capacity() > keep {
            self.partial = Vec::new();
        }
        self.reserved = None;
    }

    /// Frees unused memory.
    pub(crate) fn release(&mut self) {
        if self.delivered || self.partial.is_empty() {
            self.delivered = false;
            self.clear(0);
        }
    }
}
