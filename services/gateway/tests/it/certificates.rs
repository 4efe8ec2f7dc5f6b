//! Sessions of peers that showed a certificate in the TLS handshake: it must be that of whoever carries the token, and stay good.
//! The handshake itself is tested where it is made; here the listener is taken at its word.

use std::sync::Arc;

use bigpeer_chassis::{
    AUTHORITY_PUBLISHED_BEFORE_MS, AccessToken, CertificateRequest, Granted, Holder, LoginTimes, PeerCertificate,
    Permissions, Revoked,
};
use bigpeer_gateway::GatewaySettings;
use bigpeer_protocol::pb::{CloseCode, FromGateway};
use bigpeer_types::{AppId, SiteId};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use crate::world::{Author, Client, World, hello, name};

/// A login and its certificate, as the listener hands it on.
struct Certified {
    site: SiteId,
    token: String,
    said: AccessToken,
    certificate: Arc<PeerCertificate>,
}

async fn certified(world: &World, key: &str) -> Certified {
    certified_in(world, &world.app, key).await
}

async fn certified_in(world: &World, app: &AppId, key: &str) -> Certified {
    let catalogue = &world.catalogue;
    catalogue.authority_if_due(app).await.unwrap();
    let site = catalogue.allocate_site(app).await.unwrap();
    let times = LoginTimes { token_ttl_secs: 3600, refresh_ttl_secs: 3600 };
    let granted = catalogue.log_in(app, site, Holder::Key(name(key)), None, times).await.unwrap();
    let certificate = certificate(world, &granted);
    Certified { site, token: granted.access_token, said: granted.token, certificate }
}

fn certificate(world: &World, granted: &Granted) -> Arc<PeerCertificate> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let request = CertificateRequest::parse(&pem).unwrap();
    let issued = world.catalogue.issue_certificate(granted, &request, &Permissions::all(), 3600).unwrap();
    Arc::new(PeerCertificate::read_pem(&issued.chain).unwrap())
}

async fn session(world: &World, of: &Certified) -> Client {
    let mut client = world.showing(&of.certificate).await;
    client.site = of.site;
    client.send(hello(of.site, &of.token)).await;
    match client.next().await {
        FromGateway::Welcome(_) => client,
        other => panic!("no Welcome: {other:?}"),
    }
}

/// What a session with this certificate and this token ends with.
async fn refused(world: &World, shown: &Certified, token: &Certified) -> CloseCode {
    let mut client = world.showing(&shown.certificate).await;
    client.send(hello(token.site, &token.token)).await;
    client.close().await.code()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_opens_the_session_of_its_own_site_and_no_other() {
    let world = World::new().await;
    world.key("other", Permissions::all()).await;
    let (one, two) = (certified(&world, "all").await, certified(&world, "all").await);
    let mut client = session(&world, &one).await;
    let mut author = Author::new(one.site);
    client.write(1, author.insert("a", "UA")).await;
    assert_eq!(refused(&world, &one, &two).await, CloseCode::CloseForeignSite, "another site's");
    // The same site, as somebody else.
    let times = LoginTimes { token_ttl_secs: 3600, refresh_ttl_secs: 3600 };
    let holder = Holder::Key(name("other"));
    let stolen = world.catalogue.log_in(&world.app, one.site, holder, None, times).await.unwrap();
    let stolen =
        Certified { token: stolen.access_token, said: stolen.token, certificate: Arc::clone(&one.certificate), ..one };
    assert_eq!(refused(&world, &stolen, &stolen).await, CloseCode::CloseForeignSite, "another holder's");
    client.send(bigpeer_protocol::pb::Renew { access_token: stolen.token.clone() }).await;
    assert_eq!(client.close().await.code(), CloseCode::CloseForeignSite, "another holder's, later");
    // Another app's, with the same site: turned away before the session.
    let other = world.catalogue.create_app(&name("t"), &name("b")).await.unwrap().id;
    let spec =
        bigpeer_chassis::ApiKeySpec { permissions: Permissions::all(), expires_at_ms: None, ..Default::default() };
    world.catalogue.put_api_key(&other, &name("all"), spec).await.unwrap();
    let foreign = certified_in(&world, &other, "all").await;
    assert_eq!(world.refused_showing(&foreign.certificate).await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_sessions_end_with_what_their_certificate_stands_on() {
    let world = World::new().await;
    let (one, two) = (certified(&world, "all").await, certified(&world, "all").await);
    let (mut first, mut second) = (session(&world, &one).await, session(&world, &two).await);
    world.catalogue.revoke(&world.app, Revoked::Site(one.site)).await.unwrap();
    assert_eq!(first.close().await.code(), CloseCode::CloseAccessRevoked);
    // Its holder logs in again, and shows what was revoked.
    let times = LoginTimes { token_ttl_secs: 3600, refresh_ttl_secs: 3600 };
    let again = loop {
        let granted = world.catalogue.log_in(&world.app, one.site, one.said.holder.clone(), None, times).await.unwrap();
        // Within the same millisecond as the revocation it is about this one, too.
        if world.catalogue.judge(&world.app, &granted.token).is_ok() {
            break granted;
        }
    };
    let renewed = certificate(&world, &again);
    let again = Certified { token: again.access_token, said: again.token, ..one };
    assert_eq!(refused(&world, &again, &again).await, CloseCode::CloseUnauthenticated);
    let again = Certified { certificate: renewed, ..again };
    let mut third = session(&world, &again).await;

    // A new authority, published in time: nobody notices. One that takes over at once: everybody needs another certificate.
    let mut author = Author::new(two.site);
    world.catalogue.rotate_authority(&world.app, false).await.unwrap();
    second.write(1, author.insert("a", "UA")).await;
    let published = world.catalogue.published_authorities(&world.app);
    assert!(published[1].issues_from_ms >= world.now_ms() + AUTHORITY_PUBLISHED_BEFORE_MS - 60_000);
    world.catalogue.rotate_authority(&world.app, true).await.unwrap();
    for client in [&mut second, &mut third] {
        assert_eq!(client.close().await.code(), CloseCode::CloseUnauthenticated);
    }
    assert_eq!(refused(&world, &two, &two).await, CloseCode::CloseUnauthenticated);
    let new = certified(&world, "all").await;
    let _open = session(&world, &new).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_may_insist_on_certificates() {
    let world = World::with(GatewaySettings { require_certificate: true, ..GatewaySettings::default() }).await;
    let one = certified(&world, "all").await;
    let mut bare = world.socket().await;
    bare.send(hello(one.site, &one.token)).await;
    let close = bare.close().await;
    assert_eq!(close.code(), CloseCode::CloseUnauthenticated);
    assert!(close.message.contains("csr"), "{}", close.message);
    let _open = session(&world, &one).await;
}
