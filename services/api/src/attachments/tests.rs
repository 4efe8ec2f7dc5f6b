//! Attachments, asked for as a client would, over object storage in memory.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, Method, Request, StatusCode, header};
use bigpeer_chassis::{Access, Permissions};
use bigpeer_tables::Stores as _;
use bigpeer_tables::paths::{self, ObjectPath};
use bigpeer_types::{AppId, ManualClock};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tower::ServiceExt;

use super::pieces::PIECE_BYTES;
use crate::tests::{World, short, world, world_at};
use crate::{ApiSettings, AttachmentSettings};

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

fn id_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that repeat nowhere near.
fn content(length: usize) -> Vec<u8> {
    (0_u64..).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).take(length).collect()
}

impl World {
    async fn send(&self, key: &str, method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Answer {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap());
        request =
            request.uri(format!("/{}/api/{path}", self.app)).header(header::AUTHORIZATION, format!("Bearer {key}"));
        for (name, value) in headers {
            request = request.header(HeaderName::from_bytes(name.as_bytes()).unwrap(), *value);
        }
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_or_else(|_| Bytes::new(), http_body_util::Collected::to_bytes);
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn upload(&self, bytes: &[u8]) -> Answer {
        self.send(&self.key, "POST", "v4/attachments/upload", &[], Body::from(bytes.to_vec())).await
    }

    async fn get(&self, id: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(&self.key, "GET", &format!("v4/attachments/{id}"), headers, Body::empty()).await
    }

    fn objects(&self, app: &AppId) -> std::sync::Arc<dyn ObjectStore> {
        std::sync::Arc::clone(self.stores.store(app).unwrap().snapshot().objects())
    }

    /// What is left of uploads.
    async fn leftovers(&self) -> usize {
        self.objects(&self.app).list(Some(&paths::uploads(&self.app))).try_collect::<Vec<_>>().await.unwrap().len()
    }

    /// A document of `collection` that holds the attachment.
    async fn hold(&self, collection: &str, document: Value) {
        let statement = format!("INSERT INTO COLLECTION {collection} (photo ATTACHMENT) DOCUMENTS (:d)");
        self.ok(&statement, json!({"d": document})).await;
    }
}

/// A body that comes piece by piece, and breaks off when `whole` is false.
fn streamed(bytes: Vec<u8>, piece: usize, whole: bool) -> Body {
    let mut pieces: Vec<Result<Bytes, std::io::Error>> =
        bytes.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    if !whole {
        pieces.push(Err(std::io::Error::other("the connection broke")));
    }
    Body::from_stream(futures::stream::iter(pieces))
}

fn form(bytes: &[u8], field: &str) -> (String, Vec<u8>) {
    let mut body = format!(
        "--XX\r\ncontent-disposition: form-data; name=\"note\"\r\n\r\nhello\r\n--XX\r\ncontent-disposition: form-data; \
         name=\"{field}\"; filename=\"a.bin\"\r\ncontent-type: image/png\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(bytes);
    body.extend_from_slice(b"\r\n--XX--\r\n");
    ("multipart/form-data; boundary=XX".to_owned(), body)
}

#[tokio::test]
async fn what_was_uploaded_in_one_request_is_there_under_its_digest() {
    let world = world(short()).await;
    for length in [0, 1, 1000, PIECE_BYTES - 1, PIECE_BYTES, 2 * PIECE_BYTES + 17] {
        let bytes = content(length);
        let uploaded = world.upload(&bytes).await;
        assert_eq!((uploaded.status, uploaded.json()), (200, json!({"id": id_of(&bytes), "len": length})), "{length}");
        let fetched = world.get(&id_of(&bytes), &[]).await;
        assert_eq!((fetched.status, fetched.body.len()), (200, length));
        assert!(fetched.body == bytes, "{length}");
        assert_eq!(fetched.header("content-length"), length.to_string());
    }
    let bytes = content(PIECE_BYTES + 5);
    let (content_type, body) = form(&bytes, "file");
    let headers = [("content-type", content_type.as_str())];
    let body = streamed(body, 10_000, true);
    let uploaded = world.send(&world.key, "POST", "v4/attachments/upload", &headers, body).await;
    assert_eq!(uploaded.json(), json!({"id": id_of(&bytes), "len": bytes.len()}));
    assert!(world.get(&id_of(&bytes), &[]).await.body == bytes);
    assert_eq!(world.leftovers().await, 0);
}

#[tokio::test]
async fn what_a_collector_has_condemned_is_stored_elsewhere_and_found() {
    let world = world(short()).await;
    let objects = world.objects(&world.app);
    for length in [1000, 2 * PIECE_BYTES + 17] {
        let bytes = content(length);
        let sha256: [u8; 32] = Sha256::digest(&bytes).into();
        assert_eq!(world.upload(&bytes).await.status, 200);
        let first = ObjectPath::Attachment(world.app.clone(), sha256, 0).to_path();
        for generation in 0..2 {
            let condemned = ObjectPath::Condemned(world.app.clone(), sha256, generation).to_path();
            objects.put(&condemned, Bytes::new().into()).await.unwrap();
        }
        assert_eq!(world.get(&id_of(&bytes), &[]).await.status, 200, "it is there until it is deleted");
        objects.delete(&first).await.unwrap();
        assert_eq!(world.get(&id_of(&bytes), &[]).await.status, 404);
        assert_eq!(world.upload(&bytes).await.status, 200);
        let third = ObjectPath::Attachment(world.app.clone(), sha256, 2).to_path();
        assert_eq!(objects.head(&third).await.unwrap().size, length as u64);
        assert!(objects.head(&first).await.is_err());
        let part = world.get(&id_of(&bytes), &[("range", "bytes=10-19")]).await;
        assert!(part.status == 206 && part.body == bytes[10..20]);
    }
}

#[tokio::test]
async fn what_breaks_off_is_wrong_or_too_large_leaves_nothing() {
    let attachments = AttachmentSettings { max_bytes: 2 * PIECE_BYTES as u64, ..AttachmentSettings::default() };
    let world = world(ApiSettings { attachments, ..short() }).await;
    let bytes = content(PIECE_BYTES + 1000);
    let post = async |headers: &[(&str, &str)], body: Body| {
        world.send(&world.key, "POST", "v4/attachments/upload", headers, body).await
    };
    let broken = post(&[], streamed(bytes.clone(), 4096, false)).await;
    assert_eq!((broken.status, broken.json()["error"]["code"].as_str()), (400, Some("bad_request")));
    let stalled =
        futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(bytes.clone()))]).chain(futures::stream::pending());
    tokio::time::pause();
    assert_eq!(post(&[], Body::from_stream(stalled)).await.status, 408);
    tokio::time::resume();
    let large = content(2 * PIECE_BYTES + 1);
    assert_eq!(post(&[], streamed(large.clone(), 1 << 20, true)).await.status, 413);
    assert_eq!(post(&[("content-length", "99999999999")], Body::from("x")).await.status, 413);
    let other = format!("v4/attachments/upload?id={}", id_of(b"other"));
    let wrong = world.send(&world.key, "POST", &other, &[], Body::from(bytes.clone())).await;
    assert_eq!(wrong.status, 400);

    let (content_type, body) = form(&bytes, "file");
    let headers = [("content-type", content_type.as_str())];
    let cut = body[..body.len() - 30].to_vec();
    assert_eq!(post(&headers, Body::from(cut)).await.status, 400, "the form does not end");
    let (_, other) = form(&bytes, "files");
    assert_eq!(post(&headers, Body::from(other)).await.status, 400, "no field 'file'");
    assert_eq!(post(&[("content-type", "multipart/form-data")], Body::from("x")).await.status, 400, "no boundary");
    let (_, mut body) = form(&large, "file");
    body.extend_from_slice(&[0; 100]);
    assert!([400, 413].contains(&post(&headers, streamed(body, 1 << 20, true)).await.status));

    for id in [id_of(&bytes), id_of(&large), id_of(b"other")] {
        assert_eq!(world.get(&id, &[]).await.status, 404);
    }
    assert_eq!(world.leftovers().await, 0);
}

