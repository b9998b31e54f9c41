//! The plan of a simulation: what happens, one thing after the other. It is made from the seed before anything happens, so
//! that a failing one can be shortened by leaving steps out.

use std::fmt;
use std::time::Duration;

use super::machine::Shows;
use crate::store::{CUTS, Chance, Cut};

/// Devices of a simulation.
pub(super) const DEVICES: usize = 6;
/// Users that there are at first.
pub(super) const USERS: usize = 3;
/// Policies to choose from.
pub(super) const POLICIES: usize = 5;

/// What an administrator asks for. Users and keys are counted among those that exist then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    NewUser,
    RenameUser(usize),
    DeleteUser(usize),
    NewKey {
        user: usize,
        kind: KeyKind,
        life: Option<Duration>,
    },
    ExpireKey(usize),
    DeleteKey(usize),
    Approve {
        device: usize,
        user: usize,
    },
    Reject(usize),
    Delete(usize),
    Expire(usize),
    Extend(usize, Option<Duration>),
    Rename(usize, usize),
    Tag(usize, usize),
    Give {
        device: usize,
        user: usize,
    },
    Admit(usize),
    ShutOut(usize),
    ApproveRoutes(usize, usize),
    Policy(usize),
    Record(usize),
}

/// What a preauth key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyKind {
    Once,
    Reusable,
    Ephemeral,
    Tagged,
}

/// What is wrong with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    Full,
    FailedSyncs(usize),
    FailedFolderSync,
    WritesFailAfter(usize),
    Hangs,
}

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A device logs in with a preauth key.
    Join {
        device: usize,
        key: usize,
    },
    /// A device logs in and waits for a person.
    Knock(usize),
    SwitchOff(usize),
    SwitchOn(usize),
    Cut(usize),
    Away(usize),
    Back(usize),
    LogOut(usize),
    Roam(usize, usize),
    Hostname(usize, usize),
    Offer(usize, usize),
    Order(Order),
    /// Somebody tries a key that was deleted.
    DeadKey(usize),
    /// A stranger opens many connections and says nothing.
    Flood,
    Wait(Duration),
    Restart,
    Kill,
    PowerCut(Cut, Shows),
    /// The power is cut after so many writes and syncs of what an order causes.
    CutDuring(Order, usize, Cut, Shows),
    SetClock(Shows),
    Trouble(Trouble),
    DiskWorks,
}

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What kinds of things happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Theme {
    /// Everything, with a clock that is right.
    Server,
    /// A clock that is wrong, and time that passes.
    Clock,
}

/// A plan of so many steps. The first ones make it interesting soon.
pub(super) fn plan(seed: u64, length: usize, theme: Theme) -> Vec<Step> {
    let mut chance = Chance::new(seed);
    let mut steps = vec![Step::Order(Order::NewKey {
        user: 0,
        kind: KeyKind::Reusable,
        life: None,
    })];
    steps.extend((0..2 + chance.below(2)).map(|device| Step::Join { device, key: 0 }));
    while steps.len() < length {
        steps.push(step(&mut chance, theme));
    }
    steps
}

fn shows(chance: &mut Chance, theme: Theme) -> Shows {
    match theme {
        Theme::Server => Shows::Off(0),
        Theme::Clock => *chance.one_of(&[
            Shows::Off(0),
            Shows::Off(0),
            Shows::Uptime,
            Shows::Uptime,
            Shows::Off(-150),
            Shows::Off(-1),
            Shows::Off(1),
            Shows::Off(3650),
        ]),
    }
}

/// What the clock shows at first.
pub(super) fn first_clock(seed: u64, theme: Theme) -> Shows {
    shows(&mut Chance::new(!seed), theme)
}

