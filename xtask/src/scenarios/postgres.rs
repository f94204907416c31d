//! PostgreSQL, alone and behind pgbouncer: pools that are missing or too small, connections that the server ends for being
//! idle, and clients that forget theirs.

use std::fs;
use std::os::unix::fs::chown;

use anyhow::{Context as _, Result};
use nix::unistd::User;

use super::ground::Net;
use super::said::{Said, Want, may, want};
use super::{Part, Scenario};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "postgres-without-a-pool",
        parts: &[
            Part { name: "pgbench -C", run: |net| bench(net, &["-C"]), wants: &WITHOUT },
            Part { name: "pgbench", run: |net| bench(net, &[]), wants: &[] },
        ],
    },
    Scenario {
        name: "pgbouncer-closes-idle",
        parts: &[
            Part { name: "client_idle_timeout 2", run: |net| left_idle(net, 2), wants: &STALE },
            Part { name: "client_idle_timeout 0", run: |net| left_idle(net, 0), wants: &[] },
        ],
    },
    Scenario {
        name: "postgres-client-leak",
        parts: &[
            Part { name: "connections not closed", run: |net| forgets(net, "leak"), wants: &LEAK },
            Part { name: "connections closed", run: |net| forgets(net, "close"), wants: &[] },
        ],
    },
    // Nothing is wrong with TCP when a pooler has its clients wait, or turns them away.
    Scenario {
        name: "pgbouncer-pool",
        parts: &[
            Part { name: "2 for 20 workers", run: |net| workers(net, 2, 0), wants: &[] },
            Part { name: "2 for 20 workers, query_wait_timeout 1", run: |net| workers(net, 2, 1), wants: &[] },
            Part { name: "20 for 20 workers", run: |net| workers(net, 20, 0), wants: &[] },
        ],
    },
    Scenario {
        name: "pgbouncer-dead-postgres",
        parts: &[
            Part { name: "postgres has stopped", run: |net| stopped(net, true), wants: &REFUSED },
            Part { name: "postgres runs", run: |net| stopped(net, false), wants: &[] },
        ],
    },
];

const WITHOUT: [Want; 1] = [want("no-connection-pool", "warning")];
const STALE: [Want; 1] = [want("stale-pool", "note")];
const LEAK: [Want; 1] = [want("close-wait-leak", "warning")];
const REFUSED: [Want; 2] = [want("connect-refused", "critical"), may("no-connection-pool", "note")];

/// Debian's programs of the server.
const BIN: &str = "/usr/lib/postgresql/15/bin";

impl Net {
    /// Runs a program that refuses to be root.
    fn as_postgres<'a>(program: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
        [&["--reuid=postgres", "--regid=postgres", "--clear-groups", program], arguments].concat()
    }

    /// PostgreSQL on port 5432, with a new and empty database.
    fn postgres(&self, settings: &[&str]) -> Result<u32> {
        let data = self.folder.join("data");
        fs::create_dir_all(&data).context("cannot make a folder for the database")?;
        let user = User::from_name("postgres").context("cannot look for a user")?.context("no user postgres")?;
        chown(&data, Some(user.uid.as_raw()), Some(user.gid.as_raw())).context("cannot give the folder away")?;
        let data = data.display().to_string();
        let options = ["-D", &data, "-U", "postgres", "-A", "trust", "--locale=C", "--no-sync"];
        let said = self.run("setpriv", &Self::as_postgres(&format!("{BIN}/initdb"), &options))?;
        anyhow::ensure!(said.contains("Success"), "initdb failed; see {}", self.folder.display());
        let settings: Vec<_> = settings.iter().flat_map(|setting| ["-c", setting]).collect();
        let fixed =
            ["-D", &data, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"];
        let program = format!("{BIN}/postgres");
        self.serve("setpriv", &Self::as_postgres(&program, &[&fixed[..], &settings].concat()), &[5432])
    }

    /// pgbouncer on port 6432, before PostgreSQL.
    fn pgbouncer(&self, settings: &str) -> Result<u32> {
        let config = format!(
            "[databases]\npostgres = host=127.0.0.1 port=5432 dbname=postgres user=postgres\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = 6432\nunix_socket_dir =\nauth_type = any\n{settings}\n"
        );
        let config = self.file("pgbouncer.ini", &config)?;
        self.serve("setpriv", &Self::as_postgres("pgbouncer", &[&config]), &[6432])
    }
}

