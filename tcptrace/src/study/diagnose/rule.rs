//! What a rule is, and what it needs.

use super::evidence::Evidence;
use super::finding::{Figures, Finding, Id};
use super::need::Need;

/// A rule: one file each in `rules`.
#[derive(Debug)]
pub struct Rule {
    /// Its id.
    pub id: Id,
    /// What it finds, in one line.
    pub title: &'static str,
    /// What it cannot do without.
    pub needs: &'static [Need],
    /// The names of the figures that it compares: name, unit (empty for counts), meaning.
    pub figures: &'static [Figure],
    /// Its page.
    pub page: Page,
    /// Decides, where there is what it needs.
    pub check: fn(&Evidence) -> Outcome,
}

/// A figure of a rule. Names are an interface: they may be added, never renamed.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Its name.
    pub name: &'static str,
    /// Its unit; empty for a count, a share or a truth.
    pub unit: &'static str,
    /// What it means.
    pub doc: &'static str,
}

/// What `--explain` prints of a rule.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// What people see.
    pub sees: &'static str,
    /// When it fires, with the reason of each threshold.
    pub fires: &'static str,
    /// When it stays silent although it looks alike.
    pub silent: &'static str,
    /// What helps.
    pub remedy: &'static str,
    /// Where it is from: kernel functions, RFCs.
    pub sources: &'static str,
}

/// What a rule has decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It has found something.
    Fired(Vec<Finding>),
    /// It has not, and this is what it compared.
    Silent(Figures),
    /// It cannot tell, and why.
    NotChecked(String),
}

impl Outcome {
    /// Fired if there are findings, silent otherwise.
    pub fn of(findings: Vec<Finding>, compared: Figures) -> Self {
        if findings.is_empty() { Self::Silent(compared) } else { Self::Fired(findings) }
    }
}
