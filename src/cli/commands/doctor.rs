//! `hearth doctor`.

use crate::api::{Diagnosis, Finding};
use crate::cli::client::{CliError, read};
use crate::cli::context::Ctx;
use crate::cli::output::{Output, Terminal, cell};

/// Exit code when there are problems.
const PROBLEMS: u8 = 1;

/// Most columns of the text.
const WIDTH: usize = 100;

/// Shows what the server found out about itself. The exit code is 1 when there are problems.
pub fn run(ctx: &Ctx, shows_all: bool) -> Result<Output, CliError> {
    let answer = ctx.client.get("/api/v1/hearth/doctor")?;
    let diagnosis: Diagnosis = read(&answer)?;
    let output = ctx.output(&answer, || text(&diagnosis, shows_all, ctx.terminal));
    Ok(match diagnosis.counts.problem {
        0 => output,
        _ => output.exit_code(PROBLEMS),
    })
}

fn text(diagnosis: &Diagnosis, shows_all: bool, terminal: Terminal) -> String {
    let mut blocks: Vec<String> = (diagnosis.findings.iter())
        .filter(|finding| finding.level != "ok")
        .map(|finding| block(finding, terminal))
        .collect();
    let good = diagnosis
        .findings
        .iter()
        .filter(|finding| finding.level == "ok");
    let good: Vec<String> = good
        .map(|finding| match (shows_all, finding.detail.as_str()) {
            (true, detail) if !detail.is_empty() => {
                format!("{}: {}", title(finding, terminal), cell(detail))
            }
            _ => title(finding, terminal),
        })
        .collect();
    if !good.is_empty() {
        blocks.push(good.join("\n"));
    }
    let counts = &diagnosis.counts;
    blocks.push(format!(
        "{}, {}, {}",
        count(counts.problem, "problem"),
        count(counts.warning, "warning"),
        count(counts.note, "note")
    ));
    blocks.join("\n\n")
}

fn count(number: usize, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

fn title(finding: &Finding, terminal: Terminal) -> String {
    let level = terminal.paint(&finding.level, &format!("{:<8}", finding.level));
    format!("{level} {}", cell(&finding.title))
}

fn block(finding: &Finding, terminal: Terminal) -> String {
    let width = terminal.width.map_or(WIDTH, |width| width.min(WIDTH));
    let mut lines = vec![title(finding, terminal)];
    for line in finding.detail.lines() {
        lines.extend(wrapped(&cell(line), width));
    }
    for (at, line) in finding.advice.lines().enumerate() {
        let begin = if at == 0 { "What to do: " } else { "" };
        lines.extend(wrapped(&format!("{begin}{}", cell(line)), width));
    }
    lines.join("\n")
}

/// Lines of at most `width` columns, indented; words are not broken.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let indent = " ".repeat(9);
    let mut lines = Vec::new();
    let mut line = indent.clone();
    for word in text.split_whitespace() {
        let is_first = line.len() == indent.len();
        if !is_first && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::replace(&mut line, indent.clone()));
        } else if !is_first {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Counts, Wan};
    use hearth_core::clock::Timestamp;

    #[test]
    fn the_worst_comes_first_and_what_is_good_last() {
        let finding = |level: &str, title: &str, detail: &str| Finding {
            id: "x".into(),
            level: level.into(),
            title: title.into(),
            detail: detail.into(),
            advice: "Do this.".into(),
        };
        let diagnosis = Diagnosis {
            checked_at: Timestamp::parse("2026-11-23T12:00:00Z").unwrap(),
            worst: "problem".into(),
            counts: Counts {
                ok: 1,
                problem: 1,
                ..Counts::default()
            },
            findings: vec![
                finding("problem", "It is bad", &"word ".repeat(40)),
                finding("ok", "It is good", "so it is"),
            ],
            wan: Wan::default(),
        };
        let text = text(&diagnosis, false, Terminal::NONE);
        assert!(
            text.starts_with("problem  It is bad\n         word"),
            "{text}"
        );
        assert!(
            text.contains("\n         What to do: Do this.\n\nok       It is good\n\n1 problem, 0 warnings, 0 notes"),
            "{text}"
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= WIDTH),
            "{text}"
        );
    }
}
