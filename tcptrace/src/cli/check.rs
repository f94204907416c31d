//! `check`: what this kernel lets tcptrace measure.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::Outcome;
use crate::output::Format;
use crate::probe::{Feature, Options, Probe, ProbeError, Service};

/// Arguments of `check`.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Check the classic tracepoints only, as on a kernel without BTF
    #[arg(long)]
    no_btf: bool,
    /// Check this eBPF object instead of the built-in one
    #[arg(long, value_name = "PATH", hide = true)]
    object: Option<PathBuf>,
}

pub(super) fn run(args: &CheckArgs) -> Result<Outcome> {
    let options = Options { no_btf: args.no_btf, object: args.object.clone(), ring_bytes: 4096, ..Options::default() };
    // The ring buffer registers with the event loop.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the event loop")?;
    let _inside = runtime.enter();
    let (services, failure) = match Probe::attach(&options) {
        Ok(probe) => (probe.services().to_vec(), None),
        Err(ProbeError::NoTransitions { reason, services }) if !services.is_empty() => {
            (services.clone(), Some(ProbeError::NoTransitions { reason, services }))
        }
        Err(error) => return Err(error.into()),
    };
    let mut out = io::stdout().lock();
    match args.format {
        Format::Text => text(&mut out, &services)?,
        Format::Json => json(&mut out, &services)?,
        Format::Csv => csv(&mut out, &services)?,
    }
    match failure {
        None => Ok(Outcome::Done),
        Some(error) => Err(error.into()),
    }
}

fn text(out: &mut impl Write, services: &[(Feature, Service)]) -> io::Result<()> {
    let purpose_width = services.iter().map(|(feature, _)| feature.purpose().len()).max().unwrap_or(0);
    writeln!(out, "{:<3}  {:<purpose_width$}  HOW, OR WHY NOT", "OK", "WHAT")?;
    for (feature, service) in services {
        writeln!(out, "{:<3}  {:<purpose_width$}  {service}", mark(service), feature.purpose())?;
    }
    Ok(())
}

fn mark(service: &Service) -> &'static str {
    if service.is_attached() { "yes" } else { "no" }
}

fn json(out: &mut impl Write, services: &[(Feature, Service)]) -> io::Result<()> {
    for (feature, service) in services {
        let row = serde_json::json!({
            "event": "feature",
            "feature": feature.as_str(),
            "purpose": feature.purpose(),
            "available": service.is_attached(),
            "detail": service.to_string(),
        });
        writeln!(out, "{row}")?;
    }
    Ok(())
}

fn csv(out: &mut impl Write, services: &[(Feature, Service)]) -> Result<()> {
    let mut table = csv::Writer::from_writer(out);
    table.write_record(["feature", "purpose", "available", "detail"])?;
    for (feature, service) in services {
        let available = if service.is_attached() { "true" } else { "false" };
        table.write_record([feature.as_str(), feature.purpose(), available, &service.to_string()])?;
    }
    table.flush().context("cannot write the table")
}
