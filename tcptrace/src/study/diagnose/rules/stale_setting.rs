//! Lines of sysctl files that have no effect.

use crate::model::facts::{SettingFiles, SettingLine};
use crate::model::sanitise::sanitise;
use crate::study::diagnose::evidence::Evidence;
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// Dropped connections of clients behind one address, as long as kernels had it.
const RECYCLE: &str = "net.ipv4.tcp_tw_recycle";
/// The kernel prints these otherwise than they were written.
const REWRITTEN: [&str; 2] = ["net.ipv4.ip_local_reserved_ports", "net.netfilter.nf_conntrack_buckets"];

pub(super) static RULE: Rule = Rule {
    id: "stale-setting",
    title: "a sysctl file sets what this kernel does not have, or what now has another value",
    needs: &[Need::SettingFiles],
    figures: &[
        Figure { name: "lines", unit: "", doc: "Lines of sysctl files about TCP that were compared." },
        Figure { name: "stale", unit: "", doc: "Lines without effect on any kernel of today." },
        Figure { name: "different", unit: "", doc: "Lines whose value the kernel does not have." },
    ],
    page: Page {
        sees: "`sysctl -p` complains about a name that it does not know, or a setting is not what its file says.",
        fires: "A file of sysctl.d, or /etc/sysctl.conf, sets a name that does nothing: tcp_tw_recycle (gone since Linux 4.12), \
                tcp_tw_timeout (vendor kernels only), ip_conntrack_* (now nf_conntrack_*), tcp_low_latency or tcp_fack. Or it \
                is the last file to set a value, and the kernel has another one in the first network namespace.",
        silent: "No such line. Files are looked at on the running host only: a trace does not hold them.",
        remedy: "Delete the line. Where values differ, find out who changed it, or apply the file (sysctl --system).",
        sources: "sysctl.conf(5), sysctl.d(5); ip-sysctl.rst; /proc/sys.",
    },
    check,
};

/// What is wrong with a line.
enum Fault {
    /// Nothing has come of it, for this reason.
    Stale(String),
    /// It does harm.
    Recycle,
    /// The kernel has this.
    Different(Box<str>),
}

fn check(evidence: &Evidence) -> Outcome {
    let Some(files) = &evidence.setting_files else {
        return Outcome::NotChecked("files of settings were not read".into());
    };
    let faults: Vec<_> = files.lines.iter().filter_map(|line| Some((line, fault(files, line)?))).collect();
    let different = faults.iter().filter(|(_, fault)| matches!(fault, Fault::Different(_))).count();
    let figures: Figures = vec![
        ("lines", Value::Count(files.lines.len() as u64)),
        ("stale", Value::Count((faults.len() - different) as u64)),
        ("different", Value::Count(different as u64)),
    ];
    let of = |(line, fault): &(&SettingLine, Fault)| Finding { figures: figures.clone(), ..finding(line, fault) };
    Outcome::of(faults.iter().map(of).collect(), figures)
}

fn fault(files: &SettingFiles, line: &SettingLine) -> Option<Fault> {
    let name = &*line.name;
    let conntrack = ["net.ipv4.netfilter.ip_conntrack_", "net.ipv4.ip_conntrack_"];
    if let Some(rest) = conntrack.iter().find_map(|prefix| name.strip_prefix(prefix)) {
        let is_gone = line.kernel.is_none();
        return is_gone.then(|| Fault::Stale(format!("which is net.netfilter.nf_conntrack_{rest} now")));
    }
    match (name, &line.kernel) {
        (RECYCLE, None) => Some(Fault::Stale("which Linux does not have since 4.12".into())),
        (RECYCLE, Some(value)) if **value != *"0" => Some(Fault::Recycle),
        ("net.ipv4.tcp_tw_timeout", None) => Some(Fault::Stale("which only kernels of some vendors have".into())),
        ("net.ipv4.tcp_low_latency", _) => Some(Fault::Stale("which Linux ignores since 4.14".into())),
        ("net.ipv4.tcp_fack", _) => Some(Fault::Stale("which Linux ignores since 4.15".into())),
        (_, Some(kernel)) if is_compared(files, line) && **kernel != *line.value => {
            Some(Fault::Different(kernel.clone()))
        }
        _ => None,
    }
}

/// Files are for the first network namespace, and the last line wins.
fn is_compared(files: &SettingFiles, line: &SettingLine) -> bool {
    files.is_of_host && line.is_last && !REWRITTEN.contains(&&*line.name)
}

fn finding(line: &SettingLine, fault: &Fault) -> Finding {
    let severity = if matches!(fault, Fault::Recycle) { Severity::Warning } else { Severity::Note };
    let mut finding = Finding::new(RULE.id, severity, Confidence::Certain, headline(line, fault));
    let kernel = match &line.kernel {
        Some(value) => format!("the kernel has {}", safe(value)),
        None => "the kernel does not have it".into(),
    };
    let sets = format!("{}:{} sets {}={}", safe(&line.file), line.line, line.name, safe(&line.value));
    finding.line("sysctl.d, sysctl", format!("{sets}; {kernel}"));
    match fault {
        Fault::Stale(_) => {
            finding.why = "Such lines come from advice for older kernels; nothing depends on them.".into();
            finding.remedies.push("Delete the line".into());
            finding.sure = "certain: the file and the kernel".into();
        }
        Fault::Recycle => {
            finding.why =
                "With tcp_tw_recycle the kernel drops SYNs of clients behind one address whose timestamps are older \
                           than the last one's."
                    .into();
            finding.remedies.push(format!("sysctl {RECYCLE}=0, and delete the line"));
            finding.sure = "certain: the file and the kernel".into();
        }
        Fault::Different(_) => {
            finding.why = "Another tool has changed it since the machine booted, or the file was not applied.".into();
            finding.remedies.push("Find out which value is wanted, and who sets the other one".into());
            finding.sure = "certain that they differ; why is possible only".into();
        }
    }
    finding.count = 1;
    finding
}

