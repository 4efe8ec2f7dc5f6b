//! Credentials and region for S3, from where the AWS tools have them, in their order: the environment, the profile
//! (`AWS_PROFILE` or `default`: keys, or a `credential_process`), a web identity, the container, the instance.
//!
//! The first and the last three are `object_store`'s own. Profiles that assume roles or sign in are refused with the way out:
//! a `credential_process` that asks the AWS command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use async_trait::async_trait;
use bigpeer_types::Clock;
use object_store::aws::{AmazonS3Builder, AwsCredential};
use object_store::{CredentialProvider, Error};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::ObjectsError;

/// Credentials that end sooner than this are asked for again.
const EARLY_MS: u64 = 300_000;

/// Longest time for a `credential_process`.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(60);

/// Largest file of profiles, and largest answer of a process, in bytes.
const MAX_BYTES: u64 = 1 << 20;

const DEFAULT_REGION: &str = "us-east-1";

/// The environment, by names.
type Environment<'a> = &'a (dyn Fn(&str) -> Option<String> + Send + Sync);

/// A builder with credentials and region.
pub(super) async fn find(
    env: Environment<'_>,
    region: Option<&str>,
    clock: &Arc<dyn Clock>,
) -> Result<AmazonS3Builder, ObjectsError> {
    let profile = Profile::load(env).await?;
    let in_env = env("AWS_REGION").or_else(|| env("AWS_DEFAULT_REGION"));
    let region = region.map(str::to_owned).or(in_env).or_else(|| profile.get("region").map(str::to_owned));
    let builder = AmazonS3Builder::from_env().with_region(region.as_deref().unwrap_or(DEFAULT_REGION));
    if env("AWS_ACCESS_KEY_ID").is_some() {
        return Ok(builder);
    }
    if let Some(key) = profile.get("aws_access_key_id") {
        let secret = profile.need("aws_secret_access_key")?;
        let builder = builder.with_access_key_id(key).with_secret_access_key(secret);
        return Ok(match profile.get("aws_session_token") {
            Some(token) => builder.with_token(token),
            None => builder,
        });
    }
    if let Some(command) = profile.get("credential_process") {
        let process = Process { command: command.to_owned(), clock: Arc::clone(clock), known: Mutex::default() };
        let found = process.get_credential().await;
        found.map_err(|error| ObjectsError::Settings(error.to_string()))?;
        return Ok(builder.with_credentials(Arc::new(process)));
    }
    for (setting, what) in [("role_arn", "assumes a role"), ("sso_session", "signs in"), ("sso_start_url", "signs in")]
    {
        if profile.get(setting).is_some() {
            let name = &profile.name;
            return Err(ObjectsError::Settings(format!(
                "the AWS profile '{name}' {what}, which needs the AWS command line: give another profile the line \
                 credential_process = aws configure export-credentials --profile {name}"
            )));
        }
    }
    Ok(builder)
}

/// The settings of one profile.
#[derive(Debug, Default)]
struct Profile {
    name: String,
    settings: BTreeMap<String, String>,
}

