//! Ways to use BPF without capabilities of one's own, whether they would do here. tcptrace goes none of them.

use super::btf::{Btf, Kind};
use super::kernel;
use crate::model::privilege::Alternative;

/// The command of `bpf` that makes a token (6.9 and newer).
const MAKES_TOKENS: &[u8] = b"BPF_TOKEN_CREATE";
/// The only line of `/proc/self/uid_map` in the first user namespace.
const ALL_USERS: [&str; 3] = ["0", "0", "4294967295"];

/// What else than capabilities could let a process load the programs, or read what others have loaded.
pub fn alternatives() -> Vec<Alternative> {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mounts = text("/proc/self/mountinfo");
    let file_systems = file_systems(&mounts);
    let is_first = text("/proc/self/uid_map").split_whitespace().eq(ALL_USERS);
    vec![token(has_tokens(), is_first, &file_systems), pinned_links(&file_systems)]
}

/// A file system for BPF objects.
#[derive(Debug, PartialEq, Eq)]
struct FileSystem<'t> {
    /// Where it is mounted, as `mountinfo` writes it.
    point: &'t str,
    /// Whether who can open it may make tokens for commands, programs and maps.
    delegates: bool,
}

/// Those in the text of `/proc/self/mountinfo`: `31 23 0:28 / POINT options … - TYPE source options`.
fn file_systems(mounts: &str) -> Vec<FileSystem<'_>> {
    let delegated = ["delegate_cmds=", "delegate_progs=", "delegate_maps="];
    let parse = |line| -> Option<FileSystem<'_>> {
        let (mount, contents) = str::split_once(line, " - ")?;
        let (kind, options) = contents.split_once(' ')?;
        let delegates = delegated.iter().all(|option| options.contains(option));
        (kind == "bpf").then_some(FileSystem { point: mount.split(' ').nth(4)?, delegates })
    };
    mounts.lines().filter_map(parse).collect()
}

/// Whether this kernel can make tokens, if that can be read.
fn has_tokens() -> Option<bool> {
    let raw = kernel::btf().ok()?;
    let btf = Btf::read(&raw).ok()?;
    let commands = btf.named(Kind::Enumeration, "bpf_cmd")?;
    Some(btf.variants(commands).any(|(name, _)| name == MAKES_TOKENS))
}

fn token(has_tokens: Option<bool>, is_first: bool, file_systems: &[FileSystem]) -> Alternative {
    let delegating = file_systems.iter().find(|found| found.delegates);
    let (is_possible, detail) = match (has_tokens, delegating) {
        (Some(false), _) => (false, "this kernel has none: Linux 6.9 and newer do".to_owned()),
        (None, _) => (false, "unknown: the kernel's BTF cannot be read".to_owned()),
        // `bpf_token_create` in `kernel/bpf/token.c`.
        _ if is_first => (false, "the kernel makes none outside a user namespace of a container".to_owned()),
        (_, None) => (false, "no BPF file system here delegates commands, programs and maps".to_owned()),
        (_, Some(found)) => (true, format!("by {}", found.point)),
    };
    Alternative { name: "BPF token", is_possible, detail }
}

fn pinned_links(file_systems: &[FileSystem]) -> Alternative {
    let (is_possible, detail) = match file_systems.first() {
        Some(found) => (true, format!("in {}", found.point)),
        None => (false, "no BPF file system is mounted here".to_owned()),
    };
    Alternative { name: "pinned links", is_possible, detail }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const PLAIN: &str = "30 24 0:26 / /sys/fs/bpf rw,nosuid - bpf bpf rw,mode=700\n";
    const DELEGATING: &str =
        "31 24 0:27 / /run/bpf rw - bpf bpf rw,delegate_cmds=any,delegate_maps=any,delegate_progs=any\n";
    const OTHER: &str = "32 24 0:28 / /tmp rw - tmpfs tmpfs rw\nnonsense\n";

    #[rstest]
    #[case::of_the_past(Some(false), false, DELEGATING, false, "this kernel has none: Linux 6.9 and newer do")]
    #[case::on_the_host(
        Some(true),
        true,
        DELEGATING,
        false,
        "the kernel makes none outside a user namespace of a container"
    )]
    #[case::nothing_delegated(
        Some(true),
        false,
        PLAIN,
        false,
        "no BPF file system here delegates commands, programs and maps"
    )]
    #[case::delegated(Some(true), false, DELEGATING, true, "by /run/bpf")]
    #[case::no_btf(None, false, DELEGATING, false, "unknown: the kernel's BTF cannot be read")]
    fn tokens(
        #[case] has_tokens: Option<bool>,
        #[case] is_first: bool,
        #[case] mounts: &str,
        #[case] is_possible: bool,
        #[case] detail: &str,
    ) {
        let mounts = format!("{OTHER}{mounts}");
        let detail = detail.to_owned();
        let expected = Alternative { name: "BPF token", is_possible, detail };
        assert_eq!(token(has_tokens, is_first, &file_systems(&mounts)), expected);
    }

    #[rstest]
    #[case(OTHER, false, "no BPF file system is mounted here")]
    #[case(PLAIN, true, "in /sys/fs/bpf")]
    fn links(#[case] mounts: &str, #[case] is_possible: bool, #[case] detail: &str) {
        let expected = Alternative { name: "pinned links", is_possible, detail: detail.to_owned() };
        assert_eq!(pinned_links(&file_systems(mounts)), expected);
    }

    #[test]
    fn this_kernel_says_whether_it_has_tokens() {
        assert!(has_tokens().is_some());
    }
}
