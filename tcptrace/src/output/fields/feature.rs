//! The fields of `check`.

use super::{Field, Shape, Table, Value};
use crate::model::feature::{Feature, Service};

/// A feature.
pub static FEATURE: Table<(Feature, Service)> = Table::new("check", FEATURE_FIELDS);

static FEATURE_FIELDS: &[Field<(Feature, Service)>] = &[
    Field {
        name: "event",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "Always `feature`.",
        value: |_, _| Value::Word("feature"),
    },
    Field {
        name: "feature",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "Its name.",
        value: |(feature, _), _| Value::Word(feature.as_str()),
    },
    Field {
        name: "purpose",
        nullable: false,
        unit: "",
        shape: Shape::Name,
        doc: "What tcptrace can report with it.",
        value: |(feature, _), _| Value::Name(feature.purpose().as_bytes()),
    },
    Field {
        name: "available",
        nullable: false,
        unit: "",
        shape: Shape::Bool,
        doc: "Whether the kernel allows it.",
        value: |(_, service), _| Value::Bool(service.is_attached()),
    },
    Field {
        name: "detail",
        nullable: false,
        unit: "",
        shape: Shape::Name,
        doc: "The hook that serves it and what that hook does not show; or why it is unavailable and what to do.",
        value: |(_, service), _| match service {
            Service::Attached { hook, .. } => Value::Name(hook.as_bytes()),
            Service::Partly { missing, .. } => Value::Name(missing.as_bytes()),
            Service::Declined { reason } | Service::Unavailable { reason } => Value::Name(reason.as_bytes()),
        },
    },
    Field {
        name: "partial",
        nullable: false,
        unit: "",
        shape: Shape::Bool,
        doc: "Whether the kernel shows only a part: `detail` says what is missing.",
        value: |(_, service), _| Value::Bool(service.is_partial()),
    },
];
