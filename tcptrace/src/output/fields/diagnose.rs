//! The fields of the rows of `diagnose`.

use serde_json::{Map, Value as Tree, json};

use super::{Field, Shape, Table, Value, or_null};
use crate::model::row::Held;
use crate::model::stream::Context;
use crate::output::{sanitise, sanitise_message};
use crate::study::diagnose::finding::{Example, Figures, Finding, Severity, Subject, Value as Figure};
use crate::study::diagnose::need::Recorded;
use crate::study::diagnose::rule::Rule;
use crate::study::diagnose::{Case, Checked, Diagnosis};

/// Whose evidence it is.
pub static DIAGNOSIS: Table<DiagnosisRow> = Table::new("diagnose: diagnosis", DIAGNOSIS_FIELDS);
/// What was found.
pub static FINDING: Table<FindingRow> = Table::new("diagnose: finding", FINDING_FIELDS);
/// What a rule decided.
pub static CHECKED: Table<CheckedRow> = Table::new("diagnose: checked", CHECKED_FIELDS);
/// How the command ends.
pub static DIAGNOSED: Table<Totals> = Table::new("diagnose: summary", TOTALS_FIELDS);
/// What a rule is.
pub static RULE: Table<RuleRow> = Table::new("diagnose --rules: rule", RULE_FIELDS);

/// A diagnosis, without what was found.
pub struct DiagnosisRow {
    diagnosis: Diagnosis,
    netns: Tree,
}

/// A finding, with what JSON has of it as arrays and objects.
pub struct FindingRow {
    host: String,
    finding: Finding,
    subject: Tree,
    figures: Tree,
    evidence: Tree,
    remedies: Tree,
    mistakes: Tree,
    explains: Tree,
    examples: Tree,
}

/// What a rule decided.
pub struct CheckedRow {
    host: String,
    checked: Checked,
    figures: Tree,
}

/// A rule.
pub struct RuleRow {
    id: &'static str,
    title: &'static str,
    needs: Tree,
    figures: Tree,
    recorded: &'static str,
}

/// How many findings there are, and how the command ends.
pub struct Totals {
    findings: Tree,
    checked: u64,
    not_checked: u64,
    hidden: u64,
    exit: u8,
}

impl DiagnosisRow {
    pub(in crate::output) fn new(diagnosis: &Diagnosis) -> Self {
        let bare = Diagnosis { findings: Vec::new(), checked: Vec::new(), ..diagnosis.clone() };
        Self { netns: json!(diagnosis.about.namespaces), diagnosis: bare }
    }
}

impl FindingRow {
    pub(in crate::output) fn new(host: &str, finding: &Finding, context: &Context) -> Self {
        let line = |it: &crate::study::diagnose::finding::Line| json!({ "text": sanitise_message(&it.text), "source": it.source });
        let explained: Vec<&str> = finding.explains.iter().map(|(id, _)| *id).collect();
        Self {
            host: host.to_owned(),
            subject: subject(&finding.subject, context),
            figures: figures(&finding.figures),
            evidence: finding.evidence.iter().map(line).collect(),
            remedies: texts(&finding.remedies),
            mistakes: texts(&finding.mistakes),
            explains: json!(explained),
            examples: finding.examples.iter().map(example).collect(),
            finding: finding.clone(),
        }
    }
}

impl CheckedRow {
    pub(in crate::output) fn new(host: &str, checked: &Checked) -> Self {
        Self { host: host.to_owned(), figures: figures(&checked.figures), checked: checked.clone() }
    }
}

impl RuleRow {
    pub(in crate::output) fn new(rule: &Rule) -> Self {
        let figure =
            |it: &crate::study::diagnose::rule::Figure| json!({ "name": it.name, "unit": it.unit, "doc": it.doc });
        Self {
            id: rule.id,
            title: rule.title,
            needs: rule.needs.iter().map(ToString::to_string).collect(),
            figures: rule.figures.iter().map(figure).collect(),
            recorded: recorded(rule),
        }
    }
}

