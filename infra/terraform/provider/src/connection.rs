//! `Connection`: the server that the provider's block names, once it has been read.

use std::sync::{Arc, PoisonError, RwLock};

use tf_provider::Diagnostics;

use crate::client::Client;

/// What resources share: they are made before the provider is configured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connection(Arc<RwLock<Option<Arc<Client>>>>);

impl Connection {
    pub(crate) fn set(&self, client: Client) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(client));
    }

    /// The client, or an error for whoever needs one.
    pub(crate) fn client(&self, diags: &mut Diagnostics) -> Option<Arc<Client>> {
        let client = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        if client.is_none() {
            diags.root_error(
                "The provider does not know its server yet",
                "Its 'endpoint' and 'token' must be known when a plan is made: they cannot come from a resource that is yet \
                 to be made in the same run.",
            );
        }
        client
    }
}
