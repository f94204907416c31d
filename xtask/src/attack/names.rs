//! Names of control groups, processes and network namespaces: many, long, deep, and made to deceive.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::books::{Books, Rows};
use super::cleanup::Base;
use super::groups::HOSTILE;
use super::mounts::Mount;
use super::process::Process;
use super::{Ground, Verdict, escapes, groups, reader, words};
use crate::hidden::{self, Hidden};
use crate::stress::load::Load;

/// Checks the output of readers for this trace.
pub(super) const OUTPUTS: [&[&str]; 17] = [
    &["replay", "--format", "json"],
    &["report", "--format", "json"],
    &["replay"],
    &["replay", "--format", "csv"],
    &["replay", "--rows", "connections", "--states"],
    &["replay", "--rows", "connections", "--format", "json"],
    &["replay", "--rows", "connections", "--format", "csv"],
    &["report"],
    &["report", "--format", "csv"],
    &["timeline"],
    &["timeline", "--ascii"],
    &["timeline", "--format", "json"],
    &["timeline", "--format", "csv"],
    &["export", "--format", "jsonl"],
    &["export", "--format", "csv", "--rows", "transitions"],
    &["export", "--format", "csv"],
    &["export", "--format", "perfetto"],
];

/// The control group for those of scenarios; it has to be created first.
fn base() -> Option<(PathBuf, Base)> {
    let base = groups::hierarchy()?.join(format!("tcptrace-attack-{}", process::id()));
    Some((base.clone(), Base::new(base)))
}

fn load(base: &Path, options: &[&str]) -> Result<Load> {
    let mut arguments = vec![format!("--base={}", base.display())];
    arguments.extend(options.iter().map(|option| (*option).to_owned()));
    Load::start_as("attack-load", &arguments)
}

/// Records more names than a block has room for, while files rotate and repeat all names.
pub(super) fn many_groups(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    let Some((path, _base)) = base() else {
        verdict.skip("there is no unified hierarchy of control groups");
        return Ok(());
    };
    let mut load = load(&path, &["--groups=5500", "--length=250", "--keep=6000", "--after=4.5"])?;
    let stderr = |name: &str| ground.folder.join(name);
    let rotated = Process::ready(&mut ground.record(&load, "r.tct", &["--rotate", "2s"]), &stderr("r.err"))?;
    let last = Process::ready(&mut ground.record(&load, "l.tct", &["--last", "4s"]), &stderr("l.err"))?;
    let hidden = Hidden::count(&[hidden::TRANSITIONS], &load.ports);
    load.begin()?;
    let made = load.wait()?;
    let (rotated, last) = (rotated.end(Signal::SIGINT)?, last.end(Signal::SIGINT)?);
    let hidden = hidden.map_or(0, |hidden| hidden.so_far());
    load.end()?;
    verdict.must(rotated.status == 0 && last.status == 0, || {
        format!("the recorders: status {} and {}", rotated.status, last.status)
    });
    let files = files(&ground.folder, "r.")?;
    let mut unreadable = 0;
    for file in files.iter().chain([&ground.folder.join("l.tct")]) {
        let mut command = ground.tcptrace(&["replay", "--format", "json"]);
        command.arg(file);
        let read = reader::read(command, super::process::PATIENCE, |_| {})?;
        unreadable += u32::from(read.status != 0 || words::is_damaged(&read.said));
    }
    verdict.must(unreadable == 0, || format!("{unreadable} of {} files cannot be read alone", files.len() + 1));
    let books = Books::open(ground, &files, Some(&rotated))?.with_hidden(hidden);
    books.must_agree(verdict);
    books.must_be_true(made.connections, verdict);
    verdict.must(books.rows.groupless == 0, || format!("{} rows without control group", books.rows.groupless));
    Books::open(ground, &["l.tct"], None)?.must_agree(verdict);
    verdict.note(format!("{} groups, {} files, {}", 5500, files.len() + 1, books.summary()));
    Ok(())
}

/// The traces of a recording, in order.
pub(super) fn files(folder: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        name.starts_with(prefix) && name.ends_with(".tct")
    };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(is_ours).collect();
    files.sort();
    Ok(files)
}

/// A control group whose path cannot be read loses only its own name, and `--cgroup` still finds the others.
pub(super) fn deep_group(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    const GROUPS: u64 = 20;
    let Some((path, _base)) = base() else {
        verdict.skip("there is no unified hierarchy of control groups");
        return Ok(());
    };
    let mut load = load(&path, &["--depth=18", &format!("--groups={GROUPS}"), "--after=0.5"])?;
    let group = format!("/{}", path.file_name().and_then(|name| name.to_str()).unwrap_or(""));
    let all = Process::ready(&mut ground.record(&load, "all.tct", &[]), &ground.folder.join("all.err"))?;
    let filtered = ["--cgroup", group.as_str()];
    let some = Process::ready(&mut ground.record(&load, "some.tct", &filtered), &ground.folder.join("some.err"))?;
    let hidden = Hidden::count(&[hidden::TRANSITIONS], &load.ports);
    load.begin()?;
    let made = load.wait()?;
    let (all, some) = (all.end(Signal::SIGINT)?, some.end(Signal::SIGINT)?);
    let hidden = hidden.map_or(0, |hidden| hidden.so_far());
    load.end()?;
    let books = Books::open(ground, &["all.tct"], Some(&all))?.with_hidden(hidden);
    books.must_agree(verdict);
    books.must_be_true(made.connections, verdict);
    // Rows of the client's end of one connection; the server's end is in the listener's group.
    let nameless = books.rows.groupless;
    verdict.must(nameless <= 6, || format!("{nameless} rows without control group"));
    let mut rows = Rows::default();
    let read =
        reader::read(ground.tcptrace(&["replay", "--format", "json", "some.tct"]), super::process::PATIENCE, |line| {
            rows.add(line);
        })?;
    let wanted = GROUPS * 5;
    verdict.must(rows.transitions + hidden >= wanted, || {
        format!("--cgroup keeps {} of {wanted} transitions (status {}, {})", rows.transitions, some.status, read.status)
    });
    verdict.note(format!("{nameless} rows without control group, {} kept by --cgroup", rows.transitions));
    Ok(())
}

