//! The ring buffers that the programs write to: one for each CPU, as far as the memory for them suffices.
//!
//! CPUs that write to one buffer at the same time pass its lock from one to the other, which takes longer than writing.
//! What does not fit into a CPU's own buffer goes to the next one.

mod mapped;
mod merge;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::Ebpf;
use aya::maps::{ArrayOfMaps, Map, MapData};
use tcptrace_common::{RING_PATTERN, RINGS_OF_CPU};

pub(super) use self::mapped::Ring;
pub(super) use self::merge::Merge;
use super::cpus::Cpus;
use super::{DEFAULT_RING_BYTES, ProbeError};

/// The map that says which CPU writes to which ring buffer.
pub(super) const MAP: &str = "EVENTS";

/// The ring buffer of a part of the CPUs is not smaller than this: it holds what one CPU can write in 60 ms.
const LEAST: u32 = 2 << 20;

/// How the memory for ring buffers is divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many there are.
    pub rings: usize,
    /// The size of each, in bytes.
    pub bytes: u32,
    /// How many CPUs run.
    pub cpus: usize,
    /// By CPU that can exist, its number, and the ring buffer that it writes to.
    by_cpu: Vec<(u32, usize)>,
}

impl Plan {
    /// Divides the default size.
    ///
    /// # Errors
    /// When the CPUs are not known.
    pub fn of_default() -> io::Result<Self> {
        Ok(Self::new(DEFAULT_RING_BYTES, &Cpus::find()?))
    }

    /// Divides `total` bytes, a power of two, among the CPUs.
    pub(super) fn new(total: u32, cpus: &Cpus) -> Self {
        let online = cpus.online.len().max(1);
        let rings = online.min((total / LEAST) as usize).max(1);
        // There are no more of them than bytes.
        let share = total / u32::try_from(rings).unwrap_or(total);
        let bytes = 1 << share.max(1).ilog2();
        let ring_of = |(place, &cpu): (usize, &u32)| match cpus.online.binary_search(&cpu) {
            // CPUs next to each other are close to each other.
            Ok(rank) => (cpu, rank * rings / online),
            // It may come.
            Err(_) => (cpu, place % rings),
        };
        Self { rings, bytes, cpus: online, by_cpu: cpus.possible.iter().enumerate().map(ring_of).collect() }
    }

    /// The ring buffers of all CPUs that can exist, in the order of the CPUs' numbers.
    pub(super) fn by_cpu(&self) -> impl Iterator<Item = usize> {
        self.by_cpu.iter().map(|(_, ring)| *ring)
    }

    /// Makes the ring buffers, and has the programs write to them.
    pub(super) fn carry_out(&mut self, ebpf: &mut Ebpf) -> Result<Vec<Ring>, ProbeError> {
        let bad_map = |reason: String| ProbeError::Map { name: MAP, reason };
        let by_cpu = ebpf.map_mut(MAP).ok_or_else(|| bad_map("the object has no such map".into()))?;
        let mut maps = self.create().map_err(|error| bad_map(error.to_string()))?;
        let mut filled = self.fill(by_cpu, &maps);
        if filled.is_err() && self.bytes != RING_PATTERN {
            // Before 5.10 all must have the size of the pattern.
            self.bytes = RING_PATTERN;
            maps = self.create().map_err(|error| bad_map(error.to_string()))?;
            filled = self.fill(by_cpu, &maps);
        }
        filled.map_err(|error| bad_map(error.to_string()))?;
        let rings = maps.into_iter().map(|map| Ring::open(map, self.bytes));
        rings.collect::<io::Result<_>>().map_err(|error| bad_map(error.to_string()))
    }

    fn create(&self) -> io::Result<Vec<OwnedFd>> {
        (0..self.rings).map(|_| mapped::create(self.bytes)).collect()
    }

    fn fill(&self, by_cpu: &mut Map, maps: &[OwnedFd]) -> io::Result<()> {
        let entries: Vec<(u32, &OwnedFd)> = self
            .by_cpu
            .iter()
            .flat_map(|&(cpu, ring)| {
                // Its own; and if there is another one, the next.
                let rings = [ring, (ring + 1) % self.rings].into_iter().take(self.rings);
                (cpu * RINGS_OF_CPU..).zip(rings.filter_map(|ring| maps.get(ring)))
            })
            .collect();
        let at_once: Vec<_> = entries.iter().map(|(place, ring)| (*place, ring.as_fd())).collect();
        if let Map::ArrayOfMaps(map) = &*by_cpu
            && mapped::fill(map.fd().as_fd(), &at_once).is_ok()
        {
            return Ok(());
        }
        let mut by_cpu: ArrayOfMaps<&mut MapData, MapData> = by_cpu.try_into().map_err(io::Error::other)?;
        let known = |map: &OwnedFd| MapData::from_fd(map.try_clone()?).map_err(io::Error::other);
        for (place, ring) in entries {
            by_cpu.set(place, &known(ring)?, 0).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const MIB: u32 = 1 << 20;

    #[rstest]
    #[case::one_cpu(16 * MIB, 1, 1, 16 * MIB)]
    #[case::two(16 * MIB, 2, 2, 8 * MIB)]
    #[case::no_more_than_asked_for(16 * MIB, 3, 3, 4 * MIB)]
    #[case::shared_by_eight(16 * MIB, 64, 8, 2 * MIB)]
    #[case::more_for_many(128 * MIB, 64, 64, 2 * MIB)]
    #[case::small_ones_are_not_divided(MIB, 64, 1, MIB)]
    #[case::the_smallest(4096, 2, 1, 4096)]
    fn memory_is_divided(#[case] total: u32, #[case] cpus: u32, #[case] rings: usize, #[case] bytes: u32) {
        let all: Vec<u32> = (0..cpus).collect();
        let plan = Plan::new(total, &Cpus { online: all.clone(), possible: all });
        assert_eq!((plan.rings, plan.bytes), (rings, bytes));
        assert!(plan.bytes as usize * plan.rings <= total as usize);
        let mut used: Vec<usize> = plan.by_cpu().collect();
        assert!(used.is_sorted(), "neighbours share one: {used:?}");
        used.dedup();
        assert_eq!(used, (0..rings).collect::<Vec<_>>(), "each is used");
    }

    #[test]
    fn a_cpu_that_may_come_has_one_too() {
        let plan = Plan::new(16 * MIB, &Cpus { online: vec![0, 2], possible: vec![0, 1, 2, 3] });
        assert_eq!((plan.rings, plan.bytes), (2, 8 * MIB));
        assert_eq!(plan.by_cpu, [(0, 0), (1, 1), (2, 1), (3, 1)]);
    }
}
