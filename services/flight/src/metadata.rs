//! What drivers ask about the server: its name, what it can do, catalogues, schemas, tables.

use std::fmt::Display;
use std::sync::LazyLock;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{CommandGetTables, SqlInfo, SqlSupportedTransaction};
use bigpeer_sql::{Door, Question, SqlContext, SqlUser};
use tonic::Status;

use crate::status::status;

/// The name of the only catalogue.
pub(crate) const CATALOGUE: &str = "bigpeer";

/// What the server is and can do.
pub(crate) static SQL_INFO: LazyLock<Result<SqlInfoData, String>> = LazyLock::new(|| {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "bigpeer");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
    info.append(SqlInfo::FlightSqlServerReadOnly, true);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    info.append(SqlInfo::FlightSqlServerCancel, false);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.append(SqlInfo::SqlAllTablesAreSelectable, true);
    info.build().map_err(|error| error.to_string())
});

/// Types by the numbers of ODBC: none are told; columns have Arrow's.
pub(crate) static TYPE_INFO: LazyLock<Result<XdbcTypeInfoData, String>> =
    LazyLock::new(|| XdbcTypeInfoDataBuilder::new().build().map_err(|error| error.to_string()));

/// The kinds of tables: one.
pub(crate) fn table_types() -> SchemaRef {
    Schema::new(vec![Field::new("table_type", DataType::Utf8, false)]).into()
}

/// The tables that `user` may see, as `command` asks for them.
pub(crate) async fn tables(
    context: &SqlContext,
    user: &SqlUser,
    command: CommandGetTables,
) -> Result<RecordBatch, Status> {
    let include_schema = command.include_schema;
    let mut found = command.into_builder();
    for name in names(context, user).await? {
        let schema = if include_schema {
            let text = format!("SELECT * FROM \"{}\"", name.replace('"', "\"\""));
            let described = context.describe(user, Question::new(text, Door::Flight)).await;
            bigpeer_sql::plain_schema(&described.map_err(|error| status(&error))?.schema)
        } else {
            Schema::empty().into()
        };
        found.append(CATALOGUE, user.app().as_str(), name, "BASE TABLE", &schema).map_err(internal)?;
    }
    found.build().map_err(internal)
}

/// The collections that `user` may see.
async fn names(context: &SqlContext, user: &SqlUser) -> Result<Vec<String>, Status> {
    const TABLES: &str = "SELECT CAST(table_name AS VARCHAR) AS name FROM information_schema.tables \
                          WHERE table_type = 'BASE TABLE' ORDER BY name";
    let mut answer = context.ask(user, Question::new(TABLES, Door::Flight)).await.map_err(|error| status(&error))?;
    let schema = bigpeer_sql::plain_schema(answer.schema());
    let mut names = Vec::new();
    while let Some(batch) = answer.next().await.map_err(|error| status(&error))? {
        let batch = bigpeer_sql::plain_batch(&batch, &schema).map_err(internal)?;
        let column = batch.columns().first().and_then(|column| column.as_string_opt::<i32>().cloned());
        for row in column.iter() {
            names.extend((0..row.len()).map(|index| row.value(index).to_owned()));
        }
    }
    Ok(names)
}

/// A defect: logged, and not shown.
pub(crate) fn internal(error: impl Display) -> Status {
    tracing::error!(%error, "an answer over Flight SQL cannot be made");
    Status::internal("the server failed")
}
