//! The last addresses that were given out.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::state::addr::Cursors;
use crate::state::record::codec::{decode, encode};
use crate::state::record::{DecodeError, Stored};

#[derive(Serialize, Deserialize)]
struct CursorsV1 {
    v4: Vec<(Ipv4Addr, u8, Ipv4Addr)>,
    v6: Option<Ipv6Addr>,
}

impl Stored for Cursors {
    fn encode(&self) -> Vec<u8> {
        let first = CursorsV1 {
            v4: self.v4.clone(),
            v6: self.v6,
        };
        encode(1, &first)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let CursorsV1 { v4, v6 } = decode(bytes)?;
        Ok(Self { v4, v6 })
    }
}
