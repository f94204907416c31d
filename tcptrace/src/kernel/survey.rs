//! Every TCP socket of every network namespace.

mod inspection;

use std::collections::BTreeSet;

use nix::libc;

use self::inspection::Inspection;
use super::diag::{DiagError, Dump, Wanted, dump, mptcp};
use super::namespaces::{Namespace, Namespaces};
use crate::model::socket::Socket;
use crate::model::tcp::State;

/// What a survey has covered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Network namespaces whose sockets were all listed.
    pub namespaces: Vec<u32>,
    /// Namespaces that changed during the survey: sockets may be missing.
    pub interrupted: Vec<u32>,
    /// Namespaces whose sockets could not be listed, or not all of them, and why.
    pub unreadable: Vec<(u32, String)>,
    /// The interfaces of sockets with link-local addresses.
    pub interfaces: Vec<Interface>,
    /// Number of processes whose network namespace tcptrace may not read.
    pub unseen_processes: usize,
}

/// An interface of a network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The network namespace.
    pub netns: Option<u32>,
    /// Its index.
    pub index: u32,
    /// Its name; empty if it went away.
    pub name: Box<[u8]>,
}

impl Coverage {
    /// Whether nothing is missing, in all network namespaces or in the requested ones.
    pub fn is_complete(&self) -> bool {
        self.interrupted.is_empty() && self.unreadable.is_empty() && self.unseen_processes == 0
    }
}

/// A piece of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A socket.
    Socket(Socket),
    /// The kernel shows this of a socket that it has named, or of one that is bound and nothing else, if those are wanted, too.
    /// Sockets that wait for somebody, that listen, or whose data waits are shown, and of other connections some of each kind.
    Inspected(Socket),
    /// An MPTCP socket. If paths are wanted, those of a namespace come before its TCP sockets.
    Multipath(Socket),
    /// Every socket of this network namespace was listed.
    Namespace(u32),
}

/// Asks for the wanted TCP sockets of all these network namespaces (or of those in `only`, if it is not empty), of
/// `AF_INET`, of `AF_INET6`, or both. Begins with the calling thread's own namespace, which needs no privileges.
/// Changes the network namespace of the calling thread: call it in a thread of its own.
///
/// # Errors
///
/// If the calling thread's own namespace cannot be listed. The [`Coverage`] has the errors of others.
pub fn survey(
    namespaces: &Namespaces,
    only: &[u32],
    wanted: Wanted,
    ipv4: bool,
    ipv6: bool,
    sink: &mut dyn FnMut(Answer),
) -> Result<Coverage, DiagError> {
    let coverage = Coverage { unseen_processes: namespaces.unseen_processes, ..Coverage::default() };
    let mut survey = Survey { only, wanted, ipv4, ipv6, coverage, sink };
    let own = Namespaces::own_namespace();
    survey.here(own)?;
    namespaces.iter().filter(|namespace| Some(namespace.inode) != own).for_each(|other| survey.elsewhere(other));
    survey.note_missing(namespaces);
    Ok(survey.coverage)
}

struct Survey<'a> {
    only: &'a [u32],
    wanted: Wanted,
    ipv4: bool,
    ipv6: bool,
    coverage: Coverage,
    sink: &'a mut dyn FnMut(Answer),
}

impl Survey<'_> {
    fn is_wanted(&self, inode: u32) -> bool {
        self.only.is_empty() || self.only.contains(&inode)
    }

    /// Without `/proc`, the thread's own namespace has no number, but it has sockets.
    fn here(&mut self, own: Option<u32>) -> Result<(), DiagError> {
        match own {
            Some(inode) if self.is_wanted(inode) => {
                let dump = self.dump(own)?;
                self.finish(inode, dump);
            }
            None if self.only.is_empty() => drop(self.dump(None)?),
            _ => {}
        }
        Ok(())
    }

    fn elsewhere(&mut self, other: &Namespace) {
        if !self.is_wanted(other.inode) {
            return;
        }
        match other.enter() {
            Ok(true) => match self.dump(Some(other.inode)) {
                Ok(dump) => self.finish(other.inode, dump),
                Err(error) => self.give_up(other.inode, error.to_string()),
            },
            // It is gone since it was found, and its sockets with it.
            Ok(false) => {}
            Err(error) => self.give_up(other.inode, format!("cannot enter it: {error}")),
        }
    }

    fn dump(&mut self, inode: Option<u32>) -> Result<Dump, DiagError> {
        let wanted = self.wanted_here(inode);
        let Self { ipv4, ipv6, sink, coverage, .. } = self;
        let mut indexes = BTreeSet::new();
        let mut inspection = Inspection::new(wanted);
        let result = dump(inode, wanted, *ipv4, *ipv6, &mut |socket| {
            if socket.found.interface != 0 {
                indexes.insert(socket.found.interface);
            }
            inspection.take(socket, sink);
        });
        inspection.finish(inode, *ipv4, *ipv6, sink);
        // The thread is still in the namespace that these numbers belong to.
        let interface = |index| Interface { netns: inode, index, name: name_of(index) };
        coverage.interfaces.extend(indexes.into_iter().map(interface));
        result
    }

    /// Which TCP sockets to ask for, after the MPTCP sockets. An MPTCP listener is known by its inode number.
    fn wanted_here(&mut self, inode: Option<u32>) -> Wanted {
        let without_paths = match self.wanted {
            Wanted::AllAndPaths => Wanted::All,
            Wanted::AllAndBoundAndPaths => Wanted::AllAndBound,
            other => return other,
        };
        let (sink, mut has_connections) = (&mut self.sink, false);
        mptcp(inode, &mut |socket| {
            has_connections |= socket.found.state != State::Listen;
            sink(Answer::Multipath(socket));
        });
        if has_connections { self.wanted } else { without_paths }
    }

    fn finish(&mut self, inode: u32, dump: Dump) {
        if dump.interrupted {
            self.coverage.interrupted.push(inode);
        } else {
            self.coverage.namespaces.push(inode);
            (self.sink)(Answer::Namespace(inode));
        }
    }

    fn give_up(&mut self, inode: u32, reason: String) {
        self.coverage.unreadable.push((inode, reason));
    }

    /// Reports requested namespaces that were not found.
    fn note_missing(&mut self, namespaces: &Namespaces) {
        for &inode in self.only.iter().filter(|inode| namespaces.iter().all(|known| known.inode != **inode)) {
            self.coverage.unreadable.push((inode, "no process and no file leads to it".into()));
        }
    }
}

