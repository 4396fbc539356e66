#include "types.h"

#include <cstring>

namespace mt {

int live_states = 0;

namespace {

/* ---- t_source: columns as the parameter says -------------------------------------------------------------------- */

const mill_param kSourceParams[] = {
    {"rows", MILL_PARAM_INT, 0, "10", 0, 1e6, nullptr, "rows to make"},
    {"columns", MILL_PARAM_COLUMNS, 0, "{id: int64, text: utf8}", 0, 0, nullptr, "columns"},
    {"pause", MILL_PARAM_DURATION, 0, "0s", 0, 60, nullptr, "between batches"},
    {"path", MILL_PARAM_PATH, MILL_PARAM_OPTIONAL, nullptr, 0, 0, nullptr, "a file that must be there"},
};

void forget(void *) { live_states--; }

mill_status source_configure(mill_step *s, const mill_config *c, mill_io *io, mill_error *err)
{
    for (size_t i = 0; i < mill_config_count(c, "columns"); i++) {
        const mill_status st = mill_io_add(io, mill_config_key(c, "columns", i), mill_config_type(c, "columns", i), nullptr, err);
        if (st != MILL_OK) return st;
    }
    live_states++;
    mill_step_set_state(s, &live_states, forget);
    return MILL_OK;
}

mill_status source_generate(mill_replica *, int64_t, mill_cursor *, bool *last, mill_emit *, mill_error *)
{
    *last = true;
    return MILL_OK;
}

/* ---- t_map: text -> length -------------------------------------------------------------------------------------- */

const mill_param kMapParams[] = {
    {"unit", MILL_PARAM_ENUM, 0, "bytes", 0, 0, "bytes|letters|words", "what to count"},
    {"scale", MILL_PARAM_FLOAT, 0, "1.0", 0, 100, nullptr, "factor"},
    {"limit", MILL_PARAM_BYTES, 0, "1MiB", 0, 1e9, nullptr, "longest text"},
    {"strict", MILL_PARAM_BOOL, 0, "false", 0, 0, nullptr, "fail on empty texts"},
    {"words", MILL_PARAM_STRINGS, MILL_PARAM_OPTIONAL, nullptr, 0, 0, nullptr, "words to leave out"},
};
const mill_column_decl kMapIn[] = {{"text", "utf8", "the text"}};
const mill_column_decl kMapOut[] = {{"length", "int64", "its length"}};
mill_status map_process(mill_replica *, mill_batch *const *, size_t, mill_emit *, mill_error *) { return MILL_OK; }

/* ---- the rest ---------------------------------------------------------------------------------------------------- */

const mill_column_decl kIdIn[] = {{"id", "int64", "identity"}};
const mill_column_decl kGroupOut[] = {{"group", "int64", "its group"}};
mill_status group_accept(mill_replica *, size_t, const mill_batch *, mill_error *) { return MILL_OK; }
mill_status group_finish(mill_replica *, mill_emit *, mill_error *) { return MILL_OK; }

const mill_param kSinkParams[] = {{"path", MILL_PARAM_OUT_PATH, 0, nullptr, 0, 0, nullptr, "file to write"}};
mill_status sink_configure(mill_step *, const mill_config *, mill_io *io, mill_error *err)
{
    for (size_t i = 0; i < mill_io_column_count(io, 0); i++) {
        const mill_status st = mill_io_use(io, 0, mill_io_column_name(io, 0, i), "any", nullptr, err);
        if (st != MILL_OK) return st;
    }
    return MILL_OK;
}
mill_status sink_open(mill_replica *, const mill_cursor *, mill_error *) { return MILL_OK; }
mill_status sink_write(mill_replica *, const mill_batch *, mill_error *) { return MILL_OK; }
mill_status sink_finalize(mill_replica *, mill_error *) { return MILL_OK; }

mill_status route_route(mill_replica *, const mill_batch *, mill_route *out, mill_error *err) { return mill_route_to(out, 0, err); }

mill_step_type make(const char *name, mill_kind kind, uint64_t flags)
{
    mill_step_type t = {};
    t.struct_size = sizeof t;
    t.abi = MILL_ABI_1;
    t.kind = kind;
    t.flags = flags;
    t.name = name;
    t.summary = "for tests";
    return t;
}

template <size_t N> void params(mill_step_type &t, const mill_param (&p)[N]) { t.params = p, t.n_params = N; }
template <size_t N> void inputs(mill_step_type &t, const mill_column_decl (&c)[N]) { t.inputs = c, t.n_inputs = N; }
template <size_t N> void outputs(mill_step_type &t, const mill_column_decl (&c)[N]) { t.outputs = c, t.n_outputs = N; }

mill_step_type source()
{
    mill_step_type t = make("t_source", MILL_GENERATOR, 0);
    params(t, kSourceParams);
    t.configure = source_configure;
    t.generate = source_generate;
    return t;
}
mill_step_type map(const char *name, uint64_t flags)
{
    mill_step_type t = make(name, MILL_STEP, flags);
    params(t, kMapParams), inputs(t, kMapIn), outputs(t, kMapOut);
    t.process = map_process;
    return t;
}
mill_step_type group()
{
    mill_step_type t = make("t_group", MILL_GLOBAL, 0);
    inputs(t, kIdIn), outputs(t, kGroupOut);
    t.accept = group_accept, t.finish = group_finish;
    return t;
}
mill_step_type sink()
{
    mill_step_type t = make("t_sink", MILL_SINK, 0);
    params(t, kSinkParams);
    t.configure = sink_configure;
    t.open = sink_open, t.write = sink_write, t.finalize = sink_finalize;
    return t;
}
mill_step_type route()
{
    mill_step_type t = make("t_route", MILL_ROUTER, MILL_ROUTES);
    t.route = route_route;
    return t;
}

const mill_step_type kSource = source(), kMap = map("t_map", MILL_PER_ROW), kState = map("t_state", MILL_STATEFUL),
                     kGroup = group(), kSink = sink(), kRoute = route();
const mill_step_type *const kList[] = {&kSource, &kMap, &kState, &kGroup, &kSink, &kRoute};

} // namespace

const mill_plugin kTypes = {sizeof(mill_plugin), MILL_ABI_1, "t", "1", kList, sizeof kList / sizeof *kList};

} // namespace mt
