//! Runs plans, and makes those that fail shorter.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::machine::Shows;
use super::plan::{Step, Theme, first_clock, plan};
use super::world::{Outcome, World, Wrong};
use crate::system_clock::simulated;

/// Most runs to make a plan shorter.
const RUNS: usize = 150;

/// A plan that fails.
#[derive(Debug)]
pub(super) struct Failure {
    /// Which step failed: the last one of those that matter.
    pub(super) step: usize,
    pub(super) wrong: Wrong,
}

/// A simulation: who it is about, and what happens.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) seed: u64,
    pub(super) clock: Shows,
    pub(super) steps: Vec<Step>,
}

impl Case {
    pub(super) fn new(seed: u64, length: usize, theme: Theme) -> Self {
        Self {
            seed,
            clock: first_clock(seed, theme),
            steps: plan(seed, length, theme),
        }
    }

    /// Runs it. The result is the trace of what happened.
    pub(super) fn run(&self) -> Result<Outcome, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let _errors = super::errors::collect();
        let place = std::cell::Cell::new(0);
        let ran = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(async {
                let mut world = World::new(self.seed, self.clock).await?;
                for (number, step) in self.steps.iter().enumerate() {
                    place.set(number);
                    world.step(number, *step).await?;
                    if std::env::var_os("HEARTH_SIMULATION_TRACE").is_some() {
                        println!("{}", world.trace[number]);
                    }
                }
                world.nothing_is_left().await?;
                let outcome = world.outcome();
                world.end().await;
                Ok(outcome)
            })
        }));
        runtime.shutdown_background();
        simulated::set(None);
        let failure = |wrong| Failure {
            step: place.get(),
            wrong,
        };
        match ran {
            Ok(ran) => ran.map_err(failure),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text =
                    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                Err(failure(format!("panic: {}", text.unwrap_or_default())))
            }
        }
    }

    /// The same with as few steps as possible that still fails, by leaving out ever smaller parts (ddmin of Zeller and
    /// Hildebrandt).
    pub(super) fn shrunk(&self, failure: &Failure) -> (Self, Failure) {
        let mut best = self.clone();
        best.steps.truncate(failure.step + 1);
        let mut found = Failure {
            step: failure.step,
            wrong: failure.wrong.clone(),
        };
        let mut size = best.steps.len().div_ceil(2);
        let mut runs = 0;
        while size > 0 && runs < RUNS {
            let mut from = 0;
            let mut is_shorter = false;
            while from < best.steps.len() && runs < RUNS {
                let mut shorter = best.clone();
                let end = (from + size).min(best.steps.len());
                shorter.steps.drain(from..end);
                runs += 1;
                match shorter.run() {
                    Err(failure) => {
                        shorter.steps.truncate(failure.step + 1);
                        (best, found, is_shorter) = (shorter, failure, true);
                    }
                    Ok(_) => from = end,
                }
            }
            if size == 1 && !is_shorter {
                break;
            }
            size = match size {
                1 => 1,
                size => size / 2,
            };
        }
        (best, found)
    }

    /// The steps in words.
    pub(super) fn words(&self) -> String {
        let steps = self.steps.iter().enumerate();
        let lines: Vec<String> = steps
            .map(|(at, step)| format!("  {}. {step}", at + 1))
            .collect();
        format!(
            "at first the clock shows {}\n{}",
            self.clock,
            lines.join("\n")
        )
    }
}

/// A digest of a trace.
pub(super) fn digest(trace: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    trace.hash(&mut hasher);
    hasher.finish()
}
