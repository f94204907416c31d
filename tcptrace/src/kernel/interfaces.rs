//! The names of interfaces that events mention.

use std::thread;

use super::namespaces::{Namespace, Namespaces};
use super::survey::name_of;

/// The name of an interface in a known network namespace; `None` if the interface is gone, or the namespace cannot be
/// entered.
pub fn interface_name(namespaces: &Namespaces, netns: u32, index: u32) -> Option<Box<[u8]>> {
    let namespace = namespaces.iter().find(|namespace| namespace.inode == netns)?;
    thread::scope(|scope| {
        // Entering a namespace changes the thread.
        let looking = thread::Builder::new().spawn_scoped(scope, || look_up(namespace, index)).ok()?;
        looking.join().ok()?
    })
}

fn look_up(namespace: &Namespace, index: u32) -> Option<Box<[u8]>> {
    // Staying in the own namespace needs no privileges.
    let is_there =
        Namespaces::own_namespace() == Some(namespace.inode) || namespace.enter_directly().is_ok_and(|it| it);
    is_there.then(|| name_of(index)).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::Named;

    #[test]
    fn an_interface_is_looked_up_in_its_own_namespace() {
        let named = Named::new("interfaces");
        let namespaces = Namespaces::find();
        let before = Namespaces::own_namespace();
        assert_eq!(interface_name(&namespaces, named.inode(), 1).as_deref(), Some(&b"lo"[..]));
        assert_eq!(interface_name(&namespaces, named.inode(), 4_000), None);
        assert_eq!(interface_name(&namespaces, 7, 1), None, "there is no such namespace");
        assert_eq!(Namespaces::own_namespace(), before);
    }
}
