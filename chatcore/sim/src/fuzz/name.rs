//! Texts that people and peers write: names, bodies, addresses, identifiers, numbers.

use core::fmt::{Debug, Display};
use core::str::FromStr;

use chatcore::address::Address;
use chatcore::codec::{PREFIX_BYTES, decode, encode_to_bytes};
use chatcore::id::{
    Attach, BootId, ByteCount, COUNTER_MAX, Counter, Digest, Generation, Incarnation, Index,
    KeyHash, LogId, Nonce, PublicKey, RequestId, Seq, SessionId, Signature,
};
use chatcore::text::{
    BODY_BYTES_MAX, Body, BodyError, HostAddress, NameError, ROOM_NAME_CHARS_MAX, RoomName,
    SERVICE_NAME_CHARS_MAX, ServiceName, USER_NAME_CHARS_MAX, Untrusted, UserName,
};
use chatcore::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::text::is_plain;

/// The longest text that is tried: longer ones are too long for everything, and take time.
const TEXT_BYTES_MAX: usize = 2 * BODY_BYTES_MAX;

/// Reads one input as each kind of text, and its first bytes as a number.
///
/// # Panics
/// When a text that is accepted breaks a rule of its kind, or does not survive being printed, sent
/// or read once more.
pub fn check(input: &[u8]) {
    check_numbers(input);
    let Ok(text) = core::str::from_utf8(input) else { return };
    if text.len() > TEXT_BYTES_MAX {
        return;
    }
    check_user_name(text);
    check_room_name(text);
    check_service_name(text);
    check_body(text);
    check_address(text);
    check_host_address(text);
    check_id::<BootId>(text);
    check_id::<KeyHash>(text);
    check_id::<LogId>(text);
    check_id::<SessionId>(text);
    check_id::<Digest>(text);
    check_id::<Nonce>(text);
    check_id::<PublicKey>(text);
    check_id::<Signature>(text);
}

fn check_host_address(text: &str) {
    let parsed = text.parse::<HostAddress>().ok();
    assert_eq!(travels_as::<HostAddress>(text), parsed, "an address travels as it is written");
    let Some(address) = parsed else { return };
    assert_eq!(address.as_str(), text, "an address stays as it is written");
    assert!(text.chars().all(|letter| !letter.is_control()), "an address can be shown");
}

fn check_user_name(text: &str) {
    let parsed = text.parse::<UserName>();
    assert_eq!(Untrusted::<UserName>::new(text).parse(), parsed, "a peer's text is any text");
    let travels = travels_as::<UserName>(text);
    if let Some(name) = &travels {
        // What looks like a reserved word changes with Unicode: a name that was given stays given.
        let same = parsed.as_ref() == Ok(name) || parsed == Err(NameError::Reserved);
        assert!(same, "{name} travels and is another name when typed");
    }
    let Ok(name) = parsed else { return };
    check_name(&name, USER_NAME_CHARS_MAX);
    let again: UserName = name.as_str().parse().expect("an enforced name must be a name");
    assert_eq!(again.skeleton(), name.skeleton(), "a name must have one look");
    assert_eq!(travels.is_some(), name.as_str() == text, "names travel in their enforced form");
}

fn check_room_name(text: &str) {
    let parsed = text.parse::<RoomName>();
    assert_eq!(Untrusted::<RoomName>::new(text).parse(), parsed, "a peer's text is any text");
    let enforced = parsed.as_ref().is_ok_and(|name| name.as_str() == text);
    let travels = travels_as::<RoomName>(text);
    assert_eq!(travels.is_some(), enforced, "names travel in their enforced form");
    if let Ok(name) = parsed {
        check_name(&name, ROOM_NAME_CHARS_MAX);
    }
}

fn check_service_name(text: &str) {
    let parsed = text.parse::<ServiceName>();
    let enforced = parsed.as_ref().is_ok_and(|name| name.as_str() == text);
    let travels = travels_as::<ServiceName>(text);
    assert_eq!(travels.is_some(), enforced, "names travel in their enforced form");
    if let Ok(name) = parsed {
        check_name(&name, SERVICE_NAME_CHARS_MAX);
    }
}

