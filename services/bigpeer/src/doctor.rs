//! `bigpeer doctor`: an app's objects against its manifests, its log, its attachments and its published tables.

use clap::Args;
use serde_json::{Value, json};

use crate::client::AdminArgs;
use crate::failure::Failure;
use crate::output;

/// What the process exits with when something is not as it should be.
const UNWELL: u8 = 3;

/// Flags of `bigpeer doctor`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer doctor               whether everything is there that manifests and published tables name
  bigpeer doctor --thorough    also every checksum, document and attachment: it reads everything
Exit codes: 0 all is well, 1 it could not be found out, 3 something is missing or damaged.")]
pub(crate) struct DoctorArgs {
    /// Also read everything: checksums of files, documents, attachments
    #[arg(long)]
    thorough: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// `bigpeer doctor`.
pub(crate) async fn run(args: DoctorArgs) -> Result<(), Failure> {
    let body = json!({"thorough": args.thorough});
    let seen = args.admin.resolve()?.ask(reqwest::Method::POST, "examine", Some(&body)).await?;
    tell(&seen)
}

/// Prints what an examination saw; a failure when something is missing or damaged.
pub(crate) fn tell(seen: &Value) -> Result<(), Failure> {
    let findings = seen["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for found in findings {
        output::line(&format!("{:<8} {}: {}", text(&found["kind"]), text(&found["what"]), text(&found["why"])))?;
    }
    let mut summary = format!("{} objects, {} bytes, manifest {}", seen["objects"], seen["bytes"], seen["manifest"]);
    if seen["documents"] != 0 {
        summary += &format!(", {} documents, {} attachments", seen["documents"], seen["attachments"]);
    }
    let unwell = findings.iter().filter(|found| found["kind"] != "extra").count();
    if unwell == 0 {
        output::note(&format!("{summary}: nothing is missing or damaged"));
        return Ok(());
    }
    Err(Failure { message: format!("{summary}: {unwell} missing or damaged"), code: UNWELL })
}
