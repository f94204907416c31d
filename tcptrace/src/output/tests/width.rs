//! Lines that fit a terminal.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;
use crate::model::row::Entry;
use crate::model::tcp::Tuple;
use crate::output::fields::zone;
use crate::output::{render, width};
use crate::study::snapshot::{By, Count};

fn fitting(columns: usize) -> TextOptions {
    TextOptions { states: true, width: Some(columns), ..PLAIN }
}

/// Rows with IPv4 only, usual names and addresses, and the longest addresses in the last row.
fn usual(identity: Identity) -> Vec<Identity> {
    let ends = [("10.0.0.1:45678", "10.0.0.2:443"), ("192.168.1.10:8080", "172.17.0.2:51234")];
    let longest = ("255.255.255.255:65535", "255.255.255.254:65534");
    let ends = ends.into_iter().chain([longest]);
    ends.map(|(local, remote)| Identity { tuple: samples::tuple(local, remote), ..identity }).collect()
}

fn of_ipv4<R: Clone>(rows: &[R], identity: impl Fn(&mut R) -> &mut Identity) -> Vec<R> {
    let mut usual_rows = Vec::new();
    for place in 0..3 {
        for row in rows {
            let mut row = row.clone();
            let to = identity(&mut row);
            *to = usual(*to)[place];
            usual_rows.push(row);
        }
    }
    usual_rows
}

fn all_kinds(columns: usize) -> String {
    let sections = [
        transitions(Format::Text, fitting(columns)),
        connections(Format::Text, fitting(columns)),
        sockets(Format::Text, fitting(columns)),
        rendered(|out| {
            let mut printer = Format::Text.lister(out, fitting(columns));
            printer.header(Kind::Count)?;
            samples::counts().iter().try_for_each(|row| printer.count(row, &CONTEXT))?;
            printer.flush()
        }),
        ports(Format::Text, fitting(columns)),
        losses(Format::Text, fitting(columns)),
        rendered(|out| {
            let mut printer = Format::Text.printer(out, fitting(columns));
            all(&mut *printer, samples::increases().into_iter().map(Row::Counter))?;
            printer.flush()
        }),
    ];
    sections.join("\n")
}

#[rstest]
#[case(80)]
#[case(100)]
#[case(140)]
fn rows_fit(#[case] columns: usize) {
    assert_snapshot!(format!("rows_fit_{columns}"), all_kinds(columns));
}

/// Without a limit, nothing is narrowed: the output is the same as with a limit that no row reaches.
#[test]
fn a_wide_terminal_shows_what_a_file_gets() {
    // A widened column writes its heads again.
    let words = |text: String| {
        let heads =
            text.lines().next().map(|line| line.split_whitespace().next().map(str::to_owned)).unwrap_or_default();
        let rows = text.lines().filter(|line| line.split_whitespace().next() != heads.as_deref());
        rows.flat_map(str::split_whitespace).map(str::to_owned).collect::<Vec<_>>()
    };
    let options = TextOptions { states: true, ..PLAIN };
    assert_eq!(words(connections(Format::Text, fitting(1000))), words(connections(Format::Text, options.clone())));
    assert_eq!(words(transitions(Format::Text, fitting(1000))), words(transitions(Format::Text, options.clone())));
    assert_eq!(words(sockets(Format::Text, fitting(1000))), words(sockets(Format::Text, options)));
}

#[test]
fn ipv4_never_wraps() {
    let transitions = of_ipv4(&samples::transitions(), |row| &mut row.identity);
    let connections = of_ipv4(&samples::connections(), |row| &mut row.identity);
    let sockets = of_ipv4(&samples::sockets(), |row| &mut row.identity);
    for columns in 80..240 {
        let text = rendered(|out| {
            let mut printer = Format::Text.printer(out, fitting(columns));
            all(&mut *printer, transitions.iter().cloned().map(Row::Transition))?;
            all(&mut *printer, connections.iter().cloned().map(Row::Connection))?;
            printer.flush()
        });
        let listed = rendered(|out| {
            let mut printer = Format::Text.lister(out, fitting(columns));
            sockets.iter().try_for_each(|row| printer.socket(row, &CONTEXT))?;
            printer.flush()
        });
        for line in text.lines().chain(listed.lines()) {
            assert!(width(line) <= columns, "{} of {columns}: {line}", width(line));
        }
    }
}

