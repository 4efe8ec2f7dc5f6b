//! Opening a log: takes what is on disk for what it is, or refuses.
//!
//! # Crash safety
//! Everything that was acknowledged is in whole batches, because each was synced before it was acknowledged. The last
//! batch of the last segment may be torn, and is then cut off: nothing of it was acknowledged. It is known to be the last
//! one because no batch of the same segment is whole after it; else, and anywhere before, what is not whole is damage, and
//! the log is not opened.
//!
//! A last batch that is whole may be so in the operating system's memory only: the process was killed between writing and
//! syncing, or the sync failed. It is written and synced again before anything is answered from it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bigpeer_types::IdGenerator;

use super::checkpoint::{self, Checkpoint};
use super::disk::{Disk, DiskFile};
use super::format::{BATCH_HEADER_BYTES, BatchHeader, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::scan::{self, Damage, End};
use super::segments::{FoundHeader, ReadyFile, SEGMENT_SUFFIX, Segment, Segments, UNFINISHED_SUFFIX, read_header};
use super::state::LogState;
use super::writer::Active;
use super::{EmbeddedSettings, OpenError};

/// What was found, ready to go on.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) state: LogState,
    pub(crate) segments: Segments,
    pub(crate) active: Active,
    pub(crate) log_id: [u8; 16],
    pub(crate) first_segment: u64,
    /// Sequence number of the newest durable checkpoint.
    pub(crate) sequence: u64,
}

/// A segment file whose header was read.
struct FoundFile {
    name: String,
    file: Arc<dyn DiskFile>,
    bytes: u64,
}

/// Recovers the log of a directory, or makes a new one in an empty directory.
pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    settings: &EmbeddedSettings,
    ids: &dyn IdGenerator,
) -> Result<Recovered, OpenError> {
    let errors = Errors(disk);
    // A name that is there may be so in the operating system's memory only.
    disk.sync_names().map_err(|error| errors.io("syncing it", error))?;
    let names = disk.list().map_err(|error| errors.io("listing it", error))?;
    for name in names.iter().filter(|name| name.ends_with(UNFINISHED_SUFFIX)) {
        disk.remove(name).map_err(|error| errors.io(&format!("removing {name}"), error))?;
    }
    let segment_names: Vec<_> = names.into_iter().filter(|name| name.ends_with(SEGMENT_SUFFIX)).collect();
    match checkpoint::load(disk, settings.conflict_keys).map_err(|error| errors.io("reading its checkpoint", error))? {
        Some(checkpoint) => resume(disk, settings, checkpoint, segment_names),
        None => create(disk, settings, ids, &segment_names),
    }
}

/// Makes a new log. What a crash in the middle of this left is thrown away.
fn create(
    disk: &Arc<dyn Disk>,
    settings: &EmbeddedSettings,
    ids: &dyn IdGenerator,
    names: &[String],
) -> Result<Recovered, OpenError> {
    let errors = Errors(disk);
    for name in names {
        let file = disk.open(name).map_err(|error| errors.io(&format!("opening {name}"), error))?;
        if holds_batches(&*file).map_err(|error| errors.io(&format!("reading {name}"), error))? {
            let reason = "it holds a part of a log, but the log's checkpoint is gone or damaged".to_owned();
            return Err(errors.damage(name, Damage { offset: 0, reason }));
        }
    }
    for name in names {
        disk.remove(name).map_err(|error| errors.io(&format!("removing {name}"), error))?;
    }
    let segments = Segments::new(Arc::clone(disk), settings.segment_bytes, 0);
    let ready = segments.take(0).map_err(|error| errors.io("making its first segment", error))?;
    let mut log_id = [0; 16];
    ids.fill(&mut log_id);
    let header = SegmentHeader { log_id, number: 1, salt: ids.next_u64(), first_version: 1, file_bytes: ready.bytes };
    let write = || {
        ready.file.write_at(&header.encode(), 0)?;
        ready.file.sync()
    };
    write().map_err(|error| errors.io("writing its first segment", error))?;
    let state = LogState::new(settings.conflict_keys);
    let bytes = checkpoint::frame(0, &checkpoint::encode_content(log_id, 1, &state));
    checkpoint::write(&**disk, 0, &bytes).map_err(|error| errors.io("writing its checkpoint", error))?;
    let segment = Arc::new(Segment::new(ready.name, header, ready.file));
    segments.add(Arc::clone(&segment));
    let active = Active { segment, offset: SEGMENT_HEADER_BYTES as u64 };
    Ok(Recovered { state, segments, active, log_id, first_segment: 1, sequence: 0 })
}

