//! Places in the queue of commands, and how they are divided.
//!
//! Each node, each machine and each API client has a few. All devices together leave a quarter of the queue to people and
//! to hearth itself, and machines with neither a node nor a preauth key get a quarter at most (half of that from one address), so that
//! neither a flood of one device nor many unknown machines keep others from being served.

use std::net::IpAddr;
use std::sync::Arc;

use hearth_shares::{Counts, Held};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use hearth_core::id::{ApiKeyId, NodeId, UserId};
use hearth_core::keys::MachineKey;
use hearth_core::state::command::{Command, Register};
use hearth_core::state::principal::Principal;
use hearth_core::state::snapshot::Snapshot;

/// Most waiting commands of a node or a machine, where that is no more than a sixth of the queue. Clients send one update
/// at a time, beside a registration and a stream.
const DEVICE_SHARE: usize = 8;

/// Who sends commands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Source {
    Node(NodeId),
    Machine(MachineKey),
    ApiKey(ApiKeyId),
    OAuthClient(Box<str>),
    User(UserId),
}

/// Places that are free. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    /// Those of [`Self::all`] that devices may have.
    devices: Arc<Semaphore>,
    /// Those of [`Self::devices`] that machines with neither a node nor a preauth key may have.
    strangers: Arc<Semaphore>,
    each_device: Counts<Source>,
    each_client: Counts<Source>,
    /// Half of [`Self::strangers`] at most for an IPv4 address or an IPv6 /48, since it can present as many machine keys
    /// as it likes.
    each_address: Counts<IpAddr>,
}

/// A place in the queue; free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permits: [Option<OwnedSemaphorePermit>; 3],
    _share: Option<Held<Source>>,
    _address: Option<Held<IpAddr>>,
}

impl Places {
    /// Places in a queue of at most `queue` commands.
    pub(super) fn new(queue: usize) -> Self {
        let part = |of: usize| queue.checked_div(of).unwrap_or_default().max(1);
        let semaphore = |places| Arc::new(Semaphore::new(places));
        Self {
            all: semaphore(queue),
            devices: semaphore(queue.saturating_sub(part(4)).max(1)),
            strangers: semaphore(part(4)),
            each_device: Counts::new(DEVICE_SHARE.min(part(6))),
            each_client: Counts::new(part(4)),
            each_address: Counts::new(part(8)),
        }
    }

    /// A place for a command; none if all are taken, or those of the one who sends it.
    pub(super) fn take(
        &self,
        by: &Principal,
        command: &Command,
        snapshot: &Snapshot,
    ) -> Option<Place> {
        let client = |source| (Some(self.each_client.take(source)), [false, false]);
        let device = |source, is_known: bool| {
            let share = self.each_device.take(source);
            (Some(share), [true, !is_known])
        };
        let (share, [is_device, is_stranger]) = match (by, command) {
            (Principal::Node { id }, _) => device(Source::Node(*id), true),
            (Principal::Device, Command::Register(request)) => {
                let is_known =
                    snapshot.has_machine(&request.machine) || is_invited(request, snapshot);
                device(Source::Machine(request.machine), is_known)
            }
            (Principal::Device, _) => (None, [true, true]),
            (Principal::ApiKey { id, .. }, _) => client(Source::ApiKey(*id)),
            (Principal::OAuthClient { id, .. }, _) => client(Source::OAuthClient(id.clone())),
            (Principal::Session { user, .. }, _) => client(Source::User(*user)),
            (Principal::Socket | Principal::System, _) => (None, [false, false]),
        };
        let share = match share {
            Some(share) => Some(share?),
            None => None,
        };
        let address = match command {
            Command::Register(request) if is_stranger => {
                let source = hearth_shares::Source::of(request.source);
                // A proxy on this machine carries many clients.
                match source.is_loopback() {
                    true => None,
                    false => Some(self.each_address.take(source.wide())?),
                }
            }
            _ => None,
        };
        let take = |places: &Arc<Semaphore>| places.clone().try_acquire_owned().ok();
        let mut permits = [None, None, None];
        let wanted = [
            (is_stranger, &self.strangers),
            (is_device, &self.devices),
            (true, &self.all),
        ];
        for (permit, (is_wanted, places)) in permits.iter_mut().zip(wanted) {
            if is_wanted {
                *permit = Some(take(places)?);
            }
        }
        Some(Place {
            _permits: permits,
            _share: share,
            _address: address,
        })
    }

    /// A place for a question of a person.
    pub(super) fn take_for_question(&self) -> Option<Place> {
        let permit = self.all.clone().try_acquire_owned().ok()?;
        Some(Place {
            _permits: [None, None, Some(permit)],
            _share: None,
            _address: None,
        })
    }
}

