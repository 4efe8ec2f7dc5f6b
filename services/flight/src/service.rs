//! The calls of Flight SQL: who asks, the statement, then its rows.

use std::pin::Pin;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables,
    CommandGetXdbcTypeInfo, CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementIngest,
    CommandStatementQuery, CommandStatementUpdate, DoPutPreparedStatementResult, ProstMessageExt, SqlInfo,
    TicketStatementQuery,
};
use arrow_flight::{
    Action, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, IpcMessage,
    SchemaAsIpc, Ticket,
};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bigpeer_chassis::{ApiError, ErrorCode, as_client_now};
use bigpeer_sql::{Answer, Door, Language, Question, SqlContext, SqlUser, plain_batch, plain_schema};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status, Streaming};

use crate::handle::Handle;
use crate::metadata::{CATALOGUE, SQL_INFO, TYPE_INFO, internal, table_types, tables};
use crate::metrics;
use crate::status::{bad, read_only, status};

/// In a call, the transaction that must be visible; in an answer, the one that it is true at. As over HTTP.
const TRANSACTION_ID: &str = "x-ditto-txn-id";
/// In a call, the transaction whose state is asked for.
const AS_OF: &str = "x-bigpeer-as-of";
/// In a call, the address that it comes from: the listener's word.
pub(crate) const CLIENT: &str = "x-bigpeer-client";

/// Drivers of Go leave the padding out, others do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

type Rows = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send + 'static>>;
type Answered = Result<Response<Rows>, Status>;

/// Flight SQL over a [`SqlContext`].
#[derive(Clone, Debug)]
pub(crate) struct FlightSql {
    context: SqlContext,
}

impl FlightSql {
    pub(crate) const fn new(context: SqlContext) -> Self {
        Self { context }
    }

    fn user(&self, headers: &MetadataMap) -> Result<SqlUser, Status> {
        let (app, key) = credentials(headers).ok_or_else(unauthorized)?;
        let from = headers.get(CLIENT).and_then(|from| from.to_str().ok()?.parse().ok());
        as_client_now(from, || self.context.user(&app, &key))
            .map_err(|error| if error.code == ErrorCode::Unauthorized { unauthorized() } else { status(&error) })
    }

    /// The statement of `handle` as the caller asks it.
    fn question(handle: &Handle, headers: &MetadataMap) -> Result<Question, Status> {
        Ok(Question {
            text: handle.query.clone(),
            params: handle.params()?,
            language: Language::Own,
            as_of: number(headers, AS_OF)?,
            after: number(headers, TRANSACTION_ID)?,
            door: Door::Flight,
        })
    }

    /// Where the rows of `handle` are, and what columns they have.
    async fn info(&self, handle: Handle, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let user = self.user(request.metadata())?;
        let question = Self::question(&handle, request.metadata())?;
        let described = self.context.describe(&user, question).await.map_err(|error| status(&error))?;
        let ticket = TicketStatementQuery { statement_handle: handle.write() };
        info(&plain_schema(&described.schema), &ticket, request.into_inner())
    }

    /// The rows of `handle`.
    async fn rows(&self, handle: &Handle, request: Request<Ticket>) -> Answered {
        let user = self.user(request.metadata())?;
        let question = Self::question(handle, request.metadata())?;
        let answer = self.context.ask(&user, question).await.map_err(|error| status(&error))?;
        let (version, schema) = (answer.transaction().version, plain_schema(answer.schema()));
        let mut response = encoded(Arc::clone(&schema), batches(answer, schema));
        response.metadata_mut().insert(TRANSACTION_ID, MetadataValue::from(version));
        Ok(response)
    }
}

/// The app and the key of a call: `Bearer APP:KEY`, or `Basic` as drivers send user name and password.
fn credentials(headers: &MetadataMap) -> Option<(String, String)> {
    let text = headers.get("authorization")?.to_str().ok()?;
    let (scheme, rest) = text.trim().split_once(' ')?;
    let pair = if scheme.eq_ignore_ascii_case("basic") {
        String::from_utf8(BASE64.decode(rest.trim()).ok()?).ok()?
    } else if scheme.eq_ignore_ascii_case("bearer") {
        rest.trim().to_owned()
    } else {
        return None;
    };
    pair.split_once(':').map(|(app, key)| (app.to_owned(), key.to_owned()))
}

fn unauthorized() -> Status {
    Status::unauthenticated(
        "no valid API key for this app; send the app's id as user name and a key as password, or 'authorization: Bearer \
         APP:KEY'",
    )
}

