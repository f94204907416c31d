//! Memory of the process with no, some and many live connections of real sockets.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Bench;
use super::holder::{Holder, in_namespace};
use super::proc::{self, Memory};
use super::running::Running;
use super::stats::Figures;
use super::subject::{self, Sink};
use super::table::{Findings, Table, grouped, mib, rounds};

const ROUNDS: u32 = 3;
const COMMANDS: [&str; 3] = ["record", "watch", "connections"];
/// Numbers of sockets at the readings.
const STEPS: [u32; 3] = [0, 10_000, 100_000];
/// Memory counts as settled when it has not changed for this time.
const STILL: Duration = Duration::from_secs(1);
/// Longest wait for that.
const PATIENCE: Duration = Duration::from_secs(15);

/// One process at all readings.
struct Round {
    looks: Vec<Memory>,
    /// The readings: before the first connection, then at each number.
    peaks: [u64; 2],
}

/// Measures and makes the table.
pub(super) fn measure(bench: &Bench, findings: &mut Findings) -> Result<()> {
    let steps = if bench.quick { vec![0, 1_000, 2_000] } else { STEPS.to_vec() };
    let mut series: Vec<Vec<Round>> = COMMANDS.iter().map(|_| Vec::new()).collect();
    for round in 1..=bench.times(ROUNDS) {
        for (command, rounds) in COMMANDS.iter().zip(&mut series) {
            bench.tell(format_args!("memory, round {round}/{}: {command}", bench.times(ROUNDS)));
            rounds.push(in_namespace(|| one_round(bench, command, &steps))?);
        }
    }
    findings.tables.push(table(&series, &steps, bench.times(ROUNDS)));
    findings.json = COMMANDS.iter().zip(&series).map(|(command, rounds)| json(command, rounds, &steps)).collect();
    Ok(())
}

fn one_round(bench: &Bench, command: &str, steps: &[u32]) -> Result<Round> {
    let tool = subject::tcptrace(&bench.tcptrace, command, Sink::File);
    let running = Running::attach(&tool, &bench.folder)?;
    let pid = running.pid();
    let mut holders = Vec::new();
    let mut looks = Vec::new();
    let mut peak_before = 0;
    let mut there = 0;
    for &sockets in steps {
        if sockets > there {
            holders.extend(Holder::start((sockets - there) / 2)?);
            there = sockets;
        }
        looks.push(settled(pid)?);
        if sockets == 0 {
            peak_before = proc::peak_rss(pid)?;
            // proc_pid_clear_refs(5): 5 sets the peak to what is resident now.
            fs::write(format!("/proc/{pid}/clear_refs"), "5").context("cannot reset the peak")?;
        }
    }
    let peak_after = proc::peak_rss(pid)?;
    running.finish()?;
    Ok(Round { looks, peaks: [peak_before, peak_after] })
}

/// The memory of a process, once it has not changed for a while.
pub(super) fn settled(pid: u32) -> Result<Memory> {
    let begun = Instant::now();
    let mut last = proc::memory(pid)?;
    let mut since = Instant::now();
    while since.elapsed() < STILL && begun.elapsed() < PATIENCE {
        sleep(STILL / 10);
        let now = proc::memory(pid)?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(last)
}

fn table(series: &[Vec<Round>], steps: &[u32], count: u32) -> Table {
    let most = steps.last().copied().unwrap_or(0);
    let mut table = Table::new(
        "Memory",
        [
            "",
            "RSS, idle",
            "ring buffer",
            "program and libraries",
            "heap and stacks",
            "all but the ring buffer, each page once",
            &format!("heap with {}", steps.get(1).map_or_else(String::new, |step| grouped(*step))),
            &format!("heap with {}", grouped(most)),
            "bytes per connection",
            "peak at start",
            "peak later",
        ],
    );
    for (command, taken) in COMMANDS.iter().zip(series) {
        let median = |figure: &dyn Fn(&Round) -> Option<f64>| taken.iter().filter_map(figure).collect::<Figures>();
        let look = |index: usize, part: fn(&Memory) -> u64| {
            median(&|round| Some(part(round.looks.get(index)?) as f64)).median().map_or_else(String::new, mib)
        };
        let each =
            median(&|round| each(&round.looks, most)).median().map_or_else(String::new, |each| format!("{each:.0}"));
        let peak = |index: usize| mib(median(&|round| Some(round.peaks[index] as f64)).max().unwrap_or(0.0));
        table.row(vec![
            format!("tcptrace {command}"),
            look(0, |memory| memory.rss),
            look(0, |memory| memory.maps),
            look(0, |memory| memory.files),
            look(0, |memory| memory.own),
            look(0, |memory| memory.shared_out),
            look(1, |memory| memory.own),
            look(steps.len() - 1, |memory| memory.own),
            each,
            peak(0),
            peak(1),
        ]);
    }
    table.caption(format!(
        "Resident memory as the kernel counts it (`/proc/PID/smaps`), once it has not changed for a second; median of \
         {}, the largest of the peaks. A live command is two processes; both count, and what they share counts twice, except \
         in the column that says so. The ring buffer is mapped twice, so that no record breaks at its end; both \
         mappings count. A connection is an ESTABLISHED socket over loopback, made while tcptrace ran; a process has \
         {} of them. Bytes per connection is the growth of the heap for each of {}.",
        rounds(count),
        grouped(2 * super::holder::PAIRS),
        grouped(most),
    ));
    table
}

/// Growth of the heap per socket.
fn each(looks: &[Memory], sockets: u32) -> Option<f64> {
    let (first, last) = (looks.first()?, looks.last()?);
    Some((last.own as f64 - first.own as f64) / f64::from(sockets))
}

fn json(command: &str, rounds: &[Round], steps: &[u32]) -> Value {
    let look = |(sockets, memory): (&u32, &Memory)| {
        json!({
            "sockets": sockets,
            "rss_bytes": memory.rss,
            "ring_bytes": memory.maps,
            "file_bytes": memory.files,
            "own_bytes": memory.own,
            "shared_out_bytes": memory.shared_out,
        })
    };
    let round = |round: &Round| {
        json!({
            "looks": steps.iter().zip(&round.looks).map(look).collect::<Vec<_>>(),
            "peak_at_start_bytes": round.peaks[0],
            "peak_later_bytes": round.peaks[1],
        })
    };
    json!({ "name": format!("tcptrace {command}"), "rounds": rounds.iter().map(round).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_shared_out() {
        let look = |own| Memory { own, ..Memory::default() };
        assert_eq!(each(&[look(1_000), look(9_999), look(17_000)], 100), Some(160.0));
        assert_eq!(each(&[look(1_000), look(500)], 100), Some(-5.0));
        assert_eq!(each(&[], 100), None);
    }
}
