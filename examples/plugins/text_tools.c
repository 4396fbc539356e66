/*
 * text_tools: a plugin with three step types, explained in docs/writing-a-step.md.
 *
 *   split_sentences   one row per sentence            expands
 *   count_words       words of a text                 row by row
 *   longest_rows      the k longest texts of all      needs all rows
 *
 *     cc -std=c17 -O2 -shared -fPIC $(pkg-config --cflags stepmill) text_tools.c -o text_tools.so
 */
#include <stdlib.h>
#include <string.h>

#include "stepmill/step.h"

/* ---- what the step types share --------------------------------------------------------------------------------- */

/* Emit columns as one batch. They are taken over on success; on failure whoever made them still has them. */
static mill_status emit(mill_replica *r, int64_t rows, mill_column **columns, int32_t n, mill_buffer **parent, mill_emit *out,
                        mill_error *err)
{
    mill_batch *batch = NULL;
    mill_status st = mill_batch_create(mill_replica_pool(r), rows, n, &batch);

    if (st != MILL_OK) return mill_fail(err, st, "no memory for a batch");
    for (int32_t i = 0; i < n && st == MILL_OK; i++) st = mill_batch_set_column(batch, i, &columns[i]);
    if (st == MILL_OK)
        st = mill_emit_batch(out, &batch, parent, err);
    else
        mill_fail(err, st, "a column does not fit its batch");
    mill_batch_destroy(&batch); /* NULL once it was emitted */
    return st;
}

/* Row i of a column that may not be there at all; NULL = null. */
static const char *text_of(const mill_column *column, int64_t i, int64_t *bytes)
{
    *bytes = 0;
    if (column == NULL || mill_column_is_null(column, i)) return NULL;
    return mill_column_text(column, i, bytes);
}

/* ---- count_words ------------------------------------------------------------------------------------------------- */

static const mill_column_decl count_inputs[] = {{"text", "text", "what to count in"}};
static const mill_column_decl count_outputs[] = {{"words", "int64", "number of words"}};
static const mill_param count_params[] = {
    {"min_letters", MILL_PARAM_INT, 0, "1", 1, 1000, NULL, "shorter words do not count"},
};

typedef struct count_settings {
    int64_t min_letters;
} count_settings;

