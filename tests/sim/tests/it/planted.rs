//! Bugs, planted: the checkers see each of them, in the whole of the simulation.

use bigpeer_harness::{Checker, Treachery};
use bigpeer_sim::client::lock;
use bigpeer_sim::grants::Grant;
use bigpeer_sim::record::Planted;
use bigpeer_sim::run;
use bigpeer_sim::world::World;

/// What broke with a defect, in the first of some seeds in which something did.
fn seen(tamper: impl Fn(&mut World) + Send + Sync + Copy) -> Option<Checker> {
    let broken = |seed| run::run_calmly(seed, 20_000, tamper).violation.map(|violation| (seed, violation));
    let (seed, violation) = (0..4).find_map(broken)?;
    println!("seed {seed}: {violation}");
    Some(violation.checker)
}

fn plant(defect: Planted) -> impl Fn(&mut World) + Send + Sync + Copy {
    move |world| {
        for client in &world.clients {
            lock(&client.parts.record).planted = Some(defect);
        }
    }
}

#[test]
fn a_log_that_forgets_what_it_acknowledged() {
    assert_eq!(seen(|world| world.stage.treachery = Some(Treachery::Forgets)), Some(Checker::NothingLost));
}

#[test]
fn a_transaction_that_is_not_delivered() {
    // Where it was a deletion, what is seen of it is a document that should have left.
    let skips = |world: &mut World| world.stage.treachery = Some(Treachery::Skips);
    assert!(matches!(seen(skips), Some(Checker::OneCut | Checker::LeftIsGone)));
}

#[test]
fn a_peer_that_loses_a_delta() {
    assert_eq!(seen(plant(Planted::Stale)), Some(Checker::OneCut));
}

#[test]
fn a_peer_that_loses_a_document() {
    assert_eq!(seen(plant(Planted::Gone)), Some(Checker::OneCut));
}

#[test]
fn a_peer_that_keeps_what_left() {
    // What left may also be what was never to be read: a write that was rejected.
    assert!(matches!(seen(plant(Planted::Stays)), Some(Checker::LeftIsGone | Checker::Permitted)));
}

#[test]
fn a_server_that_shows_what_may_not_be_read() {
    let tamper = |world: &mut World| {
        for client in &mut world.clients {
            // The server goes by other permissions than the checkers.
            client.grant = Grant(3);
            let mut record = lock(&client.parts.record);
            (record.grants, record.ever_granted) = (vec![Grant(3)], vec![Grant(3)]);
        }
    };
    assert_eq!(seen(tamper), Some(Checker::Permitted));
}
