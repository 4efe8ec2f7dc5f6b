//! `Engine`: from a query's text to a plan that runs. One for the process; what queries share is here: functions and
//! optimizer rules, caches of files and snapshots. What a query has for itself: its names, its memory, its clock.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bigpeer_chassis::{Access, ApiError, SystemCollections};
use bigpeer_tables::DocumentStore;
use bigpeer_types::Lsn;
use datafusion::common::ParamValues;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SQLOptions, SessionConfig};

use crate::catalog::{CATALOGUE, Names, SnapshotCache};
use crate::error::api_error;
use crate::objects::NoStores;
use crate::settings::SqlSettings;
use crate::{params, statement};

/// Stack of the thread that plans a query. Only what is used of it costs memory.
const PLANNER_STACK_BYTES: usize = 64 << 20;

/// Plans queries.
pub(crate) struct Engine {
    /// Copied for every query.
    template: SessionState,
    /// Copied for every query, with a memory pool of its own.
    runtime: RuntimeEnv,
    snapshots: SnapshotCache,
    query_memory_bytes: usize,
}

/// A query that is ready to run.
pub(crate) struct Planned {
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
    /// The result's columns, with the metadata that the physical plan may have lost.
    pub(crate) schema: SchemaRef,
    /// The transaction up to which the answer is true.
    pub(crate) lsn: Lsn,
}

impl Engine {
    pub(crate) fn new(settings: &SqlSettings) -> Result<Self> {
        let registry = Arc::new(NoStores::default());
        // Nothing is written to disk: a query that needs more memory than it may use fails instead.
        let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let runtime = RuntimeEnvBuilder::new().with_disk_manager_builder(disk).with_object_store_registry(registry);
        let runtime = runtime.build()?;
        Ok(Self {
            template: template(settings, Arc::new(runtime.clone())),
            runtime,
            snapshots: SnapshotCache::default(),
            query_memory_bytes: settings.query_memory_bytes,
        })
    }

    /// Plans the query `text` over the collections of `store` that `access` opens, as they are now, and system collections.
    pub(crate) async fn plan(
        self: Arc<Self>,
        store: Arc<DocumentStore>,
        (access, system): (Access, SystemCollections),
        text: String,
        params: ParamValues,
    ) -> std::result::Result<Planned, ApiError> {
        let planned = on_a_large_stack(async move || self.plan_here(&store, access, system, &text, &params).await);
        planned.await.and_then(|planned| planned).map_err(|error| api_error(&error))
    }

    async fn plan_here(
        &self,
        store: &DocumentStore,
        access: Access,
        system: SystemCollections,
        text: &str,
        params: &ParamValues,
    ) -> Result<Planned> {
        let for_client = |error: ApiError| DataFusionError::External(Box::new(error));
        // The number first: if the manifest changes in between, the next query looks again.
        let manifest = store.manifest_number();
        let tables = self.snapshots.tables(store.snapshot(), manifest);
        let lsn = tables.lsn();
        let names = Names::new(store.app().clone(), tables, access, system);
        let state = self.session(names, store.app().as_str());
        let parsed = statement::parse(&state, text).map_err(for_client)?;
        let logical = state.statement_to_plan(parsed).await?;
        let logical = params::replace(logical, params).map_err(for_client)?;
        self.finish(&state, logical, lsn).await
    }

    async fn finish(&self, state: &SessionState, logical: LogicalPlan, lsn: Lsn) -> Result<Planned> {
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        read_only.verify_plan(&logical)?;
        let schema = Arc::clone(logical.schema().inner());
        let plan = state.create_physical_plan(&logical).await?;
        let pool = Arc::new(GreedyMemoryPool::new(self.query_memory_bytes));
        let runtime = RuntimeEnv { memory_pool: pool, ..self.runtime.clone() };
        let task = Arc::new(TaskContext::from(state).with_runtime(Arc::new(runtime)));
        let schema = if schema.fields().len() == plan.schema().fields().len() { schema } else { plan.schema() };
        Ok(Planned { plan, task, schema, lsn })
    }

    fn session(&self, names: Arc<Names>, app: &str) -> SessionState {
        let mut state = self.template.clone();
        state.register_catalog_list(names);
        app.clone_into(&mut state.config_mut().options_mut().catalog.default_schema);
        state.mark_start_execution();
        state
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("query_memory_bytes", &self.query_memory_bytes).finish_non_exhaustive()
    }
}

impl Planned {
    /// Starts the query. It stops when the stream is dropped.
    pub(crate) fn run(self) -> Result<SendableRecordBatchStream, DataFusionError> {
        execute_stream(self.plan, self.task)
    }
}

/// Runs `work` on a thread whose stack is large enough for the deepest query that is let in: planning recurses, with
/// frames of kilobytes. Dropping the returned future stops the work at its next wait.
async fn on_a_large_stack<T, F>(work: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let (mut answer, result) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
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
    std::thread::Builder::new().name("sql-planner".to_owned()).stack_size(PLANNER_STACK_BYTES).spawn(run)?;
    result.await.map_err(|_| DataFusionError::Internal("the planner ended without an answer".to_owned()))
}

/// What every query starts from: all functions, no file formats, no way to make tables.
fn template(settings: &SqlSettings, runtime: Arc<RuntimeEnv>) -> SessionState {
    let mut config = SessionConfig::new()
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_default_catalog_and_schema(CATALOGUE, "")
        .with_target_partitions(settings.parallelism.get());
    let options = config.options_mut();
    // Names of fields are what documents say, and those are case-sensitive.
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.collect_spans = true;
    // Bloom filters are on `_key`, which no query names: looking for others is wasted.
    options.execution.parquet.bloom_filter_on_read = false;
    // The pieces of a table are cut where its row groups are; cutting them again opens files more often than it helps.
    options.optimizer.repartition_file_scans = false;
    // What a small side of a join holds seldom leaves out row groups, and costs an evaluation for each row.
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    let functions = SessionStateDefaults::default_table_functions();
    SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_expr_planners(SessionStateDefaults::default_expr_planners())
        .with_scalar_functions(SessionStateDefaults::default_scalar_functions())
        .with_higher_order_functions(SessionStateDefaults::default_higher_order_functions())
        .with_aggregate_functions(SessionStateDefaults::default_aggregate_functions())
        .with_window_functions(SessionStateDefaults::default_window_functions())
        .with_table_function_list(functions)
        .build()
}
