//! What the mutants of the client do where a condition does not say it.

use super::{Client, Output, Outputs};
use crate::mutant::Mutant;

impl Client {
    /// Switches a rule off.
    pub const fn mutate(&mut self, mutant: Mutant) {
        self.mutant = Some(mutant);
    }
}

impl Outputs {
    /// Saves everything before anything else is done.
    pub(super) fn save_first(&mut self) {
        self.0.make_contiguous().sort_by_key(|output| !matches!(output, Output::Save(_)));
    }
}
