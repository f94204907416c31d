//! The findings of an audit, as text.

use super::sanitise;
use crate::model::finding::Finding;
use crate::model::names::Names;

/// The lines of a table of the counters, and of the verdict below it; empty without an audit.
pub fn audit_lines(findings: &[Finding], names: &Names) -> Vec<String> {
    let mut lines = Vec::new();
    for finding in findings {
        match finding {
            Finding::Counter(row) => {
                begin(&mut lines);
                let numbers = [row.seen, row.expected, row.difference()].map(|number| number.to_string());
                let [seen, expected, difference] = numbers;
                let cells = [row.netns.to_string(), row.counter.as_str().to_owned(), seen, expected, difference];
                let mut note = Vec::new();
                if row.within > 0 {
                    note.push(format!("within ±{}", row.within));
                }
                note.extend(names.namespace(row.netns).map(|name| sanitise(name).into_owned()));
                lines.push(line(cells, &note.join(", ")));
            }
            Finding::Unseen(row) => {
                begin(&mut lines);
                let (netns, name) = (row.netns.to_string(), row.counter.as_str().to_owned());
                let cells = [netns, name, "-".to_owned(), row.increase.to_string(), "-".to_owned()];
                let mut note = vec![format!("not visible in events ({})", row.counter.what())];
                note.extend(names.namespace(row.netns).map(|name| sanitise(name).into_owned()));
                lines.push(line(cells, &note.join(", ")));
            }
            Finding::Verdict(row) => lines.push(format!(
                "{} network namespaces compared, {} gone before the end, {} unclear; {} transitions seen in them, {} lost \
                 ({} events), {} unaccounted for",
                row.namespaces, row.gone, row.unclear, row.transitions, row.lost_transitions, row.lost, row.unexplained
            )),
        }
    }
    lines
}

/// Writes the heading, once.
fn begin(lines: &mut Vec<String>) {
    if lines.is_empty() {
        lines.push(line(["NETNS", "COUNTER", "SEEN", "EXPECTED", "DIFFERENCE"].map(str::to_owned), ""));
    }
}

fn line([netns, counter, seen, expected, difference]: [String; 5], note: &str) -> String {
    let gap = if note.is_empty() { "" } else { " " };
    format!("{netns:<10} {counter:<19} {seen:>11} {expected:>11} {difference:>11}{gap}{note}")
}
