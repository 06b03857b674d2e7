//! A server that is killed and started again, and everybody who was connected to it: how soon they are
//! back, and what that costs the server.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use chatcore::limits::Limits;

use crate::child::Child;
use crate::conversation::{Conversation, Outcome, Pace, Resident};
use crate::failure::Failure;
use crate::idle::{megabytes, raise_descriptors_to};
use crate::socket::socket_address;
use crate::town::{News, Town};

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) clients: usize,
    /// How many of them are in a room.
    pub(crate) in_a_room: usize,
    /// How many of them talk before and after.
    pub(crate) talking: usize,
    pub(crate) pace: Pace,
    /// How long they talk.
    pub(crate) time: Duration,
    /// How long it may take until all are back.
    pub(crate) aim: Duration,
    /// A folder on the disk that is to be measured.
    pub(crate) folder: PathBuf,
}

/// When what happened, since the server was killed.
#[derive(Debug, Default)]
struct Return {
    log_ins: Vec<Duration>,
    /// Who was in their rooms again.
    back: Vec<Duration>,
    busy: u64,
    /// Connections that led to no room.
    missed: u64,
    /// Connections that broke.
    lost: usize,
}

/// Measures and prints; whether all came back in time.
pub(crate) fn run(plan: &Plan) -> Result<bool, Failure> {
    raise_descriptors_to(plan.clients)?;
    let folder = tempfile::tempdir_in(&plan.folder)?;
    let server = Child::with_default_limits(folder.path(), &["chat://127.0.0.1:0"])?;
    let address = server.listening()?.1;
    let mut town = Town::new(socket_address(&address)?)?;
    let people = people(plan);
    introduce(plan);
    let names: Vec<_> =
        people.iter().map(|it| (it.name.clone(), format!("room{}", it.room))).collect();
    let begun = Instant::now();
    town.settle_all(&names, &Limits::default(), &mut |_, _| Ok(()))?;
    println!("all were there for the first time after {:.1} s\n", begun.elapsed().as_secs_f64());
    let before = talk(plan, &people, &mut town)?;
    let (killed, resident) = (Instant::now(), server.resident_bytes()?);
    server.kill()?;
    let server = Child::with_default_limits(folder.path(), &[&address.to_string()])?;
    let result = come_back(plan, &mut town, killed)?;
    let all_back = town.following() == plan.clients;
    let up = server.listening()?.0.saturating_duration_since(killed);
    print(plan, &result, up);
    if all_back {
        let after = talk(plan, &people, &mut town)?;
        print_talk(plan, &before, &after);
    }
    println!(
        "\nserver: {:.1} MB before, {:.1} MB at most after its new start",
        megabytes(resident),
        megabytes(server.peak_bytes()?)
    );
    town.close()?;
    server.stop()?;
    Ok(all_back)
}

fn people(plan: &Plan) -> Vec<Resident> {
    let resident = |person| Resident {
        person,
        name: format!("client{person}"),
        room: person / plan.in_a_room,
    };
    (0..plan.clients).map(resident).collect()
}

fn introduce(plan: &Plan) {
    println!(
        "{} clients in rooms of {}, from {} addresses, each with the state machine of chat-client (its \
         back-off, its proofs, and E_BUSY obeyed), at a server with its default limits that keeps \
         everything, is killed and is started again at once",
        plan.clients,
        plan.in_a_room,
        Town::addresses(plan.clients),
    );
}

/// Has the first of them talk.
fn talk(plan: &Plan, people: &[Resident], town: &mut Town) -> Result<Outcome, Failure> {
    let talkers = people.get(..plan.talking).unwrap_or(people);
    let begun = Instant::now();
    Conversation::among(talkers, plan.pace).run(town, || begun.elapsed() < plan.time)
}

/// Waits until all are back, or until the time for that is over.
fn come_back(plan: &Plan, town: &mut Town, killed: Instant) -> Result<Return, Failure> {
    let (mut result, deadline) = (Return::default(), killed + plan.aim);
    let mut lost = 0;
    // Those whose machine has not noticed yet are still counted as being there.
    while Instant::now() < deadline && (lost < plan.clients || town.following() < plan.clients) {
        town.turn(deadline, &mut |_, news| {
            match news {
                News::LoggedIn => result.log_ins.push(killed.elapsed()),
                News::Follows => result.back.push(killed.elapsed()),
                News::Busy => result.busy += 1,
                News::Lost => lost += 1,
                News::Missed => result.missed += 1,
                News::Came(_) | News::Shown(_) => {}
            }
            Ok(())
        })?;
    }
    result.lost = lost;
    Ok(result)
}

fn print(plan: &Plan, result: &Return, up: Duration) {
    let Return { log_ins, back, busy, missed, lost } = result;
    let seconds = |at: Option<&Duration>| at.copied().unwrap_or_default().as_secs_f64();
    let (first, last) = (seconds(log_ins.first()), seconds(log_ins.last()));
    println!("since the server was killed                     s");
    println!("it listens again                         {:>8.2}", up.as_secs_f64());
    println!("the first is logged in                   {first:>8.2}");
    println!("the first is in its room                 {:>8.2}", seconds(back.first()));
    for percent in [50, 90, 99] {
        let place = plan.clients * percent / 100;
        println!(
            "{percent} % are in their rooms                  {:>8.2}",
            seconds(back.get(place))
        );
    }
    println!("the last is in its room                  {:>8.2}", seconds(back.last()));
    let mean = frequency(log_ins.len(), last - first);
    println!(
        "\n{} of {} came back (aim: all within {} s), {lost} connections had broken\n\
         log-ins a second: {} in the best second, {mean:.0} on average\n\
         {busy} were told E_BUSY; {missed} attempts were in vain, these included",
        back.len(),
        plan.clients,
        plan.aim.as_secs(),
        best_second(log_ins),
    );
}

#[expect(clippy::cast_precision_loss, reason = "it is rounded to a whole number anyway")]
fn frequency(count: usize, seconds: f64) -> f64 {
    count as f64 / seconds.max(1e-3)
}

/// The most of these, which are in ascending order, that fall into one second, whenever it begins.
fn best_second(times: &[Duration]) -> usize {
    let within = |(place, from): (usize, &Duration)| {
        times.partition_point(|at| at.saturating_sub(*from) < Duration::from_secs(1)) - place
    };
    times.iter().enumerate().map(within).max().unwrap_or_default()
}

fn print_talk(plan: &Plan, before: &Outcome, after: &Outcome) {
    println!(
        "\n{} of them say {} messages a second for {} s, before it was killed and when all were back; \
         every one reached each of them in its room once, in order\n\n\
         \x20          messages    shown   p50 ms   p99 ms   max ms",
        plan.talking,
        plan.pace.rate,
        plan.time.as_secs(),
    );
    for (name, outcome) in [("before", before), ("after", after)] {
        println!("{name:<8} {}", outcome.row());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_second_may_begin_anywhere() {
        let times = [0, 700, 1_600, 1_699, 2_500, 2_700].map(Duration::from_millis);
        assert_eq!(best_second(&times), 3);
        assert_eq!(best_second(&times[..1]), 1);
        assert_eq!(best_second(&[]), 0);
    }
}
