//! S3 over HTTP, against a server that others wrote. The whole suite also runs on it: `BIGPEER_TEST_OBJECTS=s3`.

use std::time::Duration;

use bigpeer_tables::paths::ObjectPath;
use bigpeer_tables::{Objects, ObjectsError, ObjectsSettings, S3Encryption, S3Settings};
use bigpeer_types::AppId;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::client::{HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{ClientOptions, Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use crate::moto;

async fn open(location: &str, settings: &ObjectsSettings) -> Result<Objects, ObjectsError> {
    Objects::open(&location.parse()?, settings).await
}

/// The answer's headers, as text, for an object.
async fn headers_of(key: &str) -> String {
    let client = ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true)).unwrap();
    let mut request = HttpRequest::new(HttpRequestBody::from(Bytes::new()));
    let signer = AmazonS3Builder::from_env()
        .with_endpoint(moto::endpoint())
        .with_region("us-east-1")
        .with_allow_http(true)
        .with_bucket_name("test")
        .build()
        .unwrap();
    let method = request.method().clone();
    let url = signer.signed_url(method, &Path::from(key), Duration::from_secs(60)).await.unwrap();
    *request.uri_mut() = url.as_str().parse().unwrap();
    let response = client.execute(request).await.unwrap();
    assert!(response.status().is_success(), "{}", response.status());
    format!("{:?}", response.headers())
}