impl Profile {
    /// The profile that the environment names. One that is named must exist; the default one need not.
    async fn load(env: Environment<'_>) -> Result<Self, ObjectsError> {
        let named = env("AWS_PROFILE").filter(|name| !name.is_empty());
        let name = named.clone().unwrap_or_else(|| "default".to_owned());
        let in_home = |file: &str| env("HOME").map(|home| Path::new(&home).join(".aws").join(file));
        let place = |variable: &str, file: &str| env(variable).map(PathBuf::from).or_else(|| in_home(file));
        let mut settings = BTreeMap::new();
        let mut found = false;
        // What the file of credentials says counts more.
        for (variable, file) in [("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")] {
            let Some(path) = place(variable, file) else { continue };
            let Some(text) = read(&path).await? else { continue };
            let sections = sections(&text);
            let section = sections.get(&name).or_else(|| sections.get(&format!("profile {name}")));
            found |= section.is_some();
            settings.extend(section.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
        }
        if let Some(name) = named.filter(|_| !found && env("AWS_ACCESS_KEY_ID").is_none()) {
            return Err(ObjectsError::Settings(format!("there is no AWS profile '{name}' (AWS_PROFILE)")));
        }
        Ok(Self { name, settings })
    }

    fn get(&self, setting: &str) -> Option<&str> {
        self.settings.get(setting).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn need(&self, setting: &str) -> Result<&str, ObjectsError> {
        let missing = || ObjectsError::Settings(format!("the AWS profile '{}' has no {setting}", self.name));
        self.get(setting).ok_or_else(missing)
    }
}

async fn read(path: &Path) -> Result<Option<String>, ObjectsError> {
    let failed = |error: std::io::Error| ObjectsError::Settings(format!("cannot read {}: {error}", path.display()));
    match tokio::fs::metadata(path).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(meta) if meta.len() > MAX_BYTES => return Err(failed(std::io::ErrorKind::FileTooLarge.into())),
        Ok(_) => {}
    }
    tokio::fs::read_to_string(path).await.map(Some).map_err(failed)
}

/// `[section]` and `key = value` lines; lines that begin with a space go on a nested setting, which is not ours.
fn sections(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut all: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut section = None;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) || line.starts_with([' ', '\t']) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
            section = Some(all.entry(name).or_default());
        } else if let (Some(section), Some((key, value))) = (&mut section, trimmed.split_once('=')) {
            // A comment within a line needs a space before it.
            let value = value.split(" #").next().unwrap_or_default().trim();
            section.insert(key.trim().to_ascii_lowercase(), value.to_owned());
        }
    }
    all
}

/// Credentials that a program prints, kept until shortly before they end. Many who ask at once wait for one answer.
#[derive(Debug)]
struct Process {
    command: String,
    clock: Arc<dyn Clock>,
    known: Mutex<Option<(Arc<AwsCredential>, u64)>>,
}

/// What such a program prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    version: u32,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<String>,
}

#[async_trait]
impl CredentialProvider for Process {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut known = self.known.lock().await;
        if let Some((credential, ends_ms)) = &*known
            && *ends_ms > self.clock.now_ms().saturating_add(EARLY_MS)
        {
            return Ok(Arc::clone(credential));
        }
        let failed = |reason: String| Error::Generic {
            store: "S3",
            source: format!("the credential_process of the AWS profile: {reason}").into(),
        };
        let printed = self.run().await.map_err(failed)?;
        let credential = Arc::new(AwsCredential {
            key_id: printed.access_key_id,
            secret_key: printed.secret_access_key,
            token: printed.session_token,
        });
        let ends_ms = match printed.expiration {
            None => u64::MAX,
            Some(text) => {
                let ends = string_to_timestamp_nanos(&text).map_err(|error| failed(error.to_string()))?;
                u64::try_from(ends / 1_000_000).unwrap_or(0)
            }
        };
        *known = Some((Arc::clone(&credential), ends_ms));
        Ok(credential)
    }
}

