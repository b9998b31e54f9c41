//! The stored form of every record kind, as each version wrote it. These bytes never change: a difference
//! makes the databases of earlier versions unreadable.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;

use crate::clock::Timestamp;
use crate::id::{ApiKeyId, NodeId, PolicyId, PreAuthKeyId, UserId};
use crate::keys::{DiscoKey, LockKey, MachineKey, NodeKey};
use crate::state::addr::Cursors;
use crate::state::attributes::{AttributeValue, Attributes};
use crate::state::dns::{DnsRecord, DnsValue};
use crate::state::ending::{Ending, Span};
use crate::state::model::{
    ApiKey, Counters, Facets, Hostinfo, KeyLifetime, Node, Owner, PolicyText, PreAuthKey, Presence,
    RegisteredBy, Role, User, WireGuard,
};
use crate::state::record::{DecodeError, Stored};
use crate::state::scope::{Scope, Scopes};
use crate::state::secret::SecretHash;

const CREATED: Timestamp = Timestamp::from_unix_ms(1_700_000_000_000);
const LATER: Timestamp = Timestamp::from_unix_ms(1_700_000_500_000);

/// Bytes in hex digits, with spaces at will; `01*32` is a byte and how often it comes.
fn bytes(text: &str) -> Vec<u8> {
    let word = |word: &str| {
        let (digits, times) = word.split_once('*').unwrap_or((word, "1"));
        let bytes = HEXLOWER.decode(digits.as_bytes()).expect("hex digits");
        bytes.repeat(times.parse().expect("a number"))
    };
    text.split_whitespace().flat_map(word).collect()
}

/// This version writes the value as these bytes, and reads them back.
fn is_stored_as<V: Stored + PartialEq + std::fmt::Debug>(value: &V, stored: &str) {
    let encoded = HEXLOWER.encode(&value.encode());
    assert_eq!(encoded, HEXLOWER.encode(&bytes(stored)), "{value:?}");
    is_read_from(value, stored);
}

/// These bytes, which an earlier version wrote, are read as the value. Cut short anywhere they are damaged.
fn is_read_from<V: Stored + PartialEq + std::fmt::Debug>(value: &V, stored: &str) {
    let bytes = bytes(stored);
    assert_eq!(V::decode(&bytes).as_ref(), Ok(value), "{stored}");
    for end in 0..bytes.len() {
        assert_eq!(
            V::decode(&bytes[..end]).as_ref(),
            Err(&DecodeError::Damaged),
            "{stored} cut at {end}"
        );
    }
}

/// The fields of `hostinfo()`.
const HOSTINFO: &str = "0e 7b224f53223a226c696e7578227d 02 7b7d 03 4e4153 05 6c696e7578 06 312e39302e31 \
    03 09 302e302e302e302f30 0e 3139322e3136382e312e302f3234 04 3a3a2f30 01 07 7461673a6e6173";

fn node_id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn user_id(number: u64) -> UserId {
    UserId::new(number).unwrap()
}

fn texts(texts: &[&str]) -> Box<[Box<str>]> {
    texts.iter().map(|text| Box::from(*text)).collect()
}

fn hostinfo() -> Hostinfo {
    Hostinfo {
        raw: r#"{"OS":"linux"}"#.into(),
        shared: "{}".into(),
        hostname: "NAS".into(),
        os: "linux".into(),
        os_version: Box::default(),
        client_version: "1.90.1".into(),
        routable_ips: ["0.0.0.0/0", "192.168.1.0/24", "::/0"]
            .iter()
            .map(|route| route.parse().unwrap())
            .collect(),
        request_tags: texts(&["tag:nas"]),
    }
}

