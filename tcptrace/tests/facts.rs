//! What a diagnosis stands on, beside events: that it is read, recorded, and in every file of a trace.

use std::fs::{self, File};
use std::net::Shutdown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tcptrace::live;
use tcptrace::model::criteria::Criteria;
use tcptrace::model::event::{Event, Found, Id, Inspected, Kept};
use tcptrace::model::facts::{AcceptQueue, AcceptQueues, Limit, Limits, Settings};
use tcptrace::model::sink::{Sink, Wishes};
use tcptrace::model::stream::{Head, Item};
use tcptrace::model::tcp::{State, Tuple};
use tcptrace::trace::Reader;
use tcptrace::trace::write::{Memory, Plan, Recorder, Rotate, Store, Target};
use tcptrace_tests::sockets::{address, connect, listen};
use tcptrace_tests::test;
use tcptrace_tests::{Namespace, Tracer, pair};

/// A folder, until dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tcptrace-{name}-{}", std::process::id()));
        fs::create_dir(&path).expect("make a folder");
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn read(path: &Path) -> Vec<Item> {
    let file = File::open(path).unwrap_or_else(|error| unreachable!("{}: {error}", path.display()));
    let (mut reader, mut items) = (Reader::new(file).expect("memory"), Vec::new());
    while reader.next(|_| true, &mut items).expect("read it").is_some() {}
    items
}

/// Takes everything.
#[derive(Default)]
struct Taken(Vec<Item>);

impl Sink for Taken {
    fn take(&mut self, items: &[Item]) -> anyhow::Result<()> {
        self.0.extend_from_slice(items);
        Ok(())
    }

    fn settle(&mut self, _: u64) -> anyhow::Result<()> {
        Ok(())
    }

    fn misses_any(&mut self) -> bool {
        false
    }

    fn wishes(&mut self) -> Wishes {
        Wishes::default()
    }
}

fn head(items: &[Item]) -> &Head {
    let heads = items.iter().find_map(|item| if let Item::Head(head) = item { Some(head) } else { None });
    heads.expect("a head")
}

fn setting<'i>(items: &'i [Item], netns: Option<u32>, name: &str) -> Option<&'i str> {
    items.iter().rev().find_map(|item| match item {
        Item::Settings(settings) if settings.netns == netns => settings.values.get(name).map(|value| &**value),
        _ => None,
    })
}

fn queue(items: &[Item], netns: u32, port: u16) -> Option<AcceptQueue> {
    items.iter().rev().find_map(|item| match item {
        Item::AcceptQueues(told) if told.netns == netns => told.queues.iter().find(|it| it.port == port).copied(),
        _ => None,
    })
}

fn limit(items: &[Item], pid: u32) -> Option<Limit> {
    items.iter().rev().find_map(|item| match item {
        Item::Limits(told) => told.processes.iter().find(|it| it.pid == pid).copied(),
        _ => None,
    })
}

fn inspected(items: &[Item], id: Id) -> Option<Inspected> {
    items.iter().rev().find_map(|item| match item {
        Item::Event(Event::Inspected(inspected)) if inspected.id == id => Some(*inspected),
        _ => None,
    })
}

fn found(items: &[Item], state: State, port: u16) -> Option<Found> {
    items.iter().rev().find_map(|item| match item {
        Item::Event(Event::Found(found)) if (found.state, found.tuple.local_port) == (state, port) => Some(*found),
        _ => None,
    })
}

fn count(items: &[Item], is_it: fn(&Event) -> bool) -> usize {
    items.iter().filter(|item| matches!(item, Item::Event(event) if is_it(event))).count()
}

fn inode(net: &Namespace) -> u32 {
    u32::try_from(net.inode()).expect("32 bits")
}