#[tokio::test]
async fn parts_and_conditions_are_answered_as_the_standard_says() {
    let world = world(short()).await;
    let bytes = content(1000);
    let id = id_of(&bytes);
    world.upload(&bytes).await;
    let tag = format!("\"{id}\"");
    let part = world.get(&id, &[("range", "bytes=10-19")]).await;
    assert_eq!((part.status, part.header("content-range")), (206, "bytes 10-19/1000"));
    assert_eq!((&part.body[..], part.header("content-length")), (&bytes[10..20], "10"));
    let end = world.get(&id, &[("range", "bytes=-7"), ("if-range", &tag)]).await;
    assert_eq!((end.status, &end.body[..]), (206, &bytes[993..]));
    let nowhere = world.get(&id, &[("range", "bytes=1000-")]).await;
    assert_eq!((nowhere.status, nowhere.header("content-range")), (416, "bytes */1000"));
    let other = world.get(&id, &[("range", "bytes=10-19"), ("if-range", "\"other\"")]).await;
    assert_eq!((other.status, other.body.len()), (200, 1000));
    let several = world.get(&id, &[("range", "bytes=0-1,5-6")]).await;
    assert_eq!((several.status, several.body.len()), (200, 1000));
    assert_eq!((several.header("etag"), several.header("accept-ranges")), (tag.as_str(), "bytes"));
    assert_eq!(several.header("x-content-type-options"), "nosniff");
    for known in [tag.as_str(), "*", "\"a\", W/\"b\"", &format!("\"a\", W/{tag}")] {
        let again = world.get(&id, &[("if-none-match", known)]).await;
        let expected = if known.contains(&id) || known == "*" { 304 } else { 200 };
        assert_eq!(again.status, expected, "{known}");
    }
    let path = format!("v4/attachments/{id}");
    let head = world.send(&world.key, "HEAD", &path, &[("range", "bytes=10-19")], Body::empty()).await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (206, "10", 0));
    for strange in ["abc", &"g".repeat(64), &id[..63]] {
        assert_eq!(world.get(strange, &[]).await.status, 400);
    }
    assert_eq!(world.get(&id_of(b"nothing"), &[]).await.status, 404);
}

