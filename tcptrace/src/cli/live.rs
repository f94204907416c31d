//! `watch` and `connections`: from the kernel to the terminal.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use tokio::time::Instant;

use super::privileges::{Files, PrivilegeArgs};
use super::record::say_recorded;
use super::run::{Stop, reached, runtime};
use super::select::{
    ConnectionRows, EngineArgs, FilterArgs, OutputArgs, ProbeArgs, duration, refuse_foreign_pids,
    refuse_partial_audits, warn_of_missing_groups,
};
use super::view::View;
use super::{Outcome, say_ready, tell};
use crate::engine::lifecycle::Config;
use crate::kernel::Namespaces;
use crate::live::{Audited, Besides, Source};
use crate::model::sink::{Sink, Wishes};
use crate::model::stream::Item;
use crate::output::{Format, Kind};
use crate::trace::write::{Plan, Recorder, Store, Target};

#[derive(Args, Debug)]
struct LiveArgs {
    /// Stop after this time (10s, 5m)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    #[command(flatten)]
    output: OutputArgs,
    /// At the end, compare the events with the kernel's own counters in every network namespace. The result goes to
    /// standard error, and with --format json also into rows
    #[arg(long)]
    audit: bool,
    /// Also record a trace. It includes rows that the filters hide, except those filtered in the kernel (by port,
    /// network namespace or IP version)
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    probe: ProbeArgs,
    #[command(flatten)]
    privileges: PrivilegeArgs,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Arguments of `watch`.
#[derive(Args, Debug)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    live: LiveArgs,
}

/// Arguments of `connections`.
#[derive(Args, Debug)]
pub(super) struct ConnectionsArgs {
    #[command(flatten)]
    rows: ConnectionRows,
    #[command(flatten)]
    live: LiveArgs,
}

pub(super) fn watch(args: &WatchArgs) -> Result<Outcome> {
    run(&args.live, Kind::Transition, ConnectionRows::default())
}

pub(super) fn connections(args: &ConnectionsArgs) -> Result<Outcome> {
    run(&args.live, Kind::Connection, args.rows)
}

fn run(args: &LiveArgs, kind: Kind, rows: ConnectionRows) -> Result<Outcome> {
    let namespaces = Namespaces::find();
    let criteria = args.filter.criteria(&namespaces)?;
    if args.audit {
        refuse_partial_audits(&criteria);
    }
    refuse_foreign_pids(&criteria)?;
    warn_of_missing_groups(&criteria, true);
    let options = args.probe.options(criteria.kernel());
    let existing = !args.probe.no_existing;
    let owner = args.privileges.owner();
    let files = args.record.as_deref().map_or(Files::None, Files::at);
    let plan = args.record.clone().map(|path| Plan { path, owner, ..Plan::default() });
    let store = plan.map(|plan| Store::create(&plan)).transpose()?;
    // Text has no column for names.
    let names = store.is_some() || args.output.format != Format::Text || criteria.ask_groups();
    let besides = if store.is_some() { Besides::Facts } else { Besides::Counters };
    let processes = store.is_some() || criteria.ask_groups() && !criteria.owner_only;
    runtime()?.block_on(async {
        let mut stop = Stop::new()?;
        let mut source = Source::attach(&options, existing, names, processes, besides)?;
        args.privileges.give_up(&mut source, &namespaces, files)?;
        let config = args.engine.config(kind, rows.at_close);
        let config = Config { existing, ..source.engine_config(config) };
        let target = store.map(|store| Target::Files { store, rotate: None, most_bytes: None });
        if config.stuck_after.is_some() {
            source.want_flows();
        }
        let recorder = match target {
            Some(target) => Some(Recorder::new(target, source.head()?, criteria.clone(), tell)?),
            None => None,
        };
        let view = View::new(config, [criteria.clone()], &args.output, kind, rows.states)?;
        let both = Both { view, recorder, broken: None };
        let mut sink = Audited::new(both, args.audit, &source, &criteria)?;
        source.begin(&namespaces, &mut sink)?;
        sink.settle_down(&mut source).await?;
        sink.sink.view.flush()?;
        say_ready(&source);
        let end = args.duration.map(|duration| Instant::now() + duration);
        source
            .follow(&mut sink, async {
                tokio::select! { () = stop.asked() => {}, () = reached(end) => {} }
            })
            .await?;
        Ok(sink.finish(&mut source).await?.finish()?.with_helper(&source))
    })
}

/// Prints rows, and also records them if asked to.
struct Both {
    view: View,
    recorder: Option<Recorder>,
    /// The error that ended printing.
    broken: Option<io::Error>,
}

impl Both {
    fn finish(mut self) -> Result<Outcome> {
        let recorded = match self.recorder {
            Some(mut recorder) => {
                recorder.write_all()?;
                say_recorded(&recorder.finish(), None)
            }
            None => Outcome::Done,
        };
        if let Some(broken) = self.broken {
            return Err(broken).context("cannot write to standard output");
        }
        self.view.finish(recorded)
    }

    /// Prints until the first error. A closed output does not end the recording.
    fn print(&mut self, print: impl FnOnce(&mut View) -> io::Result<()>) {
        if self.broken.is_none() {
            self.broken = print(&mut self.view).err();
        }
    }
}

impl Sink for Both {
    fn take(&mut self, items: &[Item]) -> Result<()> {
        if let Some(recorder) = &mut self.recorder {
            recorder.take(items)?;
        }
        self.print(|view| view.take(items));
        Ok(())
    }

    fn settle(&mut self, now: u64) -> Result<()> {
        if let Some(recorder) = &mut self.recorder {
            recorder.settle(now)?;
        }
        self.print(View::flush);
        Ok(())
    }

    fn misses_any(&mut self) -> bool {
        self.view.misses_any() || self.recorder.as_mut().is_some_and(Sink::misses_any)
    }

    fn wishes(&mut self) -> Wishes {
        let recorder = self.recorder.as_mut().map_or(Wishes::default(), Sink::wishes);
        let view = self.view.wishes();
        Wishes { stop: self.broken.is_some(), ..view.and(recorder) }
    }
}
