//! Draws a view: the pane with the keys, and what has room below it.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::paint::{adapt, put_all};
use super::view::{NARROWEST, Over, Pane, View};
use super::{bar, connection, findings, help, totals, waiters};
use crate::study::diagnose::finding::Finding;

/// From this height on, more than one pane is on the screen.
const TALL: u16 = 36;

impl View {
    /// Draws everything.
    pub fn draw(&mut self, to: &mut Buffer) {
        let area = to.area;
        if area.width < NARROWEST || area.height < 4 {
            return;
        }
        bar::head(to, Rect { height: 1, ..area }, self);
        let body = Rect { y: area.y + 1, height: area.height - 2, ..area };
        match self.over.last() {
            Some(Over::Help) => help::draw(to, body),
            Some(Over::Finding(finding)) => self.draw_page(to, body, &finding.clone()),
            Some(Over::Connection(_)) => connection::draw(to, body, self.frame.connection.as_ref(), &self.zone),
            Some(Over::Group(..)) => {
                if let Some((group, rows)) = &self.frame.connections {
                    waiters::of_group(group, rows).draw(to, body, Some(self.deep));
                }
                self.page = body.height.saturating_sub(3);
            }
            None => self.draw_panes(to, body),
        }
        bar::foot(to, Rect { y: area.bottom() - 1, height: 1, ..area }, self);
        adapt(to, self.look);
    }

    fn draw_panes(&mut self, to: &mut Buffer, area: Rect) {
        let frame = self.frame.clone();
        totals::draw(to, Rect { height: totals::LINES, ..area }, &frame);
        let causes = u16::try_from(findings::causes(&frame).len()).unwrap_or(u16::MAX);
        let strip = if self.pane == Pane::Findings { 0 } else { causes.min(if area.height >= TALL { 5 } else { 2 }) };
        let begin = area.y + totals::LINES;
        findings::strip(to, Rect { y: begin, height: strip, ..area }, &frame.diagnosis);
        let rest = Rect { y: begin + strip + 1, height: area.bottom().saturating_sub(begin + strip + 1), ..area };
        bar::tabs(to, Rect { y: begin + strip, height: 1, ..area }, self);
        let table = self.pane.table(&frame);
        let is_tall = area.height >= TALL;
        let (main, below) = if is_tall { split(rest, self.pane, table.height()) } else { (rest, Vec::new()) };
        self.page = main.height.saturating_sub(3);
        table.draw(to, main, Some(self.rows[self.pane as usize]));
        for (pane, area) in below {
            pane.table(&frame).draw(to, area, None);
        }
    }

    fn draw_page(&mut self, to: &mut Buffer, area: Rect, finding: &Finding) {
        self.page = area.height;
        let lines = findings::page(finding, area.width);
        let first = self.deep.min(lines.len().saturating_sub(usize::from(area.height)));
        for (y, line) in (area.y..area.bottom()).zip(&lines[first..]) {
            put_all(to, area, y, line);
        }
    }
}

/// The pane with the keys above, and others below it: one beside the other where that is wide enough.
fn split(area: Rect, main: Pane, lines: u16) -> (Rect, Vec<(Pane, Rect)>) {
    let others: Vec<Pane> =
        [Pane::Waiters, Pane::Ports, Pane::Groups].into_iter().filter(|pane| *pane != main).collect();
    let above = Rect { height: lines.clamp(6, area.height * 3 / 5), ..area };
    let below = Rect { y: above.bottom() + 1, height: area.height.saturating_sub(above.height + 1), ..area };
    match others[..] {
        [first, second, ..] if area.width >= 160 => {
            let left = Rect { width: area.width / 2 - 1, ..below };
            let right = Rect { x: left.right() + 2, width: area.width.saturating_sub(left.width + 2), ..below };
            (above, vec![(first, left), (second, right)])
        }
        [first, ..] => (above, vec![(first, below)]),
        [] => (area, Vec::new()),
    }
}
