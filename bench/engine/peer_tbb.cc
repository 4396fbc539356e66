/* oneTBB's parallel_pipeline. */
#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/parallel_pipeline.h>

#include "peer.h"

int main(int argc, char **argv)
{
    using namespace oneapi::tbb;
    peer_open(argc, argv);
    global_control workers(global_control::max_allowed_parallelism, (size_t)peer.workers);
    const auto serial = filter_mode::serial_in_order;
    const auto in_b = peer.copies > 1 ? filter_mode::parallel : serial;
    const auto stage = [](int k) {
        return [k](peer_batch *b) {
            peer_work(b, k);
            return b;
        };
    };
    parallel_pipeline((size_t)peer.inflight,
                      make_filter<void, peer_batch *>(serial,
                                                      [](flow_control &fc) -> peer_batch * {
                                                          peer_batch *b = peer_make();
                                                          if (b == nullptr) fc.stop();
                                                          return b;
                                                      }) &
                          make_filter<peer_batch *, peer_batch *>(serial, stage(0)) &
                          make_filter<peer_batch *, peer_batch *>(in_b, stage(1)) &
                          make_filter<peer_batch *, peer_batch *>(serial, stage(2)) &
                          make_filter<peer_batch *, void>(serial, [](peer_batch *b) { peer_take(b); }));
    return peer_report();
}
