mod append;
mod columns;
mod damage;
mod ending;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use proptest::prelude::*;
use rstest::rstest;

use super::block::{BlockHead, FRAME_HEADER, NoHead, VERSION};
use super::decode::LONGEST_NS;
use super::wire::kind;
use super::*;
use crate::engine::lifecycle::Config;
use crate::model::counters::Sample;
use crate::model::criteria::Criteria;
use crate::model::event::{
    Birth, Bound, Call, Cause, Change, EndFacts, Event, FailedCall, Flags, Flow, Found, Holder, Id, Idle, Inspected,
    Kept, KilledBy, Losses, Mini, MiniEvent, Multipath, ResetReason, Reuse, Subflow, Timer, Totals,
};
use crate::model::facts::{AcceptQueue, AcceptQueues, Limit, Limits, Settings};
use crate::model::finding::{Compared, Counter, Finding, Verdict};
use crate::model::fired::Fired;
use crate::model::labels::Labels;
use crate::model::row::Row;
use crate::model::stream::{Clocks, Head, Item, Origin, Summary};
use crate::model::tcp::{Comm, State, Task, Tuple};
use crate::replay::{Recordings, Span};

const RECORDING: [u8; 16] = *b"a recording's id";

/// A file with one block for each list of items.
fn file(blocks: &[Vec<Item>]) -> Vec<u8> {
    let mut encoder = Encoder::new(RECORDING).expect("memory");
    let mut bytes = Vec::new();
    for items in blocks {
        items.iter().for_each(|item| encoder.push(item).expect("it fits"));
        bytes.extend(encoder.finish(0).expect("it can be packed"));
    }
    bytes
}

/// Reads a file: items by block, and damage.
fn read(bytes: &[u8]) -> (Vec<Vec<Item>>, Vec<Damage>) {
    let mut reader = Reader::new(Trickle(bytes)).expect("memory");
    let (mut blocks, mut damages) = (Vec::new(), Vec::new());
    let mut items = Vec::new();
    while let Some(content) = reader.next(|_| true, &mut items).expect("bytes can be read") {
        match content {
            Content::Items { damage, .. } => {
                blocks.push(std::mem::take(&mut items));
                damages.extend(damage);
            }
            Content::Damage(damage) => damages.push(damage),
        }
        assert!(damages.len() <= bytes.len(), "the same damage is reported repeatedly");
    }
    (blocks, damages)
}

/// Returns a few bytes at a time, as a pipe may.
struct Trickle<'b>(&'b [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let few = to.len().min(1000);
        self.0.read(&mut to[..few])
    }
}

/// Three blocks of a few events each.
fn sample() -> Vec<Vec<Item>> {
    let block = |n: u64| {
        let at = 1_000_000 * n;
        let change = Change {
            at,
            id: Id::Cookie(n),
            address: None,
            tuple: tuple(4, n),
            netns: Some(4_026_531_840),
            uid: Some(1000),
            cgroup: None,
            interface: 0,
            old: State::Closed,
            new: State::SynSent,
            flags: Some(Flags { has_socket: true, ..Flags::default() }),
            task: Some(Task { pid: 7, tid: 7, comm: Comm::from("curl") }),
            idle: None,
            end: None,
        };
        let next = Change { at: at + 99, old: State::SynSent, new: State::Established, task: None, ..change };
        vec![Item::Event(Event::Change(change)), Item::Event(Event::Change(next)), Item::Event(Event::Passed { at })]
    };
    (1..=3).map(block).collect()
}

fn tuple(family: u8, n: u64) -> Tuple {
    let ip = if family == 4 { Ipv4Addr::LOCALHOST.to_ipv6_mapped() } else { Ipv6Addr::LOCALHOST };
    Tuple { local_ip: ip, remote_ip: ip, local_port: n as u16, remote_port: 80 }
}

fn states() -> impl Strategy<Value = State> {
    prop::sample::select(State::ALL.to_vec())
}

fn tasks() -> impl Strategy<Value = Option<Task>> {
    let comm = prop_oneof![Just([b'x'; 16]), any::<[u8; 16]>()];
    prop::option::of((0..3_u32, 0..3_u32, comm).prop_map(|(pid, tid, comm)| Task { pid, tid, comm: Comm(comm) }))
}

