//! DNS records.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::state::dns::{DnsRecord, DnsValue};
use crate::state::record::codec::{decode, encode};
use crate::state::record::{DecodeError, Stored};

#[derive(Serialize, Deserialize)]
struct DnsRecordV1 {
    name: Box<str>,
    value: DnsValueV1,
}

#[derive(Serialize, Deserialize)]
enum DnsValueV1 {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Alias(Box<str>),
}

impl Stored for DnsRecord {
    fn encode(&self) -> Vec<u8> {
        let first = DnsRecordV1 {
            name: self.name.clone(),
            value: match &self.value {
                DnsValue::A(address) => DnsValueV1::A(*address),
                DnsValue::Aaaa(address) => DnsValueV1::Aaaa(*address),
                DnsValue::Alias(target) => DnsValueV1::Alias(target.clone()),
            },
        };
        encode(1, &first)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let first: DnsRecordV1 = decode(bytes)?;
        Ok(Self {
            name: first.name,
            value: match first.value {
                DnsValueV1::A(address) => DnsValue::A(address),
                DnsValueV1::Aaaa(address) => DnsValue::Aaaa(address),
                DnsValueV1::Alias(target) => DnsValue::Alias(target),
            },
        })
    }
}