/// Whether a machine presents a preauth key that exists.
fn is_invited(request: &Register, snapshot: &Snapshot) -> bool {
    let keys = snapshot.preauth_keys().values();
    let presented = request.auth_key.as_ref();
    presented.is_some_and(|presented| presented.find(keys).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::state::scope::Scopes;
    use hearth_core::state::testing::{World, plain, with_key};

    struct Queue {
        places: Places,
        world: World,
    }

    impl Queue {
        fn take(&self, by: &Principal, command: Command) -> Option<Place> {
            self.places.take(by, &command, &self.world.snapshot())
        }

        fn update(&self, node: u64) -> Option<Place> {
            let id = NodeId::new(node).unwrap();
            let update = Command::UpdateNode(Box::default());
            self.take(&Principal::Node { id }, update)
        }

        fn register(&self, machine: u8) -> Option<Place> {
            self.register_from(machine, [192, 0, 2, machine])
        }

        fn register_from(&self, machine: u8, address: [u8; 4]) -> Option<Place> {
            let mut request = plain(machine, machine);
            request.source = address.into();
            self.take(&Principal::Device, Command::Register(Box::new(request)))
        }

        fn delete(&self, by: &Principal) -> Option<Place> {
            self.take(by, Command::DeleteNode(NodeId::FIRST))
        }
    }

    fn queue(length: usize) -> Queue {
        let (mut world, _) = World::with_user();
        world.node_number(1);
        Queue {
            places: Places::new(length),
            world,
        }
    }

    #[test]
    fn one_device_takes_no_more_than_its_few_places() {
        let queue = queue(64);
        let flood: Vec<_> = std::iter::from_fn(|| queue.update(1)).collect();
        assert_eq!(flood.len(), DEVICE_SHARE);
        let other = queue.update(2);
        assert!(other.is_some());
        let logins: Vec<_> = std::iter::from_fn(|| queue.register(9)).collect();
        assert_eq!(logins.len(), DEVICE_SHARE);
        drop(flood);
        assert!(queue.update(1).is_some());
    }

    #[test]
    fn many_devices_leave_room_for_people_and_unknown_machines_for_nodes() {
        for length in [16, 24, 256] {
            let queue = queue(length);
            let strangers: Vec<_> = (100..200)
                .filter_map(|machine| queue.register(machine))
                .collect();
            assert_eq!(strangers.len(), length / 4);
            // Machine 1 has a node.
            let known = queue.register(1);
            assert!(known.is_some(), "{length}");
            let nodes: Vec<_> = (1..1000).filter_map(|node| queue.update(node)).collect();
            assert_eq!(nodes.len() + strangers.len() + 1, length - length / 4);
            let people: Vec<_> = std::iter::from_fn(|| queue.delete(&Principal::Socket)).collect();
            assert_eq!(people.len(), length / 4);
            assert!(queue.places.take_for_question().is_none());
        }
    }

    #[test]
    fn an_address_with_many_machine_keys_leaves_half_of_the_places_to_others() {
        let queue = queue(64);
        let from = |address: [u8; 4]| {
            let machines = 100..200;
            let places = machines.filter_map(|machine| queue.register_from(machine, address));
            places.collect::<Vec<_>>()
        };
        let flood = from([192, 0, 2, 1]);
        assert_eq!(flood.len(), 8);
        assert_eq!(from([192, 0, 2, 2]).len(), 8);
        drop(flood);
        let through_a_local_proxy = from([127, 0, 0, 1]);
        assert_eq!(through_a_local_proxy.len(), 16);
    }

    #[test]
    fn machines_with_a_preauth_key_are_no_strangers() {
        let mut queue = queue(24);
        queue.world.preauth_key("k", |key| key.reusable = true);
        let invited = |machine, key| {
            let mut request = with_key(machine, machine, key);
            request.source = [192, 0, 2, machine].into();
            queue.take(&Principal::Device, Command::Register(Box::new(request)))
        };
        let joining: Vec<_> = (100..200)
            .filter_map(|machine| invited(machine, "k"))
            .collect();
        assert_eq!(joining.len(), 18);
        drop(joining);
        let guessing: Vec<_> = (100..200)
            .filter_map(|machine| invited(machine, "x"))
            .collect();
        assert_eq!(guessing.len(), 6);
    }

    #[test]
    fn one_api_key_leaves_room_for_the_admin_socket() {
        let queue = queue(16);
        let key = Principal::ApiKey {
            id: ApiKeyId::FIRST,
            prefix: "p".into(),
            scopes: Scopes::ALL,
        };
        let flood: Vec<_> = std::iter::from_fn(|| queue.delete(&key)).collect();
        assert_eq!(flood.len(), 4);
        assert!(queue.delete(&Principal::Socket).is_some());
    }
}
