//! The values of one column, in Arrow's memory.

use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, BooleanBuilder, Float64Builder, Int64Builder, ListBuilder, StringBuilder, StructBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, builder::make_builder};
use arrow_schema::{DataType, Field, Fields, TimeUnit};

use crate::model::row::Stay;
use crate::output::columns::Kind;

/// The zone of all times.
const UTC: &str = "UTC";

/// The type that Arrow has for a kind of column.
pub(super) fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Bool => DataType::Boolean,
        Kind::Int => DataType::Int64,
        Kind::Real => DataType::Float64,
        Kind::Text => DataType::Utf8,
        Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        Kind::States => DataType::List(Arc::new(Field::new("element", DataType::Struct(stay()), true))),
    }
}

fn stay() -> Fields {
    let field = |name, kind| Field::new(name, kind, true);
    vec![field("state", DataType::Utf8), field("ns", DataType::Int64), field("at_least", DataType::Boolean)].into()
}

/// Collected values of one type.
pub(super) enum Cells {
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Real(Float64Builder),
    Text(StringBuilder),
    Time(TimestampMicrosecondBuilder),
    States(ListBuilder<StructBuilder>),
}

impl Cells {
    pub(super) fn new(kind: Kind, rows: usize) -> Self {
        match kind {
            Kind::Bool => Self::Bool(BooleanBuilder::with_capacity(rows)),
            Kind::Int => Self::Int(Int64Builder::with_capacity(rows)),
            Kind::Real => Self::Real(Float64Builder::with_capacity(rows)),
            Kind::Text => Self::Text(StringBuilder::with_capacity(rows, rows * 16)),
            Kind::Time => Self::Time(TimestampMicrosecondBuilder::with_capacity(rows).with_timezone(UTC)),
            Kind::States => {
                let builders = stay().iter().map(|field| make_builder(field.data_type(), rows * 5)).collect();
                let element = Field::new("element", DataType::Struct(stay()), true);
                Self::States(ListBuilder::new(StructBuilder::new(stay(), builders)).with_field(element))
            }
        }
    }

    /// Appends null.
    pub(super) fn null(&mut self) {
        match self {
            Self::Bool(cells) => cells.append_null(),
            Self::Int(cells) => cells.append_null(),
            Self::Real(cells) => cells.append_null(),
            Self::Text(cells) => cells.append_null(),
            Self::Time(cells) => cells.append_null(),
            Self::States(cells) => cells.append_null(),
        }
    }

    /// Appends text; like the others, null where this is a column of another type.
    pub(super) fn text(&mut self, text: &str) {
        if let Self::Text(cells) = self { cells.append_value(text) } else { self.null() }
    }

    pub(super) fn bool(&mut self, value: bool) {
        if let Self::Bool(cells) = self { cells.append_value(value) } else { self.null() }
    }

    pub(super) fn int(&mut self, value: i64) {
        if let Self::Int(cells) = self { cells.append_value(value) } else { self.null() }
    }

    pub(super) fn real(&mut self, value: f64) {
        if let Self::Real(cells) = self { cells.append_value(value) } else { self.null() }
    }

    pub(super) fn micros(&mut self, value: i64) {
        if let Self::Time(cells) = self { cells.append_value(value) } else { self.null() }
    }

    /// Appends states; returns how many of their durations were too large.
    pub(super) fn states(&mut self, stays: &[Stay]) -> u64 {
        let Self::States(cells) = self else {
            self.null();
            return 0;
        };
        let too_large = stays.iter().map(|value| u64::from(!append(cells.values(), value))).sum();
        cells.append(true);
        too_large
    }

    /// Returns the collected values, and starts again.
    pub(super) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Bool(cells) => Arc::new(cells.finish()),
            Self::Int(cells) => Arc::new(cells.finish()),
            Self::Real(cells) => Arc::new(cells.finish()),
            Self::Text(cells) => Arc::new(cells.finish()),
            Self::Time(cells) => Arc::new(cells.finish()),
            Self::States(cells) => Arc::new(cells.finish()),
        }
    }
}

/// Whether its duration fits into 63 bits.
fn append(to: &mut StructBuilder, value: &Stay) -> bool {
    let known = value.held.known_ns();
    let ns = known.and_then(|ns| i64::try_from(ns).ok());
    let mut fields = to.field_builders_mut().iter_mut();
    if let Some(cells) = builder::<StringBuilder>(fields.next()) {
        cells.append_value(value.state.as_str());
    }
    if let Some(cells) = builder::<Int64Builder>(fields.next()) {
        cells.append_option(ns);
    }
    if let Some(cells) = builder::<BooleanBuilder>(fields.next()) {
        cells.append_value(value.held.is_at_least());
    }
    to.append(true);
    ns.is_some() || known.is_none()
}

fn builder<B: ArrayBuilder>(builder: Option<&mut Box<dyn ArrayBuilder>>) -> Option<&mut B> {
    builder?.as_any_mut().downcast_mut()
}
