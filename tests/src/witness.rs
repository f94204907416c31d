//! A second observer of the ends of mini-sockets: a kprobe on the function that destroys them.
//!
//! tcptrace uses no kprobes, and infers the end of a TIME_WAIT from its timer. Tests compare the two wherever kprobes
//! are available.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::namespace::go_home;
use crate::process::aside;

/// The offsets of a mini-socket's ports have not changed since Linux 3.8 (`struct sock_common`, include/net/sock.h):
/// `skc_dport`, in network order, at byte 12, and `skc_num` at byte 14. The script ends with its input, and leaves
/// nothing behind.
const SCRIPT: &str = r#"
[ -e /sys/kernel/tracing/trace_pipe ] || mount -t tracefs tracefs /sys/kernel/tracing || exit
cd /sys/kernel/tracing || exit
[ -e kprobe_events ] || { echo "this kernel has no kprobes"; exit; }
name=end$$
echo "p:tcptrace_tests/$name inet_twsk_kill remote=+12(\$arg1):u16 local=+14(\$arg1):u16" >>kprobe_events ||
    { echo "no kprobe on inet_twsk_kill"; exit; }
mkdir instances/$name && cd instances/$name && echo boot >trace_clock && echo 1 >events/tcptrace_tests/$name/enable &&
    echo ready
cat trace_pipe &
read -r _
kill $!
wait
echo 0 >events/tcptrace_tests/$name/enable
cd ../..
rmdir instances/$name
echo "-:tcptrace_tests/$name" >>kprobe_events
"#;

/// Longest wait for its output.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest time between stopping the timer and destroying the mini-socket: the machine can do something else in
/// between.
const SLACK: Duration = Duration::from_secs(1);

static WITNESS: LazyLock<Result<Witness, String>> = LazyLock::new(Witness::start);

/// The end of a mini-socket.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    local: u16,
    remote: u16,
    /// Since boot.
    at: Duration,
}

/// Observes the ends of mini-sockets in all network namespaces.
pub struct Witness {
    seen: Mutex<Vec<Seen>>,
    more: Condvar,
}

impl Witness {
    /// The witness of this process, or why there is none.
    ///
    /// # Errors
    ///
    /// The missing kernel feature.
    pub fn get() -> Result<&'static Self, &'static str> {
        let witness = WITNESS.as_ref().map_err(String::as_str)?;
        Ok(witness)
    }

    fn start() -> Result<Self, String> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "bash", "-c", SCRIPT]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let (said, says) = channel();
        // That thread's descriptor table keeps the script's input open, so the script ends with this process in any
        // case.
        // that ends.
        drop(aside(move || {
            go_home();
            let mut process = command.spawn().expect("start a witness");
            let output = BufReader::new(process.stdout.take().expect("a pipe"));
            let _nobody_listens = output.lines().map_while(Result::ok).try_for_each(|line| said.send(line));
            drop(process.stdin.take());
            process.wait().expect("wait for a witness");
        }));
        let first = says.recv().unwrap_or_else(|_| "kprobes cannot be set here".to_owned());
        if first != "ready" {
            return Err(first);
        }
        thread::spawn(move || {
            // The thread that starts the witness is the first to ask, so the witness is there soon.
            if let Ok(witness) = WITNESS.as_ref() {
                says.iter().filter_map(|line| parse(&line)).for_each(|seen| witness.add(seen));
            }
        });
        Ok(Self { seen: Mutex::default(), more: Condvar::new() })
    }

    fn add(&self, seen: Seen) {
        self.seen().push(seen);
        self.more.notify_all();
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that a mini-socket between these ports ended at `end`, and none between `begin` and then.
    #[track_caller]
    pub fn confirm(&self, local: u16, remote: u16, begin: Duration, end: Duration) {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.seen();
        loop {
            let mut of_it = seen.iter().filter(|seen| (seen.local, seen.remote) == (local, remote));
            if let Some(first) = of_it.find(|seen| seen.at >= begin) {
                let apart = first.at.abs_diff(end);
                assert!(apart < SLACK, "the mini-socket {local} > {remote} ended at {:?}, not at {end:?}", first.at);
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the witness saw no end of the mini-socket {local} > {remote} at {end:?}");
            seen = self.more.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// `    live-163   [001] ..... 27.080431: end7: (inet_twsk_kill+0x0/0x90) remote=36895 local=50000`
fn parse(line: &str) -> Option<Seen> {
    let (before, after) = line.split_once(": (inet_twsk_kill")?;
    let at: f64 = before.rsplit_once(": ")?.0.split_whitespace().next_back()?.parse().ok()?;
    let field = |name: &str| {
        let value = after.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value?.parse::<u16>().ok()
    };
    Some(Seen { local: field("local")?, remote: u16::from_be(field("remote")?), at: Duration::from_secs_f64(at) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_names_the_ports_and_the_time() {
        let remote = 7000_u16.to_be();
        let line =
            format!(" a: b-163 [001] ..... 27.080431: end7: (inet_twsk_kill+0x0/0x90) remote={remote} local=50000");
        assert_eq!(parse(&line), Some(Seen { local: 50000, remote: 7000, at: Duration::from_micros(27_080_431) }));
        assert_eq!(parse("CPU:1 [LOST 5 EVENTS]"), None);
    }
}
