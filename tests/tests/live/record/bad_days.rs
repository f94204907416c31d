//! Recordings under bad conditions: no loss is silent, and recorded events stay.

use std::io::{BufRead, BufReader, PipeReader, Write, pipe};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::*;

/// The numbers of a recorder's closing line: events recorded, and events lost.
fn closing(finished: &Finished) -> [u64; 2] {
    let line = finished.stderr.lines().find(|line| line.contains(" events recorded, ")).unwrap_or_default();
    let number = |after: &str| line.split(after).nth(1)?.split(' ').next()?.parse().ok();
    let numbers = [number("tcptrace: "), number("recorded, ")];
    assert!(numbers.iter().all(Option::is_some), "no closing line: {}", finished.stderr);
    numbers.map(Option::unwrap_or_default)
}

/// The same numbers from a reader: events read, and events lost.
fn read(finished: &Finished) -> [u64; 2] {
    let line = finished.stderr.lines().find(|line| line.contains(" events read, ")).unwrap_or_default();
    let numbers: Vec<u64> = line.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
    assert!(numbers.len() > 2, "no closing line: {}", finished.stderr);
    [numbers[0], numbers[2]]
}

/// Checks that the recorder, the readers and the rows of losses agree.
fn assert_told_alike(recorded: &Finished, replayed: &Finished) {
    assert_eq!(closing(recorded), read(replayed), "{}{}", recorded.stderr, replayed.stderr);
    let lost: u64 =
        rows(replayed).iter().filter(|row| row["event"] == "lost").filter_map(|row| row["count"].as_u64()).sum();
    assert_eq!(lost, read(replayed)[1], "{}", replayed.stderr);
}

fn record(net: &Namespace, trace: &Path, options: &[&str]) -> Tracer {
    Tracer::start_in(net, &[&["record", "--output", path(trace)], options].concat())
}

/// A closed terminal ends a recording as Ctrl-C does, unless SIGHUP was ignored from the start.
#[test]
fn signals() {
    let (net, folder) = (Namespace::enter(), folder());
    for signal in [Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGINT] {
        for options in [&[][..], &["--last", "1h"]] {
            let trace = folder.path().join(format!("{signal}{}", options.len()));
            let tracer = record(&net, &trace, options);
            traffic();
            tracer.signal(signal);
            let finished = tracer.finish();
            assert_eq!(finished.code(), 0, "{signal}: {}", finished.stderr);
            let replayed = replay(&[&trace], &[]);
            assert_eq!(replayed.code(), 0, "{signal}: {}", replayed.stderr);
            assert!(read(&replayed)[0] > 0, "{signal}: {}", replayed.stderr);
            assert_told_alike(&finished, &replayed);
        }
    }
}

#[test]
fn nohup() {
    let (net, folder) = (Namespace::enter(), folder());
    let trace = folder.path().join("trace");
    let mut command = Command::new("nohup");
    command.arg(binary()).args(["record", "--netns", &net.inode().to_string(), "--output", path(&trace)]);
    let tracer = Tracer::follow(command);
    tracer.signal(Signal::SIGHUP);
    traffic();
    let finished = tracer.interrupt();
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let replayed = replay(&[&trace], &["--rows", "connections", "--at-close"]);
    assert!(rows(&replayed).len() >= 4, "it went on: {}", replayed.text());
}

/// Readers report the abrupt end of a killed recording, but not one that still runs.
#[test]
fn cut_off() {
    let (net, folder) = (Namespace::enter(), folder());
    let trace = folder.path().join("trace");
    let tracer = record(&net, &trace, &[]);
    wait_until(|| {
        traffic();
        let running = replay(&[&trace], &[]);
        assert!(!running.stderr.contains("abruptly"), "{}", running.stderr);
        running.text().lines().count() > 5
    });
    tracer.signal(Signal::SIGKILL);
    tracer.finish();
    for command in ["replay", "report", "timeline"] {
        let finished = run(&[command, path(&trace)]);
        assert_eq!(finished.code(), 3, "{command}: {}", finished.stderr);
        assert!(finished.stderr.contains("trace: the recording ended abruptly after "), "{}", finished.stderr);
    }
    // A trace that comes through a pipe has ended when the pipe ends.
    let mut command = Command::new("sh");
    command.args(["-c", "cat \"$1\" | \"$0\" replay -"]).arg(binary()).arg(&trace);
    let piped = run_command(command);
    assert!(piped.stderr.contains("-: the recording ended abruptly after "), "{}", piped.stderr);
}