/* Once per step, also under `stepmill check`: read parameters into what all replicas share. */
static mill_status count_configure(mill_step *s, const mill_config *c, mill_io *io, mill_error *err)
{
    count_settings *set = calloc(1, sizeof *set);

    (void)io; /* the descriptor names the columns */
    if (set == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for the settings");
    set->min_letters = mill_config_int(c, "min_letters");
    mill_step_set_state(s, set, free);
    return MILL_OK;
}

/* Once per replica: a builder is kept, so that batches cost no allocations. */
static mill_status count_load(mill_replica *r, mill_error *err)
{
    mill_builder *words;
    const mill_status st = mill_builder_create(mill_replica_pool(r), mill_type_plain(MILL_INT64), &words);

    if (st != MILL_OK) return mill_fail(err, st, "no memory for a builder");
    mill_replica_set_state(r, words);
    return MILL_OK;
}

static void count_unload(mill_replica *r)
{
    mill_builder *words = mill_replica_state(r);

    mill_builder_destroy(&words); /* accepts NULL: load may have failed */
    mill_replica_set_state(r, NULL);
}

static int64_t count_words(const char *text, int64_t bytes, int64_t min_letters)
{
    int64_t words = 0, letters = 0;

    for (int64_t i = 0; i <= bytes; i++) {
        const unsigned char c = i < bytes ? (unsigned char)text[i] : ' ';

        if (c == ' ' || c == '\t' || c == '\n') {
            words += letters >= min_letters;
            letters = 0;
        } else {
            letters += (c & 0xc0) != 0x80; /* UTF-8: only the first byte of a letter counts */
        }
    }
    return words;
}

static mill_status count_process(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
{
    const count_settings *set = mill_step_state(mill_replica_step(r));
    mill_builder *words = mill_replica_state(r);
    const mill_column *text = mill_batch_column(in[0], 0);
    const int64_t rows = mill_batch_rows(in[0]);
    mill_column *column = NULL;
    mill_status st = MILL_OK;

    (void)n_in;
    mill_builder_truncate(words, 0); /* a call that failed may have left rows in it */
    for (int64_t i = 0; i < rows && st == MILL_OK; i++) {
        int64_t bytes;
        const char *p = text_of(text, i, &bytes);

        st = p != NULL ? mill_builder_int(words, count_words(p, bytes, set->min_letters)) : mill_builder_null(words);
    }
    if (st == MILL_OK) st = mill_builder_finish(words, &column);
    if (st != MILL_OK) return mill_fail(err, st, "no memory for the counts");
    st = emit(r, rows, &column, 1, NULL, out, err);
    mill_column_unref(&column);
    return st;
}

static const mill_step_type count_type = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_STEP,
    .flags = MILL_PER_ROW,
    .name = "count_words",
    .summary = "Counts the words of a text",
    .version = "1",
    .params = count_params,
    .n_params = sizeof count_params / sizeof count_params[0],
    .inputs = count_inputs,
    .n_inputs = 1,
    .outputs = count_outputs,
    .n_outputs = 1,
    .configure = count_configure,
    .load = count_load,
    .process = count_process,
    .unload = count_unload,
};

/* ---- split_sentences --------------------------------------------------------------------------------------------- */

static const mill_column_decl split_inputs[] = {{"text", "utf8", "what to split"}};
static const mill_column_decl split_outputs[] = {{"sentence", "utf8", "one sentence, with its full stop"}};

/* The next sentence of p[*at .. bytes): ends behind . ! ? and the blanks after it. false = there is none. */
static bool next_sentence(const char *p, int64_t bytes, int64_t *at, int64_t *first, int64_t *length)
{
    int64_t end = *at;

    if (end >= bytes) return false;
    while (end < bytes && strchr(".!?", p[end]) == NULL) end++;
    if (end < bytes) end++;
    *first = *at;
    *length = end - *at;
    while (end < bytes && p[end] == ' ') end++;
    *at = end;
    return true;
}

static int64_t count_sentences(const mill_column *text, int64_t rows)
{
    int64_t n = 0;

    for (int64_t i = 0; i < rows; i++) {
        int64_t bytes, at = 0, first, length;
        const char *p = text_of(text, i, &bytes);

        if (p == NULL || bytes == 0) n++;
        while (p != NULL && next_sentence(p, bytes, &at, &first, &length)) n++;
    }
    return n;
}

static mill_status split_load(mill_replica *r, mill_error *err)
{
    mill_builder *sentences;
    const mill_status st = mill_builder_create(mill_replica_pool(r), mill_type_plain(MILL_UTF8), &sentences);

    if (st != MILL_OK) return mill_fail(err, st, "no memory for a builder");
    mill_replica_set_state(r, sentences);
    return MILL_OK;
}

/* A row gives a row per sentence; a row without any gives itself, null or empty, so that none is lost. */
static mill_status split_process(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
{
    mill_builder *sentences = mill_replica_state(r);
    const mill_column *text = mill_batch_column(in[0], 0);
    const int64_t rows = mill_batch_rows(in[0]), made = count_sentences(text, rows);
    mill_buffer *parent = NULL;
    mill_column *column = NULL;
    mill_status st = mill_buffer_create(mill_replica_pool(r), (size_t)made * sizeof(int64_t), &parent);
    int64_t *row_of = st == MILL_OK ? mill_buffer_data(parent) : NULL;

    (void)n_in;
    mill_builder_truncate(sentences, 0);
    for (int64_t i = 0; i < rows && st == MILL_OK; i++) {
        int64_t bytes, at = 0, first, length;
        const char *p = text_of(text, i, &bytes);

        if (p == NULL || bytes == 0) {
            *row_of++ = i;
            st = p == NULL ? mill_builder_null(sentences) : mill_builder_text(sentences, "", 0);
        }
        while (p != NULL && st == MILL_OK && next_sentence(p, bytes, &at, &first, &length)) {
            *row_of++ = i;
            st = mill_builder_text(sentences, p + first, length);
        }
    }
    if (st == MILL_OK) st = mill_builder_finish(sentences, &column);
    if (st == MILL_OK)
        st = emit(r, made, &column, 1, &parent, out, err);
    else
        mill_fail(err, st, "no memory for the sentences");
    mill_column_unref(&column);
    mill_buffer_unref(&parent); /* NULL once it was emitted */
    return st;
}

static const mill_step_type split_type = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_STEP,
    .flags = MILL_PER_ROW | MILL_EXPANDS,
    .name = "split_sentences",
    .summary = "Makes a row of every sentence of a text",
    .version = "1",
    .inputs = split_inputs,
    .n_inputs = 1,
    .outputs = split_outputs,
    .n_outputs = 1,
    .load = split_load,
    .process = split_process,
    .unload = count_unload, /* a builder is all there is */
};

/* ---- longest_rows ------------------------------------------------------------------------------------------------ */

static const mill_column_decl longest_inputs[] = {{"text", "utf8", "what to compare"}};
static const mill_column_decl longest_outputs[] = {
    {"text", "utf8", "one of the longest, the longest first"},
    {"bytes", "int64", "its length in bytes"},
};
static const mill_param longest_params[] = {
    {"k", MILL_PARAM_INT, 0, NULL, 1, 100000, NULL, "how many rows to keep"},
};

typedef struct kept_row {
    char *text;
    int64_t bytes;
} kept_row;

typedef struct longest_state {
    int64_t k, n;
    kept_row *rows; /* [k], the longest first; of equal ones the first to come is first */
} longest_state;

static mill_status longest_configure(mill_step *s, const mill_config *c, mill_io *io, mill_error *err)
{
    int64_t *k = malloc(sizeof *k);

    (void)io;
    if (k == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for the settings");
    *k = mill_config_int(c, "k");
    mill_step_set_state(s, k, free);
    return MILL_OK;
}

static mill_status longest_load(mill_replica *r, mill_error *err)
{
    const int64_t k = *(const int64_t *)mill_step_state(mill_replica_step(r));
    longest_state *me = calloc(1, sizeof *me);

    if (me == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for the rows");
    mill_replica_set_state(r, me); /* from here on unload releases it, also when the next line fails */
    me->k = k;
    me->rows = calloc((size_t)k, sizeof *me->rows);
    return me->rows != NULL ? MILL_OK : mill_fail(err, MILL_ERR_NOMEM, "no memory for %lld rows", (long long)k);
}

static void longest_unload(mill_replica *r)
{
    longest_state *me = mill_replica_state(r);

    if (me == NULL) return;
    for (int64_t i = 0; i < me->n; i++) free(me->rows[i].text);
    free(me->rows);
    free(me);
    mill_replica_set_state(r, NULL);
}

static mill_status longest_keep(longest_state *me, const char *text, int64_t bytes, mill_error *err)
{
    int64_t at = me->n;
    char *copy;

    if (me->n == me->k && bytes <= me->rows[me->n - 1].bytes) return MILL_OK;
    copy = malloc((size_t)bytes + 1);
    if (copy == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a row");
    memcpy(copy, text, (size_t)bytes);
    if (me->n == me->k)
        free(me->rows[--at].text); /* the shortest goes */
    else
        me->n++;
    for (; at > 0 && me->rows[at - 1].bytes < bytes; at--) me->rows[at] = me->rows[at - 1];
    me->rows[at] = (kept_row){copy, bytes};
    return MILL_OK;
}

static mill_status longest_accept(mill_replica *r, size_t input, const mill_batch *in, mill_error *err)
{
    longest_state *me = mill_replica_state(r);
    const mill_column *text = mill_batch_column(in, 0);

    (void)input; /* with several inputs: the longest of all of them */
    for (int64_t i = 0; i < mill_batch_rows(in); i++) {
        int64_t bytes;
        const char *p = text_of(text, i, &bytes);
        const mill_status st = p != NULL ? longest_keep(me, p, bytes, err) : MILL_OK;

        if (st != MILL_OK) return st;
    }
    return MILL_OK;
}

/* Also called when no row came at all: then there are no rows to emit, and nothing is emitted. */
static mill_status longest_finish(mill_replica *r, mill_emit *out, mill_error *err)
{
    const longest_state *me = mill_replica_state(r);
    const mill_type *types[2] = {mill_type_plain(MILL_UTF8), mill_type_plain(MILL_INT64)};
    mill_builder *made[2] = {NULL, NULL};
    mill_column *columns[2] = {NULL, NULL};
    mill_status st = MILL_OK;

    for (int i = 0; i < 2 && st == MILL_OK; i++) st = mill_builder_create(mill_replica_pool(r), types[i], &made[i]);
    for (int64_t i = 0; i < me->n && st == MILL_OK; i++) {
        st = mill_builder_text(made[0], me->rows[i].text, me->rows[i].bytes);
        if (st == MILL_OK) st = mill_builder_int(made[1], me->rows[i].bytes);
    }
    for (int i = 0; i < 2 && st == MILL_OK; i++) st = mill_builder_finish(made[i], &columns[i]);
    if (st != MILL_OK)
        mill_fail(err, st, "no memory for the output");
    else if (me->n > 0)
        st = emit(r, me->n, columns, 2, NULL, out, err);
    for (int i = 0; i < 2; i++) {
        mill_builder_destroy(&made[i]);
        mill_column_unref(&columns[i]);
    }
    return st;
}

static const mill_step_type longest_type = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_GLOBAL,
    .name = "longest_rows",
    .summary = "Keeps the longest texts of all rows",
    .version = "1",
    .params = longest_params,
    .n_params = sizeof longest_params / sizeof longest_params[0],
    .inputs = longest_inputs,
    .n_inputs = 1,
    .outputs = longest_outputs,
    .n_outputs = 2,
    .configure = longest_configure,
    .load = longest_load,
    .accept = longest_accept,
    .finish = longest_finish,
    .unload = longest_unload,
};

/* ---- the plugin --------------------------------------------------------------------------------------------------- */

static const mill_step_type *const types[] = {&count_type, &split_type, &longest_type};
static const mill_plugin plugin = {
    .struct_size = sizeof(mill_plugin),
    .abi = MILL_ABI_1,
    .name = "text_tools",
    .version = "1.0",
    .types = types,
    .n_types = sizeof types / sizeof types[0],
};

MILL_PLUGIN_EXPORT const mill_plugin *mill_plugin_v1(void);
const mill_plugin *mill_plugin_v1(void) { return &plugin; }
