//! From connections to lines.

use std::iter::{repeat_n, zip};

use anstyle::{Effects, Style};

use super::axis::{self, Start};
use super::bar::{self, Scale};
use super::glyphs::{ASCII, Marks, UNICODE, ascii, block, letter};
use super::label::{PIECES, cut, pieces};
use super::{Axis, Line, Options, Part};
use crate::model::tcp::State;
use crate::output::{human, width};
use crate::study::timeline::{Group, Item};

/// A narrower drawing would show nothing.
const NARROWEST: usize = 20;

/// Columns beside the bar: the mark of a pair, a space, and one at each end for open ends.
const MARGINS: usize = 4;

const HEADING: Style = Style::new().effects(Effects::BOLD);

/// Between the pieces of a label.
const GAP: usize = 2;

/// Draws connections: the axis, a label and a bar for each, and a legend. No line is wider than asked for, unless that
/// is less than 20 columns.
pub fn layout(groups: &[Group], options: &Options) -> Vec<Line> {
    if groups.is_empty() {
        return Vec::new();
    }
    let drawing = Drawing::new(groups, options);
    let mut lines = Vec::from(drawing.heading());
    let mut labels = drawing.labels(groups).into_iter();
    for group in groups {
        let begin = drawing.start.unwrap_or_else(|| begin(group));
        for ((item, label), marks) in group.items().zip(&mut labels).zip(drawing.pair_marks(group)) {
            let [first, next, last] = marks.map(|mark| format!("{mark} "));
            flow(label, [&first, &next], drawing.width, &mut lines);
            let mut line = Line::default();
            line.push(last, Style::new());
            bar::draw(&mut line, &item.life, item.begin().abs_diff(begin), drawing.scale, drawing.marks, options.ascii);
            lines.push(line);
        }
    }
    drawing.legend(groups, &mut lines);
    // This includes the ellipses of cuts, and text in bars and titles.
    if options.ascii {
        lines.iter_mut().flat_map(|line| &mut line.0).for_each(|part| part.text = ascii(&part.text));
    }
    lines
}

struct Drawing<'o> {
    options: &'o Options,
    width: usize,
    marks: Marks,
    scale: Scale,
    /// The left end of the axis, in ns of Unix time; `None`: the start of each connection.
    start: Option<i64>,
}

impl<'o> Drawing<'o> {
    fn new(groups: &[Group], options: &'o Options) -> Self {
        let from = groups.iter().map(begin).min().unwrap_or_default();
        let whole = groups.iter().map(end).max().unwrap_or_default().abs_diff(from);
        let longest = groups.iter().map(|group| end(group).abs_diff(begin(group))).max().unwrap_or_default();
        let by_clock = match options.axis {
            Axis::Auto => longest >= whole / 4,
            Axis::Clock => true,
            Axis::Own => false,
        };
        let width = options.width.max(NARROWEST);
        let span = if by_clock { whole } else { longest };
        Self {
            options,
            width,
            marks: if options.ascii { ASCII } else { UNICODE },
            scale: Scale { span: span.max(1), cells: width - MARGINS },
            start: by_clock.then_some(from),
        }
    }

    /// The description of the axis, and the axis.
    fn heading(&self) -> [Line; 2] {
        let start = self.start.map_or(Start::Own, |at| Start::Clock(at, &self.options.zone));
        let column = human::Duration(self.scale.cell());
        let from = match start {
            Start::Own => "from the start of each".to_owned(),
            Start::Clock(at, zone) => {
                let time = axis::timestamp(at).to_zoned(zone.clone());
                format!("from {}", time.strftime("%Y-%m-%d %H:%M:%S%.6f"))
            }
        };
        let mut title = Line::default();
        title.push(
            cut(&format!("{from}, {} total, {column}/column", human::Duration(self.scale.span)), self.width),
            HEADING,
        );
        let mut ruler = String::new();
        for tick in axis::ticks(&start, self.scale) {
            let column = MARGINS - 1 + self.scale.half(tick.at) / 2;
            let text = format!("{}{}", self.marks.tick, tick.label);
            if column + width(&text) <= self.width && column >= width(&ruler) {
                ruler.extend(repeat_n(' ', column - width(&ruler)));
                ruler.push_str(&text);
            }
        }
        let mut line = Line::default();
        line.push(ruler, HEADING);
        [title, line]
    }

