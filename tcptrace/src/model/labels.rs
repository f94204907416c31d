//! The names by which people know a container.

use serde::{Deserialize, Serialize};

/// Names of a container, from the files of the program that runs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Labels {
    /// Name of its pod.
    pub pod: Option<Box<str>>,
    /// Namespace of its pod.
    pub pod_namespace: Option<Box<str>>,
    /// Its own name.
    pub container_name: Option<Box<str>>,
}

/// Longest name in bytes: that of a pod is a DNS subdomain (RFC 1123).
const LONGEST: usize = 253;

impl Labels {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether nothing more can be learnt.
    pub fn is_complete(&self) -> bool {
        self.pod.is_some() && self.pod_namespace.is_some() && self.container_name.is_some()
    }

    /// Fills in the names that are missing.
    pub fn complete(&mut self, other: Self) {
        let Self { pod, pod_namespace, container_name } = other;
        // The name and the namespace of a pod belong together.
        if self.pod.is_none() {
            (self.pod, self.pod_namespace) = (pod, pod_namespace);
        }
        self.container_name = self.container_name.take().or(container_name);
    }

    /// A name, unless it is empty or too long to be one.
    pub fn name(text: &str) -> Option<Box<str>> {
        (1..=LONGEST).contains(&text.len()).then(|| text.into())
    }
}
