"""`stepmill trace RUN KEY`: what became of one row, for every kind of step, held against what the pipeline does to it."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

STEPMILL = os.path.abspath(sys.argv.pop(1))
ROWS = 60
LONG = "é" * 400

LINE = """stepmill: 1
name: r
max_errors: 100
steps:
  docs: {type: read_jsonl, path: docs.jsonl, columns: {id: int64, text: utf8}, extra: "", batch_size: 7}
  some: {type: filter, from: docs, where: "id != 13"}
  label: {type: template, from: some, template: "{text}!", output: label}
  work: {type: command, from: label, argv: [sh, work.sh], cwd: ".", send: [id], columns: {parts: list<int64>}, on_error: isolate}
  each: {type: explode, from: work, column: parts}
  out: {type: write_jsonl, from: each, path: out.jsonl}
"""
GRAPH = """stepmill: 1
name: r
steps:
  docs: {type: read_jsonl, path: docs.jsonl, columns: {id: int64, v: "fixed_list<float32>[2]"}, extra: "", batch_size: 1, cache: true}
  deal: {type: round_robin, from: docs, to: {odd: left, even: right}}
  left: {type: template, from: deal, template: "L{id}", output: side}
  right: {type: template, from: deal, template: "R{id}", output: side}
  both: {type: template, from: {converge: [left, right]}, template: "{side}+", output: side}
  out: {type: write_jsonl, from: both, path: out.jsonl}
  twice: {type: template, from: {union: [docs, both]}, template: "{id}", output: t}
  again: {type: write_jsonl, from: twice, path: again.jsonl}
  groups: {type: deduplicate, from: docs, inputs: {embedding: v}, threshold: 0.9999, output: rows}
  dups: {type: write_jsonl, from: groups, path: dups.jsonl}
