//! `pg_catalog`: the app as PostgreSQL's clients ask about it. Made from the names that the caller may see, when it is asked
//! for.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use bigpeer_types::AppId;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::datasource::MemTable;
use datafusion::error::Result;

use super::empty::EMPTY;
use super::types::{ALL, PgType, pg_type};
use crate::catalog::AppSchema;

/// The owner of everything.
pub(super) const OWNER: &str = "bigpeer";
const OWNER_OID: i64 = 10;
const PG_CATALOG_OID: i64 = 11;
const PUBLIC_OID: i64 = 2200;
const HEAP_OID: i64 = 2;

/// The tables that have rows; all others are empty.
pub(super) const FILLED: [&str; 9] = [
    "pg_am",
    "pg_attribute",
    "pg_class",
    "pg_database",
    "pg_namespace",
    "pg_roles",
    "pg_settings",
    "pg_tables",
    "pg_type",
];

/// The number of a table or a database of this name: the same in every session and process, and above PostgreSQL's own.
pub(super) fn oid_of(name: &str) -> i64 {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    16_384 + i64::try_from(hash % (1 << 30)).unwrap_or_default()
}

/// The number of a schema of this name.
pub(super) const fn namespace_of(name: &str) -> Option<i64> {
    match name.as_bytes() {
        b"public" => Some(PUBLIC_OID),
        b"pg_catalog" => Some(PG_CATALOG_OID),
        _ => None,
    }
}

/// The catalogue of one query.
pub(crate) struct PgCatalog {
    app: AppId,
    schema: Arc<AppSchema>,
}

impl PgCatalog {
    pub(crate) const fn new(app: AppId, schema: Arc<AppSchema>) -> Self {
        Self { app, schema }
    }

    async fn rows(&self, name: &str) -> Result<Option<Table>> {
        Ok(Some(match name {
            "pg_am" => Table::new(&[("oid", 'n'), ("amname", 't'), ("amhandler", 't'), ("amtype", 't')]).row([
                Cell::N(HEAP_OID),
                t("heap"),
                t("-"),
                t("t"),
            ]),
            "pg_attribute" => self.attributes().await?,
            "pg_class" => self.classes().await?,
            "pg_database" => self.databases(),
            "pg_namespace" => {
                let table = Table::new(&[("oid", 'n'), ("nspname", 't'), ("nspowner", 'n'), ("nspacl", 't')]);
                table.row([Cell::N(PG_CATALOG_OID), t("pg_catalog"), Cell::N(OWNER_OID), Cell::Null]).row([
                    Cell::N(PUBLIC_OID),
                    t("public"),
                    Cell::N(OWNER_OID),
                    Cell::Null,
                ])
            }
            "pg_roles" => roles(),
            "pg_settings" => settings(),
            "pg_tables" => self.tables(),
            "pg_type" => type_rows(),
            _ => match EMPTY.iter().find(|(empty, _)| *empty == name) {
                Some((_, columns)) => Table::new(columns),
                None => return Ok(None),
            },
        }))
    }

    fn tables(&self) -> Table {
        let columns = [("schemaname", 't'), ("tablename", 't'), ("tableowner", 't'), ("tablespace", 't')];
        let flags = [("hasindexes", 'b'), ("hasrules", 'b'), ("hastriggers", 'b'), ("rowsecurity", 'b')];
        self.schema.table_names().into_iter().fold(Table::new(&[columns, flags].concat()), |table, name| {
            let no = || Cell::B(false);
            table.row([t("public"), Cell::T(name), t(OWNER), Cell::Null, no(), no(), no(), no()])
        })
    }

    /// The columns of each table that there is now.
    async fn columns(&self) -> Result<Vec<(String, Vec<(String, PgType)>)>> {
        let mut tables = Vec::new();
        for name in self.schema.table_names() {
            let Some(table) = self.schema.table(&name).await? else { continue };
            let schema = table.schema();
            let columns = schema.fields().iter().map(|field| (field.name().clone(), pg_type(field)));
            tables.push((name, columns.collect()));
        }
        Ok(tables)
    }

    async fn classes(&self) -> Result<Table> {
        let mut table = Table::new(CLASS);
        for (name, columns) in self.columns().await? {
            let count = i64::try_from(columns.len()).unwrap_or(i64::MAX);
            table.push(CLASS, |column| match column {
                "oid" => Cell::N(oid_of(&name)),
                "relname" => Cell::T(name.clone()),
                "relnamespace" => Cell::N(PUBLIC_OID),
                "relowner" => Cell::N(OWNER_OID),
                "relam" => Cell::N(HEAP_OID),
                "relnatts" => Cell::N(count),
                "relkind" => t("r"),
                "relpersistence" => t("p"),
                "relreplident" => t("d"),
                "reltuples" => Cell::N(-1),
                "relispopulated" => Cell::B(true),
                _ => Cell::Default,
            });
        }
        Ok(table)
    }

