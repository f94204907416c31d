//! Users, by the files that list them. Programs that are linked statically cannot ask the system's other directories.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, io};

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

/// Who a process can become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Its other groups.
    pub groups: Vec<Gid>,
}

/// Why a text names no user.
#[derive(Debug, thiserror::Error)]
#[error("no user '{0}' in {USERS}; give its number (id -u {0})")]
pub struct NoUser(String);

impl User {
    /// By name or number. A number without a name has the group of the same number.
    ///
    /// # Errors
    /// When there is no user of that name in `/etc/passwd`.
    pub fn find(text: &str) -> Result<Self, NoUser> {
        let [users, groups] = [USERS, GROUPS].map(|file| fs::read_to_string(file).unwrap_or_default());
        Self::among(text, &users, &groups).ok_or_else(|| NoUser(text.into()))
    }

    /// Makes the calling process this user. It allocates nothing, so that it can run between fork and exec.
    ///
    /// # Errors
    /// When that is not permitted.
    pub fn become_it(&self) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        // Without groups to give up, a process without privileges may stay who it is.
        if uid != Uid::effective() || gid != Gid::effective() {
            setgroups(&self.groups)?;
            setresgid(gid, gid, gid)?;
            setresuid(uid, uid, uid)?;
        }
        Ok(())
    }

    /// Whether it can make files in a folder, as far as that does not depend on groups.
    pub fn can_make_files(&self, folder: &Path) -> bool {
        is_open_to(self.uid, folder)
    }

    fn among(text: &str, users: &str, groups: &str) -> Option<Self> {
        let number = text.parse().ok();
        let known = users.lines().filter_map(Line::parse).find(|user| match number {
            Some(number) => user.uid == number,
            None => user.name == text,
        });
        match (known, number) {
            (Some(Line { name, uid, gid }), _) => Some(Self { uid, gid, groups: groups_of(name, groups) }),
            (None, Some(number)) => Some(Self { uid: number, gid: number, groups: Vec::new() }),
            (None, None) => None,
        }
    }
}

/// Whether a user can make files in a folder, without any capability, and whatever its groups are.
pub(super) fn is_open_to(uid: u32, folder: &Path) -> bool {
    const OWNER_WRITES: u32 = 0o200;
    const ALL_WRITE: u32 = 0o002;
    let writes = |metadata: fs::Metadata| {
        let mode = metadata.mode();
        if metadata.uid() == uid { mode & OWNER_WRITES != 0 } else { mode & ALL_WRITE != 0 }
    };
    folder.metadata().is_ok_and(writes)
}

/// `name:password:uid:gid:…`
struct Line<'t> {
    name: &'t str,
    uid: u32,
    gid: u32,
}

impl<'t> Line<'t> {
    fn parse(line: &'t str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some(Self { name, uid: fields.nth(1)?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    }
}

/// `name:password:gid:member,…`
fn groups_of(user: &str, groups: &str) -> Vec<Gid> {
    let of_user = |line: &str| {
        let mut fields = line.split(':').skip(2);
        let gid = Gid::from_raw(fields.next()?.parse().ok()?);
        fields.next()?.split(',').any(|member| member == user).then_some(gid)
    };
    groups.lines().filter_map(of_user).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/bash\nbroken\nweb:x:33:34::/var/www:/usr/sbin/nologin\n";
    const GROUPS: &str = "root:x:0:\nweb:x:34:\nssl:x:110:root,web\nlog:x:111:webmaster\n";

    #[rstest]
    #[case::name("web", Some((33, 34, vec![110])))]
    #[case::number("33", Some((33, 34, vec![110])))]
    #[case::number_without_a_name("4711", Some((4711, 4711, vec![])))]
    #[case::unknown("broken", None)]
    #[case::empty("", None)]
    #[case::negative("-1", None)]
    fn users(#[case] text: &str, #[case] expected: Option<(u32, u32, Vec<u32>)>) {
        let groups_of = |groups: Vec<u32>| groups.into_iter().map(Gid::from_raw).collect();
        let expected = expected.map(|(uid, gid, groups)| User { uid, gid, groups: groups_of(groups) });
        assert_eq!(User::among(text, USERS, GROUPS), expected);
    }

    #[test]
    fn an_unknown_one_asks_for_a_number() {
        let error = User::find("no-such-user").expect_err("there is none").to_string();
        assert_eq!(error, "no user 'no-such-user' in /etc/passwd; give its number (id -u no-such-user)");
    }
}
