//! The least that being safe costs on this machine: appending to a file and syncing it.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// Appends groups of so many bytes, each synced before the next, until the time is up; how many
/// groups a second that were.
pub(crate) fn groups_a_second(
    folder: &Path,
    group_bytes: usize,
    time: Duration,
) -> Result<f64, Failure> {
    let mut file = tempfile::tempfile_in(folder)?;
    let group = vec![b'x'; group_bytes];
    append(&mut file, &group)?;
    let (begun, mut groups) = (Instant::now(), 0_u32);
    while begun.elapsed() < time {
        append(&mut file, &group)?;
        groups = groups.saturating_add(1);
    }
    Ok(f64::from(groups) / begun.elapsed().as_secs_f64())
}

fn append(file: &mut File, group: &[u8]) -> Result<(), Failure> {
    file.write_all(group)?;
    Ok(file.sync_data()?)
}
