//! What is measured: nothing, tcptrace, and what people use today.

use std::path::{Path, PathBuf};

use crate::command;

/// Something to run beside the load.
pub(super) struct Subject {
    /// How the table names it.
    pub(super) name: &'static str,
    /// What to run; nothing, for the baseline.
    pub(super) tool: Option<Tool>,
}

/// A tracer.
pub(super) struct Tool {
    /// Its file.
    pub(super) program: PathBuf,
    /// Its arguments.
    pub(super) arguments: &'static [&'static str],
    /// Whether it is tcptrace, which says when it is ready and what it lost.
    pub(super) is_tcptrace: bool,
}

/// What those write that write a file, in the folder of the measurement.
pub(super) const TRACE: &str = "trace";

const TCPTRACE: [(&str, &[&str]); 4] = [
    ("tcptrace record", &["record", "--output", TRACE]),
    ("tcptrace watch", &["watch"]),
    ("tcptrace watch --format json", &["watch", "--format", "json"]),
    ("tcptrace connections", &["connections"]),
];

const BPFTRACE: &str = "tracepoint:sock:inet_sock_set_state \
    { printf(\"%d %s %d %d %d %d\\n\", pid, comm, args->sport, args->dport, args->oldstate, args->newstate); }";

/// Other tools, each with the program it needs.
const PEERS: [(&str, &str, &[&str]); 4] = [
    ("tcpstates (libbpf-tools)", "tcpstates", &[]),
    ("tcplife (libbpf-tools)", "tcplife", &[]),
    ("bpftrace, printf a transition", "bpftrace", &["-e", BPFTRACE]),
    ("perf record, not read", "perf", &["record", "-q", "-a", "-o", "perf.data", "-e", "sock:inet_sock_set_state"]),
];

/// Everything that can be measured here, the baseline first; says what is left out.
pub(super) fn installed(tcptrace: &Path) -> Vec<Subject> {
    let mut subjects = vec![Subject { name: "nothing", tool: None }];
    for (name, arguments) in TCPTRACE {
        let tool = Tool { program: tcptrace.to_owned(), arguments, is_tcptrace: true };
        subjects.push(Subject { name, tool: Some(tool) });
    }
    for (name, program, arguments) in PEERS {
        match command::find(program) {
            Some(program) => {
                subjects.push(Subject { name, tool: Some(Tool { program, arguments, is_tcptrace: false }) });
            }
            None => eprintln!("{name}: not installed, skipped (`cargo xtask setup --bench` installs it)"),
        }
    }
    subjects
}
