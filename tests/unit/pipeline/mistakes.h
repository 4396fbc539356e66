/* Mistakes in pipeline files. Each is a good file with one edit: it gives exactly one error, at the place of the edit, and the good
 * file is valid. Step types are those of types.h. */
#pragma once

namespace mt {

const char kLine[] = "stepmill: 1\n"                                                // 1
                     "name: line\n"                                                 // 2
                     "seed: 7\n"                                                    // 3
                     "memory_limit: {host: 1GiB}\n"                                 // 4
                     "order: input\n"                                               // 5
                     "commit_interval: 1s\n"                                        // 6
                     "load_groups: [[src, map], [out]]\n"                           // 7
                     "steps:\n"                                                     // 8
                     "  src:\n"                                                     // 9
                     "    type: t_source\n"                                         // 10
                     "    rows: 100\n"                                              // 11
                     "    columns: {id: int64, text: utf8}\n"                       // 12
                     "    batch_size: 16\n"                                         // 13
                     "    pause: 10ms\n"                                            // 14
                     "  map:\n"                                                     // 15
                     "    type: t_map\n"                                            // 16
                     "    from: src\n"                                              // 17
                     "    unit: words\n"                                            // 18
                     "    scale: 2.5\n"                                             // 19
                     "    limit: 64kB\n"                                            // 20
                     "    strict: true\n"                                           // 21
                     "    inputs: {text: text}\n"                                   // 22
                     "    outputs: {length: size}\n"                                // 23
                     "    input_batch_size: 32\n"                                   // 24
                     "    replicas: 2\n"                                            // 25
                     "    on_error: isolate\n"                                      // 26
                     "    retries: {times: 2, backoff: 1s, classes: [transient]}\n" // 27
                     "    timeout: {load: 60s, batch: none}\n"                      // 28
                     "    stop_if: {failed: 0.5, of: 100}\n"                        // 29
                     "    nulls: skip\n"                                            // 30
                     "    resources: {cpus: 1}\n"                                   // 31
                     "  out:\n"                                                     // 32
                     "    type: t_sink\n"                                           // 33
                     "    from: map\n"                                              // 34
                     "    path: out.txt\n"                                          // 35
                     "    errors: true\n";                                          // 36

const char kGraph[] = "stepmill: 1\n"                                                       // 1
                      "steps:\n"                                                            // 2
                      "  src: {type: t_source}\n"                                           // 3
                      "  route:\n"                                                          // 4
                      "    type: t_route\n"                                                 // 5
                      "    from: src\n"                                                     // 6
                      "    to: {long: big, short: small}\n"                                 // 7
                      "  big: {type: t_map, from: route}\n"                                 // 8
                      "  small: {type: t_map, from: route}\n"                               // 9
                      "  meet:\n"                                                           // 10
                      "    type: t_map\n"                                                   // 11
                      "    from: {converge: [big, small]}\n"                                // 12
                      "    outputs: {length: again}\n"                                      // 13
                      "  both:\n"                                                           // 14
                      "    type: t_map\n"                                                   // 15
                      "    from: {join: [src, meet], on_missing: null, on_uneven: error}\n" // 16
                      "    outputs: {length: third}\n"                                      // 17
                      "  groups:\n"                                                         // 18
                      "    type: t_group\n"                                                 // 19
                      "    from: both\n"                                                    // 20
                      "  out: {type: t_sink, from: groups, path: o}\n";                     // 21

struct Mistake {
    const char *name, *base, *good, *bad; /* bad in place of good */
    int line, column;
    const char *message; /* all that is said after the place */
};

const Mistake kMistakes[] = {
    /* the file */
    {"empty_file", kLine, kLine, "", 1, 1, "the file is empty: expected a map with the keys stepmill and steps"},
    {"not_a_map", kLine, kLine, "- a\n", 1, 1, "pipeline: expected a map with the keys stepmill and steps, got a list"},
    {"just_text", kLine, kLine, "hello\n", 1, 1, "pipeline: expected a map with the keys stepmill and steps, got \"hello\""},
    {"unknown_file_key", kLine, "memory_limit:", "memory_limt:", 4, 1,
     "unknown key \"memory_limt\". Did you mean \"memory_limit\"?"},
    {"version_missing", kLine, "stepmill: 1\n", "", 1, 1, "the key \"stepmill\" is missing (version of the file format)"},
    {"version_of_the_future", kLine, "stepmill: 1", "stepmill: 2", 1, 11, "stepmill: expected 1, got \"2\""},
    {"steps_missing", kLine, kLine, "stepmill: 1\nseed: 1\n", 1, 1, "the key \"steps\" is missing (the steps, by name)"},
    {"duplicate_file_key", kLine, "seed: 7", "name: seven", 3, 1, "key \"name\" stands twice (first on line 2)"},
    {"seed_is_text", kLine, "seed: 7", "seed: seven", 3, 7, "seed: expected a whole number of at least 0, got \"seven\""},
    {"seed_is_quoted", kLine, "seed: 7", "seed: '7'", 3, 7,
     "seed: expected a whole number of at least 0, got \"7\". Leave the quotes out"},
    {"name_with_slash", kLine, "name: line", "name: a/b", 2, 7,
     "name: expected a name (letters, digits, _ and -; at most 63), got \"a/b\""},
    {"bad_size", kLine, "1GiB", "1XB", 4, 22, "memory_limit.host: expected a size such as 4GiB or 512MB, got \"1XB\""},
    {"unknown_memory_key", kLine, "{host: 1GiB}", "{hosts: 1GiB}", 4, 16,
     "memory_limit: unknown key \"hosts\". Did you mean \"host\"?"},
    {"unknown_order", kLine, "order: input", "order: inputs", 5, 8,
     "order: expected one of input|any, got \"inputs\". Did you mean \"input\"?"},
    {"bad_duration", kLine, "commit_interval: 1s", "commit_interval: 1 parsec", 6, 18,
     "commit_interval: expected a duration such as 200ms, 10s or 5m, from 0.01 s to 3600 s, got \"1 parsec\""},
    /* YAML */
    {"tab", kLine, "  src:\n", "\tsrc:\n", 9, 1, "tab character may not be used as indentation"},
    {"open_quote", kLine, "path: out.txt", "path: \"out.txt", 35, 11,
     "double-quoted text without closing quote, or its next line stands too far left"},
    {"open_bracket", kLine, "[[src, map], [out]]", "[[src, map], [out]", 8, 1,
     "a list without closing ']', or its next line stands too far left"},
    {"not_utf8", kLine, "name: line", "name: l\xffne", 2, 8, "not UTF-8"},
    {"a_tag", kLine, "seed: 7", "seed: !!int 7", 3, 13, "tags (!...) are not used in pipeline files"},
    {"alias_of_nothing", kLine, "seed: 7", "seed: *x", 3, 7, "no anchor \"&x\" before this alias"},
    {"second_document", kLine, "    errors: true\n", "    errors: true\n---\na: b\n", 37, 1,
     "a second document: a pipeline file holds one"},
    {"second_document_without_a_mark", kLine, "    errors: true\n", "    errors: true\n...\na: b\n", 38, 1,
     "a second document: a pipeline file holds one"},
    {"merge_key", kLine, "seed: 7", "<<: {seed: 7}", 3, 1,
     "merge keys (<<) are not used in pipeline files: an alias stands for a whole value"},
    {"map_as_key", kLine, "seed: 7", "{a: b}: 7", 3, 1, "a key must be a text"},
    /* steps and their keys */
    {"no_steps", kLine, kLine, "stepmill: 1\nsteps: {}\n", 2, 8, "steps: a pipeline needs at least one step"},
    {"steps_is_a_list", kLine, kLine, "stepmill: 1\nsteps: [a]\n", 2, 8, "steps: expected a map of steps by name, got a list"},
    {"step_is_text", kGraph, "src: {type: t_source}", "src: t_source", 3, 8,
     "src: step: expected a map with the key type, got \"t_source\""},
    {"bad_step_name", kLine, "  out:\n", "  my out:\n", 32, 3,
     "steps: \"my out\" cannot name a step: letters, digits, _ and -, at most 63"},
    {"type_missing", kLine, "    type: t_map\n", "", 15, 3, "map: the key \"type\" is missing"},
    {"type_is_a_list", kLine, "type: t_map", "type: [t_map]", 16, 11, "map: type: expected the name of a step type, got a list"},
    {"unknown_type", kLine, "type: t_map", "type: t_mapp", 16, 11, "map: unknown step type \"t_mapp\". Did you mean \"t_map\"?"},
    {"unknown_type_far", kLine, "type: t_map", "type: zzzzzzzzzzz", 16, 11,
     "map: unknown step type \"zzzzzzzzzzz\". `stepmill steps list` says what there is; types of a plugin need it under "
     "`plugins:`"},
    {"duplicate_step", kLine, "  out:\n", "  map:\n", 32, 3, "key \"map\" stands twice (first on line 15)"},
    {"unknown_param", kLine, "scale: 2.5", "scales: 2.5", 19, 5,
     "map: step type t_map has no parameter \"scales\". Did you mean \"scale\"?"},
    {"unknown_engine_key", kLine, "replicas: 2", "replica: 2", 25, 5,
     "map: step type t_map has no parameter \"replica\". Did you mean \"replicas\"?"},
    {"replicas_zero", kLine, "replicas: 2", "replicas: 0", 25, 15,
     "map: replicas: expected a whole number from 1 to 1024, got \"0\""},
    {"replicas_of_state", kLine, "type: t_map", "type: t_state", 25, 15,
     "map: replicas: step type t_state keeps state from batch to batch: it has one replica"},
    {"replicas_of_generator", kLine, "batch_size: 16", "replicas: 2", 13, 15, "src: replicas: a generator has one replica"},
    {"batch_size_of_step", kLine, "input_batch_size: 32", "batch_size: 32", 24, 5,
     "map: batch_size: a step does not have this key (step type t_map). Use input_batch_size: rows per batch of this step"},
    {"input_batch_size_of_generator", kLine, "batch_size: 16", "input_batch_size: 16", 13, 5,
     "src: input_batch_size: a generator does not have this key (step type t_source). Use batch_size: rows per batch of a "
     "generator"},
    {"batch_size_huge", kLine, "batch_size: 16", "batch_size: 99999999", 13, 17,
     "src: batch_size: expected a whole number from 1 to 16777216, got \"99999999\""},
    {"budget_of_both", kLine, "nulls: skip", "budget: {bytes: 1MiB, tokens: 512}", 30, 5,
     "map: budget: tokens and bytes are given: a batch has one budget. Say what a batch may cost, {tokens: 16384} or {bytes: "
     "1MiB}; "
     "input_batch_size limits its rows besides"},
    {"budget_of_nothing", kLine, "nulls: skip", "budget: {bytes: 0}", 30, 5,
     "map: budget: neither tokens nor bytes. Say what a batch may cost, {tokens: 16384} or {bytes: 1MiB}; input_batch_size limits "
     "its rows besides"},
    {"budget_of_tokens", kLine, "nulls: skip", "budget: {tokens: 512}", 30, 5,
     "map: budget: step type t_map does not count tokens. Use a budget in bytes, or input_batch_size"},
    {"unknown_on_error", kLine, "on_error: isolate", "on_error: isolated", 26, 15,
     "map: on_error: expected one of impute|isolate|stop, got \"isolated\". Did you mean \"isolate\"?"},
    {"unknown_retry_key", kLine, "backoff: 1s", "backof: 1s", 27, 25,
     "map: retries: unknown key \"backof\". Did you mean \"backoff\"?"},
    {"unknown_class", kLine, "[transient]", "[transent]", 27, 48,
     "map: retries.classes: expected one of permanent|transient|data|device, got \"transent\". Did you mean \"transient\"?"},
    {"bad_timeout", kLine, "load: 60s", "load: soon", 28, 21,
     "map: timeout.load: expected a duration such as 10s or 5m, more than 0, or none, got \"soon\""},
    {"timeout_is_a_scalar", kLine, "timeout: {load: 60s, batch: none}", "timeout: 60s", 28, 14,
     "map: timeout: expected a map with keys such as load, got \"60s\""},
    {"stop_if_share", kLine, "failed: 0.5", "failed: 50", 29, 23,
     "map: stop_if.failed: expected a number above 0 and at most 1, got \"50\""},
    {"nulls_unknown", kLine, "nulls: skip", "nulls: skp", 30, 12,
     "map: nulls: expected one of skip|pass, got \"skp\". Did you mean \"skip\"?"},
    {"errors_of_step", kLine, "nulls: skip", "errors: true", 30, 5, "map: errors: a step does not have this key (step type t_map)"},
    {"nulls_of_sink", kLine, "errors: true", "nulls: pass", 36, 5, "out: nulls: a sink does not have this key (step type t_sink)"},
    {"errors_is_yes", kLine, "errors: true", "errors: yes", 36, 13, "out: errors: expected true or false, got \"yes\""},
    {"on_error_of_sink", kLine, "errors: true", "on_error: stop", 36, 5,
     "out: on_error: a sink does not have this key (step type t_sink)"},
    {"inputs_is_text", kLine, "inputs: {text: text}", "inputs: text", 22, 13,
     "map: inputs: expected a map of names to names, got \"text\""},
    /* parameters of step types */
    {"param_of_wrong_type", kLine, "rows: 100", "rows: many", 11, 11,
     "src: parameter \"rows\" is \"many\", expected an integer from 0 to 1000000"},
    {"param_out_of_range", kLine, "scale: 2.5", "scale: 250", 19, 12,
     "map: parameter \"scale\" is 250, expected a number from 0 to 100"},
    {"param_unknown_choice", kLine, "unit: words", "unit: word", 18, 11,
     "map: parameter \"unit\" is \"word\", expected one of bytes, letters, words. Did you mean \"words\"?"},
    {"param_bad_bytes", kLine, "limit: 64kB", "limit: much", 20, 12,
     "map: parameter \"limit\" is \"much\", expected a size such as 1000 or 64MiB from 0 B to 954 MiB"},
    {"param_not_bool", kLine, "strict: true", "strict: maybe", 21, 13,
     "map: parameter \"strict\" is \"maybe\", expected true or false"},
    {"param_bad_duration", kLine, "pause: 10ms", "pause: long", 14, 12,
     "src: parameter \"pause\" is \"long\", expected a duration such as 200ms, 10s or 1.5h from 0 s to 60 s"},
    {"param_is_a_list", kLine, "rows: 100", "rows: [100]", 11, 11,
     "src: parameter \"rows\" is a list, expected an integer from 0 to 1000000"},
    {"param_required", kLine, "    path: out.txt\n", "", 32, 3,
     "out: step type \"t_sink\" needs the parameter \"path\" (file to write). Give a path"},
    {"unknown_column_type", kLine, "text: utf8}", "text: utf9}", 12, 32,
     "src: type \"utf9\": expected bool, int32, int64, float16, float32, float64, utf8, binary, json, list<...>, "
     "fixed_list<...>[n] or struct<...> at character 1 (column \"text\" of parameter \"columns\")"},
    {"file_that_is_not_there", kLine, "rows: 100", "path: /no/such/file", 11, 11,
     "src: cannot find /no/such/file (parameter \"path\")"},
    /* columns */
    {"missing_column", kLine, "columns: {id: int64, text: utf8}", "columns: {id: int64, txt: utf8}", 22, 14,
     "map: no column \"text\" arrives to be read as \"text\". Did you mean \"txt\"?"},
    {"column_of_wrong_type", kLine, "columns: {id: int64, text: utf8}", "columns: {id: int64, text: int64}", 22, 14,
     "map: column \"text\" is int64, step type \"t_map\" reads utf8"},
    {"mapping_of_unknown_name", kLine, "inputs: {text: text}", "inputs: {txt: text}", 22, 14,
     "map: step type \"t_map\" has no input \"txt\" to be mapped to column \"text\". Did you mean \"text\"?"},
    {"output_mapping_of_unknown_name", kLine, "outputs: {length: size}", "outputs: {lenght: size}", 23, 15,
     "map: step type \"t_map\" has no output \"lenght\" to be mapped to column \"size\". Did you mean \"length\"?"},
    /* connections */
    {"from_missing", kLine, "    from: src\n", "", 15, 3,
     "map: the key \"from\" is missing: a step (step type t_map) needs rows; only generators go without"},
    {"from_of_generator", kLine, "rows: 100", "from: map", 11, 5,
     "src: from: a generator does not have this key (step type t_source)"},
    {"unknown_producer", kLine, "from: map", "from: mapp", 34, 11, "out: from: unknown step \"mapp\". Did you mean \"map\"?"},
    {"self_edge", kLine, "from: src", "from: map", 17, 11, "map: from: the step names itself"},
    {"cycle", kGraph, "from: src\n    to", "from: both\n    to", 6, 11,
     "route: from: the steps form a circle: route <- both <- meet <- big <- route"},
    {"from_a_sink", kGraph, "groups:\n    type: t_group\n    from: both", "groups:\n    type: t_group\n    from: out", 20, 11,
     "groups: from: out is a sink (t_sink): nothing comes out of it"},
    {"from_is_empty", kLine, "from: map", "from: []", 34, 11, "out: from: expected the name of a step, got a list"},
    {"from_number_in_list", kGraph, "[src, meet]", "[src, [meet]]", 16, 24, "both: from: expected the name of a step, got a list"},
    {"from_twice", kGraph, "[src, meet]", "[src, src]", 16, 24, "both: from: src is named twice"},
    {"from_unknown_form", kGraph, "{converge: [big, small]}", "{converg: [big, small]}", 12, 12,
     "meet: from: unknown key \"converg\". Did you mean \"converge\"?"},
    {"from_two_forms", kGraph, "{converge: [big, small]}", "{converge: [big, small], union: [big]}", 12, 36,
     "meet: from: converge and union cannot stand together"},
    {"from_without_form", kGraph, "{join: [src, meet], on_missing", "{on_missing", 16, 11,
     "both: from: expected a step, a list of steps, or a map with join, union or converge, got a map"},
    {"on_missing_unknown", kGraph, "on_missing: null", "on_missing: nul", 16, 43,
     "both: from.on_missing: expected one of error|drop|null, got \"nul\". Did you mean \"null\"?"},
    {"on_uneven_drop", kGraph, "on_uneven: error", "on_uneven: drop", 16, 60,
     "both: from.on_uneven: expected one of error|null, got \"drop\""},
    {"union_with_on_missing", kGraph, "{converge: [big, small]}", "{union: [src], on_missing: null}", 12, 26,
     "meet: from: union has no on_missing"},
    {"join_of_branches", kGraph, "{converge: [big, small]}", "[big, small]", 12, 17,
     "meet: from: big and small come from different branches of the router route: use {converge: [...]}"},
    {"converge_without_router", kGraph, "{converge: [big, small]}", "{converge: [src, small]}", 12, 28,
     "meet: from: src and small are not two branches of one router: nothing to converge"},
    {"branch_unknown", kGraph, "short: small}", "short: smal}", 7, 28, "route: to: unknown step \"smal\". Did you mean \"small\"?"},
    {"branch_not_named_by_router", kGraph, "{long: big, short: small}", "{long: big}", 9, 30,
     "small: from: the router route does not name this step under `to`"},
    {"branch_does_not_name_router", kGraph, "small: {type: t_map, from: route}", "small: {type: t_map, from: src}", 7, 28,
     "route: to: small does not name route in its `from`"},
    {"branch_twice", kGraph, "short: small}", "short: small, other: big}", 7, 42,
     "route: to: big stands under two choices, \"long\" and \"other\""},
    {"to_missing", kGraph, "    to: {long: big, short: small}\n", "", 4, 3,
     "route: the key \"to\" is missing: a router maps its choices to steps"},
    {"to_of_step", kGraph, "outputs: {length: again}", "to: {a: big}", 13, 5,
     "meet: to: a step does not have this key (step type t_map)"},
    /* what stands in front of a sink or router for its `from` has no name that a user knows */
    {"cycle_through_a_join", kGraph, "from: src\n    to", "from: [src, both]\n    to", 6, 11,
     "route: from: the steps form a circle: route <- both <- meet <- big <- route"},
    {"types_of_a_union", kGraph, "from: groups, path: o}",
     "from: {union: [src, other]}, path: o}\n  other: {type: t_source, columns: {id: utf8}}", 21, 43,
     "out: column \"id\" is int64 from \"src\" but utf8 from \"other\""},
    {"types_of_a_union_of_a_step", kGraph, "{converge: [big, small]}\n    outputs: {length: again}\n",
     "{union: [src, other]}\n    outputs: {length: again}\n  other: {type: t_source, columns: {n: utf8, text: int64}}\n", 12, 25,
     "meet: column \"text\" is utf8 from \"src\" but int64 from \"other\""},
    {"group_of_a_made_up_name", kGraph, "stepmill: 1", "load_groups: [[out.from]]\nstepmill: 1", 1, 16,
     "load_groups: unknown step \"out.from\""},
    {"output_without_a_name", kLine, "outputs: {length: size}", "outputs: {length: ''}", 23, 23,
     "map: outputs: expected a name, got \"\""},
    {"input_without_a_name", kLine, "inputs: {text: text}", "inputs: {text: ''}", 22, 20, "map: inputs: expected a name, got \"\""},
    {"stop_if_always", kLine, "failed: 0.5", "failed: 0", 29, 23,
     "map: stop_if.failed: expected a number above 0 and at most 1, got \"0\""},
    {"stop_if_of_nothing", kLine, "failed: 0.5, of: 100", "failed: 0.5", 29, 5,
     "map: stop_if: the key \"of\" is missing (of how many rows). Say for instance {failed: 0.5, of: 1000}; of: 0 switches it off"},
    {"no_time_to_load", kLine, "load: 60s", "load: 0s", 28, 21,
     "map: timeout.load: expected a duration such as 10s or 5m, more than 0, or none, got \"0s\""},
    {"a_class_twice", kLine, "[transient]", "[transient, data, transient]", 27, 65,
     "map: retries.classes: \"transient\" is named twice"},
    {"no_class", kLine, "[transient]", "[]", 27, 47,
     "map: retries.classes: expected at least one of permanent|transient|data|device, got a list"},
    {"a_device_twice", kLine, "{cpus: 1}", "{devices: [0, 1, 0]}", 31, 33, "map: resources.devices: \"0\" is named twice"},
    {"no_such_position", kLine, "{cpus: 1}", "{devices: [0, -1]}", 31, 30,
     "map: resources.devices: expected the position of a GPU or its UUID, got \"-1\""},
    {"no_uuid", kLine, "{cpus: 1}", "{devices: gpu}", 31, 26,
     "map: resources.devices: expected the position of a GPU or its UUID, got \"gpu\""},
    {"no_gpu_memory", kLine, "{host: 1GiB}", "{cuda: 0}", 4, 22,
     "memory_limit.cuda: expected a number above 0 and at most 1, got \"0\""},
    /* load groups */
    {"group_unknown_step", kLine, "[out]]", "[outt]]", 7, 28, "load_groups: unknown step \"outt\". Did you mean \"out\"?"},
    {"group_twice", kLine, "[out]]", "[out, map]]", 7, 33, "load_groups: map is in a group already"},
    {"group_order", kLine, "[[src, map], [out]]", "[[out], [src, map]]", 7, 16,
     "load_groups: out (group 1) needs rows of map, which is loaded later (group 2)"},
    {"groups_text", kLine, "[[src, map], [out]]", "sequentially", 7, 14,
     "load_groups: expected a list of lists of steps, or sequential, got \"sequentially\""},
    {"groups_flat", kLine, "[[src, map], [out]]", "[src, map]", 7, 15, "load_groups: expected a list of steps, got \"src\""},
};

} // namespace mt
