//! A directory of Parquet files: one data set from any number of exported recordings.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};

use super::files::{Draft, Folder};
use super::partition::{self, Day};
use super::table::{ROW_GROUP, Table};
use super::{Exported, Exporter};
use crate::model::row::{Connection, Row, Transition};
use crate::model::stream::{Origin, Summary};
use crate::output::fields::Streamed;

/// Rows in memory that wait for the rest of their row group, for all files together.
const BUFFERED: usize = 8 * ROW_GROUP;

/// Writes rows of one kind to a directory, each to the file of its day and recording. Each recording has one open file.
pub struct Dataset<R: Streamed> {
    root: Arc<Folder>,
    replace: bool,
    /// By the number of the recording.
    open: HashMap<usize, Part<R>>,
    finished: Vec<Draft>,
    written: Exported,
}

/// A file that is being written.
struct Part<R: Streamed> {
    day: Day,
    table: Table<R, File>,
    draft: Draft,
}

impl<R: Streamed> Dataset<R> {
    /// A data set in a directory, which is created if missing. Existing files stay, unless they are to be replaced.
    ///
    /// # Errors
    /// When the directory cannot be created or opened.
    pub fn new(root: &Path, replace: bool) -> Result<Self> {
        let root = Arc::new(Folder::make(root)?);
        Ok(Self { root, replace, open: HashMap::new(), finished: Vec::new(), written: Exported::default() })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// When it cannot be written, or its file exists already.
    pub fn push(&mut self, row: &R, origin: &Origin) -> Result<()> {
        let day = Day::of(origin.context.clock.unix_ns(row.boot_ns()));
        let part = match self.open.get_mut(&origin.number) {
            Some(part) if part.day == day => part,
            _ => self.turn_to(day, row, origin)?,
        };
        part.table.push(row, &origin.context)?;
        let buffered = part.table.buffered();
        // Many open recordings get smaller row groups.
        if buffered >= BUFFERED / self.open.len().max(1)
            && let Some(part) = self.open.get_mut(&origin.number)
        {
            part.table.flush()?;
        }
        Ok(())
    }

    /// The recording has reached another day.
    fn turn_to(&mut self, day: Day, row: &R, origin: &Origin) -> Result<&mut Part<R>> {
        if let Some(part) = self.open.remove(&origin.number) {
            self.end(part)?;
        }
        let folders = partition::folders(R::KIND, day, &origin.host);
        let name = partition::file(origin, row.boot_ns(), row.identity().conn);
        let (draft, file) = Draft::begin(&self.root, &folders, &name, self.replace)?;
        let part = Part { day, table: Table::new(file, origin)?, draft };
        Ok(self.open.entry(origin.number).insert_entry(part).into_mut())
    }

    fn end(&mut self, part: Part<R>) -> Result<()> {
        let (written, _file) = part.table.finish()?;
        self.written.rows += written.rows;
        self.written.too_large += written.too_large;
        self.written.files += 1;
        self.finished.push(part.draft);
        Ok(())
    }

    /// Writes the rest, and gives every file its name.
    ///
    /// # Errors
    /// When that fails, or one of the files exists meanwhile.
    pub fn publish(&mut self) -> Result<Exported> {
        for (_, part) in std::mem::take(&mut self.open) {
            self.end(part)?;
        }
        let drafts = std::mem::take(&mut self.finished);
        if !self.replace {
            for draft in &drafts {
                if draft.is_taken()? {
                    bail!("{draft} was written meanwhile; --force replaces it");
                }
            }
        }
        drafts.into_iter().try_for_each(|draft| draft.publish(self.replace))?;
        Ok(std::mem::take(&mut self.written))
    }
}

impl Exporter for Dataset<Transition> {
    fn row(&mut self, row: &Row, origin: &Origin) -> Result<()> {
        if let Row::Transition(row) = row { self.push(row, origin) } else { Ok(()) }
    }

    fn finish(&mut self, _: &Summary) -> Result<Exported> {
        self.publish()
    }
}

impl Exporter for Dataset<Connection> {
    fn row(&mut self, row: &Row, origin: &Origin) -> Result<()> {
        if let Row::Connection(row) = row { self.push(row, origin) } else { Ok(()) }
    }

    fn finish(&mut self, _: &Summary) -> Result<Exported> {
        self.publish()
    }
}
