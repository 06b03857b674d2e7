//! Rules that can be switched off, to prove that the checks notice.
//!
//! Only in a build with `RUSTFLAGS='--cfg chat_mutants'`, and even there everything is as it should
//! be until [`Engine::mutate`].

use crate::engine::Engine;

/// A rule to switch off. Its `FromStr` and its text are its name in scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mutant {
    /// `no-dedupe`: a command that is sent again takes effect again. The engine gives commands
    /// numbers of its own and pays no heed to those of the clients.
    NoDedupe,
}

/// A name that no mutant has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such mutant")]
pub struct UnknownMutant;

impl core::str::FromStr for Mutant {
    type Err = UnknownMutant;

    fn from_str(name: &str) -> Result<Self, UnknownMutant> {
        match name {
            "no-dedupe" => Ok(Self::NoDedupe),
            _ => Err(UnknownMutant),
        }
    }
}

impl Engine {
    /// Switches a rule off.
    pub const fn mutate(&mut self, mutant: Mutant) {
        self.mutant = Some(mutant);
    }
}
