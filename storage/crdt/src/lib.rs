//! Documents as CRDTs: values, states, deltas, merge and encodings; no I/O, no async
