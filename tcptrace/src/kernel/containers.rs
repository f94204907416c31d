//! The names of containers and pods, from the files that kubelet, containerd, CRI-O, Docker and Podman keep.
//!
//! Every file is read in part only: its name or its content may be wrong, and then costs the name only.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use hashlink::LruCache;
use nix::libc;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::model::labels::Labels;
use crate::model::names::Group;

/// Containers remembered at most.
const MOST_CONTAINERS: usize = 4096;
/// Longest description of one container that is read, and of all containers of a storage.
const LONGEST_FILE: u64 = 1 << 20;
const LONGEST_LIST: u64 = 8 << 20;
/// Most entries of a directory that are read.
const MOST_ENTRIES: usize = 20_000;
/// Most namespaces of containerd.
const MOST_NAMESPACES: usize = 32;
/// The most time spent on names in a second: further containers keep their ids.
const MOST_LENT: Duration = Duration::from_millis(50);
/// How long a listing of all logs is used before another one is made for a container that it lacks.
const LISTING_LASTS: Duration = Duration::from_secs(5);

/// containerd's tasks, below which each of its namespaces has a folder (`k8s.io`, `moby`, `default`).
const CONTAINERD: &str = "run/containerd/io.containerd.runtime.v2.task";
/// Where CRI-O and Podman keep the description of a running container.
const STORAGES: [&str; 2] = ["run/containers/storage", "var/lib/containers/storage"];
const DOCKER: &str = "var/lib/docker/containers";
/// `POD_NAMESPACE_CONTAINER-ID.log`
const CONTAINER_LOGS: &str = "var/log/containers";
/// `NAMESPACE_POD_UID`
const POD_LOGS: &str = "var/log/pods";

/// Finds the names of containers.
#[derive(Debug)]
pub(super) struct Containers {
    root: PathBuf,
    known: LruCache<Box<str>, Labels, FixedState>,
    listing: Option<Listing>,
    /// Time spent in the second that began then.
    lent: (Instant, Duration),
}

/// What the names of log files say.
#[derive(Debug)]
struct Listing {
    containers: HashMap<Box<str>, Labels, FixedState>,
    /// By their unique ids.
    pods: HashMap<Box<str>, Labels, FixedState>,
    made: Instant,
}

/// The part of an OCI `config.json` that is of use.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    annotations: HashMap<String, String>,
}

/// The part of Docker's `config.v2.json`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Docker {
    name: String,
    config: DockerConfig,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct DockerConfig {
    labels: Option<HashMap<String, String>>,
}

/// An entry of `containers.json` of a storage.
#[derive(Deserialize)]
struct Stored {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
}

/// What knows names.
#[derive(Clone, Copy)]
enum Source {
    Config,
    Docker,
    Logs,
    Storage,
}

impl Source {
    const ALL: [Self; 4] = [Self::Config, Self::Docker, Self::Logs, Self::Storage];
}

impl Containers {
    /// For the files below this directory.
    pub(super) fn below(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            known: LruCache::with_hasher(MOST_CONTAINERS, FixedState::default()),
            listing: None,
            lent: (Instant::now(), Duration::ZERO),
        }
    }

    /// The names of the container of a control group; empty where it has none, or no file knows it.
    pub(super) fn labels(&mut self, group: &Group) -> Labels {
        // The id becomes part of paths.
        let Some(id) = group.container.as_deref().filter(|_| group.has_container_id()) else {
            return Labels::default();
        };
        if let Some(labels) = self.known.get(id) {
            return labels.clone();
        }
        let begun = Instant::now();
        if begun.duration_since(self.lent.0) >= Duration::from_secs(1) {
            self.lent = (begun, Duration::ZERO);
        }
        if self.lent.1 >= MOST_LENT {
            return Labels::default();
        }
        let labels = self.look_up(id, pod_uid(&group.path).as_deref());
        self.lent.1 += begun.elapsed();
        self.known.insert(id.into(), labels.clone());
        labels
    }

    /// The cheapest sources come first; the next one is asked for what is still missing.
    fn look_up(&mut self, id: &str, pod: Option<&str>) -> Labels {
        let mut labels = Labels::default();
        for source in Source::ALL {
            labels.complete(match source {
                Source::Config => self.by_config(id),
                Source::Docker => self.by_docker(id),
                Source::Logs => self.by_logs(id, pod),
                Source::Storage => self.by_storage(id),
            });
            // Without Kubernetes, there is no pod to be found.
            if labels.is_complete() || pod.is_none() && labels.container_name.is_some() {
                break;
            }
        }
        labels
    }

    /// From the annotations in the `config.json` with which the container was started.
    fn by_config(&self, id: &str) -> Labels {
        let tasks = self.root.join(CONTAINERD);
        let spaces = fs::read_dir(&tasks).into_iter().flatten().flatten().take(MOST_NAMESPACES);
        let tasks = spaces.map(|space| space.path().join(id).join("config.json"));
        let stored = STORAGES.map(|storage| {
            self.root.join(storage).join("overlay-containers").join(id).join("userdata").join("config.json")
        });
        let mut configs = tasks.chain(stored).filter_map(|path| json::<Config>(&path, LONGEST_FILE));
        configs.next().map(|config| annotated(&config.annotations)).unwrap_or_default()
    }

    fn by_docker(&self, id: &str) -> Labels {
        let path = self.root.join(DOCKER).join(id).join("config.v2.json");
        let Some(Docker { name, config }) = json(&path, LONGEST_FILE) else { return Labels::default() };
        let mut labels = annotated(&config.labels.unwrap_or_default());
        labels.complete(stored_as(name.strip_prefix('/').unwrap_or(&name)));
        labels
    }

    /// From the list of containers of a storage.
    fn by_storage(&self, id: &str) -> Labels {
        let lists = STORAGES.map(|storage| self.root.join(storage).join("overlay-containers").join("containers.json"));
        let all = lists.iter().filter_map(|path| json::<Vec<Stored>>(path, LONGEST_LIST)).flatten();
        let mut names = all.filter(|stored| stored.id == id).filter_map(|stored| stored.names?.into_iter().next());
        names.next().map(|name| stored_as(&name)).unwrap_or_default()
    }

    /// From the names of log files, which kubelet makes for every engine.
    fn by_logs(&mut self, id: &str, pod: Option<&str>) -> Labels {
        let is_old = |listing: &Listing| listing.made.elapsed() >= LISTING_LASTS;
        if self.listing.as_ref().is_none_or(|listing| !listing.containers.contains_key(id) && is_old(listing)) {
            self.listing = Some(Listing::of(&self.root));
        }
        let Some(listing) = &self.listing else { return Labels::default() };
        let of_pod = pod.and_then(|uid| listing.pods.get(uid));
        listing.containers.get(id).or(of_pod).cloned().unwrap_or_default()
    }
}

