//! Reports of a real trace, and their page in a real browser.
//!
//! Needs root, `ip` and `chromium-headless-shell`.

// The tests' own `#[test]`, in every module.
#[macro_use(test)]
extern crate tcptrace_tests;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tcptrace_tests::program::{Finished, run, run_command};
use tcptrace_tests::sockets::{address, connect, listen};
use tcptrace_tests::{Actor, Namespace, Tracer};
use tempfile::TempDir;

/// A name that would load a resource if it were taken for markup.
const MARKUP: &str = "<img src=//x>";

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A trace of connections of several kinds, some from a process with a hostile name.
fn trace(folder: &TempDir) -> String {
    let net = Namespace::enter_unwatched();
    let file = folder.path().join("trace");
    let tracer = Tracer::start_in(&net, &["record", "--output", path(&file)]);
    let listener = listen("127.0.0.1");
    // Connections that wait for us to close them.
    let mut kept = Vec::new();
    for number in 0..40 {
        let (mut client, mut server) = connect(&listener);
        client.send(100);
        server.receive(100);
        match number % 4 {
            0 => {
                client.close();
                kept.push(server);
            }
            1 => client.reset(),
            _ => {
                client.close();
                server.receive_end();
                server.close();
            }
        }
    }
    let place = address(&listener).to_string();
    let stranger = Actor::start(env!("CARGO_BIN_EXE_actor"), MARKUP, &["dial", "3", &place]);
    let accepted: Vec<_> = (0..3).map(|_| tcptrace_tests::sockets::accept(&listener)).collect();
    let _ = stranger.says();
    drop(accepted);
    let finished = tracer.interrupt();
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    path(&file).to_owned()
}

fn report(trace: &str, options: &[&str]) -> Finished {
    let finished = run(&[&["report"], options, &[trace]].concat());
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    finished
}

fn rows(trace: &str) -> Vec<Value> {
    let finished = report(trace, &["--format", "json"]);
    finished.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A page in a browser.
struct Browsed {
    /// The document, after it was rendered.
    document: String,
    /// Messages of its console.
    console: Vec<String>,
    /// Its requests to the network.
    requests: Vec<String>,
}

/// Opens a page in a browser, in a window of this size.
fn browse(page: &Path, size: &str) -> Browsed {
    let folder = tempfile::tempdir().expect("a folder");
    let (profile, net_log) = (folder.path().join("profile"), folder.path().join("net.json"));
    let mut browser = Command::new("chromium-headless-shell");
    browser.args(["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--enable-logging=stderr"]);
    browser.arg(format!("--user-data-dir={}", profile.display())).arg(format!("--log-net-log={}", net_log.display()));
    browser.arg(format!("--window-size={size}")).arg("--virtual-time-budget=1000").arg("--dump-dom");
    let finished = run_command({
        browser.arg(format!("file://{}", page.display()));
        browser
    });
    assert!(finished.status.success(), "{}", finished.stderr);
    let console = finished.stderr.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned).collect();
    let log = fs::read_to_string(&net_log).expect("a log of the network");
    let urls = log.split("\"url\":\"").skip(1).filter_map(|rest| rest.split('"').next());
    Browsed { document: finished.text().to_owned(), console, requests: urls.map(str::to_owned).collect() }
}

/// A figure of a page: the kind of JSON row, the row, the field, its value, and the visible text.
#[derive(Debug)]
struct Figure {
    event: String,
    key: String,
    name: String,
    value: u64,
    shown: String,
}

fn attribute<'h>(html: &'h str, name: &str) -> &'h str {
    let (_, rest) = html.split_once(&format!("{name}=\"")).expect("the attribute");
    rest.split('"').next().expect("its end")
}

fn figures(document: &str) -> Vec<Figure> {
    let mut figures = Vec::new();
    for row in document.split("data-event=\"").skip(1) {
        let event = row.split('"').next().expect("its end");
        let row = row.split("</tr>").next().expect("a row").split("</li>").next().expect("a row");
        let row = row.split("</dl>").next().expect("a row");
        for cell in row.split("data-name=\"").skip(1) {
            let (_, shown) = cell.split_once('>').expect("the end of a tag");
            figures.push(Figure {
                event: event.to_owned(),
                key: attribute(row, "data-key").to_owned(),
                name: cell.split('"').next().expect("its end").to_owned(),
                value: attribute(cell, "data-value").parse().expect("a number"),
                shown: shown.split('<').next().expect("text").to_owned(),
            });
        }
    }
    figures
}

/// The rows of JSON, by the names that a page has for them.
fn by_key(rows: &[Value]) -> HashMap<(String, String), &Value> {
    let mut places = HashMap::new();
    let mut keyed = HashMap::new();
    let word = |row: &Value, name: &str| row[name].as_str().unwrap_or("").to_owned();
    for row in rows {
        let event = word(row, "event");
        let mut nth = |within: String| {
            let place: &mut usize = places.entry((event.clone(), within.clone())).or_default();
            *place += 1;
            format!("{within}{}", *place - 1)
        };
        let key = match event.as_str() {
            "report_state" => word(row, "state"),
            "report_bucket" => format!("{}/{}", word(row, "state"), row["from_ns"]),
            "report_count" => format!("{}/{}", word(row, "property"), word(row, "value")),
            "report_group" | "report_open" => nth(format!("{}/{}/", word(row, "by"), word(row, "state"))),
            "report_failure" => nth(format!("{}/{}/", word(row, "by"), word(row, "end"))),
            "report_churn" => nth(String::new()),
            "report_slowest" => format!("{}/{}", word(row, "slow"), word(row, "conn")),
            _ => String::new(),
        };
        keyed.insert((event, key), row);
    }
    keyed
}

