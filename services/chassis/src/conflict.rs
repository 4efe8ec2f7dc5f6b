//! How every writer of documents names them in the preconditions of the log. All must name them alike, or a write through
//! one door would not be noticed at another.

use bigpeer_log::ConflictKey;
use bigpeer_types::CollectionName;
use xxhash_rust::xxh3::Xxh3;

/// The log's name for a document: a hash of its collection and of its id's key bytes. Two documents that share one only
/// make a writer try again.
#[must_use]
pub fn conflict_key(collection: &CollectionName, id_key: &[u8]) -> ConflictKey {
    let mut hash = Xxh3::new();
    // The length keeps ("ab", "c") and ("a", "bc") apart.
    hash.update(&collection.as_str().len().to_le_bytes());
    hash.update(collection.as_str().as_bytes());
    hash.update(id_key);
    ConflictKey(hash.digest())
}

/// The log's name for a whole collection: whoever writes a document writes it too, so that a transaction can depend on what
/// a scan did not find.
#[must_use]
pub fn collection_key(collection: &CollectionName) -> ConflictKey {
    // No document has an empty key.
    conflict_key(collection, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_same_in_every_version() {
        let name = |text| CollectionName::new(text).unwrap();
        assert_ne!(conflict_key(&name("ab"), b"c"), conflict_key(&name("a"), b"bc"));
        // Processes of two versions may write at the same time.
        assert_eq!(conflict_key(&name("flights"), b"key"), ConflictKey(17_033_439_638_833_907_810));
        assert_ne!(collection_key(&name("flights")), conflict_key(&name("flights"), b"\0"));
    }
}