/// Checks that no output contains anything that a terminal, a spreadsheet or a browser would act on.
pub(super) fn hostile(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    let Some((path, _base)) = base() else {
        verdict.skip("there is no unified hierarchy of control groups");
        return Ok(());
    };
    let mut load = load(&path, &["--hostile"])?;
    let _names = name_namespace(&load)?;
    let recorder = Process::ready(&mut ground.record(&load, "t.tct", &[]), &ground.folder.join("t.err"))?;
    let printed = ground.folder.join("watch.out");
    let mut watch = ground.tcptrace(&["watch", "--no-existing", "--netns"]);
    watch.arg(load.netns.to_string()).stdout(File::create(&printed).context("cannot create a file")?);
    let watch = Process::ready(&mut watch, &ground.folder.join("watch.err"))?;
    load.begin()?;
    let made = load.wait()?;
    let (recorder, watch) = (recorder.end(Signal::SIGINT)?, watch.end(Signal::SIGINT)?);
    load.end()?;
    let books = Books::open(ground, &["t.tct"], Some(&recorder))?;
    books.must_agree(verdict);
    must_have_arrived(ground, verdict)?;
    for said in [&recorder.said, &watch.said] {
        let escape = said.split_inclusive('\n').find_map(|line| escapes::raw(line.as_bytes()));
        verdict.must(escape.is_none(), || format!("a live command says {}", escape.unwrap_or_default()));
    }
    must_be_plain(&printed, "watch", verdict)?;
    for output in OUTPUTS {
        let mut command = ground.tcptrace(output);
        command.arg("t.tct");
        let is_csv = output.contains(&"csv");
        let mut has_formula = false;
        let read = reader::read(command, super::process::PATIENCE, |line| {
            has_formula |= is_csv && escapes::has_formula(line);
        })?;
        verdict.must(read.status == books.status, || {
            format!("`{}`: status {}: {}", read.line, read.status, words::tail(&read.said))
        });
        verdict.must(!has_formula, || format!("`{}` prints a formula", read.line));
        read.must_not_deceive(verdict);
    }
    let html =
        reader::read(ground.tcptrace(&["report", "t.tct", "--html", "t.html"]), super::process::PATIENCE, |_| {})?;
    html.must_not_deceive(verdict);
    let page = must_be_plain(&ground.folder.join("t.html"), "report --html", verdict)?;
    verdict.must(!page.contains("<b>&\""), || "report --html prints a name as markup".to_owned());
    verdict.note(format!("{} names, {} outputs", made.connections, OUTPUTS.len() + 2));
    Ok(())
}

/// Checks that every name is in the trace: otherwise the checks of the output would prove nothing.
fn must_have_arrived(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    let mut names = ["comm", "cgroup", "netns_name"].map(|field| (field, BTreeSet::new()));
    reader::read(ground.tcptrace(&["replay", "--format", "json", "t.tct"]), super::process::PATIENCE, |line| {
        let row: Value = serde_json::from_slice(line).unwrap_or_default();
        for (field, names) in &mut names {
            names.extend(row[*field].as_str().map(str::to_owned));
        }
    })?;
    for ((field, names), wanted) in names.iter().zip([HOSTILE.len(), HOSTILE.len(), 1]) {
        verdict.must(names.len() >= wanted, || format!("{} of {wanted} hostile names in `{field}`", names.len()));
    }
    Ok(())
}

fn must_be_plain(file: &Path, whose: &str, verdict: &mut Verdict) -> Result<String> {
    let printed = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let escape = printed.split(|byte| *byte == b'\n').find_map(escapes::raw);
    verdict.must(escape.is_none(), || format!("{whose} prints {}", escape.unwrap_or_default()));
    verdict.must(printed.lines().count() > 1, || format!("{whose} prints nothing"));
    Ok(String::from_utf8_lossy(&printed).into_owned())
}

/// A name as `ip netns add` gives it, in a private mount of its folder.
fn name_namespace(load: &Load) -> Result<Mount> {
    const NAMES: &str = "/run/netns";
    const NAME: &str = "=n\x1b[31m\u{202e}\t<b>&\"'\u{9b}\r\n,";
    let names = Mount::tmpfs(PathBuf::from(NAMES), "64k")?;
    let name = Path::new(NAMES).join(NAME);
    File::create(&name).context("cannot name a network namespace")?;
    let namespace = format!("/proc/{}/ns/net", load.pid());
    mount(Some(namespace.as_str()), &name, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .context("cannot name a network namespace")?;
    Ok(names)
}