prop_compose! {
    fn tuples()(ips in any::<[u128; 2]>(), few in 0..3_u64, family in 0..3_u8, ports in any::<[u16; 2]>()) -> Tuple {
        let [local_port, remote_port] = ports;
        let [local_ip, remote_ip] = ips.map(Ipv6Addr::from);
        let mixed = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        match family {
            0 => tuple(4, few),
            1 => tuple(6, few),
            _ => Tuple { local_ip, remote_ip: if few == 0 { mixed } else { remote_ip }, local_port, remote_port },
        }
    }
}

fn ids() -> impl Strategy<Value = Id> {
    let numbers = || prop_oneof![0..5_u64, any::<u64>()];
    prop_oneof![4 => numbers().prop_map(Id::Cookie), 1 => numbers().prop_map(Id::Address)]
}

fn times() -> impl Strategy<Value = u64> {
    prop_oneof![1_000_000..1_000_100_u64, 0..=LONGEST_NS]
}

fn interfaces() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(0), 1 => 1..3_u32, 1 => any::<u32>()]
}

prop_compose! {
    fn end_facts()(
        counts in any::<(u64, u64, u32, u32)>(), srtt_us in any::<Option<u32>>(), err in any::<u16>(),
        bits in any::<[bool; 6]>(), retransmits in any::<u8>(), probes in any::<u8>(),
        mini in prop_oneof![
            Just(Birth::NotWatched), Just(Birth::None),
            (states(), 0..=LONGEST_NS).prop_map(|(substate, due_ns)| Birth::Made { substate, due_ns }),
        ],
    ) -> EndFacts {
        let (bytes_sent, bytes_received, bytes_unread, all) = counts;
        let [keepalive, linger0, linger2_negative, all_acked, in_flight, user_timeout] = bits;
        let totals = Totals {
            bytes_sent, bytes_received, bytes_unread, retransmits: all, srtt_us, ..Totals::default()
        };
        EndFacts {
            totals, err, keepalive, linger0, linger2_negative, all_acked, in_flight, user_timeout, retransmits, probes, mini,
        }
    }
}

fn idles() -> impl Strategy<Value = Option<Idle>> {
    let ms = || prop::option::of(prop_oneof![Just(0), 0..300_u32, any::<u32>()]);
    let idle = [ms(), ms(), ms()].prop_map(|[acked_ms, received_ms, sent_ms]| Idle { acked_ms, received_ms, sent_ms });
    prop::option::of(idle)
}

prop_compose! {
    fn changes()(
        at in times(), id in ids(), address in any::<Option<u64>>(), tuple in tuples(), netns in any::<Option<u32>>(),
        uid in any::<Option<u32>>(), cgroup in any::<Option<u64>>(), (old, new) in (states(), states()),
        (flags, interface) in (any::<Option<([bool; 5], Option<bool>, Option<(bool, bool)>)>>(), interfaces()),
        idle in idles(), task in tasks(), end in prop::option::of(end_facts()),
    ) -> Change {
        let flags = flags.map(|([dead, done, has_socket, rcv_shutdown, send_shutdown], has_sent, reuse)| {
            let reuse = reuse.map(|(address, port)| Reuse { address, port });
            Flags { dead, done, has_socket, rcv_shutdown, send_shutdown, has_sent, reuse }
        });
        Change { at, id, address, tuple, netns, uid, cgroup, interface, old, new, flags, idle, task, end }
    }
}

prop_compose! {
    fn found()(
        at in times(), id in ids(), tuple in tuples(), netns in any::<Option<u32>>(), uid in any::<Option<u32>>(),
        cgroup in any::<Option<u64>>(), interface in interfaces(), state in states(),
        kept in prop_oneof![
            Just(Kept::Held), Just(Kept::Queued), Just(Kept::Orphan), (0..=LONGEST_NS).prop_map(|due_ns| Kept::Mini { due_ns }),
        ],
    ) -> Found {
        Found { at, id, tuple, netns, uid, cgroup, interface, state, kept }
    }
}

fn minis() -> impl Strategy<Value = Mini> {
    use KilledBy::{Admin, Connect, Netns, Reset, Segment, Unknown};
    let killed = prop::sample::select(vec![Admin, Connect, Netns, Reset, Segment, Unknown]).prop_map(MiniEvent::Killed);
    let what = prop_oneof![Just(MiniEvent::Expired), Just(MiniEvent::Fin), Just(MiniEvent::Rearmed), killed];
    let netns = any::<Option<u32>>();
    (times(), ids(), tuples(), netns, states(), -(1 << 60)..=(1_i64 << 60), what).prop_map(
        |(at, id, tuple, netns, substate, due_ns, what)| Mini { at, id, tuple, netns, substate, due_ns, what },
    )
}

