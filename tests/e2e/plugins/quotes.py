"""quotes.py PAGE FILE...: every block of C or YAML in the page stands in one of the files, word by word (blanks aside)."""
import re
import sys


def squeeze(text):
    return " ".join(text.split())


def main():
    page = open(sys.argv[1], encoding="utf-8").read()
    files = [squeeze(open(name, encoding="utf-8").read()) for name in sys.argv[2:]]
    blocks = re.findall(r"^```(?:c|yaml)\n(.*?)^```$", page, re.M | re.S)
    wrong = 0
    pieces = 0
    for block in blocks:
        for piece in re.split(r"^\s*\.\.\.\s*$", block, flags=re.M):  # a line "..." leaves something out
            if not piece.strip():
                continue
            pieces += 1
            if not any(squeeze(piece) in text for text in files):
                wrong += 1
                print(f"not in the example:\n{piece}")
    print(f"{pieces} quotations, {wrong} wrong")
    return 1 if wrong or pieces < 8 else 0


sys.exit(main())
