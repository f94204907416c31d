//! What is going on and for whom, why, what to do and what not, and how sure that is: rules over one [`Evidence`], the same
//! from the live kernel and from a trace. Pure.
//!
//! A rule is one file in `rules`, and fires, stays silent, or says why it was not checked. `merge` puts what has one
//! cause under that cause. Nothing is guessed: a rule without its evidence is not checked.

pub mod budgets;
mod case;
pub mod evidence;
pub mod finding;
mod gather;
mod merge;
pub mod need;
pub mod rule;
mod rules;
pub mod say;
pub mod settings;
mod subject;
mod summary;

use self::evidence::{About, Evidence};
use self::finding::{Figures, Finding, Id, Severity};
use self::rule::{Outcome, Rule};

pub use self::case::Case;
pub use self::gather::Gatherer;
pub use self::merge::may_explain;
pub use self::rules::RULES;
pub use self::summary::{Compared, compared};

/// Which rules are wanted.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only these; all, if there are none.
    pub only: Vec<Id>,
    /// Not these.
    pub skip: Vec<Id>,
}

impl Selection {
    fn wants(&self, rule: &Rule) -> bool {
        (self.only.is_empty() || self.only.contains(&rule.id)) && !self.skip.contains(&rule.id)
    }
}

/// The rule with this id.
pub fn rule(id: &str) -> Option<&'static Rule> {
    RULES.iter().copied().find(|rule| rule.id == id)
}

/// What a diagnosis has come to.
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    /// Whose evidence it stands on.
    pub about: About,
    /// How many sockets there were.
    pub sockets: u64,
    /// What was found, the most severe first; those that another one explains are behind all others.
    pub findings: Vec<Finding>,
    /// What each rule has decided.
    pub checked: Vec<Checked>,
}

/// What one rule has decided.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The rule.
    pub id: Id,
    /// `fired`, `silent` or `not_checked`.
    pub outcome: &'static str,
    /// Why it was not checked.
    pub reason: Option<String>,
    /// What it compared.
    pub figures: Figures,
}

impl Diagnosis {
    /// Findings that nothing explains.
    pub fn causes(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.because_of.is_none())
    }

    /// The worst of what was found.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// Rules that were checked, and those that were not.
    pub fn counts(&self) -> (u64, u64) {
        let skipped = self.checked.iter().filter(|it| it.outcome == "not_checked").count() as u64;
        (self.checked.len() as u64 - skipped, skipped)
    }
}

/// Has every wanted rule decide, and puts together what has one cause.
pub fn diagnose(evidence: &Evidence, wanted: &Selection) -> Diagnosis {
    let mut findings = Vec::new();
    let mut checked = Vec::new();
    for rule in RULES.iter().filter(|rule| wanted.wants(rule)) {
        let outcome = match rule.needs.iter().find_map(|need| evidence.lacks(*need)) {
            Some(reason) => Outcome::NotChecked(reason),
            None => (rule.check)(evidence),
        };
        let (outcome, reason, figures) = match outcome {
            Outcome::Fired(found) => {
                let figures = found.first().map(|finding| finding.figures.clone()).unwrap_or_default();
                findings.extend(found);
                ("fired", None, figures)
            }
            Outcome::Silent(figures) => ("silent", None, figures),
            Outcome::NotChecked(reason) => ("not_checked", Some(reason), Figures::new()),
        };
        checked.push(Checked { id: rule.id, outcome, reason, figures });
    }
    merge::merge(&mut findings, evidence);
    Diagnosis { about: evidence.about.clone(), sockets: evidence.sockets.len() as u64, findings, checked }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_kebab_case_and_unique() {
        let ids: HashSet<_> = RULES.iter().map(|rule| rule.id).collect();
        assert_eq!(ids.len(), RULES.len());
        let is_kebab = |id: &str| id.chars().all(|it| it.is_ascii_lowercase() || it == '-');
        assert!(ids.iter().all(|id| is_kebab(id)), "{ids:?}");
    }

    #[test]
    fn figures_of_a_rule_have_different_names() {
        for rule in RULES {
            let names: HashSet<_> = rule.figures.iter().map(|figure| figure.name).collect();
            assert_eq!(names.len(), rule.figures.len(), "{}", rule.id);
        }
    }

    #[test]
    fn without_evidence_nothing_fires() {
        let evidence = Gatherer::new(false).finish([], false);
        let diagnosis = diagnose(&evidence, &Selection::default());
        assert_eq!(diagnosis.findings, []);
        assert!(diagnosis.checked.iter().all(|it| it.outcome == "not_checked"), "{:?}", diagnosis.checked);
    }
}
