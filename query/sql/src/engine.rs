//! `Engine`: from a query's text to a plan that runs. One for the process; what queries share is here: functions and
//! optimizer rules, caches of files and snapshots, memory and room on disk. What a query has for itself: its names, its share
//! of memory, its budget of bytes to read.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use bigpeer_chassis::{ApiError, KeyLimits};
use bigpeer_tables::Snapshot;
use bigpeer_types::{CollectionName, Lsn};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SQLOptions, SessionConfig};
use futures::{StreamExt, stream};
use tokio::runtime::Handle;

use crate::budget::ScanBudget;
use crate::catalog::{Names, Scope, SnapshotCache, SnapshotTables};
use crate::error::{api_error, for_client, starved};
use crate::language::Language;
use crate::memory::QueryPool;
use crate::objects::NoStores;
use crate::params::Params;
use crate::settings::{Share, Spill, SqlSettings};
use crate::table::CollectionTable;
use crate::{json, metrics, params, postgres, statement};

/// Stack of the thread that plans a query. Only what is used of it costs memory.
const PLANNER_STACK_BYTES: usize = 64 << 20;

/// Plans queries.
pub(crate) struct Engine {
    /// Copied for every query.
    own: SessionState,
    /// Copied for every query of a PostgreSQL client.
    postgres: SessionState,
    /// Copied for every query, with a memory pool of its own.
    runtime: RuntimeEnv,
    memory: Arc<GreedyMemoryPool>,
    snapshots: Arc<SnapshotCache>,
    /// What a query may use that no key asks.
    share: Share,
    /// Where queries run.
    threads: Handle,
}

/// What one query may use, and whether it wanted more.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    budget: Arc<ScanBudget>,
    pool: Arc<QueryPool>,
}

impl Limits {
    /// What a client is told about `error`: limits in their own words, whatever the error has become on its way.
    pub(crate) fn api_error(&self, error: &DataFusionError) -> ApiError {
        if self.budget.is_exceeded() {
            return self.budget.error();
        }
        let answer = api_error(error);
        if self.pool.is_starved() { starved(answer) } else { answer }
    }
}

/// A query's text, and what belongs to it.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) params: Params,
    /// Answer as of this transaction.
    pub(crate) as_of: Option<u64>,
}

/// A query that is ready to run.
pub(crate) struct Planned {
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
    threads: Handle,
    /// The result's columns, with the metadata that the physical plan may have lost.
    pub(crate) schema: SchemaRef,
    /// The transaction up to which the answer is true.
    pub(crate) lsn: Lsn,
    pub(crate) limits: Limits,
}

/// What a query would answer, and what it needs to be told.
#[derive(Clone, Debug)]
pub struct Described {
    /// The result's columns.
    pub schema: SchemaRef,
    /// The parameters in order of their names (`$1`, `$2`, …), with their types where the query tells them.
    pub parameters: Vec<(String, Option<DataType>)>,
}

impl Engine {
    pub(crate) fn new(settings: &SqlSettings, threads: Handle) -> Result<Self> {
        let registry = Arc::new(NoStores::default());
        let runtime = RuntimeEnvBuilder::new()
            .with_disk_manager_builder(disk(settings.spill.as_ref())?)
            .with_object_store_registry(registry)
            .build()?;
        let shared = Arc::new(runtime.clone());
        Ok(Self {
            own: template(settings, Arc::clone(&shared), Language::Own),
            postgres: template(settings, shared, Language::Postgres),
            runtime,
            memory: Arc::new(GreedyMemoryPool::new(settings.memory_bytes)),
            snapshots: Arc::default(),
            share: Share::new(settings, KeyLimits::default()),
            threads,
        })
    }

    /// Memory that the operators of all queries hold now, in bytes.
    pub(crate) fn reserved(&self) -> usize {
        self.memory.reserved()
    }

