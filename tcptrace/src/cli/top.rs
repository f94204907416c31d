//! `top`: a live screen of the kernel's connections, or of a trace's.

mod ask;
mod live;
mod screen;
mod terminal;
mod traces;

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{ArgAction, Args};
use jiff::tz::TimeZone;

use self::ask::Parsed;
use super::select::{ColourArgs, ProbeArgs, duration};
use super::study::TraceArgs;
use super::timeline::is_ascii;
use super::{Outcome, replay};
use crate::engine::lifecycle::Config;
use crate::kernel::thread_time;
use crate::output::tui::{Look, Playing, View};
use crate::output::{self, Format};
use crate::study::counts::By;
use crate::study::top::{Ask, Frame, Sort, Top};

/// How much of a core work that looks at every socket may take: a 250th.
const SHARE: u32 = 250;
/// The same of frames: a twentieth. They look at what waits, and at the groups.
const SHARE_OF_FRAMES: u32 = 20;

/// Arguments of `top`.
#[derive(Args, Debug)]
#[command(
    mut_arg("files", |files| files
        .required(false)
        .help("Traces to play; none: the live kernel. Several are merged by time. `-` is standard input")),
    mut_arg("since", |time| time.requires("files")),
    mut_arg("until", |time| time.requires("files").alias("to")),
)]
pub(super) struct TopArgs {
    /// Group sockets by this; `g` takes the next one
    #[arg(long, value_enum, value_name = "BY", default_value_t)]
    by: By,
    /// Order of the groups; `s` takes the next one
    #[arg(long, value_enum, value_name = "COLUMN", default_value_t)]
    sort: Sort,
    /// Print one frame and exit: of the kernel after --duration, of a trace at its end
    #[arg(long)]
    once: bool,
    /// Format of --once
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, requires = "once")]
    format: OnceFormat,
    /// Exit after this time (10s, 5m) [default with --once: 1s, and at least until all sockets are found]
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "files")]
    duration: Option<Duration>,
    /// How far back the keys [ and ] can go in the live kernel; it takes some 20 KB a second
    #[arg(long, value_name = "TIME", value_parser = history, default_value = "10m")]
    history: Duration,
    /// Playback speed of a trace: 2 is twice as fast (0.5, 10)
    #[arg(long, value_name = "FACTOR", value_parser = replay::speed, default_value = "1", requires = "files")]
    speed: f64,
    /// Draw with ASCII characters only; the default where the locale is not UTF-8
    #[arg(long, action = ArgAction::SetTrue)]
    ascii: bool,
    #[command(flatten)]
    colours: ColourArgs,
    /// Follow at most this many sockets; beyond that, forget the one that has been idle longest
    #[arg(long, value_name = "N", default_value_t = Config::default().sockets)]
    max_sockets: usize,
    #[command(flatten)]
    probe: ProbeArgs,
    #[command(flatten)]
    trace: TraceArgs,
}

/// Formats of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum OnceFormat {
    /// The panes of the screen, for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

fn history(text: &str) -> Result<Duration> {
    const MOST: Duration = Duration::from_secs(3600);
    let time = duration(text)?;
    if time > MOST {
        bail!("'{text}' is more than 1h");
    }
    Ok(time)
}

impl TopArgs {
    /// Whether it attaches to the kernel.
    pub(super) fn is_live(&self) -> bool {
        self.trace.is_empty()
    }

    fn config(&self) -> Config {
        Config { sockets: self.max_sockets, at_close: true, transitions: true, connections: true, ..Config::default() }
    }

    fn state(&self, ask: Ask) -> Top {
        let seconds = usize::try_from(self.history.as_secs()).unwrap_or(usize::MAX);
        Top::new(!self.is_live(), seconds.max(60), ask)
    }

    fn ask(&self, parsed: &Parsed) -> Ask {
        Ask { by: self.by, sort: self.sort, criteria: parsed.all(None), ..Ask::default() }
    }

    fn view(&self, playing: Playing) -> View {
        let look = Look { colour: self.colours.colour(), ascii: self.ascii() };
        View::new(look, TimeZone::system(), self.by, self.sort, playing)
    }

    fn ascii(&self) -> bool {
        self.ascii || is_ascii()
    }

    fn print(&self, frame: &Frame) -> Result<()> {
        let format = match self.format {
            OnceFormat::Text => Format::Text,
            OnceFormat::Json => Format::Json,
        };
        let columns = super::stdout::terminal().and_then(|(columns, _)| u16::try_from(columns).ok());
        let out = io::BufWriter::new(io::stdout().lock());
        output::top(out, format, frame, columns, self.ascii()).context("cannot write the frame")
    }
}

pub(super) fn run(args: &TopArgs) -> Result<Outcome> {
    let is_dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
    if !args.once && (!io::stdout().is_terminal() || is_dumb) {
        bail!(
            "top needs a terminal on standard output; `tcptrace watch` streams transitions, `tcptrace snapshot` counts \
             sockets, and `tcptrace top --once` prints one frame"
        );
    }
    if args.is_live() { live::run(args) } else { traces::run(args) }
}

/// Work that is done again and again, but takes only a share of the time.
#[derive(Debug)]
struct Regularly {
    least: Duration,
    /// How many times as long as it takes it rests.
    rest: u32,
    next: Instant,
}

impl Regularly {
    fn every(least: Duration, rest: u32) -> Self {
        Self { least, rest, next: Instant::now() }
    }

    /// Does it if it is due.
    fn work(&mut self, work: impl FnOnce()) {
        if self.is_due() {
            let (begun, before) = (Instant::now(), thread_time());
            work();
            self.pause(begun, thread_time().saturating_sub(before));
        }
    }

    fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    /// It was done, and waited for the terminal.
    fn done(&mut self, begun: Instant) {
        self.pause(begun, begun.elapsed());
    }

    fn pause(&mut self, begun: Instant, took: Duration) {
        self.next = begun + self.least.max(took * self.rest);
    }
}

/// What looks at every socket, each as often as is due.
#[derive(Debug)]
struct Chores {
    second: i64,
    findings: Regularly,
    ports: Regularly,
    history: Regularly,
}

impl Chores {
    fn new() -> Self {
        let second = Duration::from_millis(900);
        Self {
            second: 0,
            findings: Regularly::every(second, SHARE),
            ports: Regularly::every(second * 2, SHARE),
            history: Regularly::every(second, SHARE),
        }
    }

    /// Does what is due. Returns whether another second has begun.
    fn work(&mut self, top: &mut Top) -> bool {
        let second = top.second();
        if second == self.second {
            return false;
        }
        self.second = second;
        self.findings.work(|| top.diagnose());
        self.ports.work(|| top.count_ports());
        self.history.work(|| top.remember());
        true
    }
}
