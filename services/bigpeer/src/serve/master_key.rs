//! The master keys that secrets are sealed with: from a file, from a command that asks whoever keeps them, from the
//! environment, or made for a server of one's own.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bigpeer_chassis::{Keyring, KeyringError};
use bigpeer_types::IdGenerator;
use clap::Args;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::failure::Failure;

/// Holds the keys themselves, one a line; no flag does, because flags are seen by everybody on the machine.
const VARIABLE: &str = "BIGPEER_MASTER_KEYS";
/// What is made below the data directory where nothing is given.
const FILE: &str = "master-key";
/// How long the command may take.
const COMMAND_TIME: Duration = Duration::from_secs(30);
/// Most bytes that the command may print.
const COMMAND_BYTES: u64 = 16 * 1024;

/// Flags that say where master keys come from.
#[derive(Args, Clone, Default)]
pub(super) struct MasterKeyArgs {
    /// File with the master keys that secrets are sealed with, one a line (64 hexadecimal digits or base64), the newest first;
    /// made in the data directory if neither it, nor a command, nor BIGPEER_MASTER_KEYS (the keys themselves) is given
    #[arg(long, env = "BIGPEER_MASTER_KEY_FILE", value_name = "FILE")]
    master_key_file: Option<PathBuf>,
    /// Command that prints them, run by /bin/sh at the start, such as one that asks a key management service
    #[arg(
        long,
        env = "BIGPEER_MASTER_KEY_COMMAND",
        value_name = "COMMAND",
        conflicts_with = "master_key_file",
        hide_env_values = true
    )]
    master_key_command: Option<String>,
}

impl std::fmt::Debug for MasterKeyArgs {
    /// A command may hold what it identifies itself with.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let command = self.master_key_command.as_ref().map(|_| "…");
        f.debug_struct("MasterKeyArgs").field("file", &self.master_key_file).field("command", &command).finish()
    }
}

impl MasterKeyArgs {
    /// The keys of the file, of the command, of the environment, or of the data directory, where one is made if there is none;
    /// not where the log is shared: processes on one log need the same.
    pub(super) async fn open(
        &self,
        data_dir: &Path,
        log_is_shared: bool,
        ids: &dyn IdGenerator,
    ) -> Result<Keyring, Failure> {
        if let Some(file) = &self.master_key_file {
            return read(file)?.ok_or_else(|| Failure::new(format!("there is no master key file {}", file.display())));
        }
        if let Some(command) = &self.master_key_command {
            return ask(command, COMMAND_TIME).await;
        }
        if let Ok(text) = std::env::var(VARIABLE) {
            return Keyring::parse(&text).map_err(|error| Failure::new(format!("{VARIABLE}: {error}")));
        }
        let file = data_dir.join(FILE);
        if log_is_shared {
            return Err(nothing_given(&file));
        }
        if let Some(keyring) = read(&file)? {
            return Ok(keyring);
        }
        super::private_dir(data_dir)?;
        let key = Keyring::generate(ids);
        make(&file, &key).map_err(|error| Failure::new(format!("cannot write {}: {error}", file.display())))?;
        Keyring::parse(&key).map_err(|error| Failure::new(error.to_string()))
    }
}

fn nothing_given(own: &Path) -> Failure {
    let before = if own.exists() {
        format!("This server made {} when it could; give that one to all of them. ", own.display())
    } else {
        "`openssl rand -hex 32` makes one. ".to_owned()
    };
    Failure::new(format!(
        "no master key is given, and all processes on a FoundationDB log need the same. {before}Give it to each with \
         --master-key-file, --master-key-command or {VARIABLE}; docs/auth.md says more under 'Secrets at rest'"
    ))
}

fn read(file: &Path) -> Result<Option<Keyring>, Failure> {
    match std::fs::read_to_string(file) {
        Ok(text) => Keyring::parse(&text)
            .map(Some)
            .map_err(|error: KeyringError| Failure::new(format!("{}: {error}", file.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::new(format!("cannot read {}: {error}", file.display()))),
    }
}

/// What `command` prints. Neither that, nor what it complains of, nor the command itself is ever shown: each may be secret.
async fn ask(command: &str, time: Duration) -> Result<Keyring, Failure> {
    let failed = |what: &str| {
        Failure::new(format!("the --master-key-command {what}; run it by hand, as the user of this server, to see why"))
    };
    let printed = async {
        let mut child = Command::new("/bin/sh")
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&format!("cannot be run by /bin/sh ({error})")))?;
        let mut printed = Vec::new();
        if let Some(out) = child.stdout.take() {
            let read = out.take(COMMAND_BYTES + 1).read_to_end(&mut printed).await;
            read.map_err(|error| failed(&format!("cannot be read from ({error})")))?;
        }
        if printed.len() as u64 > COMMAND_BYTES {
            return Err(failed(&format!("printed more than {COMMAND_BYTES} bytes")));
        }
        let status = child.wait().await.map_err(|error| failed(&format!("cannot be waited for ({error})")))?;
        if status.success() { Ok(printed) } else { Err(failed(&format!("failed ({status})"))) }
    };
    let printed = tokio::time::timeout(time, printed)
        .await
        .map_err(|_| failed(&format!("took longer than {} seconds", time.as_secs_f32())))??;
    let text = String::from_utf8(printed).map_err(|_| failed("printed no text"))?;
    Keyring::parse(&text).map_err(|error| failed(&format!("printed something else than master keys ({error})")))
}