    async fn attributes(&self) -> Result<Table> {
        let mut table = Table::new(ATTRIBUTE);
        for (name, columns) in self.columns().await? {
            for (number, (column_name, kind)) in (1..).zip(columns) {
                table.push(ATTRIBUTE, |column| match column {
                    "attrelid" => Cell::N(oid_of(&name)),
                    "attname" => Cell::T(column_name.clone()),
                    "atttypid" => Cell::N(kind.oid.into()),
                    "attlen" => Cell::N(kind.len.into()),
                    "attnum" => Cell::N(number),
                    "attndims" => Cell::N((kind.element != 0).into()),
                    "atttypmod" | "attcacheoff" => Cell::N(-1),
                    "attstattarget" | "attmissingval" | "attacl" | "attoptions" => Cell::Null,
                    "attislocal" => Cell::B(true),
                    _ => Cell::Default,
                });
            }
        }
        Ok(table)
    }

    fn databases(&self) -> Table {
        let columns = &[
            ("oid", 'n'),
            ("datname", 't'),
            ("datdba", 'n'),
            ("encoding", 'n'),
            ("datcollate", 't'),
            ("datctype", 't'),
            ("datistemplate", 'b'),
            ("datallowconn", 'b'),
            ("datconnlimit", 'n'),
            ("dattablespace", 'n'),
            ("datlocprovider", 't'),
            ("daticulocale", 't'),
            ("daticurules", 't'),
            ("datacl", 't'),
        ];
        let app = self.app.as_str();
        Table::new(columns).row([
            Cell::N(oid_of(app)),
            t(app),
            Cell::N(OWNER_OID),
            Cell::N(6),
            t("C"),
            t("C"),
            Cell::B(false),
            Cell::B(true),
            Cell::N(-1),
            Cell::N(0),
            t("c"),
            Cell::Null,
            Cell::Null,
            Cell::Null,
        ])
    }
}

fn roles() -> Table {
    const COLUMNS: &[(&str, char)] = &[
        ("oid", 'n'),
        ("rolname", 't'),
        ("rolsuper", 'b'),
        ("rolinherit", 'b'),
        ("rolcreaterole", 'b'),
        ("rolcreatedb", 'b'),
        ("rolcanlogin", 'b'),
        ("rolreplication", 'b'),
        ("rolconnlimit", 'n'),
        ("rolvaliduntil", 't'),
        ("rolbypassrls", 'b'),
    ];
    let mut table = Table::new(COLUMNS);
    table.push(COLUMNS, |column| match column {
        "oid" => Cell::N(OWNER_OID),
        "rolname" => t(OWNER),
        "rolcanlogin" => Cell::B(true),
        "rolconnlimit" => Cell::N(-1),
        "rolvaliduntil" => Cell::Null,
        _ => Cell::Default,
    });
    table
}

fn settings() -> Table {
    let columns = &[("name", 't'), ("setting", 't'), ("unit", 't'), ("category", 't'), ("short_desc", 't')];
    let table = Table::new(columns);
    super::functions::SETTINGS
        .iter()
        .fold(table, |table, (name, value)| table.row([t(name), t(value), Cell::Null, t("Preset Options"), t("")]))
}

fn type_rows() -> Table {
    let mut table = Table::new(TYPE);
    for known in ALL {
        let array = ALL.iter().find(|other| other.element == known.oid).map_or(0, |array| array.oid);
        table.push(TYPE, |column| match column {
            "oid" => Cell::N(known.oid.into()),
            "typname" => t(known.name),
            "typnamespace" => Cell::N(PG_CATALOG_OID),
            "typowner" => Cell::N(OWNER_OID),
            "typlen" => Cell::N(known.len.into()),
            "typbyval" => Cell::B((1..=8).contains(&known.len)),
            "typtype" => t("b"),
            "typcategory" => Cell::T(known.category.to_string()),
            "typispreferred" => Cell::B(matches!(known.name, "text" | "float8" | "bool" | "timestamptz")),
            "typisdefined" => Cell::B(true),
            "typdelim" => t(","),
            "typelem" => Cell::N(known.element.into()),
            "typarray" => Cell::N(array.into()),
            "typinput" => Cell::T(if known.element == 0 { format!("{}in", known.name) } else { "array_in".to_owned() }),
            "typtypmod" => Cell::N(-1),
            "typdefault" | "typdefaultbin" | "typacl" => Cell::Null,
            _ => Cell::Default,
        });
    }
    table
}

/// The columns of `pg_class`.
const CLASS: &[(&str, char)] = &[
    ("oid", 'n'),
    ("relname", 't'),
    ("relnamespace", 'n'),
    ("reltype", 'n'),
    ("reloftype", 'n'),
    ("relowner", 'n'),
    ("relam", 'n'),
    ("relfilenode", 'n'),
    ("reltablespace", 'n'),
    ("relpages", 'n'),
    ("reltuples", 'n'),
    ("relallvisible", 'n'),
    ("reltoastrelid", 'n'),
    ("relhasindex", 'b'),
    ("relisshared", 'b'),
    ("relpersistence", 't'),
    ("relkind", 't'),
    ("relnatts", 'n'),
    ("relchecks", 'n'),
    ("relhasrules", 'b'),
    ("relhastriggers", 'b'),
    ("relhassubclass", 'b'),
    ("relrowsecurity", 'b'),
    ("relforcerowsecurity", 'b'),
    ("relispopulated", 'b'),
    ("relreplident", 't'),
    ("relispartition", 'b'),
    ("relrewrite", 'n'),
    ("relacl", 't'),
    ("reloptions", 't'),
    ("relpartbound", 't'),
];

