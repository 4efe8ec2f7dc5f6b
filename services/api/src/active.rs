//! The statements that are running now: `system:active_requests`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bigpeer_crdt::{Object, Value};
use bigpeer_types::AppId;

/// Most of a statement that is shown, in characters.
const MAX_TEXT: usize = 1000;

/// Statements by number.
#[derive(Debug, Default)]
pub(crate) struct ActiveRequests {
    running: Mutex<(u64, BTreeMap<u64, Request>)>,
}

#[derive(Debug)]
struct Request {
    app: AppId,
    text: String,
    started_ms: u64,
    request_id: Option<String>,
}

/// While it is held, the statement is running.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    of: &'a ActiveRequests,
    number: u64,
}

impl ActiveRequests {
    pub(crate) fn start(&self, app: &AppId, text: &str, started_ms: u64, request_id: Option<String>) -> Running<'_> {
        let text = text.chars().take(MAX_TEXT).collect();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.0 += 1;
        let number = running.0;
        running.1.insert(number, Request { app: app.clone(), text, started_ms, request_id });
        Running { of: self, number }
    }

    /// The app's, in the order in which they began.
    pub(crate) fn rows(&self, app: &AppId) -> Vec<Object> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let row = |(number, request): (&u64, &Request)| {
            let mut row: Object = [
                ("_id", Value::from(*number)),
                ("text", Value::from(request.text.as_str())),
                ("state", Value::from("running")),
                ("start_time", Value::from(request.started_ms)),
            ]
            .into_iter()
            .collect();
            if let Some(id) = &request.request_id {
                row.insert("request_id", Value::from(id.as_str()));
            }
            row
        };
        running.1.iter().filter(|(_, request)| request.app == *app).map(row).collect()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.of.running.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&self.number);
    }
}
