//! Tables for people.

use super::Terminal;

/// Blanks between two columns.
const GAP: usize = 2;

/// A table: columns as wide as their widest cell. On a terminal that is narrower, cells continue on the next
/// line, broken at blanks.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]], terminal: Terminal) -> String {
    let rows: Vec<&[String]> = rows.iter().map(<[String; N]>::as_slice).collect();
    layout(&head, &rows, terminal)
}

fn layout(head: &[&str], rows: &[&[String]], terminal: Terminal) -> String {
    let widths = widths(head, rows, terminal.width);
    let mut lines = Vec::new();
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    push_row(&mut lines, &head, &widths, terminal, true);
    for row in rows {
        push_row(&mut lines, row, &widths, terminal, false);
    }
    lines.join("\n")
}

/// The width of each column. While the table is wider than the terminal, the widest column that has cells
/// to break gets narrower.
fn widths(head: &[&str], rows: &[&[String]], room: Option<usize>) -> Vec<usize> {
    let column = |at: usize| rows.iter().filter_map(move |row| row.get(at));
    let mut widths: Vec<usize> = Vec::new();
    let mut least: Vec<usize> = Vec::new();
    for (at, name) in head.iter().enumerate() {
        let words = column(at).flat_map(|cell| cell.split(' ')).map(width);
        let cells = column(at).map(|cell| width(cell));
        widths.push(cells.max().unwrap_or(0).max(width(name)));
        least.push(words.max().unwrap_or(0).max(width(name)));
    }
    let room = room.unwrap_or(usize::MAX);
    loop {
        let used = widths.iter().fold(0_usize, |sum, width| {
            sum.saturating_add(*width).saturating_add(GAP)
        });
        let excess = used.saturating_sub(GAP).saturating_sub(room);
        let breakable = widths.iter_mut().zip(&least);
        let breakable = breakable.filter(|(width, least)| **width > **least);
        let Some((widest, least)) = breakable.max_by_key(|(width, _)| **width) else {
            return widths;
        };
        if excess == 0 {
            return widths;
        }
        *widest = widest.saturating_sub(excess).max(*least);
    }
}

fn push_row(
    lines: &mut Vec<String>,
    row: &[String],
    widths: &[usize],
    terminal: Terminal,
    is_head: bool,
) {
    let cells = row.iter().zip(widths);
    let cells: Vec<Vec<String>> = cells.map(|(cell, width)| broken(cell, *width)).collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    for at in 0..height {
        let mut line = String::new();
        // Blanks are put before the next cell, so that no line ends in them.
        let mut blanks = 0;
        for ((parts, width_of_column), whole) in cells.iter().zip(widths).zip(row) {
            let part = parts.get(at).map_or("", String::as_str);
            if !part.is_empty() {
                line.push_str(&" ".repeat(blanks));
                blanks = 0;
                let word = if is_head { "heading" } else { whole };
                line.push_str(&terminal.paint(word, part));
            }
            blanks = (blanks + width_of_column + GAP).saturating_sub(width(part));
        }
        lines.push(line);
    }
}

/// The cell in lines of at most `most` columns, if its words allow it.
fn broken(cell: &str, most: usize) -> Vec<String> {
    if width(cell) <= most {
        return vec![cell.to_owned()];
    }
    let mut lines = vec![String::new()];
    for word in cell.split(' ') {
        match lines.last_mut() {
            Some(line) if !line.is_empty() && width(line) + 1 + width(word) > most => {
                lines.push(word.to_owned());
            }
            Some(line) => {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
            }
            None => {}
        }
    }
    lines
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[[&str; 3]]) -> Vec<[String; 3]> {
        rows.iter().map(|row| row.map(str::to_owned)).collect()
    }

    #[test]
    fn columns_line_up() {
        let rows = rows(&[["1", "größe", "x"], ["22", "b", ""]]);
        assert_eq!(
            table(["ID", "Name", "Z"], &rows, Terminal::NONE),
            "ID  Name   Z\n1   größe  x\n22  b"
        );
    }

    #[test]
    fn a_narrow_terminal_breaks_the_widest_cells_and_no_words() {
        let rows = rows(&[["1", "100.64.0.1, fd7a:115c::1", "online"]]);
        let narrow = Terminal {
            color: false,
            width: Some(30),
        };
        assert_eq!(
            table(["ID", "Addresses", "State"], &rows, narrow),
            "ID  Addresses           State\n1   100.64.0.1,         online\n    fd7a:115c::1"
        );
        let wide = table(["ID", "Addresses", "State"], &rows, Terminal::NONE);
        assert_eq!(wide.lines().count(), 2);
    }

    #[test]
    fn states_and_headings_are_painted_without_moving_columns() {
        let rows = rows(&[["1", "online", "x"]]);
        let color = Terminal {
            color: true,
            width: None,
        };
        assert_eq!(
            table(["A", "State", "B"], &rows, color),
            "\u{1b}[1mA\u{1b}[0m  \u{1b}[1mState\u{1b}[0m   \u{1b}[1mB\u{1b}[0m\n1  \u{1b}[32monline\u{1b}[0m  x"
        );
    }
}
