//! Power cuts at every moment of many histories: what a machine finds is opened by the real code and compared with what was
//! acknowledged and what was refused.
//!
//! More of it: `HEARTH_CRASH_ROUNDS=1000 cargo test --release --lib store::tests::crash`. A failure names its seed;
//! `HEARTH_CRASH_SEED=…` repeats it.

use std::collections::BTreeSet;

use super::before::Before;
use super::judge::{Course, Opened, Reply, Subject, cuts, history};
use super::*;

impl Subject for Store {
    fn open(disk: &Disk) -> Result<(Self, Opened), String> {
        let opened = Store::open_in(Arc::new(disk.clone()), CACHE, Check::Here);
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
