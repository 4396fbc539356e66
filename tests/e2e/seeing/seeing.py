"""A run seen from outside: the table on a terminal, progress.json, metrics, log, status, logs, report. Numbers are those of the
run."""
import fcntl
import html.parser
import json
import os
import pty
import re
import select
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest
import urllib.request

STEPMILL = os.path.abspath(sys.argv.pop(1))
ROWS = 500
BAD = [r for r in range(ROWS) if r % 100 == 77]

PIPELINE = """stepmill: 1
name: seen
max_errors: 100
steps:
  docs: {type: read_jsonl, path: docs.jsonl, columns: {id: int64}, batch_size: 30}
  work: {type: command, from: docs, argv: [sh, work.sh], cwd: ".", send: [id], columns: {y: int64}, replicas: 2, on_error: isolate}
  some: {type: filter, from: work, where: "id < 300"}
  out: {type: write_jsonl, from: some, path: out.jsonl}
"""
WORK = 'while read l; do %s case $l in *77}) echo nonsense;; *) echo \'{"y":1}\';; esac; done\n'


class Case(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.path = os.path.realpath(self.dir.name)
        self.write("docs.jsonl", "".join('{"id":%d}\n' % i for i in range(ROWS)))
        self.write("seen.yaml", PIPELINE)
        self.write("work.sh", WORK % "")

    def tearDown(self):
        self.dir.cleanup()

    def write(self, name, text):
        with open(os.path.join(self.path, name), "w", encoding="utf-8") as f:
            f.write(text)

    def read(self, name):
        with open(os.path.join(self.path, name), encoding="utf-8") as f:
            return f.read()

    def command(self, *args, code=0, **more):
        r = subprocess.run([STEPMILL, *args], cwd=self.path, capture_output=True, text=True, timeout=60, check=False, **more)
        self.assertEqual(r.returncode, code, r.stderr)
        return r

    def slow(self, *args, pause=0.01):
        self.write("work.sh", WORK % f"sleep {pause};")
        return subprocess.Popen([STEPMILL, "run", "seen.yaml", "--run", "r", *args], cwd=self.path, stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True)

    def until(self, what, deadline=30):
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            got = what()
            if got:
                return got
            time.sleep(0.02)
        self.fail("waited too long")


def metrics(text):
    """Prometheus' text format, read strictly: {(name, labels): value}, {name: type}."""
    values, types, helps = {}, {}, set()
    for line in text.splitlines():
        if m := re.fullmatch(r"# HELP (\w+) (.+)", line):
            assert m[1] not in helps, line
            helps.add(m[1])
        elif m := re.fullmatch(r"# TYPE (\w+) (counter|gauge)", line):
            types[m[1]] = m[2]
        else:
            m = re.fullmatch(r'(\w+)\{((?:\w+="(?:[^"\\\n]|\\["\\n])*",?)*)\} (-?[0-9.e+-]+)', line)
            assert m, line
            assert m[1] in types and m[1] in helps, line
            assert types[m[1]] == "gauge" or m[1].endswith("_total"), line
            key = (m[1], tuple(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', m[2])))
            assert key not in values, line
            values[key] = float(m[3])
    assert text.endswith("\n")
    return values, types


class Truth(Case):
    """What is shown is what happened."""

    def test_numbers_are_those_of_the_run(self):
        self.command("run", "seen.yaml", "--run", "r")
        seen = json.loads(self.read("r/progress.json"))
        step = {s["step"]: s for s in seen["steps"]}
        self.assertEqual(seen["state"], "done")
        self.assertEqual((seen["rows_in"], seen["rows_out"], seen["rows_failed"], seen["errors"]), (ROWS, 300, len(BAD), len(BAD)))
        self.assertEqual(sum(seen["classes"].values()), seen["errors"])
        self.assertEqual(self.read("r/errors.jsonl").count("\n"), seen["errors"])
        self.assertEqual(self.read("r/out.jsonl").count("\n"), step["out"]["rows_in"])
        self.assertEqual(step["docs"]["rows_out"], ROWS)
        for s in seen["steps"]:
            if s["step"] != "docs":
                self.assertEqual(s["rows_in"], sum(step[seen["steps"][f]["step"]]["rows_out"] for f in s["from"]), s["step"])
                if s["kind"] == 2:
                    passed = s["rows_in"] - s["rows_dropped"] - s["parents_expanded"]
                    self.assertEqual(s["rows_out"], passed + s["children"], s["step"])
            self.assertEqual(sum(e["rows"] for e in s["each"]), s["rows_out"] if s["step"] == "docs" else s["rows_in"])
            self.assertEqual(len(s["each"]), 2 if s["step"] == "work" else 1)
            for e in s["each"]:
                spent = sum(e[k] for k in ("busy_s", "starved_s", "blocked_s", "crowded_s"))
                self.assertLessEqual(spent, seen["seconds"] + 1e-3)
            self.assertLessEqual(abs(sum(s[k] for k in ("busy", "starved", "blocked", "crowded")) - 1), 0.01 if spent > 0 else 1)
        self.assertEqual(step["some"]["rows_dropped"], 200)
        # The same numbers in the metrics ...
        values, _ = metrics(self.read("r/metrics.prom"))
        for s in seen["steps"]:
            for field in ("rows_in", "rows_out", "rows_failed", "batches_in", "rows_dropped"):
                self.assertEqual(values[(f"stepmill_{field}_total", (("run", "seen"), ("step", s["step"])))], s[field])
        self.assertEqual(values[("stepmill_up", (("run", "seen"),))], 0)
        # ... and in what the verbs say.
        self.assertEqual(json.loads(self.command("status", "r", "--json").stdout), seen)
        text = self.command("status", "r").stdout
        self.assertTrue(text.startswith("seen: done\n"), text)
        self.assertRegex(text, r"work +done +2 +500 ")

    def test_the_log_tells_the_story_once(self):
        self.command("run", "seen.yaml", "--run", "r")
        lines = [json.loads(x) for x in self.read("r/log.jsonl").splitlines()]
        self.assertEqual([lines[0]["event"], lines[-1]["event"]], ["start", "end"])
        self.assertEqual([x["time"] for x in lines], sorted(x["time"] for x in lines))
        errors = [x for x in lines if x["event"] == "error"]
        self.assertEqual(len(errors), len(BAD))
        for r in BAD:
            self.assertEqual(sum(f"docs:{r} " in x["text"] for x in errors), 1, r)
        of_one = self.command("logs", "r", "work[1]").stdout
        self.assertEqual(of_one.count("\n"), sum(x.get("step") == "work" and x.get("replica") == 1 for x in lines))
        self.assertEqual(self.command("logs", "r", "work", "--json").stdout.count("\n"),
                         sum(x.get("step") == "work" for x in lines))
        self.assertEqual(self.command("logs", "r").stdout.count("\n"), len(lines))
        for wrong in ("wrok", "wor", "works[0]"):
            r = self.command("logs", "r", wrong, code=64)
            self.assertEqual((r.stdout, r.stderr),
                             ("", f"stepmill: the run in r has no step '{wrong.split('[')[0]}'; did you mean 'work'?\n"))
        # A second run of the same directory: nothing is left to do, and the log goes on.
        self.command("run", "seen.yaml", "--run", "r", code=0)
        self.assertEqual(json.loads(self.read("r/progress.json"))["attempt"], 1)
        more = [json.loads(x) for x in self.read("r/log.jsonl").splitlines()[len(lines):]]
        self.assertEqual([x["event"] for x in more], ["complete"])

    def test_what_is_not_a_run_is_said(self):
        for verb in ("status", "logs", "report"):
            r = self.command(verb, ".", code=64)
            self.assertIn("is not a run directory: it has no progress.json", r.stderr)
        os.mkdir(os.path.join(self.path, "r"))
        self.write("r/progress.json", '{"format":1,"steps":[{]}')
        self.assertIn("damaged", self.command("status", "r", code=64).stderr)

    def test_a_full_or_closed_directory_is_no_reason_to_stop(self):
        self.command("run", "seen.yaml", "--run", "r", "--limit", "3")
        for name in ("progress.json", "metrics.prom", "log.jsonl", "run.json", "report.html"):
            os.remove(os.path.join(self.path, "r", name))
            os.mkdir(os.path.join(self.path, "r", name))  # nothing can be put there
        r = self.command("run", "seen.yaml", "--run", "r")
        self.assertEqual(self.read("r/out.jsonl").count("\n"), 300)
        self.assertEqual(r.stderr.count("the run goes on"), 1, r.stderr)


class Live(Case):
    """While it goes on."""

    def test_status_logs_metrics_of_a_live_run(self):
        run = self.slow("--metrics-port", "0")
        try:
            port = None

            def find_port():
                nonlocal port
                if os.path.exists(os.path.join(self.path, "r/log.jsonl")) and (m := re.search(r"127\.0\.0\.1:(\d+)/metrics", self.read("r/log.jsonl"))):
                    port = int(m[1])
                return port

            self.until(find_port)
            follow = subprocess.Popen([STEPMILL, "logs", "r", "-f"], cwd=self.path, stdout=subprocess.PIPE, text=True)
            values = {}

            def some_rows():
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                    self.assertEqual(answer.headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
                    values.update(metrics(answer.read().decode())[0])
                return values[("stepmill_rows_in_total", (("run", "seen"), ("step", "work")))] > 60

            self.until(some_rows)
            self.assertEqual(values[("stepmill_up", (("run", "seen"),))], 1)
            self.assertRegex(self.command("status", "r").stdout, r"\Aseen: running, process \d+ on ")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/progress.json", timeout=10) as answer:
                self.assertEqual(json.loads(answer.read())["name"], "seen")
            self.nobody_can_hurt(port)
            last = {}
            self.until(lambda: some_rows() and values[("stepmill_rows_in_total", (("run", "seen"), ("step", "work")))] > 250)
            last = json.loads(self.command("status", "r", "--json").stdout)
            self.assertEqual(last["state"], "running")
            # those of rows 77 and 177 are committed
            self.until(lambda: self.command("errors", "r", "--json").stdout.count("\n") >= 2)
            seen = [json.loads(line) for line in self.command("errors", "r", "--json", "--step", "work", "--class",
                                                              "permanent").stdout.splitlines()]
            self.assertIn(("work", 1, "docs:77"), [(e["step"], e["rows"], e["first_key"]) for e in seen])
            self.assertEqual(self.command("errors", "r", "--step", "out").stdout, "")
            self.assertFalse(os.path.exists(os.path.join(self.path, "r/errors.jsonl")), "that is written at the end")
            self.assertEqual(self.command("report", "r").stdout, self.path + "/r/report.html\n")
            self.assertIn(">running<", self.read("r/report.html"))
            self.assertIn("docs:77", self.read("r/report.html"))
        finally:
            self.assertEqual(run.wait(60), 0)
            run.stderr.close()
        out, _ = follow.communicate(timeout=30)
        self.assertEqual(out.count("\n"), self.read("r/log.jsonl").count("\n"), "followed to the end, every line once")
        with self.assertRaises(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)

    def nobody_can_hurt(self, port):
        def ask(data):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
                s.sendall(data)
                got = b""
                while part := s.recv(65536):
                    got += part
                return got.decode("latin-1")

        self.assertTrue(ask(b"GET /nothing HTTP/1.1\r\n\r\n").startswith("HTTP/1.1 404 "))
        self.assertTrue(ask(b"POST /metrics HTTP/1.1\r\n\r\n").startswith("HTTP/1.1 405 "))
        self.assertTrue(ask(b"\x16\x03\x01\x00\xa5 hello\r\n\r\n").startswith("HTTP/1.1 400 "))
        self.assertTrue(ask(b"GET metrics\r\n\r\n").startswith("HTTP/1.1 400 "))
        self.assertTrue(ask(b"GET /" + b"x" * 5000).startswith("HTTP/1.1 431 "))
        head = ask(b"HEAD /metrics HTTP/1.1\r\n\r\n")
        self.assertTrue(head.startswith("HTTP/1.1 200 ") and head.endswith("\r\n\r\n"), head)
        idle = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(40)]  # more than it keeps
        idle[-1].sendall(b"GET /met")
        self.assertTrue(ask(b"GET /metrics HTTP/1.1\r\n\r\n").startswith("HTTP/1.1 200 "), "those who say nothing hold up nobody")
        for s in idle:
            s.close()
        listening = [x.split()[1] for x in self.net_tcp() if x.split()[1].endswith(":%04X" % port) and x.split()[3] == "0A"]
        self.assertEqual(listening, ["0100007F:%04X" % port], "on the loopback only")

    @staticmethod
    def net_tcp():
        with open("/proc/net/tcp", encoding="ascii") as f:
            return f.read().splitlines()[1:]

    def test_a_killed_run_is_told_from_a_live_one(self):
        run = self.slow("--no-supervise")
        self.until(lambda: os.path.exists(os.path.join(self.path, "r/progress.json"))
                   and self.command("errors", "r", "--json").stdout.count("\n") >= 2)
        run.kill()
        run.wait()
        run.stderr.close()
        self.assertIn("nobody works on it", self.command("status", "r").stdout)
        # what was committed can be seen, though nobody wrote errors.jsonl
        self.assertIn("docs:77", self.command("errors", "r").stdout)
        self.assertFalse(os.path.exists(os.path.join(self.path, "r/errors.jsonl")))


class Screen:
    """What a terminal shows of the bytes that we use, and an error for any other."""

    def __init__(self, width):
        self.width, self.rows, self.row, self.col = width, [""], 0, 0

    def put(self, text):
        at = 0
        while at < len(text):
            if m := re.compile(r"\033\[(\d*)([AJm])").match(text, at):
                if m[2] == "A":
                    self.row = max(0, self.row - int(m[1] or 1))
                elif m[2] == "J":
                    assert not m[1], "to the end of the screen only"
                    self.rows[self.row:] = [self.rows[self.row][:self.col]]
                at = m.end()
                continue
            c = text[at]
            at += 1
            if c == "\r":
                self.col = 0
            elif c == "\n":
                self.down()
            else:
                assert c >= " ", repr(c)
                if self.col >= self.width:
                    self.down()
                    self.col = 0
                line = self.rows[self.row].ljust(self.col)
                self.rows[self.row] = line[:self.col] + c + line[self.col + 1:]
                self.col += 1

    def down(self):
        self.row += 1
        while len(self.rows) <= self.row:
            self.rows.append("")


class Terminal(Case):
    def watch(self, width, env=None, resize=None):
        """Bytes that a run writes to a terminal; resized after the first frames."""
        self.write("work.sh", WORK % "sleep 0.005;")
        pid, fd = pty.fork()
        if pid == 0:
            try:
                os.chdir(self.path)
                os.environ.update({"TERM": "xterm", **(env or {})})
                time.sleep(0.1)  # until the size is set
                os.execv(STEPMILL, [STEPMILL, "run", "seen.yaml", "--run", "r"])
            finally:
                os._exit(99)
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        out, frames = b"", 0
        pieces = []
        while select.select([fd], [], [], 60)[0]:
            try:
                part = os.read(fd, 65536)
            except OSError:
                break
            if not part:
                break
            out += part
            frames += part.count(b"\033[J")
            if resize and frames >= 2:
                fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, resize, 0, 0))
                pieces.append((width, out))
                out, width, resize = b"", resize, None
        pieces.append((width, out))
        _, status = os.waitpid(pid, 0)
        os.close(fd)
        self.assertEqual(os.waitstatus_to_exitcode(status), 0, out)
        return [(w, p.decode()) for w, p in pieces]

    def test_the_table_is_drawn_again_and_stays_once(self):
        (width, text), = self.watch(110)
        screen = Screen(width)
        screen.put(text)
        shown = "\n".join(screen.rows)
        self.assertGreaterEqual(text.count("\033[J"), 3, "drawn several times")
        self.assertEqual(len(re.findall(r"^step ", shown, re.M)), 1, shown)
        for step in ("docs", "work", "some"):
            self.assertEqual(len(re.findall(rf"^{step} +done ", shown, re.M)), 1, shown)
        self.assertRegex(shown, r"work +done +2 +500 +[\d,]+ +0 +\d+ % +\d+ % +\d+ % +5 ")
        self.assertRegex(shown, r"\ndone after ")
        self.assertIn("\033[1m", text)

    def test_a_window_that_becomes_narrower_leaves_no_rubbish(self):
        pieces = self.watch(120, {"NO_COLOR": "1"}, resize=50)
        self.assertEqual(len(pieces), 2)
        for _, text in pieces:
            self.assertNotRegex(text, r"\033\[\d*m", "no colours where they are not wanted")
        wide, narrow = pieces[0][1], pieces[1][1]
        screen = Screen(120)
        screen.put(wide)
        # What a terminal does when it becomes narrower: long lines go on in the next one.
        folded = []
        for line in screen.rows:
            folded += [line[i:i + 50] for i in range(0, max(len(line), 1), 50)]
        after = Screen(50)
        after.rows, after.row = folded, len(folded) - 1
        after.put(narrow)
        shown = "\n".join(after.rows)
        self.assertEqual(len(re.findall(r"^step ", shown, re.M)), 1, shown)
        self.assertEqual(len(re.findall(r"^work +done ", shown, re.M)), 1, shown)

    def test_a_job_log_gets_lines_only(self):
        r = self.command("run", "seen.yaml", "--run", "r")
        self.assertNotIn("\033", r.stderr)
        self.assertNotIn("step  ", r.stderr)


class Page(html.parser.HTMLParser):
    """Every tag is closed, nothing points anywhere, nothing runs."""
    VOID = {"meta", "link", "br"}

    def __init__(self):
        super().__init__()
        self.open, self.text, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            assert name not in ("src", "srcset", "action", "onclick", "onload"), (tag, name)
            assert name != "href" or value == "data:,", (tag, value)
            assert "url(" not in (value or ""), value
        if tag not in self.VOID and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open)
        self.open.pop()

    def handle_data(self, data):
        self.text.append(data)


