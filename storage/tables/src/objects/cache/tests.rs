//! The cache alone: what is read, how often the store is asked, what survives.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

/// An object, and how often it was read.
struct Source {
    bytes: Bytes,
    requests: Arc<AtomicUsize>,
    read: Read,
}

fn source(length: u64) -> Source {
    let bytes: Bytes = (0..length).map(|n| u8::try_from(n * 31 % 251).unwrap()).collect::<Vec<u8>>().into();
    let requests = Arc::new(AtomicUsize::new(0));
    let (object, count) = (bytes.clone(), Arc::clone(&requests));
    let read: Read = Arc::new(move |_, range| {
        let (object, count) = (object.clone(), Arc::clone(&count));
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            let end = usize::try_from(range.end).unwrap().min(object.len());
            Ok(object.slice(usize::try_from(range.start).unwrap()..end))
        }
        .boxed()
    });
    Source { bytes, requests, read }
}

async fn cache(settings: &CacheSettings) -> Arc<Cache> {
    Arc::new(Cache::open(settings).await.unwrap())
}

fn path() -> Path {
    Path::from("apps/a/tables/c/segments/x.parquet")
}

#[tokio::test]
async fn many_readers_of_one_block_are_one_request_and_then_none() {
    let source = source(3 * BLOCK + 100);
    let cache = cache(&CacheSettings::default()).await;
    let reads = (0..1000_u64).map(|n| {
        let (cache, read) = (Arc::clone(&cache), Arc::clone(&source.read));
        async move { cache.get(&path(), BLOCK + n..BLOCK + n + 10, &read).await.unwrap() }
    });
    let read = futures::future::join_all(reads).await;
    let start = usize::try_from(BLOCK).unwrap();
    assert!(read.iter().enumerate().all(|(n, bytes)| *bytes == source.bytes[start + n..start + n + 10]));
    assert_eq!(source.requests.load(Ordering::SeqCst), 1);
    assert_eq!(cache.get(&path(), 0..3 * BLOCK + 100, &source.read).await.unwrap(), source.bytes);
    assert_eq!(source.requests.load(Ordering::SeqCst), 3, "what is missing on both sides of what is there");
    cache.get(&path(), 0..3 * BLOCK + 100, &source.read).await.unwrap();
    assert_eq!(source.requests.load(Ordering::SeqCst), 3);
    assert!(cache.under_way.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_reader_who_gives_up_leaves_the_request_to_the_others() {
    let source = source(1000);
    let cache = cache(&CacheSettings::default()).await;
    let path = path();
    {
        let first = cache.get(&path, 0..10, &source.read);
        let mut first = std::pin::pin!(first);
        assert!(futures::poll!(&mut first).is_pending());
    }
    assert_eq!(cache.get(&path, 5..20, &source.read).await.unwrap(), source.bytes[5..20]);
    assert_eq!(source.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_failure_is_everybodys_and_is_not_remembered() {
    let good = source(1000);
    let bad: Read = Arc::new(|path: Path, _| {
        async move { Err(Error::NotFound { path: path.to_string(), source: "gone".into() }) }.boxed()
    });
    let cache = cache(&CacheSettings::default()).await;
    let path = path();
    let (a, b) = tokio::join!(cache.get(&path, 0..10, &bad), cache.get(&path, 3..4, &bad));
    assert!(matches!((a, b), (Err(Error::NotFound { .. }), Err(Error::NotFound { .. }))));
    assert_eq!(cache.get(&path, 0..10, &good.read).await.unwrap(), good.bytes[..10]);
}

#[tokio::test]
async fn the_disk_survives_a_restart_keeps_its_limit_and_damage_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    let settings = CacheSettings { memory_bytes: 0, dir: Some(dir.path().join("cache")), disk_bytes: 8 * BLOCK };
    let source = source(6 * BLOCK);
    let first = cache(&settings).await;
    first.get(&path(), 0..6 * BLOCK, &source.read).await.unwrap();
    first.settle(6).await;
    drop(first);
    std::fs::write(dir.path().join("cache/00/half.new"), "ha").unwrap();
    let again = cache(&settings).await;
    assert_eq!(again.get(&path(), 17..6 * BLOCK, &source.read).await.unwrap(), source.bytes[17..]);
    assert_eq!(source.requests.load(Ordering::SeqCst), 1, "everything was on the disk");

    let files = || -> Vec<PathBuf> {
        let dirs = std::fs::read_dir(dir.path().join("cache")).unwrap().map(|entry| entry.unwrap().path());
        dirs.flat_map(|dir| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path())).collect()
    };
    assert_eq!(files().len(), 6, "the half is gone");
    for (file, damage) in files().into_iter().zip([0, 5, 9, 30, 200, 1000]) {
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[damage] ^= 1;
        std::fs::write(&file, bytes).unwrap();
    }
    assert_eq!(again.get(&path(), 0..6 * BLOCK, &source.read).await.unwrap(), source.bytes);
    assert_eq!(source.requests.load(Ordering::SeqCst), 2);

    again.get(&Path::from("apps/a/other"), 0..6 * BLOCK, &source.read).await.unwrap();
    drop(again);
    // The last writes and evictions have begun, and end by themselves.
    let mut total = u64::MAX;
    for _ in 0..30_000 {
        let found = files();
        if !found.iter().any(|file| file.extension().is_some()) {
            total = found.iter().filter_map(|file| std::fs::metadata(file).ok()).map(|meta| meta.len()).sum();
            if total <= 8 * BLOCK {
                break;
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert!(total <= 8 * BLOCK, "{total}");
}

proptest! {
    #[test]
    fn an_lru_never_holds_more_than_its_limit_and_knows_what_it_was_given(
        steps in prop::collection::vec((0..20_u8, 0..40_u64, any::<bool>()), 0..200),
    ) {
        let mut lru = Lru::new(100);
        let mut order: Vec<(u8, u64)> = Vec::new();
        for (key, bytes, read) in steps {
            if read {
                let known = order.iter().position(|(k, _)| *k == key);
                prop_assert_eq!(lru.get(&key), known.map(|at| order[at].1));
                if let Some(at) = known {
                    let entry = order.remove(at);
                    order.push(entry);
                }
            } else {
                lru.insert(key, bytes, bytes);
                order.retain(|(k, _)| *k != key);
                order.push((key, bytes));
                while order.iter().map(|(_, bytes)| bytes).sum::<u64>() > 100 {
                    order.remove(0);
                }
            }
            prop_assert_eq!(lru.len(), order.len());
            prop_assert_eq!(lru.bytes(), order.iter().map(|(_, bytes)| bytes).sum::<u64>());
        }
    }

    #[test]
    fn every_range_is_what_the_object_holds(ranges in prop::collection::vec((0..5 * BLOCK, 0..3 * BLOCK), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let source = source(4 * BLOCK + 77);
            let cache = cache(&CacheSettings { memory_bytes: 3 * BLOCK, ..CacheSettings::default() }).await;
            for (start, length) in ranges {
                let start = start.min(4 * BLOCK + 76);
                let end = (start + length).min(4 * BLOCK + 77);
                let read = cache.get(&path(), start..end, &source.read).await.unwrap();
                let (start, end) = (usize::try_from(start).unwrap(), usize::try_from(end).unwrap());
                assert!(read == source.bytes[start..end]);
            }
        });
    }
}
