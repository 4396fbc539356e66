#include "models/encoder/shared.h"

mill_status stm_shelf_get(stm_shelf *s, void *wanted, stm_shared **out, mill_error *err)
{
    stm_shared *t;
    mill_status st = MILL_OK;

    pthread_mutex_lock(&s->lock);
    for (t = s->things; t != NULL && !s->is(t, wanted); t = t->next) continue;
    if (t == NULL && (st = s->make(wanted, &t, err)) == MILL_OK) {
        t->next = s->things;
        t->refs = 0;
        s->things = t;
    }
    if (st == MILL_OK) {
        t->refs++;
        *out = t;
    }
    pthread_mutex_unlock(&s->lock);
    return st;
}

void stm_shelf_put(stm_shelf *s, stm_shared *thing)
{
    bool last;

    pthread_mutex_lock(&s->lock);
    last = --thing->refs == 0;
    if (last) {
        stm_shared **at = &s->things;
        while (*at != thing) at = &(*at)->next;
        *at = thing->next;
    }
    pthread_mutex_unlock(&s->lock);
    if (last) s->destroy(thing);
}
