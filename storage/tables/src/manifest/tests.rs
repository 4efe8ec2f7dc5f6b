//! Encodings of manifests: round trips, damage, golden bytes.

use proptest::prelude::*;

use super::*;
use crate::columns::ColumnType;

fn bitmap(rows: u32) -> impl Strategy<Value = RoaringBitmap> {
    prop::collection::btree_set(0..rows, 0..20).prop_map(|rows| rows.into_iter().collect())
}

fn columns() -> impl Strategy<Value = Columns> {
    let kind = prop_oneof![
        Just(ColumnType::Null),
        Just(ColumnType::Decimal),
        Just(ColumnType::List(Box::new(ColumnType::Text))),
        Just(ColumnType::Struct(vec![("a\"b".into(), ColumnType::Json), ("c".into(), ColumnType::Struct(vec![]))])),
    ];
    (kind.clone(), prop::collection::vec((any::<String>().prop_map(Into::into), kind), 0..4), any::<bool>())
        .prop_map(|(id, fields, rest)| Columns { id, fields, rest })
}

prop_compose! {
    fn segment()(
        ulid in any::<u128>(), size in any::<u64>(), sums in any::<(u32, u32)>(), rows in 1..100_000_u32,
        run in any::<bool>(),
        keys in prop::array::uniform2(prop::collection::vec(any::<u8>(), 0..20)),
        lsns in any::<[(u64, u32); 2]>(), columns in columns(),
    )(
        superseded in bitmap(rows), tombstones in bitmap(rows),
        ulid in Just(ulid), size in Just(size), sums in Just(sums), rows in Just(rows), run in Just(run),
        keys in Just(keys), lsns in Just(lsns), columns in Just(columns),
    ) -> SegmentMeta {
        let [a, b] = keys;
        let [x, y] = lsns.map(|(version, order)| Lsn::new(version, order));
        SegmentMeta {
            ulid: Ulid(ulid),
            home: (ulid % 3 == 0).then(|| AppId::new("other-app").unwrap()),
            size,
            crc32c: sums.0,
            tail_bytes: size / 2,
            tail_crc32c: sums.1,
            rows,
            state_bytes: size.wrapping_mul(3),
            run,
            min_key: a.clone().min(b.clone()),
            max_key: a.max(b),
            min_lsn: x.min(y),
            max_lsn: x.max(y),
            columns: Arc::new(columns),
            superseded: Arc::new(superseded),
            tombstones: Arc::new(tombstones),
        }
    }
}

fn settings() -> impl Strategy<Value = CollectionSettings> {
    let mode = prop_oneof![Just(PublicationMode::Compatible), Just(PublicationMode::DeletionVectors)];
    let publication = (mode, any::<u64>()).prop_map(|(mode, interval_secs)| Publication { mode, interval_secs });
    let expiry = any::<u64>().prop_map(|after_secs| Expiry { after_secs });
    (prop::option::of(publication), prop::option::of(expiry))
        .prop_map(|(publication, expiry)| CollectionSettings { publication, expiry })
}

fn moments() -> impl Strategy<Value = Moments> {
    prop::collection::vec((0..1_000_000_u64, 0..1_000_u64), 0..20).prop_map(|mut notes| {
        notes.sort_unstable();
        let mut moments = Moments::default();
        notes.into_iter().for_each(|(now, version)| moments.note(now, Lsn::new(version, 1), 500_000));
        moments
    })
}

fn manifest() -> impl Strategy<Value = Manifest> {
    let collection = (columns(), prop::collection::vec(segment(), 0..4), settings(), any::<(u64, u32)>()).prop_map(
        |(columns, segments, settings, (version, order))| Collection {
            columns,
            segments,
            settings,
            forgotten: Lsn::new(version, order),
        },
    );
    let name = "[^\\x00-\\x1f\\x7f-\\u{9f}]{1,10}".prop_map(|text| CollectionName::new(&text).unwrap());
    (any::<[u64; 4]>(), any::<(u64, u32)>(), moments(), prop::collection::btree_map(name, collection, 0..3)).prop_map(
        |([number, epoch, writer, committed_ms], (version, order), moments, collections)| Manifest {
            number,
            epoch,
            writer,
            lsn: Lsn::new(version, order),
            written: Written { transactions: number, documents: epoch, bytes: writer },
            committed_ms,
            moments,
            origins: (number % 3 == 0).then(|| AppId::new("other-app").unwrap()).into_iter().collect(),
            collections,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn manifests_round_trip(manifest in manifest()) {
        let bytes = encode(&manifest).unwrap();
        prop_assert_eq!(decode(&bytes).unwrap(), manifest);
    }

    #[test]
    fn a_changed_or_missing_byte_is_noticed(manifest in manifest(), at: prop::sample::Index, bit in 0..8_u8) {
        let good = encode(&manifest).unwrap();
        let at = at.index(good.len());
        prop_assert!(decode(&good[..at]).is_err());
        let mut bad = good;
        bad[at] ^= 1 << bit;
        prop_assert!(decode(&bad).is_err());
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&body);
        // Behind a right header and checksum, too.
        let mut framed = b"bpmanif\x01\0\0\0\0".to_vec();
        framed.extend_from_slice(&u32::try_from(body.len() / 2).unwrap().to_le_bytes());
        framed.extend_from_slice(&body);
        let crc = crc32c::crc32c(&framed[12..]);
        framed[8..12].copy_from_slice(&crc.to_le_bytes());
        prop_assert!(decode(&framed).is_err());
    }
}

#[test]
fn what_is_wrong_is_told() {
    let mut bytes = encode(&Manifest::empty()).unwrap();
    assert!(decode(b"").unwrap_err().contains("too short"));
    bytes[7] = 9;
    assert!(decode(&bytes).unwrap_err().contains("format 9 is not known"));
    bytes[0] = b'x';
    assert!(decode(&bytes).unwrap_err().contains("not a manifest"));
}