/// A disk that stays full ends writing, but not counting, and written events stay. The recorder reports how many are
/// missing.
#[test]
fn full_disk() {
    let (net, folder) = (Namespace::enter(), folder());
    let disk = Disk::mount(folder.path(), "64k");
    let trace = disk.0.join("trace");
    let tracer = record(&net, &trace, &[]);
    wait_until(|| {
        traffic();
        tracer.complaints().contains("until there is room again")
    });
    // This is not enough room to go on.
    disk.grow("128k");
    traffic();
    let finished = tracer.interrupt();
    assert_eq!(finished.code(), 3, "{}", finished.stderr);
    assert_eq!(finished.stderr.matches("No space left").count(), 1, "{}", finished.stderr);
    assert!(finished.stderr.contains(" not written)"), "{}", finished.stderr);
    let replayed = replay(&[&trace], &[]);
    assert_eq!(replayed.code(), 3, "{}", replayed.stderr);
    assert!(!replayed.stderr.contains("damage") && !replayed.stderr.contains("abruptly"), "{}", replayed.stderr);
    assert!(replayed.text().lines().count() > 10, "{}", replayed.text());
    assert_told_alike(&finished, &replayed);
    let report = run(&["report", "--format", "json", path(&trace)]);
    let overview: Value = serde_json::from_str(report.text().lines().next().expect("an overview")).expect("JSON");
    assert_eq!([&overview["events"], &overview["lost"]], closing(&finished).map(|number| json!(number)).each_ref());
}

/// A disk that was full and has room again, twice: the recording goes on after a gap each time.
fn disk_that_empties(options: &[&str]) {
    const TIMES: usize = 2;
    let (net, folder, elsewhere) = (Namespace::enter(), folder(), folder());
    let disk = Disk::mount(folder.path(), "2m");
    let (filler, complete) = (disk.0.join("filler"), elsewhere.path().join("trace"));
    let witness = record(&net, &complete, &[]);
    let tracer = record(&net, &disk.0.join("trace"), options);
    let connect_until = |complaint: &str, times: usize| {
        wait_until(|| {
            traffic();
            tracer.complaints().matches(complaint).count() >= times
        });
    };
    let read_all = || replay(&files(&disk.0).iter().map(PathBuf::as_path).collect::<Vec<_>>(), &[]);
    for time in 1..=TIMES {
        disk.fill(&filler);
        connect_until("until there is room again", time);
        fs::remove_file(&filler).expect("remove it");
        connect_until("there is room again: recording continues; ", time);
        let late = pair().0.local.to_string();
        wait_until(|| rows(&read_all()).iter().any(|row| row["local"] == *late));
    }
    let (finished, complete_one) = (tracer.interrupt(), witness.interrupt());
    assert_eq!((finished.code(), complete_one.code()), (3, 0), "{}{}", finished.stderr, complete_one.stderr);
    for said in ["No space left", "there is room again: recording continues; "] {
        assert_eq!(finished.stderr.matches(said).count(), TIMES, "{said}: {}", finished.stderr);
    }
    let replayed = read_all();
    assert_eq!(replayed.code(), 3, "{}", replayed.stderr);
    for unwanted in ["damage", "abruptly", "missing"] {
        assert!(!replayed.stderr.contains(unwanted), "{}", replayed.stderr);
    }
    assert_told_alike(&finished, &replayed);
    let recorded = rows(&replayed);
    assert!(recorded.iter().filter(|row| row["event"] == "lost").count() >= TIMES, "{}", replayed.stderr);
    let transitions = |rows: &[Value]| {
        let are_seen = rows.iter().filter(|row| row["event"] == "transition" && row["old"] != "TIME_WAIT");
        u64::try_from(are_seen.count()).expect("a number")
    };
    let (seen, happened) = (transitions(&recorded), transitions(&rows(&replay(&[&complete], &[]))));
    let lost = closing(&finished)[1];
    assert!(seen <= happened && seen + lost >= happened, "{seen} recorded and {lost} lost of {happened}");
}

