//! The formats that only `export` writes, for other programs.
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
pub use self::files::{Draft, Folder, folder};
pub use self::perfetto::Perfetto;
#[cfg(feature = "parquet")]
pub use self::table::Table;

/// Writes rows that it gets in time order.
pub trait Exporter {
    /// Takes a row.
    ///
    /// # Errors
    /// When it cannot be written.
    fn row(&mut self, row: &Row, origin: &Origin) -> Result<()>;

    /// Writes the rest, and gives all files their final names.
    ///
    /// # Errors
    /// When it cannot be written, or a file exists already. It then leaves nothing behind, except files of a data set
    /// that already had their final names.
    fn finish(&mut self, summary: &Summary) -> Result<Exported>;
}

/// The result of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Rows that were written.
    pub rows: u64,
    /// Files written; 0 where the caller knows the number.
    pub files: u64,
    /// Numbers that were left out, because they do not fit into 63 bits.
    pub too_large: u64,
}
