//! How an end came about, as nodes and keys store it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::CLOCKLESS_BEFORE;
use crate::state::model::{Ending, Span};

#[derive(Serialize, Deserialize)]
pub(super) enum EndingV1 {
    Date,
    Span {
        life_ms: u64,
        boot: u32,
        boot_ms: i64,
    },
    Hand,
}

impl EndingV1 {
    /// For a value that was stored without it. An end before 1980 is a span of time, made by a clock that started in
    /// 1970.
    pub(super) fn before(expiry_ms: Option<i64>, by_hand: bool) -> Self {
        let is_old = |end: &i64| *end < CLOCKLESS_BEFORE.unix_ms();
        match expiry_ms.filter(is_old) {
            Some(_) if by_hand => Self::Hand,
            Some(end) => Self::Span {
                life_ms: end.max(1).unsigned_abs(),
                boot: 0,
                boot_ms: 0,
            },
            None => Self::Date,
        }
    }
}

impl From<Ending> for EndingV1 {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Date => Self::Date,
            Ending::Span(span) => Self::Span {
                life_ms: u64::try_from(span.life.as_millis()).unwrap_or(u64::MAX),
                boot: span.boot,
                boot_ms: span.boot_ms,
            },
            Ending::Hand => Self::Hand,
        }
    }
}

impl From<EndingV1> for Ending {
    fn from(ending: EndingV1) -> Self {
        match ending {
            EndingV1::Date => Self::Date,
            EndingV1::Span {
                life_ms,
                boot,
                boot_ms,
            } => Self::Span(Span {
                life: Duration::from_millis(life_ms),
                boot,
                boot_ms,
            }),
            EndingV1::Hand => Self::Hand,
        }
    }
}
