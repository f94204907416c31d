//! The programs, with configurations of their own.

use anyhow::Result;

use super::ground::Net;

/// Debian's Python, which has Debian's modules.
const PYTHON: &str = "/usr/bin/python3";

impl Net {
    /// nginx on port 8080, with one worker.
    pub(super) fn nginx(&self, main: &str, http: &str, server: &str) -> Result<u32> {
        let folder = self.folder.display();
        self.file("index.html", "well\n")?;
        let config = format!(
            "daemon off; user root; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log;\n\
             {main}\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n\
             access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n\
             fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n\
             keepalive_requests 1000000;\n\
             {http}\n\
             server {{ listen 127.0.0.1:8080; root {folder}; {server} }}\n\
             }}\n"
        );
        let config = self.file("nginx.conf", &config)?;
        self.serve("nginx", &["-c", &config], &[8080])
    }

    /// redis on port 6379, without persistence.
    pub(super) fn redis(&self, options: &[&str]) -> Result<u32> {
        let folder = self.folder.display().to_string();
        let fixed = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", &folder];
        self.serve("redis-server", &[&fixed, options].concat(), &[6379])
    }

    /// php-fpm on port 9000, with a page that says `well`.
    pub(super) fn php_fpm(&self) -> Result<u32> {
        let folder = self.folder.display();
        self.file("index.php", "<?php header(\"Content-Length: 5\"); echo \"well\\n\";\n")?;
        let config = format!(
            "[global]\nerror_log = {folder}/php.log\n\
             [www]\nuser = root\ngroup = root\nlisten = 127.0.0.1:9000\nlisten.backlog = 511\n\
             pm = static\npm.max_children = 8\n"
        );
        let config = self.file("php-fpm.conf", &config)?;
        self.serve("php-fpm8.2", &["-F", "-R", "-y", &config], &[9000])
    }

    /// Apache on port 8080, which passes pages to php-fpm.
    pub(super) fn apache(&self) -> Result<u32> {
        let folder = self.folder.display();
        let modules = ["mpm_event", "authz_core", "proxy", "proxy_fcgi"];
        let modules =
            modules.map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")).concat();
        let config = format!(
            "{modules}ServerRoot {folder}\nServerName scenario\nPidFile {folder}/apache.pid\nListen 127.0.0.1:8080\n\
             DefaultRuntimeDir {folder}\nMutex posixsem\nErrorLog {folder}/apache-error.log\nDocumentRoot {folder}\n\
             KeepAlive On\nMaxKeepAliveRequests 0\nProxyPassMatch ^/(.*\\.php)$ fcgi://127.0.0.1:9000{folder}/$1\n"
        );
        let config = self.file("apache.conf", &config)?;
        self.serve("apache2", &["-DFOREGROUND", "-f", &config], &[8080])
    }

    /// haproxy on port 8000.
    pub(super) fn haproxy(&self, backend: &str) -> Result<u32> {
        let config = format!(
            "global\n  maxconn 1000\n\
             defaults\n  mode http\n  retries 1\n  timeout connect 2s\n  timeout client 20s\n  timeout server 20s\n\
             frontend web\n  bind 127.0.0.1:8000\n  default_backend app\n\
             backend app\n{backend}\n"
        );
        let config = self.file("haproxy.conf", &config)?;
        self.serve("haproxy", &["-db", "-f", &config], &[8000])
    }

    /// Runs a script to its end.
    pub(super) fn python(&self, script: &str, arguments: &[&str]) -> Result<String> {
        self.run(PYTHON, &[&["-c", script], arguments].concat())
    }

    /// Starts a script, and waits until it listens or has done its first part: it makes the file `ready` then.
    pub(super) fn python_ready(&self, script: &str, arguments: &[&str]) -> Result<u32> {
        let ready = self.folder.join("ready");
        if ready.exists() {
            std::fs::remove_file(&ready)?;
        }
        let pid = self.start(PYTHON, &[&["-c", script], arguments].concat())?;
        self.wait_until("a script is ready", || Ok(ready.exists()))?;
        Ok(pid)
    }

    /// Starts a class of a single file of Java; it is ready when it listens on this port.
    pub(super) fn java(&self, source: &str, arguments: &[&str], port: u16) -> Result<u32> {
        let file = self.file("Main.java", source)?;
        self.serve("java", &[&["-Xshare:auto", "-XX:TieredStopAtLevel=1", file.as_str()], arguments].concat(), &[port])
    }
}