#[test]
fn a_disk_that_empties() {
    disk_that_empties(&[]);
}

#[test]
fn a_disk_that_empties_while_files_are_rotated() {
    disk_that_empties(&["--rotate", "64K"]);
}

/// A small file system.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, size: &str) -> Self {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at);
        let finished = run_command(command);
        assert!(finished.status.success(), "{}", finished.stderr);
        Self(at.to_owned())
    }

    /// Fills it with another file.
    fn fill(&self, filler: &Path) {
        let mut file = fs::File::create(filler).expect("a file");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn grow(&self, size: &str) {
        let mut command = Command::new("mount");
        command.args(["-o", &format!("remount,size={size}")]).arg(&self.0);
        let finished = run_command(command);
        assert!(finished.status.success(), "{}", finished.stderr);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let mut command = Command::new("umount");
        command.arg("--lazy").arg(&self.0);
        run_command(command);
    }
}

/// A file at its size limit counts as a full disk.
#[test]
fn limited_file() {
    let (net, folder) = (Namespace::enter(), folder());
    let trace = folder.path().join("trace");
    let mut command = Command::new("bash");
    command.args(["-c", "ulimit -f 16; exec \"$@\"", "bash"]).arg(binary());
    command.args(["record", "--netns", &net.inode().to_string(), "--output", path(&trace)]);
    let tracer = Tracer::follow(command);
    wait_until(|| {
        traffic();
        tracer.complaints().contains("File too large")
    });
    let finished = tracer.interrupt();
    assert_eq!(finished.code(), 3, "{}", finished.stderr);
    assert_told_alike(&finished, &replay(&[&trace], &[]));
}

#[test]
fn deleted() {
    let (net, folder) = (Namespace::enter(), folder());
    let trace = folder.path().join("trace");
    let tracer = record(&net, &trace, &[]);
    wait_until(|| {
        traffic();
        fs::metadata(&trace).is_ok_and(|metadata| metadata.len() > 0)
    });
    fs::remove_file(&trace).expect("remove it");
    wait_until(|| {
        traffic();
        tracer.complaints().contains("was deleted while it was being written; nothing more is written")
    });
    let finished = tracer.interrupt();
    assert_eq!(finished.code(), 3, "{}", finished.stderr);
    assert!(closing(&finished)[0] == 0 && closing(&finished)[1] > 0, "{}", finished.stderr);
}

/// A name that exists is skipped, and a deleted file loses only its own events.
#[test]
fn rotation_goes_on() {
    let (net, folder) = (Namespace::enter(), folder());
    let pattern = folder.path().join("trace.tct");
    let tracer = record(&net, &pattern, &["--rotate", "4K"]);
    let file = |number: u32| folder.path().join(format!("trace.{number:04}.tct"));
    fs::write(file(2), "precious").expect("a file");
    let until = |number: u32| {
        wait_until(|| {
            traffic();
            file(number).exists()
        });
    };
    until(3);
    // Another recorder does not replace this one's files.
    let second = run(&["record", "--force", "--rotate", "4K", "--duration", "0s", "--output", path(&pattern)]);
    assert_eq!(second.code(), 1, "{}", second.stderr);
    assert!(second.stderr.contains("another process is writing it"), "{}", second.stderr);
    until(5);
    let finished = tracer.interrupt();
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    assert_eq!(fs::read_to_string(file(2)).expect("the file"), "precious");
    let numbers: Vec<u32> =
        files(folder.path()).iter().filter_map(|file| number_of(file)).filter(|it| *it != 2).collect();
    let paths: Vec<PathBuf> = numbers.iter().map(|number| file(*number)).collect();
    for path in &paths {
        assert_eq!(replay(&[path], &[]).code(), 0, "each ends as it should: {path:?}");
    }
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let replayed = replay(&paths, &[]);
    assert_eq!(replayed.code(), 0, "{}", replayed.stderr);
    assert_told_alike(&finished, &replayed);
}

