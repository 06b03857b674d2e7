//! How many connections come from where: a bound for each address, so that one of them cannot take all
//! places. An IPv6 address counts as its network of 64 bits, as whoever has one has all of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Neighbourhoods that are remembered; beyond, who is not known is refused. Each is remembered while it
/// has connections open or made many just now.
const NEIGHBOURHOODS_MAX: usize = 1 << 16;

/// What one address, or one IPv6 network of 64 bits, may do. Beyond, connections are closed at once and
/// without a word, before they cost anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressLimits {
    /// Connections open at once. Default 512.
    pub open_max: u32,
    /// New connections a second, in the long run; 0 means no bound. Default 64.
    pub new_per_second: u32,
    /// New connections at once. Default 512.
    pub new_burst: u32,
    /// Whether it holds for this machine's own addresses, too. Default: it does not.
    pub holds_for_loopback: bool,
}

impl Default for AddressLimits {
    fn default() -> Self {
        Self { open_max: 512, new_per_second: 64, new_burst: 512, holds_for_loopback: false }
    }
}

/// Where connections come from.
#[derive(Debug)]
pub(crate) struct Addresses {
    limits: AddressLimits,
    known: Mutex<BTreeMap<Neighbourhood, Visitor>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Neighbourhood {
    V4([u8; 4]),
    V6([u8; 8]),
}

/// What one of them has done.
#[derive(Debug)]
struct Visitor {
    open: u32,
    /// When it has made no more connections than it may in the long run (GCRA's theoretical arrival
    /// time).
    level_at: Instant,
}

/// A connection that counts, until it is dropped.
#[derive(Debug)]
pub(crate) struct Visit {
    addresses: Arc<Addresses>,
    from: Neighbourhood,
}

/// There are too many from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Addresses {
    pub(crate) fn new(limits: AddressLimits) -> Self {
        Self { limits, known: Mutex::default() }
    }

    /// Counts a new connection; `None` when it does not count.
    pub(crate) fn visit(
        self: &Arc<Self>,
        ip: IpAddr,
        now: Instant,
    ) -> Result<Option<Visit>, TooMany> {
        let ip = ip.to_canonical();
        if ip.is_loopback() && !self.limits.holds_for_loopback {
            return Ok(None);
        }
        let from = Neighbourhood::of(ip);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= NEIGHBOURHOODS_MAX && !known.contains_key(&from) {
            known.retain(|_, visitor| visitor.open > 0 || visitor.level_at > now);
            if known.len() >= NEIGHBOURHOODS_MAX {
                return Err(TooMany);
            }
        }
        let visitor = known.entry(from).or_insert(Visitor { open: 0, level_at: now });
        visitor.admit(&self.limits, now)?;
        Ok(Some(Visit { addresses: Arc::clone(self), from }))
    }
}

impl Visitor {
    fn admit(&mut self, limits: &AddressLimits, now: Instant) -> Result<(), TooMany> {
        if self.open >= limits.open_max {
            return Err(TooMany);
        }
        if let Some(interval) = Duration::from_secs(1).checked_div(limits.new_per_second) {
            let level_at = self.level_at.max(now) + interval;
            if level_at > now + interval * limits.new_burst {
                return Err(TooMany);
            }
            self.level_at = level_at;
        }
        self.open = self.open.saturating_add(1);
        Ok(())
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut known = self.addresses.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(visitor) = known.get_mut(&self.from) {
            visitor.open = visitor.open.saturating_sub(1);
        }
    }
}

impl Neighbourhood {
    fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::V4(ip.octets()),
            IpAddr::V6(ip) => {
                let network = ip.octets().first_chunk().copied();
                Self::V6(network.expect("an address has sixteen bytes"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(open_max: u32, new_per_second: u32, new_burst: u32) -> Arc<Addresses> {
        let limits =
            AddressLimits { open_max, new_per_second, new_burst, ..AddressLimits::default() };
        Arc::new(Addresses::new(limits))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn c5_open_connections_of_one_address_are_bounded_and_others_are_not_disturbed() {
        let (addresses, now) = (addresses(2, 0, 0), Instant::now());
        let first = addresses.visit(ip("192.0.2.1"), now).unwrap();
        let _second = addresses.visit(ip("192.0.2.1"), now).unwrap();
        assert!(matches!(addresses.visit(ip("192.0.2.1"), now), Err(TooMany)));
        assert!(matches!(addresses.visit(ip("::ffff:192.0.2.1"), now), Err(TooMany)), "the same");
        assert!(addresses.visit(ip("192.0.2.2"), now).is_ok());
        drop(first);
        assert!(addresses.visit(ip("192.0.2.1"), now).is_ok());
    }

    #[test]
    fn c5_network_of_64_bits_counts_as_one_address() {
        let (addresses, now) = (addresses(1, 0, 0), Instant::now());
        let _open = addresses.visit(ip("2001:db8::1"), now).unwrap();
        assert!(matches!(addresses.visit(ip("2001:db8::ffff:2"), now), Err(TooMany)));
        assert!(addresses.visit(ip("2001:db8:0:1::1"), now).is_ok());
    }

    #[test]
    fn c5_new_connections_a_second_are_bounded_after_a_burst() {
        let (addresses, now) = (addresses(1_000, 10, 5), Instant::now());
        let count = |now: Instant| {
            (0..20).filter(|_| addresses.visit(ip("192.0.2.1"), now).is_ok()).count()
        };
        assert_eq!(count(now), 5);
        assert_eq!(count(now + Duration::from_millis(300)), 3);
        assert_eq!(count(now + Duration::from_mins(1)), 5, "what was not used is not saved up");
    }

    #[test]
    fn c5_this_machine_is_exempt_unless_it_is_not_to_be() {
        let now = Instant::now();
        let exempt = addresses(0, 0, 0);
        assert!(matches!(exempt.visit(ip("127.0.0.9"), now), Ok(None)));
        assert!(matches!(exempt.visit(ip("::1"), now), Ok(None)));
        let limits =
            AddressLimits { open_max: 0, holds_for_loopback: true, ..AddressLimits::default() };
        let strict = Arc::new(Addresses::new(limits));
        assert!(matches!(strict.visit(ip("127.0.0.9"), now), Err(TooMany)));
    }

    #[test]
    fn c5_addresses_that_have_gone_are_forgotten_when_there_are_many() {
        let (addresses, now) = (addresses(1, 1, 1), Instant::now());
        let many = u32::try_from(NEIGHBOURHOODS_MAX).unwrap();
        for number in 0..many {
            drop(addresses.visit(std::net::Ipv4Addr::from(0x0A00_0000 + number).into(), now));
        }
        assert!(matches!(addresses.visit(ip("192.0.2.1"), now), Err(TooMany)));
        assert!(addresses.visit(ip("192.0.2.1"), now + Duration::from_secs(2)).is_ok());
        assert_eq!(addresses.known.lock().unwrap().len(), 1);
    }
}
