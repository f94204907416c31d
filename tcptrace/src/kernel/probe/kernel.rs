//! The properties of the running kernel that decide what can be attached.

use std::path::Path;

use nix::time::{ClockId, clock_getres};

const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Length of a kernel tick in ns.
pub(super) fn tick_ns() -> u64 {
    // The coarse clocks advance by one tick (`kernel/time/posix-timers.c`, `hrtimer_resolution` for the others).
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map(std::time::Duration::from);
    tick.ok().and_then(|tick| u64::try_from(tick.as_nanos()).ok()).unwrap_or(0)
}

/// Whether bottom halves can be preempted: what a CPU did just before then proves nothing.
pub(super) fn is_realtime() -> bool {
    Path::new("/sys/kernel/realtime").exists()
}

/// Whether Clang has made this kernel, which inlines longer functions than GCC.
pub(super) fn is_made_by_clang() -> bool {
    std::fs::read_to_string("/proc/version").is_ok_and(|version| version.contains("clang version"))
}

/// The kernel's BTF.
///
/// # Errors
///
/// Says why there is none, and what to do.
pub(super) fn btf() -> Result<Vec<u8>, String> {
    std::fs::read(BTF).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound if !Path::new("/sys/kernel").exists() => {
            format!("cannot read the kernel's BTF ({BTF}): /sys is not mounted here")
        }
        std::io::ErrorKind::NotFound => {
            format!("this kernel has no BTF ({BTF}); it needs one built with CONFIG_DEBUG_INFO_BTF")
        }
        _ => format!("cannot read {BTF}: {error}"),
    })
}

/// Why loading or attaching was refused, with what to do about it where that is known.
pub(super) fn explain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = chain(error);
    if let Some(helper) = missing_helper(&text) {
        text = format!("this kernel is too old: its programs of this kind have no {helper}");
    } else if is_refusal(error) {
        text = match (missing_capabilities(), is_locked_down()) {
            (Some(missing), _) => format!("needs {missing}; run as root"),
            (None, true) => format!("{text}: the kernel is locked down (see /sys/kernel/security/lockdown)"),
            (None, false) => format!(
                "{text}: the kernel refuses it even to root; is this a container without CAP_BPF and CAP_PERFMON?"
            ),
        };
    }
    one_line(&text)
}

/// Messages are lines, and the verifier's log has many.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

/// The helper that a program calls and this kernel lacks, from the end of the verifier's log.
fn missing_helper(log: &str) -> Option<String> {
    /// Helpers younger than 5.8, by their numbers (include/uapi/linux/bpf.h), and since when programs have them.
    const YOUNG: [(u32, &str); 3] = [
        (46, "bpf_get_socket_cookie (5.12 and newer do)"),
        (158, "bpf_get_current_task_btf (5.11 and newer do)"),
        (162, "bpf_sock_from_file (5.11 and newer do)"),
    ];
    const COMPLAINTS: [&str; 3] = ["unknown func ", "invalid func ", "program of this type cannot use helper "];
    let complaint =
        log.lines().rev().find_map(|line| COMPLAINTS.iter().find_map(|begin| line.trim().strip_prefix(begin)))?;
    let (name, number) = complaint.split_once('#')?;
    let number: u32 = number.parse().ok()?;
    let young = YOUNG.iter().find(|(young, _)| *young == number);
    Some(young.map_or_else(|| format!("helper {name} ({number})"), |(_, name)| (*name).to_owned()))
}

fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::PermissionDenied;
        }
        next = error.source();
    }
    false
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        next = error.source();
    }
    // A verifier log can be megabytes long; its end has the error.
    const LONGEST: usize = 600;
    match text.char_indices().nth_back(LONGEST) {
        Some((start, _)) => format!("…{}", &text[start..]),
        None => text,
    }
}

const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// The capabilities that tracing needs and this process lacks.
pub(super) fn missing_capabilities() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(effective.trim(), 16).ok()?;
    let has = |capability: u32| effective & (1 << capability) != 0;
    if has(CAP_SYS_ADMIN) {
        return None;
    }
    let missing: Vec<_> = [(CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")]
        .iter()
        .filter(|(bit, _)| !has(*bit))
        .map(|(_, name)| *name)
        .collect();
    (!missing.is_empty()).then(|| missing.join(" and "))
}

fn is_locked_down() -> bool {
    std::fs::read_to_string("/sys/kernel/security/lockdown").is_ok_and(|mode| mode.contains("[confidentiality]"))
}

/// This process's id as the kernel's programs see it, in the initial pid namespace; or as seen from the pid namespace
/// of the mounted `/proc`, if that is another one.
pub(super) fn own_pid() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("NStgid:"));
    ids.and_then(|ids| ids.split_whitespace().next()?.parse().ok()).unwrap_or_else(std::process::id)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn a_message_is_a_line() {
        assert_eq!(
            one_line("refused. Verifier output: 0: R1=ctx\n1: exit \n\n"),
            "refused. Verifier output: 0: R1=ctx; 1: exit"
        );
    }

    #[rstest]
    #[case::not_for_such_programs(
        "203: (85) call bpf_get_socket_cookie#46\nunknown func bpf_get_socket_cookie#46\nverification time 7301 usec\n",
        Some("bpf_get_socket_cookie (5.12 and newer do)")
    )]
    #[case::not_known_at_all(
        "7: (85) call unknown#162\ninvalid func unknown#162\nprocessed 8 insns\n",
        Some("bpf_sock_from_file (5.11 and newer do)")
    )]
    #[case::named_since_6_8(
        "program of this type cannot use helper bpf_probe_write#7\nprocessed 8 insns\n",
        Some("helper bpf_probe_write (7)")
    )]
    #[case::something_else("R1 invalid mem access 'inv'\nprocessed 8 insns\n", None)]
    fn a_missing_function_is_found_in_the_verifiers_log(#[case] log: &str, #[case] expected: Option<&str>) {
        assert_eq!(missing_helper(log).as_deref(), expected);
    }
}
