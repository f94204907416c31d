//! `schema`: every field of every output.

use std::io;

use anyhow::{Context, Result};
use clap::Args;

use super::Outcome;
use crate::output::{self, Format};

/// Arguments of `schema`.
#[derive(Args, Debug)]
pub(super) struct SchemaArgs {
    /// Output format: a table, the JSON Schema of a line of JSON, or CSV
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: &SchemaArgs) -> Result<Outcome> {
    output::schema(io::stdout().lock(), args.format).context("cannot write the schema")?;
    Ok(Outcome::Done)
}
