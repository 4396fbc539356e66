/* Pictures of runs for tests. */
#pragma once
#include <cstdio>
#include <string>

#include "stepmill/step.h"
extern "C" {
#include "core/alloc.h"
#include "trace/picture.h"
}

namespace mt {

/** source -> work (2 replicas) -> out, running. */
class Picture {
public:
    Picture()
    {
        EXPECT_EQ(stm_picture_create(3, &p), MILL_OK);
        const char *names[] = {"source", "work", "out"}, *types[] = {"read_jsonl", "embed_text", "write_jsonl"};
        const int32_t kinds[] = {MILL_GENERATOR, MILL_STEP, MILL_SINK}, replicas[] = {1, 2, 1};
        for (int32_t i = 0; i < 3; i++) {
            snprintf(p->steps[i].name, sizeof p->steps[i].name, "%s", names[i]);
            snprintf(p->steps[i].type, sizeof p->steps[i].type, "%s", types[i]);
            p->steps[i].kind = kinds[i];
            p->steps[i].replicas = p->steps[i].loaded = replicas[i];
            p->steps[i].phase = STM_PHASE_RUNNING;
            if (i > 0) {
                EXPECT_EQ(stm_picture_from(&p->steps[i], 1), MILL_OK);
                p->steps[i].from[0] = i - 1;
            }
        }
        p->steps[1].may_replicate = true;
        EXPECT_EQ(stm_picture_replicas(p), MILL_OK);
        snprintf(p->name, sizeof p->name, "test");
        snprintf(p->host, sizeof p->host, "node-1");
        p->pid = 42;
        p->attempt = 1;
        p->processors = 4;
    }
    ~Picture() { stm_picture_destroy(&p); }
    Picture(const Picture &) = delete;
    Picture &operator=(const Picture &) = delete;
    stm_picture_step &step(int i) { return p->steps[i]; }
    stm_picture *p = nullptr;
};

/** What a function that appends to an stm_text wrote. */
class Text {
public:
    ~Text() { stm_text_free(&t); }
    std::string str() const { return t.data != nullptr ? std::string(t.data, t.bytes) : std::string(); }
    operator stm_text *() { return &t; }
    stm_text t = {};
};

} // namespace mt
