//! Names for what the kernel only numbers: network namespaces and control groups.

use std::collections::HashMap;

use foldhash::fast::FixedState;

/// What is known of them. Whoever finds a name notes it here; outputs look it up.
#[derive(Clone, Debug, Default)]
pub struct Names {
    namespaces: HashMap<u32, Box<[u8]>, FixedState>,
    groups: HashMap<u64, Group, FixedState>,
}

/// A control group of the unified hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Its path below the root of the hierarchy, such as `/system.slice/nginx.service`: any bytes.
    pub path: Box<[u8]>,
    /// The id of the container that it belongs to, where the path tells.
    pub container: Option<Box<str>>,
    /// The systemd unit that it belongs to, where the path tells.
    pub unit: Option<Box<[u8]>>,
}

impl Names {
    /// Notes the name of a network namespace, by its inode number.
    pub fn name_namespace(&mut self, inode: u32, name: &[u8]) {
        self.namespaces.insert(inode, name.into());
    }

    /// Notes what is known of a control group, by its id.
    pub fn name_group(&mut self, id: u64, group: Group) {
        self.groups.insert(id, group);
    }

    /// The name of a network namespace.
    pub fn namespace(&self, inode: u32) -> Option<&[u8]> {
        self.namespaces.get(&inode).map(AsRef::as_ref)
    }

    /// What is known of a control group.
    pub fn group(&self, id: u64) -> Option<&Group> {
        self.groups.get(&id)
    }
}
