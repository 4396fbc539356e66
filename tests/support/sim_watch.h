/* What the simulator's checker cannot see by itself: which parts of a slab the engine has handed out, and what the host reads. On
 * other backends there is nobody to tell. */
#pragma once
#include <dlfcn.h>

#include <cstddef>

extern "C" {
#include "batch/move.h"
#include "memory/place.h"
}

namespace mt {

inline void tell_piece(const void *at, size_t bytes, bool taken)
{
    using Told = void (*)(const void *, size_t);
    static const Told out = reinterpret_cast<Told>(dlsym(RTLD_DEFAULT, "stm_sim_piece"));
    static const Told back = reinterpret_cast<Told>(dlsym(RTLD_DEFAULT, "stm_sim_piece_release"));
    (taken ? out : back)(at, bytes);
}

/** From here on a block that goes back to its pool before its users are over is a finding, and so is work on one that has gone.
 *  False: not on simulated devices. While no pool is in use. */
inline bool watch_pools()
{
    const bool simulated = dlsym(RTLD_DEFAULT, "stm_sim_piece") != nullptr;
    stm_place_watch = simulated ? tell_piece : nullptr;
    return simulated;
}

/** The host is about to read @p col: a finding if work that fills it may be under way. */
inline void tell_read(const mill_column *col)
{
    using Told = void (*)(const void *, size_t);
    static const Told told = reinterpret_cast<Told>(dlsym(RTLD_DEFAULT, "stm_sim_host_read"));
    if (told == nullptr || col == nullptr) return;
    stm_column_buffers(
        col,
        [](mill_buffer *b, void *) {
            if (b->where == STM_MEM_PINNED) told(b->data, b->bytes);
        },
        nullptr);
}

} // namespace mt
