//! Trees of files as the programs write them.

use rstest::rstest;
use tempfile::TempDir;

use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
const UID: &str = "5d2b0cf1-9c3a-4b8e-8f0e-2f7d6a1b3c4d";

/// Files below a new directory. `ID` and `UID` in a path and in a text stand for the ids.
fn tree(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, text) in files {
        let path = folder.path().join(spelt(path));
        fs::create_dir_all(path.parent().expect("a folder")).expect("make it");
        fs::write(path, spelt(text)).expect("write it");
    }
    folder
}

fn spelt(text: &str) -> String {
    text.replace("UID", UID).replace("ID", ID)
}

fn found(root: &TempDir, path: &str) -> [Option<String>; 3] {
    let labels = Containers::below(root.path()).labels(&Group::at(spelt(path).as_bytes()));
    [labels.pod, labels.pod_namespace, labels.container_name].map(|name| name.map(Into::into))
}

fn names(pod: &str, namespace: &str, container: &str) -> [Option<String>; 3] {
    [pod, namespace, container].map(|name| (!name.is_empty()).then(|| name.to_owned()))
}

const IN_POD: &str = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod5d2b0cf1_9c3a_4b8e_8f0e_\
                      2f7d6a1b3c4d.slice/cri-containerd-ID.scope";

#[rstest]
#[case::containerd(
    IN_POD,
    &[(
        "run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json",
        r#"{"ociVersion":"1.2.0","process":{"args":["nginx"]},"annotations":{
            "io.kubernetes.cri.container-name":"nginx","io.kubernetes.cri.container-type":"container",
            "io.kubernetes.cri.sandbox-name":"web-5d9","io.kubernetes.cri.sandbox-namespace":"shop"}}"#,
    )],
    names("web-5d9", "shop", "nginx")
)]
#[case::its_sandbox_has_no_name(
    IN_POD,
    &[(
        "run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json",
        r#"{"annotations":{"io.kubernetes.cri.container-type":"sandbox",
            "io.kubernetes.cri.sandbox-name":"web-5d9","io.kubernetes.cri.sandbox-namespace":"shop"}}"#,
    )],
    names("web-5d9", "shop", "")
)]
#[case::nerdctl(
    "/system.slice/nerdctl-ID.scope",
    &[("run/containerd/io.containerd.runtime.v2.task/default/ID/config.json", r#"{"annotations":{"nerdctl/name":"db"}}"#)],
    names("", "", "db")
)]
#[case::crio(
    "/kubepods.slice/kubepods-pod5d2b0cf1_9c3a_4b8e_8f0e_2f7d6a1b3c4d.slice/crio-ID.scope",
    &[(
        "run/containers/storage/overlay-containers/ID/userdata/config.json",
        r#"{"annotations":{"io.kubernetes.container.name":"nginx","io.kubernetes.pod.name":"web-5d9",
            "io.kubernetes.pod.namespace":"shop","io.kubernetes.cri-o.Name":"k8s_nginx_web-5d9_shop_UID_0"}}"#,
    )],
    names("web-5d9", "shop", "nginx")
)]
#[case::docker(
    "/docker/ID",
    &[("var/lib/docker/containers/ID/config.v2.json", r#"{"ID":"ID","Name":"/web","Config":{"Labels":{}}}"#)],
    names("", "", "web")
)]
#[case::docker_without_labels(
    "/docker/ID",
    &[("var/lib/docker/containers/ID/config.v2.json", r#"{"Name":"/web_1_a","Config":{"Labels":null}}"#)],
    names("", "", "web_1_a")
)]
#[case::docker_of_kubernetes(
    "/kubepods/burstable/podUID/ID",
    &[(
        "var/lib/docker/containers/ID/config.v2.json",
        r#"{"Name":"/k8s_nginx_web-5d9_shop_UID_0","Config":{"Labels":{"io.kubernetes.container.name":"nginx",
            "io.kubernetes.pod.name":"web-5d9","io.kubernetes.pod.namespace":"shop"}}}"#,
    )],
    names("web-5d9", "shop", "nginx")
)]
#[case::podman(
    "/machine.slice/libpod-ID.scope/container",
    &[
        ("run/containers/storage/overlay-containers/ID/userdata/config.json", r#"{"annotations":{"io.container.manager":"libpod"}}"#),
        ("var/lib/containers/storage/overlay-containers/containers.json", r#"[{"id":"x"},{"id":"ID","names":["web"],"image":"i"}]"#),
    ],
    names("", "", "web")
)]
#[case::crio_by_its_storage(
    "/kubepods/podUID/crio-ID",
    &[(
        "var/lib/containers/storage/overlay-containers/containers.json",
        r#"[{"id":"ID","names":["k8s_nginx_web-5d9_shop_UID_0"]}]"#,
    )],
    names("web-5d9", "shop", "nginx")
)]
#[case::log_of_a_container(
    "/kubepods/besteffort/podUID/ID",
    &[("var/log/containers/web-5d9_shop_side-car-ID.log", "")],
    names("web-5d9", "shop", "side-car")
)]
#[case::log_of_a_pod(
    "/kubepods/besteffort/podUID/ID",
    &[("var/log/pods/shop_web-5d9_UID/nginx/0.log", "")],
    names("web-5d9", "shop", "")
)]
#[case::no_file("/docker/ID", &[], names("", "", ""))]
#[case::another_container("/docker/ID", &[("var/log/containers/web_shop_a-0.log", "")], names("", "", ""))]
#[case::damaged("/docker/ID", &[("var/lib/docker/containers/ID/config.v2.json", r#"{"Name":"#)], names("", "", ""))]
#[case::not_json("/docker/ID", &[("var/lib/docker/containers/ID/config.v2.json", "\u{0}\u{1b}[2J")], names("", "", ""))]
#[case::other_types("/docker/ID", &[("var/lib/docker/containers/ID/config.v2.json", r#"{"Name":7}"#)], names("", "", ""))]
#[case::not_a_container("/system.slice/nginx.service", &[("var/log/containers/a_b_c-ID.log", "")], names("", "", ""))]
fn names_are_found(#[case] path: &str, #[case] files: &[(&str, &str)], #[case] expected: [Option<String>; 3]) {
    assert_eq!(found(&tree(files), path), expected);
}