/// What every name keeps.
fn check_name<N>(name: &N, chars_max: usize)
where
    N: FromStr<Err = NameError> + AsRef<str> + Display + Debug + PartialEq + Serialize,
    N: DeserializeOwned,
{
    let text = name.as_ref();
    assert_eq!(text.parse::<N>().as_ref(), Ok(name), "a name must be its own enforced form");
    assert_eq!(name.to_string(), text, "a name must be shown as it is");
    assert!((1..=chars_max).contains(&text.chars().count()), "a name must keep its bounds");
    assert!(is_plain(text), "a name must hide nothing: {text:?}");
    let unfit = |sign: char| sign.is_whitespace() || ":,()[]<>{}".contains(sign);
    assert!(!text.contains(unfit), "a name must not break the line it is shown in: {text:?}");
    let begins_well = text.starts_with(|sign: char| sign.is_alphanumeric() || sign == '_');
    assert!(begins_well, "a name must begin with a letter, a digit or `_`: {text:?}");
    assert_eq!(travels_as::<N>(text).as_ref(), Some(name), "a name must travel");
}

fn check_body(text: &str) {
    let parsed = text.parse::<Body>();
    assert_eq!(Untrusted::<Body>::new(text).parse(), parsed, "a peer's text is any text");
    match &parsed {
        Ok(body) => {
            assert_eq!(body.as_str(), text, "a body must be kept as it was written");
            assert!((1..=BODY_BYTES_MAX).contains(&text.len()), "a body must keep its bounds");
        }
        Err(BodyError::TooLong) => assert!(text.len() > BODY_BYTES_MAX, "a body was short enough"),
        Err(BodyError::Empty) => assert_eq!(text.trim(), "", "a body was not empty"),
    }
    assert_eq!(travels_as::<Body>(text), parsed.ok(), "a body must travel if it is one");
}

fn check_address(text: &str) {
    let Ok(address) = text.parse::<Address>() else { return };
    let printed = address.to_string();
    assert_eq!(printed.parse().as_ref(), Ok(&address), "{printed} must be the same address");
}

fn check_id<I>(text: &str)
where
    I: FromStr + Display + Debug + PartialEq + Serialize + DeserializeOwned,
    I::Err: Debug + Display + PartialEq,
{
    let parsed = text.parse::<I>();
    let json = serde_json::to_string(text).expect("a text must have a JSON form");
    let read = serde_json::from_str::<I>(&json);
    match &parsed {
        Ok(id) => {
            assert_eq!(id.to_string(), text, "an identifier must have one text");
            assert_eq!(read.as_ref().ok(), Some(id), "JSON must hold the same text");
            assert_eq!(&sent(id), id, "an identifier must travel");
        }
        Err(error) => {
            assert!(read.is_err(), "JSON must hold the same text");
            assert!(is_plain(&error.to_string()), "an error must not repeat the text: {error}");
        }
    }
}

/// Counters are refused above the largest number that every JSON reader keeps exact.
fn check_numbers(input: &[u8]) {
    let Some(bytes) = input.first_chunk::<8>() else { return };
    let value = u64::from_be_bytes(*bytes);
    check_number::<ByteCount>(value);
    check_number::<Index>(value);
    check_number::<Seq>(value);
    check_number::<Counter>(value);
    check_number::<Incarnation>(value);
    check_number::<Generation>(value);
    check_number::<RequestId>(value);
    check_number::<Attach>(value);
    check_number::<Timestamp>(value);
}

fn check_number<N>(value: u64)
where
    N: TryFrom<u64> + DeserializeOwned + PartialEq + Debug,
{
    let number = N::try_from(value).ok();
    assert_eq!(number.is_some(), value <= COUNTER_MAX, "a counter must keep its bound");
    let json = serde_json::from_str::<N>(&value.to_string()).ok();
    assert_eq!(json, number, "JSON must hold the same numbers");
}

/// What a text is taken for when it arrives where a `T` belongs: the same in both formats.
fn travels_as<T: DeserializeOwned + Serialize + PartialEq + Debug>(text: &str) -> Option<T> {
    let frame = encode_to_bytes(&text);
    let binary = decode::<T>(frame.get(PREFIX_BYTES..).unwrap_or_default()).ok();
    let json = serde_json::to_string(text).expect("a text must have a JSON form");
    assert_eq!(serde_json::from_str::<T>(&json).ok(), binary, "both formats must agree");
    binary
}

fn sent<T: DeserializeOwned + Serialize>(value: &T) -> T {
    let frame = encode_to_bytes(value);
    let payload = frame.get(PREFIX_BYTES..).unwrap_or_default();
    decode(payload).expect("what is sent must arrive")
}
