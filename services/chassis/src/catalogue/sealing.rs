//! Sealing anew: after a new master key came, and for what was stored before there was one.

use bigpeer_log::{MetaError, MetaOp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::authorities::Authorities;
use super::identity::{Provider, provider_place};
use super::keys::Key;
use super::{ATTEMPTS, Catalogue, CatalogueError, SigningKeys, records};
use crate::keyring::{KeyringError, Sealed};

/// What older versions signed tokens with, unsealed.
const OLD_TOKEN_KEYS: &[u8] = b"catalogue/token-keys/";
const PAGE: usize = 500;

impl Catalogue {
    /// Seals every secret of the catalogue anew that the newest master key did not seal. Afterwards the others are needed no
    /// more for it. Answers how many records changed.
    ///
    /// # Errors
    /// When the log does not answer; what was done until then is done.
    pub async fn reseal(&self) -> Result<usize, CatalogueError> {
        let view = self.view();
        let mut changed = 0;
        for app in view.signing.keys() {
            let renew = |keys: &mut SigningKeys| {
                let mut any = false;
                for (place, sealed) in keys.sealed(app) {
                    any |= self.renew(&place, sealed)?;
                }
                Ok(any)
            };
            changed += usize::from(self.reseal_record(&Key::SigningKeys(app.clone()), renew).await?);
        }
        for app in view.authorities.keys() {
            let renew = |authorities: &mut Authorities| {
                let mut any = false;
                for (place, sealed) in authorities.sealed(app) {
                    any |= self.renew(&place, sealed)?;
                }
                Ok(any)
            };
            changed += usize::from(self.reseal_record(&Key::Authorities(app.clone()), renew).await?);
        }
        for (app, name) in view.providers.keys() {
            let place = provider_place(app, name);
            let renew = |provider: &mut Provider| {
                let mut any = false;
                for sealed in provider.sealed() {
                    any |= self.renew(&place, sealed)?;
                }
                Ok(any)
            };
            changed += usize::from(self.reseal_record(&Key::Provider(app.clone(), name.clone()), renew).await?);
        }
        for (key, _) in self.log.metadata().range(OLD_TOKEN_KEYS, None, PAGE).await? {
            self.log.metadata().commit(vec![MetaOp::Delete { key }]).await?;
            changed += 1;
        }
        if changed > 0 {
            self.reload().await?;
            tracing::info!(changed, "secrets are sealed with the newest master key");
        }
        Ok(changed)
    }

    fn renew(&self, place: &str, sealed: &mut Sealed) -> Result<bool, KeyringError> {
        if self.keyring.is_current(sealed) {
            return Ok(false);
        }
        *sealed = self.keyring.reseal(place, sealed, self.ids.as_ref())?;
        Ok(true)
    }

    async fn reseal_record<T, F>(&self, key: &Key, renew: F) -> Result<bool, CatalogueError>
    where
        T: Serialize + DeserializeOwned + Send + Sync,
        F: Fn(&mut T) -> Result<bool, KeyringError> + Send + Sync,
    {
        for _ in 0..ATTEMPTS {
            let Some(stored) = self.log.metadata().get(&key.encode()).await? else { return Ok(false) };
            let mut record: T = records::decode(key, &stored.value)?;
            if !renew(&mut record).map_err(|error| records::corrupt(key, error.to_string()))? {
                return Ok(false);
            }
            let ops = vec![
                MetaOp::Check { key: key.encode(), revision: Some(stored.revision) },
                MetaOp::Put { key: key.encode(), value: records::encode(&record)? },
            ];
            match self.log.metadata().commit(ops).await {
                Ok(_) => return Ok(true),
                Err(MetaError::Conflict { .. } | MetaError::Unknown { .. }) => {}
                Err(error @ (MetaError::Rejected { .. } | MetaError::Unavailable { .. })) => return Err(error.into()),
            }
        }
        Err(CatalogueError::Busy)
    }
}
