//! The three incidents of the guide: their commands print what the page promises.

use crate::need_what_pages_need;
use crate::page::{Block, pages};
use crate::walk::Walk;

/// The page.
pub(crate) const PAGE: &str = "tcptrace/docs/guide.md";

/// Headings of the incidents, up to the colon.
pub(crate) const INCIDENTS: [&str; 3] = ["TIME_WAIT", "CLOSE_WAIT", "Ports"];

fn walk(incident: &str) -> Walk {
    let pages = pages();
    let guide = pages.iter().find(|page| page.name == PAGE).expect("a guide");
    let blocks: Vec<&Block> = guide.blocks.iter().filter(|block| block.section == incident).collect();
    let walk = Walk::through(guide, &blocks);
    walk.looks_as_shown();
    walk
}

/// The output of the only command that begins like this.
fn only(walk: &Walk, command: &str) -> String {
    let [printed] = walk.printed(command).try_into().expect("one such command");
    printed
}

/// Lines with single spaces between words, so that column widths do not matter.
fn lines(printed: &str) -> Vec<String> {
    printed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The printed connections, split into words, without rows about events that were lost beside other tests.
fn connections(printed: &str) -> Vec<Vec<&str>> {
    let rows = printed.lines().skip(1).map(|line| line.split_whitespace().collect());
    let rows: Vec<Vec<&str>> = rows.filter(|row: &Vec<&str>| ["client", "server"].contains(&row[1])).collect();
    assert!(!rows.is_empty(), "{printed}");
    rows
}

/// The process id behind `comm`, as in COMM[PID], on any line.
fn process<'p>(printed: &'p str, before: &str) -> &'p str {
    let (_, after) = printed.split_once(&format!("{before}[")).unwrap_or_else(|| panic!("no {before}[…]\n{printed}"));
    after.split_once(']').expect("a process id").0
}

fn has_line(printed: &str, start: &str) {
    assert!(lines(printed).iter().any(|line| line.starts_with(start)), "no line `{start}…`\n{printed}");
}

#[test]
fn time_wait() {
    need_what_pages_need();
    let walk = walk("TIME_WAIT");
    let snapshot = only(&walk, "tcptrace snapshot");
    let last = lines(&snapshot).pop().expect("a row");
    let (state, sockets) = last.split_once(' ').expect("words");
    let (count, whose) = sockets.split_once(' ').expect("words");
    assert_eq!((state, whose), ("TIME_WAIT", "- - 10.9.0.1:* 10.9.0.2:5432 mini-sockets"), "{snapshot}");
    assert!(count.replace(',', "").parse::<u64>().is_ok_and(|count| count > 1), "{snapshot}");

    let report = only(&walk, "tcptrace report");
    let pid = process(&report, "shop");
    let printed = only(&walk, "tcptrace connections");
    for row in connections(&printed) {
        assert_eq!(row[1..6], ["client", "active", "fin", pid, "shop"], "{printed}{report}");
        assert_eq!([row[7], row[11], row[12]], ["10.9.0.2:5432", "5", "3"], "{printed}");
    }

    let shop = format!("shop[{pid}]");
    has_line(&report, &format!("TIME_WAIT of {shop}"));
    has_line(&report, "with 10.9.0.2:5432");
    has_line(&report, "ended expired");
    has_line(&report, "CLOSED BY active");
    has_line(&report, &format!("{shop} → 10.9.0.2:5432: "));
}

#[test]
fn close_wait() {
    need_what_pages_need();
    let walk = walk("CLOSE_WAIT");
    let [snapshot, list] = walk.printed("tcptrace snapshot").try_into().expect("two snapshots");
    let ours = lines(&snapshot).into_iter().find(|line| line.starts_with("CLOSE_WAIT ")).expect("a row");
    let counts: Vec<u64> = ours.split(' ').skip(1).map(|count| count.parse().expect("a number")).collect();
    let [total, held, queued, ..] = counts[..] else { panic!("{snapshot}") };
    assert!(held > 0 && queued > 0 && held + queued == total, "{snapshot}");
    let pid = process(&snapshot, "listener cart");
    let [is_held, is_queued] = [format!("{pid} cart 10.9.0.1:8080"), format!("listener cart[{pid}]")];
    has_line(&snapshot, &format!("CLOSE_WAIT {held} {is_held} 10.9.0.2:*"));
    has_line(&snapshot, &format!("CLOSE_WAIT {queued} - - 10.9.0.1:9090 10.9.0.2:* never accepted, {is_queued}"));

    let [accepted, never_accepted] = walk.printed("tcptrace watch").try_into().expect("one for each cause");
    for (printed, note) in [(&accepted, format!("held by cart[{pid}] fd ")), (&never_accepted, is_queued)] {
        let stuck: Vec<String> = lines(printed).into_iter().filter(|row| row.contains("→ …")).collect();
        let is_so = |row: &String| row.contains("CLOSE_WAIT → … ") && row.contains(&note);
        assert!(!stuck.is_empty() && stuck.iter().all(is_so), "{printed}");
    }
    let listed = &lines(&list)[1..];
    let is_so = |row: &String| row.starts_with(&format!("CLOSE_WAIT {is_held}")) && row.contains(" - 1 0 - fd ");
    assert!(!listed.is_empty() && listed.iter().all(is_so), "{list}");
}

#[test]
fn ports() {
    need_what_pages_need();
    let walk = walk("Ports");
    let report = only(&walk, "tcptrace report");
    let pid = process(&report, "shop");
    let printed = only(&walk, "tcptrace connections");
    for row in connections(&printed) {
        let failed = ["client", "never_established", "no_local_port", pid, "shop", "10.9.0.1:-", "10.9.0.2:5432"];
        assert_eq!(row[1..8], failed, "{printed}{report}");
    }
    has_line(
        &only(&walk, "tcptrace snapshot --netns app --rport"),
        "TIME_WAIT 256 - - 10.9.0.1:* 10.9.0.2:5432 mini-sockets",
    );
    let budget = only(&walk, "tcptrace snapshot --netns app --ports");
    has_line(&budget, "10.9.0.1:* 10.9.0.2:5432 256 256 100.0% 4.1 - - - no port is left");
    has_line(&only(&walk, "ip netns exec app sysctl"), "net.ipv4.ip_local_port_range = 32768 33023");
    let failed = lines(&report).into_iter().find(|line| line.starts_with("no_local_port ")).expect("the failures");
    assert!(failed.ends_with(&format!("with 10.9.0.2:5432 100 %; of shop[{pid}] 100 %")), "{report}");
}
