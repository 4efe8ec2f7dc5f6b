//! What every sink is given, and what it says of its progress.

use std::sync::Arc;

use bigpeer_chassis::Name;
use bigpeer_feed_spec::Format;
use bigpeer_types::{AppId, Clock, IdGenerator};

use crate::cursor::Cursor;
use crate::registry::{Checkpoint, Registry};
use crate::status::Status;

/// What a sink is given.
#[derive(Clone, Debug)]
pub(crate) struct SinkContext {
    pub(crate) app: AppId,
    pub(crate) name: Name,
    pub(crate) format: Format,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdGenerator>,
    pub(crate) registry: Registry,
    pub(crate) status: Arc<Status>,
    /// Whether receivers may have private addresses.
    pub(crate) allow_private: bool,
}

impl SinkContext {
    pub(crate) const fn content_type(&self, as_array: bool) -> &'static str {
        if as_array { self.format.batch_content_type() } else { self.format.content_type() }
    }
}

/// How far a sink has come since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Confirmed {
    /// How often it has moved.
    pub(crate) moves: u64,
    /// Where it stands; none: where it started.
    pub(crate) cursor: Option<Cursor>,
    /// Events that were delivered.
    pub(crate) events: u64,
    /// When the last transaction of them was written, by its writer's clock.
    pub(crate) written_ms: Option<u64>,
}

impl Confirmed {
    pub(crate) fn move_to(&mut self, cursor: Cursor, events: u64, written_ms: Option<u64>) {
        self.moves += 1;
        self.cursor = Some(cursor);
        self.events += events;
        self.written_ms = written_ms.or(self.written_ms);
    }

    /// The checkpoint of a feed that started at `base`.
    pub(crate) fn checkpoint(&self, base: &Checkpoint, now_ms: u64) -> Checkpoint {
        Checkpoint {
            number: base.number + self.moves,
            cursor: self.cursor.as_ref().map_or_else(|| base.cursor.clone(), ToString::to_string),
            delivered: base.delivered + self.events,
            delivered_ms: if self.events > 0 { Some(now_ms) } else { base.delivered_ms },
            written_ms: self.written_ms.or(base.written_ms),
            ..base.clone()
        }
    }
}
