//! What a peer holds, as fingerprints: so that a gateway need not name every document that changed while the peer was
//! away, and can say which of the peer's documents left without saying an id.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A document's key as `Held` names it. 64 bits: that two of a hundred thousand documents of a peer and a million that
/// changed are taken for each other happens once in two hundred million resumes.
#[must_use]
pub fn fingerprint(salt: u64, key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, salt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_those_that_the_protocol_names() {
        // From the reference implementation of XXH3: a peer in another language must agree.
        assert_eq!(fingerprint(0, b""), 0x2d06_8005_38d3_94c2);
        assert_ne!(fingerprint(1, b"a"), fingerprint(2, b"a"), "the salt counts");
    }
}
