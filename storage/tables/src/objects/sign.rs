//! URLs by which others fetch an attachment from S3 themselves, without credentials, for a short time.

use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{Error, Result};
use url::Url;

use crate::paths::ObjectPath;

/// Signs for reading attachments, and for nothing else: whatever it is asked for, no URL writes, or shows a segment.
#[derive(Debug)]
pub(super) struct AttachmentSigner {
    pub(super) store: AmazonS3,
    /// What the objects' names in the bucket begin with.
    pub(super) prefix: Path,
}

#[async_trait]
impl Signer for AttachmentSigner {
    async fn signed_url(&self, method: Method, path: &Path, expires_in: Duration) -> Result<Url> {
        let is_attachment = matches!(ObjectPath::parse(path), Some(ObjectPath::Attachment(..)));
        if method != Method::GET || !is_attachment {
            let source = format!("{method} {path} is no reading of an attachment; no URL is signed for it");
            return Err(Error::NotSupported { source: source.into() });
        }
        let path = self.prefix.parts().chain(path.parts()).collect();
        self.store.signed_url(method, &path, expires_in).await
    }
}