    /// Plans `text` over the collections that `scope` opens, as they are now or as they were.
    pub(crate) async fn plan(self: Arc<Self>, scope: Scope, text: Text) -> std::result::Result<Planned, ApiError> {
        let threads = self.threads.clone();
        let planned = on_a_large_stack(&threads, async move || {
            let (state, lsn, limits) = self.session(scope, text.as_of).await?;
            let logical = self.logical(&state, &text).await.map_err(|error| limits.api_error(&error))?;
            let logical = params::replace(logical, &text.params)?;
            let planned = self.finish(&state, logical, lsn, &limits).await;
            planned.map_err(|error| limits.api_error(&error))
        });
        planned.await.map_err(|error| api_error(&error))?
    }

    /// What `text` would answer. Parameters need no values.
    pub(crate) async fn describe(
        self: Arc<Self>,
        scope: Scope,
        text: Text,
    ) -> std::result::Result<Described, ApiError> {
        let threads = self.threads.clone();
        let described = on_a_large_stack(&threads, async move || {
            let (state, _, limits) = self.session(scope, text.as_of).await?;
            let logical = self.logical(&state, &text).await.map_err(|error| limits.api_error(&error))?;
            params::describe(&logical)
        });
        described.await.map_err(|error| api_error(&error))?
    }

    async fn logical(&self, state: &SessionState, text: &Text) -> Result<LogicalPlan> {
        let parsed = statement::parse(state, &text.text).map_err(for_client)?;
        let logical = state.statement_to_plan(parsed).await?;
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        read_only.verify_plan(&logical)?;
        Ok(logical)
    }

    async fn finish(&self, state: &SessionState, logical: LogicalPlan, lsn: Lsn, limits: &Limits) -> Result<Planned> {
        let schema = Arc::clone(logical.schema().inner());
        let plan = state.create_physical_plan(&logical).await?;
        let runtime = RuntimeEnv { memory_pool: Arc::clone(&limits.pool) as _, ..self.runtime.clone() };
        let task = Arc::new(TaskContext::from(state).with_runtime(Arc::new(runtime)));
        let schema = if schema.fields().len() == plan.schema().fields().len() { schema } else { plan.schema() };
        Ok(Planned { plan, task, threads: self.threads.clone(), schema, lsn, limits: limits.clone() })
    }

    /// The table of a collection.
    pub(crate) async fn table(&self, snapshot: &Snapshot, collection: &CollectionName) -> Result<Arc<CollectionTable>> {
        self.snapshots.tables(snapshot.clone(), snapshot.manifest_number()).table(collection).await
    }

    /// Plans a query that was not made from text. It has the limits of any other.
    pub(crate) async fn plan_built(self: Arc<Self>, logical: LogicalPlan, lsn: Lsn) -> Result<Planned> {
        let threads = self.threads.clone();
        on_a_large_stack(&threads, async move || {
            let mut state = self.own.clone();
            let limits = self.limits(&mut state, self.share);
            state.mark_start_execution();
            self.finish(&state, logical, lsn, &limits).await
        })
        .await?
    }

    /// What one query may use, for its session `state`, too.
    fn limits(&self, state: &mut SessionState, share: Share) -> Limits {
        let budget = Arc::new(ScanBudget::new(share.scan_bytes));
        let pool = Arc::new(QueryPool::new(share.memory_bytes, &self.memory));
        metrics::memory(self.reserved());
        state.config_mut().set_extension(Arc::clone(&budget));
        Limits { budget, pool }
    }

    /// A session for one query.
    async fn session(
        &self,
        scope: Scope,
        as_of: Option<u64>,
    ) -> std::result::Result<(SessionState, Lsn, Limits), ApiError> {
        let tables = self.tables(&scope, as_of).await?;
        let lsn = tables.lsn();
        let mut state = match scope.language {
            Language::Own => self.own.clone(),
            Language::Postgres => self.postgres.clone(),
        };
        let (language, app) = (scope.language, scope.store.app().clone());
        let limits = self.limits(&mut state, scope.share);
        let catalog = &mut state.config_mut().options_mut().catalog;
        language.catalogue(&app).clone_into(&mut catalog.default_catalog);
        language.schema(&app).clone_into(&mut catalog.default_schema);
        state.register_catalog_list(Names::new(scope, tables, Arc::clone(&self.snapshots)));
        state.mark_start_execution();
        Ok((state, lsn, limits))
    }

