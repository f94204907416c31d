//! Looks up control groups, and the names of interfaces: in this process, or by way of the helper. Each answer is waited for:
//! names precede what mentions them.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::kernel::{Groups, LookUp, Namespaces, interface_name};
use crate::live::queries::LastFound;
use crate::live::way::Way;
use crate::model::labels::Labels;
use crate::model::names::Group;

/// The most time that is spent in a second on waiting for the control groups of processes.
const MOST_LENT: Duration = Duration::from_millis(50);
/// No path is longer than a page.
const LONGEST_PATH: usize = 4096;

/// What looks up.
#[derive(Debug)]
pub(super) enum Lookups {
    /// This process: control groups, if they are wanted.
    Here(Option<Box<Groups>>),
    /// The helper.
    There(There),
}

/// The helper, as it looks from here.
#[derive(Debug)]
pub(super) struct There {
    way: Way,
    has_groups: bool,
    /// Time that control groups of processes have taken in the second that began then.
    lent: (Instant, Duration),
}

#[derive(Debug, Serialize, Deserialize)]
enum Question {
    Group(u64),
    /// The names of the container of the group at a path. The path itself leads nowhere: the container's id is in it.
    Labels(Vec<u8>),
    GroupOfProcess(u32),
    Interface {
        netns: u32,
        index: u32,
    },
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Path(Vec<u8>),
    Nameless,
    Later,
    Labels(Labels),
    GroupOfProcess(Option<u64>),
    Interface(Option<Box<[u8]>>),
}

impl Lookups {
    pub(super) fn new(groups: bool) -> Self {
        Self::Here(groups.then(|| Box::new(Groups::new())))
    }

    /// Has the helper look up from now on.
    pub(super) fn send_by(&mut self, way: Way) {
        *self = Self::There(There { way, has_groups: self.has_groups(), lent: (Instant::now(), Duration::ZERO) });
    }

    /// Whether control groups are wanted.
    pub(super) fn has_groups(&self) -> bool {
        match self {
            Self::Here(groups) => groups.is_some(),
            Self::There(there) => there.has_groups,
        }
    }

    /// The path of a control group.
    pub(super) fn group(&mut self, id: u64) -> LookUp {
        match self {
            Self::Here(groups) => groups.as_mut().map_or(LookUp::Nameless, |groups| groups.look_up(id)),
            Self::There(there) => match there.way.ask(&Question::Group(id)) {
                Some(Answer::Path(path)) => LookUp::Path(path),
                Some(Answer::Later) => LookUp::Later,
                _ => LookUp::Nameless,
            },
        }
    }

    /// The names of the container of the group at a path.
    pub(super) fn labels(&mut self, path: &[u8]) -> Labels {
        let group = Group::at(path);
        if !group.has_container_id() {
            return Labels::default();
        }
        match self {
            Self::Here(groups) => groups.as_mut().map(|groups| groups.labels(&group)).unwrap_or_default(),
            Self::There(there) => match there.way.ask(&Question::Labels(path.into())) {
                Some(Answer::Labels(labels)) => labels,
                _ => Labels::default(),
            },
        }
    }

    /// The control group of a process.
    pub(super) fn group_of_process(&mut self, pid: u32) -> Option<u64> {
        match self {
            Self::Here(groups) => groups.as_mut()?.of_process(pid),
            Self::There(there) => there.group_of_process(pid),
        }
    }

    /// The name of an interface in a known network namespace.
    pub(super) fn interface(&self, namespaces: &Namespaces, netns: u32, index: u32) -> Option<Box<[u8]>> {
        match self {
            Self::Here(_) => interface_name(namespaces, netns, index),
            Self::There(_) if namespaces.iter().all(|namespace| namespace.inode != netns) => None,
            Self::There(there) => match there.way.ask(&Question::Interface { netns, index })? {
                Answer::Interface(name) => name,
                _ => None,
            },
        }
    }
}

impl There {
    /// Events wait meanwhile.
    fn group_of_process(&mut self, pid: u32) -> Option<u64> {
        let begun = Instant::now();
        if begun.duration_since(self.lent.0) >= Duration::from_secs(1) {
            self.lent = (begun, Duration::ZERO);
        }
        if self.lent.1 >= MOST_LENT {
            return None;
        }
        let answer = self.way.ask(&Question::GroupOfProcess(pid));
        self.lent.1 += begun.elapsed();
        match answer {
            Some(Answer::GroupOfProcess(group)) => group,
            _ => None,
        }
    }
}

/// Looks up for the process that follows the kernel, until it is gone.
pub(super) fn serve(way: &Way, found: &LastFound) {
    let mut groups = Groups::new();
    way.serve(|question| match question {
        Question::Group(id) => match groups.look_up(id) {
            LookUp::Path(path) => Answer::Path(path),
            LookUp::Nameless => Answer::Nameless,
            LookUp::Later => Answer::Later,
        },
        Question::Labels(path) if path.len() > LONGEST_PATH => Answer::Labels(Labels::default()),
        Question::Labels(path) => Answer::Labels(groups.labels(&Group::at(&path))),
        Question::GroupOfProcess(pid) => Answer::GroupOfProcess(groups.of_process(pid)),
        Question::Interface { netns, index } => {
            let namespaces = found.lock().unwrap_or_else(PoisonError::into_inner);
            Answer::Interface(interface_name(&namespaces, netns, index))
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::way::Fate;

    /// The helper, as a thread, knows the same as this process.
    #[tcptrace_tests::test]
    fn the_helper_looks_up_the_same() {
        tcptrace_tests::ability::need_root();
        let found = LastFound::default();
        let namespaces = Namespaces::find();
        *found.lock().expect("no thread has panicked") = namespaces.clone();
        let fate = Fate::default();
        let (ours, theirs) = Way::pair(&fate).expect("a pair");
        let served = std::thread::spawn(move || serve(&theirs, &found));
        let (mut here, mut there) = (Lookups::new(true), Lookups::new(true));
        there.send_by(ours.clone());
        let (own, netns) = (std::process::id(), Namespaces::own_namespace().expect("its number"));
        let of = |lookups: &mut Lookups| {
            let group = lookups.group_of_process(own);
            let paths = [group.unwrap_or(0), u64::MAX].map(|id| lookups.group(id));
            let names = [(netns, 1), (netns, 4000), (7, 1)];
            (group, paths, names.map(|(netns, index)| lookups.interface(&namespaces, netns, index)))
        };
        let all = of(&mut here);
        assert!(matches!(all.1, [LookUp::Path(_), LookUp::Nameless]), "{all:?}");
        assert_eq!(all.2[0].as_deref(), Some(&b"lo"[..]));
        assert_eq!(of(&mut there), all);
        assert!(there.has_groups() && there.labels(b"/system.slice") == Labels::default());
        ours.shut();
        served.join().expect("it ends");
        assert!(!fate.is_lost());
        assert_eq!(there.group(1), LookUp::Nameless, "nobody answers");
        assert!(fate.is_lost());
    }
}
