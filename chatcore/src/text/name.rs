//! Names of users and rooms.

use core::fmt;
use core::str::FromStr;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

use super::mark::is_mark;
use super::precis::enforce;
use super::{Skeleton, TextVisitor};

/// The longest user name, in characters (Unicode scalar values) of the enforced form.
pub const USER_NAME_CHARS_MAX: usize = 32;

/// The longest user name, in bytes of UTF-8, before and after enforcement.
pub const USER_NAME_BYTES_MAX: usize = 4 * USER_NAME_CHARS_MAX;

/// The longest room name, in characters (Unicode scalar values) of the enforced form.
pub const ROOM_NAME_CHARS_MAX: usize = 64;

/// The longest room name, in bytes of UTF-8, before and after enforcement.
pub const ROOM_NAME_BYTES_MAX: usize = 4 * ROOM_NAME_CHARS_MAX;

/// The longest name of a service, in characters (Unicode scalar values) of the enforced form.
pub const SERVICE_NAME_CHARS_MAX: usize = 32;

/// The longest name of a service, in bytes of UTF-8, before and after enforcement.
pub const SERVICE_NAME_BYTES_MAX: usize = 4 * SERVICE_NAME_CHARS_MAX;

/// Why a text is not a [`UserName`], a [`RoomName`] or a [`ServiceName`]. It travels, so it is exhaustive and only
/// grows at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum NameError {
    /// There is nothing in it.
    #[error("a name may not be empty")]
    Empty,
    /// It is longer than [`USER_NAME_CHARS_MAX`], [`ROOM_NAME_CHARS_MAX`] or
    /// [`SERVICE_NAME_CHARS_MAX`].
    #[error("a user name may have at most 32 characters, a room name 64")]
    TooLong,
    /// It holds a character that no name may have.
    #[error(
        "a name may not contain spaces, colons, commas, brackets, symbols or hidden characters"
    )]
    Character,
    /// It begins with a sign.
    #[error("a name may not begin with a sign like $ or *")]
    Sign,
    /// It begins with a combining mark.
    #[error("a name may not begin with a combining mark")]
    Mark,
    /// It mixes right-to-left and left-to-right characters.
    #[error("a name may not mix writing directions")]
    Direction,
    /// It is a reserved word, or looks like one.
    #[error("this name is reserved")]
    Reserved,
}

/// Words that only the server itself may go by.
const RESERVED: [&str; 3] = ["server", "system", "admin"];

static RESERVED_SKELETONS: LazyLock<[Skeleton; 3]> = LazyLock::new(|| RESERVED.map(Skeleton::of));

/// An ASCII name with more letters and digits than this looks like none of [`RESERVED`]: its
/// skeleton has at least as many, and the longest of theirs, that of `system`, has seven.
const RESERVED_SKELETON_CHARS_MAX: usize = 7;

/// Signs that PRECIS allows and names may not contain: separators and brackets of the lines that
/// a chat is shown in, as in `[12:00] bob: hi` and `(PRIVATE) (bob) -> (alice): hi`, the two
/// letters that pass for a colon, and the joiners, which have no width.
const FORBIDDEN: [char; 14] = [
    ':', ',', '(', ')', '[', ']', '<', '>', '{', '}', '\u{2d0}', '\u{a4fd}', '\u{200c}', '\u{200d}',
];

/// The enforced form of `text` where it is one that every kind of name may have.
fn check(text: &str, chars_max: usize, bytes_max: usize) -> Result<Arc<str>, NameError> {
    // Before any work that grows with the text.
    if text.len() > bytes_max {
        return Err(NameError::TooLong);
    }
    let name = enforce(text)?;
    if name.chars().count() > chars_max {
        return Err(NameError::TooLong);
    }
    if name.contains(FORBIDDEN) {
        return Err(NameError::Character);
    }
    check_first(name.chars().next().ok_or(NameError::Empty)?)?;
    Ok(name.into())
}

fn check_first(first: char) -> Result<(), NameError> {
    if is_mark(first) {
        return Err(NameError::Mark);
    }
    if !first.is_alphanumeric() && first != '_' {
        return Err(NameError::Sign);
    }
    Ok(())
}

/// Whether `name` reads as one of [`RESERVED`], decorated with signs or marks or not.
fn is_reserved(name: &str) -> bool {
    let letters = name.bytes().filter(u8::is_ascii_alphanumeric).count();
    if name.is_ascii() && letters > RESERVED_SKELETON_CHARS_MAX {
        return false;
    }
    let skeleton = Skeleton::of(name);
    RESERVED_SKELETONS.iter().any(|reserved| skeleton.has_letters_of(reserved))
}

