//! `bigpeer_app`.

use super::{Kind, created, deletion_protection, name, named};
use crate::field::Field;

pub(super) fn kind() -> Kind {
    let tenant =
        Field::text("tenant").place().rule(name).doc("The tenant whose app it is. Another tenant is another app.");
    let fields = vec![
        tenant,
        named("What its tenant calls it: 1 to 63 of `a-z A-Z 0-9 . _ -`. Another name is another app."),
        deletion_protection(true),
        Field::text("id")
            .answer()
            .doc("What everything else calls it: in paths, and as the `app` of the other resources."),
        created(),
    ];
    Kind {
        example: include_str!("../../../examples/resources/bigpeer_app/resource.tf"),
        is_data_source: true,
        ..Kind::new(
            "app",
            "One database with its collections, isolated from all others in every way. With it goes everything in it, so it is \
             protected unless it says otherwise.",
            "tenants/{tenant}/apps/{name}",
            fields,
        )
    }
}
