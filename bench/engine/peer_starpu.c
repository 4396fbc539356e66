/* StarPU: a task per batch and stage. Its data dependencies give the order: a batch's handle, and one per serial stage. */
#include <semaphore.h>
#include <starpu.h>

#include "peer.h"

static sem_t room;
static int serial[3]; /* what the handles of A, C and the sink stand for */
static starpu_data_handle_t batches[PEER_POOL], order[3];

static void run_stage(void *buffers[], int k) { peer_work((peer_batch *)STARPU_VARIABLE_GET_PTR(buffers[0]), k); }
static void stage_a(void *buffers[], void *arg) { (void)arg, run_stage(buffers, 0); }
static void stage_b(void *buffers[], void *arg) { (void)arg, run_stage(buffers, 1); }
static void stage_c(void *buffers[], void *arg) { (void)arg, run_stage(buffers, 2); }
static void sink(void *buffers[], void *arg)
{
    (void)arg;
    (void)peer_take((peer_batch *)STARPU_VARIABLE_GET_PTR(buffers[0]));
    sem_post(&room);
}

static struct starpu_codelet codelets[4] = {
    {.cpu_funcs = {stage_a}, .nbuffers = 2, .modes = {STARPU_RW, STARPU_RW}},
    {.cpu_funcs = {stage_b}, .nbuffers = 2, .modes = {STARPU_RW, STARPU_RW}},
    {.cpu_funcs = {stage_c}, .nbuffers = 2, .modes = {STARPU_RW, STARPU_RW}},
    {.cpu_funcs = {sink}, .nbuffers = 2, .modes = {STARPU_RW, STARPU_RW}},
};
static struct starpu_codelet twice = {.cpu_funcs = {stage_b}, .nbuffers = 1, .modes = {STARPU_RW}};
static starpu_data_handle_t order_b;
static int serial_b;

static int submit(struct starpu_codelet *codelet, starpu_data_handle_t batch, starpu_data_handle_t stage)
{
    struct starpu_task *t = starpu_task_create();

    t->cl = codelet;
    t->handles[0] = batch;
    if (stage != NULL) t->handles[1] = stage;
    return starpu_task_submit(t);
}

int main(int argc, char **argv)
{
    struct starpu_conf conf;

    peer_open(argc, argv);
    sem_init(&room, 0, (unsigned)peer.inflight);
    starpu_conf_init(&conf);
    conf.ncpus = peer.workers, conf.ncuda = 0, conf.nopencl = 0;
    if (starpu_init(&conf) != 0) return 1;
    for (int i = 0; i < PEER_POOL; i++)
        starpu_variable_data_register(&batches[i], STARPU_MAIN_RAM, (uintptr_t)&peer.pool[i], sizeof(peer_batch));
    for (int i = 0; i < 3; i++) starpu_variable_data_register(&order[i], STARPU_MAIN_RAM, (uintptr_t)&serial[i], sizeof(int));
    starpu_variable_data_register(&order_b, STARPU_MAIN_RAM, (uintptr_t)&serial_b, sizeof(int));
    for (peer_batch *b;;) { /* this thread is the source */
        sem_wait(&room);
        if ((b = peer_make()) == NULL) break;
        const starpu_data_handle_t h = batches[b->seq % PEER_POOL];
        if (submit(&codelets[0], h, order[0]) != 0) return 1;
        if (submit(peer.copies > 1 ? &twice : &codelets[1], h, peer.copies > 1 ? NULL : order_b) != 0) return 1;
        if (submit(&codelets[2], h, order[1]) != 0) return 1;
        if (submit(&codelets[3], h, order[2]) != 0) return 1;
    }
    starpu_task_wait_for_all();
    for (int i = 0; i < PEER_POOL; i++) starpu_data_unregister(batches[i]);
    for (int i = 0; i < 3; i++) starpu_data_unregister(order[i]);
    starpu_data_unregister(order_b);
    starpu_shutdown();
    return peer_report();
}
