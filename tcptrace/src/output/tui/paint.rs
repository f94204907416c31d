//! Text on a screen: in colours or without, in Unicode or in ASCII.

use anstyle::{AnsiColor, Color as AnyColor, Effects};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Span;

use crate::model::tcp::State;
use crate::output::{sanitise_message, state_style};
use crate::study::diagnose::finding::Severity;

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub colour: bool,
    pub ascii: bool,
}

pub(super) const PLAIN: Style = Style::new();
pub(super) const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
pub(super) const DIM: Style = Style::new().add_modifier(Modifier::DIM);
pub(super) const BAR: Style = Style::new().add_modifier(Modifier::REVERSED);
/// What must not be overlooked: losses and errors.
pub(super) const ALARM: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
/// What is about to go wrong.
pub(super) const WARNING: Style = Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD);

/// Writes text at a place, cut to `width` columns. Returns how many it took.
pub(super) fn put(to: &mut Buffer, x: u16, y: u16, width: u16, text: &str, style: Style) -> u16 {
    if width == 0 || !to.area.contains((x, y).into()) {
        return 0;
    }
    // Names are made safe where they are put into words; this is for whatever is not.
    let text = sanitise_message(text);
    let (end, _) = to.set_stringn(x, y, text, width.into(), style);
    end - x
}

/// Writes parts, one behind the other.
pub(super) fn put_all(to: &mut Buffer, area: Rect, y: u16, parts: &[(String, Style)]) {
    let mut x = area.x;
    for (text, style) in parts {
        x += put(to, x, y, area.right().saturating_sub(x), text, *style);
    }
}

/// Columns of text.
pub(super) fn width(text: &str) -> u16 {
    u16::try_from(Span::raw(text).width()).unwrap_or(u16::MAX)
}

pub(super) fn of_state(state: State) -> Style {
    style(state_style(state))
}

pub(super) fn of_severity(severity: Severity) -> Style {
    match severity {
        Severity::Critical => ALARM,
        Severity::Warning => WARNING,
        Severity::Note => BOLD,
    }
}

/// The style of a line that is printed elsewhere.
pub(super) fn style(of: anstyle::Style) -> Style {
    let mut style = Style::new();
    if let Some(AnyColor::Ansi(colour)) = of.get_fg_color() {
        style = style.fg(match colour {
            AnsiColor::Black => Color::Black,
            AnsiColor::Red => Color::Red,
            AnsiColor::Green => Color::Green,
            AnsiColor::Yellow => Color::Yellow,
            AnsiColor::Blue => Color::Blue,
            AnsiColor::Magenta => Color::Magenta,
            AnsiColor::Cyan => Color::Cyan,
            AnsiColor::White => Color::Gray,
            AnsiColor::BrightBlack => Color::DarkGray,
            AnsiColor::BrightRed => Color::LightRed,
            AnsiColor::BrightGreen => Color::LightGreen,
            AnsiColor::BrightYellow => Color::LightYellow,
            AnsiColor::BrightBlue => Color::LightBlue,
            AnsiColor::BrightMagenta => Color::LightMagenta,
            AnsiColor::BrightCyan => Color::LightCyan,
            AnsiColor::BrightWhite => Color::White,
        });
    }
    let effects = [
        (Effects::BOLD, Modifier::BOLD),
        (Effects::DIMMED, Modifier::DIM),
        (Effects::UNDERLINE, Modifier::UNDERLINED),
        (Effects::INVERT, Modifier::REVERSED),
    ];
    effects
        .into_iter()
        .filter(|(effect, _)| of.get_effects().contains(*effect))
        .fold(style, |style, (_, modifier)| style.add_modifier(modifier))
}

/// One column for each value, in eighths of the highest one. Zero is a dot.
pub(super) fn sparkline(values: &[f64]) -> String {
    const EIGHTHS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = values.iter().copied().fold(0.0, f64::max);
    let eighth = |value: f64| EIGHTHS[((value / highest * 8.0).ceil() as usize).clamp(1, 8) - 1];
    values.iter().map(|value| if *value > 0.0 { eighth(*value) } else { '·' }).collect()
}

/// Takes away what the terminal cannot show.
pub(super) fn adapt(to: &mut Buffer, look: Look) {
    for cell in &mut to.content {
        if !look.colour {
            (cell.fg, cell.bg) = (Color::Reset, Color::Reset);
        }
        if look.ascii && !cell.symbol().is_ascii() {
            let plain = cell.symbol().chars().next().map_or(' ', plain);
            cell.set_char(plain);
        }
    }
}

/// The nearest ASCII character, in one column.
fn plain(character: char) -> char {
    match character {
        '▁' | '▂' | '·' | '▖' | '▗' => '.',
        '▃' | '▄' => '-',
        '▅' | '▆' => '=',
        '▇' | '█' | '▌' | '▐' | '▟' | '▙' => '#',
        '≥' | '›' | '→' | '▶' => '>',
        '‹' | '←' => '<',
        'µ' => 'u',
        '×' => 'x',
        '…' => '~',
        '–' | '─' => '-',
        '│' | '┌' | '├' | '└' | '╷' => '|',
        '↑' => '^',
        '↓' => 'v',
        _ => '?',
    }
}
