//! The link between two network namespaces that can delay segments: a TUN device in each, and a relay between them that
//! holds segments on request.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow};
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns};

use super::actor::life_at;
use super::conversation::kinds;
use super::log::now;
use super::packets;
use super::script::Who;
use crate::command;

/// Size of an order.
const ORDER: usize = 16;
/// `TUNSETIFF`, `IFF_TUN` and `IFF_NO_PI` (include/uapi/linux/if_tun.h).
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUN_WITHOUT_HEADER: libc::c_short = 0x1001;
const MS: u64 = 1_000_000;

/// An actor's order to hold segments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Order {
    pub(super) life: u32,
    /// The end that the segments go to.
    pub(super) to: Who,
    pub(super) kinds: u32,
    /// How long to hold them; 0 ends the order.
    pub(super) ms: u32,
}

impl Order {
    pub(super) fn bytes(self) -> [u8; ORDER] {
        let mut bytes = [0; ORDER];
        let numbers = [self.life, u32::from(self.to == Who::Server), self.kinds, self.ms];
        bytes.chunks_exact_mut(4).zip(numbers).for_each(|(to, number)| to.copy_from_slice(&number.to_ne_bytes()));
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let to = if number(4)? == 1 { Who::Server } else { Who::Client };
        Some(Self { life: number(0)?, to, kinds: number(8)?, ms: number(12)? })
    }
}

/// A running relay.
pub(super) struct Relay {
    is_over: Arc<AtomicBool>,
    worker: JoinHandle<Result<()>>,
}

impl Relay {
    /// Starts between the namespaces of servers and of clients, and takes orders from a pipe.
    pub(super) fn start(servers: PathBuf, clients: PathBuf, orders: PathBuf) -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let worker = thread::spawn(move || {
            let mut ends = Ends::open(&servers, &clients, &orders)?;
            // The receiver waits in `start`.
            let _ = ready.send(());
            ends.work(&over)
        });
        if is_ready.recv().is_err() {
            let why = worker.join().unwrap_or_else(|_| Err(anyhow!("the relay panicked")));
            return Err(why.err().unwrap_or_else(|| anyhow!("the relay ended")));
        }
        Ok(Self { is_over, worker })
    }

    /// Stops. It holds the network namespaces no longer.
    pub(super) fn stop(self) -> Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        self.worker.join().map_err(|_| anyhow!("the relay panicked"))?
    }
}

/// Held packets, by the time when they go on and in the order of their arrival.
type Held = BinaryHeap<Reverse<(u64, u64, bool, Vec<u8>)>>;

struct Ends {
    server: File,
    client: File,
    orders: File,
    wanted: HashMap<(u32, Who), (u32, u32)>,
    held: Held,
    count: u64,
}

impl Ends {
    fn open(servers: &Path, clients: &Path, orders: &Path) -> Result<Self> {
        let orders = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(orders);
        let orders = orders.context("cannot open the pipe for orders")?;
        enter(servers)?;
        let server = tun("tracerelay")?;
        for line in [
            "link set tracerelay mtu 60000 up",
            "route add 10.67.0.1/32 dev tracerelay",
            "route add local 10.66.0.0/16 dev lo",
            "-6 route add fd04::1/128 dev tracerelay",
            "-6 route add local fd03::/64 dev lo",
        ] {
            ip(line)?;
        }
        enter(clients)?;
        let client = tun("tracerelay")?;
        for line in [
            "addr add 10.67.0.1/32 dev tracerelay",
            "-6 addr add fd04::1/128 dev tracerelay nodad",
            "link set tracerelay mtu 60000 up",
            "route add 10.66.0.0/16 dev tracerelay",
            "-6 route add fd03::/64 dev tracerelay",
        ] {
            ip(line)?;
        }
        Ok(Self { server, client, orders, wanted: HashMap::new(), held: Held::new(), count: 0 })
    }

