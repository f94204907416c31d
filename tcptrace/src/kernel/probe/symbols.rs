//! Addresses of kernel functions, from `/proc/kallsyms`: which timers are those of mini-sockets, and who cancelled one.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::ops::Range;

use crate::model::event::KilledBy;

const TIMER_HANDLER: &str = "tw_timer_handler";

/// What a function on the call stack says about a cancelled timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cancelled {
    /// The mini-socket lives on, with more time.
    Rearmed,
    /// The mini-socket ended.
    Killed(KilledBy),
}

/// The first of these functions on the stack, from the inside, decides. They call `inet_twsk_deschedule_put`, or set
/// the timer again themselves (`net/ipv4/inet_timewait_sock.c`; 5.8 to 6.19).
const CALLERS: &[(&str, Cancelled)] = &[
    // It calls these last, so it may have left the stack by then.
    ("__mod_timer", Cancelled::Rearmed),
    ("mod_timer_pending", Cancelled::Rearmed),
    ("mod_timer", Cancelled::Rearmed),
    ("__inet_twsk_schedule", Cancelled::Rearmed),
    ("tcp_timewait_state_process", Cancelled::Killed(KilledBy::Reset)),
    ("tcp_v4_rcv", Cancelled::Killed(KilledBy::Segment)),
    ("tcp_v6_rcv", Cancelled::Killed(KilledBy::Segment)),
    ("__inet_check_established", Cancelled::Killed(KilledBy::Connect)),
    ("__inet6_check_established", Cancelled::Killed(KilledBy::Connect)),
    ("__inet_hash_connect", Cancelled::Killed(KilledBy::Connect)),
    ("inet_hash_connect", Cancelled::Killed(KilledBy::Connect)),
    ("inet6_hash_connect", Cancelled::Killed(KilledBy::Connect)),
    ("tcp_abort", Cancelled::Killed(KilledBy::Admin)),
    ("inet_twsk_purge", Cancelled::Killed(KilledBy::Netns)),
    ("tcp_twsk_purge", Cancelled::Killed(KilledBy::Netns)),
];

/// The functions that matter.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    /// Address of the function of every mini-socket's timer.
    pub(super) timer_handler: u64,
    callers: Vec<(Range<u64>, Cancelled)>,
}

impl Symbols {
    /// Reads the symbols of the running kernel.
    ///
    /// # Errors
    ///
    /// Says why the addresses are not available, and what to do.
    pub(super) fn read() -> Result<Self, String> {
        let path = "/proc/kallsyms";
        let file = File::open(path).map_err(|error| format!("cannot read {path}: {error}"))?;
        let symbols = Self::parse(BufReader::new(file)).map_err(|error| format!("cannot read {path}: {error}"))?;
        if symbols.timer_handler == 0 {
            return Err(format!(
                "{path} does not show {TIMER_HANDLER}: needs CAP_SYSLOG and kernel.kptr_restrict below 2"
            ));
        }
        Ok(symbols)
    }

    pub(super) fn parse(mut lines: impl BufRead) -> io::Result<Self> {
        let (mut starts, mut found, mut timer_handler) = (Vec::new(), Vec::new(), 0);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            if let Some((address, name)) = split(&line) {
                starts.push(address);
                // The end of the kernel's code: only data and modules follow.
                if name == b"_etext" {
                    break;
                }
                found.extend(meaning_of(name).map(|meaning| (address, meaning)));
                if is_timer_handler(name) {
                    timer_handler = address;
                }
            }
            line.clear();
        }
        starts.sort_unstable();
        let range = |(start, meaning): (u64, Cancelled)| {
            let end = starts.get(starts.partition_point(|&other| other <= start))?;
            Some((start..*end, meaning))
        };
        Ok(Self { timer_handler, callers: found.into_iter().filter_map(range).collect() })
    }

    /// What the call stack says about a cancelled timer.
    pub(super) fn cancelled_by(&self, stack: &[u64]) -> Cancelled {
        // A return address is that of the next instruction, which after a call that does not return may belong to the
        // next function.
        stack
            .iter()
            .map(|address| address.wrapping_sub(1))
            .find_map(|address| {
                self.callers.iter().find(|(range, _)| range.contains(&address)).map(|(_, meaning)| *meaning)
            })
            .unwrap_or(Cancelled::Killed(KilledBy::Unknown))
    }
}