fn reasons() -> impl Strategy<Value = ResetReason> {
    use ResetReason::{AbortOnClose, AbortOnData, AbortOnLinger, AbortOnMemory, KeepaliveTimeout, Other, State};
    prop::sample::select(vec![Other, AbortOnData, AbortOnClose, AbortOnLinger, AbortOnMemory, KeepaliveTimeout, State])
}

fn events() -> impl Strategy<Value = Event> {
    let task = || tasks().prop_filter_map("somebody", |task| task);
    let marks = (times(), 0..=LONGEST_NS, any::<u32>(), 0..10).prop_map(|(at, number, netns, which)| match which {
        0 => Event::Started { at },
        1 => Event::SurveyBegun { at },
        2 => Event::Surveyed { at, netns },
        3 => Event::SurveyEnded { at },
        4 => Event::ScanBegun { at },
        5 => Event::ScanEnded { at },
        6 => Event::Lost { at, cause: Cause::ALL[netns as usize % Cause::ALL.len()], events: number },
        7 => Event::Suspended { at, ns: number },
        8 => Event::AcceptsWatched { at, watched: netns % 2 == 0 },
        _ => Event::Passed { at },
    });
    prop_oneof![
        changes().prop_map(Event::Change),
        (times(), ids(), any::<Option<bool>>()).prop_map(|(at, id, shut)| Event::Destroyed { at, id, shut }),
        (times(), ids(), task()).prop_map(|(at, id, task)| Event::Accepted { at, id, task }),
        found().prop_map(Event::Found),
        (found(), task(), any::<u32>()).prop_map(|(found, task, fd)| Event::Holder(Holder { found, task, fd })),
        (times(), ids(), any::<(u64, u64, u32)>()).prop_map(|(at, id, (acked, received, unacked))| {
            Event::Flow(Flow { at, id, acked, received, unacked })
        }),
        inspections().prop_map(Event::Inspected),
        failed_calls().prop_map(Event::FailedCall),
        (times(), ids(), any::<Option<NonZeroU32>>(), prop::option::of(states()))
            .prop_map(|(at, id, token, state)| { Event::Subflow(Subflow { at, id, of: Multipath { token, state } }) }),
        (times(), ids(), reasons()).prop_map(|(at, id, reason)| Event::ResetSent { at, id, reason }),
        (times(), ids()).prop_map(|(at, id)| Event::ResetReceived { at, id }),
        (times(), ids()).prop_map(|(at, id)| Event::Bypassing { at, id }),
        minis().prop_map(Event::Mini),
        marks,
    ]
}

prop_compose! {
    fn inspections()(
        (at, timer_left_ns) in (times(), 0..=LONGEST_NS), id in ids(), (recv_queue, send_queue) in any::<(u32, u32)>(),
        timer in prop::sample::select(vec![Timer::None, Timer::Retransmit, Timer::Keepalive, Timer::TimeWait, Timer::Probe]),
        retransmits in any::<u8>(), idle in idles(),
        (timestamps, bind_no_port) in any::<(Option<bool>, Option<bool>)>(), bound in any::<Option<(u128, u16, Option<u32>)>>(),
    ) -> Inspected {
        let bound = bound.map(|(ip, port, netns)| Bound { ip: ip.into(), port, netns });
        Inspected {
            at, id, recv_queue, send_queue, timer, timer_left_ns, retransmits, idle, timestamps, bind_no_port, bound,
        }
    }
}

prop_compose! {
    fn failed_calls()(
        at in times(), call in prop::sample::select(Call::ALL.to_vec()), errno in any::<u16>(),
        task in tasks().prop_filter_map("somebody", |task| task), fd in any::<u32>(), netns in any::<Option<u32>>(),
        address in any::<Option<(u128, u16)>>(),
    ) -> FailedCall {
        FailedCall { at, call, errno, task, fd, netns, address: address.map(|(ip, port)| (ip.into(), port)) }
    }
}

fn settings() -> impl Strategy<Value = Settings> {
    let text = || "[!-~]{1,64}".prop_map(Into::into);
    let values = prop::collection::btree_map(text(), text(), 0..9);
    (times(), any::<Option<u32>>(), values).prop_map(|(at, netns, values)| Settings { at, netns, values })
}

