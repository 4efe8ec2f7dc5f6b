//! The resume state of one import: which site it writes as, so that the log's last `seq` of that site says how much is
//! durable already. One small file for each (server's app, collection, files' content, way of reading).

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bigpeer_types::SiteId;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

/// The state's format; a file of another format is refused.
const VERSION: u32 = 1;

/// What must be the same for an import to be continued.
pub(super) struct Identity {
    hasher: Xxh3,
}

impl Identity {
    /// An identity that starts with these texts.
    pub(super) fn new(texts: &[&str]) -> Self {
        let mut identity = Self { hasher: Xxh3::new() };
        for text in texts {
            identity.text(text);
        }
        identity
    }

    fn text(&mut self, text: &str) {
        self.hasher.update(&(text.len() as u64).to_le_bytes());
        self.hasher.update(text.as_bytes());
    }

    /// Adds a file's content; answers the content's own hash.
    pub(super) fn file(&mut self, path: &Path) -> io::Result<u128> {
        let (mut file, mut content) = (File::open(path)?, Xxh3::new());
        let mut buffer = vec![0; 1 << 18];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => content.update(buffer.get(..read).unwrap_or_default()),
            }
        }
        let hash = content.digest128();
        self.hasher.update(&hash.to_le_bytes());
        Ok(hash)
    }

    /// The identity as the name of its state file.
    pub(super) fn file_name(&self) -> String {
        format!("{:032x}.json", self.hasher.digest128())
    }
}

/// The content of the state file. The token proves that the site is this importer's; the file is for its user only.
#[derive(Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    /// The site that the import writes as.
    pub site: SiteId,
    /// The access token of that site.
    pub token: String,
}

impl State {
    pub(super) fn new(site: SiteId, token: String) -> Self {
        Self { version: VERSION, site, token }
    }

    /// The state at `path`, if there is one.
    pub(super) fn load(path: &Path) -> Result<Option<Self>, String> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read the import's state {}: {error}", path.display())),
        };
        let unusable =
            |what: String| format!("the import's state {} {what}; remove it to start the import anew", path.display());
        let state: Self = serde_json::from_str(&text).map_err(|error| unusable(format!("is damaged ({error})")))?;
        if state.version == VERSION {
            Ok(Some(state))
        } else {
            Err(unusable(format!("has version {}, this program writes {VERSION}", state.version)))
        }
    }

    /// Writes the state whole or not at all, readable by this user only.
    pub(super) fn save(&self, path: &Path) -> Result<(), String> {
        let write = || -> io::Result<()> {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder)?;
            let temporary = path.with_extension("new");
            let mut options = File::options();
            options.write(true).create(true).truncate(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&temporary)?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&temporary, path)?;
            File::open(folder)?.sync_all()
        };
        write().map_err(|error| format!("cannot write the import's state {}: {error}", path.display()))
    }
}

/// Where states are kept when no `--state` says otherwise.
pub(super) fn default_folder() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let state = std::env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    state.or_else(home).unwrap_or_else(std::env::temp_dir).join("bigpeer/imports")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_back_and_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below/state.json");
        assert!(State::load(&path).unwrap().is_none());
        State::new(SiteId::new(7), "token".to_owned()).save(&path).unwrap();
        let state = State::load(&path).unwrap().unwrap();
        assert_eq!((state.site, state.token.as_str()), (SiteId::new(7), "token"));
        std::fs::write(&path, "{").unwrap();
        assert!(State::load(&path).err().unwrap().contains("remove it"));
    }

    #[test]
    fn other_content_is_another_import() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.csv");
        let name = |content: &str, texts: &[&str]| {
            std::fs::write(&path, content).unwrap();
            let mut identity = Identity::new(texts);
            identity.file(&path).unwrap();
            identity.file_name()
        };
        assert_eq!(name("a", &["app", "x"]), name("a", &["app", "x"]));
        assert_ne!(name("a", &["app", "x"]), name("b", &["app", "x"]));
        assert_ne!(name("a", &["app", "x"]), name("a", &["appx", ""]));
    }
}