/// A failed dump is tried again, and has no other effect.
#[test]
fn dumps_that_fail() {
    let (net, folder) = (Namespace::enter(), folder());
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).expect("a folder");
    let trace = inner.join("trace.tct");
    let tracer = record(&net, &trace, &["--last", "1h"]);
    traffic();
    let dump = |complaint: &str| {
        let before = tracer.complaints().matches(complaint).count();
        tracer.signal(Signal::SIGUSR1);
        wait_until(|| tracer.complaints().matches(complaint).count() > before);
    };
    fs::write(inner.join("trace.0002.tct"), "precious").expect("a file");
    dump("trace.tct'");
    dump("trace.0003.tct'");
    fs::rename(&inner, folder.path().join("away")).expect("rename it");
    dump("No such file or directory");
    fs::rename(folder.path().join("away"), &inner).expect("rename it back");
    // It is tried again by itself.
    wait_until(|| tracer.complaints().contains("trace.0004.tct' now"));
    let many: u32 = 40;
    for number in 5..many {
        dump(&format!("trace.{number:04}.tct'"));
    }
    let count = |what: &str| fs::read_dir(format!("/proc/{}/{what}", tracer.pid())).expect("a process").count();
    // Some threads poll the kernel; none writes any more.
    wait_until(|| count("task") < 6);
    assert!(count("fd") < 60, "{} descriptors", count("fd"));
    let finished = tracer.interrupt();
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    assert_eq!(fs::read_to_string(inner.join("trace.0002.tct")).expect("the file"), "precious");
    let last = inner.join(format!("trace.{many:04}.tct"));
    assert_told_alike(&finished, &replay(&[&last], &[]));
    for file in [inner.join("trace.tct"), inner.join("trace.0003.tct"), inner.join("trace.0010.tct")] {
        let alone = replay(&[&file], &[]);
        assert_eq!(alone.code(), 0, "{file:?}: {}", alone.stderr);
        assert!(read(&alone)[0] > 0, "{file:?}: {}", alone.stderr);
    }
}

/// A last dump for a deleted folder is written to another place.
#[test]
fn nowhere_to_go() {
    let (net, folder) = (Namespace::enter(), folder());
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).expect("a folder");
    let mut command = Command::new(binary());
    command.args(["record", "--last", "1h", "--netns", &net.inode().to_string(), "--output", "inner/trace.tct"]);
    command.current_dir(folder.path());
    let tracer = Tracer::follow(command);
    traffic();
    fs::remove_dir(&inner).expect("remove it");
    let finished = tracer.interrupt();
    assert_eq!(finished.code(), 1, "{}", finished.stderr);
    assert!(finished.stderr.contains("wrote it to './trace.tct' instead"), "{}", finished.stderr);
    assert_told_alike(&finished, &replay(&[&folder.path().join("trace.tct")], &[]));
}

/// If no place accepts it, the recorder keeps it until one does.
#[test]
fn full_everywhere() {
    let (net, folder) = (Namespace::enter(), folder());
    let disk = Disk::mount(folder.path(), "1m");
    fs::write(disk.0.join("full"), vec![0; 1000 << 10]).expect("a file");
    let mut command = Command::new(binary());
    command.args(["record", "--last", "1h", "--netns", &net.inode().to_string(), "--output", "trace.tct"]);
    command.current_dir(&disk.0).env("TMPDIR", &disk.0);
    let tracer = Tracer::follow(command);
    for _ in 0..500 {
        traffic();
    }
    tracer.signal(Signal::SIGTERM);
    wait_until(|| tracer.complaints().contains("retried every second"));
    assert_eq!(files(&disk.0), [disk.0.join("full")], "no partial file");
    fs::remove_file(disk.0.join("full")).expect("remove it");
    let finished = tracer.finish();
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    assert_told_alike(&finished, &replay(&[&disk.0.join("trace.tct")], &[]));
}

