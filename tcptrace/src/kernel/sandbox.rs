//! What a process gives up: all of it before it reads what strangers have written or sent ([`Sandbox`]), and a part where it
//! asks the kernel ([`drop_privileges`]). What a kernel cannot take away stays.

mod calls;

use std::io;
use std::path::{Path, PathBuf};

use caps::Capability;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetStatus, Scope, make_bitflags,
};
use nix::sys::prctl::set_no_new_privs;
use nix::unistd::geteuid;

use super::privileges;
use super::users::{User, is_open_to};

/// The newest rules that this module knows.
const NEWEST: ABI = ABI::V6;

/// Where time zones are read from whenever a time is printed.
const ZONES: [&str; 5] =
    ["/etc/localtime", "/etc/timezone", "/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/usr/lib/zoneinfo"];
/// Variables with paths of time zones.
const ZONE_VARIABLES: [&str; 2] = ["TZ", "TZDIR"];

/// Names a file that was opened before, and removes one.
const NAMES: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | MakeReg | RemoveFile});
/// Makes files and folders.
const WRITES: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | RemoveFile});
const READS: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
const USES_TERMINAL: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | WriteFile | IoctlDev});

/// A sandbox for the calling thread and those that it starts from then on. They keep what is open, may read time zones,
/// and may do what is named here: no more.
#[derive(Debug, Default)]
pub struct Sandbox {
    allowed: Vec<(PathBuf, BitFlags<AccessFs>)>,
    kept: Vec<Capability>,
    user: Option<User>,
    reads_maps: bool,
}

impl Sandbox {
    /// Files that are open can get names in this folder.
    #[must_use]
    pub fn naming_in(self, folder: &Path) -> Self {
        self.allowing(folder, NAMES)
    }

    /// Files and folders can be made in this folder.
    #[must_use]
    pub fn writing_below(self, folder: &Path) -> Self {
        self.allowing(folder, WRITES)
    }

    /// The terminal can be opened, to read keys.
    #[must_use]
    pub fn using_terminal(self) -> Self {
        self.allowing(Path::new("/dev/tty"), USES_TERMINAL)
    }

    /// Maps of eBPF programs that are open can be read and written. `needs_privilege`: this kernel asks for a capability
    /// even then, as 5.18 and older do where `kernel.unprivileged_bpf_disabled` is set. It does nothing else here.
    #[must_use]
    pub fn reading_maps(mut self, needs_privilege: bool) -> Self {
        self.reads_maps = true;
        self.kept.extend(needs_privilege.then_some(Capability::CAP_BPF));
        self
    }

    /// The process becomes this user. Say this before the folders are named.
    #[must_use]
    pub fn becoming(mut self, user: Option<&User>) -> Self {
        self.user = user.cloned();
        self
    }

    /// Whom the process becomes, if it does.
    pub fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// Files are made in this folder later, which keeps the privileges that it takes: none, unless the folder is closed to
    /// this user, or the files are given away.
    #[must_use]
    pub fn making_files_in(mut self, folder: &Path, gives_away: bool) -> Self {
        let uid = self.user.as_ref().map_or_else(|| geteuid().as_raw(), |user| user.uid);
        if !is_open_to(uid, folder) {
            self.kept.extend([Capability::CAP_DAC_OVERRIDE, Capability::CAP_FOWNER]);
        }
        if gives_away {
            self.kept.push(Capability::CAP_CHOWN);
        }
        self.allowing(folder, WRITES)
    }

    fn allowing(mut self, path: &Path, access: BitFlags<AccessFs>) -> Self {
        self.allowed.push((path.to_owned(), access));
        self
    }

    /// Enters it as the user whom it becomes.
    ///
    /// # Errors
    /// When it cannot become that user.
    pub fn enter_as_user(self) -> io::Result<()> {
        if let Some(user) = &self.user {
            privileges::become_user(user, &self.kept)?;
        }
        self.enter();
        Ok(())
    }

    /// Enters it. Of all capabilities, those stay that the allowed actions need. It cannot be left.
    pub fn enter(self) {
        // Landlock and seccomp need it, and so do programs: none of them may get privileges back.
        if let Err(error) = set_no_new_privs() {
            log::debug!("cannot rule out new privileges: {error}");
        }
        privileges::keep_only(&self.kept);
        let work = if self.reads_maps { &calls::DECODING } else { &calls::READING };
        match self.restrict() {
            Ok(RulesetStatus::FullyEnforced) => {}
            Ok(status) => log::debug!("files and the network are not fully restricted: {status:?}"),
            Err(error) => log::debug!("files and the network are not restricted: {error}"),
        }
        if let Err(error) = calls::refuse(work) {
            log::debug!("system calls are not restricted: {error}");
        }
    }

    fn restrict(self) -> Result<RulesetStatus, landlock::RulesetError> {
        let ruleset = Ruleset::default()
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?
            .create()?;
        let zones = ZONES.into_iter().map(PathBuf::from).chain(ZONE_VARIABLES.into_iter().filter_map(zone_in));
        let mut allowed = zones.map(|path| (path, READS)).chain(self.allowed);
        let ruleset = allowed.try_fold(ruleset, |ruleset, (path, access)| allow(ruleset, &path, access))?;
        Ok(ruleset.restrict_self()?.ruleset)
    }
}

/// A path that is not there cannot be used either.
fn allow(
    ruleset: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, landlock::RulesetError> {
    let Ok(opened) = PathFd::new(path) else { return Ok(ruleset) };
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
    ruleset.add_rule(PathBeneath::new(opened, access))
}

/// `TZ` is a name or a path, with a colon before it or without.
fn zone_in(variable: &str) -> Option<PathBuf> {
    let value = std::env::var_os(variable)?.into_string().ok()?;
    let path = value.strip_prefix(':').unwrap_or(&value);
    path.starts_with('/').then(|| path.into())
}

/// Gives up what a process that asks the kernel does not need once programs are attached, and becomes this user. It holds for
/// the calling thread and those that it starts from then on. The process goes on looking into other processes, which Landlock
/// would forbid, and at other network namespaces; it starts no programs.
///
/// # Errors
/// When it cannot become that user.
pub fn drop_privileges(user: Option<&User>) -> io::Result<()> {
    let kept = privileges::lasting();
    if let Some(user) = user {
        privileges::become_user(user, &kept)?;
    }
    if let Err(error) = set_no_new_privs() {
        log::debug!("cannot rule out new privileges: {error}");
    }
    privileges::keep_only(&kept);
    if let Err(error) = calls::refuse(&calls::FOLLOWING) {
        log::debug!("system calls are not restricted: {error}");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
