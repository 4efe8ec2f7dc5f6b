//! Random histories: several sites edit, their clocks jump, deltas arrive in any order, more than once, or late.

use bigpeer_crdt::Document;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::world::{Edit, Site, edits};

const SITES: u64 = 4;

/// What happens next, to one site.
#[derive(Clone, Debug)]
enum Step {
    /// It edits, as one delta.
    Edit(Vec<Edit>),
    /// Its wall clock jumps to so many milliseconds after an epoch of the test.
    Jump(u64),
    /// It receives some delta that was made before, perhaps again.
    Receive(Index),
    /// It receives another site's whole state.
    Sync(Index),
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let step = prop_oneof![
        4 => prop::collection::vec(edits(), 1..4).prop_map(Step::Edit),
        1 => (0..1_000_u64).prop_map(Step::Jump),
        4 => any::<Index>().prop_map(Step::Receive),
        1 => any::<Index>().prop_map(Step::Sync),
    ];
    prop::collection::vec((0..usize::try_from(SITES).unwrap(), step), 1..40)
}

fn run(steps: Vec<(usize, Step)>) -> (Vec<Site>, Vec<Document>) {
    let mut sites: Vec<Site> = (1..=SITES).map(|number| Site::new(number << (16 * (number - 1)))).collect();
    let mut deltas: Vec<Document> = Vec::new();
    for (at, step) in steps {
        let other =
            if let Step::Sync(from) = &step { Some(sites[from.index(sites.len())].document.clone()) } else { None };
        let site = &mut sites[at];
        match step {
            Step::Edit(edits) => deltas.extend(site.edit(&edits)),
            Step::Jump(millis) => site.wall.set(1_795_392_000_000 + millis),
            Step::Receive(which) if !deltas.is_empty() => {
                site.document.join_encoded(&deltas[which.index(deltas.len())].encode()).unwrap();
            }
            Step::Receive(_) => {}
            Step::Sync(_) => site.document.join(&other.unwrap()),
        }
    }
    (sites, deltas)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn sites_that_have_seen_the_same_are_equal(steps in steps(), order in prop::collection::vec(any::<Index>(), 0..40)) {
        let (sites, deltas) = run(steps);
        let mut all = Document::new();
        deltas.iter().for_each(|delta| all.join(delta));
        let bytes = all.encode();
        prop_assert_eq!(&Document::decode(&bytes).unwrap(), &all);
        for site in &sites {
            // The rest of the deltas arrives, some twice, last ones first.
            let mut document = site.document.clone();
            for at in order.iter().filter(|_| !deltas.is_empty()) {
                document.join_encoded(&deltas[at.index(deltas.len())].encode()).unwrap();
            }
            deltas.iter().rev().for_each(|delta| document.join(delta));
            prop_assert_eq!(&document, &all);
            prop_assert_eq!(document.encode(), bytes.clone());
            prop_assert_eq!(document.to_object(), all.to_object());
            prop_assert_eq!(document.is_visible(), all.is_visible());
        }
        // States join to the same as deltas.
        let mut joined = Document::new();
        for site in &sites {
            joined.join_encoded(&site.document.encode()).unwrap();
        }
        prop_assert_eq!(joined, all);
    }

    #[test]
    fn every_way_to_join_is_the_same(steps in steps()) {
        let (sites, deltas) = run(steps);
        for (site, delta) in sites.iter().cycle().zip(&deltas) {
            let bytes = delta.encode();
            let mut decoded = site.document.clone();
            decoded.join(&Document::decode(&bytes).unwrap());
            let mut streamed = site.document.clone();
            streamed.join_encoded(&bytes).unwrap();
            prop_assert_eq!(&streamed, &decoded);
            streamed.join_encoded(&bytes).unwrap();
            prop_assert_eq!(streamed, decoded);
        }
    }

    #[test]
    fn visibility_is_what_the_newest_content_says(steps in steps()) {
        let (sites, _) = run(steps);
        for site in sites {
            let document = site.document;
            prop_assert_eq!(document.is_visible(), document.newest() > document.deleted());
            if !document.is_visible() {
                prop_assert!(document.to_object().is_empty() && document.get(&[""; 0]).is_none());
            }
            for (key, value) in document.to_object().iter() {
                prop_assert_eq!(&document.get(&[key]).unwrap().to_value(), value);
            }
        }
    }

    /// A bad delta changes nothing, wherever in it the bad byte is.
    #[test]
    fn a_join_is_all_or_nothing(steps in steps(), at: Index, bit in 0..8_u32) {
        let (sites, deltas) = run(steps);
        for (site, delta) in sites.iter().zip(&deltas) {
            let mut bytes = delta.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let mut document = site.document.clone();
            if document.join_encoded(&bytes).is_err() {
                prop_assert_eq!(&document, &site.document);
            }
        }
    }
}