impl Listing {
    fn of(root: &Path) -> Self {
        let containers = entries(&root.join(CONTAINER_LOGS)).filter_map(|name| of_log(&name)).collect();
        let pods = entries(&root.join(POD_LOGS)).filter_map(|name| of_pod(&name)).collect();
        Self { containers, pods, made: Instant::now() }
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = String> {
    let all = fs::read_dir(folder).into_iter().flatten().flatten().take(MOST_ENTRIES);
    all.filter_map(|entry| entry.file_name().into_string().ok())
}

/// `POD_NAMESPACE_CONTAINER-ID.log`. No name of Kubernetes has an underscore.
fn of_log(name: &str) -> Option<(Box<str>, Labels)> {
    let (names, id) = name.strip_suffix(".log")?.rsplit_once('-')?;
    let [pod, pod_namespace, container_name] = parts(names)?;
    Some((id.into(), Labels { pod, pod_namespace, container_name }))
}

/// `NAMESPACE_POD_UID`.
fn of_pod(name: &str) -> Option<(Box<str>, Labels)> {
    let [pod_namespace, pod, uid] = parts(name)?;
    Some((uid?, Labels { pod, pod_namespace, container_name: None }))
}

/// As many names as there is room for, between underscores.
fn parts<const N: usize>(name: &str) -> Option<[Option<Box<str>>; N]> {
    let parts: Vec<_> = name.split('_').map(Labels::name).collect();
    parts.try_into().ok().filter(|parts: &[Option<Box<str>>; N]| parts.iter().all(Option::is_some))
}

/// From what an engine notes on a container of Kubernetes: containerd, CRI-O and Docker; nerdctl on its own.
fn annotated(all: &HashMap<String, String>) -> Labels {
    let first = |keys: &[&str]| keys.iter().find_map(|key| all.get(*key)).and_then(|name| Labels::name(name));
    Labels {
        pod: first(&["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"]),
        pod_namespace: first(&["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"]),
        container_name: first(&["io.kubernetes.cri.container-name", "io.kubernetes.container.name", "nerdctl/name"]),
    }
}

/// From the name that an engine gave it. For Kubernetes it is `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT`.
fn stored_as(name: &str) -> Labels {
    let parts: Vec<_> = name.split('_').map(Labels::name).collect();
    match &parts[..] {
        [Some(k8s), container, pod, namespace, _, _] if &**k8s == "k8s" => {
            Labels { pod: pod.clone(), pod_namespace: namespace.clone(), container_name: container.clone() }
        }
        _ => Labels { container_name: Labels::name(name), ..Labels::default() },
    }
}

/// The unique id in `/kubepods/burstable/podUID/…`, or `…/kubepods-burstable-podUID.slice/…`, where systemd wants
/// underscores for dashes.
fn pod_uid(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok().filter(|path| path.contains("kubepods"))?;
    path.split('/').rev().find_map(|component| {
        if let Some(slice) = component.strip_suffix(".slice") {
            return Some(slice.rsplit_once("-pod")?.1.replace('_', "-"));
        }
        component.strip_prefix("pod").filter(|uid| !uid.is_empty()).map(str::to_owned)
    })
}

/// Reads JSON from a regular file that is not too long.
fn json<T: DeserializeOwned>(path: &Path, longest: u64) -> Option<T> {
    // A FIFO would wait for a writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > longest {
        return None;
    }
    let mut text = Vec::new();
    file.take(longest).read_to_end(&mut text).ok()?;
    let parsed = serde_json::from_slice(&text);
    parsed.inspect_err(|error| log::debug!("cannot read '{}': {error}", path.display())).ok()
}

/// Reads any text as a file of each engine, and as the name of a file and of a control group.
#[cfg(feature = "fuzz")]
pub(super) fn read_any(text: &[u8]) {
    let config = serde_json::from_slice::<Config>(text).map(|config| annotated(&config.annotations));
    let docker = serde_json::from_slice::<Docker>(text).map(|docker| stored_as(&docker.name));
    let stored = serde_json::from_slice::<Vec<Stored>>(text);
    let name = std::str::from_utf8(text).ok();
    drop((config, docker, stored, pod_uid(text), name.map(|name| (of_log(name), of_pod(name), stored_as(name)))));
}

#[cfg(test)]
mod tests;
