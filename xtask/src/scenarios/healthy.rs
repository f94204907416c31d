//! What is well: nothing above a note may be found.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::ground::Net;
use super::said::{Said, Want, may};
use super::{Part, Scenario};
use crate::command;

pub(super) const ALL: &[Scenario] = &[Scenario {
    name: "healthy",
    parts: &[
        Part { name: "idle", run: |net| net.diagnose(6, || Ok(Vec::new())), wants: &[] },
        Part { name: "nginx and wrk", run: wrk, wants: &GIVES_UP },
        Part { name: "redis and a pool", run: redis, wants: &[] },
        Part { name: "apt-get", run: apt_get, wants: &[] },
    ],
}];

/// wrk gives up its last answers when its time is over.
const GIVES_UP: [Want; 2] = [may("unread-at-close", "note"), may("linger-zero", "note")];

fn wrk(net: &Net) -> Result<Said> {
    net.nginx("", "", "")?;
    net.diagnose(8, || {
        let said = net.run("wrk", &["-t", "1", "-c", "20", "-d", "5s", "http://127.0.0.1:8080/"])?;
        let lines = said.lines().filter(|line| line.starts_with("Requests/sec") || line.contains("Socket errors"));
        Ok(lines.map(|line| format!("wrk: {}", line.trim())).collect())
    })
}

/// redis-py's pool with twenty threads.
const POOL: &str = r#"
import redis, threading, time
client = redis.Redis(host="127.0.0.1", port=6379, max_connections=20)
end = time.monotonic() + 5
done = []
def work():
    count = 0
    while time.monotonic() < end:
        client.incr("key")
        count += 1
        time.sleep(0.005)
    done.append(count)
threads = [threading.Thread(target=work) for _ in range(20)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(sum(done), "commands")
"#;

fn redis(net: &Net) -> Result<Said> {
    net.redis(&[])?;
    net.diagnose(8, || Ok(vec![net.python(POOL, &[])?.trim().to_owned()]))
}

/// `apt-get update` and `download` from a repository that nginx serves; no state of the system's apt is used.
fn apt_get(net: &Net) -> Result<Said> {
    let control = net.folder.join("package/DEBIAN");
    fs::create_dir_all(&control).context("cannot make a package")?;
    let fields = "Package: scenario\nVersion: 1\nArchitecture: all\nMaintainer: it <it@example.org>\nDescription: it\n";
    fs::write(control.join("control"), fields).context("cannot make a package")?;
    fs::write(net.folder.join("package/data"), vec![7; 1 << 20]).context("cannot make a package")?;
    let mut build = Command::new("dpkg-deb");
    command::output(build.args(["--build", "-Znone", "package", "scenario_1_all.deb"]).current_dir(&net.folder))?;
    let size = fs::metadata(net.folder.join("scenario_1_all.deb")).context("no package")?.len();
    let sum = command::output(Command::new("sha256sum").arg(net.folder.join("scenario_1_all.deb")))?;
    let sum = sum.split(' ').next().unwrap_or_default();
    net.file("Packages", &format!("{fields}Filename: ./scenario_1_all.deb\nSize: {size}\nSHA256: {sum}\n\n"))?;
    let folder = net.folder.display().to_string();
    for name in ["lists/partial", "cache/archives/partial", "empty"] {
        fs::create_dir_all(net.folder.join(name)).context("cannot make a folder")?;
    }
    net.file("status", "")?;
    net.file("sources.list", "deb [trusted=yes] http://127.0.0.1:8080 ./\n")?;
    net.nginx("", "", "")?;
    let settings = [
        format!("Dir::Etc::SourceList={folder}/sources.list"),
        format!("Dir::Etc::SourceParts={folder}/empty"),
        format!("Dir::Etc::Parts={folder}/empty"),
        format!("Dir::State::Lists={folder}/lists"),
        format!("Dir::State::Status={folder}/status"),
        format!("Dir::Cache={folder}/cache"),
        "APT::Sandbox::User=root".to_owned(),
    ];
    let options: Vec<&str> = settings.iter().flat_map(|setting| ["-o", setting.as_str()]).collect();
    net.diagnose(8, || {
        for _ in 0..5 {
            net.run("apt-get", &[&options, &["update"][..]].concat())?;
            net.run("apt-get", &[&options, &["download", "scenario"][..]].concat())?;
            fs::remove_file(net.folder.join("scenario_1_all.deb.1")).or(Ok::<_, std::io::Error>(()))?;
        }
        Ok(vec![format!("{} in TIME_WAIT", net.sockets("06"))])
    })
}