class Report(Case):
    def test_the_page_is_whole_and_asks_for_nothing(self):
        self.write("seen.yaml", PIPELINE.replace("name: seen", "name: seen # <script>alert('\"&')</script>"))
        self.command("run", "seen.yaml", "--run", "r")
        page = self.read("r/report.html")
        p = Page()
        p.feed(page)
        p.close()
        self.assertEqual(p.open, [])
        self.assertNotIn("script", p.tags)
        self.assertNotIn("@import", page)
        self.assertNotRegex(page, r"https?://")
        text = " ".join(p.text)
        for word in ("done", "500", "docs", "work", "some", "write_jsonl", "What would make it faster", "Replicas over time",
                     "answer 1 is not a row",
                     "<script>alert('\"&')</script>", "seen.yaml", "command line"):
            self.assertIn(word, text)
        self.assertRegex(text, r"docs:\d*77\b", "the first row that failed, of whichever replica was first")
        self.assertIn('docs</th><td class="l">read_jsonl</td><td>1</td><td>\u2013</td><td>500</td>', page,
                      "a generator gets no rows, which is not 0 of them")
        self.assertIn('out</th><td class="l">write_jsonl</td><td>1</td><td>300</td><td>\u2013</td>', page)
        self.assertEqual(p.tags.count("svg"), 2)
        self.assertLess(len(page), 100000)

    def test_a_thousand_steps_have_a_report(self):
        steps = "".join(f"  s{i}: {{type: template, from: {'docs' if i == 0 else f's{i - 1}'}, template: \"{{id}}\", output: o}}\n"
                        for i in range(300))
        self.write("long.yaml", "stepmill: 1\nsteps:\n  docs: {type: read_jsonl, path: docs.jsonl, columns: {id: int64}}\n" + steps)
        self.command("run", "long.yaml", "--run", "r", "--limit", "5")
        p = Page()
        p.feed(self.read("r/report.html"))
        self.assertEqual(p.open, [])
        self.assertIn("s299", " ".join(p.text))


if __name__ == "__main__":
    unittest.main()
