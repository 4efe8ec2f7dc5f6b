//! Names, ids, limits, log sequence numbers, stamps, clocks and id generators: the words that every other crate
//! speaks in. No I/O, no async. Everything that comes from outside is parsed once, here, into a type that cannot hold
//! anything else.

#![warn(missing_docs)]

mod clock;
mod ids;
pub mod limits;
mod lsn;
mod name;
mod stamp;

pub use clock::{Clock, ManualClock, SystemClock};
pub use ids::{IdGenerator, RandomIds, SeededIds};
pub use lsn::{Lsn, LsnParseError};
pub use name::{AppId, CollectionName, NameError};
pub use stamp::{ClockError, Hlc, HlcClock, SiteId, Stamp};
