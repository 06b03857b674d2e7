//! The one gate between text of other people and a screen.

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar as _;

/// The most marks on one character that are shown: more than any language needs, few enough that
/// they stay near their line.
const MARKS_MAX: usize = 8;

/// Shows every character that would steer a terminal as a visible sign.
///
/// Controls of ASCII become their Unicode pictures (`␛` for escape, `␊` for a line feed), the
/// others (C1, direction marks and overrides, line and paragraph separators, tags) `<U+202E>`.
/// Of many marks on one character the first 8 stay, the others become their number.
/// Everything else stays: joiners without a width are part of many scripts and of emoji.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) && !piles_up(text) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len().saturating_add(16));
    let mut marks = 0_usize;
    for sign in text.chars() {
        if is_mark(sign) {
            marks = marks.saturating_add(1);
        } else {
            push_surplus(&mut shown, marks);
            marks = 0;
        }
        if marks <= MARKS_MAX {
            push_escaped(&mut shown, sign);
        }
    }
    push_surplus(&mut shown, marks);
    Cow::Owned(shown)
}

/// Whether a character has more marks than are shown.
fn piles_up(text: &str) -> bool {
    let mut marks = 0_usize;
    text.chars().any(|sign| {
        marks = if is_mark(sign) { marks.saturating_add(1) } else { 0 };
        marks > MARKS_MAX
    })
}

/// Whether a character takes no place of its own.
fn is_mark(sign: char) -> bool {
    !steers(sign) && sign.width() == Some(0)
}

fn push_surplus(shown: &mut String, marks: usize) {
    let surplus = marks.saturating_sub(MARKS_MAX);
    if surplus > 0 {
        write!(shown, "<{surplus} more marks>").expect("a String must take what is written");
    }
}

fn push_escaped(shown: &mut String, sign: char) {
    let code = u32::from(sign);
    match sign {
        '\0'..='\u{1f}' => shown.extend(char::from_u32(0x2400 + code)),
        '\u{7f}' => shown.push('\u{2421}'),
        _ if steers(sign) => {
            write!(shown, "<U+{code:04X}>").expect("a String must take what is written");
        }
        _ => shown.push(sign),
    }
}

/// Whether a terminal does something else with a character than to show it in its place.
const fn steers(sign: char) -> bool {
    matches!(
        sign,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h1_controls_are_shown_and_not_carried_out() {
        assert_eq!(escape("\u{1b}]52;c;AAAA\u{7}"), "␛]52;c;AAAA␇");
        assert_eq!(escape("a\r\n\tb\u{7f}\u{9b}2J"), "a␍␊␉b␡<U+009B>2J");
        for code in 0..=0x9f {
            let sign = char::from_u32(code).unwrap();
            let shown = escape(&sign.to_string()).into_owned();
            assert!(!shown.chars().any(char::is_control), "U+{code:04X}");
        }
    }

    #[test]
    fn h2_direction_overrides_are_shown_and_not_carried_out() {
        assert_eq!(escape("\u{202e}cod.exe"), "<U+202E>cod.exe");
        for sign in "\u{200e}\u{200f}\u{61c}\u{202a}\u{2066}\u{2067}\u{2069}\u{2028}".chars() {
            assert!(escape(&sign.to_string()).starts_with("<U+"), "{sign:?}");
        }
    }

    #[test]
    fn h4_no_more_than_8_marks_are_shown_on_one_character() {
        let acutes = |count| "\u{301}".repeat(count);
        assert!(matches!(escape(&format!("a{}", acutes(8))), Cow::Borrowed(_)));
        let shown = escape(&format!("a{}b{}", acutes(4_000), acutes(9))).into_owned();
        assert_eq!(shown, format!("a{0}<3992 more marks>b{0}<1 more marks>", acutes(8)));
    }

    #[test]
    fn letters_of_all_scripts_and_emoji_stay_as_they_are() {
        for text in ["héllo", "שלום", "مرحبا", "नमस्ते", "👩\u{200d}👩\u{200d}👧", "日本語"]
        {
            assert!(matches!(escape(text), Cow::Borrowed(same) if same == text));
        }
    }
}