/// Heads are above their values.
#[rstest]
fn heads_and_rows_agree(#[values(80, 90, 100, 120, 140, 160)] columns: usize) {
    let text = rendered(|out| {
        let mut printer = Format::Text.printer(out, fitting(columns));
        printer.header(Kind::Transition)?;
        all(&mut *printer, std::iter::once(Row::Transition(samples::transition())))?;
        printer.flush()
    });
    let (head, row) = text.split_once('\n').expect("two lines");
    let at = |line: &str, what: &str| line.find(what).map(|at| width(&line[..at]));
    let pairs = [("COMM", "curl"), ("LOCAL", "10.0.0.1:45678"), ("REMOTE", "10.0.0.2:443"), ("NEW", "FIN_WAIT1")];
    for (name, value) in pairs {
        assert_eq!(at(head, name), at(row, value), "{name} in {text}");
    }
    assert_eq!(at(head, "NOTE"), at(row, "active"), "{text}");
}

/// A longer IPv4 address may remove a column: the heads are written again.
#[test]
fn heads_follow_the_columns() {
    let rows = of_ipv4(&[samples::transition()], |row| &mut row.identity);
    let text = rendered(|out| {
        let mut printer = Format::Text.printer(out, fitting(80));
        printer.header(Kind::Transition)?;
        all(&mut *printer, rows.into_iter().map(Row::Transition))?;
        printer.flush()
    });
    assert_snapshot!(text);
}

/// The terminal is made wider, and narrower again.
#[test]
fn a_terminal_that_changes_its_size() {
    let text = rendered(|out| {
        let mut printer = Format::Text.printer(out, fitting(80));
        printer.header(Kind::Transition)?;
        for columns in [80, 140, 140, 100] {
            printer.resize(columns);
            all(&mut *printer, std::iter::once(Row::Transition(samples::transition())))?;
        }
        printer.flush()
    });
    assert_snapshot!(text);
}

fn any_ip() -> impl Strategy<Value = Ipv6Addr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|bytes| Ipv4Addr::from(bytes).to_ipv6_mapped()),
        any::<u128>().prop_map(Ipv6Addr::from),
        any::<u16>().prop_map(|last| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last)),
        any::<[u16; 2]>().prop_map(|[one, other]| Ipv6Addr::new(0x2001, 0xdb8, one, 0, 0, 0, 0, other)),
    ]
}

fn any_identity() -> impl Strategy<Value = Identity> {
    let tuple =
        (any_ip(), any_ip(), any::<u16>(), any::<u16>()).prop_map(|(local_ip, remote_ip, local_port, remote_port)| {
            Tuple { local_ip, remote_ip, local_port, remote_port }
        });
    (tuple, prop::option::of((any::<u32>(), any_comm())), 0_u32..4).prop_map(|(tuple, owner, interface)| {
        let owner = owner.map(|(pid, comm)| {
            let task = crate::model::tcp::Task { pid, tid: pid, comm };
            Owner { task, source: OwnerSource::Scan }
        });
        Identity { tuple, owner, interface, ..samples::identity() }
    })
}

/// Both addresses of a row, as they are written.
fn addresses(identity: &Identity) -> [String; 2] {
    [(identity.local(), b'-'), (identity.remote(), b'*')].map(|(address, no_port)| {
        let mut text = Vec::new();
        render::address_or(&mut text, address, zone(identity, address, &CONTEXT), no_port);
        String::from_utf8(text).expect("ASCII")
    })
}

/// The lines that one printer writes for each row.
fn written<R>(columns: usize, rows: &[R], mut write: impl FnMut(&mut dyn super::super::Lister, &R)) -> Vec<String> {
    let out = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let mut printer = Format::Text.lister(Shared(out.clone()), TextOptions { colour: true, ..fitting(columns) });
    let mut each = |row: &R| {
        write(&mut *printer, row);
        without_colour(&String::from_utf8(out.take()).expect("UTF-8"))
    };
    rows.iter().map(&mut each).collect()
}

