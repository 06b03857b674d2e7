//! What a server lets a hostile peer see of itself.

use std::fmt;
use std::ops::RangeInclusive;

use chatcore::wire::Refusal;

/// How much of a text is shown.
const TEXT_CHARS_MAX: usize = 24;

/// One thing that a peer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// It is told no, and the connection goes on.
    No(Refusal),
    /// It is told to come again later (`E_RATE`, `E_BUSY`), and the connection goes on.
    Later,
    /// The last frame: why the connection ends.
    Close(Refusal),
    /// The server closed the connection.
    End,
    /// The server answers a ping: it bears no grudge.
    Lives,
    /// A status of HTTP.
    Http(u16),
    /// A fatal alert of TLS.
    Alert,
    /// Nothing for longer than anything may take.
    Silence,
}

/// What has to be seen, in order, and how often each.
pub(super) type Expected = Vec<(Sign, RangeInclusive<usize>)>;

/// What was seen, in order, and how often each in a row.
#[derive(Clone, Debug, Default)]
pub(super) struct Signs(Vec<(Sign, usize)>);

impl Signs {
    /// Notes one more.
    pub(super) fn push(&mut self, sign: Sign) {
        match self.0.last_mut() {
            Some((last, count)) if *last == sign => *count += 1,
            Some(_) | None => self.0.push((sign, 1)),
        }
    }

    /// Notes what was seen before all else.
    pub(super) fn put_first(&mut self, sign: Sign) {
        self.0.insert(0, (sign, 1));
    }

    /// Whether this is what was expected.
    pub(super) fn meets(&self, expected: &Expected) -> bool {
        self.0.len() == expected.len()
            && self
                .0
                .iter()
                .zip(expected)
                .all(|((seen, count), (sign, times))| seen == sign && times.contains(count))
    }
}

/// The sign, once.
pub(super) const fn once(sign: Sign) -> (Sign, RangeInclusive<usize>) {
    (sign, 1..=1)
}

/// The sign, any number of times in a row.
pub(super) const fn often(sign: Sign) -> (Sign, RangeInclusive<usize>) {
    (sign, 1..=usize::MAX)
}

impl Sign {
    /// A refusal after which the connection goes on.
    pub(super) const fn no(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Rate { .. } | Refusal::Busy { .. } => Self::Later,
            Refusal::Frame(_)
            | Refusal::Decode(_)
            | Refusal::Version(_)
            | Refusal::Limit(_)
            | Refusal::State(_)
            | Refusal::Auth(_)
            | Refusal::Name(_)
            | Refusal::Perm
            | Refusal::Command
            | Refusal::Target(_)
            | Refusal::Gate { .. }
            | Refusal::Gone
            | Refusal::Store
            | Refusal::Snapshot
            | Refusal::Crypto
            | Refusal::Expelled(_) => Self::No(refusal),
        }
    }
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No(refusal) => write!(f, "{} ({})", refusal.code(), start_of(refusal)),
            Self::Close(refusal) => {
                write!(f, "close {} ({})", refusal.code(), start_of(refusal))
            }
            Self::Later => f.write_str("E_RATE or E_BUSY"),
            Self::End => f.write_str("end"),
            Self::Lives => f.write_str("goes on"),
            Self::Http(status) => write!(f, "HTTP {status}"),
            Self::Alert => f.write_str("TLS alert"),
            Self::Silence => f.write_str("nothing"),
        }
    }
}

/// As much of a refusal as tells it from others: there are two of them in a line.
fn start_of(refusal: &Refusal) -> String {
    let text = refusal.to_string();
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// What was expected, as [`Signs`] are shown.
pub(super) fn shown(expected: &Expected) -> String {
    let each = expected.iter().map(|(sign, times)| match (times.start(), times.end()) {
        (1, 1) => sign.to_string(),
        (least, most) if least == most => format!("{least} x {sign}"),
        _ => format!("n x {sign}"),
    });
    each.collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Signs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = self.0.iter().map(|(sign, count)| match count {
            1 => sign.to_string(),
            count => format!("{count} x {sign}"),
        });
        f.write_str(&each.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chatcore::wire::{FrameFault, LimitFault};

    const FLOOD: Refusal = Refusal::Limit(LimitFault::Flood);

    fn seen(signs: &[Sign]) -> Signs {
        let mut seen = Signs::default();
        signs.iter().for_each(|sign| seen.push(*sign));
        seen
    }

    #[test]
    fn signs_are_what_was_expected_in_order_and_number() {
        let expected = vec![often(Sign::Later), once(Sign::Close(FLOOD)), once(Sign::End)];
        let busy = Sign::no(Refusal::Busy { retry_ms: chatcore::time::Span::from_secs(1) });
        let rate = Sign::no(Refusal::Rate { retry_ms: chatcore::time::Span::from_secs(9) });
        assert!(seen(&[busy, rate, busy, Sign::Close(FLOOD), Sign::End]).meets(&expected));
        assert!(!seen(&[Sign::Close(FLOOD), busy, Sign::End]).meets(&expected));
        assert!(!seen(&[busy, Sign::Close(FLOOD)]).meets(&expected));
        assert!(!seen(&[Sign::End, Sign::End]).meets(&vec![once(Sign::End)]));
    }

    #[test]
    fn signs_are_shown_as_what_was_expected_is() {
        let empty = Sign::no(Refusal::Frame(FrameFault::Empty));
        let text = seen(&[empty, empty, Sign::Http(404), Sign::End]).to_string();
        assert_eq!(text, "2 x E_FRAME (empty frame), HTTP 404, end");
        assert_eq!(shown(&vec![(empty, 2..=2), once(Sign::Http(404)), once(Sign::End)]), text);
    }
}
