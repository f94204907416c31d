//! Made-up diagnoses.

use std::net::{IpAddr, Ipv4Addr};

use crate::model::names::Group;
use crate::model::row::Held;
use crate::model::stream::{Clock, Context};
use crate::model::tcp::{Comm, Side, State, Task};
use crate::study::diagnose::evidence::About;
use crate::study::diagnose::finding::{Confidence, Example, Finding, Severity, Subject, Value};
use crate::study::diagnose::settings::{Row, Settings, Source};
use crate::study::diagnose::{Case, Checked, Compared, Diagnosis};

const S: u64 = 1_000_000_000;

/// A host with a finding of each severity, one of which explains another.
pub(in crate::output) fn ill() -> Case {
    let mut leak = leak();
    leak.explains.push(("fd-limit", "api[4711] has 1,010 of 1,024 descriptors open".into()));
    let limit = Finding {
        because_of: Some("close-wait-leak"),
        ..Finding::new("fd-limit", Severity::Critical, Confidence::Certain, leak.explains[0].1.clone())
    };
    let setting = Finding {
        evidence: Vec::new(),
        ..Finding::new(
            "risky-setting",
            Severity::Warning,
            Confidence::Certain,
            "net.ipv4.tcp_retries2=3 gives up on a silent peer after about 1s: RFC 1122 wants 100s at least".into(),
        )
    };
    let note = Finding::new(
        "server-closes-first",
        Severity::Note,
        Confidence::Certain,
        "nginx[812] closes first: 1,012 TIME_WAITs stand on port 443".into(),
    );
    let checked = vec![
        Checked { id: "close-wait-leak", outcome: "fired", reason: None, figures: leak.figures.clone() },
        Checked {
            id: "no-connection-pool",
            outcome: "silent",
            reason: None,
            figures: vec![("short", Value::Count(3)), ("rate", Value::Rate(0.3)), ("rtt", Value::Unknown)],
        },
        not_checked("bind-refused", "needs root"),
        not_checked("conntrack-full", "no connection tracking in any namespace"),
        not_checked("fd-limit", "needs root"),
    ];
    let findings = vec![leak, setting, note, limit];
    let diagnosis = Diagnosis { about: about(), sockets: 31_904, findings, checked };
    Case { diagnosis, compared: Vec::new(), context: context(), hidden: 0, settings: settings() }
}

/// One with nothing wrong.
pub(in crate::output) fn well() -> Case {
    let compared = [
        (
            "TIME_WAIT",
            "1,140 (285 KiB of memory), 131,072 allowed; 1,012 on listening ports, 128 on client ports; end after 61s by themselves",
        ),
        ("CLOSE_WAIT", "2, oldest ≥0.2s"),
    ];
    let compared = compared.map(|(name, text)| Compared { name, text: text.into() }).to_vec();
    let checked = vec![Checked { id: "close-wait-leak", outcome: "silent", reason: None, figures: Vec::new() }];
    let about = About { lost: 12, ..about() };
    let diagnosis = Diagnosis { about, sockets: 1_204, findings: Vec::new(), checked };
    Case { diagnosis, compared, context: context(), hidden: 0, settings: Settings::default() }
}

/// Of three network namespaces, one of which differs.
fn settings() -> Settings {
    let of = |netns, name, value: Option<&str>, default: Option<&'static str>, source| {
        let (value, default) = (value.map(str::to_owned), default.map(Into::into));
        let (effect, risk) = ("what it does, in words that are long enough to be broken into two lines", "keep it");
        Row { netns, name, value, default, source, effect, risk }
    };
    let first = 4_026_531_840;
    let places = vec![first, 4_026_532_000, 4_026_532_001];
    let rows = vec![
        of(Some(first), "net.ipv4.tcp_fin_timeout", Some("90\u{1b}"), Some("60"), Source::Changed),
        of(Some(first), "net.ipv4.ip_local_reserved_ports", Some(""), Some(""), Source::Default),
        of(Some(first), "net.ipv4.tcp_tw_recycle", None, None, Source::Missing),
        of(None, "net.ipv4.tcp_mem", Some("1 2 3"), None, Source::Computed),
        of(Some(places[1]), "net.ipv4.tcp_fin_timeout", Some("60"), Some("60"), Source::Default),
    ];
    Settings { places, rows }
}

fn leak() -> Finding {
    let headline = "api[4711] holds 348 connections that the peer has closed, the oldest for ≥3h12m";
    let mut finding = Finding::new("close-wait-leak", Severity::Critical, Confidence::Likely, headline.into());
    let ip = |last| IpAddr::from(Ipv4Addr::new(10, 0, 0, last));
    let comm = Comm::from("api\x1b[31m");
    finding.subject = Subject {
        task: Some(Task { pid: 4711, tid: 4711, comm }),
        cgroup: Some(7),
        netns: Some(4_026_531_840),
        side: Some(Side::Server),
        ..Subject::default()
    };
    finding.figures = vec![
        ("close_wait", Value::Count(348)),
        ("oldest_ns", Value::Ns(11_520 * S)),
        ("per_second", Value::Rate(1.234_567)),
        ("is_old", Value::Is(true)),
        ("descriptors", Value::Unknown),
    ];
    finding.line("sock_diag, /proc", "fd 12 … 371; Recv-Q 0: 340, 1: 8");
    finding.line(
        "sock_diag",
        "peers: 10.0.0.9:8009 331, 10.0.0.7:8009 17 and some more that make this line so long that it wraps",
    );
    finding.why = "The peer has sent its FIN; only close() in this process ends the connection.".into();
    finding.remedies = vec!["Find the code path that does not close".into(), "Until then, restart the process".into()];
    finding.mistakes = vec!["lower tcp_fin_timeout: it has nothing to do with CLOSE_WAIT".into()];
    finding.sure = "certain that the process has not closed them; that it never will is likely".into();
    finding.first_seen = Some(1_000 * S);
    finding.count = 348;
    finding.seconds_left = Some(58.25);
    finding.examples.push(Example {
        conn: 0x8840,
        local: (ip(1), 80).into(),
        remote: (ip(9), 40_000).into(),
        state: State::CloseWait,
        age: Held::AtLeast(11_520 * S),
        pid: Some(4711),
        fd: None,
    });
    finding
}

fn not_checked(id: &'static str, reason: &str) -> Checked {
    Checked { id, outcome: "not_checked", reason: Some(reason.into()), figures: Vec::new() }
}

fn about() -> About {
    About {
        host: "vm".into(),
        kernel: "6.18.44".into(),
        boot_id: "5f0c".into(),
        is_trace: false,
        from: 1_000 * S,
        to: 1_010 * S,
        traced_ns: 10 * S,
        opened: 4_622,
        ended: 4_620,
        namespaces: vec![4_026_531_840, 4_026_532_000],
        lost: 0,
    }
}

fn context() -> Context {
    let mut context = Context { clock: Clock { boot_to_unix_ns: 1_800_000_000_000_000_000 }, ..Context::default() };
    context.names.name_group(7, Group::at(b"/system.slice/api.service"));
    context.names.name_namespace(4_026_531_840, b"host");
    context
}