#[tokio::test]
async fn an_attachment_is_seen_through_a_document_that_may_be_read() {
    let world = world(short()).await;
    let bytes = b"a photo".to_vec();
    let id = id_of(&bytes);
    let token = json!({"id": id, "len": bytes.len()});
    world.upload(&bytes).await;
    world.hold("cars", json!({"_id": 1, "lot": "a", "photo": token})).await;
    world.hold("cars", json!({"_id": "x", "lot": "b", "photo": token})).await;
    world.ok("INSERT INTO cars DOCUMENTS (:d)", json!({"d": {"_id": 3, "lot": "a"}})).await;
    let read = Access {
        everything: false,
        queries_by_collection: [("cars".to_owned(), vec!["lot = 'a'".to_owned()])].into_iter().collect(),
    };
    let some = world.new_key(&world.app, "some", Permissions { ql_version: 1, read, ..Permissions::default() }).await;
    let nothing = world.new_key(&world.app, "nothing", Permissions::default()).await;
    let ask = async |key: &str, query: &str| {
        world.send(key, "GET", &format!("v4/attachments/{id}{query}"), &[], Body::empty()).await.status
    };
    for (query, all, part) in [
        ("", 200, 403),
        ("?collection=cars&document=1", 200, 200),
        ("?collection=cars&document=x", 200, 404),
        ("?collection=cars&document=%22x%22", 200, 404),
        ("?collection=cars&document=3", 404, 404),
        ("?collection=cars&document=4", 404, 404),
        ("?collection=boats&document=1", 404, 403),
        ("?collection=cars", 400, 400),
        ("?colection=cars&document=1", 400, 400),
        ("?collection=cars&document=null", 404, 404),
    ] {
        assert_eq!((ask(&world.key, query).await, ask(&some, query).await), (all, part), "{query}");
        assert!(ask(&nothing, query).await >= 400);
    }
    // What stops being readable stops being fetched: the lot, the field, the document.
    world.ok("UPDATE cars SET lot = 'b' WHERE _id = 1", json!({})).await;
    assert_eq!(ask(&some, "?collection=cars&document=1").await, 404);
    world.ok("UPDATE cars SET lot = 'a' WHERE _id = 1", json!({})).await;
    assert_eq!(ask(&some, "?collection=cars&document=1").await, 200);
    world.ok("DELETE FROM cars WHERE _id = 1", json!({})).await;
    assert_eq!(ask(&some, "?collection=cars&document=1").await, 404);
    // Who may not write uploads nothing.
    let refused = world.send(&some, "POST", "v4/attachments/upload", &[], Body::from("x")).await;
    assert_eq!(refused.status, 403);
}