/// A node as all versions can store it.
fn node() -> Node {
    Node {
        id: node_id(7),
        machine: MachineKey::from_bytes([1; 32]),
        key: NodeKey::from_bytes([2; 32]),
        disco: Some(DiscoKey::from_bytes([3; 32])),
        lock: Some(LockKey::from_bytes([4; 32])),
        owner: Owner::User(user_id(300)),
        label: "nas".into(),
        label_chosen: true,
        hostinfo: Arc::new(hostinfo()),
        ipv4: Ipv4Addr::new(100, 64, 0, 7),
        ipv6: "fd7a:115c:a1e0::7".parse().unwrap(),
        created: CREATED,
        expiry: Some(LATER),
        ending: Ending::Date,
        expired: false,
        authorized: true,
        wireguard: None,
        approved_routes: Arc::default(),
        primary_routes: Arc::default(),
        unhealthy: false,
        forwarding_off: false,
        ephemeral: true,
        registered_by: RegisteredBy::PreAuthKey(PreAuthKeyId::FIRST),
        capability: 131,
        home_derp: 900,
        endpoints: Arc::from(["192.0.2.1:41641".parse().unwrap()]),
        live: false,
        unmet_tags: Box::default(),
        presence: Presence::Offline {
            since: LATER,
            since_mono: Duration::ZERO,
        },
        facets: Facets::default(),
        unflushed: false,
    }
}

/// A node with what version 2 added.
fn full_node() -> Node {
    Node {
        owner: Owner::Tags(Arc::from(texts(&["tag:a", "tag:b"]))),
        hostinfo: Arc::new(Hostinfo {
            os_version: "13".into(),
            ..hostinfo()
        }),
        disco: None,
        lock: None,
        expiry: None,
        authorized: false,
        wireguard: Some(Arc::new(WireGuard {
            masquerade_v4: Some(Ipv4Addr::new(10, 0, 0, 1)),
            masquerade_v6: Some(Ipv6Addr::LOCALHOST),
            exit_dns: texts(&["9.9.9.9"]),
        })),
        approved_routes: Arc::from(["0.0.0.0/0", "::/0"].map(|route| route.parse().unwrap())),
        registered_by: RegisteredBy::Hand,
        endpoints: Arc::from(["[2001:db8::1]:51820".parse().unwrap()]),
        presence: Presence::Fixed,
        ..node()
    }
}

#[test]
fn nodes_are_read_as_every_version_wrote_them() {
    let start = "07 01*32 02*32";
    let keys = "01 03*32 01 04*32";
    let label = "03 6e6173 01";
    let addresses = "64400007 fd7a115ca1e0 00*9 07";
    let end = "8301 8407 01 00 c0000201 a9c502";
    let first = |registered_by: &str, presence: &str| {
        format!(
            "{start} {keys} 00 ac02 {label} {HOSTINFO} {addresses} 80a0abfef962 \
             01 c0a4e8fef962 01 {registered_by} {end} {presence}"
        )
    };
    let stored = first("00 01", "02 c0a4e8fef962");
    is_read_from(&node(), &format!("01 {stored}"));
    is_read_from(&node(), &format!("02 {stored} 00 01 00 00"));
    is_read_from(&node(), &format!("03 {stored} 00 01 00 00 00"));
    is_stored_as(&node(), &format!("04 {stored} 00 01 00 00 00 00"));
    let approved = Node {
        registered_by: RegisteredBy::Approval,
        presence: Presence::Returning,
        ..node()
    };
    let stored = first("01", "01");
    is_stored_as(&approved, &format!("04 {stored} 00 01 00 00 00 00"));
    let new = Node {
        presence: Presence::New {
            since_mono: Duration::ZERO,
        },
        ..approved
    };
    let stored = first("01", "00");
    is_stored_as(&new, &format!("04 {stored} 00 01 00 00 00 00"));
}

#[test]
fn nodes_with_what_later_versions_added_are_read() {
    let stored = format!(
        "07 01*32 02*32 00 00 01 02 05 7461673a61 05 7461673a62 03 6e6173 01 {HOSTINFO} \
         64400007 fd7a115ca1e0 00*9 07 80a0abfef962 00 01 02 8301 8407 \
         01 01 20010db8 00*11 01 ec9403 01 \
         02 3133 00 01 01 0a000001 01 00*15 01 01 07 392e392e392e39 \
         02 00 00000000 00 01 00*16 00"
    );
    is_read_from(&full_node(), &format!("02 {stored}"));
    let full = Node {
        expired: true,
        ..full_node()
    };
    is_read_from(&full, &format!("03 {stored} 01"));
    is_stored_as(&full, &format!("04 {stored} 01 00"));
}

