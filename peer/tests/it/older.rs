//! Gateways that do not know how far a broken resume came, before and after others that do: whatever their order, and wherever
//! each of them breaks off, the peer ends with what the server has.

use bigpeer_peer::Params;

use super::fake::Fake;
use super::{open, rows, run};

const RED: &str = "SELECT * FROM cars WHERE color = 'red'";

/// A peer that is cut off by one gateway after the other, the last one excepted.
async fn meets(gateways: &[bool], first_sync: bool) {
    let server = Fake::start().await;
    let dirs = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (a, b) = (open(dirs.0.path()).await, open(dirs.1.path()).await);
    a.connect(server.settings()).await.expect("connects");
    let car =
        |id: usize| format!("({{'_id': {id}, 'color': '{}'}})", if id.is_multiple_of(8) { "blue" } else { "red" });
    let cars: Vec<String> = (0..40).map(car).collect();
    run(&a, &format!("INSERT INTO cars DOCUMENTS {}", cars.join(", "))).await;
    a.wait_pushed().await.expect("pushed");
    let of_b = b.subscribe(RED, Params::new()).await.expect("subscribes");
    if !first_sync {
        b.connect(server.settings()).await.expect("connects");
        b.wait_caught_up(of_b).await.expect("catches up");
        b.disconnect().await;
        run(&a, "UPDATE cars SET fast = true").await;
    }
    for (attempt, knows) in gateways.iter().enumerate() {
        // On both sides of wherever it broke off: some are edited, some leave, some are deleted, some begin to match.
        run(&a, &format!("UPDATE cars SET attempt = {attempt} WHERE _id IN (1, 2, 19, 38)")).await;
        run(&a, &format!("UPDATE cars SET color = 'blue' WHERE _id IN ({}, {})", 3 + attempt, 33 + attempt)).await;
        run(&a, &format!("UPDATE cars SET color = 'red' WHERE _id IN ({}, {})", 8 * attempt, 2 + attempt)).await;
        run(&a, &format!("DELETE FROM cars WHERE _id IN ({}, {})", 9 + attempt, 28 - attempt)).await;
        a.wait_pushed().await.expect("pushed");
        server.set_knows_reached(*knows);
        let is_last = attempt + 1 == gateways.len();
        if !is_last {
            server.close_after_pages(3 + attempt as u64 % 2);
        }
        b.connect(server.settings()).await.expect("connects");
        if is_last {
            b.wait_caught_up(of_b).await.expect("catches up");
        } else {
            server.closed().await;
            b.disconnect().await;
            server.set_open(true);
        }
    }
    if let Some(lsn) = a.wait_pushed().await.expect("pushed") {
        b.wait_for(of_b, lsn).await.expect("received");
    }
    let red: Vec<String> = server.documents("cars").into_iter().filter(|car| car.contains("red")).collect();
    assert_eq!(rows(&b, "SELECT * FROM cars").await, red, "{gateways:?}, first sync: {first_sync}");
}

#[tokio::test]
async fn a_peer_beside_older_gateways_only_ends_with_what_the_server_has() {
    for first_sync in [false, true] {
        meets(&[false], first_sync).await;
        meets(&[false, false, false, false], first_sync).await;
    }
}

#[tokio::test]
async fn a_peer_that_meets_older_and_newer_gateways_in_turn_ends_with_what_the_server_has() {
    for order in 0_u8..16 {
        let gateways: Vec<bool> = (0..4).map(|bit| order >> bit & 1 == 1).collect();
        meets(&gateways, order.count_ones().is_multiple_of(2)).await;
    }
}