/// What a trace has to hold for a rule.
pub(in crate::output) fn recorded(rule: &Rule) -> &'static str {
    match rule.needs.iter().map(|need| need.recorded()).max() {
        None | Some(Recorded::Always) => "always",
        Some(Recorded::WithFacts) => "with_facts",
        Some(Recorded::OnRequest) => "on_request",
        Some(Recorded::Never) => "never",
    }
}

impl Totals {
    pub(in crate::output) fn of(cases: &[Case], exit: u8) -> Self {
        let of = |severity: Severity| {
            let all = cases.iter().flat_map(|case| &case.diagnosis.findings);
            all.filter(|it| it.severity == severity).count()
        };
        let mut findings = Map::new();
        for severity in Severity::ALL.into_iter().rev() {
            findings.insert(severity.as_str().to_owned(), json!(of(severity)));
        }
        let counts = cases.iter().map(|case| case.diagnosis.counts());
        let (checked, not_checked) = counts.fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
        let hidden = cases.iter().map(|case| case.hidden).sum();
        Self { findings: Tree::Object(findings), checked, not_checked, hidden, exit }
    }
}

fn subject(of: &Subject, context: &Context) -> Tree {
    let name = |bytes: &[u8]| sanitise(bytes).into_owned();
    let group = of.cgroup.and_then(|id| context.names.group(id));
    let netns_name = of.netns.and_then(|netns| context.names.namespace(netns)).map(name);
    json!({
        "pid": of.task.map(|task| task.pid),
        "comm": of.task.map(|task| name(task.comm.bytes())),
        "container": group.and_then(|group| group.container.as_ref()).map(|id| name(id.as_bytes())),
        "unit": group.and_then(|group| group.unit.as_ref()).map(|unit| name(unit)),
        "cgroup": group.map(|group| name(&group.path)),
        "netns": of.netns,
        "netns_name": netns_name,
        "local": of.local.map(|end| end.to_string()),
        "remote": of.remote.map(|end| end.to_string()),
        "lport": of.lport,
        "side": of.side.map(crate::model::tcp::Side::as_str),
    })
}

fn texts(all: &[String]) -> Tree {
    all.iter().map(|text| sanitise_message(text).into_owned()).collect()
}

fn figures(all: &Figures) -> Tree {
    Tree::Object(all.iter().map(|(name, value)| ((*name).to_owned(), figure(*value))).collect())
}

/// Durations are in ns, rates and shares are real.
fn figure(value: Figure) -> Tree {
    match value {
        Figure::Count(number) | Figure::Ns(number) | Figure::Bytes(number) => json!(number),
        Figure::Rate(number) | Figure::Share(number) => json!((number * 10_000.0).round() / 10_000.0),
        Figure::Is(is) => json!(is),
        Figure::Unknown => Tree::Null,
    }
}

fn example(of: &Example) -> Tree {
    json!({
        "conn": format!("{:x}", of.conn),
        "local": of.local.to_string(),
        "remote": of.remote.to_string(),
        "state": of.state.as_str(),
        "age_ns": of.age.known_ns(),
        "age_at_least": matches!(of.age, Held::AtLeast(_)),
        "pid": of.pid,
        "fd": of.fd,
    })
}

/// A time, if there was one.
fn time(boot_ns: u64, context: &Context) -> Value<'static> {
    if boot_ns == 0 { Value::Null } else { Value::Time(context.clock.unix_ns(boot_ns)) }
}

const fn event<R>(doc: &'static str, value: for<'r> fn(&'r R, &'r Context) -> Value<'r>) -> Field<R> {
    field("event", "", Shape::Word, doc, value)
}

const fn field<R>(
    name: &'static str,
    unit: &'static str,
    shape: Shape,
    doc: &'static str,
    value: for<'r> fn(&'r R, &'r Context) -> Value<'r>,
) -> Field<R> {
    Field { name, nullable: false, unit, shape, doc, value }
}