/// Durable before anything is sealed with it: what is sealed with a key that was lost is lost.
fn make(file: &Path, key: &str) -> std::io::Result<()> {
    let new = file.with_extension("new");
    let mut options = std::fs::File::options();
    let mut out = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    writeln!(out, "# What secrets in the log are sealed with. Whoever loses it loses them.\n{key}")?;
    out.sync_all()?;
    std::fs::rename(&new, file)?;
    match file.parent() {
        Some(parent) => std::fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigpeer_types::SeededIds;

    async fn open(file: Option<&Path>, data_dir: &Path, seed: u64) -> Result<Keyring, Failure> {
        let args = MasterKeyArgs { master_key_file: file.map(Path::to_owned), master_key_command: None };
        args.open(data_dir, false, &SeededIds::new(seed)).await
    }

    #[tokio::test]
    async fn a_key_is_made_once_for_its_owner_only_and_others_are_read() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let made = open(None, dir.path(), 1).await.unwrap();
        let again = open(None, dir.path(), 2).await.unwrap();
        assert_eq!(made.ids(), again.ids());
        let file = dir.path().join(FILE);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let given = dir.path().join("given");
        assert!(open(Some(&given), dir.path(), 3).await.is_err());
        let both = format!("{}\n{}", Keyring::generate(&SeededIds::new(4)), std::fs::read_to_string(&file).unwrap());
        std::fs::write(&given, both).unwrap();
        let given = open(Some(&given), dir.path(), 3).await.unwrap();
        assert_eq!((given.ids().len(), given.ids()[1]), (2, made.ids()[0]));
        std::fs::write(&file, "not a key").unwrap();
        let error = open(None, dir.path(), 5).await.unwrap_err();
        assert!(error.to_string().contains("openssl rand") && !error.to_string().contains("not a key"));
    }

    #[tokio::test]
    async fn a_shared_log_needs_a_key_that_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let shared = MasterKeyArgs::default().open(dir.path(), true, &SeededIds::new(1)).await;
        let error = shared.unwrap_err().to_string();
        assert!(error.contains("openssl rand -hex 32") && error.contains("--master-key-file"), "{error}");
        assert!(!dir.path().join(FILE).exists());
        let _own = open(None, dir.path(), 1).await.unwrap();
        let error = MasterKeyArgs::default().open(dir.path(), true, &SeededIds::new(1)).await.unwrap_err().to_string();
        assert!(error.contains(&dir.path().join(FILE).display().to_string()), "{error}");
        let given = MasterKeyArgs { master_key_file: Some(dir.path().join(FILE)), ..MasterKeyArgs::default() };
        assert!(given.open(dir.path(), true, &SeededIds::new(1)).await.is_ok());
    }

    #[tokio::test]
    async fn a_command_prints_keys_and_nothing_of_it_is_shown() {
        let key = Keyring::generate(&SeededIds::new(1));
        let long = Duration::from_secs(60);
        let keyring = ask(&format!("echo '# from the vault'; echo {key}; echo chatter >&2"), long).await.unwrap();
        assert_eq!(keyring.ids(), Keyring::parse(&key).unwrap().ids());
        for (command, expected) in [
            ("echo sesame; echo sesame >&2; exit 3", "failed"),
            ("echo sesame", "something else than master keys"),
            ("true", "something else than master keys"),
            ("yes sesame", "more than"),
            ("/no/such/sesame", "failed"),
            ("printf '\\377sesame'", "no text"),
        ] {
            let error = ask(command, long).await.unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("by hand"), "{command}: {error}");
            assert!(!error.contains("sesame"), "{error}");
        }
        let error = ask("exec sleep 60", Duration::from_millis(20)).await.unwrap_err().to_string();
        assert!(error.contains("took longer"), "{error}");
        let args = MasterKeyArgs { master_key_command: Some("sesame".to_owned()), master_key_file: None };
        assert!(!format!("{args:?}").contains("sesame"));
    }
}
