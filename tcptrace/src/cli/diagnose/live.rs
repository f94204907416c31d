//! Evidence from the live kernel.

use std::convert::Infallible;
use std::slice;

use anyhow::Result;

use super::DiagnoseArgs;
use crate::cli::progress::wait;
use crate::cli::run::{Stop, runtime};
use crate::cli::select::{refuse_foreign_pids, warn_of_missing_groups};
use crate::cli::{say, say_ready};
use crate::engine::follow::Follower;
use crate::engine::lifecycle::Config;
use crate::kernel::probe::Options;
use crate::kernel::{self, Namespaces, Sandbox};
use crate::live::{self, Audited, Besides, Source};
use crate::model::accepts::Accepts;
use crate::model::criteria::Criteria;
use crate::model::row::Row;
use crate::model::sink::{Sink, Wishes};
use crate::model::stream::{Item, Origin, Summary};
use crate::output::lost;
use crate::study::diagnose::need::Need;
use crate::study::diagnose::{Case, Gatherer};

/// Looks for as long as is asked for; once, where that is no time at all or nothing can be traced. Also returns whether what
/// asks the kernel was lost meanwhile.
pub(super) fn cases(args: &DiagnoseArgs) -> Result<(Vec<Case>, Summary, bool)> {
    let namespaces = Namespaces::find();
    let criteria = args.trace.filter().criteria(&namespaces)?;
    refuse_foreign_pids(&criteria)?;
    warn_of_missing_groups(&criteria, false);
    // The files are closed later.
    let setting_files = kernel::setting_files();
    let watched = if args.traces() { watch(args, &namespaces)? } else { Watched::Not(None) };
    let (mut watcher, is_traced, has_lost) = match watched {
        Watched::Done(watcher, has_lost) => (*watcher, true, has_lost),
        Watched::Not(reason) => {
            args.trace.limit()?;
            (look(reason)?, false, false)
        }
    };
    watcher.gatherer.setting_files(setting_files);
    let (case, summary) = watcher.finish(args, is_traced)?;
    Ok((vec![case.only_about(&criteria)], summary, has_lost))
}

/// What became of tracing.
enum Watched {
    /// And whether what asks the kernel was lost.
    Done(Box<Watcher>, bool),
    /// It was not wanted, or why it could not be.
    Not(Option<String>),
}

fn watch(args: &DiagnoseArgs, namespaces: &Namespaces) -> Result<Watched> {
    // Calls that fail are seen at the exits of system calls, too.
    let accepts = args.accept.when;
    let failed_calls = accepts == Accepts::Always;
    let options = Options { accepts, failed_calls, no_btf: args.no_btf, ..Options::default() };
    runtime()?.block_on(async {
        let mut stop = Stop::new()?;
        let mut source = match Source::attach(&options, true, true, true, Besides::Facts) {
            Ok(source) => source,
            Err(error) => return Ok(Watched::Not(Some(format!("{error:#}")))),
        };
        args.trace.confine(&mut source, Sandbox::default(), namespaces)?;
        let mut watcher = Watcher::new(config(&source));
        if !failed_calls {
            watcher.gatherer.lacks(Need::FailedCalls, format!("left out by --accept {accepts}"));
        }
        watcher.take(&[Item::Head(Box::new(source.head()?))])?;
        let mut sink = Audited::new(watcher, false, &source, &Criteria::default())?;
        source.begin(namespaces, &mut sink)?;
        say_ready(&source);
        source
            .follow(&mut sink, async {
                tokio::select! { () = stop.asked() => {}, () = wait(args.duration) => {} }
            })
            .await?;
        let watcher = sink.finish(&mut source).await?;
        Ok(Watched::Done(Box::new(watcher), source.has_lost_helper()))
    })
}

/// What the engine of a diagnosis puts out.
pub(super) fn rows() -> Config {
    Config { at_close: true, transitions: true, connections: true, unreleased: true, ..Config::default() }
}

fn config(source: &Source) -> Config {
    Config { existing: true, ..source.engine_config(rows()) }
}

/// Looks once, without eBPF.
fn look(reason: Option<String>) -> Result<Watcher> {
    let mut watcher = Watcher::new(Config { existing: true, scans: true, ..rows() });
    if let Some(reason) = reason {
        say(format_args!("{reason}; looking once instead, without eBPF"));
        for need in [Need::Events, Need::FailedCalls] {
            watcher.gatherer.lacks(need, format!("no eBPF: {reason}"));
        }
    }
    let looked = live::look(&[], &mut watcher)?;
    // One that has just ended shows none either.
    if looked.unseen_processes > 0 && !nix::unistd::geteuid().is_root() {
        let processes = looked.unseen_processes;
        say(format_args!(
            "not seen: who has the sockets of other users, {processes} processes (run as root to see all)"
        ));
    }
    Ok(watcher)
}

/// Follows a source, and gathers evidence.
struct Watcher {
    follower: Follower,
    gatherer: Gatherer,
}

impl Watcher {
    fn new(config: Config) -> Self {
        let mut gatherer = Gatherer::new(false);
        gatherer.sees_unreleased();
        Self { follower: Follower::new(config, [], Origin::default()), gatherer }
    }

    fn finish(self, args: &DiagnoseArgs, is_traced: bool) -> Result<(Case, Summary)> {
        let Self { mut follower, mut gatherer } = self;
        let mut open = Vec::new();
        follower.take_open(|row, _| {
            if let Row::Connection(connection) = row {
                open.push(connection.clone());
            }
            Ok::<_, anyhow::Error>(())
        })?;
        follower.finish(|row, _| {
            gatherer.row(row);
            Ok::<_, anyhow::Error>(())
        })?;
        let mut summary = Summary::default();
        follower.add_to(&mut summary);
        if is_traced {
            let Summary { transitions, followed, .. } = summary;
            say(format_args!("{transitions} transitions seen, {}, {followed} sockets followed", lost(&summary.lost)));
        }
        let evidence = gatherer.finish(open, is_traced);
        Ok((Case::new(&evidence, &args.wanted(), follower.context().clone()), summary))
    }
}

impl Sink for Watcher {
    /// One by one: what an item leads to may decide what the next one means.
    fn take(&mut self, items: &[Item]) -> Result<()> {
        let Self { follower, gatherer } = self;
        for item in items {
            gatherer.item(item);
            let Ok(()) = follower.take(slice::from_ref(item), |row, _| {
                gatherer.row(row);
                Ok::<_, Infallible>(())
            });
        }
        Ok(())
    }

    fn settle(&mut self, _now: u64) -> Result<()> {
        Ok(())
    }

    fn misses_any(&mut self) -> bool {
        self.follower.misses_any()
    }

    fn wishes(&mut self) -> Wishes {
        self.follower.wishes()
    }
}