static DIAGNOSIS_FIELDS: &[Field<DiagnosisRow>] = &[
    event("Always `diagnosis`: whose evidence the rows after it stand on.", |_, _| Value::Word("diagnosis")),
    field("host", "", Shape::Name, "Name of the host.", |row, _| Value::Name(row.diagnosis.about.host.as_bytes())),
    field("kernel", "", Shape::Name, "Its kernel, as `uname -r` prints it.", |row, _| {
        Value::Name(row.diagnosis.about.kernel.as_bytes())
    }),
    field("boot_id", "", Shape::Name, "Id of that boot of it.", |row, _| {
        Value::Name(row.diagnosis.about.boot_id.as_bytes())
    }),
    field("source", "", Shape::Word, "live, or trace.", |row, _| {
        Value::Word(if row.diagnosis.about.is_trace { "trace" } else { "live" })
    }),
    or_null(field("from", "", Shape::Time, "When looking began; null when nothing was seen.", |row, context| {
        time(row.diagnosis.about.from, context)
    })),
    or_null(field("to", "", Shape::Time, "When it ended; null when nothing was seen.", |row, context| {
        time(row.diagnosis.about.to, context)
    })),
    field("looked_ns", "ns", Shape::Number, "How long transitions were traced; 0: a single look.", |row, _| {
        Value::U64(row.diagnosis.about.traced_ns)
    }),
    field("sockets", "", Shape::Number, "Sockets that exist at the end, listeners left out.", |row, _| {
        Value::U64(row.diagnosis.sockets)
    }),
    field("opened", "", Shape::Number, "Connections opened in that time.", |row, _| {
        Value::U64(row.diagnosis.about.opened)
    }),
    field("opens_per_second", "1/s", Shape::Real, "The same a second.", |row, _| {
        let about = &row.diagnosis.about;
        Value::Real(about.per_second(about.opened))
    }),
    field("netns", "", Shape::Numbers, "Inode numbers of the network namespaces with sockets.", |row, _| {
        Value::Tree(&row.netns)
    }),
    field(
        "events_lost",
        "",
        Shape::Number,
        "Events that were lost: rates are lower bounds then, and absence proves nothing.",
        |row, _| Value::U64(row.diagnosis.about.lost),
    ),
];

static FINDING_FIELDS: &[Field<FindingRow>] = &[
    event("Always `finding`.", |_, _| Value::Word("finding")),
    field("host", "", Shape::Name, "Name of the host.", |row, _| Value::Name(row.host.as_bytes())),
    field("id", "", Shape::Word, "The rule, as `diagnose --rules` lists it.", |row, _| Value::Word(row.finding.id)),
    field(
        "severity",
        "",
        Shape::Word,
        "critical (something fails now, or will within 10 minutes), warning (a defect that costs or grows) or note.",
        |row, _| Value::Word(row.finding.severity.as_str()),
    ),
    field(
        "confidence",
        "",
        Shape::Word,
        "certain (the kernel said so), likely (a pattern that has one usual cause) or possible (several causes fit).",
        |row, _| Value::Word(row.finding.confidence.as_str()),
    ),
    field("headline", "", Shape::Text, "What is going on and for whom: a sentence that stands alone.", |row, _| {
        Value::Text(&row.finding.headline)
    }),
    field("subject", "", Shape::Subject, "Whom it is about; null where it does not apply or is unknown.", |row, _| {
        Value::Tree(&row.subject)
    }),
    field(
        "figures",
        "",
        Shape::Figures,
        "What was compared, by the names that `diagnose --rules --format json` lists: durations in ns, rates and shares real, \
         null when unknown.",
        |row, _| Value::Tree(&row.figures),
    ),
    field("evidence", "", Shape::Lines, "The evidence in words, each line with where it is from.", |row, _| {
        Value::Tree(&row.evidence)
    }),
    field("why", "", Shape::Text, "Why it happens.", |row, _| Value::Text(&row.finding.why)),
    field("do", "", Shape::Texts, "What to do, in the order of how much it helps.", |row, _| {
        Value::Tree(&row.remedies)
    }),
    field("dont", "", Shape::Texts, "What not to do although people advise it, with its consequence.", |row, _| {
        Value::Tree(&row.mistakes)
    }),
    field("sure", "", Shape::Text, "How sure it is, in words.", |row, _| Value::Text(&row.finding.sure)),
    or_null(field("because_of", "", Shape::Word, "The finding that explains this one; null: none does.", |row, _| {
        Value::word(row.finding.because_of)
    })),
    field("explains", "", Shape::Texts, "The rules whose findings this one explains.", |row, _| {
        Value::Tree(&row.explains)
    }),
    or_null(field(
        "first_seen",
        "",
        Shape::Time,
        "When the first thing that it stands on happened; null when that is no moment.",
        |row, context| row.finding.first_seen.map_or(Value::Null, |at| time(at, context)),
    )),
    or_null(field("last_seen", "", Shape::Time, "When the last one did; null likewise.", |row, context| {
        row.finding.last_seen.map_or(Value::Null, |at| time(at, context))
    })),
    field("count", "", Shape::Number, "How many connections, sockets or calls it is about.", |row, _| {
        Value::U64(row.finding.count)
    }),
    or_null(field(
        "seconds_left",
        "s",
        Shape::Real,
        "In how many seconds something fails at the present rate; null where that cannot be said.",
        |row, _| Value::real(row.finding.seconds_left),
    )),
    field("examples", "", Shape::Examples, "Connections that show it, five at most.", |row, _| {
        Value::Tree(&row.examples)
    }),
];

