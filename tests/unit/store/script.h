/*
 * A run of the store that any test can play, in part and against any disk, and the knowledge of what must be found after
 * each of its commits. What a commit holds is a function of its number alone.
 */
#pragma once
#include <gtest/gtest.h>

#include "disk.h"

extern "C" {
#include "store/vault.h"
}

namespace mt {

constexpr int kStreams = 3, kParts = 2;

struct Vault {
    stm_vault *p = nullptr;
    Vault() = default;
    Vault(const Vault &) = delete;
    Vault &operator=(const Vault &) = delete;
    ~Vault() { stm_vault_close(&p); }
    operator stm_vault *() const { return p; }
};

/** Frames that commit @p c (1, 2, ...) adds to stream @p s: 0 to 4 of them, some empty, some of several KiB. */
inline const std::vector<std::string> &frames_of(int s, int c)
{
    static std::map<std::pair<int, int>, std::vector<std::string>> made;
    const auto known = made.find({s, c});
    if (known != made.end()) return known->second;
    std::mt19937 rng(static_cast<uint32_t>(s * 7919 + c * 31 + 1));
    std::vector<std::string> &out = made[{s, c}];
    out.resize(rng() % 5);
    for (auto &f : out) {
        f.resize(rng() % 8 == 0 ? rng() % 9000 : rng() % 200);
        for (auto &b : f) b = static_cast<char>(rng());
    }
    return out;
}
inline std::string state_of(int part, int c)
{
    char text[40];
    snprintf(text, sizeof text, "part %d at commit %06d", part, c);
    return text;
}

inline mill_status open_vault(const stm_files &f, Vault *v, mill_error *err, uint64_t nonce = 77, bool fresh = false)
{
    stm_vault_opts o = {};
    o.files = &f;
    o.nonce = nonce;
    o.fresh = fresh;
    return stm_vault_open(&o, &v->p, err);
}

/** Commit that a vault stands at, from its states; 0 = nothing. -1: states that no commit made. */
inline int commit_of(stm_vault *v)
{
    if (stm_vault_parts(v) == 0) return 0;
    if (stm_vault_parts(v) != kParts || stm_vault_streams(v) != kStreams) return -1;
    const stm_vault_part p = stm_vault_part_at(v, 0);
    if (p.n_state == 0) return 0;
    const int c = atoi(std::string(static_cast<const char *>(p.state), p.n_state).substr(17).c_str());
    for (int i = 0; i < kParts; i++) {
        const stm_vault_part q = stm_vault_part_at(v, static_cast<size_t>(i));
        if (std::string(static_cast<const char *>(q.state), q.n_state) != state_of(i, c)) return -1;
    }
    return c;
}

/** Whether the streams hold exactly what commits 1 .. @p c added. MILL_OK: yes; a failure: reading said so; else a test failure. */
inline mill_status read_back(stm_vault *v, int c, mill_error *err)
{
    for (int s = 0; s < static_cast<int>(stm_vault_streams(v)); s++) {
        stm_segment_reader *r = nullptr;
        mill_status st = stm_vault_read(v, static_cast<size_t>(s), &r, err);
        int at = 1;
        size_t k = 0;
        for (bool end = false; st == MILL_OK;) {
            stm_frame f = {};
            st = stm_segment_reader_next(r, true, &f, &end, err);
            if (st != MILL_OK) break;
            while (at <= c && k == frames_of(s, at).size()) at++, k = 0;
            if (end) {
                EXPECT_EQ(at, c + 1) << "stream " << s << " ends early";
                break;
            }
            EXPECT_LE(at, c) << "stream " << s << " holds more than was committed";
            if (at > c) break;
            EXPECT_EQ(std::string(static_cast<const char *>(f.data), f.bytes),
                      frames_of(s, at)[k]) << "stream " << s << " commit " << at;
            EXPECT_EQ(f.label, static_cast<uint64_t>(at));
            k++;
        }
        stm_segment_reader_destroy(&r);
        if (st != MILL_OK) return st;
    }
    return MILL_OK;
}

/** Begin the next epoch with what was found. */
inline mill_status begin(stm_vault *v, mill_error *err)
{
    stm_vault_part parts[kParts] = {};
    stm_vault_stream streams[kStreams] = {};
    const char *names[] = {"alpha", "beta.in", "gamma-2"}, *components[] = {"first", "second"};
    std::vector<std::string> states;
    for (int i = 0; i < kParts; i++) {
        const int32_t k = stm_vault_find_part(v, components[i]);
        const stm_vault_part old = k >= 0 ? stm_vault_part_at(v, static_cast<size_t>(k)) : stm_vault_part{};
        states.emplace_back(old.n_state > 0 ? std::string(static_cast<const char *>(old.state), old.n_state) : std::string());
    }
    for (int i = 0; i < kParts; i++) {
        parts[i].name = components[i];
        parts[i].state = states[static_cast<size_t>(i)].data();
        parts[i].n_state = states[static_cast<size_t>(i)].size();
        parts[i].signature[0] = static_cast<unsigned char>(i + 1);
    }
    for (int i = 0; i < kStreams; i++) {
        streams[i].name = names[i];
        streams[i].part = i % kParts;
        streams[i].keep = true;
    }
    return stm_vault_begin(v, parts, kParts, streams, kStreams, "a test", err);
}

/** Append what commit @p c holds and mark it; the caller commits. */
inline mill_status append(stm_vault *v, int c, mill_error *err)
{
    for (int s = 0; s < kStreams; s++) {
        for (const auto &f : frames_of(s, c)) {
            const stm_bytes pieces[2] = {{f.data(), f.size() / 3}, {f.data() + f.size() / 3, f.size() - f.size() / 3}};
            const mill_status st = stm_vault_append(v, static_cast<size_t>(s), 1, static_cast<uint64_t>(c), 1, pieces, 2, err);
            if (st != MILL_OK) return st;
        }
        const mill_status st = stm_vault_mark(v, static_cast<size_t>(s), false, err);
        if (st != MILL_OK) return st;
    }
    for (int i = 0; i < kParts; i++) {
        const std::string state = state_of(i, c);
        const mill_status st = stm_vault_set_state(v, static_cast<size_t>(i), state.data(), state.size(), err);
        if (st != MILL_OK) return st;
    }
    return MILL_OK;
}

/* A vault that this process writes to, with the first batch in it, which is not committed. */
inline mill_status begin_with_one(const stm_files &f, Vault *v, mill_error *err)
{
    mill_status st = open_vault(f, v, err);
    if (st == MILL_OK) st = begin(*v, err);
    return st == MILL_OK ? append(*v, 1, err) : st;
}

} // namespace mt
