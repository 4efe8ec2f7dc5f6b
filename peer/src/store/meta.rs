//! The store's few single values, each with its key and form.

use bigpeer_types::{AppId, Hlc, Lsn, SiteId};
use rusqlite::types::{FromSql, ToSql};
use rusqlite::{OptionalExtension, params};

use super::subscriptions::lsn_from_blob;
use super::work::{Tables, Work};
use crate::identity::{Certificate, PeerKey};
use crate::status::Status;
use crate::{PeerError, Secret};

/// Every key of the table `meta`.
#[derive(Clone, Copy, Debug)]
enum Key {
    /// The app, text.
    App,
    /// The site, text.
    Site,
    /// Newest clock reading handed out or seen, integer bits.
    Clock,
    /// Sequence number of the newest local transaction, integer.
    Committed,
    /// Sequence number up to which the server answered for, integer.
    Acknowledged,
    /// An LSN at or after those, 12 bytes.
    AcknowledgedLsn,
    /// The access token, text. The file's mode protects it.
    Token,
    /// When the token ends, milliseconds since the epoch, integer.
    TokenExpires,
    /// The refresh token that gives the next, text; empty when there is none.
    RefreshToken,
    /// The peer's own key, 32 bytes.
    Seed,
    /// The certificate for it, text; empty when there is none.
    Certificate,
    /// When the certificate ends, milliseconds since the epoch, integer.
    CertificateExpires,
}

impl Key {
    const fn name(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Site => "site",
            Self::Clock => "clock",
            Self::Committed => "committed",
            Self::Acknowledged => "acknowledged",
            Self::AcknowledgedLsn => "acknowledged_lsn",
            Self::Token => "token",
            Self::TokenExpires => "token_expires",
            Self::RefreshToken => "refresh_token",
            Self::Seed => "peer_key",
            Self::Certificate => "certificate",
            Self::CertificateExpires => "certificate_expires",
        }
    }
}

/// An access token and when it ends.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) token: Secret,
    /// Milliseconds since the epoch.
    pub(crate) expires_ms: u64,
    /// What gives the next; with servers that have none, the access token does.
    pub(crate) refresh: Option<Secret>,
}

impl Token {
    /// What to show for the next one.
    pub(crate) fn for_the_next(&self) -> &Secret {
        self.refresh.as_ref().unwrap_or(&self.token)
    }
}

impl Tables<'_> {
    fn meta<T: FromSql>(&self, key: Key) -> Result<Option<T>, PeerError> {
        let mut query = self.connection.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
        Ok(query.query_row([key.name()], |row| row.get(0)).optional()?)
    }

    fn meta_number(&self, key: Key) -> Result<u64, PeerError> {
        Ok(self.meta::<i64>(key)?.map_or(0, i64::cast_unsigned))
    }

    /// The site that the store writes as.
    pub(crate) fn site(&self) -> Result<Option<SiteId>, PeerError> {
        let text = self.meta::<String>(Key::Site)?;
        text.map(|text| text.parse().map_err(|_| PeerError::Damaged(format!("site '{text}'")))).transpose()
    }

    /// The app that the store belongs to.
    pub(crate) fn app(&self) -> Result<Option<AppId>, PeerError> {
        let text = self.meta::<String>(Key::App)?;
        text.map(|text| text.parse().map_err(|_| PeerError::Damaged(format!("app '{text}'")))).transpose()
    }

    /// The newest clock reading handed out or seen.
    pub(crate) fn clock(&self) -> Result<Hlc, PeerError> {
        Ok(Hlc::from_bits(self.meta_number(Key::Clock)?))
    }

    /// The token of the last login, however old.
    pub(crate) fn token(&self) -> Result<Option<Token>, PeerError> {
        let expires_ms = self.meta_number(Key::TokenExpires)?;
        let refresh = self.meta::<String>(Key::RefreshToken)?.filter(|text| !text.is_empty()).map(Secret::new);
        let token = self.meta::<String>(Key::Token)?;
        Ok(token.map(|token| Token { token: Secret::new(token), expires_ms, refresh }))
    }

    /// The peer's own key, once it was made.
    pub(crate) fn key(&self) -> Result<Option<PeerKey>, PeerError> {
        self.meta::<Vec<u8>>(Key::Seed)?.map(|seed| PeerKey::of_seed(&seed)).transpose()
    }

    /// The certificate of the last login, however old.
    pub(crate) fn certificate(&self) -> Result<Option<Certificate>, PeerError> {
        let expires_ms = self.meta_number(Key::CertificateExpires)?;
        let chain = self.meta::<String>(Key::Certificate)?.filter(|chain| !chain.is_empty());
        Ok(chain.map(|chain| Certificate { chain, expires_ms }))
    }

    /// Everything of the status that is stored.
    pub(super) fn stored_status(&self) -> Result<Status, PeerError> {
        let lsn = self.meta::<Vec<u8>>(Key::AcknowledgedLsn)?;
        let acknowledged = self.meta_number(Key::Acknowledged)?;
        Ok(Status {
            connection: crate::Connection::Offline,
            app: self.app()?,
            site: self.site()?,
            committed: self.meta_number(Key::Committed)?,
            unpushed: self.count_unpushed(acknowledged)?,
            acknowledged,
            acknowledged_lsn: lsn.as_deref().map(lsn_from_blob).transpose()?,
            uploads: self.count_pending_attachments()?,
            rejections: self.count_rejections()?,
            subscriptions: self.stored_subscription_status()?,
        })
    }
}

