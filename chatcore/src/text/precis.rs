//! Enforcement of the PRECIS profile `UsernameCaseMapped` (RFC 8264, RFC 8265).

use std::borrow::Cow;

use precis_profiles::UsernameCaseMapped;
use precis_profiles::precis_core::profile::{Profile as _, Rules as _};

use super::NameError;
use super::mark::is_nonspacing_mark;

/// The enforced form of `text`: width and case folded, in Unicode's normal form C.
///
/// Enforcing the result again gives the same, or else `text` is refused.
///
/// # Errors
/// [`NameError::Character`] for characters outside PRECIS's `IdentifierClass`,
/// [`NameError::Direction`] for text that breaks the bidi rule of RFC 5893. The caller has
/// refused the empty text.
pub(super) fn enforce(text: &str) -> Result<Cow<'_, str>, NameError> {
    if text.is_ascii() {
        return enforce_ascii(text);
    }
    let once = enforce_unicode(text)?;
    // Case folding uses the tables of `std`, `precis-core` those of Unicode 6.3. Cherokee got its
    // lower case after 6.3, so its folded letters are unknown when enforced once more.
    if once != text && enforce_unicode(&once)? != once {
        return Err(NameError::Character);
    }
    Ok(once)
}

/// What [`enforce_unicode`] gives for ASCII, many times faster: most names are ASCII, and one is
/// checked with every record that is decoded.
fn enforce_ascii(text: &str) -> Result<Cow<'_, str>, NameError> {
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(NameError::Character);
    }
    Ok(if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        text.to_ascii_lowercase().into()
    } else {
        text.into()
    })
}

/// The steps of `UsernameCaseMapped::enforce`, with another last one.
fn enforce_unicode(text: &str) -> Result<Cow<'_, str>, NameError> {
    let profile = UsernameCaseMapped::new();
    let enforced = profile
        .prepare(text)
        .and_then(|prepared| profile.case_mapping_rule(prepared))
        .and_then(|folded| profile.normalization_rule(folded))
        .map_err(|_| NameError::Character)?;
    if has_one_direction(&enforced) { Ok(enforced) } else { Err(NameError::Direction) }
}

/// Whether `text` keeps the bidi rule of RFC 5893, as every text without right-to-left letters
/// does.
///
/// `precis-profiles` 0.2.0 allows nonspacing marks only at the end of a right-to-left text, while
/// the RFC allows them everywhere but at the start: no Thaana and no vocalised Hebrew or Arabic
/// would pass. Away from the start they decide nothing, so the rule may be asked without them; at
/// the start, where it refuses them, names do as well.
fn has_one_direction(text: &str) -> bool {
    let profile = UsernameCaseMapped::new();
    let keeps_rule = |text: Cow<'_, str>| profile.directionality_rule(text).is_ok();
    keeps_rule(text.into())
        || keeps_rule(
            text.chars().filter(|&sign| !is_nonspacing_mark(sign)).collect::<String>().into(),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ascii_is_enforced_as_any_text_is() {
        for byte in 1..=0x7f_u8 {
            let text = String::from_utf8(vec![byte]).unwrap();
            assert_eq!(enforce_ascii(&text), enforce_unicode(&text), "{text:?}");
        }
    }

    #[test]
    fn every_accepted_character_is_visible_or_a_mark() {
        for sign in '\0'..=char::MAX {
            if enforce(sign.encode_utf8(&mut [0; 4])).is_ok() {
                assert!(!sign.is_control() && !sign.is_whitespace(), "{sign:?}");
            }
        }
    }

    #[test]
    fn width_case_and_composition_are_folded() {
        for (text, enforced) in
            [("Ａｌｉｃｅ", "alice"), ("ÉTÉ", "été"), ("e\u{301}", "é"), ("ﾊﾞｯｸ", "バック")]
        {
            assert_eq!(enforce(text).as_deref(), Ok(enforced), "{text:?}");
        }
    }

    #[test]
    fn script_without_a_stable_lower_case_is_refused() {
        assert_eq!(enforce("ᏣᎳᎩ"), Err(NameError::Character));
    }

    #[test]
    fn right_to_left_name_may_carry_vowel_points() {
        for name in ["שלום", "שָׁלוֹם", "ދިވެހި", "محمد", "مُحَمَّد", "שלום1"]
        {
            assert!(enforce(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn g7_name_of_two_directions_is_refused() {
        for name in ["aשלום", "שלוםa", "1שלום", "שלום-", "a٠", "שָ-ָ"] {
            assert_eq!(enforce(name), Err(NameError::Direction), "{name}");
        }
    }

    /// Strings of characters that have given implementations trouble, and of all others.
    fn text() -> impl Strategy<Value = String> {
        let signs = "[ -~]|[à-ÿÀ-ß]|[א-ת\u{591}-\u{5c7}]|[ء-ْ٠-٩۰-۹]|[ހ-ޱ]|[Ꭰ-Ᏼ]|[Ა-Ჿა-ჿ]|[Α-Ωα-ω]\
                     |[\u{300}-\u{36f}]|[\u{200b}-\u{200f}\u{202a}-\u{202e}]|[··͵״׳・]|[क-ह्ा-ौ]\
                     |[！-￮]|[가-힣ᄀ-ᇿ]|[ǅǈİıßẞſKÅΩ]|\\PC";
        prop::collection::vec(signs, 0..12).prop_map(|signs| signs.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn ascii_text_is_enforced_as_any_text_is(text in "[!-~]{1,40}") {
            prop_assert_eq!(enforce_ascii(&text), enforce_unicode(&text));
        }

        #[test]
        fn enforced_text_is_its_own_enforced_form(text in text()) {
            if let Ok(enforced) = enforce(&text) {
                prop_assert_eq!(enforce(&enforced), Ok(enforced.clone()));
            }
        }

        #[test]
        fn enforcement_never_panics(text in any::<String>()) {
            let _ = enforce(&text);
        }
    }
}
