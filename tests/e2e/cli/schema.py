"""The JSON schema that the command prints: accepts what the engine accepts, refuses common mistakes.

A small validator of the keywords the schema uses, so that the test needs nothing installed; a keyword it does not know fails.
"""
import copy
import json
import re
import subprocess
import sys

TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float), "null": type(None)}
SILENT = {"$schema", "title", "description", "default", "x-default", "examples"}


def is_type(value, name):
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, TYPES[name])


def valid(v, s):
    for key, want in s.items():
        if key == "type":
            ok = any(is_type(v, t) for t in (want if isinstance(want, list) else [want]))
        elif key == "enum":
            ok = any(v == e and type(v) is type(e) for e in want)
        elif key == "const":
            ok = v == want
        elif key == "oneOf":
            ok = sum(valid(v, a) for a in want) == 1
        elif key == "anyOf":
            ok = any(valid(v, a) for a in want)
        elif key == "not":
            ok = not valid(v, want)
        elif key == "required":
            ok = not isinstance(v, dict) or all(k in v for k in want)
        elif key == "properties":
            ok = not isinstance(v, dict) or all(valid(v[k], a) for k, a in want.items() if k in v)
        elif key == "additionalProperties":
            rest = [k for k in v if k not in s.get("properties", {})] if isinstance(v, dict) else []
            ok = all(valid(v[k], want) for k in rest) if isinstance(want, dict) else want or not rest
        elif key == "propertyNames":
            ok = not isinstance(v, dict) or all(valid(k, want) for k in v)
        elif key == "minProperties":
            ok = not isinstance(v, dict) or len(v) >= want
        elif key == "items":
            ok = not isinstance(v, list) or all(valid(i, want) for i in v)
        elif key == "minItems":
            ok = not isinstance(v, list) or len(v) >= want
        elif key == "uniqueItems":
            ok = not isinstance(v, list) or len({json.dumps(i) for i in v}) == len(v)
        elif key == "exclusiveMinimum":
            ok = not is_type(v, "number") or v > want
        elif key == "minimum":
            ok = not is_type(v, "number") or v >= want
        elif key == "maximum":
            ok = not is_type(v, "number") or v <= want
        elif key == "minLength":
            ok = not isinstance(v, str) or len(v) >= want
        elif key == "pattern":
            ok = not isinstance(v, str) or re.search(want, v) is not None
        elif key in SILENT:
            ok = True
        else:
            raise SystemExit(f"keyword {key} is not known to this test")
        if not ok:
            return False
    return True


GOOD = {
    "stepmill": 1, "name": "p", "seed": 7, "memory_limit": {"host": "1GiB"}, "load_groups": [["docs"], ["out"]],
    "steps": {
        "docs": {"type": "read_jsonl", "path": ["a.jsonl", "b.jsonl"], "columns": {"name": "utf8"}, "batch_size": 32},
        "line": {"type": "template", "from": "docs", "template": "{name}", "input_batch_size": 64, "replicas": 2,
                 "retries": {"times": 2, "backoff": "1s", "classes": ["transient"]}, "timeout": {"load": "none"}, "cache": True},
        "groups": {"type": "deduplicate", "from": {"converge": ["a", "b"], "on_missing": None}, "threshold": 0.9},
        "other": {"type": "of_a_plugin", "from": ["docs", "line"], "anything": 1},
        "out": {"type": "write_jsonl", "from": ["groups"], "path": "o", "errors": True},
    },
}
BAD = [
    ("unknown_file_key", lambda d: d.update(nmae="x")),
    ("another_version", lambda d: d.update(stepmill=2)),
    ("no_steps", lambda d: d.update(steps={})),
    ("seed_is_text", lambda d: d.update(seed="x")),
    ("bad_step_name", lambda d: d["steps"].update({"a b": {"type": "of_a_plugin"}})),
    ("no_type", lambda d: d["steps"]["line"].pop("type")),
    ("batch_size_of_a_step", lambda d: d["steps"]["line"].update(batch_size=3)),
    ("from_of_a_generator", lambda d: d["steps"]["docs"].update({"from": "line"})),
    ("from_missing", lambda d: d["steps"]["line"].pop("from")),
    ("from_unknown_form", lambda d: d["steps"]["line"].update({"from": {"unite": ["a"]}})),
    ("unknown_parameter", lambda d: d["steps"]["groups"].update(thresh=0.5)),
    ("parameter_out_of_range", lambda d: d["steps"]["groups"].update(threshold=7)),
    ("parameter_missing", lambda d: d["steps"]["out"].pop("path")),
    ("replicas_zero", lambda d: d["steps"]["line"].update(replicas=0)),
    ("unknown_retry_key", lambda d: d["steps"]["line"]["retries"].update(time=1)),
    ("unknown_class", lambda d: d["steps"]["line"]["retries"].update(classes=["transent"])),
    ("errors_of_a_step", lambda d: d["steps"]["line"].update(errors=True)),
]


def without_text(s, path=""):
    """Keys, at any depth, that an editor would have nothing to say of; `type` of a step is its alternative's own text."""
    if isinstance(s, list):
        return {p for part in s for p in without_text(part, path)}
    if not isinstance(s, dict):
        return set()
    found = set()
    for key, v in s.get("properties", {}).items():
        if not v.get("description") and key != "type":
            found.add(f"{path}.{key}")
        found |= without_text(v, f"{path}.{key}")
    for key, v in s.items():
        if key != "properties":
            found |= without_text(v, path)
    return found


def main():
    schema = json.loads(subprocess.run([sys.argv[1], "schema"], check=True, stdout=subprocess.PIPE).stdout)
    faults = [] if valid(GOOD, schema) else ["a good pipeline is refused"]
    for name, edit in BAD:
        pipeline = copy.deepcopy(GOOD)
        edit(pipeline)
        if valid(pipeline, schema):
            faults.append(f"{name} is accepted")
    faults += [f"key {path} has no text" for path in sorted(without_text(schema))]
    print(f"{1 + len(BAD)} pipelines, {len(faults)} faults")
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
