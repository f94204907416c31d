//! Pieces of a page.

use maud::{Markup, Render, html};

/// A cell of a table.
pub(super) enum Cell {
    /// A name, which may be long.
    Name(String),
    /// Text.
    Text(String),
    /// A figure as it is shown.
    Figure(String),
    /// A figure as it is shown, with its name and value in rows of JSON.
    Exact(&'static str, u64, String),
    /// Markup.
    Markup(Markup),
}

impl Render for Cell {
    fn render(&self) -> Markup {
        html! {
            @match self {
                Self::Name(text) => td.name { (text) },
                Self::Text(text) => td.text { (text) },
                Self::Figure(text) => td { (text) },
                Self::Exact(name, value, text) => td data-name=(name) data-value=(value) { (text) },
                Self::Markup(markup) => td.bar { (markup) },
            }
        }
    }
}

/// A heading that can be linked to.
pub(super) fn heading(id: &str, text: &str) -> Markup {
    html! { h2 id=(id) { (text) } }
}

/// A table; words are aligned to the left, figures to the right.
pub(super) fn table(caption: &str, columns: &[(&str, bool)], rows: impl IntoIterator<Item = Markup>) -> Markup {
    html! {
        .scroll role="region" aria-label="table" tabindex="0" {
            table {
                @if !caption.is_empty() { caption { (caption) } }
                thead {
                    tr {
                        @for (name, is_text) in columns { th scope="col" class=[is_text.then_some("text")] { (name) } }
                    }
                }
                tbody { @for row in rows { "\n" (row) } }
            }
        }
    }
}

/// A row of a table. `event` and `key` name the JSON row that it shows.
pub(super) fn row(event: &str, key: &str, class: Option<&str>, cells: impl IntoIterator<Item = Cell>) -> Markup {
    html! { tr class=[class] data-event=(event) data-key=(key) { @for cell in cells { (cell) } } }
}

/// JSON that is safe in a script element: nothing in it ends the element or starts a comment.
pub(super) fn embedded(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_does_not_end_its_element() {
        assert_eq!(embedded("{\"comm\":\"</script><!--&\"}"), "{\"comm\":\"\\u003c/script\\u003e\\u003c!--\\u0026\"}");
    }
}
