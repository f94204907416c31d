//! Translates the keys of one directory into the numbers of another one.

use super::{Directory, MOST, Machine, Place};

/// Copies names from one directory to another one, as keys mention them.
pub(in crate::study::counts) struct Translator<'d> {
    from: &'d Directory,
    to: &'d mut Directory,
    /// The new numbers of the machines that were mentioned.
    machines: Vec<Option<Machine>>,
    places: Vec<Option<Place>>,
}

impl<'d> Translator<'d> {
    pub(in crate::study::counts) fn new(from: &'d Directory, to: &'d mut Directory) -> Self {
        let (machines, places) = (vec![None; from.hosts.len()], vec![None; from.places.len()]);
        Self { from, to, machines, places }
    }

    pub(super) fn machine(&mut self, machine: Machine) -> Machine {
        let Some((host, boot)) = self.from.hosts.get(machine as usize) else { return machine };
        *self.machines[machine as usize].get_or_insert_with(|| self.to.boot(host, boot))
    }

    pub(super) fn place(&mut self, place: Place) -> Place {
        let number = place? as usize;
        let named = self.from.places.get(number)?;
        if let Some(known) = self.places[number] {
            return known;
        }
        let mut named = named.clone();
        named.machine = self.machine(named.machine);
        let place = self.to.number(named);
        self.places[number] = Some(place);
        place
    }

    pub(super) fn copy_netns(&mut self, machine: Machine, netns: Option<u32>) {
        let Some(netns) = netns.filter(|_| self.to.namespaces.len() < MOST) else { return };
        if let Some(name) = self.from.namespaces.get(&(machine, netns)) {
            let machine = self.machine(machine);
            self.to.namespaces.insert((machine, netns), name.clone());
        }
    }

    pub(super) fn copy_interface(&mut self, machine: Machine, netns: Option<u32>, interface: u32) {
        if self.to.interfaces.len() >= MOST {
            return;
        }
        if let Some(name) = self.from.interfaces.get(&(machine, netns, interface)) {
            let machine = self.machine(machine);
            self.to.interfaces.insert((machine, netns, interface), name.clone());
        }
    }
}
