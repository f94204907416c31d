//! Reading kernel memory.

use aya_ebpf::helpers::bpf_probe_read_kernel;

/// Loads a structure member directly, through a pointer that the verifier trusts.
///
/// # Safety
///
/// `base` is a pointer that the verifier knows the type of, and `offset` that of a `T` in it: the verifier refuses
/// the program otherwise. The load itself cannot fault: the kernel handles bad addresses.
#[inline(always)]
pub(crate) unsafe fn load<T: Copy>(base: *const u8, offset: usize) -> T {
    // SAFETY: as above. Volatile, so that the compiler neither splits nor widens the access.
    unsafe { core::ptr::read_volatile(base.add(offset).cast()) }
}

/// Reads from any kernel address; zero where there is nothing to read.
#[inline(always)]
pub(crate) fn read<T: Copy + Default>(address: u64) -> T {
    // SAFETY: the helper checks the address and copies; it never faults.
    unsafe { bpf_probe_read_kernel(address as *const T) }.unwrap_or_default()
}