#[test]
fn users_are_read_as_every_version_wrote_them() {
    let user = User {
        id: user_id(2),
        name: "anna".into(),
        display_name: "Anna".into(),
        email: "anna@example.org".into(),
        picture_url: "https://example.org/a.png".into(),
        role: Role::Member,
        node_expiry: None,
        created: CREATED,
    };
    let stored = "04 616e6e61 04 416e6e61 10 616e6e61406578616d706c652e6f7267 \
        19 68747470733a2f2f6578616d706c652e6f72672f612e706e67 80a0abfef962";
    is_read_from(&user, &format!("01 02 {stored}"));
    is_stored_as(&user, &format!("02 02 {stored} 02 00"));
    let first = User {
        id: UserId::FIRST,
        role: Role::Owner,
        ..user.clone()
    };
    is_read_from(&first, &format!("01 01 {stored}"));
    let limited = User {
        role: Role::Admin,
        node_expiry: Some(KeyLifetime::For(Duration::from_secs(86400))),
        ..user.clone()
    };
    is_stored_as(&limited, &format!("02 02 {stored} 01 01 01 80b89929"));
    let unlimited = User {
        node_expiry: Some(KeyLifetime::Unlimited),
        ..first
    };
    is_stored_as(&unlimited, &format!("02 01 {stored} 00 01 00"));
}

#[test]
fn preauth_keys_are_read_as_every_version_wrote_them() {
    let key = PreAuthKey {
        id: PreAuthKeyId::new(5).unwrap(),
        prefix: "abcdefghijkl".into(),
        hash: SecretHash::from_bytes([9; 32]),
        user: Some(user_id(2)),
        tags: Arc::from(texts(&["tag:a"])),
        reusable: true,
        ephemeral: false,
        preauthorized: true,
        used: true,
        expiry: Some(LATER),
        ending: Ending::Date,
        created: CREATED,
    };
    let stored = "05 0c 6162636465666768696a6b6c 09*32 01 02 01 05 7461673a61 01 00 01 \
        01 c0a4e8fef962 80a0abfef962";
    is_read_from(&key, &format!("01 {stored}"));
    is_read_from(&key, &format!("02 {stored} 01"));
    is_stored_as(&key, &format!("03 {stored} 01 00"));
    let unapproved = PreAuthKey {
        preauthorized: false,
        ..key
    };
    is_read_from(&unapproved, &format!("02 {stored} 00"));
    let ended = PreAuthKey {
        ending: Ending::Hand,
        ..unapproved
    };
    is_stored_as(&ended, &format!("03 {stored} 00 02"));
}

#[test]
fn api_keys_are_read_as_every_version_wrote_them() {
    let key = ApiKey {
        id: ApiKeyId::new(3).unwrap(),
        prefix: "abcdefghijkl".into(),
        hash: SecretHash::from_bytes([8; 32]),
        scopes: Scopes::ALL,
        expiry: Some(LATER),
        ending: Ending::Date,
        created: CREATED,
    };
    let stored = "03 0c 6162636465666768696a6b6c 08*32 01 c0a4e8fef962 80a0abfef962";
    is_read_from(&key, &format!("01 {stored}"));
    is_read_from(&key, &format!("02 {stored} ff*9 01"));
    is_stored_as(&key, &format!("03 {stored} ff*9 01 00"));
    let reader = ApiKey {
        scopes: ["devices:core:read", "dns"]
            .iter()
            .map(|scope| scope.parse::<Scope>().unwrap())
            .collect(),
        ..key
    };
    is_read_from(&reader, &format!("02 {stored} 808203"));
    let lives = ApiKey {
        ending: Ending::Span(Span {
            life: Duration::from_secs(1),
            boot: 0x80,
            boot_ms: -1,
        }),
        ..reader
    };
    is_stored_as(&lives, &format!("03 {stored} 808203 01 e807 8001 01"));
}

