//! Power cuts at every moment of many histories: what a machine finds is opened by the real code and compared with what was
//! acknowledged and what was refused.
//!
//! More of it: `HEARTH_CRASH_ROUNDS=1000 cargo test --release --lib store::tests::crash`. A failure names its seed;
//! `HEARTH_CRASH_SEED=…` repeats it.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::before::Before;
use super::*;
use crate::store::simulation::{CUTS, Chance, Disk, Durable, Plan};
use hearth_core::clock::Timestamp;
use hearth_core::id::{PolicyId, UserId};
use hearth_core::state::model::PolicyText;

/// A store under test.
pub(super) trait Subject: Sized {
    /// Opens what is on a disk, or says why that is not possible.
    fn open(disk: &Disk) -> Result<(Self, Opened), String>;
    fn commit(&mut self, records: &[Record], model: &Model) -> Reply;
}

/// What was found on a disk.
pub(super) struct Opened {
    pub(super) stock: Stock,
    pub(super) identity: [u8; 32],
}

/// What the one who asked for a change was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    Done,
    Refused,
    InDoubt,
}

impl Subject for Store {
    fn open(disk: &Disk) -> Result<(Self, Opened), String> {
        let opened = Store::open_in(
            Arc::new(disk.clone()),
            CACHE,
            crate::store::check::Check::Here,
        );
        let (store, loaded) = opened.map_err(|fault| fault.to_string())?;
        if let Some(notice) = &loaded.notice {
            return Err(format!("{notice:?}"));
        }
        let found = Opened {
            stock: stock_of_loaded(&loaded),
            identity: *loaded.secrets.noise,
        };
        Ok((store, found))
    }

    fn commit(&mut self, records: &[Record], model: &Model) -> Reply {
        match Store::commit(self, records, &[], model) {
            Ok(()) => Reply::Done,
            Err(StoreError::InDoubt(_)) => Reply::InDoubt,
            Err(_) => Reply::Refused,
        }
    }
}

/// A change of a history, or its beginning.
struct Turn {
    from: usize,
    to: usize,
    reply: Reply,
    after: Stock,
}

/// What happened on a disk.
struct History {
    disk: Disk,
    turns: Vec<Turn>,
    identity: [u8; 32],
    /// A word for each fault that was found in the running store.
    wrong: Vec<String>,
}

/// How a history goes.
#[derive(Clone, Copy)]
struct Course {
    turns: usize,
    /// One in so many changes meets a failing disk.
    failures: usize,
}

/// A history of changes on a disk that may fail now and then.
fn history<S: Subject>(seed: u64, course: Course) -> History {
    let mut chance = Chance::new(seed);
    let disk = Disk::seeded(chance.next());
    let (mut store, opened) = S::open(&disk).unwrap();
    let mut model = eventful().model;
    let mut wrong = Vec::new();
    let mut turns = vec![Turn {
        from: 0,
        to: disk.steps(),
        reply: Reply::Done,
        after: opened.stock,
    }];
    for number in 0..course.turns {
        let mut next = model.clone();
        let records = match number {
            0 => Record::whole(&model),
            _ => change(&mut next, &mut chance),
        };
        if number > 0 && chance.one_in(course.failures) {
            disk.plan(plan(&mut chance));
        }
        let from = disk.steps();
        let reply = store.commit(&records, &next);
        turns.push(Turn {
            from,
            to: disk.steps(),
            reply,
            after: stock_of_model(&next),
        });
        disk.plan(Plan::default());
        if reply == Reply::Done {
            model = next;
        }
    }
    drop(store);
    // Without a power cut as well.
    match S::open(&disk) {
        Ok((_, found)) => {
            let allowed = allowed(&turns, usize::MAX);
            if !allowed.contains(&found.stock) || found.identity != opened.identity {
                wrong.push("another state after a restart".to_owned());
            }
        }
        Err(fault) => wrong.push(fault),
    }
    History {
        disk,
        turns,
        identity: opened.identity,
        wrong,
    }
}

/// A failure of some kind.
fn plan(chance: &mut Chance) -> Plan {
    let mut plan = Plan {
        drops_pages: chance.one_in(2),
        no_new_files: chance.one_in(2),
        is_full: chance.one_in(2),
        ..Plan::default()
    };
    match chance.below(4) {
        0 => plan.writes_until = Some(chance.below(12)),
        1 => plan.folder_syncs = 1,
        2 => plan.syncs = 1 + chance.below(3),
        _ => plan.syncs = 1,
    }
    plan
}

/// A change of some kind.
fn change(model: &mut Model, chance: &mut Chance) -> Vec<Record> {
    match chance.below(5) {
        0 | 1 => {
            let id = model.counters.user;
            let user = User {
                id,
                name: format!("user{}", id.number()).into(),
                ..(**model.users.values().next().unwrap()).clone()
            };
            model.counters.user = UserId::new(id.number() + 1).unwrap();
            let user = Arc::new(user);
            Arc::make_mut(&mut model.users).insert(id, Arc::clone(&user));
            vec![Record::PutUser(user), Record::Counters(model.counters)]
        }
        2 if model.users.len() > 1 => {
            let users = Arc::make_mut(&mut model.users);
            let (id, _) = users.pop_last().unwrap();
            vec![Record::DeleteUser(id)]
        }
        2 | 3 => {
            let nodes = Arc::make_mut(&mut model.nodes);
            let place = chance.below(nodes.len());
            let node = Arc::make_mut(&mut nodes[place]);
            node.label = format!("node-{}", chance.below(1000)).into();
            vec![Record::PutNode(Arc::clone(&nodes[place]))]
        }
        _ => {
            let text = "x".repeat(chance.below(20_000));
            let id = PolicyId::new(1 + chance.below(3) as u64).unwrap();
            let policy = Arc::new(PolicyText {
                id,
                source: text.into(),
                created: Timestamp::from_unix_ms(0),
            });
            let policies = Arc::make_mut(&mut model.policies);
            policies.retain(|other| other.id != id);
            policies.push(Arc::clone(&policy));
            vec![Record::PutPolicy(policy)]
        }
    }
}

