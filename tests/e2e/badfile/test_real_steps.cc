/* Mistakes that only real step types can see: in expressions, columns, data files and models. Each edit of one file gives one error
 * and is valid when taken back. */
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>

#include "command.h"

namespace {

const char kPipeline[] = "stepmill: 1\n"                                     // 1
                         "name: p\n"                                         // 2
                         "steps:\n"                                          // 3
                         "  docs:\n"                                         // 4
                         "    type: read_jsonl\n"                            // 5
                         "    path: in.jsonl\n"                              // 6
                         "    columns: {name: utf8, text: utf8, n: int64}\n" // 7
                         "  long:\n"                                         // 8
                         "    type: filter\n"                                // 9
                         "    from: docs\n"                                  // 10
                         "    where: length(text) > 2\n"                     // 11
                         "  line:\n"                                         // 12
                         "    type: template\n"                              // 13
                         "    from: long\n"                                  // 14
                         "    template: \"{name}: {text}\"\n"                // 15
                         "    output: line\n"                                // 16
                         "  embed:\n"                                        // 17
                         "    type: embed_text\n"                            // 18
                         "    from: line\n"                                  // 19
                         "    model: model\n"                                // 20
                         "    precision: f32\n"                              // 21
                         "    inputs: {text: line}\n"                        // 22
                         "    outputs: {embedding: vector}\n"                // 23
                         "  groups:\n"                                       // 24
                         "    type: deduplicate\n"                           // 25
                         "    from: embed\n"                                 // 26
                         "    inputs: {embedding: vector}\n"                 // 27
                         "    threshold: 0.9\n"                              // 28
                         "  out:\n"                                          // 29
                         "    type: write_jsonl\n"                           // 30
                         "    from: groups\n"                                // 31
                         "    path: groups.jsonl\n";                         // 32

const char kConfig[] = "{\"model_type\": \"bert\", \"hidden_size\": 8, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, "
                       "\"intermediate_size\": 16, "
                       "\"vocab_size\": 8, \"max_position_embeddings\": 16, \"type_vocab_size\": 2, \"hidden_act\": \"gelu\", "
                       "\"layer_norm_eps\": 1e-12}";
const char kVocabulary[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\n";

/* A model of one layer, 8 wide; every weight 0.5. */
std::string weights()
{
    const struct {
        const char *name;
        int rows, columns;
    } tensors[] = {
        {"embeddings.word_embeddings.weight", 8, 8},
        {"embeddings.position_embeddings.weight", 16, 8},
        {"embeddings.token_type_embeddings.weight", 2, 8},
        {"embeddings.LayerNorm.weight", 8, 0},
        {"embeddings.LayerNorm.bias", 8, 0},
        {"encoder.layer.0.attention.self.query.weight", 8, 8},
        {"encoder.layer.0.attention.self.query.bias", 8, 0},
        {"encoder.layer.0.attention.self.key.weight", 8, 8},
        {"encoder.layer.0.attention.self.key.bias", 8, 0},
        {"encoder.layer.0.attention.self.value.weight", 8, 8},
        {"encoder.layer.0.attention.self.value.bias", 8, 0},
        {"encoder.layer.0.attention.output.dense.weight", 8, 8},
        {"encoder.layer.0.attention.output.dense.bias", 8, 0},
        {"encoder.layer.0.attention.output.LayerNorm.weight", 8, 0},
        {"encoder.layer.0.attention.output.LayerNorm.bias", 8, 0},
        {"encoder.layer.0.intermediate.dense.weight", 16, 8},
        {"encoder.layer.0.intermediate.dense.bias", 16, 0},
        {"encoder.layer.0.output.dense.weight", 8, 16},
        {"encoder.layer.0.output.dense.bias", 8, 0},
        {"encoder.layer.0.output.LayerNorm.weight", 8, 0},
        {"encoder.layer.0.output.LayerNorm.bias", 8, 0},
    };
    std::string header = "{";
    size_t at = 0;
    for (const auto &t : tensors) {
        const size_t n = (size_t)t.rows * (t.columns != 0 ? t.columns : 1);
        header += std::string(header.size() > 1 ? "," : "") + "\"" + t.name + "\":{\"dtype\":\"F32\",\"shape\":[" +
                  std::to_string(t.rows) + (t.columns != 0 ? "," + std::to_string(t.columns) : "") + "],\"data_offsets\":[" +
                  std::to_string(at) + "," + std::to_string(at + 4 * n) + "]}";
        at += 4 * n;
    }
    header += "}";
    while (header.size() % 8 != 0) header += ' ';
    std::string s(8, '\0');
    const uint64_t bytes = header.size();
    memcpy(&s[0], &bytes, 8);
    s += header;
    const float half = 0.5f;
    for (size_t i = 0; i < at / 4; i++) s.append(reinterpret_cast<const char *>(&half), 4);
    return s;
}

enum { TRUNCATE = 1 }; /* good: how many bytes stay */

struct Fault {
    const char *name, *file, *good, *bad;
    int line, column, code; /* of the error; 0, 0: no place */
    const char *says;       /* after the place; the folder is DIR */
    int how = 0;
};

const Fault kFaults[] = {
    {"nothing_matches", "p.yaml", "path: in.jsonl", "path: '*.json'", 6, 11, 65,
     "docs: no file matches DIR/*.json (parameter \"path\")"},
    {"file_missing", "p.yaml", "path: in.jsonl", "path: inn.jsonl", 6, 11, 65,
     "docs: cannot find DIR/inn.jsonl (parameter \"path\"). Did you mean \"in.jsonl\"?"},
    {"data_is_a_folder", "p.yaml", "path: in.jsonl", "path: model", 6, 11, 65,
     "docs: parameter \"path[0]\": DIR/model is a folder, not a file"},
    {"column_type_unknown", "p.yaml", "n: int64", "n: int46", 7, 42, 65,
     "docs: type \"int46\": expected bool, int32, int64, float16, float32, float64, utf8, binary, json, list<...>, "
     "fixed_list<...>[n] or struct<...> at character 1 (column \"n\" of parameter \"columns\")"},
    {"expression_does_not_parse", "p.yaml", "length(text) > 2", "length(text > 2", 11, 12, 65,
     "long: parameter \"where\": character 8: cannot compare a text with a number"},
    {"expression_unknown_column", "p.yaml", "length(text) > 2", "length(txet) > 2", 11, 12, 65,
     "long: parameter \"where\": character 8: step type \"filter\" reads column \"txet\", which does not arrive. Did you mean "
     "\"text\"?"},
    {"expression_unknown_function", "p.yaml", "length(text) > 2", "lenth(text) > 2", 11, 12, 65,
     "long: parameter \"where\": character 1: there is no function lenth; there are length and bytes"},
    {"expression_is_no_condition", "p.yaml", "length(text) > 2", "length(text)", 11, 12, 65,
     "long: parameter \"where\": character 1: this gives a number, not true or false"},
    {"expression_compares_types", "p.yaml", "length(text) > 2", "text > 2", 11, 12, 65,
     "long: parameter \"where\": character 1: cannot compare a text with a number"},
    {"template_unknown_column", "p.yaml", "{name}: {text}", "{nam}: {text}", 15, 15, 65,
     "line: parameter \"template\": character 2: step type \"template\" reads column \"nam\", which does not arrive. Did you mean "
     "\"name\"?"},
    {"template_open_brace", "p.yaml", "{name}: {text}", "{name: {text}", 15, 15, 65,
     "line: parameter \"template\": character 1: this { has no }; write {{ for a brace"},
    {"model_missing", "p.yaml", "model: model", "model: modle", 20, 12, 65,
     "embed: cannot find DIR/modle (parameter \"model\"). Did you mean \"model\"?"},
    {"model_is_a_file", "p.yaml", "model: model", "model: in.jsonl", 20, 12, 65,
     "embed: parameter \"model\": DIR/in.jsonl/config.json does not exist"},
    {"precision_unknown", "p.yaml", "precision: f32", "precision: fp32", 21, 16, 65,
     "embed: parameter \"precision\" is \"fp32\", expected one of f32, bf16, f16. Did you mean \"f32\"?"},
    {"text_is_a_number", "p.yaml", "inputs: {text: line}", "inputs: {text: n}", 22, 14, 65,
     "embed: column \"n\" is int64, step type \"embed_text\" reads utf8"},
    {"vectors_are_text", "p.yaml", "inputs: {embedding: vector}", "inputs: {embedding: line}", 24, 3, 65,
     "groups: the column read as \"embedding\" is utf8, expected fixed_list<float32>[n]"},
    {"threshold_out_of_range", "p.yaml", "threshold: 0.9", "threshold: 1.5", 28, 16, 65,
     "groups: parameter \"threshold\" is 1.5, expected a number from -1 to 1"},
    {"config_missing_key", "model/config.json", "\"hidden_size\": 8, ", "", 20, 12, 65,
     "embed: parameter \"model\": DIR/model/config.json: hidden_size must be a whole number from 1 to 65536"},
    {"config_not_json", "model/config.json", "{\"model_type\"", "{model_type", 20, 12, 65,
     "embed: parameter \"model\": DIR/model/config.json is not valid JSON"},
    {"config_other_model", "model/config.json", "\"bert\"", "\"gpt2\"", 20, 12, 65,
     "embed: parameter \"model\": DIR/model/config.json: model_type is \"gpt2\"; only encoders of type \"bert\" are supported"},
    {"config_heads", "model/config.json", "\"num_attention_heads\": 2", "\"num_attention_heads\": 3", 20, 12, 65,
     "embed: parameter \"model\": DIR/model/config.json: hidden_size 8 cannot be divided into 3 heads of at most 256"},
    {"config_other_width", "model/config.json", "\"hidden_size\": 8", "\"hidden_size\": 16", 20, 12, 65,
     "embed: parameter \"model\": DIR/model/model.safetensors: tensor embeddings.word_embeddings.weight has shape [8, 8], expected "
     "[8, 16]"},
    {"weights_wrong_dtype", "model/model.safetensors", "\"F32\"", "\"I32\"", 20, 12, 65,
     "embed: parameter \"model\": DIR/model/model.safetensors: tensor embeddings.word_embeddings.weight has dtype I32, expected "
     "F32, F16 or BF16"},
    {"weights_unknown_dtype", "model/model.safetensors", "\"F32\"", "\"Q32\"", 20, 12, 65,
     "embed: parameter \"model\": DIR/model/model.safetensors: tensor embeddings.word_embeddings.weight has dtype Q32, which this "
     "format does not know"},
    {"weights_tensor_missing", "model/model.safetensors", "position_embeddings", "positoin_embeddings", 20, 12, 65,
     "embed: parameter \"model\": DIR/model/model.safetensors has no tensor embeddings.position_embeddings.weight; the nearest is "
     "embeddings.positoin_embeddings.weight"},
    {"weights_truncated", "model/model.safetensors", "3000", "", 20, 12, 65,
     "embed: parameter \"model\": DIR/model/model.safetensors: tensor encoder.layer.0.attention.self.query.weight ends at byte "
     "1152 of the data, but the file has only 944: it is truncated",
     TRUNCATE},
    {"weights_header_truncated", "model/model.safetensors", "100", "", 20, 12, 65,
     "embed: parameter \"model\": DIR/model/model.safetensors: the header has 2048 bytes, but the file only 100: it is truncated",
     TRUNCATE},
    {"weights_empty", "model/model.safetensors", "0", "", 20, 12, 65,
     "embed: parameter \"model\": DIR/model/model.safetensors: 0 bytes are too few for a safetensors file", TRUNCATE},
    {"vocabulary_without_cls", "model/vocab.txt", "[CLS]", "[SLC]", 20, 12, 65,
     "embed: parameter \"model\": DIR/model/vocab.txt: the vocabulary lacks the token [CLS]"},
    {"vocabulary_too_large", "model/vocab.txt", "c\n", "c\nd\ne\n", 20, 12, 65,
     "embed: parameter \"model\": DIR/model: the tokenizer has ids up to 9, but the model only 8 embeddings"},
    {"sinks_of_one_file", "p.yaml", "path: groups.jsonl\n",
     "path: groups.jsonl\n  more: {type: write_jsonl, from: out0, path: ./groups.jsonl}\n  out0: {type: select, from: groups}\n",
     33, 47, 65, "more: parameter \"path\": step out writes this file already. Give every sink a path of its own"},
    {"sink_takes_the_list_of_errors", "p.yaml", "path: groups.jsonl", "path: x/../errors.jsonl", 32, 11, 65,
     "out: parameter \"path\": errors.jsonl in the run directory is a file of the run itself. Choose another path"},
    {"sink_takes_the_journal", "p.yaml", "path: groups.jsonl", "path: journal.1", 32, 11, 65,
     "out: parameter \"path\": journal.1 in the run directory is a file of the run itself. Choose another path"},
    {"two_columns_renamed_to_one", "p.yaml", "type: filter\n    from: docs\n    where: length(text) > 2",
     "type: select\n    from: docs\n    rename: {name: x, text: x}", 11, 20, 65,
     "long: step type \"select\" adds column \"x\" twice"},
    {"output_cannot_be_made", "p.yaml", "path: groups.jsonl", "path: /dev/null/groups.jsonl", 32, 11, 65,
     "out: parameter \"path\": /dev/null is a device, not a folder. Choose another path"},
};

class RealSteps : public testing::TestWithParam<Fault> {};

TEST_P(RealSteps, OneErrorNothingWrittenValidWhenMended)
{
    const Fault &c = GetParam();
    const mt::Folder f;
    mkdir((f.path() + "/model").c_str(), 0777);
    f.write("p.yaml", kPipeline);
    f.write("in.jsonl", "{\"name\": \"x\", \"text\": \"a b c\", \"n\": 1}\n{\"name\": \"y\", \"text\": \"a b c\", \"n\": 2}\n");
    f.write("model/config.json", kConfig);
    f.write("model/vocab.txt", kVocabulary);
    f.write("model/model.safetensors", weights());

    const std::string good = f.read(c.file);
    std::string bad = good;
    if (c.how == TRUNCATE) {
        bad.resize(std::stoul(c.good));
    } else {
        const size_t at = good.find(c.good);
        ASSERT_NE(at, std::string::npos);
        bad.replace(at, strlen(c.good), c.bad);
    }
    f.write(c.file, bad);
    const std::vector<std::string> before = f.list();
    const mt::Result r = mt::run(f, {"run", "-q", "p.yaml"});
    const std::string place = c.line > 0 ? "p.yaml:" + std::to_string(c.line) + ":" + std::to_string(c.column) + ": " : "";
    std::string said = r.err;
    for (size_t at; (at = said.find(f.path())) != std::string::npos;) said.replace(at, f.path().size(), "DIR");
    EXPECT_EQ(r.code, c.code) << r.err;
    EXPECT_EQ(said.find("error: " + place + c.says), 0u) << said;
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << "one error: " << r.err;
    if (c.code == 65) {
        EXPECT_EQ(f.list(), before) << "nothing may be written";
        EXPECT_EQ(mt::run(f, {"check", "p.yaml"}).err, r.err) << "check knows it, too";
    }
    f.write(c.file, good);
    const mt::Result mended = mt::run(f, {"run", "-q", "p.yaml"});
    EXPECT_EQ(mended.code, 0) << mended.err;
    EXPECT_FALSE(f.read("runs/p/groups.jsonl").empty()) << "two equal texts are one group";
}

INSTANTIATE_TEST_SUITE_P(Table, RealSteps, testing::ValuesIn(kFaults), [](const auto &i) { return std::string(i.param.name); });

/* A sink's `from` is carried out by a step in front of it, which no file names. */
TEST(Names, OfErrorsInFrontOfASinkAreTheSinks)
{
    const mt::Folder f;
    f.write("in.jsonl", "{\"id\": 1}\n{\"id\": 2}\n");
    f.write("p.yaml",
            "stepmill: 1\nname: p\nsteps:\n  a: {type: read_jsonl, path: in.jsonl}\n  b: {type: filter, from: a, where: id > 1}\n"
            "  out: {type: write_jsonl, from: [a, b], path: out.jsonl}\n");
    for (int i = 0; i < 2; i++) { /* again: the record is kept, although the sink itself is another part of the run */
        const mt::Result r = mt::run(f, {"run", "p.yaml"});
        EXPECT_NE(r.code, 0);
        EXPECT_EQ(r.err.find("out.from"), std::string::npos) << r.err;
        const std::string errors = f.read("runs/p/errors.jsonl");
        EXPECT_NE(errors.find("\"step\":\"out\""), std::string::npos) << errors;
        EXPECT_EQ(errors.find("out.from"), std::string::npos) << errors;
    }
}

/* A file that is cut is known before the run; and it is said where the file is named. */
TEST(Places, OfFilesThatAreCut)
{
    const mt::Folder f;
    std::string text;
    for (int i = 0; i < 3000; i++) text += "{\"id\": " + std::to_string(i * 7919) + "}\n";
    f.write("in.jsonl", text);
    for (const char *cut :
         {"gzip -c in.jsonl | head -c 3000 > in.gz && mv in.gz in.jsonl.gz", "zstd -qc in.jsonl | head -c 3000 > in.jsonl.zst"}) {
        const bool zstd = cut[0] == 'z';
        if (zstd && system("command -v zstd > /dev/null") != 0) continue;
        ASSERT_EQ(system(("cd '" + f.path() + "' && " + cut).c_str()), 0);
        f.write("p.yaml", std::string("stepmill: 1\nsteps:\n  a: {type: read_jsonl, path: [in.jsonl, in.jsonl.") +
                              (zstd ? "zst" : "gz") + "]}\n  o: {type: write_jsonl, from: a, path: o}\n");
        const mt::Result r = mt::run(f, {"check", "p.yaml"});
        EXPECT_EQ(r.code, 65) << r.err;
        EXPECT_EQ(r.err.find("error: p.yaml:3:42: a: "), 0u) << r.err;
    }
}

} // namespace
