//! One connection as it goes on, with its other end where that is here, too.

use jiff::tz::TimeZone;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::paint::{DIM, put, style};
use crate::output::timeline::{Axis, Options, layout};
use crate::study::timeline::Group;

pub(super) fn draw(to: &mut Buffer, area: Rect, connection: Option<&Group>, zone: &TimeZone) {
    let Some(connection) = connection else {
        put(to, area.x, area.y, area.width, "this connection is not known any more", DIM);
        return;
    };
    let options = Options { width: area.width.into(), ascii: false, axis: Axis::Clock, zone: zone.clone() };
    let lines = layout(std::slice::from_ref(connection), &options);
    for (y, line) in (area.y..area.bottom()).zip(&lines) {
        let mut x = area.x;
        for part in &line.0 {
            x += put(to, x, y, area.right().saturating_sub(x), &part.text, style(part.style));
        }
    }
}
