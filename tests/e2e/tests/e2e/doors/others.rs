//! Doors that neither show documents nor take them: attachments, logins, and what everybody may see. And whether every door has a row.

use reqwest::Method;

use super::*;

/// Doors of attachments.
const ATTACHMENTS: [&str; 6] = [
    "POST /{app}/api/v4/attachments/upload",
    "GET /{app}/api/v4/attachments/{id}",
    "POST /{app}/api/v1/attachments/uploads",
    "HEAD /{app}/api/v1/attachments/uploads/{upload}",
    "PATCH /{app}/api/v1/attachments/uploads/{upload}",
    "DELETE /{app}/api/v1/attachments/uploads/{upload}",
];
/// Doors of who has logged in.
const SESSIONS: [&str; 2] = ["POST /{app}/auth/refresh", "POST /{app}/auth/logout"];
/// Doors that are open to everybody, and say nothing of what an app holds.
const OPEN: [&str; 6] = [
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
    "GET /{app}/.well-known/jwks.json",
    "GET /{app}/auth/certs",
    "GET /{app}/api/v4/swagger.json",
];

/// A door that tells everybody the same who is let in.
const LET_IN: [&str; 1] = ["GET /{app}/auth/revocations"];

#[test]
fn every_door_has_a_row() {
    let listed: BTreeSet<&str> = include_str!("list.txt").lines().filter(|line| !line.starts_with('#')).collect();
    let rows = [&READ[..], &WRITTEN, &PEERS, &LISTENERS, &ATTACHMENTS, &SESSIONS, &OPEN, &LET_IN];
    let rows: BTreeSet<&str> = rows.into_iter().flatten().copied().collect();
    assert_eq!(listed, rows, "the doors that there are, and those that these tests ask as every kind of caller");
}

impl World {
    /// Asks at a door; `name` stands for whatever the path names besides the app.
    async fn at(&self, door: &str, name: &str, credential: &str, body: Vec<u8>) -> (u16, Value) {
        let (method, _) = door.split_once(' ').unwrap();
        let path = self.path(door).replace("{id}", name).replace("{upload}", name);
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = reqwest::Client::new().request(method, format!("{}{path}", self.server.url()));
        let request = if credential.is_empty() { request } else { request.bearer_auth(credential) };
        let answer = request.header("upload-offset", "0").body(body).send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attachments_are_taken_from_who_writes_and_shown_to_who_reads_everything() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    let [upload, fetch, begin, stands, append, give_up] = ATTACHMENTS;
    let key = world.server.credentials().api_key;
    let (_, photo) = world.at(upload, "", &key, b"a photo".to_vec()).await;
    let photo = photo["id"].as_str().unwrap().to_owned();
    let begun = json!({"id": photo, "len": 7}).to_string().into_bytes();
    let (_, foreign) = world.at(begin, "", &key, begun.clone()).await;
    let foreign = foreign["upload"].as_str().unwrap().to_owned();
    for caller in callers(&world).await {
        let (name, credential) = (caller.name, caller.credential.as_str());
        let inside = |ok: u16, may: bool| {
            if caller.sees.is_none() {
                401
            } else if may {
                ok
            } else {
                403
            }
        };
        let writes = !caller.writes.is_empty();
        assert_eq!(world.at(upload, "", credential, b"a photo".to_vec()).await.0, inside(200, writes), "{name}");
        // Through no document: only who may read all of them.
        let (status, answer) = world.at(fetch, &photo, credential, Vec::new()).await;
        assert_eq!(status, inside(200, caller.devices), "{name}: {answer}");
        assert_eq!(answer == "a photo", status == 200, "{name}: {answer}");
        let (status, own) = world.at(begin, "", credential, begun.clone()).await;
        assert_eq!(status, inside(201, writes), "{name}: {own}");
        for door in [stands, append, give_up] {
            let (status, answer) = world.at(door, &foreign, credential, b"a photo".to_vec()).await;
            let expected = if caller.sees.is_some() && writes { 404 } else { inside(0, false) };
            assert_eq!(status, expected, "{name} at {door} of another: {answer}");
            if let Some(own) = own["upload"].as_str() {
                let (status, answer) = world.at(door, own, credential, b"a photo".to_vec()).await;
                assert!([200, 204].contains(&status), "{name} at {door}: {status} {answer}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_goes_on_and_ends_for_who_holds_its_refresh_token() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    for caller in callers(&world).await {
        // Neither keys nor access tokens of logins are good for it.
        for door in SESSIONS {
            let (status, answer) = world.at(door, "", &caller.credential, Vec::new()).await;
            assert_eq!(status, 401, "{} at {door}: {answer}", caller.name);
        }
        if caller.sees.is_none() || caller.name.contains("token") {
            continue;
        }
        let (status, session) = world.login(&world.app, &caller.credential).await;
        assert_eq!(status, 200, "{}: {session}", caller.name);
        let token = session["refresh_token"].as_str().unwrap();
        let (status, next) = world.at(SESSIONS[0], "", token, Vec::new()).await;
        assert_eq!(status, 200, "{}: {next}", caller.name);
        let next = next["refresh_token"].as_str().unwrap();
        assert_eq!(world.at(SESSIONS[1], "", next, Vec::new()).await.0, 204, "{}", caller.name);
        for token in [token, next] {
            assert_eq!(world.at(SESSIONS[0], "", token, Vec::new()).await.0, 401, "{}: it is over", caller.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_to_everybody_shows_nothing_of_an_app() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    for caller in callers(&world).await {
        for door in OPEN {
            let (status, answer) = world.at(door, "", &caller.credential, Vec::new()).await;
            assert_eq!(status, 200, "{} at {door}: {answer}", caller.name);
            assert_eq!(shown(&answer.to_string()), Vec::<&str>::new(), "{} at {door}", caller.name);
        }
        for door in LET_IN {
            let (status, answer) = world.at(door, "", &caller.credential, Vec::new()).await;
            let expected = if caller.sees.is_some() { 200 } else { 401 };
            assert_eq!(status, expected, "{} at {door}: {answer}", caller.name);
        }
    }
}
