//! What one reader sees: views, selections, paths, fields, permissions.

use std::collections::BTreeMap;
use std::sync::Arc;

use bigpeer_changefeed::{Cursor, Encoder, Format, Kind, Lens, On, Reader, Source, Start, Values};
use bigpeer_chassis::Access;
use bigpeer_crdt::{Attachment, Object};
use serde_json::{Value as Json, json};

use crate::world::{Edit, World, app, collection, id, json as told};

fn source(query: Option<&str>) -> Source {
    Source {
        collection: collection("cars"),
        query: query.map(str::to_owned),
        on: On::View,
        paths: Vec::new(),
        fields: Vec::new(),
    }
}

/// A car that is blue, then red, then faster, then blue again, then gone.
async fn story() -> World {
    let mut world = World::new().await;
    let cars = collection("cars");
    world.put(&cars, 1, json!({"color": "blue", "speed": {"max": 1}})).await;
    world.write(0, &[(&cars, id(1), Edit::Set("color", json!("red")))]).await;
    world.write(0, &[(&cars, id(1), Edit::Set("speed", json!({"max": 2})))]).await;
    world.write(0, &[(&cars, id(1), Edit::Set("color", json!("blue")))]).await;
    world.write(0, &[(&cars, id(1), Edit::Delete)]).await;
    world.put(&collection("other"), 1, json!({"secret": 1})).await;
    world
}

async fn all(world: &World, sources: &[Source], access: Access) -> Vec<Json> {
    let encoder = Encoder::new(&app(), "test", Format::Json);
    let lens = World::lens(sources, access);
    let start = Start::At(Cursor::after(bigpeer_types::Lsn::ZERO));
    let mut reader = Reader::new(Arc::clone(&world.store), Arc::clone(&world.log) as _, lens, encoder, start);
    let mut out = Vec::new();
    while reader.cursor() != &Cursor::after(world.last()) {
        let batch = reader.next().await.unwrap();
        assert!(batch.events.iter().all(|event| event.kind == Kind::Changed));
        out.extend(batch.events.iter().map(told));
    }
    out
}

fn methods(events: &[Json]) -> Vec<&str> {
    events.iter().map(|event| event["change"]["method"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_condition_is_a_view_that_documents_enter_and_leave() {
    let world = story().await;
    let blue = all(&world, &[source(Some("color = 'blue'"))], Access::all()).await;
    assert_eq!(methods(&blue), ["upsert", "remove", "upsert", "remove"]);
    assert_eq!(blue[1]["change"]["value"]["color"], "blue");
    assert_eq!(blue[2]["change"]["newValue"], json!({"_id": 1, "color": "blue", "speed": {"max": 2}}));
    let everything = all(&world, &[], Access::all()).await;
    assert_eq!(methods(&everything), ["upsert", "update", "update", "update", "remove", "upsert"]);
}

#[tokio::test]
async fn a_condition_on_one_image_selects_whole_events() {
    let world = story().await;
    let on = |on| Source { on, ..source(Some("color = 'blue'")) };
    let before = all(&world, &[on(On::Before)], Access::all()).await;
    assert_eq!(methods(&before), ["update", "remove"]);
    assert_eq!(before[0]["change"]["newValue"]["color"], "red", "the other image is shown, too");
    let after = all(&world, &[on(On::After)], Access::all()).await;
    assert_eq!(methods(&after), ["upsert", "update"]);
    assert_eq!(after[1]["change"]["oldValue"]["color"], "red");
}

#[tokio::test]
async fn paths_select_and_fields_project() {
    let world = story().await;
    let speed = Source { paths: vec!["speed.max".to_owned()], ..source(None) };
    let events = all(&world, &[speed], Access::all()).await;
    assert_eq!(methods(&events), ["upsert", "update", "remove"]);
    assert_eq!(events[1]["changedPaths"], json!(["speed.max"]));
    let colors = Source { fields: vec!["color".to_owned()], ..source(None) };
    let events = all(&world, &[colors], Access::all()).await;
    // What changed otherwise is no change to whoever sees only this.
    assert_eq!(methods(&events), ["upsert", "update", "update", "remove"]);
    assert_eq!(events[1]["change"]["newValue"], json!({"_id": 1, "color": "red"}));
}

#[tokio::test]
async fn nobody_is_told_of_what_it_may_not_read() {
    let world = story().await;
    let rules = BTreeMap::from([("cars".to_owned(), vec!["color = 'red'".to_owned()])]);
    let access = Access { everything: false, queries_by_collection: rules };
    let events = all(&world, &[], access.clone()).await;
    assert_eq!(methods(&events), ["upsert", "update", "remove"]);
    assert!(events.iter().all(|event| !event.to_string().contains("blue") && event["collection"] == "cars"));
    // Nor by a condition of its own on the image that is hidden.
    let sly = Source { on: On::Before, ..source(Some("color = 'blue'")) };
    assert_eq!(all(&world, &[sly], access).await, Vec::<Json>::new());
    assert_eq!(all(&world, &[], Access::default()).await, Vec::<Json>::new());
}

#[tokio::test]
async fn values_with_their_types() {
    let (mut world, cars) = (World::new().await, collection("cars"));
    world.put(&cars, 1, json!({"a": 1, "m": {"x": "y"}})).await;
    world.write(0, &[(&cars, id(1), Edit::Increment("n", 2))]).await;
    let photo = Attachment { sha256: [7; 32], length: 5, metadata: Object::new() };
    world.write(0, &[(&cars, id(1), Edit::Attach("photo", photo.clone()))]).await;
    let lens = Arc::new(Lens::compile(&[], Access::all(), Values::Typed).unwrap());
    let encoder = Encoder::new(&app(), "test", Format::Json);
    let mut reader = Reader::new(Arc::clone(&world.store), Arc::clone(&world.log) as _, lens, encoder, Start::Snapshot);
    reader.next().await.unwrap();
    let batch = reader.next().await.unwrap();
    assert_eq!(
        told(&batch.events[0])["change"]["newValue"],
        json!({"_id": 1, "a": {"register": {"value": 1}}, "n": {"counter": {"value": 2}},
               "m": {"map": {"value": {"x": {"register": {"value": "y"}}}}},
               "photo": {"attachment": {"value": {"id": photo.id(), "len": 5, "metadata": {}}}}})
    );
}

#[test]
fn sources_that_cannot_be_understood_are_refused_by_name() {
    let refused = |sources: &[Source]| Lens::compile(sources, Access::all(), Values::Untyped).unwrap_err();
    assert!(refused(&[source(Some("color ="))]).contains("cars"));
    assert!(refused(&[source(Some("true LIMIT 5"))]).contains("cars"));
    assert!(refused(&[source(None), source(None)]).contains("two sources"));
    assert!(refused(&[Source { paths: vec!["a..b".to_owned()], ..source(None) }]).contains("a..b"));
}
