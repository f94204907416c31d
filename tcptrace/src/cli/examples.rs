//! Examples, as `--help` and the man pages show them.

pub(super) const TCPTRACE: &str = "\
Examples:
  tcptrace watch --port 443                    # every state transition on port 443
  tcptrace record --duration 1m                # write tcptrace.tct
  tcptrace report tcptrace.tct                 # what happened in it
  tcptrace snapshot --state close-wait --list  # sockets that wait for their application to close

Exit status: 0 done; 1 failed; 2 wrong usage; 3 done, but events were lost, or a trace is damaged or ended abruptly.
Set TCPTRACE_LOG=debug to see what the program does.";

pub(super) const WATCH: &str = "\
Examples:
  tcptrace watch --comm nginx                         # one program
  tcptrace watch --state time-wait --min-duration 1s  # long TIME_WAITs, when they end
  tcptrace watch --duration 10s --format json         # for scripts: one JSON object a line";

pub(super) const CONNECTIONS: &str = "\
Examples:
  tcptrace connections --rport 5432                       # connections to a database
  tcptrace connections --closer reset-remote              # connections that the peer reset
  tcptrace connections --states --duration 5m             # with the time in each state
  tcptrace connections --at-close --format csv > ended.csv";

pub(super) const RECORD: &str = "\
Examples:
  tcptrace record --duration 1m                   # write tcptrace.tct
  tcptrace record -o curl.tct -- curl -s http://127.0.0.1/
  tcptrace record --rotate 100M --max-files 10 -o web.tct
  tcptrace record --last 5m --when fd-limit -o incident.tct    # flight recorder: writes by itself";

pub(super) const REPLAY: &str = "\
Examples:
  tcptrace replay web.tct --since 03:00 --until 03:05
  tcptrace replay web.tct --rows connections --comm nginx
  ssh web tcptrace record -o - | tcptrace replay -        # watch another host";

pub(super) const SNAPSHOT: &str = "\
Examples:
  tcptrace snapshot                            # sockets by state, owner and remote end
  tcptrace snapshot --list --state close-wait  # each socket in CLOSE_WAIT, with owner and age
  tcptrace snapshot --ports                    # how many local ports each destination has left
  tcptrace snapshot --rport 5432 --format json";

pub(super) const DIAGNOSE: &str = "\
Examples:
  tcptrace diagnose                             # look for ten seconds
  tcptrace diagnose --duration 0                # one look, without eBPF
  tcptrace diagnose web.tct --since 03:00 --comm nginx
  tcptrace diagnose --explain close-wait-leak   # what a rule looks for, and why

Exit status: 4 there is a finding at or above --fail-on; 3 there is none, but events were lost; 0 there is none.";

pub(super) const TOP: &str = "\
Examples:
  tcptrace top                                 # sockets by process, live; `?` shows the keys
  tcptrace top --by remote --sort time-wait --rport 5432
  tcptrace top incident.tct --speed 10         # play a trace ten times as fast
  tcptrace top --once --format json            # for scripts: one frame";

pub(super) const TIMELINE: &str = "\
Examples:
  tcptrace timeline web.tct --sort time-wait --limit 5
  tcptrace timeline web.tct --comm nginx --since 30s --until 1m
  tcptrace timeline web.tct --conn 8840f1         # one connection, and its peer's end";

pub(super) const EXPORT: &str = "\
Examples:
  tcptrace export web.tct --format jsonl > web.jsonl
  tcptrace export web.tct --format csv --rows transitions -o web.csv
  tcptrace export web-*.tct --format parquet -o warehouse
  tcptrace export web.tct --format perfetto -o web.json    # open it in ui.perfetto.dev";

pub(super) const REPORT: &str = "\
Examples:
  tcptrace report web.tct
  tcptrace report web.tct --by remote --since 03:00 --until 03:05
  tcptrace report web.tct --html web.html       # a page for browsers
  tcptrace report web-1.tct web-2.tct --format json";

pub(super) const SCHEMA: &str = "\
Examples:
  tcptrace schema                # every field of every output
  tcptrace schema --format json  # JSON Schema of a line of JSON";

pub(super) const CHECK: &str = "\
Examples:
  tcptrace check
  tcptrace check --format json";

pub(super) const COMPLETIONS: &str = "\
Examples:
  source <(tcptrace completions bash)           # in bash, for this session
  tcptrace completions bash > /usr/share/bash-completion/completions/tcptrace
  tcptrace completions zsh > /usr/local/share/zsh/site-functions/_tcptrace
  tcptrace completions fish > ~/.config/fish/completions/tcptrace.fish";
