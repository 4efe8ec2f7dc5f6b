//! Turns: the order in which they are given, their bounds, and that none is lost.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;

fn app(name: &str) -> AppId {
    AppId::new(name).unwrap()
}

fn key(name: &str) -> Account {
    Account::Key(name.parse().unwrap())
}

fn turns(running: usize, waiting: usize) -> Turns {
    Turns::new(TurnLimits { running, waiting, patience: Duration::from_secs(600) })
}

type Taking<'a> = Pin<Box<dyn Future<Output = Result<Turn, NoTurn>> + 'a>>;

/// What became of it by now.
fn poll(taking: &mut Taking<'_>) -> Option<Result<Turn, NoTurn>> {
    match taking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

#[tokio::test(start_paused = true)]
async fn while_one_app_floods_the_statement_of_another_is_next() {
    let turns = turns(2, 1000);
    let running = [turns.take(Asker::new(app("a"))).await.unwrap(), turns.take(Asker::new(app("a"))).await.unwrap()];
    let mut flood: Vec<Taking<'_>> = (0..300).map(|_| Box::pin(turns.take(Asker::new(app("a")))) as _).collect();
    assert!(flood.iter_mut().all(|taking| poll(taking).is_none()));
    let mut b: Taking<'_> = Box::pin(turns.take(Asker::new(app("b"))));
    let mut c: Taking<'_> = Box::pin(turns.take(Asker::new(app("c"))));
    assert!(poll(&mut b).is_none() && poll(&mut c).is_none());
    let [first, second] = running;
    drop(first);
    let of_b = poll(&mut b).expect("it has fewest turns").unwrap();
    drop(second);
    let of_a = poll(&mut flood[0]).expect("none of it runs, and it waits longest").unwrap();
    drop(of_b);
    let of_c = poll(&mut c).expect("it has fewest turns").unwrap();
    assert!(flood[1..].iter_mut().all(|taking| poll(taking).is_none()), "in the order in which they came");
    drop((of_a, of_c));
    assert_eq!(flood[1..3].iter_mut().filter_map(poll).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn apps_that_wait_alike_take_turns() {
    let turns = turns(1, 1000);
    let mut running = Some(turns.take(Asker::new(app("x"))).await.unwrap());
    let mut waiting: Vec<(&str, Taking<'_>)> = Vec::new();
    for (name, count) in [("a", 60), ("b", 3), ("c", 2)] {
        for _ in 0..count {
            waiting.push((name, Box::pin(turns.take(Asker::new(app(name)))) as _));
        }
    }
    assert!(waiting.iter_mut().all(|(_, taking)| poll(taking).is_none()));
    let mut order = String::new();
    while order.len() < 12 {
        drop(running.take());
        let called = waiting.iter_mut().enumerate().find_map(|(at, (_, taking))| Some((at, poll(taking)?)));
        let (at, turn) = called.unwrap();
        running = Some(turn.unwrap());
        order.push_str(waiting.remove(at).0);
    }
    assert_eq!(order, "abcabcabaaaa");
}

#[tokio::test(start_paused = true)]
async fn an_app_takes_neither_every_turn_nor_every_place_in_line() {
    let turns = turns(8, 8);
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(turns.take(Asker::new(app("a"))).await.unwrap());
    }
    let mut waiting: Vec<Taking<'_>> = (0..4).map(|_| Box::pin(turns.take(Asker::new(app("a")))) as _).collect();
    assert!(waiting.iter_mut().all(|taking| poll(taking).is_none()));
    assert_eq!(turns.take(Asker::new(app("a"))).await.unwrap_err(), NoTurn::OfApp(6));
    // Another finds a turn at once.
    held.push(turns.take(Asker::new(app("b"))).await.unwrap());
    held.push(turns.take(Asker::new(app("b"))).await.unwrap());
    let mut others: Vec<Taking<'_>> =
        ["b", "c", "d", "e", "f", "g", "h"].map(|name| Box::pin(turns.take(Asker::new(app(name)))) as _).into();
    assert!(others.iter_mut().all(|taking| poll(taking).is_none()), "the first of an app may always wait");
    assert_eq!(turns.waiting(), 11);
    assert_eq!(turns.take(Asker::new(app("b"))).await.unwrap_err(), NoTurn::OfAll(8));
    drop(others);
    drop(waiting);
    drop(held);
    assert_eq!((turns.running(), turns.waiting()), (0, 0));
    assert!(turns.0.state().apps.is_empty() && turns.0.state().circle.is_empty());
}

#[tokio::test(start_paused = true)]
async fn keys_and_apps_have_bounds_of_their_own_and_who_cannot_run_holds_up_nobody() {
    let turns = turns(4, 10);
    let of = |name: &str| Asker::new(app("a")).of_key(key(name), 1);
    let first = turns.take(of("k")).await.unwrap();
    let mut second: Taking<'_> = Box::pin(turns.take(of("k")));
    assert!(poll(&mut second).is_none());
    let other = turns.take(of("l")).await.unwrap();
    assert_eq!(turns.take(Asker::new(app("b")).of_app(0)).await.unwrap_err(), NoTurn::OfApp(0));
    let one = turns.take(Asker::new(app("b")).of_app(1)).await.unwrap();
    let mut two: Taking<'_> = Box::pin(turns.take(Asker::new(app("b")).of_app(1)));
    assert!(poll(&mut two).is_none());
    drop(other);
    assert!(poll(&mut second).is_none(), "its key runs one");
    drop(one);
    assert!(poll(&mut two).unwrap().is_ok());
    drop(first);
    assert!(poll(&mut second).unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_told_why() {
    let turns = Turns::new(TurnLimits { running: 1, waiting: 10, patience: Duration::from_secs(3) });
    let _running = turns.take(Asker::new(app("a"))).await.unwrap();
    let begun = tokio::time::Instant::now();
    assert_eq!(turns.take(Asker::new(app("b"))).await.unwrap_err(), NoTurn::OfAll(1));
    assert_eq!((begun.elapsed(), turns.waiting()), (Duration::from_secs(3), 0));
    let asker = Asker::new(app("a")).of_key(key("k"), 0);
    assert_eq!(turns.take(asker).await.unwrap_err(), NoTurn::OfKey(0));
    assert_eq!(begun.elapsed(), Duration::from_secs(3), "there is nothing to wait for");
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_nobody_took_goes_to_the_next() {
    let turns = turns(1, 10);
    let running = turns.take(Asker::new(app("a"))).await.unwrap();
    let mut gone: Taking<'_> = Box::pin(turns.take(Asker::new(app("b"))));
    let mut next: Taking<'_> = Box::pin(turns.take(Asker::new(app("c"))));
    assert!(poll(&mut gone).is_none() && poll(&mut next).is_none());
    // It is called, and does not look any more.
    drop(running);
    assert!(poll(&mut next).is_none());
    drop(gone);
    assert!(poll(&mut next).unwrap().is_ok());
    assert_eq!(turns.running(), 0);
    let waiting = pin!(turns.take(Asker::new(app("a"))));
    assert!(waiting.await.is_ok());
}

#[derive(Clone, Debug)]
enum Step {
    Ask(usize, usize),
    End(usize),
    GiveUp(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4_usize, 0..3_usize).prop_map(|(app, key)| Step::Ask(app, key)),
        3 => any::<usize>().prop_map(Step::End),
        1 => any::<usize>().prop_map(Step::GiveUp),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    /// Nothing is lost, no bound is broken, and whenever a turn is free nobody waits who could have it.
    #[test]
    fn turns_are_used_and_bounds_hold(steps in steps(), most in 1..6_usize, of_key in 1..4_usize, of_app in 1..5_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _inside = runtime.enter();
        let turns = turns(most, 40);
        let (mut running, mut waiting) = (Vec::<(usize, usize, Turn)>::new(), Vec::<(usize, usize, Taking<'_>)>::new());
        for step in steps {
            match step {
                Step::Ask(a, k) => {
                    let asker = Asker::new(app(&format!("app{a}"))).of_app(of_app).of_key(key(&format!("key{k}")), of_key);
                    waiting.push((a, k, Box::pin(turns.take(asker))));
                }
                Step::End(at) if !running.is_empty() => drop(running.remove(at % running.len())),
                Step::GiveUp(at) if !waiting.is_empty() => drop(waiting.remove(at % waiting.len())),
                Step::End(_) | Step::GiveUp(_) => {}
            }
            let mut still = Vec::new();
            for (a, k, mut taking) in std::mem::take(&mut waiting) {
                match poll(&mut taking) {
                    Some(Ok(turn)) => running.push((a, k, turn)),
                    Some(Err(_)) => {}
                    None => still.push((a, k, taking)),
                }
            }
            waiting = still;
            prop_assert_eq!((turns.running(), turns.waiting()), (running.len(), waiting.len()));
            prop_assert!(running.len() <= most);
            let count = |a: usize, k: Option<usize>| {
                running.iter().filter(|(app, key, _)| *app == a && k.is_none_or(|k| k == *key)).count()
            };
            let share = of_app.min(turns.0.share);
            for (a, k, _) in &running {
                prop_assert!(count(*a, None) <= share && count(*a, Some(*k)) <= of_key);
            }
            for (a, k, _) in &waiting {
                let could = running.len() < most && count(*a, None) < share && count(*a, Some(*k)) < of_key;
                prop_assert!(!could, "somebody waits who could run");
            }
        }
        drop((running, waiting));
        prop_assert!(turns.0.state().apps.is_empty() && turns.0.state().circle.is_empty());
        prop_assert_eq!((turns.running(), turns.waiting()), (0, 0));
    }
}
