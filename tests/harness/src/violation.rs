//! What a checker found.

use std::fmt;

/// The promise that was broken; the numbers are those of the crate's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checker {
    /// 1
    Convergence,
    /// 2
    NothingLost,
    /// 3
    NothingTwice,
    /// 4
    OneCut,
    /// 5
    Permitted,
    /// 6
    LeftIsGone,
    /// 7
    DeadStayDead,
    /// 8
    GoesOn,
}

impl Checker {
    /// The checker's number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Convergence => 1,
            Self::NothingLost => 2,
            Self::NothingTwice => 3,
            Self::OneCut => 4,
            Self::Permitted => 5,
            Self::LeftIsGone => 6,
            Self::DeadStayDead => 7,
            Self::GoesOn => 8,
        }
    }

    const fn promise(self) -> &'static str {
        match self {
            Self::Convergence => "convergence",
            Self::NothingLost => "nothing acknowledged is lost",
            Self::NothingTwice => "nothing is applied twice",
            Self::OneCut => "atomic and causal delivery",
            Self::Permitted => "nobody holds what it may not read",
            Self::LeftIsGone => "what left is gone",
            Self::DeadStayDead => "what was deleted does not come back",
            Self::GoesOn => "it goes on when the faults end",
        }
    }

    /// A violation of this promise.
    #[must_use]
    pub fn broken(self, what: impl Into<String>) -> Violation {
        Violation { checker: self, what: what.into() }
    }
}

impl fmt::Display for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "checker {} ({})", self.number(), self.promise())
    }
}

/// A broken promise, and how it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub checker: Checker,
    /// Who, where, what was expected and what was found.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.checker, self.what)
    }
}

impl std::error::Error for Violation {}
