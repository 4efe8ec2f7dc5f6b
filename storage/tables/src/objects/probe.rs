//! The probe: before anything relies on it, a remote store must show that it creates an object once only, also when many
//! try at the same moment.

use bigpeer_types::IdGenerator;
use futures::future::join_all;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use super::{Objects, ObjectsError};
use crate::paths;

/// How many try to create one object at once.
const RACERS: usize = 4;

pub(super) async fn run(objects: &Objects, location: &str, ids: &dyn IdGenerator) -> Result<(), ObjectsError> {
    let path = paths::probe(ids.next_u64());
    let result = try_it(objects, &path).await;
    // One that is left is a few bytes, and does no harm.
    let _ = objects.delete(&path).await;
    match result {
        Ok(None) => Ok(()),
        Ok(Some(found)) => Err(ObjectsError::Unconditional { location: location.to_owned(), found }),
        Err(source) => Err(ObjectsError::Unreachable { location: location.to_owned(), source }),
    }
}

/// What is wrong with the store, if anything is.
async fn try_it(objects: &Objects, path: &Path) -> Result<Option<&'static str>, Error> {
    let create = |body: String| async move {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match objects.put_opts(path, body.into(), options).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    };
    let mut created = Vec::new();
    for (racer, result) in join_all((0..RACERS).map(|racer| create(racer.to_string()))).await.into_iter().enumerate() {
        if result? {
            created.push(racer);
        }
    }
    if created.len() > 1 {
        return Ok(Some("of several who created one object at once, more than one succeeded"));
    }
    if create("again".to_owned()).await? {
        return Ok(Some("an object that exists was created again"));
    }
    let stored = objects.get(path).await?.bytes().await?;
    // Whose answer was lost has tried again and was refused: then nobody knows that he was the first.
    let mut first = match created.pop() {
        Some(winner) => winner..winner + 1,
        None => 0..RACERS,
    };
    Ok((!first.any(|racer| stored == racer.to_string())).then_some("a refused write has changed the object"))
}
