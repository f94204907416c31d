//! Pieces of a page. Whatever is not written here is escaped.

use std::fmt::Write;

/// A page that is being put together.
#[derive(Default)]
pub(super) struct Page {
    pub(super) html: String,
}

/// A cell of a table.
pub(super) enum Cell {
    /// A name, which may be long.
    Name(String),
    /// Words.
    Text(String),
    /// A figure as it is shown.
    Figure(String),
    /// A figure as it is shown, with its name and value in rows of JSON.
    Exact(&'static str, u64, String),
    /// Markup.
    Markup(String),
}

impl Page {
    /// Adds markup.
    pub(super) fn raw(&mut self, markup: &str) {
        self.html.push_str(markup);
        self.html.push('\n');
    }

    /// Adds an element with a text.
    pub(super) fn element(&mut self, tag: &str, class: &str, text: &str) {
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        self.raw(&format!("<{tag}{class}>{}</{tag}>", escaped(text)));
    }

    /// Adds a heading that can be linked to.
    pub(super) fn heading(&mut self, id: &str, text: &str) {
        self.raw(&format!("<h2 id=\"{id}\">{}</h2>", escaped(text)));
    }

    /// Begins a table; words are aligned to the left, figures to the right.
    pub(super) fn table(&mut self, caption: &str, columns: &[(&str, bool)]) {
        let caption =
            if caption.is_empty() { String::new() } else { format!("<caption>{}</caption>", escaped(caption)) };
        self.raw(&format!(
            "<div class=\"scroll\" role=\"region\" aria-label=\"table\" tabindex=\"0\"><table>{caption}<thead><tr>"
        ));
        for (name, is_text) in columns {
            let class = if *is_text { " class=\"text\"" } else { "" };
            self.raw(&format!("<th scope=\"col\"{class}>{}</th>", escaped(name)));
        }
        self.raw("</tr></thead><tbody>");
    }

    /// Adds a row to it: of which kind of rows of JSON, and which one of those.
    pub(super) fn row(&mut self, event: &str, key: &str, class: &str, cells: impl IntoIterator<Item = Cell>) {
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        let mut row = format!("<tr{class} data-event=\"{}\" data-key=\"{}\">", escaped(event), escaped(key));
        for cell in cells {
            // Writing into a String cannot fail.
            let _ = match cell {
                Cell::Name(text) => write!(row, "<td class=\"name\">{}</td>", escaped(&text)),
                Cell::Text(text) => write!(row, "<td class=\"text\">{}</td>", escaped(&text)),
                Cell::Figure(text) => write!(row, "<td>{}</td>", escaped(&text)),
                Cell::Exact(name, value, text) => {
                    write!(row, "<td data-name=\"{name}\" data-value=\"{value}\">{}</td>", escaped(&text))
                }
                Cell::Markup(markup) => write!(row, "<td class=\"bar\">{markup}</td>"),
            };
        }
        self.raw(&format!("{row}</tr>"));
    }

    /// Ends it.
    pub(super) fn end_table(&mut self) {
        self.raw("</tbody></table></div>");
    }
}

/// Text as it may stand in elements and in quoted attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(character),
        }
    }
    safe
}

/// JSON as it may stand in a script element: nothing in it ends that, or begins a comment.
pub(super) fn embedded(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_texts_is_text() {
        assert_eq!(escaped("<b a=\"x\" c='y'>&"), "&lt;b a=&quot;x&quot; c=&#39;y&#39;&gt;&amp;");
        assert_eq!(embedded("{\"comm\":\"</script><!--&\"}"), "{\"comm\":\"\\u003c/script\\u003e\\u003c!--\\u0026\"}");
    }
}
