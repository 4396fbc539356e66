"""real_server.py STEPMILL LITELLM WORK: chat through litellm's proxy with mock responses: right rows, and a wrong key told without the key."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

stepmill, litellm, work = sys.argv[1:]
KEY = "sk-real-server-0123456789"
shutil.rmtree(work, ignore_errors=True)
os.makedirs(work)
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
with open(f"{work}/litellm.yaml", "w") as f:
    f.write("model_list:\n- model_name: mock\n  litellm_params: {model: openai/mock, api_key: none, mock_response: forty-two}\n"
            "general_settings: {master_key: os.environ/STEPMILL_TEST_KEY}\n")
with open(f"{work}/rows.jsonl", "w") as f:
    f.writelines(json.dumps({"id": i, "q": f"question {i}"}) + "\n" for i in range(40))
with open(f"{work}/p.yaml", "w") as f:
    f.write(f"""stepmill: 1
name: p
max_errors: 100
steps:
  rows: {{type: read_jsonl, path: rows.jsonl, columns: {{id: int64, q: utf8}}, batch_size: 16}}
  ask: {{type: chat, from: rows, inputs: {{prompt: q}}, url: "http://127.0.0.1:{port}/v1", model: mock, api_key_env: STEPMILL_TEST_KEY, concurrency: 4, raw: true}}
  out: {{type: write_jsonl, from: ask, path: out.jsonl}}
""")
env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
env.update(STEPMILL_TEST_KEY=KEY, LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_TELEMETRY="False")
log = open(f"{work}/litellm.log", "w")
server = subprocess.Popen([litellm, "--config", f"{work}/litellm.yaml", "--host", "127.0.0.1", "--port", str(port)],
                          env=env, cwd=work, stdout=log, stderr=log, start_new_session=True)
try:
    begin = time.monotonic()
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=2).read()
            break
        except OSError:
            if server.poll() is not None or time.monotonic() - begin > 100:
                sys.exit("litellm did not start:\n" + open(f"{work}/litellm.log").read()[-3000:])
            time.sleep(0.2)
    started = time.monotonic() - begin
    begin = time.monotonic()
    subprocess.run([stepmill, "run", f"{work}/p.yaml", "--run", f"{work}/right", "--quiet"], env=env, check=True, timeout=60)
    print(f"server up after {started:.1f} s, 40 rows in {time.monotonic() - begin:.1f} s")
    rows = [json.loads(line) for line in open(f"{work}/right/out.jsonl")]
    assert [r["id"] for r in rows] == list(range(40)), rows
    assert all(r["answer"] == "forty-two" and r["finish_reason"] == "stop" and r["completion_tokens"] > 0 for r in rows), rows[0]
    wrong = dict(env, STEPMILL_TEST_KEY="sk-wrong-key-9876543210")
    subprocess.run([stepmill, "run", f"{work}/p.yaml", "--run", f"{work}/wrong", "--quiet"], env=wrong, check=True, timeout=60)
    errors = open(f"{work}/wrong/errors.jsonl").read()
    assert "HTTP status 401" in errors or "HTTP status 400" in errors, errors[:2000]
    for folder, _, files in os.walk(work):
        for name in files:
            if name == "litellm.log":
                continue
            data = open(os.path.join(folder, name), "rb").read()
            assert KEY.encode() not in data and b"sk-wrong-key-9876543210" not in data, f"the key is in {folder}/{name}"
finally:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()
