//! What both ends of the protocol do with each other, and with anything else.

mod fuzz;
mod older;
