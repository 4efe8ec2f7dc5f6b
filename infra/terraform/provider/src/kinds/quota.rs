//! `bigpeer_quota`.

use bigpeer_chassis::Quota;
use serde_json::Value as Json;

use super::{Kind, of_app};
use crate::field::Field;

pub(super) fn kind() -> Kind {
    let fields = vec![
        of_app(),
        Field::whole("requests_per_second").doc("Requests a second: statements, queries, attachments, streams."),
        Field::whole("request_burst").doc("Requests at once after a silence; without, those of one second."),
        Field::whole("key_requests_per_second").doc("Requests a second of each key or user."),
        Field::whole("bytes_in_per_second").doc("Bytes a second that come in: bodies of requests, frames of peers."),
        Field::whole("sessions").doc("Sync sessions at once."),
        Field::whole("subscriptions").doc("Subscriptions of all sessions together."),
        Field::whole("session_subscriptions").doc("Subscriptions of one session."),
        Field::whole("storage_bytes")
            .doc("Bytes of stored documents and attachments; beyond, only deletions are taken."),
        Field::whole("sql_queries").doc("SQL queries at once."),
        Field::whole("sql_time_secs").doc("Seconds that a SQL query may take."),
        Field::whole("sql_memory_bytes").doc("Bytes of memory for sorts, joins and groups of a SQL query."),
        Field::whole("feed_lag_bytes")
            .doc("Bytes of changes that are kept for feeds that lag; beyond, they meet a gap."),
    ];
    Kind {
        example: include_str!("../../../examples/resources/bigpeer_quota/resource.tf"),
        check,
        is_always_there: true,
        ..Kind::new(
            "quota",
            "What an app may use. Of what is not named it may use as much as the server has. What is counted by the second or \
             at once is counted by each process for itself. Deleted, it is no limit.",
            "apps/{app}/quota",
            fields,
        )
    }
}

fn check(json: &Json) -> Result<(), String> {
    serde_json::from_value::<Quota>(json.clone()).map(|_| ()).map_err(|error| error.to_string())
}
