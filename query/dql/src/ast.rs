//! The syntax tree. `Display` (display.rs) prints it in one canonical form; `parse(display(tree)) == tree`.

use bigpeer_crdt::Value;
use bigpeer_types::CollectionName;

use crate::functions::Function;

/// A parsed statement, parameters not yet known. See [`crate::parse`] and [`Statement::bind`].
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// `SELECT`
    Select(Select),
    /// `INSERT INTO`
    Insert(Insert),
    /// `UPDATE`
    Update(Update),
    /// `DELETE FROM`
    Delete(Delete),
    /// `EVICT FROM`: the same clauses as DELETE, but local, without tombstones.
    Evict(Delete),
    /// `EXPLAIN` of another statement.
    Explain(Box<Statement>),
    /// `PROFILE` of a SELECT: its rows, and one more that says what they took.
    Profile(Box<Statement>),
    /// `ADVISE` on another statement: which indexes it lacks.
    Advise(Box<Statement>),
    /// `SHOW`: system parameters.
    Show(Show),
    /// `ALTER SYSTEM`: what a system parameter is to be.
    Alter(Alter),
}

/// `SHOW name`, `SHOW ALL`, with a pattern for the names.
#[derive(Clone, Debug, PartialEq)]
pub struct Show {
    /// One parameter; none for `ALL`.
    pub name: Option<String>,
    /// `LIKE` or `ILIKE` and the pattern; names have no case either way.
    pub like: Option<String>,
}

/// `ALTER SYSTEM SET name = value`, `ALTER SYSTEM RESET name`, `ALTER SYSTEM RESET ALL`.
#[derive(Clone, Debug, PartialEq)]
pub struct Alter {
    /// One parameter; none for `ALL`.
    pub name: Option<String>,
    /// The value; none to reset it, which `SET name = DEFAULT` is, too.
    pub to: Option<Value>,
}

/// Which collection, with the types of its fields, another name for it, and perhaps the ids to look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// The collection.
    pub collection: CollectionName,
    /// `COLLECTION name (path TYPE, …)`.
    pub types: Vec<TypeDef>,
    /// `AS alias`.
    pub alias: Option<String>,
    /// `USE IDS`.
    pub ids: Option<UseIds>,
}

/// `USE IDS (a, b)` or `USE IDS LIST :ids`.
#[derive(Clone, Debug, PartialEq)]
pub enum UseIds {
    /// Each expression is an id.
    Each(Vec<Expr>),
    /// One expression is an array of ids.
    List(Box<Expr>),
}

/// A declared field: `path TYPE`.
#[derive(Clone, Debug, PartialEq)]
pub struct TypeDef {
    /// The field.
    pub path: Vec<String>,
    /// What it is.
    pub kind: FieldType,
}

/// The CRDT that a field is declared to be.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldType {
    /// One value, last write wins.
    Register,
    /// A map of fields that merge one by one.
    Map(Vec<TypeDef>),
    /// A counter with restart.
    Counter,
    /// The legacy counter.
    PnCounter,
    /// An attachment token.
    Attachment,
}

/// `SELECT`.
#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    /// `SELECT DISTINCT`.
    pub distinct: bool,
    /// What a row consists of.
    pub projections: Vec<Projection>,
    /// `FROM`.
    pub source: Source,
    /// `JOIN`s, in their order.
    pub joins: Vec<Join>,
    /// `WHERE`.
    pub filter: Option<Expr>,
    /// `GROUP BY`.
    pub group_by: Vec<Expr>,
    /// `HAVING`.
    pub having: Option<Expr>,
    /// `ORDER BY`, `LIMIT`, `OFFSET`.
    pub order: Order,
}

/// `[INNER | LEFT | RIGHT] JOIN source ON condition`.
#[derive(Clone, Debug, PartialEq)]
pub struct Join {
    /// Which side is kept when nothing matches.
    pub kind: JoinKind,
    /// What is joined.
    pub source: Source,
    /// `ON`.
    pub on: Expr,
}

/// Which side of a join is kept when nothing on the other side matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// Neither.
    Inner,
    /// What stands before the join.
    Left,
    /// What is joined. Only as the first join.
    Right,
}

impl Source {
    /// What the statement calls it: its alias, or the collection's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.alias.as_deref().unwrap_or_else(|| self.collection.as_str())
    }
}

/// `ORDER BY`, `LIMIT` and `OFFSET`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Order {
    /// `ORDER BY`.
    pub by: Vec<OrderTerm>,
    /// `LIMIT`.
    pub limit: Option<Expr>,
    /// `OFFSET`.
    pub offset: Option<Expr>,
}

