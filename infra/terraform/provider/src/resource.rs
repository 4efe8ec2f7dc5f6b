//! `ApiResource`: any kind of resource, over the admin API: plan, create, read, update, delete, import.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value as Json;
use tf_provider::schema::Schema;
use tf_provider::value::{Value, ValueEmpty};
use tf_provider::{AttributePath, Diagnostics, Resource};

use crate::client::{Client, Failure};
use crate::connection::Connection;
use crate::field::{Field, schema};
use crate::kinds::Kind;
use crate::mapping::{moved, plan, request, state};
use crate::rules::problems;
use crate::value::{Known, Map, Val, as_map, as_text, attribute, object, text};

/// What keeps a resource from being deleted.
const PROTECTION: &str = "deletion_protection";

/// A kind of resource, on a server.
#[derive(Debug)]
pub(crate) struct ApiResource {
    pub(crate) kind: Arc<Kind>,
    pub(crate) connection: Connection,
}

/// The path of the API for what a state or plan is of; none, when that is not known yet.
pub(crate) fn path(kind: &Kind, map: &Map) -> Option<Vec<String>> {
    let part = |part: &str| match part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        Some(field) => as_text(attribute(map, field)).map(str::to_owned),
        None => Some(part.to_owned()),
    };
    kind.path.split('/').map(part).collect()
}

/// What it is called in messages.
fn called(kind: &Kind, map: &Map) -> String {
    let place: Vec<&str> = kind.place().filter_map(|field| as_text(attribute(map, field.name))).collect();
    format!("bigpeer_{} {}", kind.name, place.join("/"))
}

fn tell(diags: &mut Diagnostics, summary: String, failure: &Failure) {
    diags.root_error(summary, failure.to_string());
}

fn is_protected(map: &Map) -> bool {
    *attribute(map, PROTECTION) == Value::Value(Known::Flag(true))
}

fn refuse_deletion(diags: &mut Diagnostics, called: &str) {
    let detail = "To delete it, set deletion_protection = false and apply; then destroy or replace it.";
    diags.error(format!("{called} is protected from deletion"), detail, AttributePath::new(PROTECTION));
}

impl ApiResource {
    fn planned(&self, config: &Map, prior: Option<&Map>) -> Map {
        let mut planned = plan(&self.kind.fields, config, prior);
        (self.kind.adjust)(&mut planned);
        planned
    }

    fn body(&self, planned: &Map) -> Json {
        (self.kind.to_api)(request(&self.kind.fields, planned))
    }

    fn state(&self, answer: Json, before: &Map) -> Val {
        object(state(&self.kind.fields, &(self.kind.from_api)(answer), before))
    }

    /// What is asked for and where, for a state or plan.
    fn place(&self, diags: &mut Diagnostics, value: &Val) -> Option<(Arc<Client>, Map, Vec<String>)> {
        let client = self.connection.client(diags)?;
        let map = as_map(value).cloned().unwrap_or_default();
        let Some(path) = path(&self.kind, &map) else {
            diags.root_error_short(format!("{}: it is not known where it is", called(&self.kind, &map)));
            return None;
        };
        Some((client, map, path))
    }

    /// Makes what is not there, and does so again if what is shown once was lost on the way.
    async fn make(&self, client: &Client, path: &[String], body: &Json) -> Result<Json, Failure> {
        let answer = client.put(path, body).await?;
        match (self.kind.shown_once)(body) {
            Some(field) if answer.get(field).is_none_or(Json::is_null) => {
                client.delete(path).await?;
                client.put(path, body).await
            }
            Some(_) | None => Ok(answer),
        }
    }
}

#[async_trait]
impl Resource for ApiResource {
    type State<'a> = Val;
    type PrivateState<'a> = ValueEmpty;
    type ProviderMetaState<'a> = ValueEmpty;

    fn schema(&self, _diags: &mut Diagnostics) -> Option<Schema> {
        Some(schema(&self.kind.fields, self.kind.doc, false))
    }

