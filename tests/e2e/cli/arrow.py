"""read_arrow and write_arrow against pyarrow, both ways: what one writes, the other reads with the same types and values; what
cannot be read is named.

usage: arrow.py STEPMILL WORK [PYTHON]      PYTHON has pyarrow; without it, the interpreter that runs this
"""
import json
import pathlib
import shutil
import subprocess
import sys

if len(sys.argv) > 3 and sys.argv[3] != sys.executable:
    sys.exit(subprocess.call([sys.argv[3], "-B", __file__, sys.argv[1], sys.argv[2]]))
import pyarrow as pa
import pyarrow.compute  # noqa: F401
import pyarrow.ipc

stepmill, work = pathlib.Path(sys.argv[1]).absolute(), pathlib.Path(sys.argv[2])
ROWS = 1000


def table():
    """Every type that stepmill has, nulls at every level."""
    def null(i, v):
        return None if i % 7 == 3 else v
    r = range(ROWS)
    return pa.table({
        "b": pa.array([null(i, i % 2 == 0) for i in r]),
        "i": pa.array([null(i, i * 1000003) for i in r], pa.int32()),
        "k": pa.array([null(i, -i << 33) for i in r], pa.int64()),
        "h": pa.array([null(i, i / 8) for i in r], pa.float32()).cast(pa.float16()),
        "f": pa.array([null(i, i / 3) for i in r], pa.float32()),
        "g": pa.array([null(i, i / 7) for i in r], pa.float64()),
        "t": pa.array([null(i, "é" * (i % 5)) for i in r], pa.large_string()),
        "y": pa.array([null(i, bytes([i % 256] * (i % 4))) for i in r], pa.large_binary()),
        "l": pa.array([null(i, [null(j + i, j) for j in range(i % 4)]) for i in r], pa.large_list(pa.int64())),
        "e": pa.array([null(i, [i, 0.5]) for i in r], pa.list_(pa.float32(), 2)),
        "s": pa.array([{"a": null(i + 1, i), "b": null(i, [{"c": "x" * (i % 3)}] * (i % 2))} for i in r],
                      pa.struct({"a": pa.int32(), "b": pa.large_list(pa.struct({"c": pa.large_string()}))})),
        "n": pa.array([None] * ROWS, pa.int32()),
    })


def write(name, t, stream=False, **options):
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(str(work / name), t.schema, options=pa.ipc.IpcWriteOptions(**options)) as w:
        w.write_table(t, max_chunksize=300)


def run(reads, writes=None, read_more="", write_more="", errors=""):
    folder = work / "run"
    shutil.rmtree(folder, ignore_errors=True)
    out = writes or "out.arrow"
    kind = "write_jsonl" if out.endswith(".jsonl") else "write_arrow"
    (work / "p.yaml").write_text(f"stepmill: 1\nname: p\nsteps:\n  src: {{type: read_arrow, path: {json.dumps(reads)}, batch_size: 64{read_more}}}\n"
                                 f"  out: {{type: {kind}, from: src, path: {out}{write_more}{errors}}}\n")
    done = subprocess.run([stepmill, "run", work / "p.yaml", "--run", folder, "--quiet"], capture_output=True, text=True,
                          timeout=120, check=False)
    return done.returncode, done.stderr, folder / out


def same(reads, want, **more):
    code, text, out = run(reads, **more)
    if code != 0:
        sys.exit(f"{reads}: exit code {code}: {text}")
    got = pa.ipc.open_file(str(out)).read_all()
    got.validate(full=True)
    if got.schema != want.schema or not got.equals(want):
        sys.exit(f"{reads}: other columns or values:\n{got.schema}\n{want.schema}")
    return pa.ipc.open_file(str(out))


def refused(reads, *words, exit_code=(1, 2, 65), **more):
    code, text, _ = run(reads, **more)
    if code not in exit_code or not all(w in text for w in words):
        sys.exit(f"{reads}: exit code {code}, {words} expected: {text}")


shutil.rmtree(work, ignore_errors=True)
work.mkdir(parents=True)
t = table()
write("file.arrow", t)
write("stream.arrow", t, stream=True)
write("zstd.arrow", t, compression="zstd")
write("lz4.arrow", t, compression="lz4")
for name in ("file.arrow", "stream.arrow", "zstd.arrow"):
    same(name, t)
f = same("file.arrow", t, write_more=", batch_rows: 130")
if [f.get_batch(i).num_rows for i in range(f.num_record_batches)] != [130] * 7 + [90]:
    sys.exit(f"{f.num_record_batches} batches")
same(["file.arrow", "stream.arrow"], pa.concat_tables([t, t]))
same("file.arrow", t.select(["t", "k"]), read_more=", columns: [t, k]")

