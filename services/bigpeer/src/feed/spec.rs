//! `bigpeer feed create`: a feed from flags, or from a file.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use crate::client::AdminArgs;
use crate::failure::Failure;

/// Flags of `bigpeer feed create`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer feed create cars --collection cars --snapshot --kafka kafka-1:9092,kafka-2:9092 --topic cars \\
      --create-topic --partitions 6
  bigpeer feed create blue --collection cars --where \"color = 'blue'\" --webhook https://example.com/hook \\
      --secret-file hook.secret
  bigpeer feed create all --spec feed.json     everything else, such as TLS and passwords: docs/changes.md
A feed that there is already is changed, and stays where it stands.")]
pub(super) struct CreateArgs {
    /// Its name
    pub(super) name: String,
    /// The whole feed as JSON; instead of the flags below
    #[arg(long, value_name = "FILE", conflicts_with_all = ["owner", "collections", "condition", "snapshot", "webhook", "kafka"])]
    spec: Option<PathBuf>,
    /// The API key of the app whose permissions the feed has [default: dev]
    #[arg(long, value_name = "KEY NAME")]
    owner: Option<String>,
    /// A collection; several times for several; without, all
    #[arg(long = "collection", value_name = "NAME")]
    collections: Vec<String>,
    /// A DQL condition on the documents of the one collection
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// Start with all documents that there are
    #[arg(long)]
    snapshot: bool,
    /// URL of an HTTP receiver
    #[arg(long, value_name = "URL", requires = "secret_file", conflicts_with = "kafka")]
    webhook: Option<String>,
    /// File with the secret that requests are signed with
    #[arg(long, value_name = "FILE", requires = "webhook")]
    secret_file: Option<PathBuf>,
    /// Kafka brokers, as host:port,host:port
    #[arg(long, value_name = "BROKERS", requires = "topic")]
    kafka: Option<String>,
    /// The Kafka topic
    #[arg(long, value_name = "TOPIC", requires = "kafka")]
    topic: Option<String>,
    /// Make the topic, and the one for dead letters, if they do not exist
    #[arg(long, requires = "kafka")]
    create_topic: bool,
    /// Partitions of a topic that is made [default: 1]
    #[arg(long, value_name = "N", requires = "create_topic")]
    partitions: Option<u16>,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

fn read(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path);
    text.map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))
}

impl CreateArgs {
    /// The feed that the flags describe.
    ///
    /// # Errors
    /// When they describe none, or a file cannot be read.
    pub(super) fn spec(&self) -> Result<Value, Failure> {
        if let Some(path) = &self.spec {
            let spec = serde_json::from_str(&read(path)?);
            return spec.map_err(|error| Failure::new(format!("{} is not JSON: {error}", path.display())));
        }
        if self.condition.is_some() && self.collections.len() != 1 {
            return Err(Failure::new("--where is about one collection: name it with --collection"));
        }
        let source = |collection: &String| {
            let mut source = Map::from_iter([("collection".to_owned(), json!(collection))]);
            source.extend(self.condition.as_ref().map(|condition| ("query".to_owned(), json!(condition))));
            Value::Object(source)
        };
        let sources: Vec<Value> = self.collections.iter().map(source).collect();
        let owner = self.owner.as_deref().unwrap_or("dev");
        Ok(json!({ "owner": owner, "sources": sources, "snapshot": self.snapshot, "sink": self.sink()? }))
    }

    fn sink(&self) -> Result<Value, Failure> {
        match (&self.webhook, &self.secret_file, &self.kafka) {
            (Some(url), Some(file), _) => Ok(json!({ "type": "webhook", "url": url, "secrets": [read(file)?.trim()] })),
            (_, _, Some(brokers)) => {
                let mut sink = json!({ "type": "kafka", "brokers": brokers, "topic": self.topic });
                if self.create_topic {
                    sink["create"] = json!({ "partitions": self.partitions.unwrap_or(1) });
                }
                Ok(sink)
            }
            _ => Err(Failure::new("where does it go? give --webhook, --kafka or --spec")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        create: CreateArgs,
    }

    fn parsed(args: &[&str]) -> Result<Value, String> {
        let cli = Cli::try_parse_from(std::iter::once("create").chain(args.iter().copied()));
        cli.map_err(|error| error.to_string())?.create.spec().map_err(|failure| failure.message)
    }

    #[test]
    fn flags_become_a_feed() {
        let kafka = ["f", "--collection", "cars", "--where", "a = 1", "--kafka", "a:1,b:2", "--topic", "t"];
        let mut expected = json!({
            "owner": "dev", "sources": [{"collection": "cars", "query": "a = 1"}], "snapshot": false,
            "sink": {"type": "kafka", "brokers": "a:1,b:2", "topic": "t"}
        });
        assert_eq!(parsed(&kafka), Ok(expected.clone()));
        let more = ["--snapshot", "--create-topic", "--partitions", "3", "--owner", "sync"];
        expected["snapshot"] = json!(true);
        expected["owner"] = json!("sync");
        expected["sink"]["create"] = json!({"partitions": 3});
        assert_eq!(parsed(&[&kafka[..], &more[..]].concat()), Ok(expected));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "a secret that is long\n").unwrap();
        let path = file.path().to_str().unwrap();
        let webhook = parsed(&["f", "--webhook", "http://x/y", "--secret-file", path]).unwrap();
        assert_eq!(
            webhook["sink"],
            json!({"type": "webhook", "url": "http://x/y", "secrets": ["a secret that is long"]})
        );
        assert_eq!(webhook["sources"], json!([]));
        std::fs::write(&file, r#"{"owner": "x"}"#).unwrap();
        assert_eq!(parsed(&["f", "--spec", path]), Ok(json!({"owner": "x"})));
    }

    #[test]
    fn flags_that_are_no_feed_are_refused() {
        for bad in [
            &["f"][..],
            &["f", "--where", "a = 1", "--kafka", "a:1", "--topic", "t"],
            &["f", "--webhook", "http://x"],
            &["f", "--kafka", "a:1"],
            &["f", "--topic", "t"],
            &["f", "--kafka", "a:1", "--topic", "t", "--partitions", "3"],
            &["f", "--kafka", "a:1", "--topic", "t", "--webhook", "http://x", "--secret-file", "x"],
            &["f", "--spec", "x", "--snapshot"],
            &["f", "--spec", "/nowhere"],
        ] {
            assert!(parsed(bad).is_err(), "{bad:?}");
        }
    }
}
