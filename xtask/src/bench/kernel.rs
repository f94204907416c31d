//! The cost of the programs in the kernel, by the kernel's own statistics.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Bench;
use super::bpf::{self, EmptyProgram};
use super::generator::{self, TRANSITIONS};
use super::proc::{self, Program};
use super::running::Running;
use super::stats::Figures;
use super::subject::{self, Sink};
use super::table::{Findings, Table};

/// Short rounds. The statistics cost time themselves, so rates are measured elsewhere.
const ROUNDS: u32 = 5;

/// The program without a tracepoint: the iterator over the descriptors of all processes.
const ON_DEMAND: &str = "none: run on demand";

/// Statistics of one program under one load.
#[derive(Clone, Debug, PartialEq)]
struct Use {
    hook: String,
    runs: u64,
    ns: u64,
}

/// Statistics of one round.
struct Round {
    /// Connections of the load.
    made: u32,
    /// Transitions of all sockets of the machine, other programs' included. Divided by [`TRANSITIONS`], they are the
    /// number of connections that share the costs.
    transitions: u64,
    /// Run time of the empty program, in ns.
    empty: f64,
    uses: Vec<Use>,
}

impl Round {
    fn of(&self, hook: &str) -> (f64, f64) {
        let of_hook = |used: &&Use| used.hook == hook;
        let sum = |count: fn(&Use) -> u64| self.uses.iter().filter(of_hook).map(count).sum::<u64>() as f64;
        (sum(|used| used.runs), sum(|used| used.ns))
    }

    /// Runs per connection, ns per run, the same without the empty program's time, and that per connection.
    fn figures(&self, hook: &str) -> [f64; 4] {
        let (runs, ns) = self.of(hook);
        self.each(runs, ns)
    }

    fn of_all(&self) -> [f64; 4] {
        let sum = |count: fn(&Use) -> u64| self.uses.iter().map(count).sum::<u64>() as f64;
        self.each(sum(|used| used.runs), sum(|used| used.ns))
    }

    fn each(&self, runs: f64, ns: f64) -> [f64; 4] {
        let connections = self.transitions as f64 / f64::from(TRANSITIONS);
        let net = ns - runs * self.empty;
        let per_run = |ns: f64| if runs > 0.0 { ns / runs } else { 0.0 };
        [runs / connections, per_run(ns), per_run(net), net / connections]
    }
}

/// Measures and makes the table.
pub(super) fn measure(bench: &Bench, findings: &mut Findings) -> Result<()> {
    let tool = subject::tcptrace(&bench.tcptrace, "record", Sink::File);
    let rounds: Vec<_> = (0..bench.times(ROUNDS))
        .map(|round| {
            bench.tell(format_args!("kernel, round {}/{}", round + 1, bench.times(ROUNDS)));
            let running = Running::attach(&tool, &bench.folder)?;
            let measured = one_round(running.pid(), bench.connections)?;
            running.finish()?;
            Ok(measured)
        })
        .collect::<Result<_>>()?;
    findings.tables.push(table(&rounds));
    findings.json = rounds.iter().map(json).collect();
    Ok(())
}

fn one_round(pid: u32, connections: u32) -> Result<Round> {
    let empty = EmptyProgram::attach()?;
    let _counting = bpf::count_time()?;
    let (empty_before, before) = (empty.look()?, proc::programs(pid)?);
    let load = generator::spawn(connections)?;
    let (empty_after, after) = (empty.look()?, proc::programs(pid)?);
    let runs = empty_after.runs.saturating_sub(empty_before.runs);
    let ns = empty_after.ns.saturating_sub(empty_before.ns);
    anyhow::ensure!(runs >= u64::from(load.connections), "the kernel does not count the runs of programs");
    Ok(Round {
        made: load.connections,
        transitions: runs,
        empty: ns as f64 / runs as f64,
        uses: uses(&before, &after)?,
    })
}

/// The difference between two readings, for the programs that ran.
fn uses(before: &[Program], after: &[Program]) -> Result<Vec<Use>> {
    let used = |now: &Program| {
        let was = before.iter().find(|program| program.id == now.id).context("a program was loaded meanwhile")?;
        // It may have been attached or detached in between.
        let attached = now.hook.as_ref().or(was.hook.as_ref());
        let is_first = |other: &Program| other.id < now.id && other.hook.as_ref() == attached;
        let hook = match attached {
            Some(hook) if after.iter().any(is_first) => format!("{hook}, standing in"),
            Some(hook) => hook.clone(),
            None => ON_DEMAND.to_owned(),
        };
        Ok(Use { hook, runs: now.runs.saturating_sub(was.runs), ns: now.ns.saturating_sub(was.ns) })
    };
    let all = after.iter().map(used).collect::<Result<Vec<_>>>()?;
    Ok(all.into_iter().filter(|used| used.runs > 0).collect())
}