/// One term of `ORDER BY`.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderTerm {
    /// What is sorted by.
    pub expr: Expr,
    /// `DESC`: the whole type order is reversed.
    pub descending: bool,
}

/// One element of a projection or of `RETURNING`.
#[derive(Clone, Debug, PartialEq)]
pub enum Projection {
    /// `*`
    All,
    /// `alias.*`
    AllOf(String),
    /// `MISSING path`: leaves the field out of what `alias.*` gave.
    Missing(Vec<String>),
    /// An expression and perhaps its name.
    Expr {
        /// What is computed.
        expr: Expr,
        /// `AS name`.
        alias: Option<String>,
    },
}

/// `INSERT INTO`.
#[derive(Clone, Debug, PartialEq)]
pub struct Insert {
    /// The collection (no alias, no ids).
    pub source: Source,
    /// What is inserted.
    pub input: InsertInput,
    /// What happens when a document is there.
    pub conflict: ConflictPolicy,
    /// `RETURNING`.
    pub returning: Vec<Projection>,
}

/// What an INSERT inserts.
#[derive(Clone, Debug, PartialEq)]
pub enum InsertInput {
    /// `DOCUMENTS (a), (b)`: each is a document or an array of documents.
    Documents(Vec<Expr>),
    /// The rows of a SELECT.
    Select(Box<Select>),
}

/// What an INSERT does when the `_id` exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConflictPolicy {
    /// The statement fails.
    #[default]
    Fail,
    /// That document is left alone.
    DoNothing,
    /// Every given field is written.
    DoUpdate,
    /// Only fields that differ are written.
    DoUpdateLocalDiff,
    /// `INITIAL DOCUMENTS`: written at the beginning of time, so that every other write wins.
    Initial,
}

/// `UPDATE`.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// Which documents.
    pub source: Source,
    /// `APPLY`.
    pub apply: Vec<(Vec<String>, CounterOp)>,
    /// `SET`.
    pub set: Vec<(Vec<String>, Expr)>,
    /// `UNSET`.
    pub unset: Vec<Vec<String>>,
    /// `WHERE`.
    pub filter: Option<Expr>,
    /// `RETURNING`.
    pub returning: Vec<Projection>,
}

/// What APPLY does to a counter.
#[derive(Clone, Debug, PartialEq)]
pub enum CounterOp {
    /// `INCREMENT BY n`
    Increment(Expr),
    /// `RESTART [WITH n]`
    Restart(Option<Expr>),
    /// `PN_INCREMENT BY n`
    PnIncrement(Expr),
}

