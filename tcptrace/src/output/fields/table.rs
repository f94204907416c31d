//! Kinds of rows: the commands that print them, and their fields.

use super::{Field, Shape};

/// A kind of row.
pub struct Table<R: 'static> {
    /// The commands that print it, and its `event` where they print several kinds.
    pub name: &'static str,
    /// The fields that every such row has.
    pub fields: &'static [Field<R>],
    /// Further fields of some rows: in JSON only on these, in CSV always.
    pub more: &'static [Field<R>],
    has_more: fn(&R) -> bool,
}

impl<R> Table<R> {
    /// A kind whose rows all have the same fields.
    pub(super) const fn new(name: &'static str, fields: &'static [Field<R>]) -> Self {
        Self { name, fields, more: &[], has_more: |_| false }
    }

    /// A kind of which some rows have more fields.
    pub(super) const fn with(self, more: &'static [Field<R>], has_more: fn(&R) -> bool) -> Self {
        Self { more, has_more, ..self }
    }

    /// The fields of all rows together.
    pub fn all(&self) -> impl Iterator<Item = &'static Field<R>> {
        self.fields.iter().chain(self.more)
    }

    /// The fields of this row.
    pub fn of(&self, row: &R) -> impl Iterator<Item = &'static Field<R>> {
        let more = if (self.has_more)(row) { self.more } else { &[] };
        self.fields.iter().chain(more)
    }
}

/// A kind of row, independent of the type of its rows.
pub trait Describe: Sync {
    /// [`Table::name`].
    fn name(&self) -> &'static str;

    /// All its fields.
    fn describe(&self) -> Vec<Described>;
}

impl<R> Describe for Table<R> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn describe(&self) -> Vec<Described> {
        let fields = self.fields.iter().map(|field| Described::new(field, true));
        fields.chain(self.more.iter().map(|field| Described::new(field, false))).collect()
    }
}

/// A field, independent of the type of its row.
#[derive(Clone, Copy, Debug)]
pub struct Described {
    /// Its name in JSON and CSV.
    pub name: &'static str,
    /// The kind of its value.
    pub shape: Shape,
    /// The unit or notation of its value.
    pub unit: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// Whether it may be null.
    pub nullable: bool,
    /// Whether every JSON row has it. Every CSV row does.
    pub is_required: bool,
}

impl Described {
    fn new<R>(field: &Field<R>, is_required: bool) -> Self {
        let &Field { name, nullable, unit, shape, doc, .. } = field;
        Self { name, shape, unit, doc, nullable, is_required }
    }
}
