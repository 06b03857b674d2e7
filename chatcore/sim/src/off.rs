//! A rule of chatcore that is switched off, to prove that the checkers notice.
//!
//! Only a build with `RUSTFLAGS='--cfg chat_mutants'` can switch anything off; in every other one
//! an [`Off`] says nothing and does nothing.

use chatcore::client::Client;
use chatcore::delivery::Delivery;
use chatcore::engine::Engine;
#[cfg(chat_mutants)]
use chatcore::mutant::Mutant;

/// The rule that is switched off in a world, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Off {
    #[cfg(chat_mutants)]
    mutant: Option<Mutant>,
}

impl Off {
    /// Every rule that can be switched off, with its name; none in an ordinary build.
    pub fn all() -> impl Iterator<Item = (Self, &'static str)> {
        #[cfg(chat_mutants)]
        let all = Mutant::ALL.iter().map(|mutant| (Self { mutant: Some(*mutant) }, mutant.name()));
        #[cfg(not(chat_mutants))]
        let all = std::iter::empty();
        all
    }

    /// Its name, if anything is switched off.
    pub fn name(self) -> Option<&'static str> {
        #[cfg(chat_mutants)]
        let name = self.mutant.map(Mutant::name);
        #[cfg(not(chat_mutants))]
        let name = {
            let Self {} = self;
            None
        };
        name
    }

    /// Whether it is a rule of migration, which no world has.
    pub fn is_of_migration(self) -> bool {
        #[cfg(chat_mutants)]
        let is_of_migration = self.mutant.is_some_and(Mutant::is_of_migration);
        #[cfg(not(chat_mutants))]
        let is_of_migration = {
            let Self {} = self;
            false
        };
        is_of_migration
    }

    /// The command that runs the world of a seed again.
    pub fn replay(self, seed: u64) -> String {
        match self.name() {
            None => format!("cargo run -p chat-sim --release -- --seed {seed}"),
            Some(name) => format!(
                "RUSTFLAGS='--cfg chat_mutants' cargo run -p chat-sim --release \
                 --target-dir target/mutants -- --seed {seed} --mutant {name}"
            ),
        }
    }

    pub(crate) fn engine(self, engine: &mut Engine) {
        #[cfg(chat_mutants)]
        self.mutant.into_iter().for_each(|mutant| engine.mutate(mutant));
        #[cfg(not(chat_mutants))]
        let _ = (self, engine);
    }

    pub(crate) fn node<E>(self, node: &mut chatcore::migration::Node<E>) {
        #[cfg(chat_mutants)]
        self.mutant.into_iter().for_each(|mutant| node.mutate(mutant));
        #[cfg(not(chat_mutants))]
        let _ = (self, node);
    }

    pub(crate) fn delivery(self, delivery: &mut Delivery) {
        #[cfg(chat_mutants)]
        self.mutant.into_iter().for_each(|mutant| delivery.mutate(mutant));
        #[cfg(not(chat_mutants))]
        let _ = (self, delivery);
    }

    pub(crate) fn client(self, client: &mut Client) {
        #[cfg(chat_mutants)]
        self.mutant.into_iter().for_each(|mutant| client.mutate(mutant));
        #[cfg(not(chat_mutants))]
        let _ = (self, client);
    }
}