/// The columns of `pg_attribute`.
const ATTRIBUTE: &[(&str, char)] = &[
    ("attrelid", 'n'),
    ("attname", 't'),
    ("atttypid", 'n'),
    ("attstattarget", 'n'),
    ("attlen", 'n'),
    ("attnum", 'n'),
    ("attndims", 'n'),
    ("attcacheoff", 'n'),
    ("atttypmod", 'n'),
    ("attbyval", 'b'),
    ("attalign", 't'),
    ("attstorage", 't'),
    ("attcompression", 't'),
    ("attnotnull", 'b'),
    ("atthasdef", 'b'),
    ("atthasmissing", 'b'),
    ("attidentity", 't'),
    ("attgenerated", 't'),
    ("attisdropped", 'b'),
    ("attislocal", 'b'),
    ("attinhcount", 'n'),
    ("attcollation", 'n'),
    ("attacl", 't'),
    ("attoptions", 't'),
    ("attmissingval", 't'),
];

/// The columns of `pg_type`.
const TYPE: &[(&str, char)] = &[
    ("oid", 'n'),
    ("typname", 't'),
    ("typnamespace", 'n'),
    ("typowner", 'n'),
    ("typlen", 'n'),
    ("typbyval", 'b'),
    ("typtype", 't'),
    ("typcategory", 't'),
    ("typispreferred", 'b'),
    ("typisdefined", 'b'),
    ("typdelim", 't'),
    ("typrelid", 'n'),
    ("typsubscript", 't'),
    ("typelem", 'n'),
    ("typarray", 'n'),
    ("typinput", 't'),
    ("typoutput", 't'),
    ("typreceive", 't'),
    ("typsend", 't'),
    ("typnotnull", 'b'),
    ("typbasetype", 'n'),
    ("typtypmod", 'n'),
    ("typndims", 'n'),
    ("typcollation", 'n'),
    ("typdefaultbin", 't'),
    ("typdefault", 't'),
    ("typacl", 't'),
];

/// A value.
enum Cell {
    N(i64),
    B(bool),
    T(String),
    Null,
    /// Zero, false or empty.
    Default,
}

fn t(text: &str) -> Cell {
    Cell::T(text.to_owned())
}

/// A table in the making: names, a letter for the type of each column (`n`umber, `b`oolean, `t`ext), rows.
struct Table {
    columns: Vec<(&'static str, char)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    fn new(columns: &[(&'static str, char)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    fn row(mut self, cells: impl IntoIterator<Item = Cell>) -> Self {
        self.rows.push(cells.into_iter().collect());
        self
    }

    fn push(&mut self, columns: &[(&'static str, char)], cell: impl Fn(&str) -> Cell) {
        self.rows.push(columns.iter().map(|(name, _)| cell(name)).collect());
    }

    fn finish(&self) -> Result<MemTable> {
        let mut fields = Vec::with_capacity(self.columns.len());
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for (index, (name, kind)) in self.columns.iter().enumerate() {
            let cells = self.rows.iter().map(|row| row.get(index).unwrap_or(&Cell::Null));
            let (data_type, array): (DataType, ArrayRef) = match kind {
                'n' => (DataType::Int64, Arc::new(cells.map(number).collect::<Int64Array>())),
                'b' => (DataType::Boolean, Arc::new(cells.map(truth).collect::<BooleanArray>())),
                _ => (DataType::Utf8, Arc::new(cells.map(text).collect::<StringArray>())),
            };
            fields.push(Field::new(*name, data_type, true));
            arrays.push(array);
        }
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
        MemTable::try_new(schema, vec![vec![batch]])
    }
}

const fn number(cell: &Cell) -> Option<i64> {
    match cell {
        Cell::N(value) => Some(*value),
        Cell::Default => Some(0),
        Cell::B(_) | Cell::T(_) | Cell::Null => None,
    }
}

const fn truth(cell: &Cell) -> Option<bool> {
    match cell {
        Cell::B(value) => Some(*value),
        Cell::Default => Some(false),
        Cell::N(_) | Cell::T(_) | Cell::Null => None,
    }
}

fn text(cell: &Cell) -> Option<&str> {
    match cell {
        Cell::T(value) => Some(value),
        Cell::Default => Some(""),
        Cell::N(_) | Cell::B(_) | Cell::Null => None,
    }
}

impl fmt::Debug for PgCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PgCatalog({})", self.app)
    }
}

#[async_trait]
impl SchemaProvider for PgCatalog {
    fn table_names(&self) -> Vec<String> {
        FILLED.into_iter().chain(EMPTY.iter().map(|(name, _)| *name)).map(str::to_owned).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        match self.rows(name).await? {
            Some(table) => Ok(Some(Arc::new(table.finish()?))),
            None => Ok(None),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        FILLED.contains(&name) || EMPTY.iter().any(|(empty, _)| *empty == name)
    }
}
