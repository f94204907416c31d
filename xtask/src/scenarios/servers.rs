//! Servers that close first, that are not there, or that cannot bind: nginx, Apache, php-fpm, haproxy, redis.

use anyhow::Result;

use super::ground::Net;
use super::said::{Said, Want, may, want};
use super::{Part, Scenario};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "nginx-closes-first",
        parts: &[
            Part { name: "keepalive_timeout 0", run: |net| keepalive(net, "0", &[]), wants: &CLOSES_FIRST },
            Part { name: "keep-alive", run: |net| keepalive(net, "75", &["-k"]), wants: &[] },
        ],
    },
    Scenario {
        name: "php-fpm",
        parts: &[
            Part { name: "behind nginx", run: |net| nginx_php(net, false), wants: &PHP },
            Part { name: "behind Apache", run: apache_php, wants: &PHP_APACHE },
            Part { name: "behind nginx with fastcgi_keep_conn", run: |net| nginx_php(net, true), wants: &[] },
        ],
    },
    Scenario {
        name: "haproxy-dead-backend",
        parts: &[
            Part { name: "port closed", run: |net| haproxy(net, "  server one 127.0.0.1:8081"), wants: &REFUSED },
            Part { name: "port closed, and checked", run: |net| haproxy(net, CHECKED_AND_DEAD), wants: &REFUSED },
            Part { name: "host gone", run: haproxy_void, wants: &TIMEOUT },
            Part { name: "alive", run: |net| haproxy(net, "  server one 127.0.0.1:8080"), wants: &POOLED },
        ],
    },
    Scenario {
        name: "haproxy-health-checks",
        parts: &[
            Part { name: "every 100ms", run: |net| checks(net, "check inter 100ms"), wants: &CHECKS },
            Part { name: "every 2s", run: |net| checks(net, "check inter 2s"), wants: &POOLED },
            Part { name: "none", run: |net| checks(net, ""), wants: &POOLED },
        ],
    },
    Scenario {
        name: "redis-stopped",
        parts: &[
            Part { name: "not running", run: |net| redis(net, false), wants: &REFUSED },
            Part { name: "running", run: |net| redis(net, true), wants: &[] },
        ],
    },
    Scenario {
        name: "address-in-use",
        parts: &[
            Part { name: "a second nginx", run: second_nginx, wants: &SECOND },
            Part { name: "restart without SO_REUSEADDR", run: |net| restart(net, "False"), wants: &RESTART },
            Part { name: "restart with SO_REUSEADDR", run: |net| restart(net, "True"), wants: &[] },
        ],
    },
];

/// ab opens a connection for each request.
const CLOSES_FIRST: [Want; 2] = [want("server-closes-first", "note"), may("no-connection-pool", "note")];
/// Apache closes first here, so that its own ports are taken; over loopback they can be used again after a second.
const PHP_APACHE: [Want; 2] = [want("no-connection-pool", "note"), may("server-closes-first", "note")];
const PHP: [Want; 2] = [want("server-closes-first", "note"), want("no-connection-pool", "note")];
const REFUSED: [Want; 1] = [want("connect-refused", "critical")];
const TIMEOUT: [Want; 1] = [want("connect-timeout", "critical")];
/// haproxy resets connections of its pool that are idle.
const POOLED: [Want; 1] = [may("linger-zero", "note")];
const CHECKS: [Want; 1] = [want("linger-zero", "note")];
const SECOND: [Want; 1] = [want("bind-refused", "warning")];
const RESTART: [Want; 2] = [want("bind-refused", "critical"), may("no-connection-pool", "note")];

/// haproxy takes it out of service; its checks go on.
const CHECKED_AND_DEAD: &str = "  server one 127.0.0.1:8081 check inter 500ms";

/// Runs `ab`, and returns the lines that count.
pub(super) fn ab(net: &Net, arguments: &[&str]) -> Result<Vec<String>> {
    let said = net.run("ab", &[&["-q"], arguments].concat())?;
    let counts = |line: &&str| {
        ["Complete requests", "Failed requests", "Non-2xx", "Requests per second"].iter().any(|it| line.starts_with(it))
    };
    let lines = said.lines().filter(counts).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    Ok(vec![format!("ab: {}", lines.collect::<Vec<_>>().join(", "))])
}