fn step(chance: &mut Chance, theme: Theme) -> Step {
    let device = chance.below(DEVICES);
    let number = chance.below(4);
    if theme == Theme::Clock && chance.one_in(3) {
        return match chance.below(4) {
            0 | 1 => Step::Wait(*chance.one_of(&[HOUR, DAY, DAY * 8, DAY * 15])),
            _ => Step::SetClock(shows(chance, theme)),
        };
    }
    match chance.below(42) {
        0..=4 => Step::Join {
            device,
            key: chance.below(6),
        },
        5 => Step::Knock(device),
        6 => Step::SwitchOff(device),
        7 | 8 => Step::SwitchOn(device),
        9 => Step::Cut(device),
        10 => Step::Away(device),
        11 => Step::Back(device),
        12 => Step::LogOut(device),
        13 => Step::Roam(device, number),
        14 => Step::Hostname(device, number),
        15 => Step::Offer(device, number),
        16 => Step::DeadKey(number),
        17 | 18 => {
            let seconds = [1, 15, 90, 40 * 60];
            Step::Wait(Duration::from_secs(*chance.one_of(&seconds)))
        }
        19 => Step::Restart,
        20 => Step::Kill,
        21 => Step::PowerCut(*chance.one_of(&CUTS), shows(chance, theme)),
        22 => {
            let cut = *chance.one_of(&CUTS);
            Step::CutDuring(order(chance), chance.below(12), cut, shows(chance, theme))
        }
        23 => Step::Trouble(match chance.below(5) {
            0 => Trouble::Full,
            1 => Trouble::FailedSyncs(1 + chance.below(3)),
            2 => Trouble::FailedFolderSync,
            3 => Trouble::WritesFailAfter(chance.below(12)),
            _ => Trouble::Hangs,
        }),
        24 => Step::DiskWorks,
        25 => Step::Flood,
        _ => Step::Order(order(chance)),
    }
}

fn order(chance: &mut Chance) -> Order {
    let (device, user, number) = (chance.below(DEVICES), chance.below(4), chance.below(4));
    let kinds = [
        KeyKind::Once,
        KeyKind::Reusable,
        KeyKind::Ephemeral,
        KeyKind::Tagged,
    ];
    match chance.below(26) {
        0 => Order::NewUser,
        1 => Order::RenameUser(user),
        2 => Order::DeleteUser(user),
        3..=5 => Order::NewKey {
            user,
            kind: *chance.one_of(&kinds),
            life: *chance.one_of(&[None, Some(HOUR), Some(DAY * 10)]),
        },
        6 => Order::ExpireKey(number),
        7 => Order::DeleteKey(number),
        8..=10 => Order::Approve { device, user },
        11 => Order::Reject(device),
        12 | 13 => Order::Delete(device),
        14 => Order::Expire(device),
        15 => Order::Extend(device, *chance.one_of(&[None, Some(DAY), Some(DAY * 30)])),
        16 => Order::Rename(device, number),
        17 => Order::Tag(device, number),
        18 => Order::Give { device, user },
        19 => Order::Admit(device),
        20 => Order::ShutOut(device),
        21 | 22 => Order::ApproveRoutes(device, number),
        23 | 24 => Order::Policy(chance.below(POLICIES)),
        _ => Order::Record(number),
    }
}

impl fmt::Display for Shows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off(0) => f.write_str("the right time"),
            Self::Off(days) if *days < 0 => write!(f, "a time {} days ago", -days),
            Self::Off(days) => write!(f, "a time in {days} days"),
            Self::Uptime => f.write_str("1970"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Join { device, key } => write!(f, "device {device} joins with key {key}"),
            Self::Knock(device) => write!(f, "device {device} asks to join"),
            Self::SwitchOff(device) => write!(f, "device {device} is switched off"),
            Self::SwitchOn(device) => write!(f, "device {device} is switched on"),
            Self::Cut(device) => write!(f, "the connections of device {device} break"),
            Self::Away(device) => write!(f, "device {device} loses its network"),
            Self::Back(device) => write!(f, "the network of device {device} is back"),
            Self::LogOut(device) => write!(f, "device {device} logs out"),
            Self::Roam(device, n) => write!(f, "device {device} moves to endpoint {n}"),
            Self::Hostname(device, n) => write!(f, "device {device} is called host{n}"),
            Self::Offer(device, n) => write!(f, "device {device} offers routes {n}"),
            Self::Order(order) => write!(f, "administrator: {order:?}"),
            Self::DeadKey(n) => write!(f, "a stranger shows deleted key {n}"),
            Self::Flood => f.write_str("a stranger opens many connections"),
            Self::Wait(time) => write!(f, "{} s pass", time.as_secs()),
            Self::Restart => f.write_str("hearth is restarted"),
            Self::Kill => f.write_str("hearth is killed and started"),
            Self::PowerCut(cut, shows) => {
                write!(f, "power cut ({cut:?}); then the clock shows {shows}")
            }
            Self::CutDuring(order, after, cut, shows) => write!(
                f,
                "administrator: {order:?}, and a power cut {after} writes later ({cut:?}); then the clock shows {shows}"
            ),
            Self::SetClock(shows) => write!(f, "the clock is set to {shows}"),
            Self::Trouble(trouble) => write!(f, "the disk fails: {trouble:?}"),
            Self::DiskWorks => f.write_str("the disk works again"),
        }
    }
}