impl Work<'_> {
    fn set_meta(&mut self, key: Key, value: impl ToSql) -> Result<(), PeerError> {
        let mut put = self.tables.connection.prepare_cached(
            "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        )?;
        put.execute(params![key.name(), value])?;
        Ok(())
    }

    fn set_meta_number(&mut self, key: Key, value: u64) -> Result<(), PeerError> {
        self.set_meta(key, value.cast_signed())
    }

    /// Makes the store the app's and the site's, the first time; refuses another app or site afterwards.
    pub(crate) fn adopt(&mut self, app: &AppId, site: SiteId) -> Result<(), PeerError> {
        match self.tables.app()? {
            Some(store) if store != *app => return Err(PeerError::OtherApp { store, asked: app.clone() }),
            Some(_) => {}
            None => self.set_meta(Key::App, app.as_str())?,
        }
        match self.tables.site()? {
            Some(store) if store != site => return Err(PeerError::OtherSite { store, given: site }),
            Some(_) => {}
            None => self.set_meta(Key::Site, site.to_string())?,
        }
        self.status.app = Some(app.clone());
        self.status.site = Some(site);
        Ok(())
    }

    /// Gives the store another site of the same app; sequence numbers start over.
    ///
    /// # Errors
    /// [`PeerError::OtherSite`] when there are transactions of the old site that are not pushed: they cannot be pushed
    /// as another site's.
    pub(crate) fn replace_site(&mut self, site: SiteId) -> Result<(), PeerError> {
        if let Some(store) = self.tables.site()?
            && self.status.unpushed > 0
        {
            return Err(PeerError::OtherSite { store, given: site });
        }
        self.set_meta(Key::Site, site.to_string())?;
        self.status.site = Some(site);
        self.status.acknowledged = 0;
        self.set_meta_number(Key::Acknowledged, 0)?;
        self.set_committed(0)?;
        self.tables.connection.execute_batch("DELETE FROM unpushed; DELETE FROM unpushed_changes;")?;
        Ok(())
    }

    /// A session begins: nothing has caught up in it, nothing is refused.
    pub(crate) fn begin_session(&mut self) {
        for status in self.status.subscriptions.values_mut() {
            status.caught_up = false;
            status.refused = None;
        }
    }

    /// Keeps what a login gave for the next connect.
    pub(crate) fn set_login(&mut self, token: &Token, certificate: Option<&Certificate>) -> Result<(), PeerError> {
        self.set_certificate(certificate)?;
        self.set_meta(Key::Token, token.token.reveal())?;
        self.set_meta(Key::RefreshToken, token.refresh.as_ref().map_or("", Secret::reveal))?;
        self.set_meta_number(Key::TokenExpires, token.expires_ms)
    }

    /// Keeps the certificate, or none: that of a login before may name another site.
    pub(crate) fn set_certificate(&mut self, certificate: Option<&Certificate>) -> Result<(), PeerError> {
        self.set_meta(Key::Certificate, certificate.map_or("", |certificate| certificate.chain.as_str()))?;
        self.set_meta_number(Key::CertificateExpires, certificate.map_or(0, |certificate| certificate.expires_ms))
    }

    /// The peer's own key: `new`, unless there is one already.
    pub(crate) fn key_or(&mut self, new: PeerKey) -> Result<PeerKey, PeerError> {
        if let Some(key) = self.tables.key()? {
            return Ok(key);
        }
        self.set_meta(Key::Seed, new.seed().as_slice())?;
        Ok(new)
    }

    /// Keeps the newest clock reading.
    pub(crate) fn set_clock(&mut self, clock: Hlc) -> Result<(), PeerError> {
        self.set_meta_number(Key::Clock, clock.to_bits())
    }

    /// Keeps the newest local sequence number.
    pub(super) fn set_committed(&mut self, seq: u64) -> Result<(), PeerError> {
        self.status.committed = seq;
        self.set_meta_number(Key::Committed, seq)
    }

    /// Keeps what the server answered for.
    pub(super) fn set_acknowledged(&mut self, seq: u64, lsn: Option<Lsn>) -> Result<(), PeerError> {
        if seq > self.status.acknowledged {
            self.status.acknowledged = seq;
            self.set_meta_number(Key::Acknowledged, seq)?;
        }
        if lsn > self.status.acknowledged_lsn
            && let Some(lsn) = lsn
        {
            self.status.acknowledged_lsn = Some(lsn);
            self.set_meta(Key::AcknowledgedLsn, lsn.to_bytes().as_slice())?;
        }
        Ok(())
    }
}
