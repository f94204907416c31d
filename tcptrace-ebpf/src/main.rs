//! The eBPF programs of tcptrace. They only report: what an event means is decided in userspace.
//!
//! Every program is usable on its own; the loader attaches those that the kernel allows. There is no CO-RE in Rust:
//! the offsets of kernel structure members come from the running kernel's BTF at load time, as frozen constants in
//! [`layout`], and the verifier checks each access through a trusted pointer against the same BTF.
#![no_std]
#![no_main]

mod emit;
mod hooks;
mod kernel;
mod layout;
mod recent;
mod reported;
mod socket;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable: the verifier rejects a program that could come here.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