fn check_new_user_name(text: &str) -> Result<Arc<str>, NameError> {
    let name = check_user_name(text)?;
    if is_reserved(&name) { Err(NameError::Reserved) } else { Ok(name) }
}

fn check_user_name(text: &str) -> Result<Arc<str>, NameError> {
    check(text, USER_NAME_CHARS_MAX, USER_NAME_BYTES_MAX)
}

fn check_room_name(text: &str) -> Result<Arc<str>, NameError> {
    check(text, ROOM_NAME_CHARS_MAX, ROOM_NAME_BYTES_MAX)
}

fn check_service_name(text: &str) -> Result<Arc<str>, NameError> {
    check(text, SERVICE_NAME_CHARS_MAX, SERVICE_NAME_BYTES_MAX)
}

/// Why a text that arrives as a checked name is not one.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum DecodeError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("this name is not in its enforced form")]
    Form,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $parse:path, $decode:path, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name in its enforced form.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// A name that is in its enforced form already, as all that travel are.
            fn decode(text: &str) -> Result<Self, DecodeError> {
                let name = $decode(text)?;
                if *name == *text { Ok(Self(name)) } else { Err(DecodeError::Form) }
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            /// Enforces and checks what a person typed.
            ///
            /// # Errors
            /// The rule that `text` breaks.
            fn from_str(text: &str) -> Result<Self, NameError> {
                $parse(text).map(Self)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl core::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, sink: S) -> Result<S::Ok, S::Error> {
                sink.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
                source.deserialize_str(TextVisitor { what: $what, check: Self::decode })
            }
        }
    };
}

name!(
    /// The name of a user: 1 to [`USER_NAME_CHARS_MAX`] characters.
    ///
    /// It is in the enforced form of the PRECIS profile `UsernameCaseMapped` ([RFC 8265], over
    /// the `IdentifierClass` of [RFC 8264] in Unicode 6.3): width and case are folded, so `Alice`
    /// and `ａｌｉｃｅ` are both `alice`. Letters and digits of all scripts are welcome, one writing
    /// direction at a time, and ASCII signs but for `:`, `,` and brackets; the first character is
    /// a letter, a digit or `_`. Spaces, symbols, controls and characters without a width are
    /// not, nor are `server`, `system`, `admin` and what looks like them, signs and marks aside.
    ///
    /// Parsing folds, decoding does not: it refuses a name in any other than its enforced form. It
    /// does not ask again what looks like a reserved word: that answer changes with Unicode, and a
    /// name that was given stays given.
    ///
    /// Input above [`USER_NAME_BYTES_MAX`] bytes is too long whatever it would fold to. A clone
    /// shares the text.
    ///
    /// [RFC 8264]: https://www.rfc-editor.org/rfc/rfc8264
    /// [RFC 8265]: https://www.rfc-editor.org/rfc/rfc8265#section-3.3
    UserName, check_new_user_name, check_user_name, "a user name"
);

impl UserName {
    /// What the name looks like; users whose names have the same one would be mixed up.
    pub fn skeleton(&self) -> Skeleton {
        Skeleton::of(&self.0)
    }
}

name!(
    /// The name of a room: 1 to [`ROOM_NAME_CHARS_MAX`] characters, under the rules of a
    /// [`UserName`] but for reserved words, which it has none of.
    ///
    /// Input above [`ROOM_NAME_BYTES_MAX`] bytes is too long whatever it would fold to. A clone
    /// shares the text.
    RoomName, check_room_name, check_room_name, "a room name"
);

name!(
    /// The name by which a directory knows a chat, whoever serves it: 1 to [`SERVICE_NAME_CHARS_MAX`]
    /// characters, under the rules of a [`RoomName`].
    ///
    /// Input above [`SERVICE_NAME_BYTES_MAX`] bytes is too long whatever it would fold to. A clone
    /// shares the text.
    ServiceName, check_service_name, check_service_name, "the name of a service"
);

