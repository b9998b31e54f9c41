//! Which characters a person can see. Names come from devices: without the others they cannot steer a terminal, change
//! the direction of a line or pose as another name.

/// Whether a character shows as something, a blank included. Not so control characters, characters that change the
/// direction of the text, those without a width and those that look like nothing.
///
/// Source: the categories Cc, Cf, Zl and Zp and the property Default_Ignorable_Code_Point of Unicode 16
/// (`DerivedCoreProperties.txt`), and the blank letters U+2800 and U+FFA0.
pub fn is_visible(letter: char) -> bool {
    !letter.is_control() && !is_ignorable(letter)
}

fn is_ignorable(letter: char) -> bool {
    matches!(letter,
        '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
        | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
        | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_seen_and_what_steers_text_is_not() {
        for letter in "aÄß 我한ن9-_.'\u{301}😀".chars() {
            assert!(is_visible(letter), "{letter:?}");
        }
        let steering = "\0\u{7}\u{1b}\u{7f}\u{85}\u{9b}\u{ad}\u{61c}\u{200b}\u{200d}\u{200e}\u{202e}\u{2028}\u{2066}\
                        \u{2069}\u{2060}\u{feff}\u{3164}\u{fe0f}\u{fff9}\u{e0041}\u{e01ef}";
        for letter in steering.chars() {
            assert!(!is_visible(letter), "{letter:?}");
        }
    }
}
