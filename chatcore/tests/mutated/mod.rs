//! In a build with mutants, whatever a test makes breaks the rule that `CHAT_MUTANT` names: such a
//! run must fail, for a rule that can be broken unnoticed has no test. In other builds nothing of
//! this does anything.

/// An engine, a shard or a client as the environment wants it.
macro_rules! as_told {
    ($made:expr) => {{
        #[cfg(chat_mutants)]
        {
            let mut made = $made;
            if let Ok(name) = std::env::var("CHAT_MUTANT") {
                made.mutate(name.parse().unwrap());
            }
            made
        }
        #[cfg(not(chat_mutants))]
        {
            $made
        }
    }};
}