/// `DELETE FROM` and `EVICT FROM`.
#[derive(Clone, Debug, PartialEq)]
pub struct Delete {
    /// Which documents.
    pub source: Source,
    /// `WHERE`.
    pub filter: Option<Expr>,
    /// `ORDER BY`, `LIMIT`, `OFFSET`.
    pub order: Order,
    /// `RETURNING`.
    pub returning: Vec<Projection>,
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// A constant; arrays, objects and bytes come from parameters.
    Literal(Value),
    /// The word `MISSING`.
    Missing,
    /// `:name`
    Parameter(String),
    /// `a.b.c`: a field, an alias and a field, or a variable of ANY, EVERY, ARRAY or OBJECT.
    Path(Vec<String>),
    /// `(…).name`
    Member(Box<Expr>, String),
    /// `a[0]`
    Index(Box<Expr>, Box<Expr>),
    /// `[a, b]`
    Array(Vec<Expr>),
    /// `{'a': b}`
    Object(Vec<(String, Expr)>),
    /// `NOT a`
    Not(Box<Expr>),
    /// `-a`
    Negate(Box<Expr>),
    /// `a AND b AND …`, at least two
    And(Vec<Expr>),
    /// `a OR b OR …`, at least two
    Or(Vec<Expr>),
    /// Comparison, arithmetic, `||`
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `a IS [NOT] NULL`, `MISSING`
    Is {
        /// What is looked at.
        expr: Box<Expr>,
        /// `IS MISSING`; otherwise `IS NULL`, of which `IS UNKNOWN` is a synonym.
        missing: bool,
        /// `IS NOT`
        negated: bool,
    },
    /// `a [NOT] BETWEEN low AND high`
    Between {
        /// What is looked at.
        expr: Box<Expr>,
        /// The least.
        low: Box<Expr>,
        /// The greatest.
        high: Box<Expr>,
        /// `NOT BETWEEN`
        negated: bool,
    },
    /// `a [NOT] IN (b, c)`
    In {
        /// What is looked for.
        expr: Box<Expr>,
        /// Where.
        list: Vec<Expr>,
        /// `NOT IN`
        negated: bool,
    },
    /// `a [NOT] IN :list`
    InArray {
        /// What is looked for.
        expr: Box<Expr>,
        /// An array.
        array: Box<Expr>,
        /// `NOT IN`
        negated: bool,
    },
    /// `a [NOT] LIKE b [ESCAPE c]`, `ILIKE`, `SIMILAR TO`
    Like {
        /// What is looked at.
        expr: Box<Expr>,
        /// The pattern.
        pattern: Box<Expr>,
        /// `ESCAPE`
        escape: Option<char>,
        /// Which of the three.
        kind: LikeKind,
        /// `NOT LIKE`
        negated: bool,
    },
    /// `CASE [a] WHEN b THEN c … [ELSE d] END`
    Case {
        /// What is compared with each WHEN; without it each WHEN is a condition.
        operand: Option<Box<Expr>>,
        /// WHEN and THEN.
        branches: Vec<(Expr, Expr)>,
        /// ELSE.
        otherwise: Option<Box<Expr>>,
    },
    /// `CAST(a AS type)`
    Cast(Box<Expr>, CastType),
    /// `name(a, …)`
    Call(Function, Vec<Expr>),
    /// `COUNT(*)`, `SUM(DISTINCT a)`
    Aggregate {
        /// Which.
        kind: AggregateKind,
        /// `DISTINCT`
        distinct: bool,
        /// Nothing for `COUNT(*)`.
        arg: Option<Box<Expr>>,
    },
    /// `ANY v IN a SATISFIES c END`
    Quantified {
        /// Which.
        kind: Quantifier,
        /// The variables and what they go through.
        binding: Binding,
        /// What each element is asked.
        condition: Box<Expr>,
    },
    /// `ARRAY e FOR v IN a WHEN c END`, `OBJECT k : v FOR …`
    Comprehension {
        /// The key of an OBJECT; none for an ARRAY.
        key: Option<Box<Expr>>,
        /// Each element.
        element: Box<Expr>,
        /// The variables and what they go through.
        binding: Binding,
        /// WHEN.
        condition: Option<Box<Expr>>,
    },
}

/// `[i:] v IN a` or `WITHIN a`.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// The position in an array, the key in an object.
    pub index: Option<String>,
    /// The element.
    pub name: String,
    /// `WITHIN`: everything below, not only the elements.
    pub within: bool,
    /// An array or object.
    pub source: Box<Expr>,
}

/// Operators between two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `=`
    Eq,
    /// `!=`
    NotEq,
    /// `<`
    Lt,
    /// `<=`
    LtEq,
    /// `>`
    Gt,
    /// `>=`
    GtEq,
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Modulo,
    /// `||`
    Concat,
}

impl BinaryOp {
    /// How it is printed.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::NotEq => "!=",
            Self::Lt => "<",
            Self::LtEq => "<=",
            Self::Gt => ">",
            Self::GtEq => ">=",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Concat => "||",
        }
    }
}

/// The pattern languages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LikeKind {
    /// `LIKE`: `%` and `_`
    Like,
    /// `ILIKE`: the same, without regard to case
    Ilike,
    /// `SIMILAR TO`: also `|`, `[]`, `()`, `*`, `+`, `?`, `{n}`
    Similar,
}

/// What `CAST` casts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CastType {
    /// `STRING`
    String,
    /// `INTEGER`
    Integer,
    /// `FLOAT`
    Float,
    /// `BOOLEAN`
    Boolean,
    /// `BINARY`
    Binary,
}

/// Functions over the rows of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateKind {
    /// How many; of an expression: how many that are not null, missing or false.
    Count,
    /// The sum of the numbers.
    Sum,
    /// Their mean.
    Avg,
    /// The least value in type order, without null and missing.
    Min,
    /// The greatest value in type order, without null and missing.
    Max,
    /// The number in the middle.
    Median,
    /// The middle between the least and the greatest number.
    Mid,
}

impl AggregateKind {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::Count, Self::Sum, Self::Avg, Self::Min, Self::Max, Self::Median, Self::Mid];

    /// How it is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count => "COUNT",
            Self::Sum => "SUM",
            Self::Avg => "AVG",
            Self::Min => "MIN",
            Self::Max => "MAX",
            Self::Median => "MEDIAN",
            Self::Mid => "MID",
        }
    }
}

/// `ANY`, `EVERY`, `ANY AND EVERY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantifier {
    /// At least one.
    Any,
    /// All, or there are none.
    Every,
    /// All, and there is one.
    AnyAndEvery,
}
