/* GStreamer: fakesrc, three identities that do the work, fakesink, a queue (a thread) between any two. */
#include <gst/gst.h>
#include <semaphore.h>

#include "peer.h"

static uint64_t counts[4]; /* batches that passed a stage; its thread */
static sem_t room;

static GstPadProbeReturn make(GstPad *pad, GstPadProbeInfo *info, gpointer user)
{
    (void)pad, (void)info, (void)user;
    sem_wait(&room);
    (void)peer_make();
    return GST_PAD_PROBE_OK;
}

static GstPadProbeReturn work(GstPad *pad, GstPadProbeInfo *info, gpointer stage)
{
    const int k = GPOINTER_TO_INT(stage);

    (void)pad, (void)info;
    peer_work(&peer.pool[counts[k]++ % PEER_POOL], k);
    return GST_PAD_PROBE_OK;
}

static GstPadProbeReturn take(GstPad *pad, GstPadProbeInfo *info, gpointer user)
{
    (void)pad, (void)info, (void)user;
    (void)peer_take(&peer.pool[counts[3]++ % PEER_POOL]);
    sem_post(&room);
    return GST_PAD_PROBE_OK;
}

static void watch(GstElement *pipeline, const char *element, const char *pad, GstPadProbeCallback call, int stage)
{
    GstElement *e = gst_bin_get_by_name(GST_BIN(pipeline), element);
    GstPad *p = gst_element_get_static_pad(e, pad);

    gst_pad_add_probe(p, GST_PAD_PROBE_TYPE_BUFFER, call, GINT_TO_POINTER(stage), NULL);
    gst_object_unref(p);
    gst_object_unref(e);
}

int main(int argc, char **argv)
{
    char text[1024];
    GstElement *pipeline;
    GstMessage *end;

    peer_open(argc, argv);
    gst_init(NULL, NULL);
    sem_init(&room, 0, (unsigned)peer.inflight);
    snprintf(
        text, sizeof text,
        "fakesrc name=s num-buffers=%lld sizetype=empty silent=true ! queue max-size-buffers=16 max-size-bytes=0 max-size-time=0 ! "
        "identity name=a silent=true ! queue max-size-buffers=16 max-size-bytes=0 max-size-time=0 ! "
        "identity name=b silent=true ! queue max-size-buffers=16 max-size-bytes=0 max-size-time=0 ! "
        "identity name=c silent=true ! queue max-size-buffers=16 max-size-bytes=0 max-size-time=0 ! "
        "fakesink name=k sync=false async=false silent=true",
        (long long)peer.batches);
    pipeline = gst_parse_launch(text, NULL);
    if (pipeline == NULL) return 1;
    watch(pipeline, "s", "src", make, 0);
    watch(pipeline, "a", "sink", work, 0);
    watch(pipeline, "b", "sink", work, 1);
    watch(pipeline, "c", "sink", work, 2);
    watch(pipeline, "k", "sink", take, 0);
    gst_element_set_state(pipeline, GST_STATE_PLAYING);
    end = gst_bus_timed_pop_filtered(gst_element_get_bus(pipeline), GST_CLOCK_TIME_NONE, GST_MESSAGE_EOS | GST_MESSAGE_ERROR);
    if (end == NULL || GST_MESSAGE_TYPE(end) == GST_MESSAGE_ERROR) return 1;
    gst_element_set_state(pipeline, GST_STATE_NULL);
    return peer_report();
}
