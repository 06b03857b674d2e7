//! The one gate between text of other people and a screen.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Shows every character that would steer a terminal as a visible sign.
///
/// Controls of ASCII become their Unicode pictures (`␛` for escape, `␊` for a line feed), the
/// others (C1, direction marks and overrides, line and paragraph separators, tags) `<U+202E>`.
/// Everything else stays: joiners without a width are part of many scripts and of emoji.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len().saturating_add(16));
    for sign in text.chars() {
        push_escaped(&mut shown, sign);
    }
    Cow::Owned(shown)
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
    fn letters_of_all_scripts_and_emoji_stay_as_they_are() {
        for text in ["héllo", "שלום", "مرحبا", "नमस्ते", "👩\u{200d}👩\u{200d}👧", "日本語"]
        {
            assert!(matches!(escape(text), Cow::Borrowed(same) if same == text));
        }
    }
}