/// Every figure in the browser equals that of the JSON report; the page loads nothing and logs no errors.
#[test]
fn a_browser_shows_the_figures_of_the_report() {
    let folder = tempfile::tempdir().expect("a folder");
    let (trace, page) = (trace(&folder), folder.path().join("report.html"));
    assert_eq!(report(&trace, &["--html", path(&page)]).text(), "");
    let rows = rows(&trace);
    let keyed = by_key(&rows);
    for size in ["1200,900", "400,800"] {
        let browsed = browse(&page, size);
        assert_eq!(browsed.console, [""; 0]);
        assert_eq!(browsed.requests, [""; 0]);
        let figures = figures(&browsed.document);
        for figure in &figures {
            let row = keyed.get(&(figure.event.clone(), figure.key.clone()));
            let value = row.map(|row| &row[&figure.name]);
            assert_eq!(value, Some(&figure.value.into()), "{figure:?} of {row:?}");
            let digits = figure.shown.replace(',', "");
            if !figure.name.ends_with("_ns") && !figure.name.starts_with("bytes_") && !digits.is_empty() {
                assert_eq!(digits, figure.value.to_string(), "{figure:?}");
            }
        }
        for event in ["report", "report_state", "report_bucket", "report_count", "report_group", "report_failure"] {
            assert!(figures.iter().any(|figure| figure.event == event), "no {event} in {figures:?}");
        }
        assert!(figures.len() > 100, "only {} figures", figures.len());
        let (_, json) = browsed.document.split_once("id=\"report\">").expect("the JSON");
        let json = json.split("</script>").next().expect("its end");
        assert_eq!(serde_json::from_str::<Vec<Value>>(json).expect("JSON"), rows);
        assert!(browsed.document.contains("&lt;img src=//x&gt;"), "the name of the stranger");
        assert!(!browsed.document.contains("<img"), "and it is a name");
    }
}

/// The lack of errors is meaningful: violations of the page's policy are logged.
#[test]
fn a_browser_would_complain() {
    let folder = tempfile::tempdir().expect("a folder");
    let (trace, page) = (trace(&folder), folder.path().join("report.html"));
    report(&trace, &["--html", path(&page)]);
    let whole = fs::read_to_string(&page).expect("the page");
    let worse =
        whole.replace("</main>", "<img src=\"http://127.0.0.1:9/x\"><script>document.title = 'x'</script></main>");
    fs::write(&page, &worse).expect("write the page");
    let browsed = browse(&page, "1200,900");
    assert_eq!(browsed.console.len(), 2, "{:?}", browsed.console);
    assert!(browsed.console.iter().all(|line| line.contains("Content Security Policy")), "{:?}", browsed.console);
    assert_eq!(browsed.requests, [""; 0]);
    let open = worse.replace("http-equiv=\"Content-Security-Policy\"", "");
    fs::write(&page, open).expect("write the page");
    assert!(!browse(&page, "1200,900").requests.is_empty());
}

/// All formats report the same facts about a trace, and the sums agree.
#[test]
fn text_and_tables() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = trace(&folder);
    let rows = rows(&trace);
    let state = |name: &str| rows.iter().find(|row| row["event"] == "report_state" && row["state"] == name);
    let close_wait = state("CLOSE_WAIT").expect("a row");
    assert_eq!(close_wait["open"], 10 + 3, "those that we keep, and the stranger's");
    let resets = rows.iter().find(|row| row["event"] == "report_count" && row["value"] == "reset_linger0");
    assert!(resets.is_some_and(|row| row["connections"].as_u64() >= Some(10)), "{resets:?}");
    let text = report(&trace, &["--full"]);
    let line = text.text().lines().find(|line| line.starts_with("CLOSE_WAIT")).expect("a line");
    let cells: Vec<_> = line.split_whitespace().collect();
    assert_eq!(cells[1].replace(',', ""), close_wait["sockets"].to_string());
    assert_eq!(cells[2], "13");
    assert!(text.text().contains(MARKUP));
    let csv = report(&trace, &["--format", "csv"]);
    assert!(csv.text().lines().count() > rows.len() / 2, "{}", csv.text());
    // Filters, and other groups.
    let by = report(&trace, &["--by", "remote", "--top", "1", "--format", "json", "--comm", MARKUP]);
    let by: Vec<Value> = by.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(by[0]["connections"], 3);
    assert!(by.iter().all(|row| row.get("by").is_none_or(|by| by == "remote")));
}

/// A page never replaces a file without --force, and is never written through a link.
#[test]
fn a_page_replaces_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (trace, page, link) = (trace(&folder), folder.path().join("report.html"), folder.path().join("link"));
    fs::write(&page, "mine").expect("write a file");
    symlink(&page, &link).expect("link to it");
    for place in [&page, &link] {
        let finished = run(&["report", "--html", path(place), &trace]);
        assert_eq!(finished.code(), 1, "{}", finished.stderr);
        assert_eq!(fs::read_to_string(&page).expect("the file"), "mine");
    }
    report(&trace, &["--force", "--html", path(&link)]);
    assert!(fs::read_to_string(&link).expect("the page").starts_with("<!DOCTYPE html>"));
    assert_eq!(fs::read_to_string(&page).expect("the file"), "mine", "the link itself was replaced");
    report(&trace, &["--force", "--html", path(&page)]);
    assert!(fs::read_to_string(&page).expect("the page").starts_with("<!DOCTYPE html>"));
}
