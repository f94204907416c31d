//! The content of a page, and what must not be in it.

use jiff::tz::TimeZone;
use rstest::rstest;

use super::chart::life;
use super::page;
use crate::model::life::Life;
use crate::model::row::{Connection, Held, Stay};
use crate::model::tcp::{End, State};
use crate::output::samples::{self, HOSTILE};
use crate::study::report::{Options, Report, testing};

fn written(report: &Report) -> String {
    let mut out = Vec::new();
    page(&mut out, &TimeZone::UTC, report).expect("a Vec takes everything");
    String::from_utf8(out).expect("UTF-8")
}

/// A name that would be markup if it were not escaped.
const MARKUP: &str = "</script><img src=x onerror='alert(1)'>\"<!--\u{202e}";

#[test]
fn names_never_become_markup() {
    let mut report = testing::incident(Options::default());
    report.hosts = vec![MARKUP.into(), "web-2".into()];
    report.damage = vec![MARKUP.into()];
    report.fired = vec![testing::fired()];
    report.fired.iter_mut().for_each(|row| {
        (row.host, row.fired.headline, row.fired.when) = (MARKUP.into(), MARKUP.into(), MARKUP.into());
        row.fired.finding = serde_json::json!({ MARKUP: MARKUP });
    });
    for row in &mut report.groups {
        row.group.host = Some(MARKUP.into());
        row.group.container = Some(MARKUP.into());
        row.group.comm = Some(HOSTILE);
    }
    for row in &mut report.churn {
        (row.group.unit, row.group.comm) = (Some(MARKUP.as_bytes().into()), Some(HOSTILE));
    }
    for row in &mut report.slowest {
        row.host = MARKUP.into();
        row.connection.identity.owner.iter_mut().for_each(|owner| owner.task.comm = HOSTILE);
    }
    let mut case = crate::output::diagnose::testing::ill();
    case.diagnosis.findings.iter_mut().for_each(|finding| {
        finding.headline.push_str(MARKUP);
        finding.line("seen", MARKUP);
    });
    report.cases.push(case);
    let page = written(&report);
    assert!(page.contains("id=\"findings\""), "what is wrong is shown");
    assert!(page.contains("fired at "), "why it was written is shown");
    assert!(page.contains("&lt;img src=x onerror='alert(1)'&gt;&quot;"), "it is shown");
    assert_eq!(page.matches("<img").count(), 0);
    assert_eq!(page.matches("<!--").count(), 0);
    assert_eq!(page.matches("<script").count(), 1, "the JSON");
    assert_eq!(page.matches("</script").count(), 1);
    assert!(!page.contains(['\u{1b}', '\u{202e}']));
}

#[test]
fn json_in_the_page_is_that_of_the_command() {
    let report = testing::incident(Options::default());
    let page = written(&report);
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"report\">").expect("the JSON");
    let (json, _) = rest.split_once("</script>").expect("its end");
    let within: Vec<serde_json::Value> = serde_json::from_str(json).expect("JSON");
    let mut lines = Vec::new();
    crate::output::report::json(&mut lines, &report).expect("a Vec takes everything");
    let lines = String::from_utf8(lines).expect("UTF-8");
    let rows: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(within, rows);
}

/// Unseen times of a connection are gaps in its bar, as in `timeline`, and move nothing else.
#[rstest]
#[case::a_gap_in_its_life(Some(0), Held::AtLeast(200))]
#[case::it_began_before(None, Held::AtLeast(200))]
#[case::all_of_it(Some(0), Held::Exactly(890))]
fn a_bar_shows_states_when_they_were(#[case] opened_ns: Option<u64>, #[case] established: Held) {
    let exactly = |state, ns| Stay { state, held: Held::Exactly(ns) };
    let begun = opened_ns.map(|_| exactly(State::SynSent, 10));
    let rest = [exactly(State::CloseWait, 50), exactly(State::LastAck, 50)];
    let stays = begun.into_iter().chain([Stay { state: State::Established, held: established }]).chain(rest).collect();
    let status = samples::ended(End::Fin, None);
    let row = Connection { opened_ns, boot_ns: 1_000, status, stays, complete: false, ..samples::connection() };
    let drawn = life(&row, 1_000, "").into_string();
    let rects = drawn.split("<rect class=\"").skip(1).map(|rect| {
        let number = |name: &str| {
            let (_, rest) = rect.split_once(&format!("{name}=\"")).expect("an attribute");
            rest.split_once('"').expect("its end").0.parse::<f64>().expect("a number").round() as u64
        };
        let class = rect.split_once('"').expect("a class").0;
        (class.to_owned(), number(" x"), number(" x") + number("width"))
    });
    let life = Life::of(&row);
    let class = |state: Option<State>| state.map_or("unseen", State::as_str).to_owned();
    let spans = life.spans.iter().map(|span| (class(span.state), span.from - life.begin, span.to - life.begin));
    assert_eq!(rects.collect::<Vec<_>>(), spans.collect::<Vec<_>>());
}

/// The page loads and runs nothing: its policy forbids it, and it contains none of these.
#[test]
fn nothing_is_loaded_or_run() {
    let page = written(&testing::incident(Options::default()));
    assert!(page.contains("http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src"));
    for word in ["http:", "https:", "src=", "url(//", "@import", "<iframe", "<object", "<form", " on"] {
        let found = page.match_indices(word).map(|(at, _)| &page[at..page.len().min(at + 40)]);
        let found: Vec<_> =
            found.filter(|found| word != " on" || found[3..].starts_with(char::is_alphabetic)).collect();
        let loads = found.iter().any(|found| {
            word != " on" || found.split('=').next().is_some_and(|name| name.len() < 14 && found.contains("=\""))
        });
        assert!(!loads, "{word}: {found:?}");
    }
    assert!(!page.contains("http://") && !page.contains("https://"));
}

#[test]
fn a_report_of_nothing_is_a_page() {
    let page = written(&Report::default());
    assert!(page.contains("The period has no length.") && page.trim_end().ends_with("</html>"));
}