"""
WORK = "while read l; do %s case $l in *33}) echo nonsense;; *) echo '{\"parts\":[1,2,3]}';; esac; done\n"


class Trace(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.path = self.dir.name
        self.write("docs.jsonl", "".join(json.dumps({"id": i, "text": LONG if i == 20 else f"text {i}", "v": [1, i % 50]}) + "\n" for i in range(ROWS)))
        self.write("work.sh", WORK % "")

    def tearDown(self):
        self.dir.cleanup()

    def write(self, name, text):
        with open(os.path.join(self.path, name), "w", encoding="utf-8") as f:
            f.write(text)

    def rows(self, name):
        with open(os.path.join(self.path, "r", name), encoding="utf-8") as f:
            return [json.loads(line) for line in f]

    def command(self, *args, code=0):
        r = subprocess.run([STEPMILL, *args], cwd=self.path, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(r.returncode, code, r.stderr)
        return r

    def run_it(self, pipeline):
        self.write("p.yaml", pipeline)
        self.command("run", "p.yaml", "--run", "r", "--quiet")

    def trace(self, key):
        t = json.loads(self.command("trace", "r", key, "--json").stdout)
        return t, {s["step"]: s for s in t["steps"]}

    def fates(self, key):
        return {name: s["fate"] for name, s in self.trace(key)[1].items()}

    def test_a_row_that_comes_through(self):
        self.run_it(LINE)
        t, steps = self.trace("docs:5")
        self.assertEqual(t["descendants"], ["docs:5.0", "docs:5.1", "docs:5.2"])
        self.assertEqual(t["ancestors"], [])
        self.assertEqual({n: s["fate"] for n, s in steps.items()},
                         {"docs": "made", "some": "passed", "label": "passed", "work": "passed", "each": "expanded", "out": "taken"})
        self.assertEqual(steps["label"]["in"], {"text": "text 5"})
        self.assertEqual(steps["label"]["out"], {"label": "text 5!"})
        self.assertEqual(steps["out"]["in"], self.rows("out.jsonl")[5 * 3])
        child, steps = self.trace("docs:5.2")
        self.assertEqual(child["ancestors"], ["docs:5"])
        self.assertEqual(steps["each"]["out"], {"parts": 3})
        self.assertEqual((steps["each"]["batch"], steps["each"]["row"]), (0, 5 * 3 + 2))  # the batch of 7 rows as it was exploded
        text = self.command("trace", "r", "docs:20").stdout
        self.assertIn("bytes)", text)
        self.assertLess(max(map(len, text.splitlines())), 200)
        self.assertEqual(self.trace("docs:20")[1]["label"]["in"], {"text": LONG})

    def test_rows_that_do_not(self):
        self.run_it(LINE)
        fates = self.fates("docs:13")
        self.assertEqual((fates["docs"], fates["out"]), ("made", "never came"))
        self.assertIn("dropped", fates["some"])
        self.run_it(LINE.replace("on_error: isolate}", "on_error: isolate, cache: true}"))  # nearer to what dropped it
        self.assertEqual(self.fates("docs:13"), {"docs": "made", "some": "dropped", "label": "never came", "work": "never came",
                                                 "each": "never came", "out": "never came"})
        _, steps = self.trace("docs:33")
        self.assertEqual(steps["work"]["fate"], "failed")
        self.assertEqual(steps["work"]["errors"][0]["first_key"], "docs:33")
        self.assertIn("not a row", steps["work"]["errors"][0]["message"])
        self.assertEqual(steps["work"]["out"], {"parts": None})
        self.assertEqual(self.trace("docs:32")[1]["work"]["errors"], [])
        text = self.command("trace", "r", "docs:33").stdout
        self.assertIn("failed in replica 0, attempt 1, permanent: ", text)

    def test_routers_unions_and_globals(self):
        self.run_it(GRAPH)
        for row, here, there, text in ((4, "left", "right", "L4+"), (7, "right", "left", "R7+")):
            _, steps = self.trace(f"docs:{row}")
            self.assertEqual(steps["both"]["fate"], "converged")
            self.assertEqual(steps["both"]["out"], {"side": text})
            self.assertEqual(steps["twice"]["fate"], "united")
            self.assertEqual(steps["twice"]["as"], f"twice:0.{row}")
            self.assertEqual(steps["groups"]["fate"], "taken")
            self.assertNotEqual(steps[here]["fate"], "never came")
            self.assertNotEqual(steps[there]["fate"], "passed")
        self.assertEqual(self.trace("twice:1.7")[0]["key"], "docs:7")  # the same row, by the key that it has behind the union
        t, steps = self.trace("groups:3")
        self.assertEqual(steps["groups"]["fate"], "made")
        self.assertEqual(steps["dups"]["fate"], "taken")
        self.assertEqual(steps["dups"]["in"]["id"], self.rows("dups.jsonl")[3]["id"])
        self.assertEqual(steps["docs"]["fate"], "another root")
        self.assertIn("there never was such a row", self.command("trace", "r", "twice:2.7", code=64).stderr)

    def test_keys_that_never_were(self):
        self.run_it(LINE)
        for key, says in (("docs:60", "docs made 60, docs:0 to docs:59"), ("docs:5.3", "no such row is kept"), ("label:5", "is no key of this run"),
                          ("docs", "is no key of this run"), ("docs:1x", "is no key of this run"), ("docs:-1", "is no key of this run")):
            r = self.command("trace", "r", key, code=64)
            self.assertIn(says, r.stderr)
            self.assertEqual(r.stdout, "")
        self.assertIn("is not a run directory", self.command("trace", "nowhere", "docs:1", code=64).stderr)
        self.write("p.yaml", LINE.replace("from: some, template", "from: docs, template"))
        self.assertIn("connected otherwise", self.command("trace", "r", "docs:1", code=64).stderr)
        self.write("p.yaml", LINE.replace("{text}!", "{text}?"))
        self.assertIn("template", self.trace("docs:1")[0]["changed"])

    def test_a_run_that_was_killed(self):
        self.write("p.yaml", LINE.replace("max_errors: 100", "max_errors: 100\ncommit_interval: 0.02s"))
        self.write("work.sh", WORK % "sleep 0.02;")
        run = subprocess.Popen([STEPMILL, "run", "p.yaml", "--run", "r", "--quiet"], cwd=self.path)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            r = subprocess.run([STEPMILL, "trace", "r", "docs:0", "--json"], cwd=self.path, capture_output=True, text=True, check=False)
            if r.returncode == 0 and {s["step"]: s["fate"] for s in json.loads(r.stdout)["steps"]}["out"] == "taken":
                break
            time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
        run.wait()
        self.assertEqual(self.fates("docs:0")["out"], "taken")
        late = self.fates("docs:59")
        self.assertEqual(late["out"], "not yet")
        before = sorted(os.listdir(os.path.join(self.path, "r")))
        self.fates("docs:1")
        self.assertEqual(sorted(os.listdir(os.path.join(self.path, "r"))), before)  # it only looks
        self.command("resume", "r", "--quiet")
        self.assertEqual(self.fates("docs:59")["out"], "taken")


unittest.main()
