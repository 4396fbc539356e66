"""A peer on the GPU, in a process of its own with its own CUDA libraries: after a line on stdin it does one round and prints its
figure.

    peers.py eager|compiled|sentence_transformers MODEL TEXTS     tokens a second, bf16, sorted by length, batches of 256
    peers.py topk QUERIES CORPUS                                  milliseconds of matmul + topk in bf16, in blocks that fit
    peers.py sdpa                                                 lines are DIM LENGTH: milliseconds of scaled_dot_product_attention over 16,384 rows,
                                                                  12 heads, bf16, by the back end that is fastest in that round

Figures alone go to stdout: what libraries print goes to stderr.
"""
import functools
import json
import os
import sys
import time

FIGURES = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
DEVICE = os.environ.get("STEPMILL_PEERS_DEVICE", "cuda")  # "cpu": to try this file without a GPU


def timed(work):
    import torch
    wait = torch.cuda.synchronize if DEVICE == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - began


def embed(kind, model, texts):
    import torch
    documents = [json.loads(line)["text"] for line in open(texts, encoding="utf-8")][:20000]
    lengths = [len(text.split()) + 2 for text in documents]
    if kind == "sentence_transformers":
        from sentence_transformers import SentenceTransformer
        st = SentenceTransformer(model, device=DEVICE).to(torch.bfloat16)  # the folder says how it is put together
        st.encode(documents[:1000], batch_size=256, convert_to_tensor=True)
        return lambda: sum(lengths) / timed(lambda: st.encode(documents, batch_size=256, convert_to_tensor=True))
    from transformers import BertModel
    net = BertModel.from_pretrained(model).to(device=DEVICE, dtype=torch.bfloat16).eval()
    if kind == "compiled":
        net = torch.compile(net, dynamic=True)
    lengths.sort()
    batches = [lengths[i:i + 256] for i in range(0, len(lengths), 256)]

    def forward(batch):  # ids ready: without the tokenizer, which is to the peer's advantage
        ids = torch.randint(5, 1000, (len(batch), max(batch)), device=DEVICE)
        mask = torch.arange(max(batch), device=DEVICE)[None, :] < torch.tensor(batch, device=DEVICE)[:, None]
        with torch.no_grad():
            return net(input_ids=ids, attention_mask=mask.long()).last_hidden_state.sum()

    for batch in batches[:8] + batches[-8:]:
        forward(batch)

    def all_of_them():
        for batch in batches:
            forward(batch)

    return lambda: sum(lengths) / timed(all_of_them)


def topk(queries, corpus):
    import torch
    q = torch.nn.functional.normalize(torch.randn(queries, 384, device=DEVICE), dim=1).bfloat16()
    c = torch.nn.functional.normalize(torch.randn(corpus, 384, device=DEVICE), dim=1).bfloat16()

    def search():
        best = None
        for first in range(0, corpus, 131072):
            scores, places = (q @ c[first:first + 131072].T).topk(32, dim=1)
            best = scores if best is None else torch.cat([best, scores], 1).topk(32, dim=1)[0]
        return best

    for _ in range(3):
        search()
    return lambda: timed(search) * 1e3


@functools.lru_cache(maxsize=None)
def sdpa_backends(dim, length):
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    q, k, v = (torch.randn(16384 // length, 12, length, dim, device=DEVICE, dtype=torch.bfloat16) for _ in range(3))

    def by(backend):
        def work():
            with sdpa_kernel(backend):
                for _ in range(20):
                    torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.125)
        return work

    able = []
    for name in ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH"):
        try:
            work = by(getattr(SDPBackend, name))
            for _ in range(3):
                timed(work)
            able.append(work)
        except (AttributeError, RuntimeError):  # not in this PyTorch, or not for these shapes
            pass
    return able


def sdpa(dim, length):
    return min(timed(work) for work in sdpa_backends(int(dim), int(length))) / 20 * 1e3


if sys.argv[1] == "sdpa":
    import torch
    torch.zeros(1, device=DEVICE)
    one_round = sdpa
elif sys.argv[1] == "topk":
    one_round = topk(int(sys.argv[2]), int(sys.argv[3]))
else:
    one_round = embed(*sys.argv[1:4])
print("ready", file=FIGURES, flush=True)
for words in sys.stdin:
    print(one_round(*words.split()), file=FIGURES, flush=True)
