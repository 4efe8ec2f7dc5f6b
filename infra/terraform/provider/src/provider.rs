//! `BigpeerProvider`: the provider's own block, and what it offers.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use tf_provider::schema::Schema;
use tf_provider::value::ValueEmpty;
use tf_provider::{AttributePath, Diagnostics, DynamicDataSource, DynamicResource, Provider};

use crate::client::{Client, endpoint};
use crate::connection::Connection;
use crate::data_source::ApiDataSource;
use crate::field::{Field, schema};
use crate::kinds::{self, Kind};
use crate::resource::ApiResource;
use crate::value::{Map, Val, as_map, as_text, attribute};

const ENDPOINT: &str = "BIGPEER_ENDPOINT";
const TOKEN: &str = "BIGPEER_ADMIN_TOKEN";

/// What the provider is, for its schema and its documentation.
pub(crate) const DOC: &str = "Tenants, apps, API keys, authentication providers, roles, quotas and change feeds of a bigpeer \
                              server, through its admin API.";

/// The provider.
#[derive(Debug)]
pub(crate) struct BigpeerProvider {
    kinds: Vec<Arc<Kind>>,
    connection: Connection,
}

/// The attributes of the provider's block.
pub(crate) fn fields() -> Vec<Field> {
    vec![
        Field::text("endpoint").doc(
            "Where the server is: `http://HOST:PORT` or `https://HOST:PORT`. Without, the environment's `BIGPEER_ENDPOINT`.",
        ),
        Field::text("token").secret().doc("An admin token. Without, the environment's `BIGPEER_ADMIN_TOKEN`."),
        Field::text("ca_file").doc("A file with certificates of authorities to trust besides the usual ones, as PEM."),
    ]
}

impl BigpeerProvider {
    pub(crate) fn new() -> Self {
        Self { kinds: kinds::all().into_iter().map(Arc::new).collect(), connection: Connection::default() }
    }
}

/// A setting, or what the environment says; `None` while it is unknown.
fn setting(config: &Map, name: &str, variable: &str) -> Option<String> {
    let given = attribute(config, name);
    if given.is_unknown() {
        return None;
    }
    let from_environment = || std::env::var(variable).unwrap_or_default();
    Some(as_text(given).map_or_else(from_environment, str::to_owned))
}

/// Whether the token would be read by everybody between here and the server.
fn is_in_the_clear(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    url.scheme() == "http" && !is_here
}

#[async_trait]
impl Provider for BigpeerProvider {
    type Config<'a> = Val;
    type MetaState<'a> = ValueEmpty;

    fn schema(&self, _diags: &mut Diagnostics) -> Option<Schema> {
        Some(schema(&fields(), DOC, false))
    }

    async fn validate<'a>(&self, diags: &mut Diagnostics, config: Val) -> Option<()> {
        let given = as_map(&config).and_then(|config| as_text(attribute(config, "endpoint")));
        if let Some(Err(message)) = given.map(endpoint) {
            diags.error_short(message, AttributePath::new("endpoint"));
        }
        Some(())
    }

    async fn configure<'a>(&self, diags: &mut Diagnostics, _terraform: String, config: Val) -> Option<()> {
        let config = as_map(&config).cloned().unwrap_or_default();
        let ca_file = attribute(&config, "ca_file");
        let (Some(base), Some(token)) = (setting(&config, "endpoint", ENDPOINT), setting(&config, "token", TOKEN))
        else {
            return Some(());
        };
        if ca_file.is_unknown() {
            return Some(());
        }
        for (name, value, variable) in [("endpoint", &base, ENDPOINT), ("token", &token, TOKEN)] {
            if value.is_empty() {
                let detail = format!("Set it in the provider's block, or {variable} in the environment.");
                diags.error(format!("The provider needs '{name}'"), detail, AttributePath::new(name));
            }
        }
        let ca = match as_text(ca_file).map(std::fs::read).transpose() {
            Ok(ca) => ca,
            Err(error) => {
                diags.error("The file cannot be read", error.to_string(), AttributePath::new("ca_file"));
                None
            }
        };
        if !diags.errors.is_empty() {
            return None;
        }
        let base =
            endpoint(&base).map_err(|message| diags.error_short(message, AttributePath::new("endpoint"))).ok()?;
        if is_in_the_clear(&base) {
            let detail = "It goes over plain HTTP to another machine, where anybody between can read it. Use https.";
            diags.warning("The admin token is not protected", detail, AttributePath::new("endpoint"));
        }
        match Client::new(base, token, ca.as_deref()) {
            Ok(client) => self.connection.set(client),
            Err(message) => diags.root_error_short(message),
        }
        Some(())
    }

    fn get_resources(&self, _diags: &mut Diagnostics) -> Option<HashMap<String, Box<dyn DynamicResource>>> {
        let one = |kind: &Arc<Kind>| {
            let resource = ApiResource { kind: Arc::clone(kind), connection: self.connection.clone() };
            (kind.name.to_owned(), Box::new(resource) as Box<dyn DynamicResource>)
        };
        Some(self.kinds.iter().map(one).collect())
    }

    fn get_data_sources(&self, _diags: &mut Diagnostics) -> Option<HashMap<String, Box<dyn DynamicDataSource>>> {
        let one = |kind: &Arc<Kind>| {
            let source = ApiDataSource { kind: Arc::clone(kind), connection: self.connection.clone() };
            (kind.name.to_owned(), Box::new(source) as Box<dyn DynamicDataSource>)
        };
        Some(self.kinds.iter().filter(|kind| kind.is_data_source).map(one).collect())
    }
}
