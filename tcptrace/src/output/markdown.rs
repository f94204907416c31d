//! Markdown, to be pasted into a ticket or a channel. What others chose cannot become markup.

pub(super) mod report;

use std::borrow::Cow;
use std::io::{self, Write};

use super::sanitise_message;
use super::text::diagnose::{self as lines, checked, header, losses};
use super::text::settings::{default, place, shown, title};
use crate::study::diagnose::Case;
use crate::study::diagnose::finding::Finding;
use crate::study::diagnose::rule::Rule;

/// Writes diagnoses, one for each host.
pub(super) fn write_diagnoses(out: &mut impl Write, cases: &[Case]) -> io::Result<()> {
    for (place, case) in cases.iter().enumerate() {
        if place > 0 {
            writeln!(out)?;
        }
        writeln!(out, "## {}\n", text(&header(case)))?;
        if let Some(losses) = losses(case) {
            writeln!(out, "**{}**\n", text(&losses))?;
        }
        findings(out, case)?;
        if case.diagnosis.findings.is_empty() {
            writeln!(out, "No findings. What was compared:\n\n| what | figures |\n| --- | --- |")?;
            for line in &case.compared {
                writeln!(out, "| {} | {} |", line.name, text(&line.text))?;
            }
            writeln!(out)?;
        }
        writeln!(out, "{}", text(&checked(case)))?;
    }
    Ok(())
}

/// Writes the findings of one host.
pub(super) fn findings(out: &mut impl Write, case: &Case) -> io::Result<()> {
    let (full, short) = lines::shown(case, false);
    full.iter().try_for_each(|it| finding(out, it))?;
    for it in &short {
        writeln!(out, "- **{}** {}: {}", it.severity.as_str(), it.id, text(&it.headline))?;
    }
    if short.is_empty() { Ok(()) } else { writeln!(out) }
}

fn finding(out: &mut impl Write, it: &Finding) -> io::Result<()> {
    writeln!(out, "### {}: {}\n\n**{}**\n", it.severity.as_str().to_uppercase(), it.id, text(&it.headline))?;
    for line in &it.evidence {
        writeln!(out, "- {} ({})", text(&line.text), line.source)?;
    }
    for (id, headline) in &it.explains {
        writeln!(out, "- so {id}: {}", text(headline))?;
    }
    if !it.evidence.is_empty() || !it.explains.is_empty() {
        writeln!(out)?;
    }
    if !it.why.is_empty() {
        writeln!(out, "Why: {}\n", text(&it.why))?;
    }
    for (name, lines) in [("Do", &it.remedies), ("Don't", &it.mistakes)] {
        if !lines.is_empty() {
            writeln!(out, "{name}:\n")?;
            lines.iter().try_for_each(|line| writeln!(out, "- {}", text(line)))?;
            writeln!(out)?;
        }
    }
    if it.sure.is_empty() { Ok(()) } else { writeln!(out, "Sure: {}\n", text(&it.sure)) }
}

/// Writes a table of rules.
pub(super) fn write_rules(out: &mut impl Write, rules: &[&Rule]) -> io::Result<()> {
    writeln!(out, "| rule | what it finds | needs | recorded |\n| --- | --- | --- | --- |")?;
    for rule in rules {
        let needs: Vec<String> = rule.needs.iter().map(ToString::to_string).collect();
        let recorded = super::fields::recorded(rule);
        writeln!(out, "| {} | {} | {} | {} |", rule.id, text(rule.title), needs.join(", "), text(recorded))?;
    }
    Ok(())
}

/// Writes tables of settings.
pub(super) fn write_settings(out: &mut impl Write, cases: &[Case]) -> io::Result<()> {
    for case in cases {
        let places = &case.settings.places;
        let Some(first) = places.first() else { continue };
        writeln!(out, "## {}\n", text(&title(case, *first)))?;
        writeln!(out, "| setting | value | default | what it does | changing it |\n| --- | --- | --- | --- | --- |")?;
        for row in &case.settings.rows {
            let other = row.netns.filter(|netns| netns != first);
            let other = other.map_or(String::new(), |netns| format!(", {}", place(&case.context, netns)));
            let name = format!("{}{other}", row.name);
            let cells = [&name, shown(row.value.as_deref()), default(row), row.effect, row.risk].map(text);
            writeln!(out, "| {} |", cells.join(" | "))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Writes the page of a rule.
pub(super) fn write_page(out: &mut impl Write, rule: &Rule) -> io::Result<()> {
    let page = &rule.page;
    writeln!(out, "## {}\n\n{}.\n", rule.id, text(rule.title))?;
    let parts = [
        ("Sees", page.sees),
        ("Fires", page.fires),
        ("Silent", page.silent),
        ("Do", page.remedy),
        ("Sources", page.sources),
    ];
    parts.into_iter().try_for_each(|(name, part)| writeln!(out, "**{name}.** {}\n", text(part)))
}

/// Escapes what Markdown would read as markup, and what could steer a terminal.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    let safe = sanitise_message(text);
    if !safe.contains(is_markup) {
        return safe;
    }
    let mut escaped = String::with_capacity(safe.len() + 8);
    for letter in safe.chars() {
        match letter {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            // Mentions of people and channels, where chats read them.
            '@' => escaped.push_str("&#64;"),
            _ => {
                if is_markup(letter) {
                    escaped.push('\\');
                }
                escaped.push(letter);
            }
        }
    }
    escaped.into()
}

fn is_markup(letter: char) -> bool {
    matches!(letter, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '&' | '|' | '#' | '~' | '@')
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("api[4711] holds 348", r"api\[4711\] holds 348")]
    #[case("<script>&", "&lt;script&gt;&amp;")]
    #[case("net.ipv4.tcp_fin_timeout=60 | a", r"net.ipv4.tcp\_fin\_timeout=60 \| a")]
    #[case("@here", "&#64;here")]
    #[case("plain", "plain")]
    fn names_do_not_become_markup(#[case] given: &str, #[case] expected: &str) {
        assert_eq!(text(given), expected);
    }
}
