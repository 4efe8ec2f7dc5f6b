//! The transaction log: one contract, its engines, and the suite that every engine passes
