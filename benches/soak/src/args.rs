//! The options.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Parser, ValueEnum};

/// Runs many real chat clients through a network that breaks, and has chat-check judge them.
///
/// The programs are found beside this one; build them first with the same profile:
/// cargo build --release -p chat-server -p chat-client -p chat-check -p chat-soak
#[derive(Debug, Parser)]
#[command(name = "chat-soak", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// How many clients take part
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(2..=2_000))]
    pub(crate) clients: u16,

    /// How many of them post; the others read
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) senders: u16,

    /// How many posts they make together
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) posts: u32,

    /// How many posts they make in a second together, at most
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) posts_per_second: u32,

    /// How many faults the network has in a second; 0 for none
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(..=1_000))]
    pub(crate) faults_per_second: u32,

    /// How often a client is killed and started again, spread evenly over the posts
    #[arg(long, default_value_t = 0)]
    pub(crate) kills: u32,

    /// How often the room is reset, spread evenly over the posts; a server allows 10 at once
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(..=10))]
    pub(crate) resets: u32,

    /// How often the server is killed, spread evenly over the posts, and started again on what it kept;
    /// with none it keeps nothing
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100_000))]
    pub(crate) server_kills: u32,

    /// Decides the faults, kills and resets [default: of the clock]
    #[arg(long)]
    seed: Option<u64>,

    /// What chat-check has to find for this program to end well
    #[arg(long, value_enum, default_value_t = Expect::Clean)]
    pub(crate) expect: Expect,

    /// Another chat-server than the one beside this program
    #[arg(long, value_name = "PATH")]
    pub(crate) server: Option<PathBuf>,

    /// How long everything may take, in seconds
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    timeout: u32,

    /// Keep what the clients wrote, also when all is well
    #[arg(long)]
    pub(crate) keep: bool,
}

const EXIT_CODES: &str = "\
Exit codes: 0 chat-check found what was expected, 1 it did not, or the run failed, 2 usage.";

/// What the checker has to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Expect {
    /// Nothing wrong; and every post is acknowledged, or refused for a reset that it came after,
    /// unless a sender was killed.
    Clean,
    /// Doubled posts, as of a server that does not recognise what was sent again.
    Condemned,
}

impl Args {
    /// The seed; read from the clock once.
    pub(crate) fn seed(&self) -> u64 {
        static CLOCK: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
        self.seed.unwrap_or_else(|| {
            *CLOCK.get_or_init(|| {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::from(since.subsec_nanos())
            })
        })
    }

    pub(crate) fn time(&self) -> Duration {
        Duration::from_secs(u64::from(self.timeout))
    }

    /// How many posts a sender makes: the first ones make one more when it does not come out even.
    pub(crate) fn posts_of(&self, sender: u16) -> u32 {
        let senders = u32::from(self.senders);
        let each = self.posts.checked_div(senders).unwrap_or(0);
        let rest = self.posts.checked_rem(senders).unwrap_or(0);
        each.saturating_add(u32::from(u32::from(sender) < rest))
    }

    /// The time between two posts of one sender.
    pub(crate) fn pace(&self) -> Duration {
        Duration::from_secs(1) * u32::from(self.senders) / self.posts_per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn options_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn posts_are_shared_among_senders_without_rest() {
        let args = Args::parse_from(["chat-soak", "--senders", "3", "--posts", "20"]);
        assert_eq!([0, 1, 2].map(|sender| args.posts_of(sender)), [7, 7, 6]);
    }
}
