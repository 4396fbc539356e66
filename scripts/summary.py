"""Counts what the stages of scripts/test.sh left in a results folder and prints it; exit status 1 unless all is well.

usage: summary.py RESULTS [--ci] [--failed]

RESULTS holds STAGE.junit (ctest's) and STAGE/*.xml (GoogleTest's, one a program). A case of a GoogleTest program counts
as one; a ctest entry without such a file, or one that failed outside its cases (crash, time-out, leak), counts as one.
--ci: a skipped test fails the run unless its label is gpu, or it says that it needs STEPMILL_SHARED and that is not set (what
is outside the repository adds to the tests, never replaces them).  --failed: a stage could not be built or run.
"""
import collections
import json
import os
import pathlib
import re
import sys
import xml.etree.ElementTree as ET


def labels(case):
    for p in case.iter("property"):
        if p.get("name") == "cmake_labels":
            return p.get("value", "").split(";")
    return []


def reason(element, text):
    """First line of what a skipped test says, without GoogleTest's place."""
    said = (element.get("message") or "") if element is not None else ""
    said = said if said and not said.startswith("SKIP") else text
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    lines = [line for line in lines if not re.match(r"^\S+\.(cc|cpp|cu|c|h):\d+$", line)]
    return lines[0] if lines else "no reason given"


def programs(folder):
    """Cases by program: {program: [(case, outcome, reason)]}. A program that ran twice has NAME_1.xml, too."""
    found = {}
    for path in sorted(folder.glob("*.xml")) if folder.is_dir() else []:
        try:
            root = ET.parse(path).getroot()
        except ET.ParseError:
            continue  # cut off by a crash: the ctest entry tells
        for case in root.iter("testcase"):
            name = f"{case.get('classname')}.{case.get('name')}"
            skipped = case.find("skipped")
            if case.find("failure") is not None:
                outcome = "failed"
            elif skipped is not None or case.get("result") == "skipped":
                outcome = "skipped"
            elif case.get("status") == "notrun":
                continue  # disabled or filtered out
            else:
                outcome = "passed"
            found.setdefault(re.sub(r"_\d+$", "", path.stem) if path.stem not in found else path.stem, []).append(
                (name, outcome, reason(skipped, (skipped.text or "") if skipped is not None else "")))
    return found


def main():
    results, ci, failed_stage = pathlib.Path(sys.argv[1]), "--ci" in sys.argv, "--failed" in sys.argv
    count = collections.Counter()
    skips, failures, forbidden = collections.defaultdict(list), [], []
    for junit in sorted(results.glob("*.junit")):
        stage = junit.stem
        cases = programs(results / stage)
        listed = results / f"{stage}.tests"  # ctest --show-only=json-v1: older ctests write no labels into their reports
        known = {}
        if listed.exists():
            for test in json.loads(listed.read_text(encoding="utf-8"))["tests"]:
                known[test["name"]] = [v for p in test.get("properties", []) if p["name"] == "LABELS" for v in p["value"]]
        for entry in ET.parse(junit).getroot().iter("testcase"):
            name = entry.get("name")
            skipped = entry.find("skipped")
            outcome = "failed" if entry.get("status") == "fail" else "passed"
            if skipped is not None or entry.get("status") in ("notrun", "disabled"):
                outcome = "skipped"
            rows = cases.pop(name, [])
            if not rows:
                rows = [(name, outcome, reason(skipped, entry.findtext("system-out") or ""))]
            elif outcome == "failed" and all(row[1] != "failed" for row in rows):
                rows.append((f"{name} (outside its cases)", "failed", ""))
            for case, what, why in rows:
                count[what] += 1
                if what == "failed":
                    failures.append(f"{stage}: {name}: {case}")
                elif what == "skipped":
                    skips[why].append(f"{stage}: {name}: {case}")
                    extra = "STEPMILL_SHARED" in why and not os.environ.get("STEPMILL_SHARED")
                    if ci and "gpu" not in labels(entry) + known.get(name, []) and not extra:
                        forbidden.append(f"{stage}: {name}: {case}")
    for line in failures:
        print(f"failed   {line}")
    for why, names in sorted(skips.items()):
        print(f"skipped  {len(names)}: {why}")
        for line in names[:20]:
            print(f"           {line}")
    for line in forbidden:
        print(f"failed   {line}: only tests labelled gpu may be skipped in CI")
    if failed_stage:
        print("failed   a stage could not be built, or its tests did not all pass: see above")
    bad = count["failed"] + len(forbidden) + (1 if failed_stage and not failures else 0)
    print(f"{count['passed']} passed, {bad} failed, {count['skipped']} skipped")
    sys.exit(0 if bad == 0 and not failed_stage and count["passed"] else 1)


main()