    async fn tables(&self, scope: &Scope, as_of: Option<u64>) -> std::result::Result<Arc<SnapshotTables>, ApiError> {
        match as_of {
            Some(version) => self.snapshots.past(&scope.store, version).await,
            None => {
                // The number first: if the manifest changes in between, the next query looks again.
                let manifest = scope.store.manifest_number();
                Ok(self.snapshots.tables(scope.store.snapshot(), manifest))
            }
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("share", &self.share).finish_non_exhaustive()
    }
}

impl Planned {
    /// Starts the query. It stops when the stream is dropped. Its parts run on the engine's threads, the last of them where it is
    /// read.
    pub(crate) fn run(self) -> Result<SendableRecordBatchStream, DataFusionError> {
        let threads = self.threads;
        // Operators start their tasks when they are started, or when they are first asked for rows.
        let mut batches = {
            let _there = threads.enter();
            execute_stream(self.plan, self.task)?
        };
        let schema = batches.schema();
        let stream = stream::poll_fn(move |context| {
            let _there = threads.enter();
            batches.poll_next_unpin(context)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}

/// Where operators put what does not fit into memory. What a process before this one left there is deleted.
fn disk(spill: Option<&Spill>) -> Result<DiskManagerBuilder> {
    use std::os::unix::fs::DirBuilderExt;
    let Some(spill) = spill else {
        return Ok(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled));
    };
    match std::fs::remove_dir_all(&spill.dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        Err(_) | Ok(()) => {}
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&spill.dir)?;
    let mode = DiskManagerMode::Directories(vec![spill.dir.clone()]);
    Ok(DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(spill.bytes))
}

/// Runs `work` on a thread whose stack is large enough for the deepest query that is let in: planning recurses, with
/// frames of kilobytes. Dropping the returned future stops the work at its next wait.
async fn on_a_large_stack<T, F>(threads: &Handle, work: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let (mut answer, result) = tokio::sync::oneshot::channel();
    let runtime = threads.clone();
    let run = move || {
        let result = runtime.block_on(async {
            tokio::select! {
                result = work() => Some(result),
                () = answer.closed() => None,
            }
        });
        if let Some(result) = result {
            // Nobody waits any more: fine.
            let _ = answer.send(result);
        }
    };
    let thread = std::thread::Builder::new().name("sql-planner".to_owned()).stack_size(PLANNER_STACK_BYTES);
    // A thread has the priority of the one that starts it.
    let started = threads.spawn(async move { thread.spawn(run).map(drop) }).await;
    started.map_err(|error| DataFusionError::External(error.into()))??;
    result.await.map_err(|_| DataFusionError::Internal("the planner ended without an answer".to_owned()))
}

/// What every query in `language` starts from: all functions, no file formats, no way to make tables.
fn template(settings: &SqlSettings, runtime: Arc<RuntimeEnv>, language: Language) -> SessionState {
    let mut config = SessionConfig::new()
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_target_partitions(settings.parallelism.get());
    let options = config.options_mut();
    // Names of fields are what documents say, and those are case-sensitive.
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.collect_spans = true;
    options.sql_parser.dialect = language.dialect();
    // Bloom filters are on `_key`, which no query names: looking for others is wasted.
    options.execution.parquet.bloom_filter_on_read = false;
    // The pieces of a table are cut where its row groups are; cutting them again opens files more often than it helps.
    options.optimizer.repartition_file_scans = false;
    // What a small side of a join holds seldom leaves out row groups, and costs an evaluation for each row.
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    let functions = SessionStateDefaults::default_table_functions();
    let mut planners = SessionStateDefaults::default_expr_planners();
    planners.insert(0, json::planner());
    let mut scalars = SessionStateDefaults::default_scalar_functions();
    scalars.extend(json::functions());
    if language == Language::Postgres {
        scalars.extend(postgres::functions());
    }
    SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_expr_planners(planners)
        .with_scalar_functions(scalars)
        .with_higher_order_functions(SessionStateDefaults::default_higher_order_functions())
        .with_aggregate_functions(SessionStateDefaults::default_aggregate_functions())
        .with_window_functions(SessionStateDefaults::default_window_functions())
        .with_table_function_list(functions)
        .build()
}
