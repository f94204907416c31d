use std::fs::{self, File};
use std::io;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::thread;

use caps::CapSet;
use nix::libc;

use super::*;

/// Runs in a thread of its own, which alone enters the sandbox.
fn within<T: Send>(sandbox: Sandbox, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let confined = scope.spawn(|| {
            sandbox.enter();
            work()
        });
        confined.join().expect("no panic")
    })
}

fn is_refused<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Whether this kernel has Landlock.
fn restricts_files() -> bool {
    within(Sandbox::default(), || is_refused(File::open("/etc/passwd")))
}

#[tcptrace_tests::test]
fn nothing_is_left_but_what_is_open() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("there");
    fs::write(&path, "text").expect("write it");
    let open = File::open(&path).expect("open it");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("its address");
    let is_whole = restricts_files();
    within(Sandbox::default(), || {
        assert_eq!(io::read_to_string(&open).expect("read it"), "text");
        for refused in [File::open(&path), File::create(&path), File::create(folder.path().join("new"))] {
            assert_eq!(is_refused(refused), is_whole);
        }
        assert!(is_refused(fs::set_permissions(&path, fs::Permissions::from_mode(0o777))));
        assert!(is_refused(Command::new("/bin/true").status()), "a program");
        assert!(is_refused(TcpStream::connect(address)), "the network");
        assert!(is_refused(UnixDatagram::unbound()), "local sockets");
        assert!(UnixStream::pair().is_ok(), "a pair of them leads nowhere");
        assert!(thread::spawn(|| is_refused(Command::new("/bin/true").status())).join().expect("a thread"));
        for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Ambient] {
            assert!(caps::read(None, set).expect("its capabilities").is_empty(), "{set:?}");
        }
        // SAFETY: signal 0 does nothing.
        assert_eq!(unsafe { libc::kill(libc::getppid(), 0) }, -1);
        assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::EPERM));
        // SAFETY: the calling thread only.
        assert_eq!(unsafe { libc::fork() }, -1);
        // SAFETY: as above: the number 0x40000027 is that of `getpid` in the x32 ABI, which nothing else can confuse.
        assert_eq!(unsafe { libc::syscall(0x4000_0027) }, -1, "another ABI");
    });
    assert_eq!(fs::read_to_string(&path).expect("read it"), "text");
}

#[tcptrace_tests::test]
fn a_file_gets_its_name_in_the_folder_of_the_output_only() {
    let [out, other] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let [hidden, named] = ["hidden", "named"].map(|name| out.path().join(name));
    fs::write(&hidden, "rows").expect("write it");
    fs::write(other.path().join("there"), "text").expect("write it");
    let is_whole = restricts_files();
    within(Sandbox::default().naming_in(out.path()), || {
        fs::hard_link(&hidden, &named).expect("name it");
        File::open(&named).and_then(|file| file.sync_all()).expect("save it");
        fs::remove_file(&hidden).expect("remove it");
        assert_eq!(is_refused(fs::write(&named, "else")), is_whole);
        assert_eq!(is_refused(fs::rename(&named, other.path().join("named"))), is_whole);
        assert_eq!(is_refused(fs::remove_file(other.path().join("there"))), is_whole);
    });
}

#[tcptrace_tests::test]
fn a_data_set_grows_in_its_folder_only() {
    let [out, other] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let is_whole = restricts_files();
    within(Sandbox::default().writing_below(out.path()), || {
        let below = out.path().join("date=2026-11-26");
        fs::create_dir(&below).expect("a folder");
        fs::write(below.join(".part"), "rows").expect("write it");
        fs::hard_link(below.join(".part"), below.join("part")).expect("name it");
        fs::remove_file(below.join(".part")).expect("remove it");
        assert_eq!(is_refused(fs::create_dir(other.path().join("date"))), is_whole);
    });
}

#[test]
fn times_are_still_local() {
    let zone = |name: &str| jiff::tz::TimeZone::get(name).map(|zone| zone.iana_name().map(str::to_owned));
    let expected = zone("Europe/Vienna").ok();
    assert_eq!(within(Sandbox::default(), || zone("Europe/Vienna").ok()), expected);
}