fn keepalive(net: &Net, timeout: &str, options: &[&str]) -> Result<Said> {
    net.nginx("", &format!("keepalive_timeout {timeout};"), "")?;
    net.diagnose(8, || ab(net, &[options, &["-n", "5000", "-c", "10", "http://127.0.0.1:8080/"]].concat()))
}

fn nginx_php(net: &Net, keeps: bool) -> Result<Said> {
    net.php_fpm()?;
    let (upstream, keep) = if keeps { ("keepalive 4;", "fastcgi_keep_conn on;") } else { ("", "") };
    let http = format!("upstream php {{ server 127.0.0.1:9000; {upstream} }}");
    let server = format!(
        "location ~ \\.php$ {{ fastcgi_pass php; {keep} include /etc/nginx/fastcgi_params; \
         fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name; }}"
    );
    net.nginx("", &http, &server)?;
    net.diagnose(8, || ab(net, &["-k", "-n", "3000", "-c", "4", "http://127.0.0.1:8080/index.php"]))
}

fn apache_php(net: &Net) -> Result<Said> {
    net.php_fpm()?;
    net.apache()?;
    net.diagnose(8, || ab(net, &["-k", "-n", "3000", "-c", "4", "http://127.0.0.1:8080/index.php"]))
}

fn haproxy(net: &Net, backend: &str) -> Result<Said> {
    net.nginx("", "", "")?;
    net.haproxy(backend)?;
    net.diagnose(8, || ab(net, &["-k", "-n", "40", "-c", "4", "http://127.0.0.1:8000/"]))
}

fn haproxy_void(net: &Net) -> Result<Said> {
    net.void()?;
    net.haproxy("  server one 10.77.0.9:8080")?;
    net.diagnose(10, || ab(net, &["-k", "-n", "4", "-c", "4", "http://127.0.0.1:8000/"]))
}

fn checks(net: &Net, check: &str) -> Result<Said> {
    net.nginx("", "", "")?;
    net.haproxy(&format!("  server one 127.0.0.1:8080 {check}"))?;
    net.diagnose(8, || ab(net, &["-k", "-n", "40", "-c", "4", "http://127.0.0.1:8000/"]))
}

/// A client that tries again and again, as services do when they start.
const TRIES: &str = r#"
import redis, time
client = redis.Redis(host="127.0.0.1", port=6379)
well = 0
for _ in range(20):
    try:
        well += client.ping()
    except redis.ConnectionError:
        pass
    time.sleep(0.1)
print(well, "of 20 pings answered")
"#;

fn redis(net: &Net, runs: bool) -> Result<Said> {
    if runs {
        net.redis(&[])?;
    }
    net.diagnose(6, || Ok(vec![net.python(TRIES, &[])?.trim().to_owned()]))
}

fn second_nginx(net: &Net) -> Result<Said> {
    net.nginx("", "", "")?;
    let config = net.folder.join("nginx.conf").display().to_string();
    net.diagnose(6, || {
        let said = net.run("nginx", &["-c", &config])?;
        Ok(said.lines().last().map(str::to_owned).into_iter().collect())
    })
}

/// An HTTP server that closes first and ends, and its successor.
const SERVES: &str = r#"
import http.server, sys, time
class Server(http.server.ThreadingHTTPServer):
    allow_reuse_address = sys.argv[1] == "True"
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"well\n")
    def log_message(self, *_):
        pass
Server(("127.0.0.1", 8080), Handler).serve_forever()
"#;

fn restart(net: &Net, reuses: &str) -> Result<Said> {
    const PYTHON: &str = "/usr/bin/python3";
    let pid = net.serve(PYTHON, &["-c", SERVES, reuses], &[8080])?;
    ab(net, &["-n", "50", "-c", "2", "http://127.0.0.1:8080/"])?;
    net.signal(pid, nix::sys::signal::Signal::SIGKILL)?;
    net.wait_until("it does not listen", || Ok(net.sockets("0A") == 0))?;
    net.diagnose(6, || {
        if reuses == "True" {
            net.serve(PYTHON, &["-c", SERVES, reuses], &[8080])?;
            return Ok(vec!["it listens again".to_owned()]);
        }
        let said = net.run(PYTHON, &["-c", SERVES, reuses])?;
        Ok(said.lines().last().map(str::to_owned).into_iter().collect())
    })
}