/// Before ends had an origin, those of 1970 were spans of time, unless somebody had ended it.
#[test]
fn ends_of_1970_are_read_as_spans() {
    let at = |ms| Some(Timestamp::from_unix_ms(ms));
    let life = Ending::Span(Span {
        life: Duration::from_millis(64),
        boot: 0,
        boot_ms: 0,
    });
    for (expiry, expiry_hex, ending) in [
        (at(64), "01 8001", life),
        (at(0), "01 00", Ending::Hand),
        (None, "00", Ending::Date),
    ] {
        let key = ApiKey {
            id: ApiKeyId::new(3).unwrap(),
            prefix: "abcdefghijkl".into(),
            hash: SecretHash::from_bytes([8; 32]),
            scopes: Scopes::ALL,
            expiry,
            ending,
            created: CREATED,
        };
        let stored = format!("03 0c 6162636465666768696a6b6c 08*32 {expiry_hex} 80a0abfef962");
        is_read_from(&key, &format!("01 {stored}"));
    }
}

#[test]
fn small_records_are_read_as_every_version_wrote_them() {
    let counters = Counters {
        node: node_id(8),
        user: user_id(3),
        preauth_key: PreAuthKeyId::new(200).unwrap(),
        api_key: ApiKeyId::FIRST,
    };
    is_stored_as(&counters, "01 08 03 c801 01");
    let cursors = Cursors {
        v4: vec![(
            Ipv4Addr::new(100, 64, 0, 0),
            10,
            Ipv4Addr::new(100, 64, 0, 7),
        )],
        v6: Some(Ipv6Addr::LOCALHOST),
    };
    is_stored_as(&cursors, "01 01 64400000 0a 64400007 01 00*15 01");
    is_stored_as(&MachineKey::from_bytes([1; 32]), "01 01*32");
    let policy = PolicyText {
        id: PolicyId::new(4).unwrap(),
        source: "{\"acls\":[]}".into(),
        created: CREATED,
    };
    is_stored_as(&policy, "01 04 0b 7b2261636c73223a5b5d7d 80a0abfef962");
    let attributes: Attributes = [
        ("custom:flag".into(), AttributeValue::Flag(true)),
        ("custom:number".into(), AttributeValue::Number(-1)),
        ("custom:text".into(), AttributeValue::Text("yes".into())),
    ]
    .into();
    let stored = "01 03 0b 637573746f6d3a666c6167 02 01 \
        0d 637573746f6d3a6e756d626572 01 01 0b 637573746f6d3a74657874 00 03 796573";
    is_stored_as(&attributes, stored);
    let record = |value| DnsRecord {
        name: "printer".into(),
        value,
    };
    is_stored_as(
        &record(DnsValue::A(Ipv4Addr::new(192, 168, 1, 20))),
        "01 07 7072696e746572 00 c0a80114",
    );
    is_stored_as(
        &record(DnsValue::Aaaa(Ipv6Addr::LOCALHOST)),
        "01 07 7072696e746572 01 00*15 01",
    );
    is_stored_as(
        &record(DnsValue::Alias("nas".into())),
        "01 07 7072696e746572 02 03 6e6173",
    );
}

#[test]
fn records_of_a_newer_version_are_named_as_such() {
    assert_eq!(Node::decode(&[5]), Err(DecodeError::Newer(5)));
    assert_eq!(User::decode(&[3, 1]), Err(DecodeError::Newer(3)));
    assert_eq!(PreAuthKey::decode(&[4]), Err(DecodeError::Newer(4)));
    assert_eq!(Counters::decode(&[2]), Err(DecodeError::Newer(2)));
    assert_eq!(
        Counters::decode(&[0, 1, 1, 1, 1]),
        Err(DecodeError::Damaged)
    );
}
