//! Goes through network namespaces and comes home.

use std::fs::File;
use std::io;

use nix::sched::{CloneFlags, setns};

use super::namespaces::Namespaces;

/// Has the calling thread go into each of these network namespaces (or into those in `only`, if it is not empty), call `each`
/// with its inode number there, and come home. Its own comes first, which takes no privileges. Returns those that it could
/// not enter, and why.
///
/// # Errors
/// When there is no way home.
pub fn visit(namespaces: &Namespaces, only: &[u32], mut each: impl FnMut(u32)) -> io::Result<Vec<(u32, io::Error)>> {
    let home = File::open("/proc/thread-self/ns/net")?;
    let own = Namespaces::own_namespace();
    let is_wanted = |inode: u32| only.is_empty() || only.contains(&inode);
    if let Some(own) = own.filter(|own| is_wanted(*own)) {
        each(own);
    }
    let (mut closed, mut has_left) = (Vec::new(), false);
    for other in namespaces.iter().filter(|other| Some(other.inode) != own && is_wanted(other.inode)) {
        match other.enter() {
            Ok(true) => {
                has_left = true;
                each(other.inode);
            }
            // It is gone.
            Ok(false) => {}
            Err(error) => closed.push((other.inode, error)),
        }
    }
    if has_left {
        setns(&home, CloneFlags::CLONE_NEWNET)?;
    }
    Ok(closed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{Named, in_new_namespace};

    #[tcptrace_tests::test]
    fn the_own_one_comes_first_and_last() {
        let named = Named::new("visit");
        in_new_namespace(|| {
            let own = Namespaces::own_namespace().expect("its number");
            let mut visited = Vec::new();
            let here = |inode| {
                assert_eq!(Namespaces::own_namespace(), Some(inode));
                visited.push(inode);
            };
            visit(&Namespaces::find(), &[], here).expect("a way home");
            assert_eq!((visited.first(), Namespaces::own_namespace()), (Some(&own), Some(own)));
            assert!(visited.contains(&named.inode()));
            let mut visited = Vec::new();
            visit(&Namespaces::find(), &[named.inode()], |inode| visited.push(inode)).expect("a way home");
            assert_eq!(visited, [named.inode()]);
        });
    }
}
