//! What files set when the machine boots, as `sysctl --system` reads them, and what the kernel has instead.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::settings::{is_known, read, shows_host};
use crate::model::facts::{SettingFiles, SettingLine};

/// The folders of such files. A file of an earlier one takes the place of one of the same name in a later one.
const FOLDERS: [&str; 5] =
    ["/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"];
/// It comes last.
const LAST: &str = "/etc/sysctl.conf";
/// Larger files are not read; nor are more files and lines than these.
const LARGEST: u64 = 1 << 20;
const MOST_FILES: usize = 1000;
const MOST_LINES: usize = 4096;

/// Reads what they set of TCP. The kernel's values are those of the network namespace that the calling thread is in.
pub fn setting_files() -> SettingFiles {
    let folders: Vec<_> = FOLDERS.iter().map(PathBuf::from).collect();
    read_all(&folders, Path::new(LAST), &|name| read(&super::settings::path(name)))
}

fn read_all(folders: &[PathBuf], last: &Path, kernel: &dyn Fn(&str) -> Option<Box<str>>) -> SettingFiles {
    let mut lines = Vec::new();
    for file in files(folders, last) {
        let Some(text) = text(&file) else { continue };
        let file: Box<str> = file.to_string_lossy().into();
        let parsed = text.lines().zip(1..).filter_map(|(text, line)| Some((line, parse(text)?)));
        for (line, (name, value)) in parsed.filter(|(_, (name, _))| is_of_tcp(name)) {
            if lines.len() < MOST_LINES {
                let (file, kernel) = (file.clone(), kernel(&name));
                lines.push(SettingLine { file, line, name: name.into(), value, kernel, is_last: false });
            }
        }
    }
    let mut seen = HashSet::new();
    for line in lines.iter_mut().rev() {
        line.is_last = seen.insert(line.name.clone());
    }
    SettingFiles { lines, is_of_host: shows_host() }
}

/// In the order in which they are read. Each is in one of the folders, wherever links lead to.
fn files(folders: &[PathBuf], last: &Path) -> Vec<PathBuf> {
    let is_inside =
        |file: &Path| file == last || file.parent().is_some_and(|parent| folders.iter().any(|it| it == parent));
    let mut by_name: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
    for folder in folders {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries.flatten().take(MOST_FILES) {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "conf") && by_name.len() < MOST_FILES {
                by_name.entry(entry.file_name()).or_insert(path);
            }
        }
    }
    let all = by_name.into_values().chain([last.to_owned()]);
    let targets = all.filter_map(|path| fs::canonicalize(&path).ok());
    let mut files: Vec<PathBuf> = Vec::new();
    for target in targets.filter(|target| is_inside(target)) {
        // What is read twice counts where it is read last.
        files.retain(|known| *known != target);
        files.push(target);
    }
    files
}

fn text(file: &Path) -> Option<String> {
    if !fs::metadata(file).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(file).ok()?.take(LARGEST + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= LARGEST).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// `-net/ipv4/tcp_mem = 1 2  3` as `net.ipv4.tcp_mem` and `1 2 3`.
pub(super) fn parse(line: &str) -> Option<(String, Box<str>)> {
    let line = line.trim();
    if line.starts_with(['#', ';']) {
        return None;
    }
    let (name, value) = line.trim_start_matches('-').split_once('=')?;
    let name = name.trim().replace('/', ".");
    let is_name =
        |part: &str| !part.is_empty() && part.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '_' | '-'));
    let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
    name.split('.').all(is_name).then(|| (name, value.into()))
}

/// Whether a setting matters for TCP, on this kernel or on an older one.
fn is_of_tcp(name: &str) -> bool {
    const OF_TCP: [&str; 3] = ["net.ipv4.tcp_", "net.ipv4.netfilter.ip_conntrack_", "net.ipv4.ip_conntrack_"];
    is_known(name) || OF_TCP.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("net.ipv4.tcp_mem = 1 2\t3 ", Some(("net.ipv4.tcp_mem", "1 2 3")))]
    #[case("-net/ipv4/tcp_tw_recycle=1", Some(("net.ipv4.tcp_tw_recycle", "1")))]
    #[case("# net.ipv4.tcp_mem=1", None)]
    #[case("; net.ipv4.tcp_mem=1", None)]
    #[case("net.ipv4.tcp_mem", None)]
    #[case("net.ipv4.conf.*.rp_filter=1", None)]
    #[case("../../etc/shadow=1", None)]
    #[case("", None)]
    fn lines(#[case] line: &str, #[case] expected: Option<(&str, &str)>) {
        let found = parse(line);
        assert_eq!(found.as_ref().map(|(name, value)| (&**name, &**value)), expected);
    }

    #[test]
    fn the_last_line_of_a_setting_counts() {
        let root = std::env::temp_dir().join(format!("tcptrace-sysctl-{}", std::process::id()));
        fs::create_dir_all(&root).expect("a folder");
        let root = root.canonicalize().expect("a path");
        let folders = [root.join("etc"), root.join("usr")];
        folders.iter().for_each(|folder| fs::create_dir(folder).expect("a folder"));
        let last = root.join("sysctl.conf");
        let write = |path: PathBuf, text: &str| fs::write(path, text).expect("a file");
        write(folders[0].join("50-a.conf"), "net.ipv4.tcp_fin_timeout=1\nvm.swappiness=3\n");
        write(folders[1].join("50-a.conf"), "net.ipv4.tcp_fin_timeout=2\n");
        write(folders[1].join("60-b.conf"), "\nnet.ipv4.tcp_fin_timeout=3\nnet.ipv4.tcp_fack=1\n");
        write(folders[1].join("README"), "net.ipv4.tcp_fin_timeout=4\n");
        write(folders[1].join("70-large.conf"), &"net.ipv4.tcp_fin_timeout=5\n".repeat(50_000));
        write(root.join("elsewhere"), "net.ipv4.tcp_fin_timeout=6\n");
        write(last.clone(), "net.ipv4.tcp_fin_timeout=7\n");
        symlink("../elsewhere", folders[0].join("80-out.conf")).expect("a link");
        symlink("../sysctl.conf", folders[0].join("10-last.conf")).expect("a link");
        symlink("/nowhere", folders[0].join("90-broken.conf")).expect("a link");
        let kernel = |name: &str| (name == "net.ipv4.tcp_fin_timeout").then(|| "60".into());
        let found = read_all(&folders, &last, &kernel);
        fs::remove_dir_all(&root).expect("it is there");
        let shown: Vec<_> = found
            .lines
            .iter()
            .map(|line| {
                let file = line.file.rsplit('/').next().unwrap_or_default();
                (file, line.line, &*line.value, line.kernel.as_deref(), line.is_last)
            })
            .collect();
        let expected = [
            ("50-a.conf", 1, "1", Some("60"), false),
            ("60-b.conf", 2, "3", Some("60"), false),
            ("60-b.conf", 3, "1", None, true),
            ("sysctl.conf", 1, "7", Some("60"), true),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn this_machine_has_some_or_none() {
        let files = setting_files();
        assert!(files.lines.iter().all(|line| line.file.starts_with('/') && line.line > 0), "{files:?}");
    }
}
