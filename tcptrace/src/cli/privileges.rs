//! What the live commands give up once they are attached, and who gets their traces.

use std::env;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::Args;
use nix::unistd::geteuid;

use crate::kernel::{Namespaces, Sandbox, User};
use crate::live::Source;
use crate::output::export::folder;
use crate::trace::write::other_folders;

/// Options of commands that attach to the kernel.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct PrivilegeArgs {
    /// Become this user (a name in /etc/passwd, or a number) once everything is attached. A recorded command runs as
    /// this user, too, and traces belong to it [default: traces belong to the user who called sudo]
    #[arg(long, value_name = "NAME|UID", value_parser = User::find)]
    user: Option<User>,
    /// Keep the privileges that tcptrace otherwise gives up once everything is attached, and start no helper process
    #[arg(long, conflicts_with = "user")]
    no_sandbox: bool,
}

impl PrivilegeArgs {
    pub(super) fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// User and group that traces are given to.
    pub(super) fn owner(&self) -> Option<(u32, u32)> {
        let sudoer = || if geteuid().is_root() { sudoer(|name| env::var(name).ok()) } else { None };
        self.user.as_ref().map(|user| (user.uid, user.gid)).or_else(sudoer)
    }

    /// Gives up what is not needed any more, and leaves to a helper what takes privileges. Call this before any thread starts.
    ///
    /// # Errors
    /// When tcptrace cannot become the user, or there can be no helper.
    pub(super) fn give_up(&self, source: &mut Source, namespaces: &Namespaces, files: Files<'_>) -> Result<()> {
        if self.no_sandbox {
            return Ok(());
        }
        let sandbox = Sandbox::default().becoming(self.user());
        let sandbox = match files {
            Files::None => sandbox,
            Files::Made(file) => sandbox.naming_in(folder(file)),
            Files::MadeLater(file) => self.making_files(sandbox, file),
            Files::Dumped(file) => {
                let elsewhere = other_folders().into_iter();
                elsewhere.fold(self.making_files(sandbox, file), |sandbox, folder| sandbox.writing_below(&folder))
            }
        };
        source.confine(sandbox, namespaces).with_context(|| match &self.user {
            Some(user) => format!("cannot become user {}", user.uid),
            None => "cannot give up privileges".into(),
        })
    }

    fn making_files(&self, sandbox: Sandbox, file: &Path) -> Sandbox {
        sandbox.making_files_in(folder(file), self.user.is_none() && self.owner().is_some())
    }

    /// Files that are made later need a folder of the user.
    ///
    /// # Errors
    /// When the user cannot make files there.
    pub(super) fn expect_folder(&self, folder: &Path) -> Result<()> {
        if let Some(user) = &self.user {
            ensure!(
                user.can_make_files(folder),
                "user {} cannot create files in '{}', where more of them will be needed",
                user.uid,
                folder.display()
            );
        }
        Ok(())
    }
}

/// Which files a command writes once it has given up its privileges.
#[derive(Clone, Copy, Debug)]
pub(super) enum Files<'a> {
    None,
    /// One that is there by then. It is removed again if it stays empty.
    Made(&'a Path),
    /// Also others beside it, or it takes the place of another one.
    MadeLater(&'a Path),
    /// What was kept in memory: in another folder, where this one takes none.
    Dumped(&'a Path),
}

impl<'a> Files<'a> {
    /// A file that is about to be made.
    pub(super) fn at(path: &'a Path) -> Self {
        if path.symlink_metadata().is_ok() { Self::MadeLater(path) } else { Self::Made(path) }
    }
}

/// Who called sudo.
fn sudoer(variable: impl Fn(&str) -> Option<String>) -> Option<(u32, u32)> {
    let number = |name: &str| variable(name)?.parse().ok();
    number("SUDO_UID").zip(number("SUDO_GID")).filter(|(uid, _)| *uid != 0)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(&[("SUDO_UID", "1000"), ("SUDO_GID", "100")], Some((1000, 100)))]
    #[case::root_by_sudo(&[("SUDO_UID", "0"), ("SUDO_GID", "0")], None)]
    #[case::half(&[("SUDO_UID", "1000")], None)]
    #[case::nonsense(&[("SUDO_UID", "you"), ("SUDO_GID", "100")], None)]
    #[case::no_sudo(&[], None)]
    fn who_called_sudo(#[case] variables: &[(&str, &str)], #[case] expected: Option<(u32, u32)>) {
        let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, to)| (*to).to_owned());
        assert_eq!(sudoer(variable), expected);
    }
}
