//! Which transaction log `bigpeer serve` works on.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use bigpeer_log::{EmbeddedLog, EmbeddedSettings, TransactionLog};

use super::private_dir;

/// What `--log` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LogChoice {
    /// On the local disk, for this process alone.
    Embedded,
    /// In a FoundationDB cluster, for any number of processes.
    FoundationDb {
        /// The cluster's file.
        file: PathBuf,
        /// What the log's keys start with, if not with the default.
        prefix: Option<String>,
    },
}

impl FromStr for LogChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("fdb:") {
            None if text == "embedded" => Ok(Self::Embedded),
            Some(place) if !place.is_empty() && !place.starts_with('#') && !place.ends_with('#') => {
                let (file, prefix) = place.split_once('#').map_or((place, None), |(file, prefix)| (file, Some(prefix)));
                Ok(Self::FoundationDb { file: file.into(), prefix: prefix.map(str::to_owned) })
            }
            Some(_) | None => {
                Err("expected 'embedded', or 'fdb:FILE' or 'fdb:FILE#PREFIX' with the path of a cluster file \
                                   and what the log's keys start with; what is logged to standard error is said by \
                                   --log-filter"
                    .to_owned())
            }
        }
    }
}

/// Opens the log that was chosen; an embedded one in `dir`.
pub(super) async fn open(choice: &LogChoice, dir: &Path) -> Result<Arc<dyn TransactionLog>, String> {
    match choice {
        LogChoice::Embedded => {
            let dir = dir.to_owned();
            let opened = tokio::task::spawn_blocking(move || {
                private_dir(&dir)?;
                EmbeddedLog::open(&dir, EmbeddedSettings::default()).map_err(|error| error.to_string())
            });
            Ok(Arc::new(opened.await.map_err(|error| error.to_string())??))
        }
        LogChoice::FoundationDb { file, prefix } => foundationdb(file, prefix.as_deref()).await,
    }
}

#[cfg(feature = "foundationdb")]
async fn foundationdb(file: &Path, prefix: Option<&str>) -> Result<Arc<dyn TransactionLog>, String> {
    let mut settings = bigpeer_log::FdbSettings::default();
    if let Some(prefix) = prefix {
        settings.prefix = prefix.as_bytes().to_vec();
    }
    let log = bigpeer_log::FdbLog::open(file, settings).await;
    Ok(Arc::new(log.map_err(|error| error.to_string())?))
}

#[cfg(not(feature = "foundationdb"))]
#[allow(clippy::unused_async, reason = "as the one that is built with the feature")]
async fn foundationdb(file: &Path, _prefix: Option<&str>) -> Result<Arc<dyn TransactionLog>, String> {
    Err(format!(
        "this bigpeer was built without FoundationDB and cannot open {}; build it with `--features foundationdb`",
        file.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_is_read() {
        assert_eq!("embedded".parse(), Ok(LogChoice::Embedded));
        let fdb = |prefix: Option<&str>| {
            Ok(LogChoice::FoundationDb { file: "/etc/fdb.cluster".into(), prefix: prefix.map(str::to_owned) })
        };
        assert_eq!("fdb:/etc/fdb.cluster".parse(), fdb(None));
        assert_eq!("fdb:/etc/fdb.cluster#two".parse(), fdb(Some("two")));
        for bad in ["", "fdb:", "fdb:#x", "fdb:/f#", "info", "/etc/fdb.cluster"] {
            assert!(bad.parse::<LogChoice>().is_err(), "{bad}");
        }
    }
}