fn table(rounds: &[Round]) -> Table {
    let columns = ["tracepoint", "runs a connection", "ns a run", "net ns a run", "net ns a connection"];
    let mut table = Table::new("In the kernel", columns);
    let mut hooks: Vec<&str> = rounds.iter().flat_map(|round| &round.uses).map(|used| used.hook.as_str()).collect();
    hooks.sort_unstable();
    hooks.dedup();
    let median = |hook: &str, index: usize| {
        rounds.iter().map(|round| round.figures(hook)[index]).collect::<Figures>().median().unwrap_or(0.0)
    };
    // Programs that other activity runs now and then, not this load.
    hooks.retain(|hook| median(hook, 0) >= 0.005);
    let cells = |figures: &dyn Fn(&Round) -> [f64; 4]| {
        // A program that did not run has no time, not 0 ns a run.
        let ran = || rounds.iter().map(figures).filter(|[runs, ..]| *runs > 0.0);
        let column = |index: usize| ran().map(|figures| figures[index]).collect::<Figures>();
        [column(0).median().map_or_else(String::new, |runs| format!("{runs:.2}")), column(1).spread(0)]
            .into_iter()
            .chain([column(2).spread(0), column(3).spread(0)])
            .collect::<Vec<_>>()
    };
    let mut rows: Vec<_> = hooks.iter().map(|hook| (*hook, cells(&|round| round.figures(hook)))).collect();
    rows.sort_by(|(one, _), (other, _)| f64::total_cmp(&median(other, 3), &median(one, 3)));
    for (hook, cells) in rows {
        table.row([vec![hook.to_owned()], cells].concat());
    }
    table.row([vec!["all".to_owned()], cells(&Round::of_all)].concat());
    let empty: Figures = rounds.iter().map(|round| round.empty).collect();
    let transition: Figures = rounds.iter().map(|round| round.of_all()[3] / f64::from(TRANSITIONS)).collect();
    table.caption(format!(
        "Time of the programs of `tcptrace record`, as the kernel counts it (`BPF_ENABLE_STATS`); median (min–max) of {} \
         of {} connections with {TRANSITIONS} transitions each. Net is without the {} ns that an empty program takes \
         by the same count in the same rounds. All programs together take {} ns net for each transition. Timers and \
         system calls of other processes run the programs, too.",
        super::table::rounds(rounds.len() as u32),
        rounds.first().map_or(0, |round| round.made),
        empty.spread(0),
        transition.spread(0),
    ));
    table
}

fn json(round: &Round) -> Value {
    let used = |used: &Use| json!({ "tracepoint": used.hook, "runs": used.runs, "ns": used.ns });
    json!({
        "connections": round.made,
        "transitions_of_all": round.transitions,
        "empty_program_ns": round.empty,
        "programs": round.uses.iter().map(used).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(id: u32, runs: u64, ns: u64) -> Program {
        Program { id, hook: (id == 1).then(|| "timer_start".to_owned()), runs, ns }
    }

    #[test]
    fn what_programs_did_is_between_the_looks() {
        let before = [program(1, 5, 500), program(2, 7, 70), program(3, 0, 0)];
        let after = [program(1, 8, 920), program(2, 7, 70), program(3, 1, 9)];
        let used = |hook: &str, runs, ns| Use { hook: hook.to_owned(), runs, ns };
        assert_eq!(uses(&before, &after).expect("fine"), [used("timer_start", 3, 420), used(ON_DEMAND, 1, 9)]);
        uses(&[], &after).expect_err("loaded meanwhile");
        let second = Program { hook: Some("timer_start".to_owned()), ..program(4, 2, 8) };
        let detached = Program { hook: None, runs: 3, ns: 9, ..second.clone() };
        let both = uses(&[second, program(1, 0, 0)], &[detached, program(1, 1, 5)]).expect("fine");
        assert_eq!(both, [used("timer_start, standing in", 1, 1), used("timer_start", 1, 5)]);
    }

    #[test]
    fn net_is_less_the_empty_program() {
        let used = Use { hook: "timer_start".to_owned(), runs: 40, ns: 8_000 };
        let round = Round { made: 9, transitions: 100, empty: 50.0, uses: vec![used.clone(), used] };
        assert_eq!(round.figures("timer_start"), [8.0, 200.0, 150.0, 1200.0]);
        assert_eq!(round.figures("timer_start"), round.of_all());
        assert_eq!(round.figures("another"), [0.0; 4]);
        assert_eq!(json(&round)["connections"], 9);
    }
}
