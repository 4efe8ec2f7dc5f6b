//! What a process asks of object storage: kinds of requests, how they ended, and totals.

use std::sync::atomic::{AtomicU64, Ordering};

use object_store::{Error, Result};

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// An object, whole.
    Put,
    /// An object, if it does not exist.
    Create,
    /// One part of an upload.
    Part,
    /// Beginning, completing or aborting an upload in parts.
    Multipart,
    Get,
    List,
    Delete,
    Copy,
}

impl Operation {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Create => "create",
            Self::Part => "part",
            Self::Multipart => "multipart",
            Self::Get => "get",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Copy => "copy",
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Ok,
    /// There is no such object.
    Absent,
    /// A condition was not met: the object exists already, or is another.
    Conflict,
    /// The store refuses: who asks, or what is asked.
    Refused,
    /// It did not answer, or not in order. It may have done what was asked.
    Failed,
}

impl Outcome {
    #[allow(clippy::wildcard_enum_match_arm, reason = "a foreign enum that may grow")]
    pub(super) fn of<T>(result: &Result<T>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(Error::NotFound { .. }) => Self::Absent,
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. }) => Self::Conflict,
            Err(Error::PermissionDenied { .. } | Error::Unauthenticated { .. } | Error::NotSupported { .. }) => {
                Self::Refused
            }
            Err(_) => Self::Failed,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Absent => "absent",
            Self::Conflict => "conflict",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Totals of requests: what a bill would be made of. Repetitions by the client are not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Requests that write or list: puts, creates, parts, and the ends of uploads; copies.
    pub writes: u64,
    /// Requests that read.
    pub reads: u64,
    /// Lists.
    pub lists: u64,
    /// Deletions.
    pub deletes: u64,
    /// Bytes sent.
    pub bytes_written: u64,
    /// Bytes received.
    pub bytes_read: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    writes: AtomicU64,
    reads: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    bytes_written: AtomicU64,
    bytes_read: AtomicU64,
}

impl Counts {
    pub(super) fn add(&self, operation: Operation, bytes: u64) {
        let (requests, moved) = match operation {
            Operation::Put | Operation::Create | Operation::Part | Operation::Multipart | Operation::Copy => {
                (&self.writes, &self.bytes_written)
            }
            Operation::Get => (&self.reads, &self.bytes_read),
            Operation::List => (&self.lists, &self.bytes_read),
            Operation::Delete => (&self.deletes, &self.bytes_written),
        };
        requests.fetch_add(1, Ordering::Relaxed);
        moved.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Usage {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Usage {
            writes: of(&self.writes),
            reads: of(&self.reads),
            lists: of(&self.lists),
            deletes: of(&self.deletes),
            bytes_written: of(&self.bytes_written),
            bytes_read: of(&self.bytes_read),
        }
    }
}
