//! Ditto Query Language: lexer, parser, evaluator on documents; no I/O, no DataFusion.
//!
//! [`parse`] makes a [`Statement`], [`Statement::bind`] puts in the parameters and makes a [`Plan`]. A plan says which
//! documents it needs ([`SelectPlan::ids`], [`SelectPlan::conditions`]), the caller fetches them and feeds them to a
//! run. Nothing here fetches, waits or asks for the time.

#![warn(missing_docs)]

pub mod ast;
mod condition;
mod display;
mod error;
mod eval;
mod functions;
mod keyword;
mod legacy;
mod lexer;
mod parser;
mod plan;
mod visit;

pub use ast::{Expr, Statement};
pub use condition::Condition;
pub use error::{DqlError, Position};
pub use functions::Function;
pub use legacy::{parse_legacy, parse_legacy_path};
pub use parser::{parse, parse_expr};
pub use plan::{
    ByColumns, ByColumnsWanted, DeletePlan, DeleteRun, Equality, Flow, Found, InsertPlan, Mode, Moment, Mutation,
    Params, Plan, QueryType, SelectPlan, SelectRun, UpdatePlan, UpdateRun, Wanted, Warning,
};
