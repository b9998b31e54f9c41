//! Simulations of many seeds.

use super::plan::Theme;
use super::shrink::{Case, digest};
use super::world::Outcome;

/// Steps of a plan.
const LENGTH: usize = 40;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs so many seeds, or those that the environment names.
fn rounds(theme: Theme, usual: u64) {
    let first = number("HEARTH_SIMULATION_SEED").unwrap_or(1);
    let rounds = number("HEARTH_SIMULATION_ROUNDS").unwrap_or(usual);
    let length = number("HEARTH_SIMULATION_STEPS").map_or(LENGTH, |steps| steps as usize);
    let mut seen = Outcome::default();
    for seed in first..first + rounds {
        let case = Case::new(seed, length, theme);
        let failure = match case.run() {
            Ok(outcome) => {
                seen.streams += outcome.streams;
                seen.peers += outcome.peers;
                seen.packets += outcome.packets;
                continue;
            }
            Err(failure) => failure,
        };
        println!("seed {seed}, step {}: {}", failure.step + 1, failure.wrong);
        let (shrunk, last) = case.shrunk(&failure);
        let test = match theme {
            Theme::Server => "the_whole_server_keeps_its_promises",
            Theme::Clock => "whatever_the_clock_shows",
        };
        panic!(
            "{}\n{}\nagain: HEARTH_SIMULATION_ROUNDS=1 HEARTH_SIMULATION_SEED={seed} HEARTH_SIMULATION_STEPS={length} cargo test --lib {test} -- --nocapture",
            last.wrong,
            shrunk.words()
        );
    }
    // One in which nothing happens finds nothing.
    assert!(
        rounds < 3 || seen.streams > 9 && seen.peers > 0 && seen.packets > 9,
        "{seen:?}"
    );
}

#[test]
fn the_whole_server_keeps_its_promises() {
    rounds(Theme::Server, 4);
}

#[test]
fn whatever_the_clock_shows_nothing_ends_too_early() {
    rounds(Theme::Clock, 1);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let case = Case::new(7, 25, Theme::Server);
    let runs = [case.run(), case.run()].map(|run| run.expect("it succeeds"));
    for (one, other) in runs[0].trace.iter().zip(&runs[1].trace) {
        assert_eq!(one, other);
    }
    assert_eq!(digest(&runs[0].trace), digest(&runs[1].trace));
}
