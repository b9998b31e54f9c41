//! Counts what a day of a busy tailnet writes to flash; `benches/flash/run` builds and runs it.
//!
//! The state, its timer and the database are those of the program; only the clock is simulated, and commands are applied one
//! by one, where the program would commit several together.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use hearth::config::Limits;
use hearth::store::Store;
use hearth_core::id::NodeId;
use hearth_core::keys::{DiscoKey, LockKey, MachineKey, NodeKey};
use hearth_core::state::apply::Flush;
use hearth_core::state::command::{Command, NodeUpdate, PresentedKey, Register, RequestedExpiry};
use hearth_core::state::content::{Content, Digest};
use hearth_core::state::model::{Hostinfo, SessionId, Settings};
use hearth_core::state::secret::SecretHash;
use hearth_core::state::testing::{World, plain};

const DEVICES: usize = 100;
const STRANGERS: usize = 2000;
const MINUTES: usize = 24 * 60;
/// Minutes between two reconnects of a device: 20 a day.
const RECONNECT: usize = 72;
/// Minutes that a device is away before it reconnects.
const AWAY: usize = 15;
/// Most bytes a day.
const GOAL_BYTES: u64 = 1_000_000;
/// Most syncs a day.
const GOAL_SYNCS: usize = 200;

fn main() -> ExitCode {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(directory.path(), 2 << 20).expect("a database");
    let mut day = Day {
        world: world(),
        store,
        syncs: 0,
    };
    let devices: Vec<Device> = (0..DEVICES).map(|number| day.join(number)).collect();
    day.world.tick(Flush::Now);
    day.commit();
    day.syncs = 0;
    let before = written();
    let content = Content::of(&day.world.model).digest();
    let mut streams: Vec<Option<SessionId>> = vec![None; DEVICES];
    for minute in 0..MINUTES {
        for (number, device) in devices.iter().enumerate() {
            day.live(device, &mut streams[number], number, minute);
        }
        for stranger in (minute * STRANGERS / MINUTES)..((minute + 1) * STRANGERS / MINUTES) {
            day.knock(stranger);
        }
        day.world.wait(Duration::from_secs(60));
        day.commit();
    }
    // The automatic copy, which is made of what changed only.
    let copied = day.copy(directory.path(), content);
    let (bytes, syncs) = (written() - before, day.syncs);
    println!(
        "{DEVICES} roaming devices, 20 reconnects each, {STRANGERS} registrations of strangers, one day:"
    );
    println!("{bytes} bytes written (goal {GOAL_BYTES}), {copied} of them for an automatic copy");
    println!("{syncs} syncs (goal {GOAL_SYNCS})");
    let before = written();
    let rename = Command::RenameNode(devices[0].id, "tv".into());
    day.world.apply(rename).expect("it is renamed");
    day.commit();
    println!("{} bytes for one decision of a person", written() - before);
    let copied = day.copy(directory.path(), content);
    println!("{copied} bytes for the copy of that day");
    match bytes <= GOAL_BYTES && syncs <= GOAL_SYNCS {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// A tailnet with the default limits, a user and a key for all.
fn world() -> World {
    let (mut world, _) = World::with_user();
    let limits = Limits::default();
    world.model.settings = Arc::new(Settings {
        offline_grace: limits.offline_grace,
        flush_interval: limits.flush_interval,
        max_nodes: limits.nodes,
        max_pending: limits.pending_registrations,
        pending_lifetime: limits.pending_timeout,
        ..(*world.model.settings).clone()
    });
    world.preauth_key("k", |key| key.reusable = true);
    world
}

struct Day {
    world: World,
    store: Store,
    syncs: usize,
}

struct Device {
    id: NodeId,
    request: Register,
}

impl Day {
    /// Writes what the batch has to write, as the engine does.
    fn commit(&mut self) {
        let records = std::mem::take(&mut self.world.records);
        let events = std::mem::take(&mut self.world.events);
        if !records.is_empty() {
            let written = self.store.commit(&records, &events, &self.world.model);
            written.expect("it is written");
            // One for each transaction: redb's design, one-phase commit with checksums.
            self.syncs += 1;
        }
    }

    /// Copies the database if its content differs; gives the bytes.
    fn copy(&mut self, directory: &Path, unless: Digest) -> u64 {
        let model = &self.world.model;
        if Content::of(model).digest() == unless {
            return 0;
        }
        let before = written();
        let copied = self.store.copy_to(&directory.join("copy.redb"), model);
        copied.expect("it is copied");
        self.syncs += 1;
        written() - before
    }

    fn join(&mut self, number: usize) -> Device {
        let request = Register {
            auth_key: Some(PresentedKey::WellFormed {
                prefix: "k".into(),
                hash: SecretHash::of("k"),
            }),
            hostinfo: hostinfo(number, 0),
            ..register(number)
        };
        let id = self.world.join(request.clone()).id;
        self.commit();
        Device { id, request }
    }

    /// What a device does in this minute.
    fn live(
        &mut self,
        device: &Device,
        stream: &mut Option<SessionId>,
        number: usize,
        minute: usize,
    ) {
        let at = minute + number;
        let report = NodeUpdate {
            node: Some(device.id),
            endpoints: Some(Arc::from([format!(
                "192.0.2.{}:{}",
                number + 1,
                1024 + minute
            )
            .parse()
            .expect("an address")])),
            hostinfo: Some(hostinfo(number, minute)),
            disco: Some(DiscoKey::from_bytes(key(number + minute))),
            home_derp: Some(900 + u16::try_from(minute / 30).unwrap_or_default()),
            ..NodeUpdate::default()
        };
        match at % RECONNECT {
            0 => {
                if let Some(session) = stream.take() {
                    let node = device.id;
                    self.apply(Command::CloseStream { node, session });
                }
            }
            AWAY => {
                // The client asks whether its key is still valid, then for its map.
                let again = Register {
                    hostinfo: hostinfo(number, minute),
                    lock: Some(LockKey::from_bytes(key(number))),
                    ..device.request.clone()
                };
                self.apply(Command::Register(Box::new(again)));
                *stream = Some(self.world.open_stream_saying(device.id, report));
            }
            _ if stream.is_some() && at.is_multiple_of(3) => {
                self.apply(Command::UpdateNode(Box::new(report)));
            }
            _ => {}
        }
        self.commit();
    }

    fn knock(&mut self, number: usize) {
        let request = register(DEVICES + number);
        self.apply(Command::Register(Box::new(request)));
        self.commit();
    }

    fn apply(&mut self, command: Command) {
        self.world.apply(command).expect("it is taken");
    }
}

fn key(number: usize) -> [u8; 32] {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
    key
}

fn register(number: usize) -> Register {
    let [high, low] = u16::try_from(number).unwrap_or_default().to_be_bytes();
    Register {
        machine: MachineKey::from_bytes(key(number)),
        key: NodeKey::from_bytes(key(number)),
        source: [198, 51, high, low].into(),
        expiry: RequestedExpiry::None,
        fresh_id: format!("login-{number}").parse().expect("an id"),
        ..plain(1, 1)
    }
}

/// As long as that of a client on Linux.
fn hostinfo(number: usize, change: usize) -> Arc<Hostinfo> {
    let services = format!(r#"[{{"Proto":"peerapi4","Port":{}}}]"#, 1024 + change);
    let shared = format!(r#"{{"OS":"linux","Hostname":"device{number}","Services":{services}}}"#);
    let filler = "x".repeat(600);
    let raw = format!(
        r#"{{"IPNVersion":"1.102.5","BackendLogID":"{filler}","Hostname":"device{number}","Services":{services}}}"#
    );
    Arc::new(Hostinfo {
        raw: raw.into(),
        shared: shared.into(),
        hostname: format!("device{number}").into(),
        os: "linux".into(),
        os_version: "13".into(),
        client_version: "1.102.5".into(),
        ..Hostinfo::default()
    })
}

/// Bytes that this process has written to files so far.
fn written() -> u64 {
    let counters = std::fs::read_to_string("/proc/self/io").expect("Linux counts them");
    let line = counters
        .lines()
        .find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|bytes| bytes.parse().ok()).expect("a number")
}
