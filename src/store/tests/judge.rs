//! The judge of power cuts: histories of changes on a disk that may fail, and what a machine finds whose power was cut at any
//! moment of them, opened by the store under test and compared with what was acknowledged and what was refused.
//!
//! It names nothing of the store itself: `tests/crash --reproduce` puts it around the store of an earlier version, too.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Arc, Counters, Model, Record, Stock, User, eventful, stock_of_model};
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

/// A change of a history, or its beginning.
pub(super) struct Turn {
    from: usize,
    to: usize,
    reply: Reply,
    after: Stock,
}

/// What happened on a disk.
pub(super) struct History {
    disk: Disk,
    turns: Vec<Turn>,
    identity: [u8; 32],
    /// A word for each fault that was found in the running store.
    wrong: Vec<String>,
}

/// How a history goes.
#[derive(Clone, Copy)]
pub(super) struct Course {
    pub(super) turns: usize,
    /// One in so many changes meets a failing disk.
    pub(super) failures: usize,
}

/// A history of changes on a disk that may fail now and then.
pub(super) fn history<S: Subject>(seed: u64, course: Course) -> History {
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
    match chance.below(5) {
        0 => plan.writes_until = Some(chance.below(12)),
        1 => plan.folder_syncs = 1,
        2 => plan.reads_until = Some(chance.below(12)),
        3 => plan.syncs = 1 + chance.below(3),
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
pub(super) fn cuts<S: Subject>(history: &History, seed: u64, every: usize) -> (Vec<String>, usize) {
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
    if again.is_some()
        && let Some(fault) = unreadable::<S>(history, disk, steps)
    {
        return Some(fault);
    }
    let (before, first_step) = (disk.durable(), disk.steps());
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
    for step in disk.log().into_iter().skip(first_step) {
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

/// What is wrong with starts on a disk that cannot be read from some moment on. Each may fail; the next ones are the judge of
/// what it left.
fn unreadable<S: Subject>(history: &History, disk: &Disk, steps: usize) -> Option<String> {
    let allowed = allowed(&history.turns, steps);
    for reads in [0, 1, 2, 3, 5, 8, 13, 21, 34] {
        disk.plan(Plan {
            reads_until: Some(reads),
            ..Plan::default()
        });
        let opened = start::<S>(disk);
        disk.plan(Plan::default());
        match opened {
            Ok((_, found)) if allowed.contains(&found.stock) => return None,
            Ok(_) => return Some(format!("another state after {reads} reads, then none")),
            Err(fault) if fault.starts_with("panics") => {
                return Some(format!("{fault}, of which {reads} reads succeed"));
            }
            Err(_) => {}
        }
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