    async fn validate<'a>(&self, diags: &mut Diagnostics, config: Val) -> Option<()> {
        for problem in as_map(&config).map(|config| problems(&self.kind, config)).unwrap_or_default() {
            diags.error("The server would refuse this", problem.message, problem.path);
        }
        Some(())
    }

    async fn read<'a>(
        &self,
        diags: &mut Diagnostics,
        state: Val,
        private: ValueEmpty,
        _meta: ValueEmpty,
    ) -> Option<(Val, ValueEmpty)> {
        let Some((client, before, path)) = self.place(diags, &state) else { return Some((state, private)) };
        match client.get(&path).await {
            Ok(answer) => Some((self.state(answer?, &before), private)),
            Err(failure) => {
                tell(diags, format!("{} cannot be read", called(&self.kind, &before)), &failure);
                Some((state, private))
            }
        }
    }

    async fn plan_create<'a>(
        &self,
        _diags: &mut Diagnostics,
        _proposed: Val,
        config: Val,
        _meta: ValueEmpty,
    ) -> Option<(Val, ValueEmpty)> {
        Some((object(self.planned(as_map(&config)?, None)), ValueEmpty::Null))
    }

    async fn plan_update<'a>(
        &self,
        diags: &mut Diagnostics,
        prior: Val,
        _proposed: Val,
        config: Val,
        private: ValueEmpty,
        _meta: ValueEmpty,
    ) -> Option<(Val, ValueEmpty, Vec<AttributePath>)> {
        let prior = as_map(&prior)?;
        let planned = self.planned(as_map(&config)?, Some(prior));
        let moved = moved(&self.kind.fields, prior, &planned);
        if !moved.is_empty() && is_protected(prior) {
            refuse_deletion(diags, &called(&self.kind, prior));
        }
        Some((object(planned), private, moved))
    }

    async fn plan_destroy<'a>(
        &self,
        diags: &mut Diagnostics,
        prior: Val,
        private: ValueEmpty,
        _meta: ValueEmpty,
    ) -> Option<ValueEmpty> {
        if let Some(prior) = as_map(&prior).filter(|prior| is_protected(prior)) {
            refuse_deletion(diags, &called(&self.kind, prior));
        }
        Some(private)
    }

    async fn create<'a>(
        &self,
        diags: &mut Diagnostics,
        planned: Val,
        _config: Val,
        private: ValueEmpty,
        _meta: ValueEmpty,
    ) -> Option<(Val, ValueEmpty)> {
        let (client, planned, path) = self.place(diags, &planned)?;
        let called = called(&self.kind, &planned);
        let answer = match client.get(&path).await {
            Ok(answer) if answer.is_none() || self.kind.is_always_there => {
                self.make(&client, &path, &self.body(&planned)).await
            }
            Ok(_) => {
                let format = self.kind.import_format();
                let detail = format!("Terraform does not know it. Import it ({format}), or delete it.");
                diags.root_error(format!("{called} is already there"), detail);
                return None;
            }
            Err(failure) => Err(failure),
        };
        match answer {
            Ok(answer) => Some((self.state(answer, &planned), private)),
            Err(failure) => {
                tell(diags, format!("{called} cannot be made"), &failure);
                None
            }
        }
    }

    async fn update<'a>(
        &self,
        diags: &mut Diagnostics,
        _prior: Val,
        planned: Val,
        _config: Val,
        private: ValueEmpty,
        _meta: ValueEmpty,
    ) -> Option<(Val, ValueEmpty)> {
        let (client, planned, path) = self.place(diags, &planned)?;
        match client.put(&path, &self.body(&planned)).await {
            Ok(answer) => Some((self.state(answer, &planned), private)),
            Err(failure) => {
                tell(diags, format!("{} cannot be changed", called(&self.kind, &planned)), &failure);
                None
            }
        }
    }

    async fn destroy<'a>(
        &self,
        diags: &mut Diagnostics,
        prior: Val,
        _private: ValueEmpty,
        _meta: ValueEmpty,
    ) -> Option<()> {
        let (client, prior, path) = self.place(diags, &prior)?;
        if let Err(failure) = client.delete(&path).await {
            tell(diags, format!("{} cannot be deleted", called(&self.kind, &prior)), &failure);
            return None;
        }
        Some(())
    }

    async fn import<'a>(&self, diags: &mut Diagnostics, id: String) -> Option<(Val, ValueEmpty)> {
        let place: Vec<&Field> = self.kind.place().collect();
        let parts: Vec<&str> = id.split('/').collect();
        let bad = place.iter().zip(&parts).find_map(|(field, part)| (field.rule?)(part).err());
        let format = self.kind.import_format();
        let reason = if parts.len() == place.len() { bad } else { Some(format!("'{id}' is not {format}")) };
        if let Some(reason) = reason {
            diags.root_error(format!("A bigpeer_{} is imported as {format}", self.kind.name), reason);
            return None;
        }
        let mut map: Map = self.kind.fields.iter().map(|field| (field.name.to_owned(), Value::Null)).collect();
        map.extend(place.iter().zip(parts).map(|(field, part)| (field.name.to_owned(), text(part))));
        // Blocks that are not null where there are none.
        Some((object(state(&self.kind.fields, &serde_json::Map::new(), &map)), ValueEmpty::Null))
    }
}
