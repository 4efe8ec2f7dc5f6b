//! What a row consists of: projections and aggregates, compiled.

use bigpeer_crdt::{Object, Value};

use crate::ast::{AggregateKind, Expr, Projection};
use crate::error::{DqlError, shown};
use crate::eval::Env;
use crate::eval::aggregate::Accumulator;
use crate::eval::compile::Compiler;
use crate::eval::node::Node;

/// Makes rows.
#[derive(Clone, Debug)]
pub(crate) enum Projector {
    /// `*`
    Star,
    Columns(Vec<Column>),
}

#[derive(Clone, Debug)]
pub(crate) enum Column {
    /// `alias.*`; of which source, in a join.
    All(Option<usize>),
    /// `MISSING path`
    Without(Vec<String>),
    Value(Box<str>, Node),
}

impl Projector {
    pub(crate) fn new(
        projections: &[Projection],
        compiler: &mut Compiler<'_>,
        grouped: bool,
    ) -> Result<Self, DqlError> {
        if projections == [Projection::All] && !grouped {
            return Ok(Self::Star);
        }
        let mut columns = Vec::with_capacity(projections.len());
        for (projection, number) in projections.iter().zip(1_usize..) {
            let refuse = |what: &str| {
                DqlError::new(format!("Projection \"{}\" must depend only on group keys or aggregates", shown(what)))
            };
            columns.push(match projection {
                Projection::All if grouped => return Err(refuse("*")),
                Projection::AllOf(alias) if grouped => return Err(refuse(&format!("{alias}.*"))),
                Projection::All => {
                    return Err(DqlError::new("unqualified * with other projection elements is not supported"));
                }
                Projection::AllOf(name) => Column::All(compiler.source(name)),
                Projection::Missing(path) => Column::Without(path.clone()),
                Projection::Expr { expr, alias } => {
                    compiler.refuse_with(|| refuse(&expr.to_string()));
                    let name = alias.clone().unwrap_or_else(|| format!("(${number})"));
                    Column::Value(name.into(), compiler.node(expr)?)
                }
            });
        }
        Ok(Self::Columns(columns))
    }

    /// The row of `env`. Columns that are MISSING are left out.
    pub(crate) fn row(&self, env: Env<'_>) -> Value {
        let columns = match self {
            Self::Star => return Value::Object(env.row.to_object()),
            Self::Columns(columns) => columns,
        };
        let mut entries: Vec<(Box<str>, Value)> = Vec::with_capacity(columns.len());
        let mut without = Vec::new();
        for column in columns {
            match column {
                Column::All(source) => {
                    entries.extend(source.map_or(env.row, |at| env.row.source(at)).to_object());
                }
                Column::Without(path) => without.push(path.as_slice()),
                Column::Value(name, node) => {
                    entries.extend(node.eval(env).into_value().map(|value| (name.clone(), value)));
                }
            }
        }
        let mut object: Object = entries.into_iter().collect();
        for path in without {
            remove(&mut object, path);
        }
        Value::Object(object)
    }
}

fn remove(object: &mut Object, path: &[String]) {
    match path {
        [] => {}
        [key] => _ = object.remove(key),
        [key, rest @ ..] => {
            if let Some(Value::Object(below)) = object.get_mut(key) {
                remove(below, rest);
            }
        }
    }
}

/// One aggregate of a grouped statement.
#[derive(Clone, Debug)]
pub(crate) struct Aggregate {
    kind: AggregateKind,
    distinct: bool,
    pub(crate) arg: Option<Node>,
}

impl Aggregate {
    pub(crate) fn new(expr: &Expr, compiler: &mut Compiler<'_>) -> Result<Self, DqlError> {
        let Expr::Aggregate { kind, distinct, arg } = expr else {
            return Err(DqlError::new(format!("{} is no aggregate", shown(&expr.to_string()))));
        };
        let arg = arg.as_ref().map(|arg| compiler.node(arg)).transpose()?;
        Ok(Self { kind: *kind, distinct: *distinct, arg })
    }

    pub(crate) fn start(&self) -> Accumulator {
        Accumulator::new(self.kind, self.distinct, self.arg.is_none())
    }
}