# What others write with narrower types is read with ours.
narrow = pa.table({"a": pa.array([1, None, 3], pa.int8()), "b": pa.array([1, 2, None], pa.uint32()), "c": pa.array(["x", None, ""]),
                   "d": pa.array([[1], None, []], pa.list_(pa.int16()))})
write("narrow.arrow", narrow)
same("narrow.arrow", narrow.cast(pa.schema({"a": pa.int32(), "b": pa.int64(), "c": pa.large_string(),
                                            "d": pa.large_list(pa.int32())})))

# A name beside the type: json stays json.
(work / "rows.jsonl").write_text('{"j": {"a": 1}}\n{"j": null}\n')
(work / "json.yaml").write_text("stepmill: 1\nname: j\nsteps:\n  src: {type: read_jsonl, path: rows.jsonl, columns: {j: json}, extra: ''}\n  out: {type: write_arrow, from: src, path: j.arrow}\n")
subprocess.run([stepmill, "run", work / "json.yaml", "--run", work / "json", "--quiet"], check=True, timeout=60)
field = pa.ipc.open_file(str(work / "json" / "j.arrow")).schema.field("j")
if "json" not in str(field.type) and (field.metadata or {}).get(b"ARROW:extension:name") != b"arrow.json":
    sys.exit(f"json is written as {field} {field.metadata}")
code, text, out = run(str(work / "json" / "j.arrow"), "j.jsonl")
if out.read_text() != '{"j":{"a": 1}}\n{"j":null}\n':
    sys.exit(f"json comes back as {out.read_text()}")

# No rows, no batches; parts; rows with an error.
write("none.arrow", t.slice(0, 0))
same("none.arrow", t.slice(0, 0))
code, text, out = run("file.arrow", write_more=", part_rows: 300")
parts = [pa.ipc.open_file(str(p)).read_all() for p in sorted(out.parent.glob("out-*.arrow"))]
if [p.num_rows for p in parts] != [300, 300, 300, 100] or not pa.concat_tables(parts).equals(t):
    sys.exit(f"parts of {[p.num_rows for p in parts]} rows")
(work / "rows.jsonl").write_text('{"a": 1}\nbroken\n{"a": 3}\n')
(work / "errors.yaml").write_text("stepmill: 1\nname: e\nmax_errors: 1\nsteps:\n  src: {type: read_jsonl, path: rows.jsonl, columns: {a: int64}, extra: ''}\n  out: {type: write_arrow, from: src, path: e.arrow, errors: true}\n")
subprocess.run([stepmill, "run", work / "errors.yaml", "--run", work / "errors", "--quiet"], check=True, timeout=60)
rows = pa.ipc.open_file(str(work / "errors" / "e.arrow")).read_all().to_pylist()
if [r["a"] for r in rows] != [1, None, 3] or [r["_error"] is None for r in rows] != [True, False, True]:
    sys.exit(f"errors: {rows}")

# What cannot be read, and why.
whole = (work / "file.arrow").read_bytes()
cut, middle = whole[:-40], bytearray(whole)
(work / "cut.arrow").write_bytes(cut)
refused("cut.arrow", "cut off", "cut.arrow")
(work / "empty.arrow").write_bytes(b"")
refused("empty.arrow", "empty")
(work / "text.arrow").write_bytes(b"PAR1" + bytes(100))
refused("text.arrow", "no Arrow file")
middle[-14:-10] = (1 << 30).to_bytes(4, "little")
(work / "footer.arrow").write_bytes(middle[:-10] + (1 << 30).to_bytes(4, "little") + whole[-6:])
refused("footer.arrow", "footer")
stream = (work / "stream.arrow").read_bytes()
(work / "half.arrow").write_bytes(stream[: len(stream) // 2])
refused("half.arrow", "ends in the middle", "half.arrow")
refused("lz4.arrow", "lz4", "zstd")
refused("file.arrow", "no column nope", read_more=", columns: [nope]")
refused(["file.arrow", "narrow.arrow"], "narrow.arrow has other columns")
for name, column in {"when": pa.array([1], pa.timestamp("us")), "wide": pa.array([1], pa.uint64()),
                     "view": pa.array(["a"], pa.string_view()),
                     "words": pa.array(["a", "b"]).dictionary_encode().slice(0, 1)}.items():
    write("odd.arrow", pa.table({"fine": [1], name: column}))
    refused("odd.arrow", f'"{name}"')
refused("file.arrow", ".arrow", writes="out.arrow.gz")
for at in range(8, len(whole), 997):  # a changed byte is read or refused, never a crash
    bad = bytearray(whole)
    bad[at] ^= 0x41
    (work / "bad.arrow").write_bytes(bad)
    code, text, _ = run("bad.arrow")
    if code not in (0, 1, 2, 65):
        sys.exit(f"byte {at} changed: exit code {code}: {text}")
    if at > 997 * 12:
        break
print("arrow: all as it should be")
