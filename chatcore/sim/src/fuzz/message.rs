//! Single messages: the body of a frame, read as one of a client or of a server.

use core::fmt::Debug;

use chatcore::codec::{PREFIX_BYTES, decode, encode_to_bytes};
use chatcore::id::{Generation, PublicKey};
use chatcore::migration::directory::{DirectoryReply, DirectoryRequest, Registers, Verdict};
use chatcore::wire::{
    Answer, ClientFrame, Command, DecodeFault, FRAME_BYTES_MAX, Question, Refusal, ServerFrame,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::text::is_plain;

/// The longest text of a refusal.
const REFUSAL_CHARS_MAX: usize = 100;

/// Reads the body of one frame as a message of a client.
///
/// # Panics
/// When it has another encoding too, does not survive JSON, shows text of the peer in a log, or is
/// refused with a text of the peer's.
pub fn check_client(frame: &[u8]) {
    let Some(message) = check_whole::<ClientFrame>(frame) else { return };
    // A log may show a message; what the peer wrote in it has no place there.
    let shown = format!("{message:?}");
    assert!(is_plain(&shown) && shown.is_ascii(), "a log shows text of a peer: {shown}");
    for refusal in refusals_of_texts(&message) {
        check_refusal(refusal);
    }
}

/// Reads the body of one frame as a message of a server.
///
/// # Panics
/// When it has another encoding too, does not survive JSON, or tells a client something that is no
/// fixed text.
pub fn check_server(frame: &[u8]) {
    let Some(message) = check_whole::<ServerFrame>(frame) else { return };
    if let ServerFrame::Refused { refusal, .. }
    | ServerFrame::Rejected(refusal)
    | ServerFrame::Close(refusal)
    | ServerFrame::Answer { answer: Answer::Refused(refusal), .. } = message
    {
        check_refusal(refusal);
    }
}

/// Reads the body of one frame as a request to a directory.
///
/// # Panics
/// When it has another encoding too, or does not survive JSON; or when two claims are signed by the same
/// bytes.
pub fn check_node(frame: &[u8]) {
    let Some(DirectoryRequest::Propose(signed)) = check_whole::<DirectoryRequest>(frame) else {
        return;
    };
    let directory = PublicKey::new([0; PublicKey::LEN]);
    let mut other = signed.claim.clone();
    other.standby = other.standby.is_none().then(|| other.owner.clone());
    assert_ne!(signed.claim.to_bytes(&directory), other.to_bytes(&directory));
    let proven = signed.clone().prove(&directory, |key, message, _| {
        *key == signed.claim.owner.node.key && message == signed.claim.to_bytes(&directory)
    });
    let claim = proven.expect("a claim is proven by its owner's key");
    let verdict = Registers::default().judge(&claim);
    if let Verdict::Apply(registration) = verdict {
        assert_eq!(registration.generation, Generation::ZERO.next(), "it is founded");
    }
}

/// Reads the body of one frame as a reply of a directory.
///
/// # Panics
/// When it has another encoding too, does not survive JSON, or tells something that is no fixed text.
pub fn check_directory(frame: &[u8]) {
    match check_whole::<DirectoryReply>(frame) {
        Some(DirectoryReply::Refused(refusal) | DirectoryReply::Close(refusal)) => {
            check_refusal(refusal);
        }
        Some(DirectoryReply::Denied(fault)) => assert!(is_plain(&fault.to_string())),
        Some(
            DirectoryReply::Registered(signed)
            | DirectoryReply::Applied(signed)
            | DirectoryReply::Conflict(signed),
        ) => {
            let directory = PublicKey::new([0; PublicKey::LEN]);
            let is_of = signed.is_of(&directory, |key, message, signature| {
                *key == directory
                    && message == signed.registration.to_bytes(key)
                    && *signature == signed.signature
            });
            assert!(is_of, "what is checked is what the directory signs");
        }
        Some(DirectoryReply::Unregistered) | None => {}
    }
}

/// A message has one encoding, and it is prefix-free: neither less nor more is a message, too.
fn check_whole<T>(frame: &[u8]) -> Option<T>
where
    T: DeserializeOwned + Serialize + Debug + PartialEq,
{
    if frame.len() > FRAME_BYTES_MAX {
        return None;
    }
    let message = match check_message::<T>(frame) {
        Ok(message) => message,
        Err(fault) => {
            check_refusal(Refusal::Decode(fault));
            return None;
        }
    };
    if let Some((_, shorter)) = frame.split_last() {
        assert!(decode::<T>(shorter).is_err(), "a message must not begin with another message");
    }
    let longer = [frame, &[0]].concat();
    assert_eq!(decode::<T>(&longer), Err(DecodeFault::TrailingBytes), "nothing may follow it");
    Some(message)
}

/// What decodes is canonical and survives JSON.
pub(super) fn check_message<T>(frame: &[u8]) -> Result<T, DecodeFault>
where
    T: DeserializeOwned + Serialize + Debug + PartialEq,
{
    let message = decode::<T>(frame)?;
    let again = encode_to_bytes(&message);
    assert_eq!(again.get(PREFIX_BYTES..), Some(frame), "a message must have one encoding");
    let json = serde_json::to_string(&message).expect("a message must have a JSON form");
    let back: T = serde_json::from_str(&json).expect("the JSON form of a message must be one");
    assert_eq!(back, message, "a message must survive JSON");
    Ok(message)
}

/// A refusal is told by a fixed text and survives the way to the peer.
fn check_refusal(refusal: Refusal) {
    let text = refusal.to_string();
    let plain = text.is_ascii() && is_plain(&text) && text.len() <= REFUSAL_CHARS_MAX;
    assert!(plain, "a refusal must be told by a short fixed text: {text:?}");
    let close = ServerFrame::Close(refusal);
    let bytes = encode_to_bytes(&close);
    let payload = bytes.get(PREFIX_BYTES..).unwrap_or_default();
    assert_eq!(decode(payload), Ok(close), "every refusal must reach its peer");
}

/// Why the texts in a message are refused, where they are.
fn refusals_of_texts(message: &ClientFrame) -> Vec<Refusal> {
    let (room, user, body) = match message {
        ClientFrame::Login(login) => (None, Some(&login.name), None),
        ClientFrame::Submit { command: Command::Post { room, body, .. }, .. } => {
            (Some(room), None, Some(body))
        }
        ClientFrame::Submit { command: Command::Reset { room, .. }, .. } => {
            (Some(room), None, None)
        }
        ClientFrame::Submit { command: Command::Moderate { user, .. }, .. } => {
            (None, Some(user), None)
        }
        ClientFrame::Ask { question, .. } => match question {
            Question::Join { room, .. }
            | Question::Part { room }
            | Question::Who { room }
            | Question::History { room, .. } => (Some(room), None, None),
            Question::Whois { room, user } => (Some(room), Some(user), None),
            Question::Rooms => (None, None, None),
        },
        ClientFrame::Hello(_)
        | ClientFrame::Ping { .. }
        | ClientFrame::Pong { .. }
        | ClientFrame::Leave
        | ClientFrame::Operate(_)
        | ClientFrame::Prove { .. } => (None, None, None),
    };
    let room = room.and_then(|room| room.parse().err()).map(Refusal::from);
    let user = user.and_then(|user| user.parse().err()).map(Refusal::from);
    let body = body.and_then(|body| body.parse().err()).map(Refusal::from);
    [room, user, body].into_iter().flatten().collect()
}
