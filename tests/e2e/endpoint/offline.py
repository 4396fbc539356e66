"""The command with an offline batch: exit code 75 while it waits, a kill in the moment in which the batch is there and its number is not written down, the answers in the end.

usage: offline.py STEPMILL MODULES WORK
"""
import http.server
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading

stepmill, modules, work = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
files, batches, state = {}, [], {"kill": None, "ready": False}


class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def say(self, value, raw=None):
        body = raw if raw is not None else json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/files":
            files[f"file-{len(files)}"] = [json.loads(line) for line in body.splitlines() if line.startswith(b'{"custom_id"')]
            return self.say({"id": f"file-{len(files) - 1}"})
        made = json.loads(body)
        batches.append({"id": f"batch_{len(batches)}", "status": "in_progress", "metadata": made["metadata"], "file": made["input_file_id"]})
        if state["kill"]:  # the batch is there, and nobody will hear of it
            os.killpg(state["kill"].pid, signal.SIGKILL)
            state["kill"].wait()
            self.close_connection = True
            return None
        return self.say(batches[-1])

    def do_GET(self):
        if self.path.startswith("/v1/batches?"):
            return self.say({"data": batches, "has_more": False})
        if self.path.startswith("/v1/batches/"):
            b = next(b for b in batches if b["id"] == self.path.split("/")[-1])
            return self.say(dict(b, status="completed", output_file_id="out-" + b["file"]) if state["ready"] else b)
        rows = files[self.path.split("/")[3][4:]]
        lines = [{"custom_id": r["custom_id"], "response": {"status_code": 200, "body": {"choices": [
            {"message": {"content": r["body"]["messages"][-1]["content"].upper()}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}}} for r in rows]
        return self.say(None, "\n".join(json.dumps(line) for line in reversed(lines)).encode())

    def log_message(self, *_):
        pass


def run():
    env = dict(os.environ, STEPMILL_MODULES=modules, NO_COLOR="1")
    for name in [n for n in env if n.lower().endswith("_proxy")]:
        del env[name]
    p = subprocess.Popen([stepmill, "run", work / "p.yaml", "--run", work / "run"], env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    state["kill"] = p if state["kill"] else None
    text = p.communicate(timeout=120)[1]
    state["kill"] = None
    return p.returncode, text


def expect(what, got, want, text):
    if got != want:
        sys.exit(f"{what}: {got}, not {want}: {text}")


shutil.rmtree(work, ignore_errors=True)
work.mkdir(parents=True)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=server.serve_forever, daemon=True).start()
(work / "rows.jsonl").write_text("".join(json.dumps({"q": f"row {i}"}) + "\n" for i in range(50)))
(work / "p.yaml").write_text(f"""stepmill: 1
name: p
steps:
  rows: {{type: read_jsonl, path: rows.jsonl, extra: ""}}
  ask: {{type: chat, from: rows, inputs: {{prompt: q}}, url: "http://127.0.0.1:{server.server_port}/v1", model: m, offline: true, input_batch_size: 50, batch_poll: 50ms}}
  out: {{type: write_jsonl, from: ask, path: out.jsonl}}
""")
state["kill"] = True
expect("killed", run()[0], -9, "")
expect("batches", len(batches), 1, "")
for _ in range(2):
    code, text = run()
    expect("exit code while waiting", code, 75, text)
    expect("batches", len(batches), 1, text)
state["ready"] = True
code, text = run()
expect("exit code", code, 0, text)
got = [json.loads(line)["answer"] for line in (work / "run" / "out.jsonl").read_text().splitlines()]
expect("answers", got, [f"ROW {i}" for i in range(50)], text)
expect("batches", len(batches), 1, text)
print("offline: killed once, waited twice, one batch, 50 answers")
