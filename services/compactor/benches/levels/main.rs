//! Measures flush and compaction over many documents on a local disk: speed, write and space amplification, memory, restart,
//! point reads, the cost of publishing, and what a bucket would be asked for. Prints `name value unit` lines for scripts, with
//! tabs between and the target beside, and on stderr how far it is.
//!
//! `BIGPEER_BENCH_DOCUMENTS` documents (1,000,000; the targets are for 10,000,000), then as many random updates of one field as
//! there are documents, or as fit into `BIGPEER_BENCH_UPDATE_SECONDS` (150).
//!
//! Flush and compaction are told for one core: documents per second of processor time, of the whole process; each by itself, and
//! both together for each document that was written. Write amplification is bytes of all objects, manifests included, for each byte
//! of a flushed segment, up to the last merge into the sorted run. Space is what the newest manifest names, and at its worst
//! all files that are there, over the same in one run. `count` is what the table answers; SQL's planning is in `make bench-large`.
//! The full compaction is done by a process of its own, which nothing else has made larger; its peak is all that is resident
//! then. The restart replays a log that is in memory, as much as the server flushes at once. Cold is what the system was
//! asked to forget of all files, which it does not on every file system: `cold` says whether it could be asked, and the same number of raw
//! random reads stands beside.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "that is what it is for")]
#![allow(clippy::disallowed_methods, reason = "measures time")]
#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a benchmark stops when something is wrong")]

mod baselines;
mod figures;
mod world;

use std::path::Path;
use std::time::{Duration, Instant};

use bigpeer_crdt::DocId;
use bigpeer_tables::manifest::{CollectionSettings, Publication, PublicationMode};
use bigpeer_tables::{Extent, Scan, Usage};
use futures::TryStreamExt;

use figures::{Progress, Target, make_cold, median, ms, rate, resident, segment_files, show};
use world::{Place, Work, World, key};

/// As in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Names the folder in which this process, started by another, is to do a full compaction.
const COMPACT: &str = "BIGPEER_BENCH_COMPACT";
/// Documents that are read by their ids at once.
const POINT_READS: u64 = 10_000;
/// Up to so many documents publishing is measured: it writes all of them anew.
const MOST_PUBLISHED: u64 = 1_000_000;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

#[tokio::main]
async fn main() {
    if let Some(dir) = std::env::var_os(COMPACT) {
        return full_compaction(Path::new(&dir)).await;
    }
    let (mut progress, dir) = (Progress::new(), tempfile::tempdir().unwrap());
    let mut world = World::new(number("BIGPEER_BENCH_DOCUMENTS", 1_000_000));
    let update_time = Duration::from_secs(number("BIGPEER_BENCH_UPDATE_SECONDS", 150));
    show("documents", world.documents as f64, "documents", Target::None);
    let (sorted, disk) = (baselines::sorted_keys(), baselines::disk_writes(dir.path()));

    let place = Place::open(&world, dir.path()).await;
    progress.say("inserting");
    let inserted = world.insert(&place, &mut progress).await;
    inserted.report("insert", sorted, disk);
    bill("insert", Usage::default(), place.objects.usage(), inserted.written);
    let before = place.objects.usage();
    progress.say("updating");
    let updated = world.update(&place, update_time, &mut progress).await;
    updated.report("update", sorted, disk);
    bill("update", before, place.objects.usage(), updated.written);
    show("peak_resident", resident("VmHWM"), "MiB", Target::None);
    let end_bytes = place.table_bytes(&world).await;
    progress.say("reading");
    reads(&place, &world, "in_levels").await;
    place.close().await;

    progress.say("compacting everything, in another process");
    let itself = std::env::current_exe().unwrap();
    assert!(std::process::Command::new(itself).env(COMPACT, dir.path()).status().unwrap().success());
    let place = Place::open(&world, dir.path()).await;
    let one_run = place.table_bytes(&world).await as f64;
    let segments = place.store.snapshot().table(&world.name).await.unwrap().segments.len();
    show("space_amplification", end_bytes as f64 / one_run, "ratio", Target::AtMost(1.5));
    show("space_amplification_worst", updated.worst_bytes as f64 / one_run, "ratio", Target::AtMost(1.5));
    show("bytes_per_document", one_run / world.documents as f64, "bytes", Target::None);
    show("segments", segments as f64, "files", Target::None);
    place.writer.collect_garbage().await.unwrap();
    place.close().await;

    progress.say("starting anew");
    let place = restart(&mut world, &updated, dir.path()).await;
    progress.say("reading what is cold");
    cold_reads(&place, &world).await;
    reads(&place, &world, "after_restart").await;
    count_after_writes(&place, &mut world).await;
    progress.say("reading everything");
    first_sync(&place, &world).await;
    if world.documents <= MOST_PUBLISHED {
        progress.say("publishing");
        publish(&place, &world).await;
    }
    place.close().await;
    progress.say("done");
}

