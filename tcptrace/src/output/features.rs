//! The features that the kernel supports, as a table.

use std::io::{self, Write};

use super::fields::FEATURE;
use super::{Csv, Format, Json};
use crate::model::feature::{Feature, Service};

/// Writes one line per feature.
///
/// # Errors
/// Errors of the writer.
pub fn features(mut out: impl Write, format: Format, services: &[(Feature, Service)]) -> io::Result<()> {
    match format {
        Format::Text => text(&mut out, services),
        Format::Json => Json::new(out).table(&FEATURE, services),
        Format::Csv => Csv::new(out).table(&FEATURE, services),
    }
}

fn text(out: &mut impl Write, services: &[(Feature, Service)]) -> io::Result<()> {
    let purpose_width = services.iter().map(|(feature, _)| feature.purpose().len()).max().unwrap_or(0);
    let mark_width = services.iter().map(|(_, service)| mark(service).len()).fold(3, usize::max);
    writeln!(out, "{:<mark_width$}  {:<purpose_width$}  HOW, OR WHY NOT", "OK", "WHAT")?;
    for (feature, service) in services {
        writeln!(out, "{:<mark_width$}  {:<purpose_width$}  {service}", mark(service), feature.purpose())?;
    }
    Ok(())
}

fn mark(service: &Service) -> &'static str {
    match service {
        Service::Attached { .. } => "yes",
        Service::Partly { .. } => "part",
        Service::Declined { .. } => "off",
        Service::Unavailable { .. } => "no",
    }
}
