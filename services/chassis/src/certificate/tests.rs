//! What stands in a certificate, and what is taken for it.

use bigpeer_types::{AppId, SiteId};
use serde_json::json;

use super::*;
use crate::User;

fn login(id: &str) -> AccessToken {
    let user = User {
        provider: "idp".parse().unwrap(),
        id: id.to_owned(),
        roles: vec!["clerk".parse().unwrap()],
        permissions: Some(Permissions::all()),
        claims: [("share".to_owned(), json!(0.1 + 0.2)), ("b".to_owned(), json!(1)), ("a".to_owned(), json!([null]))]
            .into_iter()
            .collect(),
    };
    AccessToken {
        app: AppId::new("an-app").unwrap(),
        site: SiteId::new(7),
        holder: Holder::User(Box::new(user)),
        issued_at_secs: 1,
        expires_at_secs: 2,
        logged_in_ms: 3,
        login: Some("l".to_owned()),
    }
}

fn read(names: &[String]) -> Option<(AccessToken, String)> {
    read_names(names.iter().map(String::as_str))
}

#[test]
fn names_say_who_it_is_and_read_back_without_permissions() {
    let digest = digest(&Permissions::all()).unwrap();
    let login = login("anna/../\u{e4} %");
    let names = names(&login, &digest).unwrap();
    assert_eq!(names[0], "bigpeer://an-app/site/0000000000000007");
    assert_eq!(names[1], "bigpeer://an-app/user/idp/anna%2F..%2F%C3%A4%20%25");
    assert_eq!(names[2], format!("bigpeer://an-app/permissions/sha256/{digest}"));
    let (said, allowed) = read(&names).unwrap();
    let (Holder::User(said_user), Holder::User(user)) = (&said.holder, &login.holder) else { panic!("{said:?}") };
    assert_eq!((said_user.permissions.as_ref(), &said_user.id, allowed), (None, &user.id, digest));
    assert_eq!((said.site, said.expires_at_secs, said.logged_in_ms), (login.site, 2, 3));
    let of_key = AccessToken { holder: Holder::Key("k".parse().unwrap()), ..login };
    assert_eq!(super::names(&of_key, "00").unwrap()[1], "bigpeer://an-app/key/k");
}

#[test]
fn names_that_contradict_each_other_or_come_with_others_are_nothing() {
    let names = names(&login("anna"), "00").unwrap();
    assert!(read(&names).is_some());
    let other = super::names(&login("bert"), "00").unwrap();
    assert!(read(&[&names[..3], &other[3..]].concat()).is_none(), "another's login");
    assert!(read(&[&names[..], &other[..1]].concat()).is_none(), "one more");
    for at in 0..4 {
        let mut fewer = names.to_vec();
        fewer.remove(at);
        assert!(read(&fewer).is_none());
        let mut changed = names.to_vec();
        changed[at] = changed[at].replace("an-app", "another");
        assert!(read(&changed).is_none() || at == 3, "{changed:?}");
    }
    let mut swapped = names.to_vec();
    swapped.swap(0, 1);
    assert!(read(&swapped).is_none());
}