fn holds_batches(file: &dyn DiskFile) -> io::Result<bool> {
    if file.length()? < (SEGMENT_HEADER_BYTES + BATCH_HEADER_BYTES) as u64 {
        return Ok(false);
    }
    let FoundHeader::Segment(header) = read_header(file)? else { return Ok(false) };
    let mut bytes = [0; BATCH_HEADER_BYTES];
    file.read_at(&mut bytes, SEGMENT_HEADER_BYTES as u64)?;
    Ok(header.number > 1 || BatchHeader::decode(&bytes, header.seed(), SEGMENT_HEADER_BYTES as u64).is_some())
}

/// Goes on with an existing log.
fn resume(
    disk: &Arc<dyn Disk>,
    settings: &EmbeddedSettings,
    checkpoint: Checkpoint,
    names: Vec<String>,
) -> Result<Recovered, OpenError> {
    let errors = Errors(disk);
    let Checkpoint { sequence, log_id, first_segment, mut state, bytes } = checkpoint;
    // It may be in the operating system's memory only, as a last batch may be.
    checkpoint::write(&**disk, sequence, &bytes).map_err(|error| errors.io("writing its checkpoint again", error))?;
    let (live, spare) = sort_out(disk, &names, log_id, first_segment)?;
    let next_name = names.iter().filter_map(|name| name.strip_suffix(SEGMENT_SUFFIX)?.parse().ok()).max().unwrap_or(0);
    let segments = Segments::new(Arc::clone(disk), settings.segment_bytes, next_name);
    for FoundFile { name, file, bytes } in spare {
        let action = format!("removing {name}");
        segments.give_back(ReadyFile { name, file, bytes }).map_err(|error| errors.io(&action, error))?;
    }
    let checkpointed = state.next_version;
    for app in &state.apps {
        app.index.recovered_from(app.head, app.trimmed);
    }
    let end = replay(disk, &live, first_segment, checkpointed, &mut state)?;
    let Some((_, last)) = live.last_key_value() else {
        return Err(errors.missing(first_segment));
    };
    if end.next_version < checkpointed {
        let reason = format!(
            "the log ends before version {}, though a checkpoint says that it goes to {}: acknowledged entries are gone",
            end.next_version,
            checkpointed - 1
        );
        return Err(errors.damage(&last.name, Damage { offset: end.offset, reason }));
    }
    if end.torn {
        tracing::warn!(
            file = last.name,
            offset = end.offset,
            version = end.next_version,
            "the log ends in a batch that was not completed; it was not acknowledged, and is left out"
        );
    }
    state.next_version = end.next_version;
    for (number, app) in (0..).zip(&state.apps) {
        // New indexes: nobody has set it.
        let _ = app.index.number.set(number);
        app.index.trim(app.trimmed);
        app.index.progress.send_modify(|progress| progress.head = app.head);
    }
    let active = Active { segment: Arc::clone(last), offset: end.offset };
    for segment in live.into_values() {
        segments.add(segment);
    }
    Ok(Recovered { state, segments, active, log_id, first_segment, sequence })
}

/// The segments that hold the log, by number, and the files that are free.
type SortedOut = (BTreeMap<u64, Arc<Segment>>, Vec<FoundFile>);

