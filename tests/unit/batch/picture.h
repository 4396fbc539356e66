/* Batches with everything that can be on one, at random; and all of it copied out, to be compared. */
#pragma once
#include "rows.h"

namespace mt {

/* What a batch holds, copied out of it. */
struct Picture {
    int64_t rows, frontier[2], first;
    uint64_t seq;
    uint32_t borders, skipped;
    bool end, failed;
    std::vector<int64_t> covered;
    std::vector<std::vector<int64_t>> keys;
    std::vector<bool> there, imputed_there, marked;
    std::vector<Rows> columns, imputed;
    Rows marks;
    bool operator==(const Picture &o) const
    {
        return rows == o.rows && seq == o.seq && borders == o.borders && skipped == o.skipped && end == o.end &&
               failed == o.failed && first == o.first && frontier[0] == o.frontier[0] && frontier[1] == o.frontier[1] &&
               covered == o.covered && keys == o.keys && there == o.there && imputed_there == o.imputed_there &&
               marked == o.marked && columns == o.columns && imputed == o.imputed && marks == o.marks;
    }
};
inline Rows values(const mill_column *c)
{
    Rows v;
    for (int64_t r = 0; c != nullptr && r < mill_column_rows(c); r++) v.push_back(read(c, r));
    return v;
}
inline Picture look(const mill_batch *b)
{
    Picture p = {};
    p.rows = b->rows;
    p.seq = b->seq;
    p.borders = b->borders;
    p.skipped = b->skipped;
    p.end = b->end;
    p.failed = b->failed;
    p.frontier[0] = b->frontier[0];
    p.frontier[1] = b->frontier[1];
    if (b->keys.tuples == nullptr) p.first = b->keys.first;
    p.covered.assign(b->covered, b->covered + b->n_roots);
    for (int64_t r = 0; r < b->rows; r++) {
        p.keys.emplace_back((size_t)b->keys.width);
        stm_batch_key(b, r, p.keys.back().data());
    }
    p.marked.push_back(b->marks != nullptr);
    p.marks = values(b->marks);
    p.imputed_there.push_back(b->imputed != nullptr);
    for (int32_t i = 0; i < b->n_columns; i++) {
        mill_error err = {};
        p.there.push_back(b->columns[i] != nullptr);
        p.columns.push_back(values(b->columns[i]));
        if (b->columns[i] != nullptr) {
            EXPECT_EQ(stm_column_validate(b->columns[i], &err), MILL_OK) << err.msg;
            int64_t nulls = 0;
            for (auto &v : p.columns.back()) nulls += v.null;
            EXPECT_EQ(mill_column_view(b->columns[i]).null_count, nulls);
        }
        if (b->imputed == nullptr) continue;
        p.imputed_there.push_back(b->imputed[i] != nullptr);
        p.imputed.push_back(values(b->imputed[i]));
    }
    return p;
}

/* Random in everything: columns of any type and some absent, cut out of larger ones, keys consecutive or not, marks. */
inline Batch random_batch(Rng &rng, mill_pool *pool, int32_t n_columns, int64_t rows)
{
    Batch b, cut;
    const int64_t before = rng() % 2 ? (int64_t)(rng() % 20) : 0, behind = rng() % 2 ? (int64_t)(rng() % 20) : 0,
                  all = before + rows + behind;
    EXPECT_EQ(stm_batch_create(pool, all, n_columns, (int32_t)(rng() % 4), &b.p), MILL_OK);
    for (int32_t i = 0; i < n_columns; i++) {
        if (rng() % 5 == 0) continue;
        const mill_type *t = rng() % 2 ? random_type(rng, 3) : type_of(all_types()[rng() % all_types().size()]);
        Column c = build(pool, t, random_rows(rng, t, all, (int)(rng() % 3)));
        EXPECT_EQ(mill_batch_set_column(b.p, i, &c.p), MILL_OK);
    }
    b.p->keys.first = (int64_t)(rng() % 1000);
    if (rng() % 2) {
        const int32_t width = 1 + (int32_t)(rng() % 3);
        mill_buffer *t = nullptr;
        EXPECT_EQ(mill_buffer_create(pool, (size_t)(all * width) * 8, &t), MILL_OK);
        for (int64_t i = 0; i < all * width; i++) ((int64_t *)mill_buffer_data(t))[i] = (int64_t)rng();
        b.p->keys = {0, 0, t, width};
    }
    for (int k = 0; k < 3 && all > 0 && rng() % 2; k++) {
        const int64_t first = (int64_t)(rng() % (uint64_t)all);
        const int32_t column = n_columns > 0 && rng() % 2 ? (int32_t)(rng() % (uint64_t)n_columns) : -1;
        EXPECT_EQ(stm_batch_impute(b.p, column, first, 1 + (int64_t)(rng() % (uint64_t)(all - first)), 7 + k), MILL_OK);
    }
    EXPECT_EQ(stm_batch_slice(b.p, before, rows, &cut.p), MILL_OK);
    cut.p->seq = rng();
    cut.p->frontier[0] = (int64_t)rng();
    cut.p->frontier[1] = (int64_t)rng();
    cut.p->borders = (uint32_t)rng();
    cut.p->skipped = (uint32_t)rng();
    cut.p->end = rng() % 2;
    cut.p->failed = rng() % 2;
    for (int32_t i = 0; i < cut.p->n_roots; i++) cut.p->covered[i] = (int64_t)rng();
    return cut;
}

} // namespace mt
