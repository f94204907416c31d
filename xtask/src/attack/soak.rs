//! A long recording: its memory, descriptors and CPU time do not grow.

use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::books::Books;
use super::process::Process;
use super::{Ground, Verdict};
use crate::bench::proc;
use crate::hidden::{self, Hidden};

/// Connections a second.
const RATE: f64 = 1000.0;
/// Interval of measurements.
const EVERY: Duration = Duration::from_secs(5);
/// Measurements start after this time, when the number of TIME_WAITs no longer grows.
const SETTLED: Duration = Duration::from_secs(75);

/// Resources that a process has and has used.
struct Sample {
    at: Duration,
    /// Heap and stacks, in bytes.
    memory: u64,
    descriptors: usize,
    threads: usize,
    cpu: Duration,
}

impl Sample {
    fn of(process: &Process, at: Duration) -> Result<Self> {
        let [descriptors, threads] = process.descriptors_and_threads()?;
        let cpu = proc::cpu(process.pid())?;
        Ok(Self { at, memory: proc::memory(process.pid())?.own, descriptors, threads, cpu: cpu.user + cpu.system })
    }
}

/// Checks that memory, descriptors and CPU time per event stay as they were at the beginning.
pub(super) fn soak(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    let length = Duration::from_secs(60 * ground.minutes);
    let mut load = ground.load(length.as_secs_f64(), Some(RATE))?;
    let recorder = Process::ready(&mut ground.record(&load, "t.tct", &[]), &ground.folder.join("t.err"))?;
    let mut watch = ground.tcptrace(&["watch", "--no-existing", "--netns"]);
    watch.arg(load.netns.to_string()).stdout(Stdio::null());
    let watch = Process::ready(&mut watch, &ground.folder.join("w.err"))?;
    let hidden = Hidden::count(&[hidden::TRANSITIONS], &load.ports);
    load.begin()?;
    let begun = Instant::now();
    let mut samples = [Vec::new(), Vec::new()];
    while begun.elapsed() + EVERY < length {
        sleep(EVERY);
        for (samples, process) in samples.iter_mut().zip([&recorder, &watch]) {
            samples.push(Sample::of(process, begun.elapsed())?);
        }
    }
    let made = load.wait()?;
    let (ended, watched) = (recorder.end(Signal::SIGINT)?, watch.end(Signal::SIGINT)?);
    let hidden = hidden.map_or(0, |hidden| hidden.so_far());
    load.end()?;
    for (whose, samples) in ["record", "watch"].iter().zip(&samples) {
        must_not_drift(whose, samples, verdict)?;
    }
    let books = Books::open(ground, &["t.tct"], Some(&ended))?;
    books.must_agree(verdict);
    books.must_be_true(made.connections, hidden, verdict);
    let seen = super::words::closing(&watched.said).context("watch has no closing line")?;
    verdict.must(seen.lost > 0 || seen.events + hidden >= made.connections * 10, || {
        format!("watch has seen {} transitions of {} connections", seen.events, made.connections)
    });
    verdict.note(format!("{} connections, {}", made.connections, books.summary()));
    Ok(())
}

/// Compares the last third with the first third.
fn must_not_drift(whose: &str, samples: &[Sample], verdict: &mut Verdict) -> Result<()> {
    let settled: Vec<_> = samples.iter().filter(|sample| sample.at > SETTLED).collect();
    let third = settled.len() / 3;
    anyhow::ensure!(third >= 2, "a soak of more minutes is needed");
    let (first, last) = (&settled[..third], &settled[settled.len() - third..]);
    let most = |of: fn(&Sample) -> u64, samples: &[&Sample]| samples.iter().map(|sample| of(sample)).max().unwrap_or(0);
    let [before, after] = [first, last].map(|samples| most(|sample| sample.memory, samples));
    // A tenth more, and the rounding of an allocator.
    verdict.must(after <= before + before / 10 + (2 << 20), || {
        format!("{whose}: {} KiB of memory become {} KiB", before >> 10, after >> 10)
    });
    let [before_fds, after_fds] =
        [first, last].map(|samples| most(|sample| (sample.descriptors + sample.threads) as u64, samples));
    verdict.must(after_fds <= before_fds + 2, || {
        format!("{whose}: {before_fds} descriptors and threads become {after_fds}")
    });
    let [cpu_before, cpu_after] = [first, last].map(|samples| {
        let (begin, end) = (samples[0], samples[samples.len() - 1]);
        (end.cpu - begin.cpu).as_secs_f64() / (end.at - begin.at).as_secs_f64()
    });
    verdict.must(cpu_after <= 1.5 * cpu_before + 0.01, || {
        format!("{whose}: {:.1} % of a CPU become {:.1} %", 100.0 * cpu_before, 100.0 * cpu_after)
    });
    verdict.note(format!(
        "{whose}: {:.1} → {:.1} MiB, {after_fds} descriptors and threads, {:.1} → {:.1} % of a CPU",
        before as f64 / f64::from(1 << 20),
        after as f64 / f64::from(1 << 20),
        100.0 * cpu_before,
        100.0 * cpu_after
    ));
    Ok(())
}
