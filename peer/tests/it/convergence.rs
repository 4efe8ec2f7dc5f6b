//! Two peers and a server, at random: whatever the order of writes, cuts and absences, in the end all see the same.

use bigpeer_peer::{Params, Peer, SubscriptionId};
use proptest::prelude::*;

use super::fake::Fake;
use super::{open, rows};

#[derive(Clone, Debug)]
enum Step {
    Insert { peer: usize, id: u8, group: u8 },
    Set { peer: usize, id: u8, value: u8 },
    Move { peer: usize, id: u8, group: u8 },
    Delete { peer: usize, id: u8 },
    Forbidden { peer: usize, id: u8 },
    Offline { peer: usize },
    Online { peer: usize },
    Cut,
    Settle { peer: usize },
    ForgetHistory,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (peer, id, group) = (0..2_usize, 0..6_u8, 0..3_u8);
    let step = prop_oneof![
        4 => (peer.clone(), id.clone(), group.clone()).prop_map(|(peer, id, group)| Step::Insert { peer, id, group }),
        4 => (peer.clone(), id.clone(), 0..9_u8).prop_map(|(peer, id, value)| Step::Set { peer, id, value }),
        3 => (peer.clone(), id.clone(), group).prop_map(|(peer, id, group)| Step::Move { peer, id, group }),
        3 => (peer.clone(), id.clone()).prop_map(|(peer, id)| Step::Delete { peer, id }),
        1 => (peer.clone(), id).prop_map(|(peer, id)| Step::Forbidden { peer, id }),
        2 => peer.clone().prop_map(|peer| Step::Offline { peer }),
        2 => peer.clone().prop_map(|peer| Step::Online { peer }),
        1 => Just(Step::Cut),
        2 => peer.prop_map(|peer| Step::Settle { peer }),
        1 => Just(Step::ForgetHistory),
    ];
    proptest::collection::vec(step, 1..40)
}

async fn execute(peer: &Peer, statement: String) {
    // A conflict of ids, or a document that is not there, is part of the game.
    let _outcome = peer.execute(&statement, Params::new()).await;
}

async fn play(server: &Fake, peers: &[Peer; 2], step: Step) {
    match step {
        Step::Insert { peer, id, group } => {
            let statement =
                format!("INSERT INTO cars DOCUMENTS ({{'_id': {id}, 'team': {group}}}) ON ID CONFLICT DO UPDATE");
            execute(&peers[peer], statement).await;
        }
        Step::Set { peer, id, value } => {
            execute(&peers[peer], format!("UPDATE cars SET v{peer} = {value} WHERE _id = {id}")).await;
        }
        Step::Move { peer, id, group } => {
            execute(&peers[peer], format!("UPDATE cars SET team = {group} WHERE _id = {id}")).await;
        }
        Step::Delete { peer, id } => execute(&peers[peer], format!("DELETE FROM cars WHERE _id = {id}")).await,
        Step::Forbidden { peer, id } => {
            execute(&peers[peer], format!("UPDATE cars SET forbidden = 1 WHERE _id = {id}")).await;
        }
        Step::Offline { peer } => peers[peer].disconnect().await,
        Step::Online { peer } => peers[peer].connect(server.settings()).await.expect("the server is there"),
        Step::Cut => server.cut(),
        Step::Settle { peer } => {
            let _pushed = peers[peer].wait_pushed().await;
        }
        Step::ForgetHistory => server.forget_history(),
    }
}

async fn converge(steps: Vec<Step>) {
    let server = Fake::start().await;
    let dirs = [tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory")];
    let peers = [open(dirs[0].path()).await, open(dirs[1].path()).await];
    // One wants everything, the other two of three groups, by two subscriptions.
    let queries: [&[&str]; 2] =
        [&["SELECT * FROM cars"], &["SELECT * FROM cars WHERE team = 0", "SELECT * FROM cars WHERE team = 1"]];
    let mut subscriptions: [Vec<SubscriptionId>; 2] = [Vec::new(), Vec::new()];
    for (peer, (queries, ids)) in peers.iter().zip(queries.iter().zip(&mut subscriptions)) {
        peer.connect(server.settings()).await.expect("connects");
        for query in *queries {
            ids.push(peer.subscribe(query, Params::new()).await.expect("subscribes"));
        }
    }
    for step in steps {
        play(&server, &peers, step).await;
    }
    for peer in &peers {
        peer.connect(server.settings()).await.expect("connects");
        peer.wait_pushed().await.expect("pushed");
    }
    let head = bigpeer_types::Lsn::new(server.log_len() as u64, 0);
    for (peer, ids) in peers.iter().zip(&subscriptions) {
        for id in ids {
            peer.wait_caught_up(*id).await.expect("catches up");
            peer.wait_for(*id, head).await.expect("receives");
        }
    }
    let truth = server.documents("cars");
    assert_eq!(rows(&peers[0], "SELECT * FROM cars").await, truth);
    let of_groups: Vec<String> =
        truth.into_iter().filter(|row| row.contains(r#""team":0"#) || row.contains(r#""team":1"#)).collect();
    assert_eq!(rows(&peers[1], "SELECT * FROM cars WHERE team IN (0, 1)").await, of_groups);
    for peer in &peers {
        peer.close().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn peers_and_server_converge(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        // A wait that never ends is a failure with a history that can be replayed, not a test that hangs.
        let limit = std::time::Duration::from_secs(30);
        runtime.block_on(async { tokio::time::timeout(limit, converge(steps)).await }).expect("every wait ends");
    }
}
