//! The capabilities of the calling thread: what each is for, and how they are given up.

use std::io;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl::set_keepcaps;

use super::users::User;
use crate::model::privilege::Privilege;

/// What a capability is used for.
struct Use {
    capability: Capability,
    purpose: &'static str,
    /// Whether questions to the kernel need it after the start, too.
    is_lasting: bool,
}

/// All that tcptrace has a use for.
#[rustfmt::skip]
const USES: [Use; 11] = [
    Use { capability: Capability::CAP_BPF, is_lasting: true,
        purpose: "loads the eBPF programs, reads their maps" },
    Use { capability: Capability::CAP_PERFMON, is_lasting: true,
        purpose: "attaches the eBPF programs" },
    Use { capability: Capability::CAP_SYSLOG, is_lasting: false,
        purpose: "reads the addresses of kernel functions: the begin and end of TIME_WAIT" },
    Use { capability: Capability::CAP_DAC_READ_SEARCH, is_lasting: true,
        purpose: "reads tracefs (accept), control groups by number, names of containers" },
    Use { capability: Capability::CAP_SYS_PTRACE, is_lasting: true,
        purpose: "finds the network namespaces and descriptors of other users' processes" },
    Use { capability: Capability::CAP_SYS_ADMIN, is_lasting: true,
        purpose: "enters other network namespaces, lists sockmaps, mounts tracefs where it is missing" },
    Use { capability: Capability::CAP_NET_ADMIN, is_lasting: true,
        purpose: "tells the subflows of MPTCP connections, up to Linux 6.14" },
    Use { capability: Capability::CAP_SYS_RESOURCE, is_lasting: false,
        purpose: "raises the limit of locked memory, up to Linux 5.10" },
    Use { capability: Capability::CAP_DAC_OVERRIDE, is_lasting: false,
        purpose: "creates traces in folders of others" },
    Use { capability: Capability::CAP_CHOWN, is_lasting: false,
        purpose: "gives traces to the user who called sudo" },
    Use { capability: Capability::CAP_SETUID, is_lasting: false,
        purpose: "becomes the user of --user" },
];

/// The capabilities that tcptrace has a use for, and which of them this thread holds.
pub fn privileges() -> Vec<Privilege> {
    let held = held(CapSet::Effective);
    let one = |Use { capability, purpose, is_lasting }: &Use| Privilege {
        name: capability.to_string().into(),
        is_held: held.contains(capability),
        is_kept: *is_lasting,
        purpose,
    };
    USES.iter().map(one).collect()
}

/// The capabilities that questions to the kernel still need once everything is attached.
pub(super) fn lasting() -> Vec<Capability> {
    USES.iter().filter(|used| used.is_lasting).map(|used| used.capability).collect()
}

/// Becomes a user, and keeps these capabilities, as far as they are held. Call this while there is one thread.
///
/// # Errors
/// When that is not permitted.
pub(super) fn become_user(user: &User, kept: &[Capability]) -> io::Result<()> {
    set_keepcaps(true)?;
    user.become_it()?;
    let permitted = held(CapSet::Permitted);
    let wanted: CapsHashSet = kept.iter().copied().filter(|kept| permitted.contains(kept)).collect();
    caps::set(None, CapSet::Effective, &wanted).map_err(io::Error::other)
}

/// Gives up all capabilities but these, in every set. It holds for the calling thread, for threads that it starts from now
/// on, and for the programs that they start. It cannot be undone.
pub(super) fn keep_only(kept: &[Capability]) {
    let kept: CapsHashSet = kept.iter().copied().collect();
    // Only with `CAP_SETPCAP`; without it, `no_new_privs` keeps programs from getting any back.
    for capability in caps::all().difference(&kept) {
        if let Err(error) = caps::drop(None, CapSet::Bounding, *capability) {
            log::debug!("cannot limit what programs can get: {error}");
            break;
        }
    }
    for (set, name) in [
        (CapSet::Ambient, "ambient"),
        (CapSet::Inheritable, "inheritable"),
        (CapSet::Effective, "effective"),
        (CapSet::Permitted, "permitted"),
    ] {
        let limited = held(set).intersection(&kept).copied().collect();
        if let Err(error) = caps::set(None, set, &limited) {
            log::debug!("cannot give up {name} capabilities: {error}");
        }
    }
}

/// Does something as if this thread had no capabilities.
pub fn without_privileges<T>(work: impl FnOnce() -> T) -> T {
    let before = held(CapSet::Effective);
    let set = |wanted| {
        if let Err(error) = caps::set(None, CapSet::Effective, wanted) {
            log::debug!("cannot try without privileges: {error}");
        }
    };
    let none = CapsHashSet::new();
    set(&none);
    let done = work();
    set(&before);
    done
}

fn held(set: CapSet) -> CapsHashSet {
    caps::read(None, set).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn privileges_come_back() {
        let before = held(CapSet::Effective);
        assert_eq!(without_privileges(|| held(CapSet::Effective)), CapsHashSet::new());
        assert_eq!(held(CapSet::Effective), before);
    }

    #[test]
    fn what_is_not_kept_is_gone_in_every_set() {
        let kept = [Capability::CAP_BPF, Capability::CAP_SYS_PTRACE];
        let before = held(CapSet::Permitted);
        let sets = [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Ambient];
        let after = thread::spawn(move || {
            keep_only(&kept);
            sets.map(held)
        });
        let after = after.join().expect("no panic");
        let expected: CapsHashSet = kept.into_iter().filter(|kept| before.contains(kept)).collect();
        assert_eq!(after[..2], [expected.clone(), expected.clone()]);
        assert!(after[2..].iter().all(|set| set.is_subset(&expected)), "{after:?}");
        assert_eq!(held(CapSet::Permitted), before, "of another thread");
    }
}
