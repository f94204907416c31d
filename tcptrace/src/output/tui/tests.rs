use std::sync::Arc;

use jiff::tz::TimeZone;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use ratatui::style::Color;

use super::*;
use crate::model::names::Names;
use crate::study::counts::By;
use crate::study::top::samples::{play, story};
use crate::study::top::{Ask, Sort, Top};

const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (200, 60)];
const PLAIN: Look = Look { colour: false, ascii: false };

/// A screen with its source.
struct Screen {
    top: Top,
    view: View,
}

impl Screen {
    fn new(look: Look) -> Self {
        let playing = Playing::Live { oldest: None, is_past: false };
        let view = View::new(look, TimeZone::UTC, By::Process, Sort::Sockets, playing);
        let mut screen = Self { top: play(&story(), Ask::default()), view };
        screen.refresh();
        screen
    }

    fn refresh(&mut self) {
        let (by, sort, detail) = self.view.wanted();
        self.top.ask(Ask { by, sort, detail, ..Ask::default() }, &Names::default());
        self.view.take(Arc::new(self.top.frame()), Playing::Live { oldest: None, is_past: false });
    }

    fn press(&mut self, keys: &[KeyCode]) -> Option<Act> {
        let mut last = None;
        for key in keys {
            last = self.view.key(KeyEvent::from(*key));
            if last == Some(Act::Ask) {
                self.refresh();
            }
        }
        last
    }

    fn drawn(&mut self, columns: u16, lines: u16) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(columns, lines)).expect("no I/O");
        let view = &mut self.view;
        terminal.draw(|frame| view.draw(frame.buffer_mut())).expect("no I/O");
        terminal.backend().buffer().clone()
    }

    fn text(&mut self, columns: u16, lines: u16) -> String {
        let mut out = Vec::new();
        view::write(&mut out, &self.drawn(columns, lines)).expect("a Vec takes everything");
        String::from_utf8(out).expect("UTF-8")
    }
}

fn char(character: char) -> KeyCode {
    KeyCode::Char(character)
}

/// Each pane at each size.
#[test]
fn panes() {
    let down = KeyCode::Down;
    let panes: [(&str, &[KeyCode]); 9] = [
        ("groups", &[]),
        ("remotes", &[char('g')]),
        ("lports", &[char('g'), char('g'), char('s')]),
        ("oldest", &[KeyCode::Tab]),
        ("ports", &[KeyCode::Tab, KeyCode::Tab]),
        ("queues", &[KeyCode::Tab, KeyCode::Tab, KeyCode::Tab]),
        ("findings", &[char('f')]),
        ("group", &[down, KeyCode::Enter]),
        ("connection", &[down, KeyCode::Enter, down, char('t')]),
    ];
    for (name, keys) in panes {
        for (columns, lines) in SIZES {
            let mut screen = Screen::new(PLAIN);
            screen.press(keys);
            insta::assert_snapshot!(format!("{name}_{columns}x{lines}"), screen.text(columns, lines));
        }
    }
}

#[test]
fn help_and_filter() {
    let mut screen = Screen::new(PLAIN);
    screen.press(&[char('?')]);
    insta::assert_snapshot!("help_80x24", screen.text(80, 24));
    screen.press(&[KeyCode::Esc, char('/')]);
    assert_eq!(screen.press(&[char('p'), char('o')]), Some(Act::Filter("po".into())));
    screen.view.judge_filter(Some("unexpected argument '--po' found".into()));
    let last = screen.text(80, 24).lines().last().expect("lines").to_owned();
    assert_eq!(last, "filter: po▌   unexpected argument '--po' found");
    // What is wrong is not taken.
    assert_eq!(screen.press(&[KeyCode::Enter]), None);
    assert_eq!(screen.press(&[KeyCode::Esc]), Some(Act::Filter(String::new())));
}

#[test]
fn a_paused_screen_stays() {
    let mut screen = Screen::new(PLAIN);
    let before = screen.text(80, 24);
    assert_eq!(screen.press(&[char('p')]), Some(Act::Pause(true)));
    screen.view.take(Arc::default(), Playing::Live { oldest: None, is_past: false });
    let after = screen.text(80, 24);
    assert!(after.contains("PAUSED"), "{after}");
    assert_eq!(before.lines().nth(1), after.lines().nth(1));
}

/// Nothing of a name reaches the terminal as it is, and wide characters keep their columns.
#[test]
fn hostile_names_cannot_break_the_screen() {
    for look in [PLAIN, Look { colour: true, ascii: true }] {
        let mut screen = Screen::new(look);
        let buffer = screen.drawn(80, 24);
        assert!(buffer.content.iter().all(|cell| !cell.symbol().chars().any(char::is_control)));
        assert!(look.ascii != buffer.content.iter().any(|cell| !cell.symbol().is_ascii()));
    }
}

#[test]
fn without_colour_there_is_none() {
    let colours = |colour| {
        let buffer = Screen::new(Look { colour, ascii: false }).drawn(120, 40);
        buffer.content.iter().filter(|cell| cell.fg != Color::Reset).count()
    };
    assert!(colours(true) > 0);
    assert_eq!(colours(false), 0);
}

#[test]
fn any_size_can_be_drawn() {
    let mut screen = Screen::new(PLAIN);
    for pane in [char('x'), KeyCode::Tab, KeyCode::Tab, KeyCode::Tab, KeyCode::Tab, char('?')] {
        screen.press(&[pane]);
        for (columns, lines) in [(0, 0), (1, 1), (19, 3), (20, 4), (21, 5), (40, 10), (80, 7), (300, 35), (300, 100)] {
            screen.drawn(columns, lines);
        }
    }
}

#[test]
fn keys() {
    let mut screen = Screen::new(PLAIN);
    assert_eq!(screen.press(&[char('q')]), Some(Act::Quit));
    assert_eq!(screen.press(&[char('[')]), Some(Act::Move(-10)));
    assert_eq!(screen.press(&[char('5')]), Some(Act::Percent(50)));
    assert_eq!(screen.press(&[char('+')]), None, "only a trace has a speed");
    assert_eq!(screen.press(&[KeyCode::Esc]), None);
}
