"""A peer on the GPU, in a process of its own with its own CUDA libraries: after a line on stdin it does one round and prints its figure.

    peers.py eager|compiled|sentence_transformers MODEL TEXTS     tokens a second, bf16, sorted by length, batches of 256
    peers.py topk QUERIES CORPUS                                  milliseconds of matmul + topk in bf16, in blocks that fit
    peers.py sdpa DIM LENGTH                                      milliseconds of scaled_dot_product_attention over 16,384 rows, 12 heads, bf16, by the
                                                                  back end that is fastest in that round
"""
import json
import sys
import time


def timed(work):
    import torch
    torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def embed(kind, model, texts):
    import torch
    documents = [json.loads(line)["text"] for line in open(texts, encoding="utf-8")][:20000]
    lengths = [len(text.split()) + 2 for text in documents]
    if kind == "sentence_transformers":
        from sentence_transformers import SentenceTransformer, models
        inner = models.Transformer(model)
        st = SentenceTransformer(modules=[inner, models.Pooling(inner.get_word_embedding_dimension())], device="cuda").to(torch.bfloat16)
        st.encode(documents[:1000], batch_size=256)
        return lambda: sum(lengths) / timed(lambda: st.encode(documents, batch_size=256, convert_to_tensor=True))
    from transformers import BertModel
    net = BertModel.from_pretrained(model, torch_dtype=torch.bfloat16).cuda().eval()
    if kind == "compiled":
        net = torch.compile(net, dynamic=True)
    lengths.sort()
    batches = [lengths[i:i + 256] for i in range(0, len(lengths), 256)]

    def forward(batch):  # ids ready: without the tokenizer, which is to the peer's advantage
        ids = torch.randint(5, 1000, (len(batch), max(batch)), device="cuda")
        mask = torch.arange(max(batch), device="cuda")[None, :] < torch.tensor(batch, device="cuda")[:, None]
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
    q = torch.nn.functional.normalize(torch.randn(queries, 384, device="cuda"), dim=1).bfloat16()
    c = torch.nn.functional.normalize(torch.randn(corpus, 384, device="cuda"), dim=1).bfloat16()

    def search():
        best = None
        for first in range(0, corpus, 131072):
            scores, places = (q @ c[first:first + 131072].T).topk(32, dim=1)
            best = scores if best is None else torch.cat([best, scores], 1).topk(32, dim=1)[0]
        return best

    for _ in range(3):
        search()
    return lambda: timed(search) * 1e3


def sdpa(dim, length):
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    q, k, v = (torch.randn(16384 // length, 12, length, dim, device="cuda", dtype=torch.bfloat16) for _ in range(3))

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
                work()
            torch.cuda.synchronize()
            able.append(work)
        except (AttributeError, RuntimeError):  # not in this PyTorch, or not for these shapes
            pass
    return lambda: min(timed(work) for work in able) / 20 * 1e3


if sys.argv[1] == "sdpa":
    one_round = sdpa(int(sys.argv[2]), int(sys.argv[3]))
elif sys.argv[1] == "topk":
    one_round = topk(int(sys.argv[2]), int(sys.argv[3]))
else:
    one_round = embed(*sys.argv[1:4])
print("ready", flush=True)
for _ in sys.stdin:
    print(one_round(), flush=True)