impl Default for ServiceName {
    /// `chat`.
    fn default() -> Self {
        Self("chat".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn user(text: &str) -> Result<UserName, NameError> {
        text.parse()
    }

    fn room(text: &str) -> Result<RoomName, NameError> {
        text.parse()
    }

    #[track_caller]
    fn assert_refused(text: &str, why: NameError) {
        assert_eq!(user(text), Err(why), "user {text:?}");
        assert_eq!(room(text), Err(why), "room {text:?}");
        let bytes = postcard::to_allocvec(text).unwrap();
        assert!(postcard::from_bytes::<UserName>(&bytes).is_err(), "postcard {text:?}");
        assert!(postcard::from_bytes::<RoomName>(&bytes).is_err(), "postcard {text:?}");
        assert!(serde_json::from_value::<UserName>(text.into()).is_err(), "JSON {text:?}");
        assert!(serde_json::from_value::<RoomName>(text.into()).is_err(), "JSON {text:?}");
    }

    #[test]
    fn names_of_many_scripts_are_accepted() {
        for name in
            ["alice", "o'brien", "a-b_c.d", "_", "7", "josé", "иван", "李雷", "राम", "יוסף", "ノブ"]
        {
            assert_eq!(user(name).map(|name| name.to_string()).as_deref(), Ok(name));
            assert_eq!(room(name).map(|name| name.to_string()).as_deref(), Ok(name));
        }
    }

    #[test]
    fn j2_spellings_of_one_name_are_one_user_name() {
        assert_eq!(user("Alice"), user("alice"));
        assert_eq!(user("ａｌｉｃｅ"), user("alice"));
        assert_eq!(user("Jose\u{301}"), user("josé"));
    }

    #[test]
    fn empty_name_is_refused() {
        assert_refused("", NameError::Empty);
    }

    #[test]
    fn g7_name_of_33_characters_is_refused() {
        for letter in ["a", "é", "\u{10428}"] {
            assert!(user(&letter.repeat(32)).is_ok(), "{letter}");
            assert_eq!(user(&letter.repeat(33)), Err(NameError::TooLong), "{letter}");
        }
        // Fits in bytes and grows when folded: a small i and a dot above.
        assert_eq!(user(&"İ".repeat(17)), Err(NameError::TooLong));
    }

    #[test]
    fn a13_room_name_of_65_characters_is_refused() {
        for letter in ["a", "é", "\u{10428}"] {
            assert!(room(&letter.repeat(64)).is_ok(), "{letter}");
            assert_eq!(room(&letter.repeat(65)), Err(NameError::TooLong), "{letter}");
        }
    }

    #[test]
    fn a13_name_is_too_long_in_bytes_before_anything_else() {
        assert_eq!(user(&" ".repeat(USER_NAME_BYTES_MAX)), Err(NameError::Character));
        assert_eq!(user(&" ".repeat(USER_NAME_BYTES_MAX + 1)), Err(NameError::TooLong));
        assert_eq!(room(&" ".repeat(ROOM_NAME_BYTES_MAX)), Err(NameError::Character));
        assert_refused(&" ".repeat(ROOM_NAME_BYTES_MAX + 1), NameError::TooLong);
    }

    #[test]
    fn a13_length_that_promises_more_than_the_frame_holds_is_refused() {
        assert!(postcard::from_bytes::<UserName>(&[0xff, 0xff, 0xff, 0xff, 0x0f, b'a']).is_err());
    }

    #[test]
    fn a14_name_of_invalid_utf_8_is_refused_and_never_replaced() {
        assert!(postcard::from_bytes::<UserName>(&[1, 0xff]).is_err());
        assert!(serde_json::from_slice::<UserName>(b"\"\xff\"").is_err());
        assert_refused("bob\u{fffd}", NameError::Character);
    }

    #[test]
    fn space_separator_or_bracket_is_refused() {
        for text in ["a b", " a", "a ", "a\u{a0}b", "a\u{3000}b", "a:b", "a：b", "a\u{a4fd}", "aː"]
        {
            assert_refused(text, NameError::Character);
        }
        for sign in [',', '，', '(', ')', '[', ']', '<', '>', '{', '}', '\u{ff5b}'] {
            assert_refused(&format!("a{sign}b"), NameError::Character);
        }
    }

    #[test]
    fn h1_control_characters_are_refused() {
        for control in ('\0'..='\u{1f}').chain('\u{7f}'..='\u{9f}') {
            assert_refused(&format!("a{control}b"), NameError::Character);
        }
    }

    #[test]
    fn g7_lone_combining_mark_is_refused() {
        for mark in ['\u{301}', '\u{308}', '\u{5b8}', '\u{7a6}', '\u{93e}', '\u{94d}'] {
            assert_refused(&mark.to_string(), NameError::Mark);
            assert_refused(&format!("{mark}a"), NameError::Mark);
        }
        // Halfwidth voiced sound mark, folded to a combining one.
        assert_refused("\u{ff9e}", NameError::Mark);
        assert!(user("a\u{301}").is_ok() && user("q\u{301}").is_ok());
    }

    #[test]
    fn g7_zero_width_and_bidi_characters_are_refused() {
        let hidden = "\u{ad}\u{34f}\u{61c}\u{115f}\u{1160}\u{17b4}\u{180b}\u{180e}\u{200b}\u{200c}\
                      \u{200d}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202b}\u{202c}\u{202d}\
                      \u{202e}\u{2060}\u{2061}\u{2066}\u{2067}\u{2068}\u{2069}\u{206a}\u{2800}\
                      \u{3164}\u{fe0f}\u{feff}\u{ffa0}\u{fff9}\u{e0001}\u{e0061}\u{e0100}";
        for sign in hidden.chars() {
            assert_refused(&format!("a{sign}b"), NameError::Character);
        }
        // The joiners even where PRECIS allows them, after a virama.
        assert_refused("क\u{94d}\u{200d}ष", NameError::Character);
        assert_refused("क\u{94d}\u{200c}ष", NameError::Character);
    }

    #[test]
    fn g7_mixed_directions_are_refused() {
        assert_refused("bobשלום", NameError::Direction);
    }

    #[test]
    fn g8_reserved_words_and_sigils_are_refused() {
        for name in ["server", "System", "ADMIN", "ａｄｍｉｎ"] {
            assert_eq!(user(name), Err(NameError::Reserved), "{name}");
            assert!(room(name).is_ok(), "{name}");
        }
        for sigil in "$*/@#-.!\"%&'+;=?\\^`|~＄＊".chars() {
            assert_refused(&sigil.to_string(), NameError::Sign);
            assert_refused(&format!("{sigil}bob"), NameError::Sign);
        }
        assert_refused("{\"type\":1}", NameError::Character);
        assert_refused("(private)", NameError::Character);
    }

    #[test]
    fn g10_name_that_was_given_is_decoded_whatever_it_looks_like_today() {
        for name in ["server", "ad-min"] {
            assert_eq!(user(name), Err(NameError::Reserved), "{name}");
            let bytes = postcard::to_allocvec(name).unwrap();
            assert_eq!(postcard::from_bytes::<UserName>(&bytes).unwrap().as_str(), name);
        }
    }

    #[test]
    fn g8_look_alike_of_a_reserved_word_is_refused() {
        for name in ["\u{455}erver", "аdmin", "systern", "adrnin", "\u{430}\u{501}min", "ѕуѕtеm"]
        {
            assert_eq!(user(name), Err(NameError::Reserved), "{name}");
        }
    }

    #[test]
    fn g8_reserved_word_with_signs_or_marks_is_refused() {
        for name in ["server!", "_system_", "ad-min", "s.e.r.v.e.r", "sérver", "admin\u{332}"] {
            assert_eq!(user(name), Err(NameError::Reserved), "{name}");
        }
        for name in ["servers", "observer", "admin2", "systematic", "administrator"] {
            assert!(user(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn decoding_a_name_that_is_not_in_enforced_form_is_refused() {
        for text in ["Alice", "ａlice", "jose\u{301}"] {
            assert!(user(text).is_ok());
            let bytes = postcard::to_allocvec(text).unwrap();
            assert!(postcard::from_bytes::<UserName>(&bytes).is_err(), "{text}");
            assert!(postcard::from_bytes::<RoomName>(&bytes).is_err(), "{text}");
            let error = serde_json::from_value::<UserName>(text.into()).unwrap_err();
            assert_eq!(error.to_string(), "this name is not in its enforced form");
        }
    }

    #[test]
    fn name_of_a_service_follows_the_rules_of_a_room_s_and_is_shorter() {
        let service = |text: &str| text.parse::<ServiceName>();
        assert_eq!(service("Chat").unwrap(), ServiceName::default());
        assert!(service(&"x".repeat(SERVICE_NAME_CHARS_MAX)).is_ok());
        let longer = "x".repeat(SERVICE_NAME_CHARS_MAX + 1);
        assert_eq!(service(&longer), Err(NameError::TooLong));
        assert_eq!(service("a service"), Err(NameError::Character));
        let bytes = postcard::to_allocvec("Chat").unwrap();
        assert!(postcard::from_bytes::<ServiceName>(&bytes).is_err());
    }

    #[test]
    fn name_in_json_is_a_string_and_nothing_else() {
        assert_eq!(serde_json::to_string(&user("Bob").unwrap()).unwrap(), "\"bob\"");
        for json in ["7", "null", "[\"bob\"]", "{\"bob\":1}"] {
            assert!(serde_json::from_str::<UserName>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn refusal_has_a_fixed_number_on_the_wire() {
        use NameError::{Character, Direction, Empty, Mark, Reserved, Sign, TooLong};
        let all = [Empty, TooLong, Character, Sign, Mark, Direction, Reserved];
        for (number, error) in (0_u8..).zip(all) {
            assert_eq!(postcard::to_allocvec(&error).unwrap(), [number]);
            let json = serde_json::to_string(&error).unwrap();
            assert_eq!(serde_json::from_str::<NameError>(&json).unwrap(), error);
        }
        assert_eq!(serde_json::to_string(&TooLong).unwrap(), "\"too_long\"");
    }

    #[test]
    fn refusal_names_the_limits_in_force() {
        let text = NameError::TooLong.to_string();
        assert!(text.contains(&USER_NAME_CHARS_MAX.to_string()));
        assert!(text.contains(&ROOM_NAME_CHARS_MAX.to_string()));
    }

    /// Texts near the rules: letters of several scripts, marks, signs, and what is forbidden.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-zA-Z0-9_.'-]{1,34}",
            "[a-zA-Zà-üÀ-Üа-яА-Яα-ωΑ-Ω一-三\u{300}-\u{303}]{1,34}",
            "[א-ת\u{5b0}-\u{5b9}0-9ހ-ޥ\u{7a6}-\u{7b0}]{1,34}",
            "[क-ह\u{93e}-\u{94d}ァ-ヴ！-ﾟ]{1,34}",
            "\\PC{0,34}",
            any::<String>(),
        ]
    }

    /// Reserved words and other ASCII, in pieces and decorated.
    fn ascii() -> impl Strategy<Value = String> {
        let pieces = "server|syst|em|ern|adm|adrn|in|[!-/0-9_a-z|]";
        prop::collection::vec(pieces, 1..9).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn user_name_survives_text_postcard_and_json(text in text()) {
            let Ok(name) = user(&text) else { return Ok(()) };
            prop_assert!((1..=USER_NAME_CHARS_MAX).contains(&name.as_str().chars().count()));
            prop_assert!(name.as_str().len() <= USER_NAME_BYTES_MAX);
            let shown = name.to_string();
            prop_assert_eq!(user(&shown), Ok(name.clone()));
            let bytes = postcard::to_allocvec(&name).unwrap();
            prop_assert_eq!(&postcard::from_bytes::<UserName>(&bytes).unwrap(), &name);
            let json = serde_json::to_string(&name).unwrap();
            prop_assert_eq!(&serde_json::from_str::<UserName>(&json).unwrap(), &name);
            prop_assert_eq!(name.skeleton(), name.clone().skeleton());
        }

        #[test]
        fn room_name_survives_text_postcard_and_json(text in text()) {
            let Ok(name) = room(&text) else { return Ok(()) };
            prop_assert!((1..=ROOM_NAME_CHARS_MAX).contains(&name.as_str().chars().count()));
            let shown = name.to_string();
            prop_assert_eq!(room(&shown), Ok(name.clone()));
            let bytes = postcard::to_allocvec(&name).unwrap();
            prop_assert_eq!(&postcard::from_bytes::<RoomName>(&bytes).unwrap(), &name);
            let json = serde_json::to_string(&name).unwrap();
            prop_assert_eq!(&serde_json::from_str::<RoomName>(&json).unwrap(), &name);
        }

        #[test]
        fn decoding_accepts_exactly_names_that_parse_to_themselves(text in text()) {
            let parsed = user(&text).is_ok_and(|name| name.as_str() == text);
            let bytes = postcard::to_allocvec(&text).unwrap();
            prop_assert_eq!(postcard::from_bytes::<UserName>(&bytes).is_ok(), parsed);
            prop_assert_eq!(serde_json::from_value::<UserName>(text.into()).is_ok(), parsed);
        }

        #[test]
        fn reserved_names_are_those_with_a_reserved_skeleton_however_long(name in ascii()) {
            let in_full = RESERVED_SKELETONS
                .iter()
                .any(|reserved| Skeleton::of(&name).has_letters_of(reserved));
            prop_assert_eq!(is_reserved(&name), in_full);
        }

        #[test]
        fn parsing_a_name_never_panics(text in any::<String>()) {
            let _ = (user(&text), room(&text));
        }
    }
}
