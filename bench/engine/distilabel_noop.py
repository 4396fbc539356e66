"""The no-op pipeline of distilabel: rows from memory, one step that passes them on. Run in distilabel's own environment.

usage: distilabel_noop.py ROWS BATCH_ROWS STATE_DIR
Prints JSON: seconds of run(), seconds until it could start (imports), peak memory of its processes, rows ahead of the last step.
"""
import time

began = time.perf_counter()

import json  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402

from distilabel.pipeline import Pipeline  # noqa: E402
from distilabel.steps import LoadDataFromDicts, Step, StepInput  # noqa: E402

imported = time.perf_counter() - began


class Noop(Step):
    @property
    def inputs(self):
        return ["id", "text"]

    @property
    def outputs(self):
        return []

    def process(self, inputs: StepInput):
        yield inputs


def main():
    rows, batch_rows, state = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    text = "a sentence of about the length of a title or a short instruction, as people write them " * 2
    data = [{"id": i, "text": f"{i} {text}"} for i in range(rows)]
    with Pipeline(name="noop", cache_dir=state) as pipeline:
        load = LoadDataFromDicts(data=data, batch_size=batch_rows)
        load >> Noop(input_batch_size=batch_rows)
    start = time.perf_counter()
    out = pipeline.run(use_cache=False)
    seconds = time.perf_counter() - start
    count = len(out["default"]["train"])
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps({"rows": count, "seconds": seconds, "import_seconds": imported, "peak_kib": peak}))


if __name__ == "__main__":
    main()
