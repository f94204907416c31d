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

/// Writes, as text, how the memory for ring buffers is divided: how many there are, the size of each, and how many CPUs
/// write to them.
///
/// # Errors
/// Errors of the writer.
pub fn ring_buffers(mut out: impl Write, rings: usize, bytes: u64, cpus: usize) -> io::Result<()> {
    // A power of two.
    let bytes = if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) };
    match (rings, cpus) {
        (1, 1) => writeln!(out, "1 ring buffer of {bytes} for 1 CPU"),
        (1, _) => writeln!(out, "1 ring buffer of {bytes} for {cpus} CPUs"),
        _ => writeln!(out, "{rings} ring buffers of {bytes} each for {cpus} CPUs"),
    }
}

fn mark(service: &Service) -> &'static str {
    match service {
        Service::Attached { .. } => "yes",
        Service::Partly { .. } => "part",
        Service::Declined { .. } => "off",
        Service::Unavailable { .. } => "no",
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::one(1, 1, "1 ring buffer of 8 MiB for 1 CPU\n")]
    #[case::shared(1, 4, "1 ring buffer of 8 MiB for 4 CPUs\n")]
    #[case::one_for_each(2, 2, "2 ring buffers of 8 MiB each for 2 CPUs\n")]
    fn ring_buffers_are_told(#[case] rings: usize, #[case] cpus: usize, #[case] expected: &str) {
        let mut out = Vec::new();
        ring_buffers(&mut out, rings, 8 << 20, cpus).expect("a vector takes everything");
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
    }
}
