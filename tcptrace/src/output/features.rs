//! What the kernel lets tcptrace measure, as a table.

use std::io::{self, Write};

use super::Format;
use crate::probe::{Feature, Service};

/// Writes one line a feature.
///
/// # Errors
/// What the writer returns.
pub fn features(mut out: impl Write, format: Format, services: &[(Feature, Service)]) -> io::Result<()> {
    match format {
        Format::Text => text(&mut out, services),
        Format::Json => json(&mut out, services),
        Format::Csv => csv(&mut out, services),
    }
}

fn text(out: &mut impl Write, services: &[(Feature, Service)]) -> io::Result<()> {
    let purpose_width = services.iter().map(|(feature, _)| feature.purpose().len()).max().unwrap_or(0);
    writeln!(out, "{:<3}  {:<purpose_width$}  HOW, OR WHY NOT", "OK", "WHAT")?;
    for (feature, service) in services {
        writeln!(out, "{:<3}  {:<purpose_width$}  {service}", mark(service), feature.purpose())?;
    }
    Ok(())
}

fn mark(service: &Service) -> &'static str {
    if service.is_attached() { "yes" } else { "no" }
}

fn json(out: &mut impl Write, services: &[(Feature, Service)]) -> io::Result<()> {
    for (feature, service) in services {
        let row = serde_json::json!({
            "event": "feature",
            "feature": feature.as_str(),
            "purpose": feature.purpose(),
            "available": service.is_attached(),
            "detail": service.to_string(),
        });
        writeln!(out, "{row}")?;
    }
    Ok(())
}

fn csv(out: &mut impl Write, services: &[(Feature, Service)]) -> io::Result<()> {
    let mut table = ::csv::Writer::from_writer(out);
    table.write_record(["feature", "purpose", "available", "detail"])?;
    for (feature, service) in services {
        let available = if service.is_attached() { "true" } else { "false" };
        table.write_record([feature.as_str(), feature.purpose(), available, &service.to_string()])?;
    }
    table.flush()
}
