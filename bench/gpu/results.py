"""The phase `report`: what all phases left, as a table per group, and bench/results/<device>.md and .json."""
import json
import re

from place import BUNDLED, ROOT
from report import commit, machine, number
from rows import found as findings

ORDER = ("probe", "build", "contract", "kernels", "sanitizer", "ceilings", "engine", "encoder", "neighbours")


def slug(text):
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unknown"


def table(rows):
    lines = ["| | figure | spread | beside | ratio | goal | |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for r in rows:
        verdict = {None: "", True: "met", False: "**not met**"}[r["met"]]
        beside = f"{r['denominator']} {number(r['denominator_value'])}" if r["denominator"] else ""
        lines.append(f"| {r['name']} | {number(r['value'])} {r['unit']} | {number(r['spread'][0])}–{number(r['spread'][1])} | {beside} | "
                     f"{number(r['ratio'])} | {r['goal'] or ''} | {verdict} |")
    return lines


def report(place):
    """Print, write; the number of problems: phases that were not run are no problem, but named."""
    found = findings(place)
    facts = found.get("probe", {}).get("facts", {})
    device = "simulated" if place.dry else facts.get("device", "unknown")
    version = (ROOT / "BUNDLE").read_text(encoding="utf-8").strip() if BUNDLED else commit(ROOT)
    lines = [f"# {device}", "", f"By `scripts/gpu.sh`, commit {version or 'unknown'}."]
    if place.dry:
        lines += ["", "A dry run on simulated devices: the figures mean nothing."]
    if facts:
        lines += ["", *(f"- {name}: {'; '.join(value) if isinstance(value, list) else value}" for name, value in facts.items())]
    for name in ORDER:
        phase = found.get(name)
        if phase is None:
            lines += ["", f"## {name}", "", "not run"]
            continue
        body = [] if phase["whole"] else ["", "- not over: what follows is what it had found"]
        if phase["rows"]:
            body += ["", *table(phase["rows"])]
        if phase["tests"]:
            body += [""] + [f"- {t['name']}: {t['verdict']}" + (f" ({t['passed']} passed, {len(t['failed'])} failed, {t['skipped']} skipped)" if "passed" in t else "")
                            for t in phase["tests"]]
        body += [""] * bool(phase["left_out"]) + [f"- left out: {m['name']}: {m['why']}" for m in phase["left_out"]]
        body += [""] * bool(phase["problems"]) + ["- problem: " + p.splitlines()[0] for p in phase["problems"]]
        if body:
            lines += ["", f"## {name}", *body]
    folder = place.out if place.dry or BUNDLED or "device" not in facts else ROOT / "bench/results"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{slug(device)}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    everything = [dict(row, phase=name) for name, phase in found.items() for row in phase["rows"]]
    result = {"machine": dict(machine(), **facts), "commit": version, "dry": place.dry, "rows": everything,
              "tests": [t for phase in found.values() for t in phase["tests"]],
              "left_out": [m for phase in found.values() for m in phase["left_out"]],
              "problems": [p for phase in found.values() for p in phase["problems"]]}
    (folder / f"{slug(device)}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    goals = [r for r in everything if r["goal"]]
    for r in goals:
        beside = "" if r["ratio"] is None else f"{number(r['ratio'])} x {r['denominator']}"
        print(f"  {r['name']}: goal {r['goal']}, {beside or number(r['value']) + ' ' + r['unit']}: {'a dry run' if place.dry else 'met' if r['met'] else 'NOT MET'}")
    print(f"  {sum(bool(r['met']) for r in goals)} of {len(goals)} goals met, {len(result['left_out'])} figures left out, {len(result['problems'])} problems; "
          f"written to {folder / slug(device)}.md and .json")
    return 0
