//! A rule that was broken.

use std::fmt;

/// A rule that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The rule, always in the same words: failures with the same rule are the same failure.
    pub rule: &'static str,
    /// What was seen.
    pub detail: String,
}

impl Broken {
    /// A broken rule.
    pub fn new(rule: &'static str, detail: impl Into<String>) -> Self {
        Self { rule, detail: detail.into() }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.detail)
    }
}

/// Fails with a rule unless it holds.
macro_rules! hold {
    ($condition:expr, $rule:expr, $($detail:tt)+) => {
        if !$condition {
            return Err($crate::broken::Broken::new($rule, format!($($detail)+)));
        }
    };
}
pub(crate) use hold;