/// As a process that was killed before a flush: until everything that it had acknowledged can be read.
async fn restart(world: &mut World, updated: &Work, dir: &Path) -> Place {
    // What one flush takes at most is what a start replays.
    let tail = (updated.written / updated.flushes.max(1) / 1000 * 1000).max(1000);
    let end = world.tail(tail).await;
    show("restart_replays", tail as f64, "documents", Target::None);
    let cold = make_cold(&segment_files(dir));
    show("cold", f64::from(u8::from(cold)), "asked for", Target::None);
    let started = Instant::now();
    let place = Place::open(world, dir).await;
    place.store.wait_for(end).await.unwrap();
    show("restart", ms(started.elapsed()), "ms", Target::AtMost(1000.0));
    place
}

fn some_ids(world: &World, from: u64) -> Vec<DocId> {
    (from..from + POINT_READS).map(|n| key(n * 104_729 % world.documents)).collect()
}

async fn point_reads(place: &Place, world: &World, ids: &[DocId]) -> Duration {
    let started = Instant::now();
    let found = place.store.snapshot().get_many(&world.name, ids).await.unwrap();
    let took = started.elapsed();
    assert!(found.iter().all(Option::is_some));
    took
}

async fn cold_reads(place: &Place, world: &World) {
    let files = segment_files(&place.dir);
    make_cold(&files);
    let raw = baselines::random_reads(&files, POINT_READS);
    show("baseline_10000_random_reads_cold", ms(raw), "ms", Target::None);
    make_cold(&files);
    let cold = point_reads(place, world, &some_ids(world, 0)).await;
    show("10000_point_reads_cold", ms(cold), "ms", Target::AtMost(1000.0));
    show("10000_point_reads_cold_over_random_reads", ms(cold) / ms(raw).max(1e-6), "ratio", Target::None);
}

async fn reads(place: &Place, world: &World, when: &str) {
    let ids = some_ids(world, 1);
    for again in ["first", "again"] {
        let took = point_reads(place, world, &ids).await;
        show(&format!("10000_point_reads_{when}_{again}"), ms(took), "ms", Target::None);
    }
    let mut times = Vec::new();
    for _ in 0..=20 {
        let started = Instant::now();
        let rows = place.store.snapshot().table(&world.name).await.unwrap().rows();
        times.push(started.elapsed());
        assert_eq!(rows, world.documents);
    }
    show(&format!("count_{when}_first"), ms(times.remove(0)), "ms", Target::None);
    show(&format!("count_{when}"), ms(median(times)), "ms", Target::AtMost(5.0));
}

/// Each count is of a state that nobody has counted.
async fn count_after_writes(place: &Place, world: &mut World) {
    let mut times = Vec::new();
    for n in 0..7 {
        let (lsn, _) = world.write(&mut std::iter::once(n), false).await;
        place.store.wait_for(lsn).await.unwrap();
        let started = Instant::now();
        let rows = place.store.snapshot().table(&world.name).await.unwrap().rows();
        times.push(started.elapsed());
        assert_eq!(rows, world.documents);
    }
    show("count_after_each_write", ms(median(times)), "ms", Target::None);
}