static CHECKED_FIELDS: &[Field<CheckedRow>] = &[
    event("Always `checked`: one row for each rule that was wanted.", |_, _| Value::Word("checked")),
    field("host", "", Shape::Name, "Name of the host.", |row, _| Value::Name(row.host.as_bytes())),
    field("id", "", Shape::Word, "The rule.", |row, _| Value::Word(row.checked.id)),
    field("outcome", "", Shape::Word, "fired, silent or not_checked.", |row, _| Value::Word(row.checked.outcome)),
    or_null(field("reason", "", Shape::Text, "Why it was not checked; null when it was.", |row, _| {
        row.checked.reason.as_deref().map_or(Value::Null, Value::Text)
    })),
    field(
        "figures",
        "",
        Shape::Figures,
        "What was compared, as in the rule's findings, also when it is silent.",
        |row, _| Value::Tree(&row.figures),
    ),
];

static TOTALS_FIELDS: &[Field<Totals>] = &[
    event("Always `summary`: the last row.", |_, _| Value::Word("summary")),
    field("findings", "", Shape::Tally, "How many findings there are of each severity.", |row, _| {
        Value::Tree(&row.findings)
    }),
    field("checked", "", Shape::Number, "Rules that were checked, on all hosts together.", |row, _| {
        Value::U64(row.checked)
    }),
    field("not_checked", "", Shape::Number, "Rules that could not be checked.", |row, _| Value::U64(row.not_checked)),
    field("hidden", "", Shape::Number, "Findings about others than the filters choose.", |row, _| {
        Value::U64(row.hidden)
    }),
    field(
        "exit",
        "",
        Shape::Number,
        "The exit status: 4 there is a finding at or above --fail-on, 3 there is none but events were lost, 0 otherwise.",
        |row, _| Value::U64(row.exit.into()),
    ),
];

static RULE_FIELDS: &[Field<RuleRow>] = &[
    event("Always `rule`.", |_, _| Value::Word("rule")),
    field("id", "", Shape::Word, "Its id.", |row, _| Value::Word(row.id)),
    field("title", "", Shape::Text, "What it finds, in one line.", |row, _| Value::Text(row.title)),
    field("needs", "", Shape::Texts, "What it cannot be checked without.", |row, _| Value::Tree(&row.needs)),
    field(
        "recorded",
        "",
        Shape::Word,
        "Which traces hold that: always (each), with_facts (recorded without --no-facts), on_request (recorded with failed \
         system calls) or never (only the running host has it).",
        |row, _| Value::Word(row.recorded),
    ),
    field("figures", "", Shape::Described, "What it compares: name, unit and meaning of each figure.", |row, _| {
        Value::Tree(&row.figures)
    }),
];