impl Process {
    /// Runs the program. What it prints is a secret and stays out of messages.
    async fn run(&self) -> Result<Printed, String> {
        let mut command = tokio::process::Command::new("sh");
        command.arg("-c").arg(&self.command).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
        let output = tokio::time::timeout(PROCESS_TIMEOUT, command.output()).await;
        let output = output.map_err(|_| format!("no answer within {} s", PROCESS_TIMEOUT.as_secs()))?;
        let output = output.map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(format!("it failed ({})", output.status));
        }
        let printed: Printed = serde_json::from_slice(&output.stdout).map_err(|error| {
            format!("its answer is not as expected (line {}, column {})", error.line(), error.column())
        })?;
        if printed.version == 1 { Ok(printed) } else { Err(format!("it answers in version {}", printed.version)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigpeer_types::ManualClock;
    use object_store::aws::AmazonS3ConfigKey;

    async fn found(
        files: &[(&str, &str)],
        env: &[(&str, &str)],
    ) -> Result<(Option<String>, Option<String>, Option<String>), String> {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        for (name, text) in files {
            std::fs::write(home.path().join(".aws").join(name), text).unwrap();
        }
        let path = home.path().to_str().unwrap().to_owned();
        let lookup = |name: &str| {
            let set = env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            if name == "HOME" { Some(path.clone()) } else { set }
        };
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(1_000));
        let builder = find(&lookup, None, &clock).await.map_err(|error| error.to_string())?;
        let value = |key| builder.get_config_value(&key);
        Ok((
            value(AmazonS3ConfigKey::AccessKeyId),
            value(AmazonS3ConfigKey::SecretAccessKey),
            value(AmazonS3ConfigKey::Region),
        ))
    }

    const CONFIG: &str = "# mine\n[default]\nregion = eu-west-3\ns3 =\n  max_queue_size = 10\n[profile  work]\nregion=us-west-2\n\
        [profile role]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = work\n";
    const CREDENTIALS: &str = "[default]\naws_access_key_id = A\naws_secret_access_key = a # a comment\n\
        [work]\nAWS_ACCESS_KEY_ID=B\naws_secret_access_key=b/+=\n[half]\naws_access_key_id = C\n";

    #[tokio::test]
    async fn profiles_are_read_from_both_files() {
        let files = [("config", CONFIG), ("credentials", CREDENTIALS)];
        let some = |a: &str, b: &str, c: &str| (Some(a.to_owned()), Some(b.to_owned()), Some(c.to_owned()));
        assert_eq!(found(&files, &[]).await.unwrap(), some("A", "a", "eu-west-3"));
        let work = ("AWS_PROFILE", "work");
        assert_eq!(found(&files, &[work]).await.unwrap(), some("B", "b/+=", "us-west-2"));
        assert_eq!(found(&files, &[work, ("AWS_REGION", "x")]).await.unwrap().2.as_deref(), Some("x"));
        assert_eq!(found(&[], &[]).await.unwrap().2.as_deref(), Some("us-east-1"));
        for (profile, expected) in [
            ("nobody", "there is no AWS profile 'nobody'"),
            ("half", "has no aws_secret_access_key"),
            ("role", "credential_process = aws configure export-credentials --profile role"),
        ] {
            let error = found(&files, &[("AWS_PROFILE", profile)]).await.unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn a_process_is_asked_again_shortly_before_its_credentials_end() {
        let dir = tempfile::tempdir().unwrap();
        let count = dir.path().join("count");
        let answer = r#"{"Version":1,"AccessKeyId":"K","SecretAccessKey":"S","SessionToken":"T","Expiration":"1970-01-01T01:00:00Z"}"#;
        let command = format!("echo x >> {}; echo '{answer}'", count.display());
        let clock = Arc::new(ManualClock::new(0));
        let process = Process { command, clock: Arc::clone(&clock) as _, known: Mutex::default() };
        let runs = || std::fs::read_to_string(&count).unwrap().lines().count();
        let (first, second) = tokio::join!(process.get_credential(), process.get_credential());
        assert_eq!((first.unwrap().key_id.as_str(), second.unwrap().token.as_deref(), runs()), ("K", Some("T"), 1));
        clock.set(54 * 60_000);
        process.get_credential().await.unwrap();
        assert_eq!(runs(), 1);
        clock.set(56 * 60_000);
        process.get_credential().await.unwrap();
        assert_eq!(runs(), 2);
    }

    #[tokio::test]
    async fn what_a_process_does_wrong_is_told_without_what_it_printed() {
        for (command, expected) in [
            ("exit 3", "it failed (exit status: 3)"),
            ("echo secret", "its answer is not as expected (line 1, column 1)"),
            (r#"echo '{"Version":2,"AccessKeyId":"K","SecretAccessKey":"S"}'"#, "it answers in version 2"),
        ] {
            let files = [("config", &*format!("[default]\ncredential_process = {command}\n"))];
            let error = found(&files, &[]).await.unwrap_err();
            assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        }
    }
}