#[tokio::test]
#[ignore = "needs the S3 server that `make unit` installs"]
async fn a_prefix_is_a_place_of_its_own_and_many_cannot_create_one_object() {
    let settings = moto::settings();
    let (here, there) = (moto::place(), moto::place());
    let (a, b) = (open(&here, &settings).await.unwrap(), open(&there, &settings).await.unwrap());
    let path = Path::from("x/y");
    let create = |n: usize| {
        let (a, path) = (a.clone(), path.clone());
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        async move { a.put_opts(&path, format!("{n}").into(), options).await }
    };
    let results = futures::future::join_all((0..16).map(create)).await;
    let winners: Vec<usize> = (0..16).filter(|n| results[*n].is_ok()).collect();
    assert_eq!(winners.len(), 1);
    assert!(results.iter().flatten().count() == 1);
    for error in results.into_iter().filter_map(Result::err) {
        assert!(matches!(error, Error::AlreadyExists { .. } | Error::Precondition { .. }), "{error}");
    }
    assert_eq!(a.get(&path).await.unwrap().bytes().await.unwrap(), winners[0].to_string());
    assert!(matches!(b.get(&path).await, Err(Error::NotFound { .. })));
    let listed: Vec<_> = a.list(None).map_ok(|object| object.location).try_collect().await.unwrap();
    assert_eq!(listed, std::slice::from_ref(&path), "the probe has left nothing behind");
    a.delete(&path).await.unwrap();
    assert!(matches!(a.get(&path).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
#[ignore = "needs the S3 server that `make unit` installs"]
async fn a_large_object_is_uploaded_in_parts_and_read_by_ranges() {
    let settings = ObjectsSettings { part_bytes: 5 << 20, ..moto::settings() };
    let objects = open(&moto::place(), &settings).await.unwrap();
    let before = objects.usage();
    let large: Vec<u8> = (0..(17_u32 << 20)).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let path = Path::from("large");
    objects.put(&path, large.clone().into()).await.unwrap();
    assert_eq!(objects.usage().writes - before.writes, 6, "begin, four parts, end");
    let ranges = [0..10, 5_000_000..5_300_000, (16 << 20)..(17 << 20), 9_000_000..9_000_001];
    let read = objects.get_ranges(&path, &ranges).await.unwrap();
    for (range, bytes) in ranges.iter().zip(read) {
        assert_eq!(bytes, large[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]);
    }
    assert_eq!(objects.get(&path).await.unwrap().bytes().await.unwrap(), large);
}

#[tokio::test]
#[ignore = "needs the S3 server that `make unit` installs"]
async fn an_attachment_is_fetched_by_a_signed_url_and_nothing_else_is() {
    let attachment = |digest: u8| ObjectPath::Attachment(AppId::new("an-app").unwrap(), [digest; 32], 0).to_path();
    let client = ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true)).unwrap();
    let fetch = async |url: &str, range: Option<&str>| {
        let mut request = HttpRequest::new(HttpRequestBody::from(Bytes::new()));
        *request.uri_mut() = url.parse().unwrap();
        if let Some(range) = range {
            request.headers_mut().insert("range", range.parse().unwrap());
        }
        let response = client.execute(request).await.unwrap();
        let status = response.status().as_u16();
        (status, response.into_body().bytes().await.unwrap())
    };
    for place in [moto::place(), "s3://test".to_owned()] {
        let objects = open(&place, &moto::settings()).await.unwrap();
        objects.put(&attachment(1), "a photo".into()).await.unwrap();
        objects.put(&attachment(2), "another".into()).await.unwrap();
        let signer = objects.signer().unwrap();
        let minute = Duration::from_secs(60);
        let get = HttpRequest::new(HttpRequestBody::from(Bytes::new())).method().clone();
        let url = signer.signed_url(get.clone(), &attachment(1), minute).await.unwrap().to_string();
        assert_eq!(fetch(&url, None).await, (200, Bytes::from("a photo")));
        assert_eq!(fetch(&url, Some("bytes=2-4")).await, (206, Bytes::from("pho")));
        assert!(url.contains("X-Amz-Expires=60"), "{url}");
        // For nothing else, and for nobody to change: not another object, not longer, not without a signature.
        let digest = |digest: u8| attachment(digest).filename().unwrap().to_owned();
        let refused = [
            url.replace(&digest(1), &digest(2)),
            url.replace("X-Amz-Expires=60", "X-Amz-Expires=6000"),
            url.split('?').next().unwrap().to_owned(),
        ];
        for url in refused {
            let (status, body) = fetch(&url, None).await;
            assert_eq!(status, 403, "{url}: {body:?}");
        }
        let put = "PUT".parse().unwrap();
        assert!(matches!(signer.signed_url(put, &attachment(1), minute).await, Err(Error::NotSupported { .. })));
        for path in ["apps/an-app/manifests/x", "apps/an-app/tables/cars/x.parquet", "x"] {
            let refused = signer.signed_url(get.clone(), &Path::from(path), minute).await;
            assert!(matches!(refused, Err(Error::NotSupported { .. })), "{path}");
        }
    }
}

#[tokio::test]
#[ignore = "needs the S3 server that `make unit` installs"]
async fn encryption_is_asked_for() {
    for (encryption, expected) in [
        (S3Encryption::S3, "\"x-amz-server-side-encryption\": \"AES256\""),
        (S3Encryption::Kms { key: None, bucket_key: true }, "\"x-amz-server-side-encryption\": \"aws:kms\""),
        (S3Encryption::Kms { key: Some("my-key".into()), bucket_key: false }, "my-key"),
    ] {
        let mut settings = moto::settings();
        settings.s3.encryption = encryption.clone();
        let place = moto::place();
        let objects = open(&place, &settings).await.unwrap();
        objects.put(&Path::from("x"), "secret".into()).await.unwrap();
        let headers = headers_of(&format!("{}/x", place.trim_start_matches("s3://test/"))).await;
        assert!(headers.contains(expected), "{encryption:?}: {headers}");
    }
}

#[tokio::test]
#[ignore = "needs the S3 server that `make unit` installs"]
async fn what_cannot_be_used_is_refused_with_its_name() {
    let missing = open("s3://no-such-bucket/x", &moto::settings()).await.unwrap_err().to_string();
    assert!(missing.starts_with("s3://no-such-bucket/x cannot be used"), "{missing}");
    let s3 = S3Settings {
        endpoint: Some("http://127.0.0.1:1".into()),
        retries: 1,
        retry_timeout: Duration::from_secs(2),
        ..moto::settings().s3
    };
    let nobody = open("s3://test/x", &ObjectsSettings { s3, ..ObjectsSettings::default() }).await.unwrap_err();
    assert!(nobody.to_string().starts_with("s3://test/x cannot be used"), "{nobody}");
}
