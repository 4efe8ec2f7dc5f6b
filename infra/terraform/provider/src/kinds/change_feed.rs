//! `bigpeer_change_feed`.

use bigpeer_feed_spec::FeedSpec;
use serde_json::{Map as Object, Value as Json, json};

use super::{Kind, members, name, named, of_app};
use crate::field::Field;

/// The blocks of which it has one, as the API calls them.
const SINKS: [&str; 2] = ["webhook", "kafka"];

pub(super) fn kind() -> Kind {
    let source = vec![
        Field::text("collection").required().doc("The collection. Each has one source."),
        Field::text("query").doc("A condition in DQL; without, all documents."),
        Field::text("on").or("view").doc(
            "What the condition is asked of: `view` (each image by itself: the source is the view of documents for which it \
             holds), or all of an event by the document `before` or `after` the change.",
        ),
        Field::texts("paths").or(json!([])).doc("Only changes at, below or above one of these."),
        Field::texts("fields").or(json!([])).doc("Only these fields, and `_id`."),
    ];
    let fields = vec![
        of_app(),
        named("What it is called: 1 to 63 of `a-z A-Z 0-9 . _ -`."),
        Field::text("owner").required().rule(name).doc("The API key of the app whose permissions it has, by name."),
        Field::blocks("source", source).json("sources").doc("What it is about; without, all that its owner may read."),
        Field::text("format").or("json").doc("The envelope of events: `json` (none) or `cloudevents`."),
        Field::text("values").or("untyped").doc("How values are written: `untyped`, as JSON has them, or `typed`."),
        Field::flag("snapshot").or(false).doc("Whether a new feed starts with all documents."),
        Field::text("cursor")
            .doc("Where a new feed starts; without, and without a snapshot, with what changes from then on."),
        Field::optional_block("webhook", webhook()).doc("An HTTP receiver: at least once, in order per document."),
        Field::optional_block("kafka", kafka())
            .doc("A topic: exactly once for consumers that read committed messages, in order per document."),
        Field::time("created_at").json("createdAt").answer().doc("When it was made, in RFC 3339."),
    ];
    Kind {
        example: include_str!("../../../examples/resources/bigpeer_change_feed/resource.tf"),
        to_api,
        from_api,
        check,
        one_of: &SINKS,
        ..Kind::new(
            "change_feed",
            "What happens in an app, as events, to a webhook or a topic of Kafka. It has one of the blocks `webhook` and \
             `kafka`. A change of it does not move it: it goes on where it was.",
            "apps/{app}/feeds/{name}",
            fields,
        )
    }
}

fn webhook() -> Vec<Field> {
    vec![
        Field::text("url").required().doc("Where to, http or https. Private addresses are for the operator to allow."),
        Field::texts("secrets").required().secret().doc(
            "What requests are signed with, 16 bytes at least: one, or two while one is changed, the new one first.",
        ),
        Field::whole("batch").or(1).doc("Most events in one request; with more than 1 it is an array."),
        Field::whole("concurrency").or(16).doc("Requests at once."),
        Field::whole("timeout_secs").json("timeoutSecs").or(30).doc("How long a request may take, in seconds."),
        Field::whole("max_attempts")
            .json("maxAttempts")
            .or(10)
            .doc("How often an event is tried that the receiver refuses."),
        Field::whole("give_up_after_secs")
            .json("giveUpAfterSecs")
            .or(86400)
            .doc("How long an event is tried, in seconds, whatever the receiver does."),
    ]
}

fn kafka() -> Vec<Field> {
    let create = vec![
        Field::whole("partitions").or(1).doc("Partitions of the topic."),
        Field::whole("replication").doc("Replicas; without, as the brokers say."),
        Field::whole("retention_ms")
            .json("retentionMs")
            .doc("How long messages are kept; without, as the brokers say."),
    ];
    let tls = vec![
        Field::text("ca").doc("Certificates of the authorities to trust, as PEM; without, the machine's."),
        Field::text("certificate").doc("A certificate of the feed's own, as PEM."),
        Field::text("key").secret().doc("Its key, as PEM."),
    ];
    let sasl = vec![
        Field::text("mechanism").required().doc("`PLAIN` (with `tls` only), `SCRAM-SHA-256` or `SCRAM-SHA-512`."),
        Field::text("username").required().doc("The user."),
        Field::text("password").required().secret().doc("The password."),
    ];
    vec![
        Field::text("brokers").required().doc("To begin with: `host:port`, several with commas between."),
        Field::text("topic").required().doc("The topic."),
        Field::optional_block("create", create)
            .doc("Makes the topic, and the one for dead letters, if they are not there."),
        Field::text("compression").or("lz4").doc("`lz4`, `gzip`, `snappy` or `none`."),
        Field::text("dead_letter_topic")
            .json("deadLetterTopic")
            .doc("Where it is told of events that are too large; without, `TOPIC.dead-letters`."),
        Field::whole("max_message_bytes").json("maxMessageBytes").or(1_000_000).doc("The largest message, in bytes."),
        Field::optional_block("tls", tls).doc("TLS to the brokers; `tls {}` with the machine's authorities."),
        Field::optional_block("sasl", sasl).doc("A user and password."),
    ]
}

/// `{"webhook": {…}}` becomes `{"sink": {"type": "webhook", …}}`.
fn to_api(mut fields: Object<String, Json>) -> Json {
    for name in SINKS {
        if let Some(Json::Object(mut sink)) = fields.remove(name) {
            sink.insert("type".to_owned(), name.into());
            fields.insert("sink".to_owned(), Json::Object(sink));
        }
    }
    Json::Object(fields)
}

/// And back, from an answer, which says of a feed more than what it is to be.
fn from_api(json: Json) -> Object<String, Json> {
    let mut answer = members(json);
    let mut fields = members(answer.remove("spec").unwrap_or_default());
    if let Some(sink) = fields.remove("sink")
        && let Some(name) = sink.get("type").and_then(Json::as_str).map(str::to_owned)
    {
        fields.insert(name, sink);
    }
    fields.extend(answer.remove("createdAt").map(|at| ("createdAt".to_owned(), at)));
    fields
}

fn check(json: &Json) -> Result<(), String> {
    let spec: FeedSpec = serde_json::from_value(json.clone()).map_err(|error| error.to_string())?;
    spec.check()
}