prop_compose! {
    fn accept_queues()(
        at in times(), netns in any::<u32>(), conns in prop::collection::vec(any::<(u64, u128, u16, u32, u32, Option<u32>, Option<bool>)>(), 0..9),
        gone in prop::collection::vec(any::<u64>(), 0..3),
    ) -> AcceptQueues {
        let queue = |(conn, ip, port, queued, limit, requests, autobound): (_, u128, _, _, _, _, _)| {
            AcceptQueue { conn, ip: ip.into(), port, queued, limit, requests, autobound }
        };
        AcceptQueues { at, netns, queues: conns.into_iter().map(queue).collect(), gone }
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    let limit = any::<(u32, [Option<u64>; 3])>().prop_map(|(pid, [descriptors, soft, hard])| Limit {
        pid,
        descriptors,
        soft,
        hard,
    });
    (times(), prop::collection::vec(limit, 0..9)).prop_map(|(at, processes)| Limits { at, processes })
}

fn samples() -> impl Strategy<Value = Sample> {
    let values = || prop::collection::btree_map("[!-~]{1,64}".prop_map(Into::into), any::<u64>(), 0..9);
    let times = (times(), any::<Option<bool>>().prop_map(|known| known.map(u64::from)), any::<Option<u64>>());
    (times, any::<u32>(), any::<bool>(), values(), values()).prop_map(
        |((at, since, cookie), netns, whole, counts, levels)| Sample {
            at,
            netns,
            cookie,
            whole,
            since,
            quiet_until: since,
            counts,
            levels,
        },
    )
}

fn items() -> impl Strategy<Value = Item> {
    let name = || prop::collection::vec(any::<u8>(), 0..300).prop_map(Into::into);
    prop_oneof![
        20 => events().prop_map(Item::Event),
        1 => (any::<u32>(), name()).prop_map(|(inode, name)| Item::Namespace { inode, name }),
        1 => (any::<u64>(), name()).prop_map(|(id, path)| Item::Group { id, path }),
        1 => any::<(u64, [Option<String>; 3])>().prop_map(|(group, names)| {
            let [pod, pod_namespace, container_name] = names.map(|name| name.map(Into::into));
            Item::Container { group, labels: Box::new(Labels { pod, pod_namespace, container_name }) }
        }),
        1 => any::<(u64, [String; 2], u32)>().prop_map(|(at, [when, headline], figure)| {
            let figures = BTreeMap::from([("CLOSE_WAIT".into(), figure.into())]);
            let finding = serde_json::json!({ "id": "fd-limit", "count": figure });
            let (when, headline, rule) = (when.into(), headline.into(), Some("fd-limit".into()));
            Item::Fired(Box::new(Fired { at: at % LONGEST_NS, when, rule, headline, finding, figures }))
        }),
        1 => (any::<u32>(), any::<u32>(), name()).prop_map(|(netns, index, name)| Item::Interface { netns, index, name }),
        1 => Just(Item::NamesAnew),
        1 => any::<(u32, Option<u64>)>().prop_map(|(pid, group)| Item::Process { pid, group }),
        1 => any::<(u64, u64, i64)>().prop_map(|(boot_ns, monotonic_ns, unix_ns)| {
            Item::Clocks(Clocks { boot_ns, monotonic_ns, unix_ns })
        }),
        1 => any::<[u64; 4]>().prop_map(|[ring_full, output_slow, recursion, unwritten]| {
            Item::Losses(Losses { ring_full, output_slow, recursion, unwritten, ..Losses::default() })
        }),
        1 => (any::<[u64; 4]>(), any::<u32>(), 0..Counter::ALL.len()).prop_map(|([at, seen, expected, within], netns, counter)| {
            let counter = Counter::ALL[counter];
            Item::Audit(Finding::Counter(Compared { at, netns, counter, seen, expected, within }))
        }),
        1 => any::<[u64; 4]>().prop_map(|[at, namespaces, lost, unexplained]| {
            Item::Audit(Finding::Verdict(Verdict { at, namespaces, lost, unexplained, ..Verdict::default() }))
        }),
        1 => samples().prop_map(|sample| Item::Counters(Box::new(sample))),
        1 => settings().prop_map(|settings| Item::Settings(Box::new(settings))),
        1 => accept_queues().prop_map(|queues| Item::AcceptQueues(Box::new(queues))),
        1 => limits().prop_map(|limits| Item::Limits(Box::new(limits))),
        1 => any::<(String, i64, bool, u16)>().prop_map(|(host, started_unix_ns, knows_cookies, port)| {
            let filter = Criteria {
                ports: vec![port],
                networks: vec!["10.0.0.0/8".parse().expect("a network")],
                states: State::ALL.to_vec(),
                ..Criteria::default()
            };
            Item::Head(Box::new(Head { host, started_unix_ns, knows_cookies, filter, ..Head::default() }))
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(blocks in prop::collection::vec(prop::collection::vec(items(), 1..40), 1..4)) {
        let (read, damage) = read(&file(&blocks));
        prop_assert_eq!(damage, []);
        prop_assert_eq!(read, blocks);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read(&bytes);
        // The same bytes with valid checksums.
        let (mut decoder, mut items) = (decode::Decoder::default(), Vec::new());
        while decoder.next(&bytes, 1, None, &mut items) == Ok(true) {}
    }

    /// Any events in any order yield conclusions without a panic.
    #[test]
    fn no_events_make_it_panic(blocks in prop::collection::vec(prop::collection::vec(items(), 1..60), 1..4)) {
        let bytes = file(&blocks);
        let recordings = Recordings::of(vec![("bytes".into(), &bytes[..])]).expect("there are blocks");
        let (config, all) = (Config { sockets: 10_000, ..Config::default() }, Criteria::default());
        let mut nowhere = |_: &Row, _: &Origin| Ok::<(), io::Error>(());
        recordings.tell(config, &all, Span::default(), true, &mut nowhere).expect("bytes can be read");
    }

    /// Inserted, removed and changed bytes damage only the blocks that contain them.
    #[test]
    fn damage_costs_its_block(
        place in any::<prop::sample::Index>(), removed in 0..50_usize, put in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let whole = sample();
        let mut bytes = file(&whole);
        let (ends, len) = (ends(&bytes), bytes.len());
        let from = place.index(len);
        let to = (from + removed).min(len);
        bytes.splice(from..to, put.clone());
        let (read, _) = read(&bytes);
        let begins = |index: usize| if index == 0 { 0 } else { ends[index - 1] };
        let touched = |index: usize| from < ends[index] && (to > begins(index) || (put.len() + to > from && from > begins(index)));
        for (index, block) in whole.iter().enumerate() {
            prop_assert!(touched(index) || read.contains(block), "block {} was not touched", index);
        }
        for block in &read {
            prop_assert!(whole.contains(block), "{:?} was never written", block);
        }
    }
}

/// Where blocks end.
fn ends(bytes: &[u8]) -> Vec<usize> {
    let mut blocks = Blocks::new(bytes).expect("memory");
    let mut ends = Vec::new();
    while blocks.next(|_| true).expect("bytes can be read").is_some() {
        ends.push(blocks.offset() as usize);
    }
    ends
}

#[test]
fn a_file_may_be_cut_anywhere() {
    let whole = sample();
    let bytes = file(&whole);
    let ends = ends(&bytes);
    for len in 0..bytes.len() {
        let (read, damage) = read(&bytes[..len]);
        let complete = ends.iter().filter(|end| **end <= len).count();
        assert_eq!(read, whole[..complete], "cut at {len}");
        let is_clean = len == 0 || ends.contains(&len);
        assert_eq!(damage.is_empty(), is_clean, "cut at {len}: {damage:?}");
    }
}

#[test]
fn every_flipped_bit_is_found_and_costs_its_block() {
    let whole = sample();
    let bytes = file(&whole);
    let ends = ends(&bytes);
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let hit = ends.iter().position(|end| bit / 8 < *end).expect("it is in a block");
        let (read, damage) = read(&bytes);
        let others: Vec<_> =
            whole.iter().enumerate().filter(|(index, _)| *index != hit).map(|(_, block)| block.clone()).collect();
        // Zstandard ignores some bits of its own headers.
        assert!(read == others && damage.len() == 1 || read == whole, "bit {bit}: {} blocks, {damage:?}", read.len());
    }
}

#[test]
fn every_tool_for_zstandard_can_open_it() {
    let bytes = file(&sample());
    let unpacked = zstd::stream::decode_all(&bytes[..]).expect("it is whole");
    let (blocks, _) = read(&bytes);
    assert!(unpacked.len() > blocks.len() * 20, "{} bytes", unpacked.len());
}

/// A block with these records.
fn block(raw: &[u8]) -> Vec<u8> {
    let data = {
        let mut compressor = zstd::bulk::Compressor::new(1).expect("memory");
        compressor.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true)).expect("it is known");
        compressor.compress(raw).expect("it can be packed")
    };
    let bytes = file(&[vec![Item::Event(Event::Passed { at: 5 })]]);
    let mut head = BlockHead::parse(&bytes[FRAME_HEADER..][..size_of::<BlockHead>()]).expect("a head");
    head.raw_len.set(raw.len() as u32);
    head.data_len.set(data.len() as u32);
    [&head.frame()[..], &data].concat()
}

#[test]
fn additions_of_later_versions_are_skipped() {
    let passed = |after: u8, more: &[u8]| [&[kind::PASSED, 2 + more.len() as u8, after, 0], more].concat();
    let raw = [&passed(2, b"")[..], &[200, 3, 1, 2, 3], &passed(4, b"more"), &[255, 0]].concat();
    let (read, damage) = read(&block(&raw));
    assert_eq!(damage, []);
    assert_eq!(read, [[1, 3].map(|at| Item::Event(Event::Passed { at }))]);
}

#[rstest]
#[case::length_beyond_the_block(&[kind::PASSED, 200])]
#[case::no_length(&[kind::PASSED])]
#[case::endless_length(&[kind::PASSED, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255])]
#[case::body_too_short(&[kind::CHANGE, 1, 0])]
#[case::unknown_socket(&[kind::DESTROYED, 4, 0, 9, 0, 0])]
#[case::unknown_state(&[kind::SOCKET, 16, 0, 2, 1, 2, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, kind::CHANGE, 5, 0, 0, 0xff, 0, 0])]
#[case::time_before_the_beginning(&[kind::PASSED, 2, 3, 0])]
#[case::time_beyond_all(&[kind::PASSED, 11, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0])]
#[case::zeros(&[0, 0, 0, 0])]
#[case::head_that_is_no_json(&[kind::HEAD, 1, b'{'])]
fn invalid_records_are_damage(#[case] end: &[u8]) {
    let raw = [&[kind::PASSED, 2, 2, 0], end].concat();
    let (read, damage) = read(&block(&raw));
    assert_eq!(read, [[Item::Event(Event::Passed { at: 1 })]], "earlier items stay");
    assert!(matches!(damage[..], [Damage { what: Wrong::Record(_), .. }]), "{damage:?}");
}

#[test]
fn a_later_format_is_refused() {
    let bytes = file(&sample());
    let mut head = BlockHead::parse(&bytes[FRAME_HEADER..][..size_of::<BlockHead>()]).expect("a head");
    head.version.set(VERSION + 1);
    let later = [&head.frame()[..], &bytes[head.frame().len()..]].concat();
    let (blocks, damage) = read(&later);
    assert!(blocks.is_empty());
    assert_eq!(damage[0].what, Wrong::NoBlock(NoHead::Later(VERSION + 1)));
    let error = Recordings::of(vec![("x.tct".into(), &later[..])]).err().expect("it is refused").to_string();
    assert!(error.starts_with("cannot read the trace 'x.tct': it was written in format 3 by a later"), "{error}");
}

#[rstest]
#[case::raw(true)]
#[case::packed(false)]
fn claims_are_not_believed(#[case] raw: bool) {
    let bytes = file(&sample()[..1]);
    let mut head = BlockHead::parse(&bytes[FRAME_HEADER..][..size_of::<BlockHead>()]).expect("a head");
    let len = if raw { &mut head.raw_len } else { &mut head.data_len };
    len.set(u32::MAX);
    let lying = [&head.frame()[..], &bytes[head.frame().len()..]].concat();
    let (blocks, damage) = read(&lying);
    assert!(blocks.is_empty());
    assert_eq!(damage[0].what, Wrong::NoBlock(NoHead::TooLong(u32::MAX)));
}

/// Rows of a file, for some sockets or for all.
fn rows_of(bytes: &[u8], only: Option<&[u64]>) -> Vec<Row> {
    let recordings = Recordings::of(vec![("bytes".into(), bytes)]).expect("a trace");
    let recordings = match only {
        Some(ids) => recordings.only(ids.iter().copied().collect()),
        None => recordings,
    };
    let mut rows = Vec::new();
    let mut keep = |row: &Row, _: &Origin| {
        rows.push(row.clone());
        Ok(())
    };
    let told: io::Result<Summary> =
        recordings.tell(Config::default(), &Criteria::default(), Span::default(), true, &mut keep);
    told.expect("bytes can be read");
    rows
}

/// Readers skip blocks by their heads; the rows of the remaining sockets stay the same.
#[test]
fn rows_of_some_sockets_are_the_same() {
    let mut blocks = sample();
    blocks[0].insert(0, Item::Event(Event::Started { at: 1 }));
    blocks.push(vec![
        Item::Event(Event::Lost { at: 4_000_000, cause: Cause::RingFull, events: 3 }),
        Item::Event(Event::Passed { at: 9_000_000 }),
    ]);
    let bytes = file(&blocks);
    let all = rows_of(&bytes, None);
    assert_eq!(all.len(), 10, "two transitions and an open connection each, and a loss: {all:?}");
    for id in 1..=3 {
        let expected: Vec<_> =
            all.iter().filter(|row| row.identity().is_none_or(|identity| identity.conn == id)).cloned().collect();
        assert_eq!(rows_of(&bytes, Some(&[id])), expected, "{id}");
    }
    assert_eq!(rows_of(&bytes, Some(&[1, 2, 3])), all);
}

/// The first traces did not record why events were lost, and a later version may add causes.
#[rstest]
#[case::none(&[kind::LOST, 2, 10, 7], Cause::Unknown)]
#[case::one(&[kind::LOST, 3, 10, 7, 1], Cause::RingFull)]
#[case::another(&[kind::LOST, 4, 10, 7, 200, 99], Cause::Unknown)]
fn losses_of_other_versions(#[case] raw: &[u8], #[case] cause: Cause) {
    let mut items = Vec::new();
    assert_eq!(decode::Decoder::default().next(raw, 1, None, &mut items), Ok(true));
    assert_eq!(items, [Item::Event(Event::Lost { at: 5, cause, events: 7 })]);
    let losses = r#"{"ring_full":3,"ring_full_others":4,"recursion":5,"filtered":6,"unwritten":7}"#;
    let losses: Losses = serde_json::from_str(losses).expect("losses as they were written at first");
    assert_eq!((losses.total(), losses.output_slow), (19, 0));
}

/// A block that was packed and never written is no damage: the losses include it.
#[test]
fn a_block_that_is_taken_back_leaves_no_gap() {
    let mut encoder = Encoder::new(RECORDING).expect("memory");
    let mut bytes = Vec::new();
    for (number, items) in sample().iter().enumerate() {
        items.iter().for_each(|item| encoder.push(item).expect("it fits"));
        let block = encoder.finish(0).expect("it can be packed");
        if number == 1 {
            encoder.take_back(1);
        } else {
            bytes.extend(block);
        }
    }
    let recordings = Recordings::of(vec![("bytes".into(), &bytes[..])]).expect("a trace");
    let mut none = |_: &Row, _: &Origin| Ok(());
    let told: io::Result<Summary> =
        recordings.tell(Config::default(), &Criteria::default(), Span::default(), false, &mut none);
    let summary = told.expect("bytes can be read");
    assert_eq!(summary.damage, [], "{summary:?}");
}

/// A block of other, older and younger sockets was once taken for the end.
#[test]
fn reading_goes_on_behind_a_block_of_others() {
    let mut blocks = sample();
    let gone = |at, id| Item::Event(Event::Destroyed { at, id: Id::Cookie(id), shut: None });
    blocks.push(vec![gone(4_000_000, 1), gone(4_000_001, 3)]);
    blocks.push(vec![gone(5_000_000, 2)]);
    let ends = |row: &Row| matches!(row, Row::Connection(row) if row.closed_ns() == Some(5_000_000));
    let rows = rows_of(&file(&blocks), Some(&[2]));
    assert_eq!(rows.iter().filter(|row| ends(row)).count(), 1, "{rows:?}");
}

#[test]
fn sockets_are_found_by_their_tuples() {
    let bytes = file(&sample());
    let recordings = Recordings::of(vec![("bytes".into(), &bytes[..])]).expect("a trace");
    let ids = recordings.ids_of(&[tuple(4, 1), tuple(4, 3), tuple(4, 9)].into()).expect("bytes can be read");
    assert_eq!(ids, [1, 3].into());
}
