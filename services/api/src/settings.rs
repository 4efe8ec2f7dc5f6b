//! The limits of the data API.

use std::sync::Arc;
use std::time::Duration;

use object_store::signer::Signer;

/// The limits of the data API. The defaults are production's.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// How long one statement may take before it is answered 408.
    pub statement_timeout: Duration,
    /// How long `X-DITTO-TXN-ID` waits for its transaction before it is answered 404.
    pub transaction_wait: Duration,
    /// Largest answer, in bytes of JSON.
    pub max_answer_bytes: usize,
    /// How many statements run at once; others wait for their turn.
    pub max_concurrent_statements: usize,
    /// How many statements wait for their turn at once; more are answered 429.
    pub max_waiting_statements: usize,
    /// How long a statement waits for its turn before it is answered 429.
    pub turn_wait: Duration,
    /// How often a mutation is run again because what it read changed.
    pub max_attempts: usize,
    /// How often a transaction of several statements is run again before it is answered 409.
    pub max_transaction_attempts: usize,
    /// From how many documents in files on a collection's scans are answered from columns where they can be.
    pub columns_from_rows: u64,
    /// Those of attachments.
    pub attachments: AttachmentSettings,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            statement_timeout: Duration::from_secs(30),
            transaction_wait: Duration::from_secs(5),
            max_answer_bytes: 64 << 20,
            max_concurrent_statements: 256,
            max_waiting_statements: 4096,
            turn_wait: Duration::from_secs(10),
            max_attempts: 1000,
            max_transaction_attempts: 20,
            columns_from_rows: 20_000,
            attachments: AttachmentSettings::default(),
        }
    }
}

/// The limits of attachments. The defaults are production's.
#[derive(Clone, Debug)]
pub struct AttachmentSettings {
    /// Largest attachment, in bytes.
    pub max_bytes: u64,
    /// How many are received at once; more are answered 429. Each takes about 10 MiB of memory.
    pub max_concurrent_uploads: usize,
    /// How long after its beginning an upload that is not complete is kept.
    pub upload_ttl: Duration,
    /// Signs URLs for whoever asks to be redirected to object storage; none: all bytes go through this process.
    pub signer: Option<Arc<dyn Signer>>,
    /// How long such a URL is good for.
    pub signed_url_ttl: Duration,
}

impl Default for AttachmentSettings {
    fn default() -> Self {
        Self {
            max_bytes: 5 << 30,
            max_concurrent_uploads: 32,
            upload_ttl: Duration::from_secs(24 * 3600),
            signer: None,
            signed_url_ttl: Duration::from_secs(300),
        }
    }
}