#[test]
fn a_recording_has_the_sockets_as_they_are_at_its_end() {
    let (net, folder) = (Namespace::enter_unwatched(), Folder::new("recorded-facts"));
    net.sysctl("ipv4/tcp_fin_timeout", "17");
    let trace = folder.file("trace");
    let record = |options: &[&str]| {
        let output = ["record", "--force", "--output", trace.to_str().expect("UTF-8")];
        Tracer::start_in(&net, &[&output, options].concat())
    };
    let tracer = record(&[]);
    let listener = listen("127.0.0.1");
    let port = address(&listener).port();
    let (mut client, mut server) = connect(&listener);
    let _queued = [(); 3].map(|()| std::net::TcpStream::connect(address(&listener)).expect("connect"));
    client.finish_sending();
    server.name();
    let recorded = tracer.interrupt();
    assert_eq!(recorded.code(), 0, "{}", recorded.stderr);
    let items = read(&trace);
    assert!(head(&items).facts);
    assert_eq!(setting(&items, Some(inode(&net)), "net.ipv4.tcp_fin_timeout"), Some("17"));
    assert!(setting(&items, None, "fs.nr_open").is_some());
    assert_eq!(queue(&items, inode(&net), port).map(|queue| queue.queued), Some(3));
    let own = limit(&items, std::process::id()).expect("it has sockets");
    assert!(own.soft.is_some() && own.descriptors.is_some_and(|descriptors| descriptors > 5), "{own:?}");
    let waiting = found(&items, State::CloseWait, port).expect("it waits");
    let waiting = inspected(&items, waiting.id).expect("it is looked at");
    assert_eq!((waiting.recv_queue, waiting.timestamps), (1, Some(true)), "{waiting:?}");
    assert!(waiting.idle.is_some_and(|idle| idle.acked_ms.is_some()));
    // A recording this short can end before its first look begins: then that is the last one, too.
    assert!(count(&items, |event| matches!(event, Event::SurveyEnded { .. })) >= 1);
    assert!(count(&items, |event| matches!(event, Event::ScanEnded { .. })) >= 1);
    client.close();
    server.close();

    let recorded = record(&["--no-facts"]).interrupt();
    assert_eq!(recorded.code(), 0, "{}", recorded.stderr);
    let items = read(&trace);
    assert!(!head(&items).facts);
    let is_fact = |item: &Item| {
        let is_other = matches!(item, Item::Settings(_) | Item::AcceptQueues(_) | Item::Limits(_) | Item::Counters(_));
        is_other || matches!(item, Item::Event(Event::Inspected(_)))
    };
    assert!(!items.iter().any(is_fact));
}