/// Over a network, no port in TIME_WAIT is taken again after a second.
fn bench(net: &Net, options: &[&str]) -> Result<Said> {
    net.sysctl("net.ipv4.tcp_tw_reuse", "0")?;
    net.postgres(&[])?;
    net.diagnose(8, || {
        let pgbench = format!("{BIN}/pgbench");
        let fixed = ["-h", "127.0.0.1", "-U", "postgres", "-n", "-c", "4", "-T", "5", "-f"];
        let script = net.file("select.sql", "select 1;\n")?;
        let said = net.run(&pgbench, &[options, &fixed, &[script.as_str(), "postgres"]].concat())?;
        let lines =
            said.lines().filter(|line| line.starts_with("tps") || line.starts_with("number of transactions act"));
        Ok(lines.map(|line| format!("pgbench: {line}")).collect())
    })
}

/// Five connections of psycopg2's pool, left idle after a query each.
const LEFT_IDLE: &str = r#"
import psycopg2.pool, time
pool = psycopg2.pool.ThreadedConnectionPool(5, 5, "host=127.0.0.1 port=6432 user=postgres dbname=postgres sslmode=disable")
taken = [pool.getconn() for _ in range(5)]
for it in taken:
    it.autocommit = True
    it.cursor().execute("select 1")
for it in taken:
    pool.putconn(it)
time.sleep(4)
open("ready", "w")
time.sleep(60)
"#;

fn left_idle(net: &Net, seconds: u32) -> Result<Said> {
    net.postgres(&[])?;
    // As long as a client has a connection of the server, which it keeps in the mode `session`, it is not idle.
    net.pgbouncer(&format!("pool_mode = transaction\nclient_idle_timeout = {seconds}"))?;
    net.python_ready(LEFT_IDLE, &[])?;
    net.diagnose(6, || Ok(Vec::new()))
}

/// A client that opens a connection for each of its queries; it may forget to close it.
const FORGETS: &str = r#"
import psycopg2, sys, time
kept = []
for _ in range(40):
    it = psycopg2.connect("host=127.0.0.1 port=5432 user=postgres dbname=postgres sslmode=disable")
    it.autocommit = True
    it.cursor().execute("select 1")
    if sys.argv[1] == "leak":
        kept.append(it)
    else:
        it.close()
    time.sleep(0.1)
time.sleep(1.5)
open("ready", "w")
time.sleep(30)
"#;

fn forgets(net: &Net, what: &str) -> Result<Said> {
    net.postgres(&["idle_session_timeout=1000"])?;
    net.diagnose(9, || {
        net.python_ready(FORGETS, &[what])?;
        Ok(vec![format!("{} in CLOSE_WAIT", net.sockets("08"))])
    })
}

/// Twenty workers with a connection each, which hold transactions open for a while.
const WORKERS: &str = r#"
import psycopg2, threading, time
end = time.monotonic() + 5
counts = {"done": 0, "turned away": 0}
def work():
    it = None
    while time.monotonic() < end:
        try:
            it = it or psycopg2.connect("host=127.0.0.1 port=6432 user=postgres dbname=postgres sslmode=disable")
            cursor = it.cursor()
            cursor.execute("select pg_sleep(0.2)")
            it.commit()
            counts["done"] += 1
        except psycopg2.Error:
            counts["turned away"] += 1
            if it:
                it.close()
            it = None
            time.sleep(0.2)
    if it:
        it.close()
threads = [threading.Thread(target=work) for _ in range(20)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(", ".join(f"{count} {what}" for what, count in counts.items()))
"#;

fn workers(net: &Net, pool: u32, wait: u32) -> Result<Said> {
    net.postgres(&[])?;
    net.pgbouncer(&format!("pool_mode = transaction\ndefault_pool_size = {pool}\nquery_wait_timeout = {wait}"))?;
    net.diagnose(8, || Ok(vec![net.python(WORKERS, &[])?.trim().to_owned()]))
}

/// A client that tries again and again.
const TRIES: &str = r#"
import psycopg2, time
well = 0
for _ in range(20):
    try:
        it = psycopg2.connect("host=127.0.0.1 port=6432 user=postgres dbname=postgres sslmode=disable")
        it.cursor().execute("select 1")
        it.close()
        well += 1
    except psycopg2.Error:
        pass
    time.sleep(0.1)
print(well, "of 20 queries answered")
"#;

fn stopped(net: &Net, is_stopped: bool) -> Result<Said> {
    if !is_stopped {
        net.postgres(&[])?;
    }
    net.pgbouncer("server_login_retry = 0.2\nquery_wait_timeout = 1")?;
    net.diagnose(8, || Ok(vec![net.python(TRIES, &[])?.trim().to_owned()]))
}