/// The name of an interface of the calling thread's network namespace.
pub(super) fn name_of(index: u32) -> Box<[u8]> {
    let mut name = [0; libc::IFNAMSIZ];
    // SAFETY: there is room for as many bytes as a name can have, its end included.
    let is_known = !unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) }.is_null();
    let bytes = name.split(|byte| *byte == 0).next().filter(|_| is_known);
    bytes.unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::TcpListener;
    use std::thread;

    use nix::sched::{CloneFlags, setns};

    use super::*;
    use crate::kernel::testing::{Named, in_new_namespace};
    use crate::model::event::Id;

    fn ask(only: &[u32]) -> (Coverage, Vec<Answer>) {
        let inside = || {
            let mut answers = Vec::new();
            let coverage =
                survey(&Namespaces::find(), only, Wanted::All, true, true, &mut |answer| answers.push(answer))
                    .expect("a survey");
            (coverage, answers)
        };
        thread::scope(|scope| scope.spawn(inside).join().expect("no panic"))
    }

    /// A listener in another network namespace.
    fn listen_in(named: &Named) -> TcpListener {
        let inside = || {
            let namespace = File::open(named.path()).expect("open the network namespace");
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter it: these tests need root");
            TcpListener::bind("0.0.0.0:4321").expect("listen")
        };
        thread::scope(|scope| scope.spawn(inside).join().expect("no panic"))
    }

    #[tcptrace_tests::test]
    fn a_socket_of_another_namespace_is_found() {
        let named = Named::new("survey");
        let _listener = listen_in(&named);
        let inode = named.inode();
        let (coverage, answers) = ask(&[inode]);
        let unseen_processes = coverage.unseen_processes;
        assert_eq!(coverage, Coverage { namespaces: vec![inode], unseen_processes, ..Coverage::default() });
        let [Answer::Socket(socket), Answer::Namespace(whole)] = answers.as_slice() else {
            unreachable!("{answers:?}")
        };
        assert_eq!((socket.found.netns, *whole), (Some(inode), inode));
        assert_eq!(socket.found.tuple.local_port, 4321);
        assert!(matches!(socket.found.id, Id::Cookie(cookie) if cookie != 0));
    }

    #[tcptrace_tests::test]
    fn an_interface_has_the_name_of_its_namespace() {
        assert_eq!(&*in_new_namespace(|| name_of(1)), b"lo");
        assert_eq!(&*in_new_namespace(|| name_of(4_000)), b"");
    }

    #[tcptrace_tests::test]
    fn everything_is_asked_for_beginning_at_home() {
        let named = Named::new("everything");
        let own = Namespaces::own_namespace().expect("its inode");
        let (coverage, answers) = ask(&[]);
        assert_eq!(coverage.namespaces.first(), Some(&own));
        assert!(coverage.namespaces.contains(&named.inode()));
        let whole = answers.iter().filter_map(|answer| match answer {
            Answer::Namespace(inode) => Some(*inode),
            Answer::Socket(_) | Answer::Inspected(_) | Answer::Multipath(_) => None,
        });
        assert!(whole.eq(coverage.namespaces));
    }

    #[test]
    fn one_that_is_not_there_is_said_to_be_missing() {
        let (coverage, answers) = ask(&[7]);
        assert_eq!(answers, []);
        assert_eq!(coverage.unreadable, [(7, "no process and no file leads to it".into())]);
    }
}
