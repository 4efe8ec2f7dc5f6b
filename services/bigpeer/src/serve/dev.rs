//! What a developer needs to start: a tenant, an app, an API key and an admin token, made at the first start and written to
//! a file that only its owner can read.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, HeaderValue, header};
use bigpeer_chassis::{ApiKeySpec, Catalogue, CatalogueError, Door, Name, NameError, Permissions, Reach};
use bigpeer_types::AppId;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

const FILE: &str = "dev-credentials.json";
/// What tenant, app, key and admin token are called.
const NAME: &str = "dev";

/// The file's content.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DevCredentials {
    pub(super) url: String,
    pub(super) app: AppId,
    pub(super) api_key: String,
    pub(super) admin_token: String,
}

/// The credentials, and whether they were made just now.
pub(super) struct Dev {
    pub(super) credentials: DevCredentials,
    pub(super) path: PathBuf,
    pub(super) is_new: bool,
}

/// The credentials of `data_dir` for a server at `url`: those of the file as long as they open what they should, else new
/// ones.
pub(super) async fn prepare(catalogue: &Catalogue, data_dir: &Path, url: &str) -> Result<Dev, Failure> {
    let path = data_dir.join(FILE);
    let old = read(&path)?.filter(|old| still_opens(catalogue, old));
    let is_new = old.is_none();
    let credentials = match &old {
        Some(old) => DevCredentials { url: url.to_owned(), ..old.clone() },
        None => {
            make(catalogue, url).await.map_err(|error| Failure::new(format!("no development credentials: {error}")))?
        }
    };
    if old.as_ref() != Some(&credentials) {
        write(&path, &credentials)
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
    }
    Ok(Dev { credentials, path, is_new })
}

fn read(path: &Path) -> Result<Option<DevCredentials>, Failure> {
    match std::fs::read_to_string(path) {
        // What cannot be understood is replaced: the file is ours.
        Ok(text) => Ok(serde_json::from_str(&text).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::new(format!("cannot read {}: {error}", path.display()))),
    }
}

fn still_opens(catalogue: &Catalogue, credentials: &DevCredentials) -> bool {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&format!("Bearer {}", credentials.admin_token)) {
        headers.insert(header::AUTHORIZATION, value);
    }
    catalogue.authenticate_api_key(&credentials.app, Door::Data, &credentials.api_key).is_ok()
        && catalogue.authenticate_admin(&headers).is_ok_and(|admin| admin.reach == Reach::Operator)
}

async fn make(catalogue: &Catalogue, url: &str) -> Result<DevCredentials, CatalogueError> {
    let name: Name = NAME.parse().map_err(|error: NameError| CatalogueError::Rejected { reason: error.to_string() })?;
    catalogue.create_tenant(&name).await?;
    let app = catalogue.create_app(&name, &name).await?.id;
    // Secrets of which the file was lost can't be had again.
    catalogue.delete_api_key(&app, &name).await?;
    catalogue.delete_admin(&name).await?;
    let spec = ApiKeySpec { permissions: Permissions::all(), expires_at_ms: None, ..Default::default() };
    let (_, api_key) = catalogue.put_api_key(&app, &name, spec).await?;
    let admin = catalogue.create_admin(&name).await?;
    let (Some(api_key), Some(admin)) = (api_key, admin) else { return Err(CatalogueError::Busy) };
    Ok(DevCredentials {
        url: url.to_owned(),
        app,
        api_key: api_key.expose().to_owned(),
        admin_token: admin.expose().to_owned(),
    })
}

fn write(path: &Path, credentials: &DevCredentials) -> std::io::Result<()> {
    let new = path.with_extension("json.new");
    let mut options = std::fs::File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let mut text = serde_json::to_string_pretty(credentials)?;
    text.push('\n');
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use bigpeer_log::MemoryLog;
    use bigpeer_types::{RandomIds, SystemClock};

    async fn catalogue() -> Arc<Catalogue> {
        Catalogue::open(Arc::new(MemoryLog::new()), Arc::new(SystemClock), Arc::new(RandomIds)).await.unwrap()
    }

    #[tokio::test]
    async fn the_file_stays_valid_and_follows_the_address() {
        let (dir, catalogue) = (tempfile::tempdir().unwrap(), catalogue().await);
        let first = prepare(&catalogue, dir.path(), "http://a:1").await.ok().unwrap();
        assert!(first.is_new);
        assert_eq!(std::fs::metadata(&first.path).unwrap().permissions().mode() & 0o777, 0o600);
        let second = prepare(&catalogue, dir.path(), "http://b:2").await.ok().unwrap();
        assert!(!second.is_new);
        let DevCredentials { url, app, api_key, admin_token } = read(&second.path).unwrap().unwrap();
        assert_eq!(url, "http://b:2");
        let old = first.credentials;
        assert!((&app, &api_key, &admin_token) == (&old.app, &old.api_key, &old.admin_token));
    }

    #[tokio::test]
    async fn a_lost_or_foreign_file_is_replaced_and_the_old_secrets_end() {
        let (dir, catalogue) = (tempfile::tempdir().unwrap(), catalogue().await);
        let first = prepare(&catalogue, dir.path(), "http://a:1").await.ok().unwrap();
        for broken in ["", "{}", "not json"] {
            std::fs::write(&first.path, broken).unwrap();
            let next = prepare(&catalogue, dir.path(), "http://a:1").await.ok().unwrap();
            assert!(next.is_new && next.credentials.app == first.credentials.app);
            assert!(still_opens(&catalogue, &next.credentials) && !still_opens(&catalogue, &first.credentials));
        }
    }
}