/// A file that was to be written because a condition holds is written as soon as there is room, and says why.
#[test]
fn full_when_the_condition_holds() {
    let (net, folder) = (Namespace::enter(), folder());
    let disk = Disk::mount(folder.path(), "256k");
    let (trace, filler) = (disk.0.join("trace.tct"), disk.0.join("filler"));
    let args = ["record", "--last", "1h", "--when", "ESTABLISHED >= 2", "--no-facts", "--output", path(&trace)];
    let tracer = Tracer::start_in(&net, &args);
    disk.fill(&filler);
    let connection = pair();
    wait_until(|| tracer.complaints().contains("memory keeps its events, and writing is tried again"));
    assert_eq!(files(&disk.0), [filler.as_path()], "no partial file");
    fs::remove_file(&filler).expect("remove it");
    wait_until(|| tracer.complaints().contains(&format!(" to '{}' now", trace.display())));
    drop(connection);
    let finished = tracer.interrupt();
    assert_eq!(finished.stderr.matches("No space left").count(), 1, "{}", finished.stderr);
    assert!(finished.stderr.contains("the condition held, and a file was written"), "{}", finished.stderr);
    let report = run(&["report", path(&trace)]);
    assert!(report.text().starts_with("fired at "), "{}", report.text());
}

/// A recording that could not start leaves nothing that blocks the next one. Only the owner can read new files.
#[test]
fn whose_file_it_is() {
    let (_net, folder) = (Namespace::enter(), folder());
    let file = |name: &str| folder.path().join(name);
    fs::write(file("empty"), "").expect("a file");
    fs::write(file("full"), "precious").expect("a file");
    fs::hard_link(file("full"), file("second")).expect("a second name");
    for (name, options) in [("empty", &[][..]), ("full", &["--force"])] {
        let finished = run(&[&["record", "--duration", "0s", "--output", path(&file(name))], options].concat());
        assert_eq!(finished.code(), 0, "{}", finished.stderr);
        assert_eq!(replay(&[&file(name)], &[]).code(), 0);
        assert_eq!(fs::metadata(file(name)).expect("the trace").nlink(), 1);
    }
    assert_eq!(fs::read_to_string(file("second")).expect("the file"), "precious");
    for (name, options) in [("new", &[][..]), ("second", &["--force"])] {
        let trace = file(name);
        let output = ["record", "--object", "/no/such/object", "--output", path(&trace)];
        assert_eq!(run(&[&output, options].concat()).code(), 1);
    }
    assert_eq!(fs::read_to_string(file("second")).expect("the file"), "precious", "until there is something better");
    assert_eq!(files(folder.path()).len(), 3, "{:?}", files(folder.path()));
}

/// Commands that cannot run leave nothing behind, and commands that do not end are killed.
#[test]
fn stubborn_commands() {
    let (net, folder) = (Namespace::enter(), folder());
    let trace = folder.path().join("trace");
    for (command, status) in [("/no/such/command", 127), ("no-such-command", 127), ("/etc/passwd", 126)] {
        let finished = run(&["record", "--output", path(&trace), "--", command]);
        assert_eq!(finished.code(), status, "{}", finished.stderr);
        assert!(finished.stderr.contains(&format!("cannot run '{command}'")), "{}", finished.stderr);
        assert!(!trace.exists());
    }
    let netns = net.inode().to_string();
    let deaf = ["--", "sh", "-c", "trap '' TERM; exec sleep 1000"];
    let timed = ["record", "--force", "--netns", &netns, "--output", path(&trace), "--duration", "100ms"];
    let finished = run(&[&timed, &deaf[..]].concat());
    assert_eq!(finished.code(), 128 + 9, "{}", finished.stderr);
    assert_eq!(replay(&[&trace], &[]).code(), 0);
    // The recording is over, but the command is not.
    let sized = ["record", "--force", "--netns", &netns, "--output", path(&trace), "--max-size", "2K"];
    let tracer = Tracer::start(&[&sized, &deaf[..]].concat());
    wait_until(|| {
        traffic();
        tracer.complaints().contains("all that --max-size allows")
    });
    tracer.signal(Signal::SIGTERM);
    tracer.signal(Signal::SIGTERM);
    assert_eq!(tracer.finish().code(), 128 + 9);
}

