//! Bounds by name: `--limit NAME=VALUE`, and the table `[limits]` of a configuration file.

use std::str::FromStr;

use chatcore::limits::Limits;
use chatcore::time::Span;

use crate::addresses::AddressLimits;

/// All bounds of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) limits: Limits,
    pub(super) addresses: AddressLimits,
}

/// What `--help` says of them.
pub(super) fn help() -> String {
    format!(
        "A bound of the server, as connections-max=20000, login-time=5s or unread-bytes-max=128KiB. May \
         be repeated. What each means, and its default, is in the documentation of \
         chatcore::limits::Limits and chat_server::AddressLimits: {}",
        NAMES.join(", ")
    )
}

/// A bound that was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    name: &'static str,
    value: String,
}

/// A value of one kind, as people write it.
trait Value: Sized {
    /// What is expected, for who wrote something else.
    const FORM: &'static str;

    fn read(text: &str) -> Option<Self>;
}

impl Value for u32 {
    const FORM: &'static str = "a number";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Value for u64 {
    const FORM: &'static str = "a number of bytes, as 65536, 64KiB, 2MiB or 1GiB";

    fn read(text: &str) -> Option<Self> {
        scaled(text, &[("", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)])
    }
}

impl Value for usize {
    const FORM: &'static str = u64::FORM;

    fn read(text: &str) -> Option<Self> {
        u64::read(text)?.try_into().ok()
    }
}

impl Value for Span {
    const FORM: &'static str = "a time with its unit, as 20ms, 30s, 5m, 24h or 7d";

    fn read(text: &str) -> Option<Self> {
        let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
        scaled(text, &units).map(Self::from_millis)
    }
}

impl Value for bool {
    const FORM: &'static str = "true or false";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (_, each) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*each)
}

fn read<T: Value>(text: &str) -> Result<T, &'static str> {
    T::read(text).ok_or(T::FORM)
}

macro_rules! bounds {
    ($($part:ident: $type:ident { $($name:literal $field:ident,)* })*) => {
        /// Every name.
        pub(super) const NAMES: &[&str] = &[$($($name,)*)*];

        impl Bounds {
            /// Sets one bound; what was expected when it is not that.
            fn set(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
                // A bound without a name here does not compile.
                $(let $type { $($field: _,)* } = &self.$part;)*
                match name {
                    $($($name => self.$part.$field = read(value)?,)*)*
                    _ => unreachable!("settings have names of this table"),
                }
                Ok(())
            }
        }
    };
}

bounds! {
    limits: Limits {
        "connections-max" connections_max,
        "greeting-percent" greeting_percent,
        "memory-max" memory_max,
        "login-time" login_time,
        "ping-interval" ping_interval,
        "pings-unanswered-max" pings_unanswered_max,
        "grace" grace,
        "users-max" users_max,
        "bans-max" bans_max,
        "sessions-max" sessions_max,
        "sessions-per-user-max" sessions_per_user_max,
        "session-age-min" session_age_min,
        "rooms-max" rooms_max,
        "rooms-per-user-max" rooms_per_user_max,
        "held-records-max" held_records_max,
        "held-bytes-max" held_bytes_max,
        "held-bytes-total-max" held_bytes_total_max,
        "window-bytes" window_bytes,
        "page-bytes" page_bytes,
        "crowd-members" crowd_members,
        "crowd-notice-interval" crowd_notice_interval,
        "frames-per-second" frames_per_second,
        "frames-burst" frames_burst,
        "bytes-per-second" bytes_per_second,
        "bytes-burst" bytes_burst,
        "logins-per-second" logins_per_second,
        "logins-burst" logins_burst,
        "returns-per-second" returns_per_second,
        "returns-burst" returns_burst,
        "question-burst" question_burst,
        "question-interval" question_interval,
        "waiting-per-connection-max" waiting_per_connection_max,
        "waiting-max" waiting_max,
        "reset-burst" reset_burst,
        "reset-interval" reset_interval,
        "unread-bytes-max" unread_bytes_max,
        "stall-time" stall_time,
        "parked-max" parked_max,
        "parked-time" parked_time,
        "parked-frames-max" parked_frames_max,
        "parked-bytes-max" parked_bytes_max,
        "moved-time" moved_time,
    }
    addresses: AddressLimits {
        "address-open-max" open_max,
        "address-new-per-second" new_per_second,
        "address-new-burst" new_burst,
        "address-holds-for-loopback" holds_for_loopback,
    }
}

impl Bounds {
    /// Sets bounds, the last word on each being the one that counts.
    pub(super) fn apply(&mut self, settings: &[Setting]) {
        for Setting { name, value } in settings {
            self.set(name, value).expect("a setting was read before");
        }
    }
}

impl Setting {
    pub(super) const fn name(&self) -> &'static str {
        self.name
    }
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (wanted, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
        let name = NAMES.iter().find(|name| **name == wanted).ok_or_else(|| unknown(wanted))?;
        let checked = Bounds::default().set(name, value);
        checked.map_err(|form| format!("{name} must be {form}"))?;
        Ok(Self { name, value: value.to_owned() })
    }
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

fn unknown(wanted: &str) -> String {
    match nearest(wanted, NAMES.iter().copied()) {
        Some(name) => format!("there is no limit {wanted}; do you mean {name}?"),
        None => format!("there is no limit {wanted}; the limits are {}", NAMES.join(", ")),
    }
}

/// The name that was probably meant, if any is alike.
fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let rated = names.map(|name| (strsim::jaro_winkler(wanted, name), name));
    let best = rated.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (best.0 > 0.8).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(settings: &[&str]) -> Bounds {
        let settings: Vec<Setting> = settings.iter().map(|text| text.parse().unwrap()).collect();
        let mut bounds = Bounds::default();
        bounds.apply(&settings);
        bounds
    }

    #[test]
    fn every_bound_is_written_as_people_write_it() {
        let bounds = with(&[
            "connections-max=20000",
            "held-bytes-max=2MiB",
            "unread-bytes-max=128KiB",
            "question-interval=5ms",
            "session-age-min=7d",
            "address-holds-for-loopback=true",
        ]);
        let limits = &bounds.limits;
        assert_eq!(limits.connections_max, 20_000);
        assert_eq!((limits.held_bytes_max, limits.unread_bytes_max), (2 << 20, 128 << 10));
        assert_eq!(limits.question_interval, Span::from_millis(5));
        assert_eq!(limits.session_age_min, Span::from_secs(7 * 24 * 60 * 60));
        assert!(bounds.addresses.holds_for_loopback);
        assert_eq!(with(&["grace=1s", "grace=2s"]).limits.grace, Span::from_secs(2));
    }

    #[test]
    fn what_is_no_bound_says_what_would_be_one() {
        let error = |text: &str| text.parse::<Setting>().unwrap_err();
        assert!(error("conections-max=1").contains("do you mean connections-max?"));
        assert!(error("zzz=1").contains("the limits are connections-max, "));
        assert_eq!(error("grace"), "write NAME=VALUE");
        assert!(error("grace=30").starts_with("grace must be a time with its unit"));
        assert!(error("window-bytes=2MB").contains("2MiB"));
        assert_eq!(error("rooms-max=-1"), "rooms-max must be a number");
        assert!(error("held-bytes-max=99999999999GiB").contains("a number of bytes"));
    }
}
