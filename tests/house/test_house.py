"""The rules of house.py find what they are for: small trees with one fault each."""
import pathlib
import tempfile
import unittest

import house

FUNCTIONS = {"cmake/functions.cmake": "", ".clang-format": "BasedOnStyle: LLVM\nColumnLimit: 20\n"}
CASES = [
    # rule, what, files, faults expected
    ("layers", "down is allowed", {"engine/flow/a.c": '#include "batch/b.h"\n', "engine/batch/b.h": ""}, 0),
    ("layers", "up is not", {"engine/batch/b.c": '#include "flow/a.h"\n', "engine/flow/a.h": ""}, 1),
    ("layers", "nor across", {"engine/flow/a.c": '#include "plugin/p.h"\n', "engine/plugin/p.h": ""}, 1),
    ("layers", "beside by bare name", {"engine/flow/a.c": '#include "a.h"\n', "engine/flow/a.h": ""}, 0),
    ("layers", "models on kernels", {"models/encoder/m.c": '#include "kernels/k.h"\n', "kernels/k.h": ""}, 0),
    ("layers", "kernels on models", {"kernels/k.c": '#include "models/m.h"\n', "models/m.h": ""}, 1),
    ("layers", "a step looks inside", {"steps/s.c": '#include "core/alloc.h"\n', "engine/core/alloc.h": ""}, 1),
    ("layers", "a step uses public headers", {"steps/s.c": '#include "stepmill/a.h"\n', "include/stepmill/a.h": ""}, 0),
    ("layers", "a public header looks inside", {"include/stepmill/a.h": '#include "core/x.h"\n', "engine/core/x.h": ""}, 1),
    ("layers", "tests are no layer", {"engine/core/a.c": '#include "tests/t.h"\n', "tests/t.h": ""}, 1),
    ("listed", "named", {"engine/core/a.c": "", "engine/core/CMakeLists.txt": "stm_sources(a.c)"}, 0),
    ("listed", "named from above", {"models/x/a.c": "", "models/CMakeLists.txt": "stm_sources(x/a.c)"}, 0),
    ("listed", "named from elsewhere", {"tests/s/a.c": "", "tests/u/CMakeLists.txt": "set(x ${r}/tests/s)\nt(${x}/a.c)"}, 0),
    ("listed", "the same name elsewhere", {"tests/s/a.c": "", "tests/u/CMakeLists.txt": "t(a.c)"}, 1),
    ("listed", "forgotten", {"engine/core/a.c": "", "engine/core/CMakeLists.txt": "stm_sources(aa.c b.c)"}, 1),
    ("listed", "part of another name", {"engine/core/a.c": "", "engine/core/CMakeLists.txt": "stm_sources(a.cc)"}, 1),
    ("sizes", "at the limit", {"engine/core/a.c": "\n" * 800}, 0),
    ("sizes", "past it", {"engine/core/a.c": "\n" * 801}, 1),
    ("columns", "at the limit", {"engine/core/a.c": "x" * 20 + "\n"}, 0),
    ("columns", "characters, not bytes", {"kernels/a.cu": "/* " + "ä" * 14 + " */\n"}, 0),
    ("columns", "past it", {"include/a.h": "/* a long comment */ \n", "tests/b.cc": "x" * 21}, 2),
    ("columns", "a table", {"tests/a.cc": "// clang-format off\n" + "x" * 30 + "\n// clang-format on\n"}, 0),
    ("columns", "behind a table", {"tests/a.cc": "// clang-format off\n// clang-format on\n" + "x" * 21 + "\n"}, 1),
    ("columns", "Python has no such format", {"scripts/a.py": "x" * 21, "engine/core/a.c": ""}, 0),
    ("kernels", "as it should be", {"kernels/a.cu": '/* no <<< */\n#include "kernels/stm_cuda.h"\n// asm\nint stm_asm;\n'}, 0),
    ("kernels", "chevrons", {"kernels/a.cu": '#include "stm_cuda.h"\nk<<<1, 2>>>();\n'}, 1),
    ("kernels", "plain shared memory", {"kernels/a.cu": '#include "stm_cuda.h"\n__shared__ int x;\n'}, 1),
    ("kernels", "inline PTX", {"kernels/a.cu": '#include "stm_cuda.h"\nasm volatile("bar.sync 0;");\n'}, 1),
    ("kernels", "a static kernel", {"kernels/a.cu": '#include "stm_cuda.h"\nstatic __global__ void k();\n'}, 1),
    ("kernels", "a nameless one", {"kernels/a.cu": '#include "stm_cuda.h"\nnamespace {\n'}, 1),
    ("kernels", "a volatile flag", {"kernels/a.cu": '#include "stm_cuda.h"\nvolatile int *flag;\n'}, 1),
    ("kernels", "a launch that waits", {"kernels/a.cu": '#include "stm_cuda.h"\nint r = cudaStreamSynchronize(s);\n'}, 1),
    ("sizes", "data may be long", {"tests/data/a.jsonl": "\n" * 9000, "scripts/a.py": "\n"}, 0),
]


class Rules(unittest.TestCase):
    def test_cases(self):
        for rule, what, tree, expected in CASES:
            with self.subTest(f"{rule}: {what}"), tempfile.TemporaryDirectory() as name:
                root = pathlib.Path(name)
                for path, text in {**FUNCTIONS, **tree}.items():
                    (root / path).parent.mkdir(parents=True, exist_ok=True)
                    (root / path).write_text(text)
                faults, _ = house.RULES[rule](root)
                self.assertEqual(len(faults), expected, faults)


if __name__ == "__main__":
    unittest.main()