#[tokio::test]
async fn another_app_never_sees_it() {
    let world = world(short()).await;
    let bytes = b"swordfish".to_vec();
    let id = id_of(&bytes);
    world.upload(&bytes).await;
    world.hold("cars", json!({"_id": 1, "photo": {"id": id, "len": bytes.len()}})).await;
    let (mine, other) = (world.app.clone(), world.new_app("b").await);
    let other_key = world.new_key(&other, "all", Permissions::all()).await;
    let get = async |app: &AppId, key: &str, query: &str| {
        let path = format!("/{app}/api/v4/attachments/{id}{query}");
        let request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {key}"));
        world.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status()
    };
    let named = "?collection=cars&document=1";
    assert_eq!(get(&mine, &world.key, named).await, StatusCode::OK);
    for query in ["", named] {
        assert_eq!(get(&other, &other_key, query).await, StatusCode::NOT_FOUND);
        assert_eq!(get(&mine, &other_key, query).await, StatusCode::UNAUTHORIZED);
        assert_eq!(get(&other, &world.key, query).await, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn an_upload_goes_on_where_it_was_broken_off() {
    let world = world(short()).await;
    let bytes = content(4 * PIECE_BYTES + 12_345);
    let id = id_of(&bytes);
    let begin = json!({"id": id, "len": bytes.len()}).to_string();
    let begun = world.send(&world.key, "POST", "v1/attachments/uploads", &[], Body::from(begin.clone())).await;
    assert_eq!(begun.status, 201, "{}", begun.json());
    let name = begun.json()["upload"].as_str().unwrap().to_owned();
    let path = format!("v1/attachments/uploads/{name}");
    assert!(begun.header("location").ends_with(&path));
    let patch = async |offset: usize, body: Body| {
        world.send(&world.key, "PATCH", &path, &[("upload-offset", &offset.to_string())], body).await
    };
    let stands = async || {
        let head = world.send(&world.key, "HEAD", &path, &[], Body::empty()).await;
        assert_eq!((head.status, head.header("upload-length")), (200, bytes.len().to_string().as_str()));
        (head.header("upload-offset").parse::<usize>().unwrap(), head.header("upload-complete").to_owned())
    };
    assert_eq!(stands().await, (0, "?0".to_owned()));
    // Broken off after one piece and a bit that is worth keeping; then after one that is not.
    let first = PIECE_BYTES + 300_000;
    assert_eq!(patch(0, streamed(bytes[..first].to_vec(), 100_000, false)).await.status, 400);
    assert_eq!(stands().await.0, first);
    assert_eq!(patch(first, streamed(bytes[first..first + 1000].to_vec(), 100, false)).await.status, 400);
    assert_eq!(stands().await.0, first);
    let wrong = patch(first + 1, Body::from("x")).await;
    assert_eq!((wrong.status, wrong.header("upload-offset")), (409, first.to_string().as_str()));
    assert_eq!(patch(first, Body::from("too little")).await.status, 400);
    assert_eq!(world.get(&id, &[]).await.status, 404, "nothing is seen before it is complete");
    let second = first + 2 * PIECE_BYTES;
    let more = patch(first, Body::from(bytes[first..second].to_vec())).await;
    assert_eq!((more.status, more.json()["offset"].as_u64()), (200, Some(second as u64)));
    let mut too_much = bytes[second..].to_vec();
    too_much.push(0);
    assert_eq!(patch(second, Body::from(too_much)).await.status, 400);
    assert_eq!(stands().await, (second, "?0".to_owned()));
    let done = patch(second, Body::from(bytes[second..].to_vec())).await;
    assert_eq!((done.status, &done.json()["complete"]), (200, &json!(true)), "{}", done.json());
    assert!(world.get(&id, &[]).await.body == bytes);
    // Who did not hear the answer asks again.
    assert_eq!(stands().await, (bytes.len(), "?1".to_owned()));
    assert_eq!(patch(bytes.len(), Body::empty()).await.json()["complete"], true);
    assert_eq!(world.leftovers().await, 1, "its record, until it expires");

    // Others' uploads are not there; neither are those that were given up.
    let other = world.new_key(&world.app, "other", Permissions::all()).await;
    assert_eq!(world.send(&other, "HEAD", &path, &[], Body::empty()).await.status, 404);
    assert_eq!(world.send(&world.key, "DELETE", &path, &[], Body::empty()).await.status, 204);
    assert_eq!(world.send(&world.key, "HEAD", &path, &[], Body::empty()).await.status, 404);
    assert_eq!(world.leftovers().await, 0);
    assert_eq!(world.get(&id, &[]).await.status, 200);
}

#[tokio::test]
async fn an_upload_of_other_bytes_than_announced_is_thrown_away() {
    let world = world(short()).await;
    let begin = |id: &str, len: usize| Body::from(json!({"id": id, "len": len}).to_string());
    let begun = world.send(&world.key, "POST", "v1/attachments/uploads", &[], begin(&id_of(b"right"), 5)).await;
    let path = format!("v1/attachments/uploads/{}", begun.json()["upload"].as_str().unwrap());
    let wrong = world.send(&world.key, "PATCH", &path, &[("upload-offset", "0")], Body::from("wrong")).await;
    assert_eq!(wrong.status, 400, "{}", wrong.json());
    assert_eq!(world.send(&world.key, "HEAD", &path, &[], Body::empty()).await.status, 404);
    assert_eq!((world.leftovers().await, world.get(&id_of(b"right"), &[]).await.status), (0, 404));
    // An empty one is complete when it is asked for.
    let begun = world.send(&world.key, "POST", "v1/attachments/uploads", &[], begin(&id_of(b""), 0)).await;
    let path = format!("v1/attachments/uploads/{}", begun.json()["upload"].as_str().unwrap());
    let done = world.send(&world.key, "PATCH", &path, &[("upload-offset", "0")], Body::empty()).await;
    assert_eq!(done.json()["complete"], true);
    assert_eq!(world.get(&id_of(b""), &[]).await.status, 200);
    for (body, status) in [
        (json!({"id": id_of(b"x"), "len": u64::MAX}), 413),
        (json!({"id": id_of(b"x"), "len": -1}), 400),
        (json!({"id": "x", "len": 1}), 400),
        (json!({"id": id_of(b"x")}), 400),
    ] {
        let refused = world.send(&world.key, "POST", "v1/attachments/uploads", &[], Body::from(body.to_string())).await;
        assert_eq!(refused.status, status, "{body}");
    }
    for name in ["x", "../manifests", "01ARZ3NDEKTSV4RRFFQ69G5FAV"] {
        let path = format!("v1/attachments/uploads/{}", name.replace('/', "%2F"));
        assert_eq!(world.send(&world.key, "HEAD", &path, &[], Body::empty()).await.status, 404, "{name}");
    }
}

#[tokio::test]
async fn of_two_that_append_at_the_same_place_one_is_told() {
    let world = world(short()).await;
    let bytes = content(2 * PIECE_BYTES);
    let begin = Body::from(json!({"id": id_of(&bytes), "len": bytes.len()}).to_string());
    let begun = world.send(&world.key, "POST", "v1/attachments/uploads", &[], begin).await;
    let path = format!("v1/attachments/uploads/{}", begun.json()["upload"].as_str().unwrap());
    let half = || Body::from(bytes[..PIECE_BYTES].to_vec());
    let headers = [("upload-offset", "0")];
    let (one, two) = tokio::join!(
        world.send(&world.key, "PATCH", &path, &headers, half()),
        world.send(&world.key, "PATCH", &path, &headers, half())
    );
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    let rest = Body::from(bytes[PIECE_BYTES..].to_vec());
    let offset = PIECE_BYTES.to_string();
    let done = world.send(&world.key, "PATCH", &path, &[("upload-offset", &offset)], rest).await;
    assert_eq!(done.json()["complete"], true, "{}", done.json());
}

#[tokio::test]
async fn uploads_that_are_not_finished_expire() {
    let clock = std::sync::Arc::new(ManualClock::new(1_700_000_000_000));
    let attachments = AttachmentSettings { upload_ttl: Duration::from_secs(60), ..AttachmentSettings::default() };
    let (world, context) = world_at(ApiSettings { attachments, ..short() }, clock.clone()).await;
    let begin = Body::from(json!({"id": id_of(b"x"), "len": 1}).to_string());
    let begun = world.send(&world.key, "POST", "v1/attachments/uploads", &[], begin).await;
    let path = format!("v1/attachments/uploads/{}", begun.json()["upload"].as_str().unwrap());
    // What a process left behind that was killed in the middle of an upload.
    let objects = world.objects(&world.app);
    let orphan = ObjectPath::UploadPart(world.app.clone(), ulid::Ulid::from_parts(clock_ms(&clock), 7), 0).to_path();
    objects.put(&orphan, "left behind".into()).await.unwrap();
    super::staging::sweep(&context, &world.app, &objects).await.unwrap();
    assert_eq!(world.leftovers().await, 2);
    clock.advance(60_001);
    assert_eq!(world.send(&world.key, "HEAD", &path, &[], Body::empty()).await.status, 404);
    super::staging::sweep(&context, &world.app, &objects).await.unwrap();
    assert_eq!(world.leftovers().await, 0);
}

fn clock_ms(clock: &std::sync::Arc<ManualClock>) -> u64 {
    use bigpeer_types::Clock as _;
    clock.now_ms()
}

#[tokio::test]
async fn too_many_uploads_at_once_are_told_to_come_back() {
    let attachments = AttachmentSettings { max_concurrent_uploads: 0, ..AttachmentSettings::default() };
    let world = world(ApiSettings { attachments, ..short() }).await;
    let refused = world.upload(b"x").await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "1"));
}

/// Signs like a store that can.
#[derive(Debug)]
struct Signs;

#[async_trait::async_trait]
impl object_store::signer::Signer for Signs {
    async fn signed_url(
        &self,
        method: Method,
        path: &object_store::path::Path,
        expires_in: Duration,
    ) -> object_store::Result<url::Url> {
        let text = format!("https://bucket.example/{path}?method={method}&secs={}", expires_in.as_secs());
        Ok(text.parse().unwrap())
    }
}

#[tokio::test]
async fn who_may_see_it_is_sent_to_object_storage_where_that_can_sign() {
    let attachments = AttachmentSettings { signer: Some(std::sync::Arc::new(Signs)), ..AttachmentSettings::default() };
    let world = world(ApiSettings { attachments, ..short() }).await;
    let id = id_of(b"a photo");
    world.upload(b"a photo").await;
    let sent = world.get(&format!("{id}?redirect=true"), &[]).await;
    let expected = format!("https://bucket.example/apps/{}/attachments/{id}?method=GET&secs=300", world.app);
    assert_eq!((sent.status, sent.header("location")), (307, expected.as_str()));
    assert_eq!(world.get(&id, &[]).await.body, "a photo");
    let missing = id_of(b"missing");
    assert_eq!(world.get(&format!("{missing}?redirect=true"), &[]).await.status, 404);
    let nothing = world.new_key(&world.app, "nothing", Permissions::default()).await;
    let path = format!("v4/attachments/{id}?redirect=true");
    assert_eq!(world.send(&nothing, "GET", &path, &[], Body::empty()).await.status, 403);
    let head = world.send(&world.key, "HEAD", &path, &[], Body::empty()).await;
    assert_eq!((head.status, head.header("content-length")), (200, "7"));
}

#[tokio::test]
async fn a_token_that_has_ended_opens_nothing() {
    let clock = std::sync::Arc::new(ManualClock::new(1_700_000_000_000));
    let (world, _) = world_at(short(), clock.clone()).await;
    let key = world.catalogue.api_key(&world.app, &"all".parse().unwrap()).unwrap();
    let site = world.catalogue.allocate_site(&world.app).await.unwrap();
    let (token, _) = world.catalogue.issue_token(&world.app, site, &key, 60).unwrap();
    let uploaded = world.send(&token, "POST", "v4/attachments/upload", &[], Body::from("x")).await;
    assert_eq!(uploaded.status, 200);
    let path = format!("v4/attachments/{}", id_of(b"x"));
    assert_eq!(world.send(&token, "GET", &path, &[], Body::empty()).await.status, 200);
    clock.advance(61_000);
    for (method, path) in
        [("GET", path.as_str()), ("POST", "v4/attachments/upload"), ("POST", "v1/attachments/uploads")]
    {
        assert_eq!(world.send(&token, method, path, &[], Body::from("{}")).await.status, 401, "{method} {path}");
    }
}