/// The states that a machine may find whose power was cut after so many steps.
fn allowed(turns: &[Turn], steps: usize) -> Vec<Stock> {
    let mut allowed = Vec::new();
    for turn in turns.iter().take_while(|turn| turn.from <= steps) {
        match turn.reply {
            // It was not told yet, and may be there.
            _ if turn.to > steps => allowed.push(turn.after.clone()),
            Reply::Done => allowed = vec![turn.after.clone()],
            Reply::InDoubt => allowed.push(turn.after.clone()),
            Reply::Refused => {}
        }
    }
    allowed
}

/// What is wrong with what is found after power cuts, and how many disks were looked at.
fn cuts<S: Subject>(history: &History, seed: u64, every: usize) -> (Vec<String>, usize) {
    let mut chance = Chance::new(seed);
    let mut durable = Durable::default();
    let mut wrong = history.wrong.clone();
    let mut images = 0;
    for (steps, step) in history.disk.log().iter().enumerate() {
        if steps < 16 || steps % every == 0 {
            for cut in CUTS {
                images += 1;
                let disk = durable.clone().after(cut, &mut chance);
                let again = chance.one_in(25).then(|| chance.next());
                if let Some(fault) = look::<S>(history, &disk, steps, again) {
                    wrong.push(format!("{fault} (seed {seed}, step {steps}, {cut:?})"));
                }
            }
        }
        durable.follow(step);
    }
    (wrong, images)
}

/// What is wrong with a disk. With a seed, the power is cut again while it is opened and written.
fn look<S: Subject>(
    history: &History,
    disk: &Disk,
    steps: usize,
    again: Option<u64>,
) -> Option<String> {
    let before = disk.durable();
    let (mut store, found) = match start::<S>(disk) {
        Ok(opened) => opened,
        Err(fault) => return Some(fault),
    };
    // Until the first start was complete there may be another one.
    let first = history.turns.first().unwrap();
    let is_new = steps < first.to;
    if !is_new && found.identity != history.identity {
        return Some("another identity".to_owned());
    }
    let mut allowed = allowed(&history.turns, steps);
    if !allowed.contains(&found.stock) {
        return Some("another state".to_owned());
    }
    // It can be written, and has that after another start.
    let mut model = eventful().model;
    model.counters = history_counters();
    let done = store.commit(&Record::whole(&model), &model);
    drop(store);
    let Ok((_, last)) = start::<S>(disk) else {
        return Some("does not start after it was written".to_owned());
    };
    let whole = stock_of_model(&model);
    let has = |(place, value)| last.stock.get(place) == Some(value);
    if done != Reply::Done || !whole.iter().all(has) {
        return Some("cannot be written".to_owned());
    }
    // What it was found with, whichever of the allowed states that was, or what was written since.
    allowed.push(last.stock);
    let mut chance = Chance::new(again?);
    let mut durable = before;
    for step in disk.log() {
        for cut in CUTS {
            let disk = durable.clone().after(cut, &mut chance);
            match start::<S>(&disk) {
                Ok((_, found)) if allowed.contains(&found.stock) => {}
                Ok(_) => return Some(format!("another state after a second cut, {cut:?}")),
                Err(fault) => return Some(format!("{fault} after a second cut, {cut:?}")),
            }
        }
        durable.follow(&step);
    }
    None
}

fn start<S: Subject>(disk: &Disk) -> Result<(S, Opened), String> {
    match catch_unwind(AssertUnwindSafe(|| S::open(disk))) {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(fault)) => Err(format!("does not start: {fault}")),
        Err(_) => Err("panics at the start".to_owned()),
    }
}

/// Higher than all of a history.
fn history_counters() -> Counters {
    Counters {
        user: UserId::new(1_000_000).unwrap(),
        ..eventful().model.counters
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

const COURSE: Course = Course {
    turns: 14,
    failures: 3,
};

/// Rounds and the first seed, by the environment.
fn rounds(usual: u64) -> (u64, u64) {
    let rounds = number("HEARTH_CRASH_ROUNDS").unwrap_or(usual);
    (number("HEARTH_CRASH_SEED").unwrap_or(1), rounds)
}

#[test]
fn after_a_power_cut_there_is_what_was_acknowledged_and_nothing_that_was_refused() {
    let (first, rounds) = rounds(2);
    let mut images = 0;
    for seed in first..first + rounds {
        let history = history::<Store>(seed, COURSE);
        let (wrong, looked) = cuts::<Store>(&history, seed, 7);
        images += looked;
        let repeat = format!("HEARTH_CRASH_ROUNDS=1 HEARTH_CRASH_SEED={seed}");
        assert!(wrong.is_empty(), "{repeat}: {wrong:#?}");
    }
    println!("{images} disks after power cuts, none wrong");
}

/// The same judge finds what was wrong with earlier versions (D1, D2, D3).
#[test]
fn the_faults_of_earlier_versions_are_found() {
    let mut found = BTreeSet::new();
    for seed in 1..9 {
        let history = history::<Before>(seed, COURSE);
        let (wrong, _) = cuts::<Before>(&history, seed, 11);
        for fault in wrong {
            let words = ["All roots are corrupted", "another state", "magic number"];
            found.extend(words.into_iter().filter(|word| fault.contains(word)));
        }
        if found.len() == 3 {
            break;
        }
    }
    assert_eq!(found.len(), 3, "only {found:?}");
}
