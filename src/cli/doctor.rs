//! `hearth doctor`.

use super::client::{CliError, Client, read};
use super::output::{Format, Output, cell};
use crate::api::{Diagnosis, Finding};

/// Exit code when something does not work.
const PROBLEMS: u8 = 1;

/// Columns of a text for people.
const WIDTH: usize = 100;

/// Shows what is right and wrong. The exit code is 1 when there are problems.
pub fn run(client: &Client, format: Option<Format>, shows_all: bool) -> Result<Output, CliError> {
    let answer = client.get("/api/v1/hearth/doctor")?;
    let diagnosis: Diagnosis = read(&answer)?;
    let output = Output::of(format, &answer, || text(&diagnosis, shows_all));
    Ok(match diagnosis.counts.problem {
        0 => output,
        _ => output.exit_code(PROBLEMS),
    })
}

fn text(diagnosis: &Diagnosis, shows_all: bool) -> String {
    let mut blocks: Vec<String> = (diagnosis.findings.iter())
        .filter(|finding| finding.level != "ok")
        .map(block)
        .collect();
    let good = diagnosis
        .findings
        .iter()
        .filter(|finding| finding.level == "ok");
    let good: Vec<String> = good
        .map(|finding| match (shows_all, finding.detail.as_str()) {
            (true, detail) if !detail.is_empty() => {
                format!("ok       {}: {}", cell(&finding.title), cell(detail))
            }
            _ => format!("ok       {}", cell(&finding.title)),
        })
        .collect();
    if !good.is_empty() {
        blocks.push(good.join("\n"));
    }
    let counts = &diagnosis.counts;
    blocks.push(format!(
        "{} problem(s), {} warning(s), {} note(s)",
        counts.problem, counts.warning, counts.note
    ));
    blocks.join("\n\n")
}

fn block(finding: &Finding) -> String {
    let mut lines = vec![format!("{:<8} {}", finding.level, cell(&finding.title))];
    for line in finding.detail.lines() {
        lines.extend(wrapped(&cell(line)));
    }
    for (at, line) in finding.advice.lines().enumerate() {
        let begin = if at == 0 { "What to do: " } else { "" };
        lines.extend(wrapped(&format!("{begin}{}", cell(line))));
    }
    lines.join("\n")
}

/// Lines of at most [`WIDTH`] columns, indented; words are not broken.
fn wrapped(text: &str) -> Vec<String> {
    let indent = " ".repeat(9);
    let mut lines = Vec::new();
    let mut line = indent.clone();
    for word in text.split_whitespace() {
        let is_first = line.len() == indent.len();
        if !is_first && line.chars().count() + 1 + word.chars().count() > WIDTH {
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
        let text = text(&diagnosis, false);
        assert!(
            text.starts_with("problem  It is bad\n         word"),
            "{text}"
        );
        assert!(
            text.contains("\n         What to do: Do this.\n\nok       It is good\n\n1 problem(s)"),
            "{text}"
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= WIDTH),
            "{text}"
        );
    }
}
