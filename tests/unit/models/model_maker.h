/* Makes small BERT folders with random weights, and computes their vectors in double: the oracle of the encoder. */
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

extern "C" {
#include "kernels/bf16.h"
}
#include "support/temp_dir.h"

namespace mt {

struct Tensor {
    std::vector<int64_t> shape;
    std::vector<float> data;
};

inline void write_file(const std::string &path, const std::string &bytes)
{
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path, std::ios::binary).write(bytes.data(), std::streamsize(bytes.size()));
}

inline std::string read_file(const std::string &path)
{
    std::ifstream in(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
}

/** The bytes of a safetensors file in @p dtype (F32 or BF16); header padded with spaces to a multiple of @p align. */
inline std::string safetensors(const std::map<std::string, Tensor> &tensors, const std::string &dtype = "F32", size_t align = 8)
{
    std::string header = "{\"__metadata__\":{\"format\":\"pt\"}", data;
    for (const auto &[name, t] : tensors) {
        const size_t begin = data.size();
        if (dtype == "F32") data.append(reinterpret_cast<const char *>(t.data.data()), t.data.size() * 4);
        for (size_t i = 0; dtype == "BF16" && i < t.data.size(); i++) {
            const uint16_t h = stm_bf16_of(t.data[i]);
            data.append(reinterpret_cast<const char *>(&h), 2);
        }
        header += ",\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[";
        for (size_t i = 0; i < t.shape.size(); i++) header += (i ? "," : "") + std::to_string(t.shape[i]);
        header += "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(data.size()) + "]}";
    }
    header += "}";
    while (header.size() % align != 0) header += ' ';
    std::string out(8, '\0');
    for (int i = 0; i < 8; i++) out[size_t(i)] = char(header.size() >> (8 * i));
    return out + header + data;
}

struct BertShape {
    const char *name;
    int layers, hidden, heads, wide, vocabulary, positions, types;
    bool tanh, cls, normalize;
    double eps;
    bool cased = false; /* its tokenizer keeps case and accents */
};

/** A model with random weights whose activations stay in an ordinary range. */
struct Bert {
    BertShape s;
    std::map<std::string, Tensor> w;
    std::vector<std::string> vocab;

    explicit Bert(const BertShape &shape, unsigned seed = 1) : s(shape)
    {
        std::mt19937 gen(seed);
        auto fill = [&](const std::string &name, std::vector<int64_t> dims, float scale, float base) {
            Tensor t{dims, {}};
            size_t n = 1;
            for (int64_t d : dims) n *= size_t(d);
            for (size_t i = 0; i < n; i++) t.data.push_back(base + scale * (float(gen() >> 8) / 8388608.0f - 1.0f));
            w[name] = t;
        };
        auto norm = [&](const std::string &name) {
            fill(name + ".weight", {s.hidden}, 0.2f, 1.0f);
            fill(name + ".bias", {s.hidden}, 0.2f, 0.0f);
        };
        auto linear = [&](const std::string &name, int n, int k) {
            fill(name + ".weight", {n, k}, 1.7f / std::sqrt(float(k)), 0.0f);
            fill(name + ".bias", {n}, 0.1f, 0.0f);
        };
        fill("embeddings.word_embeddings.weight", {s.vocabulary, s.hidden}, 1.0f, 0.0f);
        fill("embeddings.position_embeddings.weight", {s.positions, s.hidden}, 0.5f, 0.0f);
        fill("embeddings.token_type_embeddings.weight", {s.types, s.hidden}, 0.5f, 0.0f);
        norm("embeddings.LayerNorm");
        for (int i = 0; i < s.layers; i++) {
            const std::string l = "encoder.layer." + std::to_string(i) + ".";
            for (const char *part : {"query", "key", "value"}) linear(l + "attention.self." + part, s.hidden, s.hidden);
            linear(l + "attention.output.dense", s.hidden, s.hidden);
            norm(l + "attention.output.LayerNorm");
            linear(l + "intermediate.dense", s.wide, s.hidden);
            linear(l + "output.dense", s.hidden, s.wide);
            norm(l + "output.LayerNorm");
        }
        vocab = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
        for (int i = 5; i < s.vocabulary; i++) vocab.push_back("w" + std::to_string(i));
    }

    std::string config() const
    {
        char text[800];
        snprintf(
            text, sizeof text,
            "{\"model_type\": \"bert\", \"hidden_act\": \"%s\", \"hidden_size\": %d, \"intermediate_size\": %d, "
            "\"layer_norm_eps\": %g, "
            "\"max_position_embeddings\": %d, \"num_attention_heads\": %d, \"num_hidden_layers\": %d, \"type_vocab_size\": %d, "
            "\"vocab_size\": %d, \"position_embedding_type\": \"absolute\"}",
            s.tanh ? "gelu_new" : "gelu", s.hidden, s.wide, s.eps, s.positions, s.heads, s.layers, s.types, s.vocabulary);
        return text;
    }
    std::string vocabulary() const
    {
        std::string text;
        for (const auto &v : vocab) text += v + "\n";
        return text;
    }
    /** Write the folder; @p dtype of the weights. */
    void write(const std::string &dir, const std::string &dtype = "F32", size_t align = 8) const
    {
        write_file(dir + "/config.json", config());
        write_file(dir + "/vocab.txt", vocabulary());
        if (s.cased) write_file(dir + "/tokenizer_config.json", "{\"do_lower_case\": false}");
        write_file(dir + "/model.safetensors", safetensors(w, dtype, align));
        write_file(
            dir + "/modules.json",
            std::string("[{\"idx\":0,\"name\":\"0\",\"path\":\"\",\"type\":\"sentence_transformers.models.Transformer\"},"
                        "{\"idx\":1,\"name\":\"1\",\"path\":\"1_Pooling\",\"type\":\"sentence_transformers.models.Pooling\"}") +
                (s.normalize
                     ? ",{\"idx\":2,\"name\":\"2\",\"path\":\"2_Normalize\",\"type\":\"sentence_transformers.models.Normalize\"}]"
                     : "]"));
        write_file(dir + "/1_Pooling/config.json", std::string("{\"pooling_mode_cls_token\": ") + (s.cls ? "true" : "false") +
                                                       ", \"pooling_mode_mean_tokens\": " + (s.cls ? "false" : "true") + "}");
    }

