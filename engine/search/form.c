#include "search/form.h"

#include <stdlib.h>
#include <string.h>

#include "core/log.h"

/* A launch, or the question whether the device is for it: MILL_ERR_UNSUPPORTED, without a text, where it is not. */
static mill_status launch(stm_stream *stream, const stm_kernels *kernels, stm_tiles_answer *there, mill_error *err)
{
    stm_device *dev = stm_stream_device(stream);
    const mill_status st = kernels->tiles(there, stm_stream_native(stream));

    if (st == MILL_OK || st == MILL_ERR_UNSUPPORTED) return st;
    (void)stm_device_note(dev, st);
    return mill_fail(err, st, "asking for warpgroup products (wgmma) on %s device %d failed", stm_device_ops_of(dev)->name,
                     (int)stm_device_ordinal(dev));
}

static mill_status ask(stm_stream *stream, const stm_kernels *kernels, int32_t *counts, mill_error *err)
{
    stm_device *dev = stm_stream_device(stream);
    stm_tiles_answer *there;
    void *memory = NULL;
    mill_error cause = {0};
    mill_status st = stm_device_enter(dev, err);

    if (st == MILL_OK) st = launch(stream, kernels, NULL, err);
    if (st == MILL_OK) st = stm_device_alloc(dev, STM_MEM_DEVICE, sizeof *there, &memory, err);
    if (st != MILL_OK) return st;
    there = memory;
    st = launch(stream, kernels, there, err);
    if (st == MILL_OK) st = stm_stream_copy(stream, counts, &there->wrong, 2 * sizeof *counts, err);
    if (st == MILL_OK && (st = stm_stream_sync(stream, &cause)) != MILL_OK)
        st = mill_fail(
            err, st, "the check of warpgroup products (wgmma) on %s device %d failed: %.300s; STEPMILL_TILES=mma does without them",
            stm_device_ops_of(dev)->name, (int)stm_device_ordinal(dev), cause.msg);
    stm_stream_settle(stream);
    stm_device_free(dev, STM_MEM_DEVICE, memory);
    return st;
}

mill_status stm_form_choose(stm_stream *stream, const stm_kernels *kernels, void *pinned, stm_tiles *out, mill_error *err)
{
    const char *asked = getenv("STEPMILL_TILES");
    const bool insists = asked != NULL && strcmp(asked, "wgmma") == 0;
    int32_t *counts = pinned;
    stm_device *dev = stm_stream_device(stream);
    const char *name = stm_device_ops_of(dev)->name;
    const int ordinal = (int)stm_device_ordinal(dev);
    mill_status st;

    if (asked != NULL && asked[0] != '\0' && strcmp(asked, "mma") != 0 && !insists)
        return mill_fail(err, MILL_ERR_INVALID, "STEPMILL_TILES is `%s`: it can be mma or wgmma, or not be set", asked);
    *out = STM_TILES_MMA;
    if (asked != NULL && strcmp(asked, "mma") == 0) return MILL_OK;
    st = ask(stream, kernels, counts, err);
    if (st == MILL_ERR_UNSUPPORTED)
        return insists ? mill_fail(err, st,
                                   "STEPMILL_TILES=wgmma: %s device %d has no warpgroup products; only compute capability 9.0 has",
                                   name, ordinal)
                       : MILL_OK;
    if (st == MILL_ERR_DEVICE_MEM && !insists) { /* searches shrink to what there is */
        stm_log(STM_WARN, "",
                "%s device %d: no memory to check warpgroup products (wgmma); searches take mma.sync, which is slower", name,
                ordinal);
        if (err != NULL) *err = (mill_error){0};
        return MILL_OK;
    }
    if (st != MILL_OK) return st;
    if (stm_tiles_known(counts[0], counts[1])) {
        *out = STM_TILES_WGMMA;
        return MILL_OK;
    }
    if (insists)
        return mill_fail(err, MILL_ERR_UNSUPPORTED,
                         "STEPMILL_TILES=wgmma: warpgroup products on %s device %d gave %d wrong scores of a known answer", name,
                         ordinal, (int)counts[0]);
    stm_log(STM_WARN, "",
            "%s device %d: warpgroup products (wgmma) gave %d wrong scores of a known answer; searches take mma.sync, which is "
            "slower and right",
            name, ordinal, (int)counts[0]);
    return MILL_OK;
}
