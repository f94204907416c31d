//! A way between the process that follows the kernel and its helper ([`Helper`](super::source)): messages in frames, over a
//! pair of sockets.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::kernel::Namespaces;

/// Longest message. What can be longer is sent in parts.
const LONGEST: u32 = 64 << 20;

/// What a message has before it: its length.
const HEADER: usize = size_of::<u32>();

/// One end of a way.
#[derive(Clone, Debug)]
pub(super) struct Way {
    stream: Arc<UnixStream>,
    fate: Fate,
}

/// What has become of the helper, as all ways to it know it.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    is_lost: AtomicBool,
    /// It is to end.
    is_over: AtomicBool,
}

impl Fate {
    /// Whether it is gone, although it was not to end.
    pub(super) fn is_lost(&self) -> bool {
        self.0.is_lost.load(Ordering::Relaxed)
    }

    /// It does not answer any more, which is said once.
    pub(super) fn lose(&self) {
        if !self.0.is_over.load(Ordering::Relaxed) && !self.0.is_lost.swap(true, Ordering::Relaxed) {
            log::warn!(
                "the helper process has ended: what it looked up is unknown from now on, such as owners that a scan would find, \
                 names, counters and settings"
            );
        }
    }

    /// It is to end now.
    pub(super) fn end(&self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

impl Way {
    /// Both ends: that of the process that asks, and that of its helper.
    pub(super) fn pair(fate: &Fate) -> io::Result<(Self, Self)> {
        let (ours, theirs) = UnixStream::pair()?;
        let end = |stream: UnixStream, fate: Fate| Self { stream: Arc::new(stream), fate };
        Ok((end(ours, fate.clone()), end(theirs, Fate::default())))
    }

    pub(super) fn fate(&self) -> &Fate {
        &self.fate
    }

    /// Asks, and waits for the answer; `None` if there is none: then the helper is lost.
    pub(super) fn ask<A: DeserializeOwned>(&self, question: &impl Serialize) -> Option<A> {
        if self.fate.is_lost() {
            return None;
        }
        self.tell(question)?;
        self.hear()
    }

    /// Sends a message to the helper.
    pub(super) fn tell(&self, message: &impl Serialize) -> Option<()> {
        self.send(message).inspect_err(|_| self.fate.lose()).ok()
    }

    /// Waits for a message from the helper.
    pub(super) fn hear<A: DeserializeOwned>(&self) -> Option<A> {
        self.take().inspect_err(|_| self.fate.lose()).ok()
    }

    /// Answers every question until nobody asks any more.
    pub(super) fn serve<Q: DeserializeOwned, A: Serialize>(&self, mut answer: impl FnMut(Q) -> A) {
        while self.take().is_ok_and(|question| self.send(&answer(question)).is_ok()) {}
    }

    /// Sends a message, and waits as long as the other end takes none.
    pub(super) fn send(&self, message: &impl Serialize) -> io::Result<()> {
        let mut frame = postcard::to_extend(message, vec![0; HEADER]).map_err(io::Error::other)?;
        let len = u32::try_from(frame.len() - HEADER).ok().filter(|len| *len <= LONGEST);
        let len = len.ok_or(io::ErrorKind::InvalidInput)?;
        frame[..HEADER].copy_from_slice(&len.to_le_bytes());
        (&*self.stream).write_all(&frame)
    }

    /// Waits for a message.
    pub(super) fn take<M: DeserializeOwned>(&self) -> io::Result<M> {
        let mut len = [0; HEADER];
        (&*self.stream).read_exact(&mut len)?;
        let len = u32::from_le_bytes(len);
        if len > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // There is no room for it before it comes.
        let mut message = Vec::new();
        (&*self.stream).take(len.into()).read_to_end(&mut message)?;
        if message.len() < len as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        postcard::from_bytes(&message).map_err(io::Error::other)
    }

    /// Nothing comes from now on, and nothing can be sent.
    pub(super) fn shut(&self) {
        // It may be gone already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

impl AsFd for Way {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl AsRawFd for Way {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

/// Network namespaces in a message.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listed {
    /// With their names.
    list: Vec<(u32, Option<Box<[u8]>>)>,
    unseen_processes: usize,
}

impl From<&Namespaces> for Listed {
    fn from(found: &Namespaces) -> Self {
        let list = found.iter().map(|namespace| (namespace.inode, namespace.name.clone())).collect();
        Self { list, unseen_processes: found.unseen_processes }
    }
}

impl From<Listed> for Namespaces {
    fn from(Listed { list, unseen_processes }: Listed) -> Self {
        Self::told(list, unseen_processes)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn every_question_has_its_answer_until_the_helper_ends() {
        let fate = Fate::default();
        let (ours, theirs) = Way::pair(&fate).expect("a pair");
        let served = thread::spawn(move || {
            let mut left = 2;
            while left > 0 && theirs.take::<Vec<u64>>().is_ok_and(|all| theirs.send(&all.len()).is_ok()) {
                left -= 1;
            }
        });
        assert_eq!(ours.ask(&vec![1_u64; 3]), Some(3_usize));
        // Much longer than what fits into the sockets.
        assert_eq!(ours.ask(&vec![u64::MAX; 300_000]), Some(300_000_usize));
        served.join().expect("it ends");
        assert!(!fate.is_lost());
        assert_eq!(ours.ask::<usize>(&vec![1_u64]), None);
        assert!(fate.is_lost());
    }

    #[test]
    fn what_is_no_message_ends_it() {
        let (ours, theirs) = Way::pair(&Fate::default()).expect("a pair");
        (&*ours.stream).write_all(&u32::MAX.to_le_bytes()).expect("sent");
        assert!(theirs.take::<u64>().is_err_and(|error| error.kind() == io::ErrorKind::InvalidData));
        let (ours, theirs) = Way::pair(&Fate::default()).expect("a pair");
        ours.send(&(7_u8, 7_u8)).expect("sent");
        assert!(theirs.take::<String>().is_err(), "7 bytes were to follow");
        let (ours, theirs) = Way::pair(&Fate::default()).expect("a pair");
        (&*ours.stream).write_all(&[9, 0, 0, 0, 1]).expect("sent");
        ours.shut();
        assert!(theirs.take::<u64>().is_err_and(|error| error.kind() == io::ErrorKind::UnexpectedEof));
    }

    #[test]
    fn an_end_that_was_wanted_is_no_loss() {
        let fate = Fate::default();
        let (ours, theirs) = Way::pair(&fate).expect("a pair");
        drop(theirs);
        fate.end();
        assert_eq!(ours.ask::<usize>(&1), None);
        assert!(!fate.is_lost());
    }

    #[test]
    fn namespaces_keep_their_numbers_and_names() {
        let found = Namespaces::told([(7, Some(b"web"[..].into())), (8, None)], 3);
        let (ours, theirs) = Way::pair(&Fate::default()).expect("a pair");
        ours.send(&Listed::from(&found)).expect("sent");
        let told = Namespaces::from(theirs.take::<Listed>().expect("a message"));
        assert!(told.iter().eq(found.iter()) && told.unseen_processes == 3);
    }
}
