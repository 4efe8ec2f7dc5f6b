//! `bigpeer_role`.

use super::{Kind, created, named, of_app, permissions};
use crate::field::Field;

pub(super) fn kind() -> Kind {
    let fields = vec![
        of_app(),
        named("What it is called: 1 to 63 of `a-z A-Z 0-9 . _ -`."),
        Field::group("permissions", permissions::fields())
            .required()
            .block_rule(permissions::check)
            .doc("What its users may do. What is not allowed is denied."),
        created(),
    ];
    Kind {
        example: include_str!("../../../examples/resources/bigpeer_role/resource.tf"),
        ..Kind::new("role", "A name for permissions, for users of providers.", "apps/{app}/roles/{name}", fields)
    }
}
