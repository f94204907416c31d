//! Messages for rows that a format does not print.

use super::counter_words;
use crate::model::names::Names;
use crate::model::row::Row;

/// The message for a row that a format has no columns for; `None` where the closing lines cover it.
pub fn aside(row: &Row, names: &Names) -> Option<String> {
    match row {
        Row::Loss(row) => Some(row.to_string()),
        Row::Counter(row) => Some(counter_words(row, names)),
        Row::Transition(_) | Row::Connection(_) | Row::Audit(_) => None,
    }
}
