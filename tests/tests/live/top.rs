//! `tcptrace top` in a real terminal, with keys typed and the screen read.

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tcptrace_tests::Namespace;
use tcptrace_tests::attempt::skip;
use tcptrace_tests::process::output;
use tcptrace_tests::program::binary;
use tcptrace_tests::sockets::{address, connect, listen};

use crate::snapshot::Named;

/// Time limit for waiting for the screen.
const PATIENCE: Duration = Duration::from_secs(30);
/// A terminal says nothing when its content changes.
const LOOK: Duration = Duration::from_millis(50);

/// A terminal with a shell that runs `top` and says how it went.
struct Terminal {
    name: String,
}

impl Terminal {
    fn start(name: &str, columns: u16, lines: u16) -> Self {
        if !Path::new("/usr/bin/tmux").exists() {
            skip("tmux is not installed");
        }
        let top = binary().display();
        let script = format!("LC_ALL=C.UTF-8 {top} top; echo EXIT=$?; stty -a; exec sleep 1000");
        Self::run(name, columns, lines, &script)
    }

    fn run(name: &str, columns: u16, lines: u16, script: &str) -> Self {
        let terminal = Self { name: format!("tcptrace-{name}-{}", std::process::id()) };
        let (columns, lines) = (columns.to_string(), lines.to_string());
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &lines, script]);
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.args(["-u", "-L", &self.name]).args(args);
        String::from_utf8_lossy(&output(command).stdout).into_owned()
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", "--", text]);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as wanted, and returns it.
    #[track_caller]
    fn shows(&self, wanted: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if wanted(&screen) {
                return screen;
            }
            assert!(begun.elapsed() < PATIENCE, "{screen}");
            sleep(LOOK);
        }
    }

    #[track_caller]
    fn says(&self, words: &str) -> String {
        self.shows(|screen| screen.contains(words))
    }

    /// The process of `top`: the child of the shell.
    fn pid(&self) -> String {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let children = format!("/proc/{0}/task/{0}/children", shell.trim());
        std::fs::read_to_string(children).expect("the shell runs").trim().to_owned()
    }

    /// The program has ended in order, and the terminal is as it was before.
    #[track_caller]
    fn is_restored(&self) {
        let screen = self.shows(|screen| screen.contains("EXIT=") && screen.contains("echoctl"));
        // What other tests do can make it lose events.
        assert!(["EXIT=0", "EXIT=3"].iter().any(|exit| screen.contains(exit)), "{screen}");
        for mode in ["icanon", "echo"] {
            assert!(screen.split_whitespace().any(|word| word == mode), "{mode}: {screen}");
        }
        assert_eq!(self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]).trim(), "0 1");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let socket = self.tmux(&["display-message", "-p", "#{socket_path}"]);
        self.tmux(&["kill-server"]);
        // It leaves its socket behind.
        let _ = std::fs::remove_file(socket.trim());
    }
}

#[test]
fn keys_and_screen() {
    let _net = Namespace::enter();
    let listener = listen("127.0.0.1");
    let port = address(&listener).port();
    let mut pairs: Vec<_> = (0..3).map(|_| connect(&listener)).collect();
    let terminal = Terminal::start("keys", 110, 30);

    terminal.says("tcptrace top");
    // Filter: with what is wrong said in place, and then as it is typed.
    terminal.keys(&["/"]);
    terminal.text("--prt");
    terminal.says("unexpected argument '--prt'");
    terminal.keys(&["C-u"]);
    terminal.text(&format!("lport {port}"));
    terminal.keys(&["Enter"]);
    let filtered = |screen: &str| screen.contains(&format!("only lport {port}")) && screen.contains(" 3 sockets");
    terminal.shows(filtered);

    // Sort, and group.
    terminal.keys(&["s"]);
    terminal.says("OPEN/S↓");
    terminal.keys(&["g", "g"]);
    terminal.says(&format!("port {port}"));

    // Into the group, and into a connection of it: both ends are here.
    terminal.keys(&["Enter"]);
    terminal.says("3 connections of");
    terminal.keys(&["Enter"]);
    terminal.says("ESTABLISHED");
    let (client, _) = &mut pairs[0];
    client.close();
    terminal.keys(&["Escape"]);
    terminal.shows(|screen| screen.contains("CLOSE_WAIT") && screen.contains("3 connections of"));
    terminal.keys(&["Escape", "Tab"]);
    terminal.says("sockets in CLOSE_WAIT or FIN_WAIT2");

    // Another size.
    terminal.tmux(&["resize-window", "-x", "80", "-y", "24"]);
    let screen = terminal.shows(|screen| screen.contains("in CLOSE_WAIT") && screen.lines().count() <= 24);
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");

    // Paused, it stands still; events are counted nevertheless.
    terminal.keys(&["p"]);
    terminal.says("PAUSED");
    pairs.push(connect(&listener));
    terminal.keys(&["p"]);
    terminal.shows(|screen| screen.contains(" 4 sockets") && !screen.contains("PAUSED"));

    terminal.keys(&["f"]);
    terminal.says("findings of the last seconds");
    terminal.keys(&["?"]);
    terminal.says("this help");
    terminal.keys(&["q"]);
    terminal.is_restored();
}

