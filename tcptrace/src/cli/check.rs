//! `check`: what this kernel lets tcptrace measure.

use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::Outcome;
use super::select::WithoutArgs;
use crate::kernel::privileges;
use crate::kernel::probe::{Options, Plan, Probe, ProbeError, alternatives};
use crate::output::{self, Format};

/// Arguments of `check`.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Show which capabilities tcptrace can use now, what each is for, and which ones the helper process of a live command
    /// keeps once everything is attached (the other process keeps none); nothing is attached
    #[arg(long, conflicts_with = "no_btf")]
    privileges: bool,
    /// Check classic tracepoints only, as on a kernel without BTF
    #[arg(long)]
    no_btf: bool,
    #[command(flatten)]
    without: WithoutArgs,
    /// Check this eBPF object instead of the built-in one
    #[arg(long, value_name = "PATH", hide = true)]
    object: Option<PathBuf>,
}

pub(super) fn run(args: &CheckArgs) -> Result<Outcome> {
    if args.privileges {
        output::privileges(io::stdout().lock(), args.format, &privileges()).context("cannot write the table")?;
        if args.format == Format::Text {
            output::alternatives(io::stdout().lock(), &alternatives()).context("cannot write the table")?;
        }
        return Ok(Outcome::Done);
    }
    let (no_btf, without, object) = (args.no_btf, args.without.without.clone(), args.object.clone());
    // What is attached on demand only is tried, too.
    let options = Options { no_btf, without, object, ring_bytes: 4096, failed_calls: true, ..Options::default() };
    // The ring buffers register with the event loop.
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
    let plan = Plan::of_default().context("cannot find out how many CPUs there are")?;
    output::features(io::stdout().lock(), args.format, &services).context("cannot write the table")?;
    if args.format == Format::Text {
        output::ring_buffers(io::stdout().lock(), plan.rings, plan.bytes.into(), plan.cpus)
            .context("cannot write the table")?;
    }
    match failure {
        None => Ok(Outcome::Done),
        Some(error) => Err(error.into()),
    }
}
