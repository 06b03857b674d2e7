//! What a name looks like.

use unicode_security::skeleton;

/// What a name looks like: two names that a reader could take for one another have the same one.
///
/// It is the skeleton of [UTS #39], taken of the enforced name, in lower case, and taken once
/// more when that changed a letter; so it is equal for a few more pairs than the standard's, and
/// never for fewer. It serves to compare only: it is not meant to be shown, stored or sent, as a
/// newer Unicode version may compute another one for the same name.
///
/// Caught: letters of other scripts (`раураl` in Cyrillic and `paypal`), digits for letters (`0`
/// and `o`; `1`, `|` and `l`), `rn` and `m`. Case and width never reach it: a name is folded
/// before.
///
/// Not caught: `1` or `l` for `i` (`I` becomes `i` when the name is folded, and is shown as `i`),
/// `vv` for `w`, `cl` for `d`, an added accent, doubled letters, `5` for `s`, and whatever only
/// one font draws alike.
///
/// [UTS #39]: https://www.unicode.org/reports/tr39/#Confusable_Detection
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Skeleton(Box<str>);

impl Skeleton {
    /// The skeleton of a name in its enforced form.
    pub(super) fn of(name: &str) -> Self {
        let plain: String = skeleton(name).collect();
        let lower = lower(plain.chars());
        if lower == plain {
            return Self(plain.into());
        }
        // The standard maps to capitals too (`0` to `O`), and a capital's lower case may have a
        // prototype of its own (Lisu `ꓟ` to `M`, `m` to `rn`). After this it changes no more.
        Self(self::lower(skeleton(&lower)).into())
    }

    /// Whether nothing but signs and marks tells it from `other`.
    pub(super) fn has_letters_of(&self, other: &Self) -> bool {
        self.0.chars().filter(|sign| sign.is_alphanumeric()).eq(other.0.chars())
    }
}

/// Lower case sign by sign: unlike `str::to_lowercase` it does not look at a sigma's neighbours.
fn lower(text: impl Iterator<Item = char>) -> String {
    text.flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::precis;
    use proptest::prelude::*;

    fn enforced(name: &str) -> Skeleton {
        Skeleton::of(&precis::enforce(name).unwrap())
    }

    #[test]
    fn g5_cyrillic_look_alike_has_the_same_skeleton() {
        assert_eq!(enforced("раура\u{4cf}"), enforced("paypal"));
        assert_eq!(enforced("раураl"), enforced("paypal"));
        assert_eq!(enforced("РАУРАL"), enforced("paypal"));
    }

    #[test]
    fn g5_digits_and_letter_pairs_have_the_skeleton_of_what_they_look_like() {
        for (one, other) in [("paypa1", "paypal"), ("b0b", "bob"), ("rnodern", "modern")] {
            assert_eq!(enforced(one), enforced(other), "{one} {other}");
        }
        // A capital of Lisu looks like `M`, which is shown as `m` in an enforced name.
        assert_eq!(enforced("\u{a4df}ax"), enforced("max"));
    }

    #[test]
    fn g5_width_and_case_have_the_same_skeleton() {
        assert_eq!(enforced("ｐａｙｐａｌ"), enforced("paypal"));
        assert_eq!(enforced("PayPal"), enforced("paypal"));
        // A capital I is shown as i: it deceives nobody.
        assert_eq!(enforced("paypaI"), enforced("paypai"));
        assert_ne!(enforced("paypaI"), enforced("paypal"));
    }

    #[test]
    fn different_names_have_different_skeletons() {
        for (one, other) in [("alice", "bob"), ("ann", "anna"), ("jose", "josé"), ("5am", "sam")] {
            assert_ne!(enforced(one), enforced(other), "{one} {other}");
        }
    }

    #[test]
    fn skeleton_of_every_accepted_character_is_stable_and_not_empty() {
        for sign in '!'..=char::MAX {
            let Ok(name) = precis::enforce(sign.encode_utf8(&mut [0; 4])).map(String::from) else {
                continue;
            };
            let once = Skeleton::of(&name);
            assert!(once.0.chars().count() >= name.chars().count(), "{sign:?}");
            assert_eq!(Skeleton::of(&once.0), once, "{sign:?}");
        }
    }

    proptest! {
        #[test]
        fn skeleton_never_panics(text in any::<String>()) {
            let _ = Skeleton::of(&text);
        }
    }
}
