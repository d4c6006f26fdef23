use std::fmt;

use tonic::Status;

/// A rule of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// What it is called: `submit.duplicate`.
    pub id: &'static str,
    /// The sentence of `proto/README.md` that it tries.
    pub sentence: &'static str,
}

/// What came of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub rule: Rule,
    /// How it went.
    pub verdict: Verdict,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The rule holds.
    Passed,
    /// It does not: what came instead.
    Failed(String),
    /// It could not be tried: what is missing.
    NotTried(String),
}

/// Why a rule was not seen to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The other side did something else.
    Broken(String),
    /// It cannot be tried with what was given.
    NotTried(String),
}

impl Problem {
    /// For whoever has found something else than the rule says.
    pub fn broken<T>(found: impl Into<String>) -> Result<T, Self> {
        Err(Self::Broken(found.into()))
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        Self::Broken(format!("{:?}: {}", status.code(), status.message()))
    }
}

impl From<Result<(), Problem>> for Verdict {
    fn from(outcome: Result<(), Problem>) -> Self {
        match outcome {
            Ok(()) => Self::Passed,
            Err(Problem::Broken(found)) => Self::Failed(found),
            Err(Problem::NotTried(why)) => Self::NotTried(why),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "pass",
            Self::Failed(_) => "FAIL",
            Self::NotTried(_) => "not tried",
        })
    }
}
