//! The subjects of measurements: no tool, tcptrace, and other tools.

use std::path::{Path, PathBuf};

use crate::command;

/// Something to run beside the load.
pub(super) struct Subject {
    /// Its name in the table.
    pub(super) name: String,
    pub(super) what: What,
}

/// What runs.
pub(super) enum What {
    /// A tracer.
    Tool(Tool),
    /// This `ss`, polled.
    Polling(PathBuf),
}

/// A tracer.
pub(super) struct Tool {
    /// Path of the program.
    pub(super) program: PathBuf,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
    /// Whether it is tcptrace, which prints when it is ready and what it lost.
    pub(super) is_tcptrace: bool,
    /// Destination of its output.
    pub(super) sink: Sink,
}

/// Destination of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sink {
    /// A file on the disk.
    File,
    /// Nowhere.
    Null,
    /// A pseudo-terminal.
    Terminal {
        /// Whether to keep the text that arrives, with its times.
        keep: bool,
    },
}

/// The file, in the folder of the measurement, of subjects that write one.
pub(super) const TRACE: &str = "trace";

/// A command line of tcptrace; `record` gets the file to write.
pub(super) fn tcptrace(program: &Path, words: &str, sink: Sink) -> Tool {
    let mut arguments: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
    if words == "record" {
        arguments.extend(["--output", TRACE].map(str::to_owned));
    }
    Tool { program: program.to_owned(), arguments, is_tcptrace: true, sink }
}

const BPFTRACE: &str = "tracepoint:sock:inet_sock_set_state \
    { printf(\"%d %s %d %d %d %d\\n\", pid, comm, args->sport, args->dport, args->oldstate, args->newstate); }";

/// Other tools, each with its program.
const PEERS: [(&str, &str, &[&str]); 4] = [
    ("tcpstates (libbpf-tools)", "tcpstates", &[]),
    ("tcplife (libbpf-tools)", "tcplife", &[]),
    ("bpftrace, printf a transition", "bpftrace", &["-e", BPFTRACE]),
    ("perf record, not read", "perf", &["record", "-q", "-a", "-o", TRACE, "-e", "sock:inet_sock_set_state"]),
];

/// The name of polling in tables.
const POLLING: &str = "ss -tan every 100 ms";

/// The other tools that are installed, writing to `sink`; reports those that are missing.
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