/// The number in a header.
fn number(headers: &MetadataMap, name: &'static str) -> Result<Option<u64>, Status> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.map(Some).ok_or_else(|| bad(format!("{name} must be the id of a transaction, a whole number")))
}

fn info(
    schema: &Schema,
    ticket: &impl ProstMessageExt,
    descriptor: FlightDescriptor,
) -> Result<Response<FlightInfo>, Status> {
    let ticket = Ticket::new(ticket.as_any().encode_to_vec());
    let info = FlightInfo::new().try_with_schema(schema).map_err(internal)?;
    Ok(Response::new(info.with_endpoint(FlightEndpoint::new().with_ticket(ticket)).with_descriptor(descriptor)))
}

/// The batches of `answer` in the types of `schema`, each made when the one before was taken.
fn batches(answer: Answer, schema: SchemaRef) -> impl Stream<Item = Result<RecordBatch, FlightError>> + Send {
    stream::unfold(Some((answer, schema)), |state| async move {
        let (mut answer, schema) = state?;
        match answer.next().await {
            Ok(None) => None,
            Ok(Some(batch)) => match plain_batch(&batch, &schema) {
                Ok(batch) => Some((Ok(batch), Some((answer, schema)))),
                Err(error) => Some((Err(internal(error).into()), None)),
            },
            Err(error) => Some((Err(failed(&error)), None)),
        }
    })
}

fn failed(error: &ApiError) -> FlightError {
    tracing::info!(code = error.code.as_str(), "a query failed after its answer had begun");
    status(error).into()
}

fn encoded(
    schema: SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch, FlightError>> + Send + 'static,
) -> Response<Rows> {
    let data = FlightDataEncoderBuilder::new().with_schema(schema).build(batches);
    Response::new(data.map_err(Status::from).boxed())
}

fn one<E: std::fmt::Display>(batch: Result<RecordBatch, E>) -> Answered {
    let batch = batch.map_err(internal)?;
    Ok(encoded(batch.schema(), stream::iter([Ok(batch)])))
}

fn ipc(schema: &Schema) -> Result<Bytes, Status> {
    let message: Result<IpcMessage, ArrowError> = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into();
    message.map(|IpcMessage(bytes)| bytes).map_err(internal)
}

fn known<T>(made: &Result<T, String>) -> Result<&T, Status> {
    made.as_ref().map_err(internal)
}

/// Counts a call.
async fn counted<T>(method: &'static str, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let result = call.await;
    metrics::call(method, result.is_err());
    result
}

