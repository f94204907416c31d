//! What is measured: nothing, tcptrace, and what people use today.

use std::path::{Path, PathBuf};

use crate::command;

/// Something to run beside the load.
pub(super) struct Subject {
    /// How the table names it.
    pub(super) name: String,
    /// What it is.
    pub(super) what: What,
}

/// What is run.
pub(super) enum What {
    /// A tracer.
    Tool(Tool),
    /// This `ss`, every now and then.
    Polling(PathBuf),
}

/// A tracer.
pub(super) struct Tool {
    /// Its file.
    pub(super) program: PathBuf,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
    /// Whether it is tcptrace, which says when it is ready and what it lost.
    pub(super) is_tcptrace: bool,
    /// Where its output goes.
    pub(super) sink: Sink,
}

/// Where output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sink {
    /// To a file on the disk.
    File,
    /// To a terminal; whether what arrives there is kept, with the time when it did.
    Terminal {
        /// See above.
        keep: bool,
    },
}

/// What those write that write a file, in the folder of the measurement.
pub(super) const TRACE: &str = "trace";

/// A tcptrace command line: its words, `record` with the file that it writes.
pub(super) fn tcptrace(program: &Path, words: &str, sink: Sink) -> Tool {
    let mut arguments: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
    if words == "record" {
        arguments.extend(["--output", TRACE].map(str::to_owned));
    }
    Tool { program: program.to_owned(), arguments, is_tcptrace: true, sink }
}

const BPFTRACE: &str = "tracepoint:sock:inet_sock_set_state \
    { printf(\"%d %s %d %d %d %d\\n\", pid, comm, args->sport, args->dport, args->oldstate, args->newstate); }";

/// Other tools, each with the program it needs.
const PEERS: [(&str, &str, &[&str]); 4] = [
    ("tcpstates (libbpf-tools)", "tcpstates", &[]),
    ("tcplife (libbpf-tools)", "tcplife", &[]),
    ("bpftrace, printf a transition", "bpftrace", &["-e", BPFTRACE]),
    ("perf record, not read", "perf", &["record", "-q", "-a", "-o", TRACE, "-e", "sock:inet_sock_set_state"]),
];

/// How the tables name the polling of `ss`.
const POLLING: &str = "ss -tan every 100 ms";

/// The other tools that are installed, writing to `sink`; says what is left out.
pub(super) fn peers(sink: Sink, skipped: &mut Vec<String>) -> Vec<Subject> {
    let mut subjects = Vec::new();
    let mut missing = |name: &str| {
        skipped.push(format!("{name}: not installed (`cargo xtask setup --bench` installs it on Debian)"));
    };
    for (name, program, arguments) in PEERS {
        let Some(program) = command::find(program) else {
            missing(name);
            continue;
        };
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let tool = Tool { program, arguments, is_tcptrace: false, sink };
        subjects.push(Subject { name: name.to_owned(), what: What::Tool(tool) });
    }
    match command::find("ss") {
        Some(ss) => subjects.push(Subject { name: POLLING.to_owned(), what: What::Polling(ss) }),
        None => missing(POLLING),
    }
    subjects
}
