//! Test builds only: the environment names a rule of the engine to switch off.

use chatcore::engine::Engine;
use chatcore::mutant::Mutant;

/// The rule to switch off; none when it is not set.
const VARIABLE: &str = "CHAT_MUTANT";

/// Switches off what the environment says.
///
/// # Panics
/// When it names no mutant: a test that believes in one must not run without.
pub(crate) fn switch_off(mut engine: Engine) -> Engine {
    if let Some(name) = std::env::var_os(VARIABLE) {
        let mutant: Option<Mutant> = name.to_str().and_then(|name| name.parse().ok());
        engine.mutate(mutant.expect("CHAT_MUTANT must name a mutant"));
    }
    engine
}
