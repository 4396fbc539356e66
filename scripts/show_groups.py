"""Shows groups of near-duplicates that examples/near-duplicates.yaml found, for a person to judge.

usage: show_groups.py RUN_DIRECTORY [N]     N groups, default 10: of two to four members, spread over the output
"""
import json
import pathlib
import sys
import textwrap


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    path = pathlib.Path(sys.argv[1]) / "groups.jsonl"
    wanted = int(sys.argv[2]) if len(sys.argv) == 3 else 10
    with open(path, encoding="utf-8") as lines:
        groups = [json.loads(line) for line in lines]
    if not groups:
        sys.exit(f"show_groups.py: {path} holds no group")
    small = [g for g in groups if g["size"] <= 4]
    step = max(1, len(small) // wanted)
    print("The number in front of a name is the similarity (cosine) of its description to that of the first of its group.")
    for shown, group in enumerate(small[::step][:wanted], 1):
        print(f"\n{shown}. group {group['group']}, {group['size']} packages")
        for name, text, score in zip(group["name"], group["text"], group["scores"]):
            short = textwrap.shorten(text, 150, placeholder=" …")
            print(textwrap.fill(f"{score:.3f}  {name}: {short}", 100, initial_indent="   ", subsequent_indent="          "))
    print(f"\n{len(groups)} groups with {sum(g['size'] for g in groups)} packages in {path}")


main()
