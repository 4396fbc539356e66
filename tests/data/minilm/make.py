#!/usr/bin/env python3
"""Makes texts.jsonl: our own texts, their ids by Hugging Face's tokenizers, their vectors by a forward pass of all-MiniLM-L6-v2 in
float64 with numpy.

usage: make.py MODEL_FOLDER > texts.jsonl        (needs numpy and tokenizers; not part of the test run)
"""
import json, math, struct, sys
import numpy as np
from tokenizers import Tokenizer

TEXTS = [
    "", " ", "stepmill",
    "A pipeline is a directed acyclic graph of steps.",
    "The mill grinds a batch at a time; whatever comes out is in the order in which it went in.",
    "Ein Müller mahlt Korn, eine Mühle mahlt Zeilen: größer, schneller, ÄÖÜ.",
    "naïve café, résumé, coöperate, Ångström, İstanbul, Ǆungla, ﬁ",
    "水车磨坊把谷物磨成面粉。ひらがなとカタカナ、한국어 문장도 있다.",
    "Тест на русском языке, ёлка и Йод. Ελληνικά: Ὀδυσσεύς.",
    "price: $3.50 (was €4,00)... [MASK] and [SEP] inside; e-mail: a.b@example.org #tag C++ x_y=z!",
    "tab\tnewline\nreturn\rnull\x00bell\x07zero​width soft­hyphen nbsp � end",
    "emoji 🚀🧵 and ideographs 𠀀𠀁 mixed with words؟ عربى हिन्दी ไทย",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis " + "x" * 100 + " " + "y" * 101,
    "combining: e\u0301 o\u0308\u0323 a\u030a\u0327 \u1e9b\u0323 \uac00\u11a8",
    "rows " * 300,
    " ".join("line %d has %d values," % (i, i * i) for i in range(60)),
    "The quick brown fox jumps over the lazy dog. " * 3 + "THE QUICK BROWN FOX!",
]


def main(folder):
    f = open(folder + "/model.safetensors", "rb")
    size = struct.unpack("<Q", f.read(8))[0]
    head = json.loads(f.read(size))
    data = f.read()

    def w(name):
        t = head[name]
        return np.frombuffer(data[t["data_offsets"][0]:t["data_offsets"][1]], np.float32).reshape(t["shape"]).astype(np.float64)

    erf = np.vectorize(math.erf)

    def norm(x, name):
        m = x.mean(1, keepdims=True)
        return (x - m) / np.sqrt(((x - m) ** 2).mean(1, keepdims=True) + 1e-12) * w(name + ".weight") + w(name + ".bias")

    def linear(x, name):
        return x @ w(name + ".weight").T + w(name + ".bias")

    def embed(ids):
        n = len(ids)
        e = "embeddings."
        x = norm(w(e + "word_embeddings.weight")[ids] + w(e + "position_embeddings.weight")[:n] + w(e + "token_type_embeddings.weight")[0], e + "LayerNorm")
        for i in range(6):
            p = "encoder.layer.%d." % i
            q, k, v = (linear(x, p + "attention.self." + s).reshape(n, 12, 32).transpose(1, 0, 2)
                       for s in ("query", "key", "value"))
            s = q @ k.transpose(0, 2, 1) / math.sqrt(32)
            s = np.exp(s - s.max(2, keepdims=True))
            c = (s / s.sum(2, keepdims=True) @ v).transpose(1, 0, 2).reshape(n, 384)
            x = norm(x + linear(c, p + "attention.output.dense"), p + "attention.output.LayerNorm")
            h = linear(x, p + "intermediate.dense")
            x = norm(x + linear(0.5 * h * (1 + erf(h / math.sqrt(2))), p + "output.dense"), p + "output.LayerNorm")
        v = x.mean(0)
        return v / np.linalg.norm(v)

    tok = Tokenizer.from_file(folder + "/tokenizer.json")
    tok.no_padding()
    tok.enable_truncation(256)
    for text in TEXTS:
        ids = tok.encode(text).ids
        print(json.dumps({"text": text, "ids": ids, "embedding": [round(float(v), 6) for v in embed(ids)]}))


main(sys.argv[1])
