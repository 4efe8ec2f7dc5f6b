//! What is worth compacting: a balance of what readers must look into against bytes that are rewritten.

use bigpeer_tables::{Debt, Extent};

/// New segments above which the smallest are merged.
const MANY_SEGMENTS: usize = 8;

/// Bytes that are rewritten for tidiness alone, when nothing else is going on.
const CHEAP_BYTES: u64 = 256 << 20;

/// How far a collection is to be compacted now, if at all. `quiet`: nothing was written for a while.
#[must_use]
pub fn due(debt: &Debt, quiet: bool) -> Option<Extent> {
    let total = debt.new_bytes + debt.run_bytes;
    if quiet && (debt.new_segments > 0 || debt.superseded > 0) && (total <= CHEAP_BYTES || debt.new_bytes * 10 >= total)
    {
        return Some(Extent::Full);
    }
    let grown = debt.new_segments >= MANY_SEGMENTS && debt.new_bytes * 3 >= debt.run_bytes;
    let worn = debt.superseded * 3 >= debt.rows && debt.rows > 0;
    if grown || (worn && debt.new_bytes * 10 >= debt.run_bytes) {
        return Some(Extent::Major);
    }
    (debt.new_segments >= MANY_SEGMENTS).then_some(Extent::Minor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigpeer_types::CollectionName;

    fn debt(new_segments: usize, new_bytes: u64, run_bytes: u64, superseded: u64) -> Debt {
        let collection = CollectionName::new("c").unwrap();
        Debt { collection, new_segments, new_bytes, run_bytes, rows: 1000, superseded }
    }

    #[test]
    fn a_large_run_is_not_rewritten_for_little() {
        assert_eq!(due(&debt(7, 1 << 20, 1 << 40, 0), false), None);
        assert_eq!(due(&debt(8, 1 << 20, 1 << 40, 0), false), Some(Extent::Minor));
        assert_eq!(due(&debt(8, 1 << 20, 1 << 40, 0), true), Some(Extent::Minor));
        assert_eq!(due(&debt(8, 1 << 39, 1 << 40, 0), false), Some(Extent::Major));
    }

    #[test]
    fn a_quiet_collection_becomes_one_run() {
        assert_eq!(due(&debt(1, 1000, 1 << 20, 0), true), Some(Extent::Full));
        assert_eq!(due(&debt(0, 0, 1 << 20, 1), true), Some(Extent::Full));
        assert_eq!(due(&debt(0, 0, 1 << 20, 0), true), None);
    }
}