    fn work(&mut self, is_over: &AtomicBool) -> Result<()> {
        while !is_over.load(Ordering::Relaxed) {
            let next = self.held.peek().map_or(50 * MS, |Reverse((due, ..))| due.saturating_sub(now()));
            let mut polls = [&self.orders, &self.client, &self.server].map(|file| libc::pollfd {
                fd: file.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            });
            let timeout = libc::timespec { tv_sec: 0, tv_nsec: next.min(50 * MS).cast_signed() };
            // SAFETY: three pollfds and a time, which live until the call returns; a null mask leaves signals alone.
            unsafe { libc::ppoll(polls.as_mut_ptr(), 3, &raw const timeout, std::ptr::null()) };
            self.take_orders()?;
            for to in [Who::Server, Who::Client] {
                while let Some(packet) = self.receive(to)? {
                    self.take(to, packet);
                }
            }
            self.let_go();
        }
        Ok(())
    }

    fn take_orders(&mut self) -> Result<()> {
        let mut bytes = [0; ORDER];
        // A pipe keeps a small write in one piece.
        while let Some(ORDER) = available(self.orders.read(&mut bytes)).context("cannot read orders")? {
            if let Some(Order { life, to, kinds, ms }) = Order::parse(&bytes) {
                self.wanted.insert((life, to), (kinds, ms));
            }
        }
        Ok(())
    }

    /// Takes the next packet for this end.
    fn receive(&mut self, to: Who) -> Result<Option<Vec<u8>>> {
        let mut packet = vec![0; 65_536];
        let from = if to == Who::Server { &mut self.client } else { &mut self.server };
        let length = available(from.read(&mut packet)).context("cannot take packets")?;
        Ok(length.map(|length| {
            packet.truncate(length);
            packet
        }))
    }

    fn take(&mut self, to: Who, packet: Vec<u8>) {
        let ms = self.holds(to, &packet);
        if ms == 0 {
            return self.send(to, &packet);
        }
        self.count += 1;
        self.held.push(Reverse((now() + u64::from(ms) * MS, self.count, to == Who::Server, packet)));
    }

    fn holds(&self, to: Who, packet: &[u8]) -> u32 {
        let Some(packet) = packets::parse(packet, 0, false) else { return 0 };
        let server: IpAddr = if to == Who::Server { packet.to.ip() } else { packet.from.ip() };
        let life = life_at(server).and_then(|life| u32::try_from(life).ok()).unwrap_or(u32::MAX);
        match self.wanted.get(&(life, to)) {
            Some((wanted, ms)) if u64::from(*wanted) & kinds(packet.flags) != 0 => *ms,
            _ => 0,
        }
    }

    fn let_go(&mut self) {
        while self.held.peek().is_some_and(|Reverse((due, ..))| *due <= now()) {
            let Some(Reverse((_, _, to_server, packet))) = self.held.pop() else { return };
            self.send(if to_server { Who::Server } else { Who::Client }, &packet);
        }
    }

    fn send(&mut self, to: Who, packet: &[u8]) {
        let end = if to == Who::Server { &mut self.server } else { &mut self.client };
        // A refused packet is lost, as packets may be; no witness sees it arrive.
        let _ = end.write(packet);
    }
}

/// `None` if nothing waits, or no writer is left.
fn available(read: io::Result<usize>) -> io::Result<Option<usize>> {
    match read {
        Ok(0) => Ok(None),
        Ok(length) => Ok(Some(length)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

fn enter(namespace: &Path) -> Result<()> {
    let namespace = File::open(namespace).context("cannot find the network namespace")?;
    setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")
}

fn ip(line: &str) -> Result<()> {
    command::output(Command::new("ip").args(line.split(' '))).map(drop)
}

/// Makes a TUN device in the network namespace of this thread.
fn tun(name: &str) -> Result<File> {
    let open = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
    let file = open.context("cannot open /dev/net/tun")?;
    // `struct ifreq`: a name of 16 bytes, then flags, then padding.
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&TUN_WITHOUT_HEADER.to_ne_bytes());
    // SAFETY: the file is open, and the request lives until the call returns.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
    Errno::result(result).context("cannot make a TUN device")?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_was_written() {
        let order = Order { life: 7, to: Who::Server, kinds: 9, ms: 300 };
        assert_eq!(Order::parse(&order.bytes()), Some(order));
        assert_eq!(Order::parse(&order.bytes()[1..]), None);
    }

    #[test]
    fn a_server_says_which_life_it_is_of() {
        let of = |address: &str| life_at(address.parse().expect("an address"));
        assert_eq!(["10.66.0.7", "fd03::1:0:7", "127.1.0.7", "10.67.0.1"].map(of), [Some(7), Some(7), Some(7), None]);
    }
}
