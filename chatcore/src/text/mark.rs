//! Combining marks, which change the character before them.

use precis_profiles::UsernameCaseMapped;
use precis_profiles::precis_core::profile::Rules as _;

/// Whether `sign` is a combining mark (general category Mn or Mc) among those PRECIS allows.
pub(super) fn is_mark(sign: char) -> bool {
    is_nonspacing_mark(sign)
        || SPACING_MARKS.iter().any(|&(first, last)| (first..=last).contains(&sign))
}

/// Whether `sign` has the bidi class NSM, which all marks without a width of their own have.
///
/// `precis-profiles` knows the class and does not tell it, but its bidi rule gives it away: after
/// a Hebrew letter, only NSM is a good end, and no longer one when a hyphen comes between.
pub(super) fn is_nonspacing_mark(sign: char) -> bool {
    let profile = UsernameCaseMapped::new();
    let ends_well = |start: &str| {
        profile
            .directionality_rule(String::from_iter([start, sign.encode_utf8(&mut [0; 4])]))
            .is_ok()
    };
    !sign.is_ascii() && ends_well("א") && !ends_well("א-")
}

/// Spacing marks (general category Mc) up to Unicode 6.3, the last version whose characters
/// `precis-core` accepts: so the list needs no care. Between the ends of a range there are only
/// marks and characters that no name can have.
const SPACING_MARKS: [(char, char); 64] = [
    ('\u{903}', '\u{903}'),
    ('\u{93b}', '\u{93b}'),
    ('\u{93e}', '\u{94f}'),
    ('\u{982}', '\u{983}'),
    ('\u{9be}', '\u{9cc}'),
    ('\u{9d7}', '\u{9d7}'),
    ('\u{a03}', '\u{a03}'),
    ('\u{a3e}', '\u{a40}'),
    ('\u{a83}', '\u{a83}'),
    ('\u{abe}', '\u{acc}'),
    ('\u{b02}', '\u{b03}'),
    ('\u{b3e}', '\u{b57}'),
    ('\u{bbe}', '\u{bcc}'),
    ('\u{bd7}', '\u{bd7}'),
    ('\u{c01}', '\u{c03}'),
    ('\u{c41}', '\u{c44}'),
    ('\u{c82}', '\u{c83}'),
    ('\u{cbe}', '\u{cd6}'),
    ('\u{d02}', '\u{d03}'),
    ('\u{d3e}', '\u{d4c}'),
    ('\u{d57}', '\u{d57}'),
    ('\u{d82}', '\u{d83}'),
    ('\u{dcf}', '\u{df3}'),
    ('\u{f3e}', '\u{f3f}'),
    ('\u{f7f}', '\u{f7f}'),
    ('\u{102b}', '\u{103c}'),
    ('\u{1056}', '\u{1057}'),
    ('\u{1062}', '\u{1064}'),
    ('\u{1067}', '\u{106d}'),
    ('\u{1083}', '\u{108c}'),
    ('\u{108f}', '\u{108f}'),
    ('\u{109a}', '\u{109c}'),
    ('\u{1734}', '\u{1734}'),
    ('\u{17b6}', '\u{17c8}'),
    ('\u{1923}', '\u{1938}'),
    ('\u{1a19}', '\u{1a1a}'),
    ('\u{1a55}', '\u{1a72}'),
    ('\u{1b04}', '\u{1b04}'),
    ('\u{1b35}', '\u{1b44}'),
    ('\u{1b82}', '\u{1b82}'),
    ('\u{1ba1}', '\u{1baa}'),
    ('\u{1be7}', '\u{1bf3}'),
    ('\u{1c24}', '\u{1c35}'),
    ('\u{1ce1}', '\u{1ce1}'),
    ('\u{a823}', '\u{a827}'),
    ('\u{a880}', '\u{a881}'),
    ('\u{a8b4}', '\u{a8c3}'),
    ('\u{a952}', '\u{a983}'),
    ('\u{a9b4}', '\u{a9c0}'),
    ('\u{aa2f}', '\u{aa34}'),
    ('\u{aa4d}', '\u{aa4d}'),
    ('\u{aa7b}', '\u{aa7b}'),
    ('\u{aaeb}', '\u{aaef}'),
    ('\u{aaf5}', '\u{aaf5}'),
    ('\u{abe3}', '\u{abec}'),
    ('\u{11000}', '\u{11002}'),
    ('\u{11082}', '\u{11082}'),
    ('\u{110b0}', '\u{110b8}'),
    ('\u{1112c}', '\u{1112c}'),
    ('\u{11182}', '\u{11182}'),
    ('\u{111b3}', '\u{111c0}'),
    ('\u{116ac}', '\u{116b6}'),
    ('\u{16f51}', '\u{16f7e}'),
    ('\u{1d165}', '\u{1d172}'),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_with_and_without_width_are_told_from_letters() {
        // Acute, Hebrew point, Thaana vowel, Devanagari virama; Devanagari and Khmer vowel signs.
        for mark in ['\u{301}', '\u{5b8}', '\u{7a6}', '\u{94d}', '\u{93e}', '\u{17b6}'] {
            assert!(is_mark(mark), "{mark:?}");
        }
        for letter in ['a', '1', '-', '_', 'é', 'א', 'م', '٣', '\u{95c}', 'ク', 'ー', '\u{1f600}']
        {
            assert!(!is_mark(letter), "{letter:?}");
        }
    }

    #[test]
    fn ranges_of_spacing_marks_are_in_order() {
        assert!(SPACING_MARKS.iter().all(|(first, last)| first <= last));
        assert!(SPACING_MARKS.windows(2).all(|pair| pair[0].1 < pair[1].0));
    }
}
