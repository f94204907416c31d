//! The fields of `check --privileges`.

use super::{Field, Shape, Table, Value};
use crate::model::privilege::Privilege;

/// A capability.
pub static PRIVILEGE: Table<Privilege> = Table::new("check: privilege", PRIVILEGE_FIELDS);

static PRIVILEGE_FIELDS: &[Field<Privilege>] = &[
    Field {
        name: "event",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "Always `privilege`.",
        value: |_, _| Value::Word("privilege"),
    },
    Field {
        name: "capability",
        nullable: false,
        unit: "",
        shape: Shape::Name,
        doc: "Its name, as in capabilities(7).",
        value: |privilege, _| Value::Name(privilege.name.as_bytes()),
    },
    Field {
        name: "held",
        nullable: false,
        unit: "",
        shape: Shape::Bool,
        doc: "Whether this process can use it.",
        value: |privilege, _| Value::Bool(privilege.is_held),
    },
    Field {
        name: "kept",
        nullable: false,
        unit: "",
        shape: Shape::Bool,
        doc: "Whether a live command keeps it once everything is attached.",
        value: |privilege, _| Value::Bool(privilege.is_kept),
    },
    Field {
        name: "purpose",
        nullable: false,
        unit: "",
        shape: Shape::Name,
        doc: "What tcptrace does with it.",
        value: |privilege, _| Value::Name(privilege.purpose.as_bytes()),
    },
];
