//! S3 behind a network that loses things: a proxy before the server refuses, fails, loses answers, breaks bodies off and
//! stalls. The client's repetitions and the tables' own together leave nothing to be seen of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bigpeer_crdt::Value;
use bigpeer_tables::{Extent, Objects, ObjectsError, TablesError};
use bigpeer_types::{IdGenerator, SeededIds};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::model::{Edit, World, check, collection, id, object};
use crate::moto;

const REFUSED: &[u8] = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 47\r\nConnection: close\r\n\r\n\
    <Error><Code>SlowDown</Code><Message/></Error>\n";
const FAILED: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Carries one request, or does it wrong.
async fn carry(mut client: TcpStream, server: String, fault: u64) -> std::io::Result<()> {
    let request = read_request(&mut client).await?;
    match fault {
        0..6 => return client.write_all(REFUSED).await,
        6..9 => return client.write_all(FAILED).await,
        _ => {}
    }
    let mut upstream = TcpStream::connect(server).await?;
    upstream.write_all(&request).await?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).await?;
    match fault {
        // It was done, and nobody is told.
        9..12 => client.write_all(FAILED).await,
        12..15 => Ok(()),
        15..18 => client.write_all(&answer[..answer.len() - answer.len() / 3]).await,
        18..20 => {
            client.write_all(&answer[..answer.len() / 2]).await?;
            tokio::time::sleep(Duration::from_secs(3)).await;
            Ok(())
        }
        _ => client.write_all(&answer).await,
    }
}

/// A request, asking for its connection to be closed after it.
async fn read_request(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let head = loop {
        if let Some(at) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 2;
        }
        if client.read_buf(&mut request).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    };
    let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
    while request.len() < head + 2 + length {
        if client.read_buf(&mut request).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    request.splice(head..head, *b"Connection: close\r\n");
    Ok(request)
}

/// A proxy before the S3 server: its address, and how many requests it did wrong.
async fn proxy(seed: u64) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = moto::endpoint().trim_start_matches("http://").to_owned();
    let (faults, ids) = (Arc::new(AtomicUsize::new(0)), SeededIds::new(seed));
    let count = Arc::clone(&faults);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let fault = ids.next_u64() % 100;
            count.fetch_add(usize::from(fault < 20), Ordering::SeqCst);
            // A connection that breaks is one more fault.
            tokio::spawn(carry(client, server.clone(), fault));
        }
    });
    (format!("http://{address}"), faults)
}

/// Does something until it is done: what a compactor does.
async fn persist<T>(mut work: impl AsyncFnMut() -> Result<T, TablesError>) -> T {
    for _ in 0..50 {
        match work().await {
            Ok(done) => return done,
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
    }
    panic!("fifty times in vain");
}

#[tokio::test]
#[ignore = "needs the S3 server that `make unit` installs"]
async fn a_network_that_loses_one_request_in_five_changes_nothing() {
    let (endpoint, faults) = proxy(5).await;
    let mut settings = moto::settings();
    settings.s3.endpoint = Some(endpoint);
    settings.s3.request_timeout = Duration::from_secs(1);
    let location = moto::place().parse().unwrap();
    let objects = loop {
        match Objects::open(&location, &settings).await {
            Ok(objects) => break objects,
            Err(error) => assert!(matches!(error, ObjectsError::Unreachable { .. }), "{error}"),
        }
    };
    let mut world = World::on(Arc::new(objects));
    let c = collection("c");
    let mut store = world.open().await;
    for round in 0..6_i64 {
        for n in 0..12 {
            let fields = object([("n", Value::Int(round)), ("text", Value::from("some text that takes room"))]);
            world
                .write(&[(&c, id(n * 5 + round), Edit::Insert(fields)), (&c, id(n), Edit::Increment("hits", 1))])
                .await;
        }
        store.wait_for(world.truth.last()).await.unwrap();
        let writer = persist(|| store.writer()).await;
        persist(|| writer.flush()).await;
        if round % 2 == 1 {
            persist(|| writer.compact(&c, Extent::Full)).await;
            persist(|| writer.collect_garbage()).await;
        }
        if round == 3 {
            store.shutdown().await;
            store = persist(|| world.try_open()).await;
        }
    }
    assert!(faults.load(Ordering::SeqCst) > 10, "{faults:?}");
    // To look needs a network that works.
    let direct = Objects::open(&location, &moto::settings()).await.unwrap();
    world.objects = Arc::new(direct);
    check(&world.caught_up().await.snapshot(), &world.truth).await;
    store.shutdown().await;
}
