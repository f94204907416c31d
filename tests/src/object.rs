//! The eBPF object with programs that do nothing, to simulate a kernel that does not run them for a while.

use std::fs;
use std::ops::Range;
use std::path::Path;

/// `r0 = 0`, and `exit`.
const ZERO: u64 = 0xb7;
const EXIT: u64 = 0x95;
/// `if r0 == 0 goto +N`, without N.
const IF_ZERO: u64 = 0x15;
/// An instruction of double length.
const LOAD_ADDRESS: u64 = 0x18;

const INSTRUCTION: usize = 8;

/// The object of the kernel side. Test programs that run elsewhere take it with them.
static BUILT: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tcptrace/bpf/tcptrace.bpf.o"));

/// Writes the eBPF object to a file, without a program: its name is another one there.
pub fn write_without(program: &str, to: &Path) {
    let (name, mut object, mut renamed) = (program.as_bytes(), BUILT.to_vec(), 0);
    for at in 0..object.len() - name.len() {
        if object[at..].starts_with(name) {
            object[at] = b'_';
            renamed += 1;
        }
    }
    assert!(renamed > 0, "{program} is in the object");
    fs::write(to, object).expect("write an object");
}

/// Writes the eBPF object to a file, with the programs of these sections replaced by ones that return at once.
pub fn write_with_idle(sections: &[&str], to: &Path) {
    let mut object = BUILT.to_vec();
    let programs: Vec<_> = sections.iter().flat_map(|name| programs(&object, name)).collect();
    assert!(programs.len() >= sections.len(), "{programs:?}");
    for program in programs {
        idle(&mut object[program]);
    }
    fs::write(to, object).expect("write an object");
}

/// The verifier requires every instruction to be reachable, if only by a branch that is never taken.
fn idle(program: &mut [u8]) {
    let instruction = |at: usize| number(program, at * INSTRUCTION, INSTRUCTION);
    // Instructions that load an address are relocated, so they stay; they have no effect.
    let mut branch = 1;
    while instruction(branch) & 0xff == LOAD_ADDRESS {
        branch += 2;
    }
    let exit = (branch + 1..program.len() / INSTRUCTION).find(|at| instruction(*at) == EXIT).expect("an end");
    let over = u16::try_from(exit - branch - 1).expect("a short program");
    let mut put =
        |at: usize, bits: u64| program[at * INSTRUCTION..][..INSTRUCTION].copy_from_slice(&bits.to_le_bytes());
    put(0, ZERO);
    put(branch, IF_ZERO | u64::from(over) << 16);
}

/// The functions of a section (`struct elf64_hdr`, `struct elf64_shdr` and `struct elf64_sym` in `linux/elf.h`).
fn programs(object: &[u8], wanted: &str) -> Vec<Range<usize>> {
    const SYMBOLS: usize = 2;
    const SYMBOL: usize = 24;
    const FUNCTION: u8 = 2;
    let [headers, size, count, names] =
        [(0x28, 8), (0x3a, 2), (0x3c, 2), (0x3e, 2)].map(|(at, bytes)| field(object, at, bytes));
    let header = |index: usize| headers + index * size;
    let offset = |index: usize| field(object, header(index) + 0x18, 8);
    let length = |index: usize| field(object, header(index) + 0x20, 8);
    let names = offset(names);
    let is_it = |index: &usize| {
        let name = &object[names + field(object, header(*index), 4)..];
        name.starts_with(wanted.as_bytes()) && name[wanted.len()] == 0
    };
    let section = (0..count).find(is_it).expect("the section");
    let symbols = (0..count).find(|index| field(object, header(*index) + 4, 4) == SYMBOLS).expect("symbols");
    let all = (0..length(symbols) / SYMBOL).map(|index| offset(symbols) + index * SYMBOL);
    let functions = all.filter(|at| object[at + 4] & 15 == FUNCTION && field(object, at + 6, 2) == section);
    functions
        .map(|at| {
            let begin = offset(section) + field(object, at + 8, 8);
            begin..begin + field(object, at + 16, 8)
        })
        .collect()
}

fn number(bytes: &[u8], at: usize, count: usize) -> u64 {
    bytes[at..at + count].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn field(bytes: &[u8], at: usize, count: usize) -> usize {
    usize::try_from(number(bytes, at, count)).expect("a small number")
}
