//! A diagnosis, with what is printed beside it.

use super::evidence::Evidence;
use super::finding::Severity;
use super::settings::Settings;
use super::summary::{Compared, compared};
use super::{Diagnosis, Selection, diagnose};
use crate::model::criteria::Criteria;
use crate::model::stream::Context;

/// A diagnosis, with what is printed beside it.
#[derive(Clone, Debug, Default)]
pub struct Case {
    /// What the rules decided.
    pub diagnosis: Diagnosis,
    /// What was compared, whether or not something was found.
    pub compared: Vec<Compared>,
    /// Clock and names of the host.
    pub context: Context,
    /// Findings about others than those that were asked for.
    pub hidden: u64,
    /// What the host is set to.
    pub settings: Settings,
}

impl Case {
    /// Diagnoses evidence.
    pub fn new(evidence: &Evidence, wanted: &Selection, context: Context) -> Self {
        let (diagnosis, settings) = (diagnose(evidence, wanted), Settings::of(evidence));
        Self { diagnosis, compared: compared(evidence), context, hidden: 0, settings }
    }

    /// Keeps the findings that are about what is asked for, as far as they say whom they are about; and what those explain.
    #[must_use]
    pub fn only_about(mut self, criteria: &Criteria) -> Self {
        if *criteria == Criteria::default() {
            return self;
        }
        let before = self.diagnosis.findings.len();
        let names = &self.context.names;
        let all = std::mem::take(&mut self.diagnosis.findings);
        let (mut kept, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|it| it.because_of.is_none() && it.is_about(criteria, names));
        // What a finding explains stays with it, and never goes without it.
        kept.extend(others.into_iter().filter(|it| it.because_of.is_some() && it.is_about(criteria, names)));
        let causes: Vec<_> = kept.iter().filter(|it| it.because_of.is_none()).map(|it| it.id).collect();
        kept.retain(|it| it.because_of.is_none_or(|cause| causes.contains(&cause)));
        self.hidden = (before - kept.len()) as u64;
        self.diagnosis.findings = kept;
        self.settings = self.settings.only_of(&criteria.netns);
        self
    }

    /// Whether something was found at or above a severity.
    pub fn reaches(&self, severity: Severity) -> bool {
        self.diagnosis.worst().is_some_and(|worst| worst >= severity)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::finding::{Confidence, Finding, Subject};
    use super::*;
    use crate::model::tcp::{Comm, Task};

    fn found(id: &'static str, comm: Option<&str>, because_of: Option<&'static str>) -> Finding {
        let task = comm.map(|comm| Task { pid: 7, tid: 7, comm: Comm::from(comm) });
        let subject = Subject { task, netns: Some(3), ..Subject::default() };
        Finding { subject, because_of, ..Finding::new(id, Severity::Warning, Confidence::Certain, String::new()) }
    }

    /// A finding about a whole namespace is about everybody in it; what is explained goes with its cause.
    #[rstest]
    #[case::the_process("api", &["leak", "setting", "effect"], 1)]
    #[case::another("web", &["pool", "setting"], 2)]
    fn filters_choose_whom_findings_are_about(#[case] comm: &str, #[case] ids: &[&str], #[case] hidden: u64) {
        let findings = vec![
            found("leak", Some("api"), None),
            found("pool", Some("web"), None),
            found("setting", None, None),
            found("effect", None, Some("leak")),
        ];
        let case = Case { diagnosis: Diagnosis { findings, ..Diagnosis::default() }, ..Case::default() };
        let criteria = Criteria { comms: vec![comm.into()], ..Criteria::default() };
        let case = case.only_about(&criteria);
        let kept: Vec<_> = case.diagnosis.findings.iter().map(|it| it.id).collect();
        assert_eq!((kept.as_slice(), case.hidden), (ids, hidden));
    }

    #[rstest]
    #[case::the_namespace(Criteria { netns: vec![3], ..Criteria::default() }, true)]
    #[case::another_namespace(Criteria { netns: vec![4], ..Criteria::default() }, false)]
    #[case::the_process(Criteria { pids: vec![7], ..Criteria::default() }, true)]
    #[case::another_process(Criteria { pids: vec![8], ..Criteria::default() }, false)]
    #[case::a_port_that_it_does_not_name(Criteria { ports: vec![80], ..Criteria::default() }, true)]
    fn criteria_match_as_far_as_the_finding_says(#[case] criteria: Criteria, #[case] expected: bool) {
        assert_eq!(found("leak", Some("api"), None).is_about(&criteria, &Context::default().names), expected);
    }
}