fn headline(line: &SettingLine, fault: &Fault) -> String {
    let (file, value) = (safe(&line.file), safe(&line.value));
    let base = file.rsplit('/').next().unwrap_or_default();
    let (name, number) = (&line.name, line.line);
    let short = name.rsplit('.').next().unwrap_or_default();
    let (says, shorter) = match fault {
        Fault::Stale(why) => (format!("{why}: it has no effect"), why.clone()),
        Fault::Recycle => ("which drops clients behind one address".into(), "which drops clients".into()),
        Fault::Different(kernel) => {
            let text = format!("and the kernel has {}", safe(kernel));
            (text, "and the kernel has another value".to_owned())
        }
    };
    say::fitting([
        format!("{file}:{number} sets {name}={value}, {says}"),
        format!("{file}:{number} sets {name}={value}, {shorter}"),
        format!("{base}:{number} sets {name}={value}, {says}"),
        format!("{base}:{number} sets {name}={value}, {shorter}"),
        format!("{base}:{number} sets {short}={value}, {shorter}"),
        format!("{base}:{number} sets {short}, {shorter}"),
        format!("a sysctl file sets {short}, {shorter}"),
        "a sysctl file sets what has no effect, or what the kernel has otherwise".into(),
    ])
}

/// Names and values of files are whatever somebody wrote.
fn safe(text: &str) -> String {
    sanitise(text.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{fired, nothing};
    use super::*;

    fn line(name: &str, value: &str, kernel: Option<&str>) -> SettingLine {
        let (name, value, kernel) = (name.into(), value.into(), kernel.map(Into::into));
        SettingLine { file: "/etc/sysctl.d/99-tune.conf".into(), line: 7, name, value, kernel, is_last: true }
    }

    fn with(line: SettingLine, is_of_host: bool) -> Evidence {
        Evidence { setting_files: Some(SettingFiles { lines: vec![line], is_of_host }), ..nothing() }
    }

    #[rstest]
    #[case(RECYCLE, "1", None, "sets net.ipv4.tcp_tw_recycle=1, which Linux does not have since 4.12")]
    #[case(RECYCLE, "1", Some("1"), "sets net.ipv4.tcp_tw_recycle=1, which drops clients behind one address")]
    #[case(
        "net.ipv4.tcp_tw_timeout",
        "3",
        None,
        "sets net.ipv4.tcp_tw_timeout=3, which only kernels of some vendors have"
    )]
    #[case(
        "net.ipv4.tcp_fack",
        "1",
        Some("0"),
        "sets net.ipv4.tcp_fack=1, which Linux ignores since 4.15: it has no effect"
    )]
    #[case(
        "net.ipv4.tcp_low_latency",
        "1",
        Some("1"),
        "sets net.ipv4.tcp_low_latency=1, which Linux ignores since 4.14: it has no effect"
    )]
    #[case(
        "net.ipv4.ip_conntrack_max",
        "9",
        None,
        "sets net.ipv4.ip_conntrack_max=9, which is net.netfilter.nf_conntrack_max now"
    )]
    #[case("net.ipv4.tcp_fin_timeout", "30", Some("60"), "sets net.ipv4.tcp_fin_timeout=30, and the kernel has 60")]
    fn headlines(#[case] name: &str, #[case] value: &str, #[case] kernel: Option<&str>, #[case] expected: &str) {
        let finding = &fired(&RULE, &with(line(name, value, kernel), true))[0];
        assert_eq!(finding.headline, format!("/etc/sysctl.d/99-tune.conf:7 {expected}"));
        let is_recycle = (name, kernel) == (RECYCLE, Some("1"));
        assert_eq!(finding.severity, if is_recycle { Severity::Warning } else { Severity::Note });
    }

    #[rstest]
    #[case::the_same("net.ipv4.tcp_fin_timeout", Some("30"), true, true)]
    #[case::of_another_namespace("net.ipv4.tcp_fin_timeout", Some("60"), false, true)]
    #[case::another_line_wins("net.ipv4.tcp_fin_timeout", Some("60"), true, false)]
    #[case::unknown("net.ipv4.tcp_new", None, true, true)]
    #[case::written_otherwise("net.ipv4.ip_local_reserved_ports", Some("29-30"), true, true)]
    #[case::off(RECYCLE, Some("0"), false, true)]
    fn it_is_silent(#[case] name: &str, #[case] kernel: Option<&str>, #[case] is_of_host: bool, #[case] is_last: bool) {
        let evidence = with(SettingLine { is_last, ..line(name, "30", kernel) }, is_of_host);
        assert_eq!(fired(&RULE, &evidence), []);
    }

    #[test]
    fn long_names_fit_and_steer_nothing() {
        let mut line = line("net.ipv4.tcp_fin_timeout", &"9\u{1b}".repeat(200), Some("60"));
        line.file = format!("/etc/sysctl.d/{}\u{1b}.conf", "x".repeat(200)).into();
        let finding = &fired(&RULE, &with(line, true))[0];
        assert_eq!(finding.headline, "a sysctl file sets tcp_fin_timeout, and the kernel has another value");
        assert!(!finding.evidence[0].text.contains('\u{1b}'), "{}", finding.evidence[0].text);
    }

    #[test]
    fn without_files_it_is_not_checked() {
        assert!(matches!(check(&nothing()), Outcome::NotChecked(_)));
    }
}
