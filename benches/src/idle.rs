//! What a connection costs that only listens: resident memory of the server, over the connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::child::{Child, Transport};
use crate::crowd::Speaks;
use crate::failure::Failure;
use crate::login::Guest;

/// What is measured.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) connections: u32,
    pub(crate) transports: Vec<Transport>,
}

/// Connections that come before the first look, so that what a server needs once is not counted.
const FIRST: u32 = 100;

/// Files that are open beside the connections, in this process or in the server.
const OTHER_DESCRIPTORS: u64 = 256;

/// Measures and prints a table.
pub(crate) fn run(plan: &Plan) -> Result<(), Failure> {
    raise_descriptors()?;
    println!("connections that have logged in, joined one room and say nothing\n");
    println!("transport  connections  server MB  bytes a connection");
    for transport in &plan.transports {
        let server = Child::start(Speaks::Chat, *transport, 1)?;
        let mut guests = Vec::new();
        gather(&server, FIRST, &mut guests)?;
        let before = server.resident_bytes()?;
        gather(&server, plan.connections, &mut guests)?;
        let after = server.resident_bytes()?;
        let each = after.saturating_sub(before).checked_div(plan.connections.into());
        println!(
            "{:<9} {:>12} {:>10.1} {:>19}",
            transport.name(),
            guests.len(),
            megabytes(after),
            each.unwrap_or_default(),
        );
        drop(guests);
        server.stop()?;
    }
    Ok(())
}

/// Each guest is a descriptor of this process, too.
pub(crate) fn raise_descriptors() -> Result<(), Failure> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// As [`raise_descriptors`], and fails when that is not enough for so many connections. A server that this
/// process starts is allowed as many as this one.
pub(crate) fn raise_descriptors_to(connections: usize) -> Result<(), Failure> {
    raise_descriptors()?;
    let needed = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHER_DESCRIPTORS);
    let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    if needed > allowed { Err(Failure::Descriptors { needed, allowed }) } else { Ok(()) }
}

fn gather(server: &Child, count: u32, guests: &mut Vec<Guest>) -> Result<(), Failure> {
    for _ in 0..count {
        let name = format!("guest-{}", guests.len());
        guests.push(Guest::join(server.address(), &name)?);
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "it is rounded to a tenth anyway")]
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