/// Opens the segment files: which are the log, by number, and which are free.
fn sort_out(
    disk: &Arc<dyn Disk>,
    names: &[String],
    log_id: [u8; 16],
    first_segment: u64,
) -> Result<SortedOut, OpenError> {
    let errors = Errors(disk);
    let (mut live, mut spare) = (BTreeMap::new(), Vec::new());
    for name in names {
        let damage = |reason: &str| errors.damage(name, Damage { offset: 0, reason: reason.to_owned() });
        let opened = disk.open(name).and_then(|file| Ok((file.length()?, read_header(&*file)?, file)));
        let (bytes, header, file) = opened.map_err(|error| errors.io(&format!("reading {name}"), error))?;
        match header {
            FoundHeader::Damaged => return Err(damage("the segment's header is not what was written")),
            FoundHeader::Segment(header) if header.log_id != log_id => return Err(damage("it belongs to another log")),
            FoundHeader::Segment(header) if header.number >= first_segment => {
                if bytes < header.file_bytes {
                    return Err(damage("the file is shorter than it was"));
                }
                let segment = Arc::new(Segment::new(name.clone(), header, file));
                if live.insert(header.number, segment).is_some() {
                    return Err(damage("another file holds the same segment"));
                }
            }
            FoundHeader::Segment(_) | FoundHeader::Unused => spare.push(FoundFile { name: name.clone(), file, bytes }),
        }
    }
    for (expected, number) in (first_segment..).zip(live.keys()) {
        if expected != *number {
            return Err(errors.missing(expected));
        }
    }
    Ok((live, spare))
}

/// Reads all segments in order: what the checkpoint does not cover goes into `state`, where entries are into the indexes.
fn replay(
    disk: &Arc<dyn Disk>,
    live: &BTreeMap<u64, Arc<Segment>>,
    first_segment: u64,
    checkpointed: u64,
    state: &mut LogState,
) -> Result<End, OpenError> {
    let errors = Errors(disk);
    let mut bytes = Vec::new();
    let mut end = None;
    for (number, segment) in live {
        let io = |action: &str, error| errors.io(&format!("{action} {}", segment.name), error);
        let header = &segment.header;
        let expected = end.map_or(header.first_version, |end: End| end.next_version);
        if expected != header.first_version {
            let reason = format!("the segment should start at version {expected}, not {}", header.first_version);
            return Err(errors.damage(&segment.name, Damage { offset: 0, reason }));
        }
        bytes.resize(index(header.file_bytes), 0);
        segment.file.read_at(&mut bytes, 0).map_err(|error| io("reading", error))?;
        let until = live.get(&(number + 1)).map(|next| next.header.first_version);
        let found = scan::scan(&bytes, header, until, |scanned| {
            let record = scanned.raw.parse().ok_or("a record is not of this format")?;
            let app = scanned.raw.entry_app();
            if scanned.version >= checkpointed {
                state.replay(scanned.version, record).ok_or("a record does not follow from those before it")?;
            }
            if let Some(app) = app {
                let app = state.app(app).ok_or("a record names an app that is not known")?;
                app.index.recovered(scanned.version, *number, scanned.start, scanned.end);
            }
            Ok(())
        })
        .map_err(|damage| errors.damage(&segment.name, damage))?;
        if until.is_none() {
            // The header was written together with the first batch.
            let is_first = found.last_batch == SEGMENT_HEADER_BYTES as u64;
            let from = if is_first { 0 } else { found.last_batch };
            let rewrite = bytes.get(index(from)..index(found.offset)).unwrap_or_default();
            segment.file.write_at(rewrite, from).map_err(|error| io("writing", error))?;
            segment.file.sync().map_err(|error| io("syncing", error))?;
        }
        end = Some(found);
    }
    end.ok_or_else(|| errors.missing(first_segment))
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// Makes errors of what goes wrong with one disk.
struct Errors<'a>(&'a Arc<dyn Disk>);

impl Errors<'_> {
    fn io(&self, action: &str, source: io::Error) -> OpenError {
        OpenError::Io { dir: self.0.path().to_owned(), action: action.to_owned(), source }
    }

    fn damage(&self, name: &str, damage: Damage) -> OpenError {
        OpenError::Corrupt { file: self.0.path().join(name), offset: damage.offset, reason: damage.reason }
    }

    fn missing(&self, number: u64) -> OpenError {
        let reason = format!("segment {number} is missing: the log cannot be complete");
        OpenError::Corrupt { file: self.0.path().to_owned(), offset: 0, reason }
    }
}