#[test]
fn a_name_that_is_too_long_is_none() {
    let text = format!(r#"{{"Name":"/{}"}}"#, "x".repeat(254));
    assert_eq!(
        found(&tree(&[("var/lib/docker/containers/ID/config.v2.json", &text)]), "/docker/ID"),
        names("", "", "")
    );
}

#[test]
fn a_file_that_is_too_long_is_not_read() {
    let text = format!(r#"{{"Name":"/web"}}{}"#, " ".repeat(1 << 20));
    assert_eq!(
        found(&tree(&[("var/lib/docker/containers/ID/config.v2.json", &text)]), "/docker/ID"),
        names("", "", "")
    );
}

/// Opening it once waited for a writer.
#[test]
fn a_pipe_is_not_read() {
    let root = tree(&[("var/lib/docker/containers/ID/hostname", "")]);
    let path = root.path().join(spelt("var/lib/docker/containers/ID/config.v2.json"));
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("make a FIFO");
    assert_eq!(found(&root, "/docker/ID"), names("", "", ""));
}

/// The files of a container that was named are not read again.
#[test]
fn a_name_is_kept() {
    let root = tree(&[("var/lib/docker/containers/ID/config.v2.json", r#"{"Name":"/web"}"#)]);
    let mut containers = Containers::below(root.path());
    let group = Group::at(spelt("/docker/ID").as_bytes());
    let first = containers.labels(&group);
    fs::remove_dir_all(root.path().join("var")).expect("remove it");
    assert_eq!((containers.labels(&group), first.container_name.as_deref()), (first.clone(), Some("web")));
    assert!(containers.labels(&Group::at(format!("/docker/{OTHER}").as_bytes())).is_empty());
}

/// When the time of this second is used up, containers keep their ids, and are looked up later.
#[test]
fn looking_up_takes_a_bounded_time() {
    let root = tree(&[("var/lib/docker/containers/ID/config.v2.json", r#"{"Name":"/web"}"#)]);
    let mut containers = Containers::below(root.path());
    containers.lent = (Instant::now(), MOST_LENT);
    let group = Group::at(spelt("/docker/ID").as_bytes());
    assert!(containers.labels(&group).is_empty());
    containers.lent.1 = Duration::ZERO;
    assert_eq!(containers.labels(&group).container_name.as_deref(), Some("web"));
}

#[rstest]
#[case("/kubepods/podUID/ID", Some(UID))]
#[case("/kubepods.slice/kubepods-pod5d2b0cf1_9c3a_4b8e_8f0e_2f7d6a1b3c4d.slice/crio-ID.scope", Some(UID))]
#[case("/system.slice/podman.service", None)]
#[case("/system.slice/nginx.service", None)]
fn unique_ids_of_pods(#[case] path: &str, #[case] expected: Option<&str>) {
    assert_eq!(pod_uid(spelt(path).as_bytes()).as_deref(), expected);
}
