//! A real S3 server: `moto`, from pip, started once for the process that tests, and ended with it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bigpeer_tables::{Objects, ObjectsError, ObjectsSettings, S3Settings};

/// Serves until its standard input ends.
const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/s3_server.py");

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
            .arg(SERVER)
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