/// In the sandbox of `top`, no name can be looked up.
#[test]
fn a_namespace_that_comes_later_can_be_chosen() {
    let terminal = Terminal::start("later", 110, 30);
    terminal.says("ESTABLISHED");
    let _net = Namespace::enter_unwatched();
    let name = format!("tcptrace-later-{}", std::process::id());
    let _named = Named::bind(&name);
    let listener = listen("127.0.0.1");
    let _pair = connect(&listener);
    terminal.keys(&["/"]);
    terminal.text(&format!("netns {name}"));
    terminal.shows(|screen| {
        let is_typed = screen.contains(&format!("filter: netns {name}"));
        let is_known = is_typed && !screen.contains("no network namespace");
        if is_typed && !is_known {
            // Each key has the filter judged anew.
            terminal.keys(&["BSpace"]);
            terminal.text(&name[name.len() - 1..]);
        }
        is_known
    });
    terminal.keys(&["Enter"]);
    terminal.shows(|screen| screen.contains(&format!("only netns {name}")) && screen.contains(" 2 sockets"));
    terminal.keys(&["q"]);
    terminal.is_restored();
}

#[test]
fn signals_restore_the_terminal() {
    let _net = Namespace::enter();
    for signal in ["TERM", "INT", "HUP"] {
        let terminal = Terminal::start(&format!("sig{signal}"), 80, 24);
        terminal.says("sockets");
        let mut kill = Command::new("kill");
        kill.args([&format!("-{signal}"), &terminal.pid()]);
        output(kill);
        terminal.is_restored();
    }
}

/// As a job of a shell, it stops with the terminal restored, and goes on where it was.
#[test]
fn a_job_that_stops_and_goes_on() {
    let _net = Namespace::enter();
    let terminal = Terminal::run("job", 80, 24, "env PS1='shell> ' bash --norc --noprofile -i");
    terminal.says("shell>");
    terminal.text(&format!("LC_ALL=C.UTF-8 {} top; echo EXIT=$?; stty -a", binary().display()));
    terminal.keys(&["Enter"]);
    terminal.says("ESTABLISHED");
    terminal.keys(&["f"]);
    terminal.says("findings of the last seconds");
    for key in ["C-z", "kill"] {
        match key {
            "kill" => {
                let mut kill = Command::new("pkill");
                kill.args(["-TSTP", "-P", terminal.tmux(&["display-message", "-p", "#{pane_pid}"]).trim()]);
                output(kill);
            }
            key => terminal.keys(&[key]),
        };
        terminal.shows(|screen| screen.contains("Stopped") && !screen.contains("findings of"));
        assert_eq!(terminal.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]).trim(), "0 1");
        terminal.text("clear; fg");
        terminal.keys(&["Enter"]);
        terminal.says("findings of the last seconds");
    }
    terminal.keys(&["q"]);
    terminal.shows(|screen| screen.contains("shell>") && !screen.contains("findings of"));
    terminal.text("stty -a");
    terminal.keys(&["Enter"]);
    let screen = terminal.says("echoctl");
    assert!(screen.split_whitespace().any(|word| word == "icanon"), "{screen}");
}

/// Reading from a terminal that is gone returns nothing, for ever.
#[test]
fn a_terminal_that_goes_away_ends_it() {
    let terminal = Terminal::start("gone", 80, 24);
    terminal.says("ESTABLISHED");
    let pid = terminal.pid();
    terminal.tmux(&["kill-server"]);
    let begun = Instant::now();
    while Path::new(&format!("/proc/{pid}")).exists() {
        assert!(begun.elapsed() < PATIENCE, "{pid} goes on");
        sleep(LOOK);
    }
}
