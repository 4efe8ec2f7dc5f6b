//! An issuer changes its keys while many log in, as issuers do: the next key is published before it signs, the one before goes when
//! nothing signed with it is good any more. Nobody is refused.

use std::sync::atomic::{AtomicBool, AtomicU8};

use super::*;

const CLIENTS: usize = 8;
/// What clients do between two steps.
const MORE: usize = 10;

/// Keys of the issuer, by their seeds.
fn published(seeds: &[u8]) -> Value {
    seeds.iter().map(|seed| jwk(*seed, &format!("key {seed}"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_an_issuer_change_under_load_and_nobody_is_refused() {
    let idp = Arc::new(idp(published(&[1])).await);
    let (signs, stop) = (Arc::new(AtomicU8::new(1)), Arc::new(AtomicBool::new(false)));
    let done: Arc<[AtomicUsize; CLIENTS]> = Arc::default();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (idp, signs, stop, done) = (Arc::clone(&idp), Arc::clone(&signs), Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let seed = signs.load(Ordering::SeqCst);
                    let mut claims = idp.claims();
                    claims["exp"] = json!(NOW_SECS + 1_000_000);
                    let token = idp.token(seed, &format!("key {seed}"), &claims);
                    let vouched = idp.verify(&token).await;
                    assert!(vouched.is_ok(), "signed with key {seed}: {vouched:?}");
                    done[client].fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    // Every client has done more, and so has nothing under way from before.
    let more = || async {
        let until: Vec<usize> = done.iter().map(|done| done.load(Ordering::SeqCst) + MORE).collect();
        while done.iter().zip(&until).any(|(done, until)| done.load(Ordering::SeqCst) < *until) {
            assert!(!clients.iter().any(tokio::task::JoinHandle::is_finished), "a client was refused");
            tokio::task::yield_now().await;
        }
    };
    for next in 2..6 {
        more().await;
        *idp.state.keys.lock().unwrap() = published(&[next - 1, next]);
        idp.clock.advance(60_000);
        more().await;
        let asked = idp.asked();
        signs.store(next, Ordering::SeqCst);
        more().await;
        assert_eq!(idp.asked(), asked + 1, "the new key was looked for once, by one of them for all");
        *idp.state.keys.lock().unwrap() = published(&[next]);
        // Longer than keys are believed without another look.
        idp.clock.advance(3_600_000);
        more().await;
        assert_eq!(idp.asked(), asked + 2);
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let mut claims = idp.claims();
    claims["exp"] = json!(NOW_SECS + 1_000_000);
    assert!(idp.verify(&idp.token(4, "key 4", &claims)).await.is_err(), "the key before is good for nothing");
    assert!(idp.verify(&idp.token(5, "key 5", &claims)).await.is_ok());
}