    /// The labels of all connections, in columns if those fit.
    fn labels(&self, groups: &[Group]) -> Vec<[Part; PIECES]> {
        let items = || groups.iter().flat_map(Group::items);
        let first_host = items().next().map(|item| &item.host);
        let with_host = items().any(|item| Some(&item.host) != first_host);
        let zone = self.start.is_none().then_some(&self.options.zone);
        let mut labels: Vec<_> = items().map(|item| pieces(item, with_host, zone)).collect();
        if self.options.ascii {
            labels.iter_mut().flatten().for_each(|part| part.text = ascii(&part.text));
        }
        let widest = |labels: &[[Part; PIECES]], at: usize| labels.iter().map(|label| width(&label[at].text)).max();
        let columns: [usize; PIECES] = std::array::from_fn(|at| widest(&labels, at).unwrap_or_default());
        let gaps = columns.iter().filter(|columns| **columns > 0).count() * GAP;
        if columns.iter().sum::<usize>() + gaps <= self.width {
            for (part, columns) in labels.iter_mut().flat_map(|label| zip(label, columns)) {
                part.text.extend(repeat_n(' ', columns - width(&part.text)));
            }
        }
        labels
    }

    /// Marks for the lines of the one end, and of the other.
    fn pair_marks(&self, group: &Group) -> [[char; 3]; 2] {
        if group.second.is_some() { [self.marks.first, self.marks.second] } else { [[' '; 3]; 2] }
    }

    /// The legend of the letters and marks in use.
    fn legend(&self, groups: &[Group], lines: &mut Vec<Line>) {
        let items = || groups.iter().flat_map(Group::items);
        let spans = || items().flat_map(|item| &item.life.spans);
        let mut entries: Vec<Part> = Vec::new();
        for state in State::ALL.iter().copied().filter(|state| spans().any(|span| span.state == Some(*state))) {
            let half = Some(Some(state));
            let text = if self.options.ascii {
                format!("{} {state}", letter(Some(state)))
            } else {
                format!("{}{} {state}", letter(Some(state)), block(half, half))
            };
            entries.push(Part { text, style: bar::style(Some(state)) });
        }
        let mut say = |is_there: bool, text: String| {
            if is_there {
                entries.push(Part { text, style: Style::new() });
            }
        };
        say(spans().any(|span| span.state.is_none()), "? unknown".to_owned());
        say(items().any(|item| !item.life.begin_seen), format!("{} opened earlier", self.marks.before));
        say(items().any(|item| item.life.is_open), format!("{} open", self.marks.after));
        let ends = format!("{}{} both ends of a connection", self.marks.first[0], self.marks.second[2]);
        say(groups.iter().any(|group| group.second.is_some()), ends);
        lines.push(Line::default());
        flow(entries, ["", ""], self.width, lines);
    }
}

/// Puts parts beside each other, in as many lines as needed. The prefixes of lines are not cut.
fn flow(parts: impl IntoIterator<Item = Part>, before: [&str; 2], columns: usize, lines: &mut Vec<Line>) {
    let begun = |before: &str| Line(vec![Part { text: before.to_owned(), style: Style::new() }]);
    let mut line = begun(before[0]);
    let indent = width(before[0]);
    // Columns so far, and the gap before another part.
    let (mut taken, mut gap) = (indent, 0);
    for Part { text, style } in parts.into_iter().filter(|part| !part.text.is_empty()) {
        let words = cut(text.trim_end(), columns - indent);
        if taken > indent && taken + gap + width(&words) > columns {
            lines.push(std::mem::replace(&mut line, begun(before[1])));
            (taken, gap) = (indent, 0);
        }
        line.push(" ".repeat(gap), Style::new());
        taken += gap + width(&words);
        gap = GAP + width(&text).saturating_sub(width(&words));
        line.push(words, style);
    }
    lines.push(line);
}

fn begin(group: &Group) -> i64 {
    group.items().map(Item::begin).min().unwrap_or_default()
}

fn end(group: &Group) -> i64 {
    group.items().map(Item::end).max().unwrap_or_default()
}
