//! The programs of the object, by name.

use aya::Ebpf;
use aya::programs::ProgramError;

/// The program that walks through the descriptors of all processes.
pub(super) const HOLDERS: &str = "holders";

/// The one that walks through the descriptors of listening sockets.
pub(super) const LISTENING: &str = "listening";

/// A program of the object, as one of its type.
///
/// # Errors
/// When there is none of this name and type.
pub(super) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, ProgramError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name).ok_or(ProgramError::UnexpectedProgramType)?.try_into()
}