#[tonic::async_trait]
impl FlightSqlService for FlightSql {
    type FlightService = Self;

    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>>, Status> {
        counted("handshake", async {
            self.user(request.metadata())?;
            let (app, key) = credentials(request.metadata()).ok_or_else(unauthorized)?;
            let token = format!("{app}:{key}");
            let value = MetadataValue::try_from(format!("Bearer {token}")).map_err(|_| unauthorized())?;
            let answer = HandshakeResponse { protocol_version: 0, payload: token.into() };
            let mut response = Response::new(stream::iter([Ok(answer)]).boxed());
            response.metadata_mut().insert("authorization", value);
            Ok(response)
        })
        .await
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        counted("info", self.info(Handle::new(query.query), request)).await
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        counted("info", async {
            self.user(request.metadata())?;
            self.info(Handle::read(&query.prepared_statement_handle)?, request).await
        })
        .await
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, request: Request<Ticket>) -> Answered {
        counted("rows", async {
            self.user(request.metadata())?;
            self.rows(&Handle::read(&ticket.statement_handle)?, request).await
        })
        .await
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Answered {
        counted("rows", async {
            self.user(request.metadata())?;
            self.rows(&Handle::read(&query.prepared_statement_handle)?, request).await
        })
        .await
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        counted("prepare", async {
            let user = self.user(request.metadata())?;
            let handle = Handle::new(query.query);
            let question = Self::question(&handle, request.metadata())?;
            let described = self.context.describe(&user, question).await.map_err(|error| status(&error))?;
            let parameters = described
                .parameters
                .into_iter()
                .map(|(name, kind)| Field::new(name, kind.unwrap_or(arrow::datatypes::DataType::Utf8), true));
            Ok(ActionCreatePreparedStatementResult {
                prepared_statement_handle: handle.write(),
                dataset_schema: ipc(&plain_schema(&described.schema))?,
                parameter_schema: ipc(&plain_schema(&Schema::new(parameters.collect::<Vec<_>>()).into()))?,
            })
        })
        .await
    }

    /// Nothing is kept, so nothing is closed.
    async fn do_action_close_prepared_statement(
        &self,
        _: ActionClosePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<(), Status> {
        self.user(request.metadata()).map(|_| ())
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        counted("bind", async {
            self.user(request.metadata())?;
            let handle = Handle::read(&query.prepared_statement_handle)?;
            let data = request.into_inner().map_err(FlightError::from);
            let mut batches = FlightRecordBatchStream::new_from_flight_data(data);
            let batch = batches.try_next().await.map_err(|error| bad(format!("parameters: {error}")))?;
            let batch = batch.ok_or_else(|| bad("the parameters have no row"))?;
            if batches.try_next().await.map_err(|error| bad(format!("parameters: {error}")))?.is_some() {
                return Err(bad("a query takes one row of parameters"));
            }
            Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle.bind(&batch)?.write()) })
        })
        .await
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.user(request.metadata())?;
        info(&query.into_builder().schema(), &query, request.into_inner())
    }

    async fn do_get_catalogs(&self, query: CommandGetCatalogs, request: Request<Ticket>) -> Answered {
        self.user(request.metadata())?;
        let mut catalogues = query.into_builder();
        catalogues.append(CATALOGUE);
        one(catalogues.build())
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.user(request.metadata())?;
        info(&query.clone().into_builder().schema(), &query, request.into_inner())
    }

    async fn do_get_schemas(&self, query: CommandGetDbSchemas, request: Request<Ticket>) -> Answered {
        let user = self.user(request.metadata())?;
        let mut schemas = query.into_builder();
        schemas.append(CATALOGUE, user.app().as_str());
        one(schemas.build())
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.user(request.metadata())?;
        info(&query.clone().into_builder().schema(), &query, request.into_inner())
    }

    async fn do_get_tables(&self, query: CommandGetTables, request: Request<Ticket>) -> Answered {
        counted("tables", async {
            let user = self.user(request.metadata())?;
            one::<Status>(Ok(tables(&self.context, &user, query).await?))
        })
        .await
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.user(request.metadata())?;
        info(&table_types(), &query, request.into_inner())
    }

    async fn do_get_table_types(&self, _: CommandGetTableTypes, request: Request<Ticket>) -> Answered {
        self.user(request.metadata())?;
        let names: ArrayRef = Arc::new(StringArray::from(vec!["BASE TABLE"]));
        one(RecordBatch::try_new(table_types(), vec![names]))
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.user(request.metadata())?;
        let schema = query.clone().into_builder(known(&SQL_INFO)?).schema();
        info(&schema, &query, request.into_inner())
    }

    async fn do_get_sql_info(&self, query: CommandGetSqlInfo, request: Request<Ticket>) -> Answered {
        self.user(request.metadata())?;
        one(query.into_builder(known(&SQL_INFO)?).build())
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.user(request.metadata())?;
        let schema = query.into_builder(known(&TYPE_INFO)?).schema();
        info(&schema, &query, request.into_inner())
    }

    async fn do_get_xdbc_type_info(&self, query: CommandGetXdbcTypeInfo, request: Request<Ticket>) -> Answered {
        self.user(request.metadata())?;
        one(query.into_builder(known(&TYPE_INFO)?).build())
    }

    async fn do_put_statement_update(
        &self,
        _: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        self.user(request.metadata())?;
        Err(read_only())
    }

    async fn do_put_statement_ingest(
        &self,
        _: CommandStatementIngest,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        self.user(request.metadata())?;
        Err(read_only())
    }

    async fn do_put_prepared_statement_update(
        &self,
        _: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        self.user(request.metadata())?;
        Err(read_only())
    }

    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn read(header: &str) -> Option<(String, String)> {
        let mut headers = MetadataMap::new();
        headers.insert("authorization", MetadataValue::try_from(header).unwrap());
        credentials(&headers)
    }

    #[test]
    fn app_and_key_come_as_basic_with_and_without_padding_and_as_bearer() {
        let pair = Some(("app".to_owned(), "key:1".to_owned()));
        for header in ["Basic YXBwOmtleTox", "Bearer app:key:1", "bearer  app:key:1 "] {
            assert_eq!(read(header), pair, "{header}");
        }
        for header in ["basic YTprZQ==", "Basic YTprZQ"] {
            assert_eq!(read(header), Some(("a".to_owned(), "ke".to_owned())), "{header}");
        }
        for header in ["", "Basic", "Basic ?", "Basic /w==", "Bearer app", "Digest a:b"] {
            assert_eq!(read(header), None, "{header}");
        }
    }
}
