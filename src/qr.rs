//! QR codes: for terminals, and as rows of modules for other programs to draw.

use qrcodegen::{QrCode, QrCodeEcc};

/// Quiet zone: light modules around the code that scanners need. Source: ISO/IEC 18004 section 9.1.
const QUIET: i32 = 4;

/// A QR code in half-block characters, two modules per cell; `None` when the text is too long.
///
/// Light modules are drawn and dark ones left blank, for a terminal with a dark background. Current
/// scanners also read the inverse on a light background.
pub fn for_terminal(text: &str) -> Option<String> {
    let code = QrCode::encode_text(text, QrCodeEcc::Low).ok()?;
    // Outside of the code `get_module` returns light, which is the quiet zone.
    let is_light = |x, y| !code.get_module(x, y);
    let end = code.size() + QUIET;
    let mut drawing = String::new();
    let mut y = -QUIET;
    while y < end {
        for x in -QUIET..end {
            drawing.push(match (is_light(x, y), y + 1 < end && is_light(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        drawing.push('\n');
        y += 2;
    }
    drawing.truncate(drawing.trim_end_matches('\n').len());
    Some(drawing)
}

/// Rows of a QR code, top to bottom: a dark module is `1`, a light one `0`. Without the quiet zone of four
/// light modules, which the caller draws. `None` when the text is too long.
pub fn rows(text: &str) -> Option<Vec<String>> {
    let code = QrCode::encode_text(text, QrCodeEcc::Medium).ok()?;
    let side = 0..code.size();
    let module = |x, y| if code.get_module(x, y) { '1' } else { '0' };
    Some(
        side.clone()
            .map(|y| side.clone().map(|x| module(x, y)).collect())
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_a_quiet_zone_and_its_three_corners() {
        let drawing = for_terminal("http://192.168.1.1:8080/join#hskey-auth-x").unwrap();
        let lines: Vec<Vec<char>> = drawing.lines().map(|line| line.chars().collect()).collect();
        let width = lines[0].len();
        assert!(lines.iter().all(|line| line.len() == width));
        assert_eq!(lines.len(), width.div_ceil(2));
        assert!(lines[0].iter().all(|module| *module == '█'));
        // The outer ring of a finder pattern is dark: seven modules after the quiet zone.
        let top = &lines[2];
        assert_eq!(top[3], '█');
        assert!(top[4..11].iter().all(|module| matches!(module, '▄' | ' ')));
        assert!(
            top[width - 11..width - 4]
                .iter()
                .all(|module| matches!(module, '▄' | ' '))
        );
    }

    #[test]
    fn rows_make_a_square_with_three_corners() {
        let rows = rows("http://192.168.1.1:8080/join#hskey-auth-x").unwrap();
        assert!(rows.iter().all(|row| row.len() == rows.len()));
        // The finder patterns. Source: ISO/IEC 18004 section 6.3.3.
        let finder = [
            "1111111", "1000001", "1011101", "1011101", "1011101", "1000001", "1111111",
        ];
        let end = rows.len() - 7;
        for (y, line) in finder.iter().enumerate() {
            assert_eq!(&rows[y][..7], *line);
            assert_eq!(&rows[y][end..], *line);
            assert_eq!(&rows[end + y][..7], *line);
        }
        assert_ne!(&rows[end][end..], finder[0]);
    }

    #[test]
    fn a_text_too_long_for_a_code_gives_none() {
        assert_eq!(for_terminal(&"x".repeat(3000)), None);
        assert_eq!(rows(&"x".repeat(3000)), None);
    }
}
