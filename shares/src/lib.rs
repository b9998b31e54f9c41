//! Fair shares: how hearth divides what is limited among those who use it. Does no I/O.
//!
//! # Terms
//! - **Source**: who a use is charged to. For connections an address with two groups ([`Source`]), else a machine key, a
//!   node, an API key or a relay key.
//! - **Proven**: a machine that has a node, an admitted relay client, a signed-in person. Everyone else is a stranger.
//!
//! # Rules
//! 1. Strangers and the proven never compete: each has a pool of its own, and that of the strangers is the smaller one.
//! 2. A full pool makes room ([`Pool`]): the source that holds the most loses its oldest entry. A source that asks for more
//!    than all others have loses an entry of its own.
//! 3. What cannot be taken back (a place in a queue) is counted per source ([`Counts`]), and no source gets more than its
//!    share.
//! 4. Rates are per source ([`Buckets`]): no source uses up the tokens of another. Where sources can be forged, they are
//!    counted in a table that cannot be used up ([`Sketch`]).
//! 5. What a source causes is logged a few times, then counted ([`Lines`]).
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod bucket;
pub mod counts;
pub mod lines;
pub mod pool;
pub mod sketch;
pub mod source;

pub use bucket::{AddressBuckets, Buckets, SharedTokenBucket, TokenBucket};
pub use counts::{Counts, Held};
pub use lines::Lines;
pub use pool::{Entry, Pool};
pub use sketch::Sketch;
pub use source::Source;
