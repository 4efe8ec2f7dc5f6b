//! Connected devices: what the gateway shows of its sessions.

use std::time::Duration;

use bigpeer_protocol::pb;
use bigpeer_types::{AppId, CollectionName};
use serde_json::{Value, json};

use crate::world::{Author, Replica, World, flights, hello};

fn devices(world: &World, app: &AppId) -> Vec<Value> {
    world.system.get(&CollectionName::new("__devices").unwrap()).expect("registered").rows(app)
}

/// The devices, once they are as `wanted` says.
async fn until(world: &World, wanted: impl Fn(&[Value]) -> bool + Send + Sync) -> Vec<Value> {
    let looked = async {
        loop {
            let devices = devices(world, &world.app);
            if wanted(&devices) {
                return devices;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looked).await.expect("the devices are never so")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_shown_from_its_welcome_to_the_end_of_its_session() {
    let world = World::new().await;
    assert!(devices(&world, &world.app).is_empty());
    let (site, token) = world.login("all").await;
    let device = pb::Device { name: "a\u{7}phone".to_owned(), model: "x".repeat(1000), ..pb::Device::default() };
    let mut reader = world.session(site, &token, pb::Hello { device: Some(device), ..hello(site, &token) }).await;
    let mut replica = Replica::default();
    reader.subscribe(1, "SELECT * FROM flights WHERE carrier = 'UA'", None).await;
    reader.catch_up(&mut replica).await;

    let shown = until(&world, |devices| devices.iter().any(|device| device["behind"] == false)).await;
    assert_eq!(shown.len(), 1);
    let device = &shown[0];
    assert_eq!((device["site"].as_str(), device["user"].as_str()), (Some(site.to_string().as_str()), Some("all")));
    assert_eq!(device["device_name"], "aphone");
    assert_eq!(device["device_model"].as_str().map(str::len), Some(128));
    assert_eq!(device["subscription_count"], 1);
    let query = device["subscriptions"][0].as_str().unwrap();
    assert!(query.contains("flights") && query.contains("UA"), "{query}");
    assert!(device["received_bytes"].as_u64() > Some(0) && device["sent_bytes"].as_u64() > Some(0), "{device}");
    assert_eq!((&device["lag_ms"], &device["queued_bytes"]), (&json!(0), &json!(0)));
    let columns = world.system.get(&CollectionName::new("__devices").unwrap()).unwrap().columns();
    let names: std::collections::BTreeSet<&str> = columns.iter().map(|column| column.name).collect();
    assert_eq!(
        device.as_object().unwrap().keys().map(String::as_str).collect::<std::collections::BTreeSet<_>>(),
        names
    );

    reader.send(pb::Unsubscribe { id: 1 }).await;
    until(&world, |devices| devices.iter().any(|device| device["subscription_count"] == 0)).await;
    drop(reader);
    until(&world, <[Value]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_takes_nothing_is_behind_where_others_are_up_to_date() {
    let world = World::new().await;
    let (mut writer, mut author) = (world.client().await, None);
    let (site, token) = world.login("all").await;
    let mut slow = world.session(site, &token, pb::Hello { credit: 1, ..hello(site, &token) }).await;
    let mut replica = Replica::default();
    slow.subscribe(1, "SELECT * FROM flights", None).await;
    slow.catch_up(&mut replica).await;
    let author = author.get_or_insert_with(|| Author::new(writer.site));
    // The first one takes more than the credit; the second has to wait.
    writer.write(1, author.insert("a", "UA")).await;
    let last = writer.write(2, author.insert("b", "UA")).await;

    let of = |devices: &[Value], site: &str| devices.iter().find(|device| device["site"] == site).cloned();
    let slow_site = site.to_string();
    let behind = |devices: &[Value]| of(devices, &slow_site).is_some_and(|device| device["behind"] == true);
    let shown = until(&world, behind).await;
    let slow_device = of(&shown, &slow_site).unwrap();
    assert!(slow_device["queued_bytes"].as_u64() > Some(0), "{slow_device}");
    let other = of(&shown, &writer.site.to_string()).unwrap();
    assert_eq!((&other["behind"], &other["lag_ms"]), (&json!(false), &json!(0)));

    slow.send(pb::Credit { bytes: 1 << 40 }).await;
    slow.until(&mut replica, |replica| replica.documents.len() == 2).await;
    let caught_up = |devices: &[Value]| {
        of(devices, &slow_site)
            .is_some_and(|device| device["behind"] == false && device["last_lsn"] == last.to_string())
    };
    until(&world, caught_up).await;
    assert_eq!(replica.ids().len(), 2, "{}", flights());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_apps_see_none_of_them() {
    let world = World::new().await;
    let _reader = world.client().await;
    until(&world, |devices| devices.len() == 1).await;
    let other = world.catalogue.create_app(&crate::world::name("t"), &crate::world::name("b")).await.unwrap().id;
    assert!(devices(&world, &other).is_empty());
}
