//! A real S3 server: `moto`, from pip, started once for the process that tests, and ended with it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bigpeer_tables::{Objects, ObjectsError, ObjectsSettings, S3Settings};

/// Serves on a free port, makes the bucket, says where, and ends when its standard input does. Its threads look whether an object
/// is there and put it in two steps: a lock makes one of these, as it is in S3.
const SERVER: &str = r#"
import sys, logging, threading
import boto3
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer
one_at_a_time, put_object = threading.Lock(), S3Response.put_object
def put(self):
    with one_at_a_time:
        return put_object(self)
S3Response.put_object = put
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
url = f"http://127.0.0.1:{port}"
client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
client.create_bucket(Bucket="test")
print(url, flush=True)
sys.stdin.read()
"#;

/// Names the Python that has `moto`. Credentials come from the environment, as in production: any will do.
const PYTHON: &str = "BIGPEER_TEST_PYTHON";

/// Where the server is.
pub(crate) fn endpoint() -> &'static str {
    static SERVING: OnceLock<(Child, String)> = OnceLock::new();
    let (_, url) = SERVING.get_or_init(|| {
        let python = std::env::var(PYTHON).unwrap_or_else(|_| {
            panic!("{PYTHON} must name a Python with moto[server]; `make unit` installs one and sets it")
        });
        let mut server = Command::new(&python)
            .args(["-c", SERVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{python}: {error}"));
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("http://"), "moto did not start: is moto[server] installed for {python}?");
        (server, line.trim().to_owned())
    });
    url
}

pub(crate) fn settings() -> ObjectsSettings {
    let s3 = S3Settings {
        endpoint: Some(endpoint().to_owned()),
        region: Some("us-east-1".to_owned()),
        allow_http: true,
        ..S3Settings::default()
    };
    ObjectsSettings { s3, ..ObjectsSettings::default() }
}

/// A part of the bucket that is like the name, and nobody else's.
pub(crate) fn place() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("s3://test/p{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Opens a new place, from anywhere: on a thread and a runtime of its own.
pub(crate) fn open_blocking(settings: &ObjectsSettings) -> Result<Objects, ObjectsError> {
    let location = place().parse()?;
    std::thread::scope(|scope| {
        let opened = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(Objects::open(&location, settings))
        });
        opened.join().unwrap()
    })
}