    using Rows = std::vector<std::vector<double>>;
    Rows linear(const Rows &x, const std::string &name) const
    {
        const Tensor &m = w.at(name + ".weight"), &b = w.at(name + ".bias");
        Rows out;
        for (const auto &row : x) {
            std::vector<double> r(b.data.begin(), b.data.end());
            for (size_t j = 0; j < r.size(); j++)
                for (size_t k = 0; k < row.size(); k++) r[j] += row[k] * m.data[j * row.size() + k];
            out.push_back(r);
        }
        return out;
    }
    void norm(Rows &x, const std::string &name) const
    {
        const Tensor &g = w.at(name + ".weight"), &b = w.at(name + ".bias");
        for (auto &row : x) {
            double mean = 0, var = 0;
            for (double v : row) mean += v / double(row.size());
            for (double v : row) var += (v - mean) * (v - mean) / double(row.size());
            for (size_t i = 0; i < row.size(); i++) row[i] = (row[i] - mean) / std::sqrt(var + s.eps) * g.data[i] + b.data[i];
        }
    }
    /** The vector of a text given as ids. */
    std::vector<double> embed(const std::vector<int> &ids) const
    {
        const auto &words = w.at("embeddings.word_embeddings.weight").data,
                   &places = w.at("embeddings.position_embeddings.weight").data,
                   &types = w.at("embeddings.token_type_embeddings.weight").data;
        const size_t n = ids.size(), hidden = size_t(s.hidden), dim = hidden / size_t(s.heads);
        Rows x(n, std::vector<double>(hidden));
        for (size_t t = 0; t < n; t++)
            for (size_t i = 0; i < hidden; i++)
                x[t][i] = double(words[size_t(ids[t]) * hidden + i]) + places[t * hidden + i] + types[i];
        norm(x, "embeddings.LayerNorm");
        for (int layer = 0; layer < s.layers; layer++) {
            const std::string l = "encoder.layer." + std::to_string(layer) + ".";
            const Rows q = linear(x, l + "attention.self.query"), k = linear(x, l + "attention.self.key"),
                       v = linear(x, l + "attention.self.value");
            Rows c(n, std::vector<double>(hidden));
            for (size_t h = 0; h < hidden; h += dim)
                for (size_t i = 0; i < n; i++) {
                    std::vector<double> p(n);
                    double sum = 0;
                    for (size_t j = 0; j < n; j++) {
                        double dot = 0;
                        for (size_t d = 0; d < dim; d++) dot += q[i][h + d] * k[j][h + d];
                        sum += p[j] = std::exp(dot / std::sqrt(double(dim)));
                    }
                    for (size_t j = 0; j < n; j++)
                        for (size_t d = 0; d < dim; d++) c[i][h + d] += p[j] / sum * v[j][h + d];
                }
            c = linear(c, l + "attention.output.dense");
            for (size_t t = 0; t < n; t++)
                for (size_t i = 0; i < hidden; i++) x[t][i] += c[t][i];
            norm(x, l + "attention.output.LayerNorm");
            Rows u = linear(x, l + "intermediate.dense");
            for (auto &row : u)
                for (double &e : row)
                    e = s.tanh ? 0.5 * e * (1 + std::tanh(std::sqrt(2 / M_PI) * (e + 0.044715 * e * e * e)))
                               : 0.5 * e * (1 + std::erf(e / std::sqrt(2.0)));
            u = linear(u, l + "output.dense");
            for (size_t t = 0; t < n; t++)
                for (size_t i = 0; i < hidden; i++) x[t][i] += u[t][i];
            norm(x, l + "output.LayerNorm");
        }
        std::vector<double> out(hidden);
        for (size_t t = 0; t < (s.cls ? 1 : n); t++)
            for (size_t i = 0; i < hidden; i++) out[i] += x[t][i] / double(s.cls ? 1 : n);
        double length = 0;
        for (double e : out) length += e * e;
        for (double &e : out) e /= s.normalize ? std::sqrt(length) : 1.0;
        return out;
    }
};

/** Texts in Arrow's layout. */
struct Texts {
    std::string data;
    std::vector<int64_t> offsets{0};
    void add(const std::string &t) { data += t, offsets.push_back(int64_t(data.size())); }
    Texts() = default;
    explicit Texts(const std::vector<std::string> &all)
    {
        for (const auto &t : all) add(t);
    }
};

} // namespace mt
