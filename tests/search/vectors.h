/* Vectors to search, and what the host finds among them. */
#pragma once
#include "comm/ranks.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

extern "C" {
#include "batch/column.h"
#include "kernels/topk.h"
#include "search/search.h"
}

namespace mt {

const float kNone = -std::numeric_limits<float>::infinity();

struct Vectors {
    Vectors(int64_t n, int64_t width) : dim(width), rows(static_cast<size_t>(n)) {} /* rows are somebody else's */
    Vectors(int64_t n, int64_t width, unsigned seed) : dim(width), v(static_cast<size_t>(n * width))
    {
        std::mt19937 g(seed);
        std::normal_distribution<float> d;
        for (float &x : v) x = d(g);
        for (int64_t i = 0; i < n; i++) rows.push_back(at(i));
    }
    Vectors(const Vectors &) = delete;
    int64_t n() const { return static_cast<int64_t>(rows.size()); }
    float *at(int64_t i) { return &v[static_cast<size_t>(i * dim)]; }
    /* Some that take no part, some of length 0, copies, and near copies. */
    void spoil()
    {
        for (int64_t i = 3; i + 8 < n(); i += 17) {
            at(i)[0] = NAN;
            at(i + 1)[dim - 1] = std::numeric_limits<float>::infinity();
            std::fill(at(i + 2), at(i + 2) + dim, 0.0f);
            std::copy(at(0), at(0) + dim, at(i + 3));
            std::copy(at(1), at(1) + dim, at(i + 4));
            at(i + 4)[0] += 1e-4f;
        }
    }
    int64_t dim;
    std::vector<float> v;
    std::vector<const float *> rows;
};

struct Neighbours {
    std::vector<int64_t> rows;
    std::vector<float> scores;
    bool operator==(const Neighbours &o) const
    {
        return rows == o.rows && scores.size() == o.scores.size() &&
               (scores.empty() || memcmp(scores.data(), o.scores.data(), scores.size() * sizeof(float)) == 0);
    }
};

inline mill_topk_args topk_args(const Vectors &q, const Vectors &c, int64_t k, int32_t metric, Neighbours *out)
{
    mill_topk_args a = {};
    a.struct_size = sizeof a, a.threads = 1, a.threshold = kNone;
    a.metric = metric, a.dim = c.dim, a.k = k;
    a.queries = q.rows.data(), a.n_queries = q.n();
    a.corpus = c.rows.data(), a.n_corpus = c.n();
    out->rows.assign(static_cast<size_t>(q.n() * k), -7);
    out->scores.assign(static_cast<size_t>(q.n() * k), -7.0f);
    a.rows = out->rows.data(), a.scores = out->scores.data();
    return a;
}

struct Pairs {
    std::vector<mill_pair> found;
    int calls = 0, refuse = 0; /* the refuse-th call says no */
    static mill_status take(void *user, const mill_pair *p, int64_t n, mill_error *err)
    {
        Pairs *s = static_cast<Pairs *>(user);
        if (++s->calls == s->refuse) return mill_fail(err, MILL_ERR_STEP, "enough");
        s->found.insert(s->found.end(), p, p + n);
        return MILL_OK;
    }
    std::vector<mill_pair> sorted() const
    {
        std::vector<mill_pair> v = found;
        std::sort(v.begin(), v.end(), [](const mill_pair &a, const mill_pair &b) { return a.i != b.i ? a.i < b.i : a.j < b.j; });
        return v;
    }
};

inline bool same_pairs(const Pairs &a, const Pairs &b)
{
    const std::vector<mill_pair> x = a.sorted(), y = b.sorted();
    if (x.size() != y.size()) return false;
    for (size_t i = 0; i < x.size(); i++)
        if (x[i].i != y[i].i || x[i].j != y[i].j || memcmp(&x[i].score, &y[i].score, sizeof(float)) != 0) return false;
    return true;
}

inline mill_pairs_args pairs_args(const Vectors &v, float threshold, int32_t metric, Pairs *out)
{
    mill_pairs_args a = {};
    a.struct_size = sizeof a, a.threads = 1;
    a.metric = metric, a.vectors = v.rows.data(), a.n = v.n(), a.dim = v.dim, a.threshold = threshold, a.scores = true;
    a.found = Pairs::take, a.user = out;
    return a;
}

/** Of the rows of some vectors those that are on devices, too, in pieces, in turn; each piece begins behind other bytes there. */
class Twins {
public:
    Twins(const Vectors &v, const std::vector<stm_device *> &devices, int64_t piece) : devices_(devices), of(v.n(), v.dim)
    {
        EXPECT_EQ(stm_pool_create(0, &heads_), MILL_OK);
        for (size_t i = 0; i < devices.size(); i++)
            for (stm_mem_kind kind : {STM_MEM_DEVICE, STM_MEM_PINNED}) {
                stm_device_pool_opts o = {};
                mill_error err = {};
                stm_device_pool *p = nullptr;
                o.device = devices[i], o.kind = kind, o.heads = heads_, o.slab_bytes = 1 << 16;
                EXPECT_EQ(stm_device_pool_create(&o, &p, &err), MILL_OK) << err.msg;
                pools_.push_back(p);
                if (kind == STM_MEM_DEVICE) streams_.push_back(std::make_unique<Stream>(devices[i]));
            }
        size_t turn = 0;
        for (int64_t at = 0; at < v.n(); at += piece, turn++) put(v, at, std::min(piece, v.n() - at), turn);
        mill_error err = {};
        EXPECT_EQ(stm_twins_find(&twins, columns_.data(), columns_.size(), &err), MILL_OK) << err.msg;
    }
    ~Twins()
    {
        streams_.clear(); /* what is under way there is over */
        stm_twins_fini(&twins);
        for (mill_column *c : columns_) mill_column_unref(&c);
        for (stm_device_pool *p : pools_) stm_device_pool_release(&p);
        stm_pool_release(&heads_);
    }
    Twins(const Twins &) = delete;
    /** Whoever looks at the host's copy of what is on a device finds something else there. */
    void spoil_host()
    {
        mill_error err = {};
        for (const auto &s : streams_) ASSERT_EQ(stm_stream_sync(*s, &err), MILL_OK) << err.msg;
        for (size_t i = 0; i < twins.n; i++) {
            float *at = reinterpret_cast<float *>(const_cast<char *>(twins.all[i].host));
            for (size_t k = 0; k < twins.all[i].bytes / sizeof(float); k++) at[k] = static_cast<float>(i + k);
        }
    }

private:
    void put(const Vectors &v, int64_t at, int64_t rows, size_t turn)
    {
        const size_t bytes = static_cast<size_t>(rows * v.dim) * sizeof(float), before = turn % 2 * 256, n = devices_.size() + 1;
        const size_t d = turn % n; /* the last: on the host alone */
        mill_buffer *host = nullptr, *there = nullptr;
        mill_column *column = nullptr;
        mill_error err = {};
        if (d + 1 == n) {
            ASSERT_EQ(mill_buffer_create(heads_, bytes, &host), MILL_OK);
        } else {
            ASSERT_EQ(stm_device_pool_take(pools_[2 * d + 1], bytes, &host, &err), MILL_OK) << err.msg;
            ASSERT_EQ(stm_device_pool_take(pools_[2 * d], before + bytes, &there, &err), MILL_OK) << err.msg;
        }
        memcpy(mill_buffer_data(host), v.rows[static_cast<size_t>(at)], bytes);
        if (there != nullptr) { /* on its way there when the search begins */
            stm_mark mark = {};
            ASSERT_EQ(stm_stream_copy(*streams_[d], static_cast<char *>(mill_buffer_data(there)) + before, mill_buffer_data(host),
                                      bytes, &err), MILL_OK);
            ASSERT_EQ(stm_stream_raise(*streams_[d], &mark, &err), MILL_OK);
            stm_buffer_written(there, mark);
            stm_buffer_pair(host, there, before);
            mill_buffer_unref(&there);
        }
        for (int64_t r = 0; r < rows; r++)
            of.rows[static_cast<size_t>(at + r)] = static_cast<float *>(mill_buffer_data(host)) + r * v.dim;
        ASSERT_EQ(mill_column_create(heads_, mill_type_plain(MILL_FLOAT32), rows * v.dim, nullptr, nullptr, &host, nullptr, &column,
                                     &err), MILL_OK);
        columns_.push_back(column);
        columns_.push_back(nullptr); /* nobody minds */
    }
    std::vector<stm_device *> devices_;
    std::vector<std::unique_ptr<Stream>> streams_;
    std::vector<stm_device_pool *> pools_;
    std::vector<mill_column *> columns_;
    mill_pool *heads_ = nullptr;

public:
    Vectors of; /* the same, but these rows */
    stm_twins twins = {};
};

/** n devices as a team. */
class Team {
public:
    Team(const stm_comm_ops *comm, int n)
    {
        std::string why;
        const stm_device_ops *ops = backend(comm->backend, &why);
        std::vector<stm_device *> list;
        mill_error err = {};
        for (int i = 0; i < n; i++) {
            devices_.push_back(std::make_unique<Device>(ops, strcmp(comm->backend, "cpu") == 0 ? 0 : i));
            list.push_back(*devices_.back());
        }
        EXPECT_EQ(stm_team_open(list.data(), n, 0, &t_, &err), MILL_OK) << err.msg;
    }
    ~Team() { stm_team_close(&t_); }
    operator stm_team *() const { return t_; }
    std::vector<stm_device *> devices() const
    {
        std::vector<stm_device *> all;
        for (const auto &d : devices_) all.push_back(*d);
        return all;
    }

private:
    std::vector<std::unique_ptr<Device>> devices_;
    stm_team *t_ = nullptr;
};

} // namespace mt