/// Merges everything into one run, and tells how much memory the process had at most. Everything is in files: the log is
/// not needed.
async fn full_compaction(dir: &Path) {
    let world = World::new(0);
    let place = Place::open(&world, dir).await;
    let before = resident("VmRSS");
    let mut work = Work::default();
    world.compact(&place, Extent::Full, &mut work).await;
    let (spent, peak) = (work.compacting, resident("VmHWM"));
    show("full_compaction_documents", work.compacted_documents as f64, "documents", Target::None);
    if work.compacted_documents == 0 {
        // One run already, as with few documents: no figures of work that there was not.
        return place.close().await;
    }
    let of_core = rate(work.compacted_documents, spent.processors);
    show("full_compaction", of_core, "documents/s", Target::AtLeast(200_000.0));
    show("full_compaction_took", spent.wall.as_secs_f64(), "s", Target::None);
    show("full_compaction_resident_before", before, "MiB", Target::None);
    show("full_compaction_peak_resident", peak, "MiB", Target::AtMost(256.0));
    place.close().await;
}

/// What a bucket is asked for per million documents written.
fn bill(name: &str, before: Usage, after: Usage, documents: u64) {
    let millions = documents as f64 / 1e6;
    let per = |now: u64, then: u64| (now - then) as f64 / millions;
    let lists_and_writes = per(after.writes + after.lists, before.writes + before.lists);
    show(&format!("bill_{name}_write_requests"), lists_and_writes, "requests/million", Target::None);
    show(&format!("bill_{name}_read_requests"), per(after.reads, before.reads), "requests/million", Target::None);
    show(&format!("bill_{name}_deletes"), per(after.deletes, before.deletes), "requests/million", Target::None);
    let written = per(after.bytes_written, before.bytes_written) / 1e6;
    show(&format!("bill_{name}_bytes_written"), written, "MB/million", Target::None);
    let read = per(after.bytes_read, before.bytes_read) / 1e6;
    show(&format!("bill_{name}_bytes_read"), read, "MB/million", Target::None);
}

/// The first version for all readers, after some random updates: what has to be written anew for it.
async fn publish(place: &Place, world: &World) {
    let publication = Some(Publication { mode: PublicationMode::Compatible, interval_secs: 60 });
    let settings = CollectionSettings { publication, ..CollectionSettings::default() };
    place.writer.configure(&world.name, settings).await.unwrap();
    world.flush(place, &mut Work::default()).await;
    let before = place.table_bytes(world).await;
    let started = Instant::now();
    let version = place.writer.publish(&world.name).await.unwrap().unwrap();
    show("publish_first_version", started.elapsed().as_secs_f64(), "s", Target::None);
    show("publish_files", version.files.len() as f64, "files", Target::None);
    show("publish_table_bytes_before", before as f64 / 1e6, "MB", Target::None);
    place.writer.configure(&world.name, CollectionSettings::default()).await.unwrap();
}

/// What a peer's first sync asks of object storage: a scan of everything.
async fn first_sync(place: &Place, world: &World) {
    let raw = baselines::disk_reads(&segment_files(&place.dir));
    let before = place.objects.usage();
    let started = Instant::now();
    let mut scan = place.store.snapshot().scan(&world.name, Scan::default());
    let mut seen = 0;
    while let Some(batch) = scan.try_next().await.unwrap() {
        seen += batch.len() as u64;
    }
    let took = started.elapsed();
    assert_eq!(seen, world.documents);
    show("scan", rate(seen, took), "documents/s", Target::None);
    let after = place.objects.usage();
    let bytes = after.bytes_read - before.bytes_read;
    show("scan_over_disk_reads", rate(bytes, took) / 1e6 / raw, "ratio", Target::None);
    let millions = seen as f64 / 1e6;
    let requests = (after.reads - before.reads) as f64 / millions;
    show("bill_first_sync_requests", requests, "requests/million", Target::None);
    show("bill_first_sync_bytes", bytes as f64 / 1e6 / millions, "MB/million", Target::None);
}
