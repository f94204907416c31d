//! What is said of rows that are not printed.

use super::counter_words;
use crate::model::names::Names;
use crate::model::row::Row;

/// What to say beside the data of a row that a format has no place for; `None` where the closing lines say it.
pub fn aside(row: &Row, names: &Names) -> Option<String> {
    match row {
        Row::Loss(row) => Some(row.to_string()),
        Row::Counter(row) => Some(counter_words(row, names)),
        Row::Transition(_) | Row::Connection(_) | Row::Audit(_) => None,
    }
}
