//! Traces for other programs: what `export` writes beside the formats that every command prints.
//!
//! An [`Exporter`] takes rows in the order of time and writes them; nothing is there under its final name before
//! [`Exporter::finish`]. `Dataset` is a folder of Parquet files, unless it is built without the feature `parquet`;
//! [`Perfetto`] is one file for ui.perfetto.dev.

#[cfg(feature = "parquet")]
mod cells;
#[cfg(feature = "parquet")]
mod dataset;
mod files;
#[cfg(feature = "parquet")]
mod partition;
mod perfetto;
#[cfg(feature = "parquet")]
mod table;

#[cfg(test)]
mod tests;

use anyhow::Result;

use crate::model::row::Row;
use crate::model::stream::{Origin, Summary};

#[cfg(feature = "parquet")]
pub use self::dataset::Dataset;
pub use self::files::{Draft, Folder};
pub use self::perfetto::Perfetto;
#[cfg(feature = "parquet")]
pub use self::table::Table;

/// Takes rows, in the order of time, and makes something of them.
pub trait Exporter {
    /// Takes one.
    ///
    /// # Errors
    /// When it cannot be written.
    fn row(&mut self, row: &Row, origin: &Origin) -> Result<()>;

    /// Writes what is left, and gives everything its final name.
    ///
    /// # Errors
    /// When it cannot be written, or something is there already. Nothing is left behind then, but for files of a data set
    /// that had their names already.
    fn finish(&mut self, summary: &Summary) -> Result<Exported>;
}

/// What was exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Rows that were written.
    pub rows: u64,
    /// Files that were made; 0 where the caller knows best.
    pub files: u64,
    /// Numbers that were left out, because they do not fit into 63 bits.
    pub too_large: u64,
}
