//! One commit of many requests: decides, writes, and finds out what became of it.
//!
//! # Crash safety
//! A commit whose outcome the cluster cannot tell is tried again, reading first. If a site's last entry carries the mark
//! (nonce) of an earlier try, that try happened, whole, and its outcomes are answered. If none does, either it did not
//! happen, or every one of its sites has been written since by somebody else: then its entries are duplicates. A try that is
//! still on its way cannot do harm: it depends on the same `seq`s as the one that is committed in its place.

use std::sync::Arc;

use tokio::time::Instant;

use super::cluster::{Again, CommitFailure, ErrorCode, Stamp, Transaction};
use super::core::{Core, Trouble};
use super::known::Known;
use super::plan::{Attempt, Plan};
use super::queue::Request;
use super::view::View;
use crate::{AppendError, AppendOutcome};

type Outcomes = Vec<Vec<AppendOutcome>>;

/// Does requests in one commit and answers them.
pub(crate) async fn run(core: &Arc<Core>, requests: Vec<Request>) {
    let result = commit(core, &requests).await;
    match result {
        Ok(outcomes) => {
            for (request, outcomes) in requests.into_iter().zip(outcomes) {
                // Whoever does not wait any more is not told.
                let _ = request.reply.send(Ok(outcomes));
            }
        }
        Err(error) => {
            tracing::warn!(%error, requests = requests.len(), "an append was given up");
            for request in requests {
                let _ = request.reply.send(Err(error.clone()));
            }
        }
    }
}

/// What one try came to.
enum Tried {
    Done(Outcomes),
    /// What was remembered is not enough to refuse an entry.
    LookAgain,
    /// It did not happen.
    Failed(Trouble, Again),
    /// It may have happened.
    Unknown(ErrorCode, Again, Attempt),
}

async fn commit(core: &Core, requests: &[Request]) -> Result<Outcomes, AppendError> {
    let mut tries = core.tries();
    let mut unknown: Vec<Attempt> = Vec::new();
    let mut view = View::remembered(core, requests);
    let give_up = |trouble: Trouble, unknown: &[Attempt]| {
        let reason = trouble.reason();
        if unknown.is_empty() { AppendError::Unavailable { reason } } else { AppendError::Unknown { reason } }
    };
    loop {
        let transaction = tries.begin().map_err(|code| give_up(code.into(), &unknown))?;
        let (trouble, again) = match attempt(core, requests, transaction, view.take(), &unknown).await {
            Tried::Done(outcomes) => return Ok(outcomes),
            Tried::LookAgain => continue,
            Tried::Failed(trouble, again) => (trouble, again),
            Tried::Unknown(code, again, attempt) => {
                unknown.push(attempt);
                (code.into(), again)
            }
        };
        core.known.forget(requests.iter().flat_map(Request::sites).collect::<Vec<_>>().iter());
        let Trouble::Code(code) = trouble else { return Err(give_up(trouble, &unknown)) };
        tries.failed(code, again).await.map_err(|code| give_up(code.into(), &unknown))?;
    }
}

async fn attempt(
    core: &Core,
    requests: &[Request],
    transaction: Box<dyn Transaction>,
    remembered: Option<View>,
    unknown: &[Attempt],
) -> Tried {
    let is_remembered = remembered.is_some();
    let view = match remembered {
        Some(view) => view,
        None => match View::read(core, &*transaction, requests).await {
            Ok(view) => view,
            Err(trouble) => return failed(transaction, trouble),
        },
    };
    if let Some(outcomes) = unknown.iter().find_map(|attempt| attempt.resolve(&view)) {
        return Tried::Done(outcomes);
    }
    let mut plan = Plan::decide(requests, &view);
    if is_remembered && !plan.is_accepted() {
        return Tried::LookAgain;
    }
    if !plan.writes() {
        return Tried::Done(plan.outcomes(Stamp::default()));
    }
    if let Some(version) = view.version {
        transaction.set_read_version(version);
    }
    let nonce = core.settings.ids.next_u64();
    if let Err(code) = plan.write(core, &*transaction, nonce) {
        return failed(transaction, code.into());
    }
    let since = Instant::now();
    match transaction.commit().await {
        Ok(stamp) => {
            core.known.learn(plan.sites(stamp).map(|(site, seq, lsn)| (site, Known { seq, lsn, since })));
            for (number, head) in plan.heads(stamp) {
                if let Some(request) = requests.iter().find(|request| request.number == number) {
                    core.tails.advance(&request.app, head);
                }
            }
            Tried::Done(plan.outcomes(stamp))
        }
        Err(CommitFailure { code, again }) if code.may_have_committed() => {
            Tried::Unknown(code, again, plan.attempt(nonce))
        }
        Err(CommitFailure { code, again }) => Tried::Failed(code.into(), again),
    }
}

fn failed(transaction: Box<dyn Transaction>, trouble: Trouble) -> Tried {
    let code = match trouble {
        Trouble::Code(code) => code,
        // Not tried again.
        Trouble::Damage(_) => ErrorCode::TRANSACTION_CANCELLED,
    };
    Tried::Failed(trouble, transaction.on_error(code))
}
