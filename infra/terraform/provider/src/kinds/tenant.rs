//! `bigpeer_tenant`.

use super::{Kind, created, deletion_protection, named};

pub(super) fn kind() -> Kind {
    let fields = vec![
        named("What it is called: 1 to 63 of `a-z A-Z 0-9 . _ -`. Another name is another tenant."),
        deletion_protection(false),
        created(),
    ];
    Kind {
        example: include_str!("../../../examples/resources/bigpeer_tenant/resource.tf"),
        is_data_source: true,
        ..Kind::new(
            "tenant",
            "A customer, or a part of yours that is kept apart from all others. It has apps, and can be deleted when it has none.",
            "tenants/{name}",
            fields,
        )
    }
}
