//! From trace files to rows: what `replay`, `report`, `timeline` and `export` share.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use super::select::FilterArgs;
use crate::lifecycle::{Config, Row};
use crate::trace::{Origin, Summary};

/// Which traces are read, and what of them.
#[derive(Args, Clone, Debug)]
pub(super) struct TraceArgs {
    /// Traces to read, as `record` wrote them; several are read as one, by time
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
}

impl TraceArgs {
    /// Reads the traces, and hands over each row that the live commands would have shown, in the order of time; after
    /// those, if asked for, the connections that were still open in the end ([`Row::stuck`]).
    pub(super) fn read(
        &self,
        _config: Config,
        _open_too: bool,
        _each: &mut dyn FnMut(&Row, &Origin) -> Result<()>,
    ) -> Result<Summary> {
        bail!("cannot read {:?} with {:?}: not there yet", self.files, self.filter)
    }
}