/// From one command to the other, without a file.
#[test]
fn through_a_pipe() {
    let net = Namespace::enter();
    let script = "\"$0\" record -o - --netns \"$1\" -- bash -c 'exec 3<>/dev/tcp/127.0.0.1/1; echo aside' | \"$0\" replay --format json -";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(binary()).arg(net.inode().to_string());
    let finished = run_command(command);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let rows = rows(&finished);
    assert!(rows.iter().any(|row| row["reason"] == "refused"), "{rows:?}");
    assert!(finished.stderr.contains("aside"), "what the command prints is kept out of the trace");
    assert_told_alike(&finished, &finished);
}

/// A slow disk is simulated by a pipe that is not read: losses are reported where events are missing.
#[test]
fn slow_disk() {
    let net = Namespace::enter();
    let mut recorder = Recorder::start(&net);
    let [mut gone, stays] = [pair(), pair()];
    wait_until(|| {
        traffic();
        recorder.complaints.lock().expect("its messages").contains("cannot be written fast enough")
    });
    gone.0.reset();
    gone.1.receive_reset();
    let folder = folder();
    let trace = folder.path().join("trace");
    let (mut stdout, mut file) = (recorder.stdout.take().expect("a pipe"), fs::File::create(&trace).expect("a file"));
    let reader = std::thread::spawn(move || std::io::copy(&mut stdout, &mut file));
    // After a loss, tcptrace asks the kernel which sockets exist.
    let end_of = |end: &tcptrace_tests::End| {
        let connections = rows(&replay(&[&trace], &["--rows", "connections"]));
        connections.into_iter().find(|row| row["local"] == end.local.to_string())
    };
    wait_until(|| end_of(&gone.0).is_some());
    let finished = recorder.interrupt();
    reader.join().expect("a reader").expect("room");
    assert_eq!(finished.code(), 3, "{}", finished.stderr);
    let replayed = replay(&[&trace], &[]);
    assert_eq!(replayed.code(), 3, "{}", replayed.stderr);
    assert_told_alike(&finished, &replayed);
    assert_eq!(end_of(&stays.0), None, "it goes on");
}

/// A recorder whose standard output is a pipe that is not read.
struct Recorder {
    child: Child,
    stdout: Option<PipeReader>,
    complaints: Arc<Mutex<String>>,
    listener: std::thread::JoinHandle<()>,
}

impl Recorder {
    fn start(net: &Namespace) -> Self {
        let mut command = Command::new(binary());
        command.args(["record", "--output", "-", "--netns", &net.inode().to_string()]);
        // The smallest pipe, so that it is full soon.
        let (stdout, writer) = pipe().expect("a pipe");
        fcntl(&stdout, FcntlArg::F_SETPIPE_SZ(4096)).expect("a small pipe");
        command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start tcptrace");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let complaints = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&complaints);
        let listener = std::thread::spawn(move || {
            stderr
                .lines()
                .map_while(Result::ok)
                .for_each(|line| *heard.lock().expect("its messages") += &(line + "\n"));
        });
        let recorder = Self { child, stdout: Some(stdout), complaints, listener };
        wait_until(|| recorder.complaints.lock().expect("its messages").contains("tcptrace: ready\n"));
        recorder
    }

    fn interrupt(mut self) -> Finished {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT).expect("a tcptrace to interrupt");
        let status = self.child.wait().expect("its end");
        self.listener.join().expect("a listener");
        Finished { status, stdout: Vec::new(), stderr: self.complaints.lock().expect("its messages").clone() }
    }
}

/// A recording stays whole when the reader of the rows stops.
#[test]
fn nobody_reads_the_rows() {
    let (net, folder) = (Namespace::enter(), folder());
    let trace = folder.path().join("trace");
    let script = "\"$0\" watch --record \"$2\" --netns \"$1\" | { read line; read line; echo \"$line\"; }";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(binary()).arg(net.inode().to_string()).arg(&trace);
    let tracer = Tracer::follow(command);
    wait_until(|| {
        traffic();
        tracer.has_ended()
    });
    let finished = tracer.finish();
    assert!(!finished.stderr.contains("cannot"), "{}", finished.stderr);
    let replayed = replay(&[&trace], &[]);
    assert_eq!(replayed.code(), 0, "{}", replayed.stderr);
    assert_told_alike(&finished, &replayed);
}
