"""Package descriptions of Debian as JSON lines, read from the index files of a private apt lists directory.

usage: corpus.py LISTS OUT

Writes OUT/debian.jsonl: one {"name": package, "text": "synopsis. description"} a line, sorted by name, equal texts once;
and OUT/debian-2000.jsonl: the 2,000 of them whose names hash lowest, a sample that stays the same as packages come and go.
"""
import hashlib
import json
import pathlib
import subprocess
import sys

SAMPLE = 2000


def stanzas(index):
    """Paragraphs of an index file as {field: [lines]}; apt may keep the file compressed."""
    raw = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", str(index)], check=True, stdout=subprocess.PIPE).stdout
    fields, lines = {}, None
    for line in raw.decode("utf-8", "replace").split("\n"):
        if line == "":
            if fields:
                yield fields
            fields, lines = {}, None
        elif line[0] in " \t":
            if lines is not None:
                lines.append(line.strip())
        else:
            field, _, value = line.partition(":")
            lines = fields[field] = [value.strip()]
    if fields:
        yield fields


def prose(lines):
    """Lines of a long description as paragraphs: a lone full stop parts them."""
    paragraphs = [[]]
    for line in lines:
        if line in (".", ""):
            paragraphs.append([])
        else:
            paragraphs[-1].append(line)
    return "\n".join(" ".join(p) for p in paragraphs if p)


def documents(lists):
    """Text by package name; the first index that has a package wins."""
    found = {}
    for index in sorted(lists.glob("*_main_i18n_Translation-en*")):
        for fields in stanzas(index):
            name, description = fields.get("Package"), fields.get("Description-en")
            if name and name[0] and description and description[0]:
                found.setdefault(name[0], description[0] + ". " + prose(description[1:]))
    return found


def write(path, rows):
    """Whole or not at all: a killed script leaves no half corpus that the next one would take for a whole one."""
    part = path.with_suffix(".part")
    with open(part, "w", encoding="utf-8") as out:
        for name, text in rows:
            out.write(json.dumps({"name": name, "text": text}, ensure_ascii=False) + "\n")
    part.replace(path)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    lists, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    seen, rows = set(), []
    for name, text in sorted(documents(lists).items()):
        if text not in seen:
            seen.add(text)
            rows.append((name, text))
    if len(rows) < SAMPLE:
        sys.exit(f"corpus.py: {len(rows)} descriptions in {lists}, expected tens of thousands")
    out.mkdir(parents=True, exist_ok=True)
    sample = sorted(rows, key=lambda row: hashlib.sha256(row[0].encode()).digest())[:SAMPLE]
    write(out / f"debian-{SAMPLE}.jsonl", sample)
    write(out / "debian.jsonl", rows)
    size = sum(len(text.encode()) for _, text in rows)
    print(f"{len(rows)} documents, {size / 1e6:.1f} MB of text", file=sys.stderr)


main()
