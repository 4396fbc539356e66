"""A BERT of a given shape with random weights, and texts for it: for machines that have neither a model nor a network.

    make_model.py FOLDER minilm|base|large|tiny        config.json, vocab.txt, model.safetensors, and what sentence-transformers wants beside them
    make_model.py TEXTS.jsonl texts COUNT TOKENS       documents whose median length is TOKENS, drawn from the vocabulary's words

Figures do not depend on what a model says, so weights are a block of random numbers written again and again.
"""
import json
import pathlib
import random
import struct
import sys

SHAPES = {  # layers, hidden, heads, intermediate, vocabulary, positions
    "tiny": (2, 64, 2, 128, 1024, 128), "minilm": (6, 384, 12, 1536, 30522, 512),
    "base": (12, 768, 12, 3072, 30522, 512), "large": (24, 1024, 16, 4096, 30522, 512),
}
WORDS = 1000  # of every vocabulary, so that texts fit all shapes


def tensors(layers, hidden, wide, words, positions):
    yield "embeddings.word_embeddings.weight", (words, hidden)
    yield "embeddings.position_embeddings.weight", (positions, hidden)
    yield "embeddings.token_type_embeddings.weight", (2, hidden)
    yield "embeddings.LayerNorm.weight", (hidden,)
    yield "embeddings.LayerNorm.bias", (hidden,)
    for layer in range(layers):
        prefix = f"encoder.layer.{layer}."
        for name, rows, columns in (("attention.self.query", hidden, hidden), ("attention.self.key", hidden, hidden),
                                    ("attention.self.value", hidden, hidden), ("attention.output.dense", hidden, hidden),
                                    ("intermediate.dense", wide, hidden), ("output.dense", hidden, wide)):
            yield f"{prefix}{name}.weight", (rows, columns)
            yield f"{prefix}{name}.bias", (rows,)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            yield f"{prefix}{name}.weight", (hidden,)
            yield f"{prefix}{name}.bias", (hidden,)


def make_model(folder, shape):
    layers, hidden, heads, wide, words, positions = SHAPES[shape]
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({
        "model_type": "bert", "architectures": ["BertModel"], "hidden_act": "gelu", "hidden_size": hidden,
        "intermediate_size": wide,
        "layer_norm_eps": 1e-12, "max_position_embeddings": positions, "num_attention_heads": heads, "num_hidden_layers": layers,
        "type_vocab_size": 2, "vocab_size": words, "position_embedding_type": "absolute", "pad_token_id": 0}), encoding="utf-8")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [f"w{i}" for i in range(words - 5)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": positions}), encoding="utf-8")
    (folder / "modules.json").write_text(json.dumps([
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]), encoding="utf-8")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": positions, "do_lower_case": False}),
                                                      encoding="utf-8")
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling/config.json").write_text(json.dumps({
        "word_embedding_dimension": hidden, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False}), encoding="utf-8")
    draw = random.Random(1)
    block = struct.pack("<65521f", *(draw.gauss(0, 0.05) for _ in range(65521)))  # a prime: rows do not repeat
    ones = struct.pack("<f", 1.0)
    header, at = {}, 0
    for name, shape_of in tensors(layers, hidden, wide, words, positions):
        count = 4
        for n in shape_of:
            count *= n
        header[name] = {"dtype": "F32", "shape": list(shape_of), "data_offsets": [at, at + count]}
        at += count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name, where in header.items():
            left = where["data_offsets"][1] - where["data_offsets"][0]
            source = ones * (left // 4) if name.endswith("LayerNorm.weight") else block
            while left > 0:
                left -= out.write(source[:left])


def make_texts(path, count, tokens):
    """Lengths are spread as documents' are: half to three times the median."""
    draw = random.Random(2)
    total = 0
    with open(path, "w", encoding="utf-8") as out:
        for row in range(count):
            length = max(4, min(3 * tokens, int(draw.lognormvariate(0, 0.6) * (tokens - 2))))
            total += length + 2
            out.write(json.dumps({"id": row, "text": " ".join(f"w{draw.randrange(WORDS)}" for _ in range(length))}) + "\n")
    return total


if __name__ == "__main__":
    if sys.argv[2] == "texts":
        print(make_texts(sys.argv[1], int(sys.argv[3]), int(sys.argv[4])))
    else:
        make_model(sys.argv[1], sys.argv[2])
