//! Quotas on a clock that stands still, and what is counted.

use bigpeer_types::ManualClock;

use super::*;

fn meter(quota: Quota) -> (Arc<Meter>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(1_000_000));
    (Arc::new(Meter::new(Arc::clone(&clock) as _, Arc::new(quota))), clock)
}

fn key(name: &str) -> Account {
    Account::Key(name.parse().unwrap())
}

fn refused(result: Result<(), ApiError>, quota: &str, secs: u32) {
    let error = result.unwrap_err();
    assert_eq!((error.code, error.retry_after_secs), (ErrorCode::QuotaExceeded, Some(secs)));
    assert!(error.message.contains(quota), "{}", error.message);
}

#[test]
fn requests_pass_as_the_quota_says_and_are_counted() {
    let quota = Quota { requests_per_second: Some(2), request_burst: Some(5), ..Quota::default() };
    let (meter, clock) = meter(quota);
    for _ in 0..5 {
        meter.request(None).unwrap();
    }
    refused(meter.request(None), "requests_per_second", 1);
    clock.advance(500);
    meter.request(None).unwrap();
    refused(meter.request(None), "requests_per_second", 1);
    assert_eq!(meter.usage(), Usage { requests: 6, requests_refused: 2, ..Usage::default() });
    // Less from now on, and none that could be waited for.
    meter.allow(Arc::new(Quota { requests_per_second: Some(1), ..Quota::default() }));
    refused(meter.request(None), "requests_per_second", 5);
    meter.allow(Arc::default());
    (0..100).for_each(|_| meter.request(None).unwrap());
}

#[test]
fn a_key_that_asks_too_often_takes_nothing_from_the_others() {
    let (meter, clock) = meter(Quota { requests_per_second: Some(10), ..Quota::default() });
    let (noisy, calm) = (key("noisy"), key("calm"));
    for n in 0..100 {
        assert_eq!(meter.request(Some((&noisy, 3))).is_ok(), n < 3);
    }
    for _ in 0..7 {
        meter.request(Some((&calm, 9))).unwrap();
    }
    refused(meter.request(Some((&calm, 9))), "requests_per_second", 1);
    clock.advance(1000);
    refused((0..4).try_for_each(|_| meter.request(Some((&noisy, 3)))), "this key may make 3", 1);
}

#[test]
fn who_sends_too_much_is_read_more_slowly_and_at_last_refused() {
    let (meter, clock) = meter(Quota { bytes_in_per_second: Some(1000), ..Quota::default() });
    assert_eq!(meter.bytes_in(1000), Duration::ZERO);
    assert_eq!(meter.bytes_in(500), Duration::from_millis(500));
    meter.request(None).unwrap();
    assert_eq!(meter.bytes_in(1500), Duration::from_secs(2));
    refused(meter.request(None), "bytes_in_per_second", 2);
    clock.advance(1000);
    meter.request(None).unwrap();
    meter.bytes_out(7);
    meter.sql(Duration::from_millis(20));
    let expected = Usage { requests: 2, requests_refused: 1, bytes_in: 3000, bytes_out: 7, sql_ms: 20 };
    assert_eq!((meter.take_usage(), meter.usage()), (expected, Usage::default()));
    meter.put_back(expected);
    assert_eq!(meter.usage(), expected);
}

#[test]
fn sessions_and_subscriptions_are_so_many_at_once() {
    let (meter, _clock) = meter(Quota { sessions: Some(2), subscriptions: Some(1), ..Quota::default() });
    let held = [meter.session(false).unwrap(), meter.session(false).unwrap()];
    assert!(meter.session(false).is_none());
    let replacing = meter.session(true).unwrap();
    let subscription = meter.subscription().unwrap();
    assert!(meter.subscription().is_none());
    assert_eq!(meter.open(), (3, 1));
    drop((held, subscription));
    assert_eq!(meter.open(), (1, 0));
    drop(replacing);
    assert!(meter.session(false).is_some());
    meter.allow(Arc::new(Quota { sessions: Some(0), ..Quota::default() }));
    assert!(meter.session(false).is_none());
    assert_eq!(meter.open(), (0, 0));
}

#[test]
fn what_is_stored_is_documents_and_attachments() {
    let (meter, _clock) = meter(Quota { storage_bytes: Some(100), ..Quota::default() });
    meter.may_store(99).unwrap();
    refused(meter.may_store(100), "storage_bytes", FULL_RETRY_SECS);
    meter.set_attachment_bytes(40);
    meter.add_attachment_bytes(10);
    meter.may_store(49).unwrap();
    refused(meter.may_store(50), "stores 100 bytes", FULL_RETRY_SECS);
    meter.allow(Arc::default());
    meter.may_store(u64::MAX).unwrap();
}
