//! What no text that reaches a screen unfiltered may hold.

/// Ranges of characters that are invisible or change the direction of what follows: Unicode's
/// `Bidi_Control` and `Default_Ignorable_Code_Point`, written down apart from the library that is
/// tested, up to Unicode 16.
const HIDDEN: [(char, char); 17] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fff8}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// Whether a text can be shown as it is.
pub(super) fn is_plain(text: &str) -> bool {
    !text.chars().any(|sign| sign.is_control() || is_hidden(sign))
}

fn is_hidden(sign: char) -> bool {
    HIDDEN.iter().any(|&(first, last)| (first..=last).contains(&sign))
}
