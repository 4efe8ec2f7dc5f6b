//! The master keys that secrets are sealed with: from a file, from the environment, or made for a server of one's own.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bigpeer_chassis::{Keyring, KeyringError};
use bigpeer_types::IdGenerator;

use crate::failure::Failure;

/// Holds the keys themselves, one a line; no flag does, because flags are seen by everybody on the machine.
const VARIABLE: &str = "BIGPEER_MASTER_KEYS";
/// What is made below the data directory where nothing is given.
const FILE: &str = "master-key";

/// The keys of `file`, of the environment, or of the data directory, where one is made if there is none.
pub(super) fn open(file: Option<&Path>, data_dir: &Path, ids: &dyn IdGenerator) -> Result<Keyring, Failure> {
    if let Some(file) = file {
        return read(file)?.ok_or_else(|| Failure::new(format!("there is no master key file {}", file.display())));
    }
    if let Ok(text) = std::env::var(VARIABLE) {
        return Keyring::parse(&text).map_err(|error| Failure::new(format!("{VARIABLE}: {error}")));
    }
    let file = data_dir.join(FILE);
    if let Some(keyring) = read(&file)? {
        return Ok(keyring);
    }
    super::private_dir(data_dir)?;
    let key = Keyring::generate(ids);
    make(&file, &key).map_err(|error| Failure::new(format!("cannot write {}: {error}", file.display())))?;
    Keyring::parse(&key).map_err(|error| Failure::new(error.to_string()))
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

    #[test]
    fn a_key_is_made_once_for_its_owner_only_and_others_are_read() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let made = open(None, dir.path(), &SeededIds::new(1)).unwrap();
        let again = open(None, dir.path(), &SeededIds::new(2)).unwrap();
        assert_eq!(made.ids(), again.ids());
        let file = dir.path().join(FILE);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let given = dir.path().join("given");
        assert!(open(Some(&given), dir.path(), &SeededIds::new(3)).is_err());
        let both = format!("{}\n{}", Keyring::generate(&SeededIds::new(4)), std::fs::read_to_string(&file).unwrap());
        std::fs::write(&given, both).unwrap();
        let given = open(Some(&given), dir.path(), &SeededIds::new(3)).unwrap();
        assert_eq!((given.ids().len(), given.ids()[1]), (2, made.ids()[0]));
        std::fs::write(&file, "not a key").unwrap();
        let error = open(None, dir.path(), &SeededIds::new(5)).unwrap_err();
        assert!(error.to_string().contains("openssl rand") && !error.to_string().contains("not a key"));
    }
}