/// Address and name of a function of the kernel proper; `None` for data and modules.
fn split(line: &[u8]) -> Option<(u64, &[u8])> {
    let mut words = line.trim_ascii_end().split(|&byte| byte == b' ' || byte == b'\t');
    let address = u64::from_str_radix(str::from_utf8(words.next()?).ok()?, 16).ok()?;
    let is_function = matches!(words.next()?, b"t" | b"T" | b"w" | b"W");
    let name = words.next()?;
    (is_function && address != 0 && words.next().is_none()).then_some((address, name))
}

fn is_timer_handler(name: &[u8]) -> bool {
    // Clang's link-time optimisation adds a suffix to what is not visible outside its file.
    let suffix = name.strip_prefix(TIMER_HANDLER.as_bytes());
    suffix.is_some_and(|suffix| suffix.is_empty() || suffix.starts_with(b".llvm."))
}

/// What a function says about a cancelled timer.
fn meaning_of(name: &[u8]) -> Option<Cancelled> {
    // Compilers add a suffix to parts that they take out of a function, and put some of them before all others:
    // `tcp_abort.cold`.
    let name = name.split(|&byte| byte == b'.').next()?;
    CALLERS.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, meaning)| *meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KALLSYMS: &str = "\
ffffffff81000000 T _text
ffffffff81000040 t tcp_abort.cold
ffffffff81000080 t another.cold
ffffffff81000100 t tw_timer_handler
ffffffff81000200 T inet_twsk_deschedule_put
ffffffff81000300 T __inet_twsk_schedule
ffffffff81000400 T tcp_v4_rcv
ffffffff81000500 T tcp_timewait_state_process
ffffffff81000580 T mod_timer_pending
ffffffff81000600 d some_data
ffffffff81000700 T tcp_abort
ffffffff81000800 T next_function
ffffffff81000900 T tcp_v6_rcv
ffffffff81000a00 T _etext
ffffffffc0000000 t tcp_abort\t[module]
";

    fn symbols() -> Symbols {
        Symbols::parse(KALLSYMS.as_bytes()).expect("reading memory does not fail")
    }

    #[test]
    fn the_innermost_known_function_decides() {
        let symbols = symbols();
        assert_eq!(symbols.timer_handler, 0xffff_ffff_8100_0100);
        let deschedule = 0xffff_ffff_8100_0210;
        let reset = [deschedule, 0xffff_ffff_8100_0510, 0xffff_ffff_8100_0410];
        assert_eq!(symbols.cancelled_by(&reset), Cancelled::Killed(KilledBy::Reset));
        let new_syn = [deschedule, 0xffff_ffff_8100_0410];
        assert_eq!(symbols.cancelled_by(&new_syn), Cancelled::Killed(KilledBy::Segment));
        let more_time = [0xffff_ffff_8100_0310, 0xffff_ffff_8100_0510];
        assert_eq!(symbols.cancelled_by(&more_time), Cancelled::Rearmed);
        let tail_call = [0xffff_ffff_8100_0590, 0xffff_ffff_8100_0510];
        assert_eq!(symbols.cancelled_by(&tail_call), Cancelled::Rearmed);
    }

    #[test]
    fn a_function_has_several_parts() {
        let symbols = symbols();
        for address in [0xffff_ffff_8100_0050, 0xffff_ffff_8100_0710] {
            assert_eq!(symbols.cancelled_by(&[address]), Cancelled::Killed(KilledBy::Admin), "{address:#x}");
        }
    }

    #[test]
    fn the_last_function_ends_with_the_code() {
        let symbols = symbols();
        assert_eq!(symbols.cancelled_by(&[0xffff_ffff_8100_0910]), Cancelled::Killed(KilledBy::Segment));
        assert_eq!(symbols.cancelled_by(&[0xffff_ffff_8100_0a10]), Cancelled::Killed(KilledBy::Unknown));
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        let symbols = symbols();
        for address in [0, 1, 0xffff_ffff_8100_0090, 0xffff_ffff_8100_0810, 0xffff_ffff_c000_0010] {
            assert_eq!(symbols.cancelled_by(&[address]), Cancelled::Killed(KilledBy::Unknown), "{address:#x}");
        }
    }

    #[test]
    fn hidden_addresses_are_no_addresses() {
        let hidden = "0000000000000000 t tw_timer_handler\n";
        assert_eq!(Symbols::parse(hidden.as_bytes()).expect("reading memory does not fail").timer_handler, 0);
    }
}
