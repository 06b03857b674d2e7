//! How many files the process may open, and what that allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are no places for connections: listeners, the store, logs, the runtime, a
/// reserve, and who is being turned away.
const OTHERS: u64 = 128;

/// The fewest connections that are worth starting for.
const CONNECTIONS_MIN: u64 = 16;

/// The system allows too few open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "only {allowed} open files are allowed, at least {} are needed: raise the limit (ulimit -n)",
    OTHERS + CONNECTIONS_MIN
)]
pub struct TooFewDescriptors {
    /// The limit.
    pub allowed: u64,
}

/// Raises the limit of open files as far as it goes and says how many connections fit, at most
/// `wanted`.
pub(crate) fn raise(wanted: u32) -> Result<u32, TooFewDescriptors> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Refused where a sandbox forbids it: then what there is has to do.
    let _ = setrlimit(Resource::Nofile, raised);
    // `None` means that there is no limit.
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    connections(allowed, wanted)
}

fn connections(allowed: u64, wanted: u32) -> Result<u32, TooFewDescriptors> {
    let left = allowed.saturating_sub(OTHERS);
    if left < CONNECTIONS_MIN {
        return Err(TooFewDescriptors { allowed });
    }
    Ok(u32::try_from(left).unwrap_or(u32::MAX).min(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_into_the_open_file_limit() {
        assert_eq!(connections(u64::MAX, 10_000), Ok(10_000));
        assert_eq!(connections(1_024, 10_000), Ok(896));
        assert_eq!(connections(64, 10_000), Err(TooFewDescriptors { allowed: 64 }));
    }
}