struct Shared(std::rc::Rc<std::cell::RefCell<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// No line is wider than the terminal, unless the two addresses are. Both addresses are complete.
fn check(columns: usize, lines: &str, addresses: &[String; 2]) -> Result<(), TestCaseError> {
    let alone = width(&addresses[0]) + 1 + width(&addresses[1]);
    for line in lines.lines() {
        let fits = width(line) <= columns || alone > columns && line.contains(&addresses[0]);
        prop_assert!(fits, "{} of {} columns: {}", width(line), columns, line);
    }
    let is_whole = lines.lines().any(|line| {
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        words.any(|word| word == addresses[0]) && words.any(|word| word == addresses[1])
    });
    prop_assert!(is_whole, "{:?} in {}", addresses, lines);
    Ok(())
}

proptest! {
    #[test]
    fn no_line_is_wider_than_the_terminal(
        columns in 80_usize..220,
        identities in prop::collection::vec(any_identity(), 1..6),
        samples_from in 0_usize..100,
    ) {
        let pick = |place: usize, all: usize| (samples_from + place) % all;
        let changes: Vec<Transition> = identities.iter().enumerate().map(|(place, identity)| {
            let base = samples::transitions();
            Transition { identity: *identity, ..base[pick(place, base.len())] }
        }).collect();
        let lines = written(columns, &changes, |printer, row| {
            assert!(printer.row(&Row::Transition(*row), &CONTEXT).is_ok());
        });
        for (row, lines) in changes.iter().zip(&lines) {
            check(columns, lines, &addresses(&row.identity))?;
        }

        let ends: Vec<Connection> = identities.iter().enumerate().map(|(place, identity)| {
            let base = samples::connections();
            Connection { identity: *identity, ..base[pick(place, base.len())].clone() }
        }).collect();
        let lines = written(columns, &ends, |printer, row| {
            assert!(printer.row(&Row::Connection(row.clone()), &CONTEXT).is_ok());
        });
        for (row, lines) in ends.iter().zip(&lines) {
            check(columns, lines, &addresses(&row.identity))?;
        }

        let entries: Vec<Entry> = identities.iter().enumerate().map(|(place, identity)| {
            let base = samples::sockets();
            Entry { identity: *identity, recv_queue: u32::MAX, ..base[pick(place, base.len())] }
        }).collect();
        let lines = written(columns, &entries, |printer, row| assert!(printer.socket(row, &CONTEXT).is_ok()));
        for (row, lines) in entries.iter().zip(&lines) {
            check(columns, lines, &addresses(&row.identity))?;
        }

        let counts: Vec<Count> = identities.iter().map(|identity| {
            let owner = identity.owner.map(|owner| owner.task);
            Count { by: By::Remote, ends: Some(identity.tuple), owner, total: Some(u64::MAX), ..samples::counts()[0] }
        }).collect();
        let lines = written(columns, &counts, |printer, row| assert!(printer.count(row, &CONTEXT).is_ok()));
        for (identity, lines) in identities.iter().zip(&lines) {
            // Counts cover all interfaces.
            let plain = Identity { interface: 0, ..*identity };
            let text = |address: std::net::SocketAddr| {
                let mut text = Vec::new();
                render::address_or(&mut text, address, None, b'*');
                String::from_utf8(text).expect("ASCII")
            };
            check(columns, lines, &[text(plain.local()), text(plain.remote())])?;
        }
    }
}

#[test]
fn ports_of_any_family_are_whole() {
    let long = |last| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x1234, 0x5678, 0x9abc, 0xdef0, 0x1234, last));
    let text = format!("[{}]:65535", long(0x5678));
    let tuple = samples::tuple(&text, &text);
    let row = Transition { identity: Identity { tuple, ..samples::identity() }, ..samples::transition() };
    let lines = written(80, &[row], |printer, row| {
        assert!(printer.row(&Row::Transition(*row), &CONTEXT).is_ok());
    });
    assert_eq!(lines, [format!("{text} {text} FIN_WAIT1\n")], "the state stays even so");
}
