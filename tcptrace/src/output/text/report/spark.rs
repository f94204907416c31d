//! Small bars, drawn with characters.

/// One character per column, in eighths of the highest value. Zero is a dot; anything more is a bar.
pub(super) fn sparkline(values: &[f64], columns: usize) -> String {
    const EIGHTHS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let means = folded(values, columns);
    let highest = means.iter().copied().fold(0.0, f64::max);
    let character = |mean: f64| match mean / highest {
        share if share > 0.0 => EIGHTHS[((share * 8.0).ceil() as usize).clamp(1, 8) - 1],
        _ => '·',
    };
    means.into_iter().map(character).collect()
}

/// A bar of a share from 0 to 1.
pub(super) fn bar(share: f64, columns: usize) -> String {
    const EIGHTHS: [char; 8] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];
    let eighths = (share * columns as f64 * 8.0).round() as usize;
    let eighths = if share > 0.0 { eighths.max(1) } else { 0 };
    let mut bar: String = std::iter::repeat_n('█', eighths / 8).collect();
    if eighths % 8 > 0 {
        bar.push(EIGHTHS[eighths % 8 - 1]);
    }
    bar
}

/// Means of neighbours, so that at most `columns` values remain.
fn folded(values: &[f64], columns: usize) -> Vec<f64> {
    let columns = columns.min(values.len());
    let bound = |column: usize| column * values.len() / columns;
    let mean = |column: usize| {
        let part = &values[bound(column)..bound(column + 1)];
        part.iter().sum::<f64>() / part.len() as f64
    };
    (0..columns).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparklines() {
        assert_eq!(sparkline(&[], 8), "");
        assert_eq!(sparkline(&[0.0, 0.0], 8), "··");
        assert_eq!(sparkline(&[0.0, 0.01, 4.0, 8.0], 8), "·▁▄█");
        assert_eq!(sparkline(&[0.0, 2.0, 4.0, 4.0], 2), "▂█");
    }

    #[test]
    fn bars() {
        assert_eq!([0.0, 0.001, 0.5, 1.0].map(|share| bar(share, 4)), ["", "▏", "██", "████"]);
    }
}
