//! What each of tcptrace's programs costs alone: they are attached one by one, without tcptrace.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Bench;
use super::attached::{Held, Hook};
use super::bpf::EmptyProgram;
use super::generator::TRANSITIONS;
use super::pairs::{Series, interleave};
use super::running::Running;
use super::steady;
use super::subject::{self, Sink};
use super::table::{Findings, Table};
use super::transition::{UNDISTURBED, cells};
use super::worker::{self, Args, Deed};

/// Connections of a measurement.
const CONNECTIONS: u32 = 2_500;

/// What is attached.
enum Attached<'a> {
    /// A program that does nothing, on the tracepoint of state changes.
    Empty,
    One(&'a Hook),
    All(&'a [Hook]),
}

impl Attached<'_> {
    fn name(&self) -> String {
        match self {
            Self::Empty => "an empty program on inet_sock_set_state".to_owned(),
            Self::One(hook) => hook.name.clone(),
            Self::All(_) => "all".to_owned(),
        }
    }
}

/// Measures and makes the table.
pub(super) fn measure(bench: &Bench, findings: &mut Findings) -> Result<()> {
    let tool = subject::tcptrace(&bench.tcptrace, "record", Sink::File);
    let running = Running::attach(&tool, &bench.folder)?;
    let is_steady = steady::reach(running.pid())?;
    let held = Held::of(running.pid())?;
    running.finish()?;
    let mut subjects = vec![(Attached::Empty, bench.pairs)];
    subjects.extend(held.hooks.iter().map(|hook| (Attached::One(hook), bench.pairs)));
    subjects.push((Attached::All(&held.hooks), bench.pairs));
    let series = measure_all(bench, &subjects)?;
    findings.tables.push(table(bench, &subjects, &series, is_steady));
    findings.json = json(&subjects, &series);
    drop(subjects);
    held.close()
}

fn measure_all(bench: &Bench, subjects: &[(Attached<'_>, u32)]) -> Result<Vec<Series>> {
    let order = [Args::times(Deed::Connection, bench.times_of(CONNECTIONS)).first()];
    let mut count = 0;
    interleave(subjects, |attached| {
        let pace = || Ok(vec![worker::measure(&order).context("cannot measure the load")?]);
        let Some(attached) = attached else { return pace() };
        count += 1;
        if count % subjects.len() == 0 {
            bench.tell(format_args!("hooks, pairs {}/{}", count / subjects.len(), bench.pairs));
        }
        match attached {
            Attached::Empty => {
                let _empty = EmptyProgram::attach()?;
                pace()
            }
            Attached::One(hook) => {
                let _links = hook.attach()?;
                pace()
            }
            Attached::All(hooks) => {
                let _links = hooks.iter().map(Hook::attach).collect::<Result<Vec<_>>>()?;
                pace()
            }
        }
    })
}

fn table(bench: &Bench, subjects: &[(Attached<'_>, u32)], series: &[Series], is_steady: bool) -> Table {
    let columns = ["attached", "pairs", "ns a transition", UNDISTURBED, "% of a connection"];
    let mut table = Table::new("Each hook alone", columns);
    let mut rows: Vec<_> = subjects.iter().zip(series).collect();
    // The empty program first, then the dear ones, and all last.
    let cost = |series: &Series| series.first().added_undisturbed(TRANSITIONS).median().unwrap_or(0.0);
    let end = rows.len().saturating_sub(1);
    if let Some(hooks) = rows.get_mut(1..end) {
        hooks.sort_by(|(_, one), (_, other)| cost(other).total_cmp(&cost(one)));
    }
    for ((attached, _), series) in rows {
        table.row([vec![attached.name()], cells(&series.first())].concat());
    }
    let unsteady = " The programs were taken over before tcptrace was in its steady state, because events were \
                    interrupted: some do more than usual.";
    table.caption(format!(
        "What one program of `tcptrace record` adds to a connection with {TRANSITIONS} transitions when nothing else is \
         attached, for each transition; median (quartiles) of interleaved pairs of {} connections by one thread on CPU 0, before other programs there. Its records are read \
         from the ring buffer and thrown away every 10 ms. {}",
        bench.times_of(CONNECTIONS),
        if is_steady { "" } else { unsteady },
    ));
    table
}

fn json(subjects: &[(Attached<'_>, u32)], series: &[Series]) -> Value {
    let one = |((attached, _), series): (&(Attached<'_>, u32), &Series)| {
        json!({
            "name": attached.name(),
            "transitions_a_connection": TRANSITIONS,
            "pairs": series.first().json(),
        })
    };
    subjects.iter().zip(series).map(one).collect()
}