#[test]
fn one_look_sees_what_there_is() {
    let net = Namespace::enter();
    net.sysctl("ipv4/tcp_fin_timeout", "18");
    let listener = listen("127.0.0.1");
    let port = address(&listener).port();
    let queued = [(); 3].map(|()| std::net::TcpStream::connect(address(&listener)).expect("connect"));
    queued[0].shutdown(Shutdown::Write).expect("shut down");
    let mut taken = Taken::default();
    let netns = inode(&net);
    while found(&taken.0, State::CloseWait, port).is_none() {
        taken = Taken::default();
        let looked = live::look(&[netns], &mut taken).expect("a look");
        assert_eq!((looked.coverage.namespaces, looked.coverage.unreadable), (vec![netns], vec![]));
    }
    let items = taken.0;
    let head = head(&items);
    assert!(head.facts && head.existing && head.knows_cookies && !head.boot_id.is_empty());
    assert!(matches!(items[1], Item::Clocks(_)));
    assert_eq!(setting(&items, Some(netns), "net.ipv4.tcp_fin_timeout"), Some("18"));
    let queue = queue(&items, netns, port).expect("it listens");
    assert_eq!((queue.queued, queue.requests), (3, Some(0)));
    let whole = |item: &Item| matches!(item, Item::Counters(sample) if sample.netns == netns && sample.whole);
    assert!(items.iter().any(whole));
    let waiting = found(&items, State::CloseWait, port).expect("it waits");
    assert_eq!((waiting.kept, inspected(&items, waiting.id).map(|it| it.recv_queue)), (Kept::Queued, Some(1)));
    let listening = found(&items, State::Listen, port).expect("it listens");
    let pid = std::process::id();
    let is_ours = |item: &Item| match item {
        Item::Event(Event::Holder(holder)) => (holder.found.id, holder.task.pid) == (listening.id, pid),
        _ => false,
    };
    assert!(items.iter().any(is_ours) && limit(&items, pid).is_some());
    let order = items.iter().filter_map(|item| match item {
        Item::Event(Event::Started { .. }) => Some(0),
        Item::Event(Event::SurveyBegun { .. }) => Some(1),
        Item::Event(Event::Surveyed { .. }) => Some(2),
        Item::Event(Event::SurveyEnded { .. }) => Some(3),
        Item::Event(Event::ScanBegun { .. }) => Some(4),
        Item::Event(Event::ScanEnded { .. }) => Some(5),
        Item::Event(Event::Passed { .. }) => Some(6),
        _ => None,
    });
    assert_eq!(order.collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
}

/// All that a reader of what follows has to know.
fn facts() -> Vec<Item> {
    let settings = |netns, value: &str| {
        let values = [("net.core.somaxconn".into(), value.into())].into();
        Item::Settings(Box::new(Settings { at: 1, netns, values }))
    };
    let ip = std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    let queue = AcceptQueue { conn: 5, ip, port: 80, queued: 2, limit: 128, requests: None, autobound: None };
    let limit = Limit { pid: 7, descriptors: Some(9), soft: Some(1024), hard: None };
    vec![
        settings(None, "1"),
        settings(Some(3), "2"),
        Item::AcceptQueues(Box::new(AcceptQueues { at: 2, netns: 3, queues: vec![queue], gone: vec![] })),
        Item::Limits(Box::new(Limits { at: 3, processes: vec![limit] })),
    ]
}

fn event(at: u64) -> Item {
    let ip = std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    let tuple = Tuple { local_ip: ip, remote_ip: ip, local_port: 80, remote_port: 0 };
    let (id, netns, state) = (Id::Cookie(5), Some(3), State::Listen);
    let (uid, cgroup, interface, kept) = (None, None, 0, Kept::Held);
    Item::Event(Event::Found(Found { at, id, tuple, netns, uid, cgroup, interface, state, kept }))
}

fn are_there(items: &[Item]) {
    assert_eq!(setting(items, None, "net.core.somaxconn"), Some("1"));
    assert_eq!(setting(items, Some(3), "net.core.somaxconn"), Some("2"));
    assert_eq!(queue(items, 3, 80).map(|queue| queue.queued), Some(2));
    assert_eq!(limit(items, 7).and_then(|limit| limit.descriptors), Some(9));
}

const SECOND_NS: u64 = 1_000_000_000;

#[test]
fn each_file_of_a_trace_begins_with_them() {
    let folder = Folder::new("rotated-facts");
    let plan = Plan { path: folder.file("trace.tct"), numbered: true, ..Plan::default() };
    let store = Store::create(&plan).expect("a file");
    // Less than what each begins with.
    let target = Target::Files { store, rotate: Some(Rotate::Bytes(1)), most_bytes: None };
    let mut recorder = Recorder::new(target, Head::default(), Criteria::default(), |_| {}).expect("a recorder");
    recorder.take(&facts()).expect("take them");
    for second in 1..=3 {
        recorder.take(&[event(second * SECOND_NS)]).expect("take it");
        recorder.settle(second * SECOND_NS).expect("settle");
        recorder.settle((second + 1) * SECOND_NS - 1).expect("settle");
    }
    recorder.write_all().expect("write it");
    let files: Vec<_> = fs::read_dir(&folder.0).expect("list them").map(|file| file.expect("a file").path()).collect();
    assert!(files.len() >= 3, "{files:?}");
    files.iter().for_each(|file| are_there(&read(file)));
}

#[test]
fn what_a_flight_recorder_keeps_begins_with_them() {
    let folder = Folder::new("flown-facts");
    let path = folder.file("trace.tct");
    let plan = Plan { path: path.clone(), ..Plan::default() };
    let memory = Memory::new(plan, Duration::from_secs(4), 1 << 20, |_| {}).expect("room");
    let target = Target::Memory(memory);
    let mut recorder = Recorder::new(target, Head::default(), Criteria::default(), |_| {}).expect("a recorder");
    recorder.take(&facts()).expect("take them");
    for second in 1..=60 {
        recorder.take(&[event(second * SECOND_NS)]).expect("take it");
        recorder.settle(second * SECOND_NS).expect("settle");
        recorder.settle((second + 1) * SECOND_NS - 1).expect("settle");
    }
    recorder.write_all().expect("write it");
    let items = read(&path);
    let first = items.iter().find_map(|item| if let Item::Event(event) = item { Some(event.at()) } else { None });
    assert!(first > Some(50 * SECOND_NS), "the beginning is forgotten: {first:?}");
    are_there(&items);
}

/// Who is not root sees what is theirs, and hears of the rest.
#[test]
fn one_look_takes_no_privileges() {
    let net = Namespace::enter();
    let (_client, _server) = pair();
    let taken = std::thread::scope(|scope| {
        let look = || {
            // Of this thread alone, and of those that it starts.
            // SAFETY: it takes no pointers.
            let result = unsafe { nix::libc::syscall(nix::libc::SYS_setresuid, 65_534, 65_534, 65_534) };
            assert_eq!(result, 0);
            let mut taken = Taken::default();
            live::look(&[], &mut taken).map(|looked| (looked, taken.0))
        };
        scope.spawn(look).join().expect("no panic")
    });
    let (looked, items) = taken.expect("a look");
    assert_eq!(looked.coverage.namespaces, [inode(&net)]);
    assert!(head(&items).partial_scans && looked.unseen_processes > 0);
    assert!(setting(&items, Some(inode(&net)), "net.core.somaxconn").is_some());
    assert!(items.iter().any(|item| matches!(item, Item::Counters(sample) if sample.netns == inode(&net))));
    assert!(count(&items, |event| matches!(event, Event::Found(found) if found.state == State::Established)) >= 2);
}
