//! What `serve` says when it is up: where it is, and how to try it.

use std::path::Path;

use super::dev::Dev;
use crate::failure::Failure;
use crate::output;

/// Prints where the server is; at the first start also requests that can be pasted as they are.
pub(super) fn print(url: &str, data_dir: &Path, dev: Option<&Dev>) -> Result<(), Failure> {
    let mut text = format!("bigpeer {} at {url}, data in {}\n", env!("CARGO_PKG_VERSION"), data_dir.display());
    match dev {
        None => {}
        Some(dev) if !dev.is_new => {
            text.push_str(&format!("development credentials: {}\n", dev.path.display()));
        }
        Some(dev) => {
            let (app, key) = (&dev.credentials.app, &dev.credentials.api_key);
            text.push_str(&format!(
                r#"
Made for development, and written to {path} (leave it out with --no-dev):
an app, an API key with all rights to it, and an admin token.

Write a document, read it, and ask for it in SQL:

  curl -s {url}/{app}/api/v5/store/execute \
    -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \
    -d '{{"statement": "INSERT INTO cars DOCUMENTS (:car)", "args": {{"car": {{"_id": 1, "color": "blue"}}}}}}'

  curl -s {url}/{app}/api/v5/store/execute \
    -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \
    -d '{{"statement": "SELECT * FROM cars"}}'

  curl -s {url}/{app}/sql \
    -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \
    -d '{{"query": "SELECT color, count(*) AS n FROM cars GROUP BY color"}}'

Or with this program, which finds the file by itself when it is in ./data:

  bigpeer dql 'SELECT * FROM cars' --credentials {path}
  bigpeer import --collection flights --id id flights.csv --credentials {path}
  bigpeer peer --help

"#,
                path = dev.path.display(),
            ));
        }
    }
    output::raw(text.as_bytes())
}
