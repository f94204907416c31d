//! What the running kernel is like, as far as it decides what can be attached.

use std::path::Path;

use nix::time::{ClockId, clock_getres};

const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Length of a kernel tick in ns.
pub(super) fn tick_ns() -> u64 {
    // The coarse clocks advance by one tick (`kernel/time/posix-timers.c`, `hrtimer_resolution` for the others).
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map(std::time::Duration::from);
    tick.ok().and_then(|tick| u64::try_from(tick.as_nanos()).ok()).unwrap_or(0)
}

/// Whether bottom halves can be preempted: what a CPU did just before is then no evidence.
pub(super) fn is_realtime() -> bool {
    Path::new("/sys/kernel/realtime").exists()
}

/// The kernel's BTF.
///
/// # Errors
///
/// Says why there is none, and what to do.
pub(super) fn btf() -> Result<Vec<u8>, String> {
    std::fs::read(BTF).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("this kernel has no BTF ({BTF}); it needs one built with CONFIG_DEBUG_INFO_BTF")
        }
        _ => format!("cannot read {BTF}: {error}"),
    })
}

/// Why loading or attaching was refused, with what to do about it where that is known.
pub(super) fn explain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = chain(error);
    if is_refusal(error) {
        text = match (missing_capabilities(), is_locked_down()) {
            (Some(missing), _) => format!("needs {missing}; run as root"),
            (None, true) => format!("{text}: the kernel is locked down (/sys/kernel/security/lockdown says so)"),
            (None, false) => format!(
                "{text}: the kernel refuses it in spite of root; is this a container without CAP_BPF and CAP_PERFMON?"
            ),
        };
    }
    text
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
    // A verifier log can be megabytes long; its end says what is wrong.
    const LONGEST: usize = 600;
    match text.char_indices().nth_back(LONGEST) {
        Some((start, _)) => format!("…{}", &text[start..]),
        None => text,
    }
}

const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// The capabilities that tracing needs and that this process has not.
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

/// This process's id as the kernel's programs see it, in the initial pid namespace; where the mounted `/proc` is that of
/// another one, as seen from there.
pub(super) fn own_pid() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("NStgid:"));
    ids.and_then(|ids| ids.split_whitespace().next()?.parse().ok()).unwrap_or_else(std::process::id)
}
