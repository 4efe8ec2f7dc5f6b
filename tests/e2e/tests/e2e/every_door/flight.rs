//! A client of Arrow Flight SQL.

use arrow::json::LineDelimitedWriter;
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::TryStreamExt;
use serde_json::Value as Json;
use tonic::transport::Channel;

use super::sql::{Row, row};

pub(super) type Client = FlightSqlServiceClient<Channel>;

pub(super) async fn client(address: &str, app: &str, key: &str, as_of: Option<u64>) -> Client {
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut client = Client::new(channel);
    client.set_token(format!("{app}:{key}"));
    if let Some(as_of) = as_of {
        client.set_header("x-bigpeer-as-of", as_of.to_string());
    }
    client
}

/// The rows of a query whose columns are `c0`, `c1`, …, asked at once or prepared.
pub(super) async fn query(client: &mut Client, sql: &str, columns: usize, prepared: bool) -> Result<Vec<Row>, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let info = if prepared {
        let mut prepared = client.prepare(sql.to_owned(), None).await.map_err(|error| said(&error))?;
        prepared.execute().await
    } else {
        client.execute(sql.to_owned(), None).await
    };
    let info = info.map_err(|error| said(&error))?;
    let mut rows = Vec::new();
    for endpoint in info.endpoint {
        let ticket = endpoint.ticket.ok_or("no ticket")?;
        let batches = client.do_get(ticket).await.map_err(|error| said(&error))?;
        let batches: Vec<_> = batches.try_collect().await.map_err(|error| said(&error))?;
        let mut writer = LineDelimitedWriter::new(Vec::new());
        writer.write_batches(&batches.iter().collect::<Vec<_>>()).map_err(|error| said(&error))?;
        writer.finish().map_err(|error| said(&error))?;
        let lines = String::from_utf8(writer.into_inner()).map_err(|error| said(&error))?;
        rows.extend(lines.lines().map(|line| row(&serde_json::from_str::<Json>(line).unwrap(), columns)));
    }
    Ok(rows)
}
