//! Property tests: printing and parsing, hostile text, evaluation of anything on anything, pruning.

mod hostile;
mod printing;
mod pruning;
mod strategies;
