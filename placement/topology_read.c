/* Topologies from files and from this machine: which reader is for what. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "core/text.h"
#include "placement/limits.h"
#include "placement/sources.h"

enum { MAX_FILE_BYTES = 64 << 20 };

static mill_status read_file(const char *path, stm_text *out, mill_error *err)
{
    char chunk[16384];
    ssize_t n = 0;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    mill_status st = MILL_OK;

    if (fd < 0) {
        st = mill_fail(err, errno == ENOENT ? MILL_ERR_NOT_FOUND : MILL_ERR_IO, "cannot open the topology: %s", strerror(errno));
        mill_error_place(err, path, 0, 0);
        return st;
    }
    while (!out->failed && out->bytes <= MAX_FILE_BYTES && (n = read(fd, chunk, sizeof chunk)) > 0)
        stm_text_add(out, chunk, (size_t)n);
    if (n < 0) st = mill_fail(err, MILL_ERR_IO, "cannot read the topology: %s", strerror(errno));
    if (out->failed) st = mill_fail(err, MILL_ERR_NOMEM, "reading the topology");
    if (st == MILL_OK && out->bytes > MAX_FILE_BYTES) st = mill_fail(err, MILL_ERR_INVALID, "no topology is that long");
    close(fd);
    if (st != MILL_OK) mill_error_place(err, path, 0, 0);
    return st;
}

/* Name of the first element of an XML text; empty = it is none. */
static void first_element(const stm_text *text, const char *path, char *name, size_t size)
{
    stm_xml_reader xml;
    stm_xml_element e;

    name[0] = '\0';
    stm_xml_start(&xml, text->data, text->bytes, path);
    if (stm_xml_next(&xml, &e, NULL) != MILL_OK || e.event != STM_XML_OPEN || e.name_bytes >= size) return;
    memcpy(name, e.name, e.name_bytes);
    name[e.name_bytes] = '\0';
}

mill_status stm_topology_read(const char *path, stm_topology **out, mill_error *err)
{
    stm_text text = {0};
    char root[32];
    size_t at = 0;
    mill_status st = read_file(path, &text, err);

    if (st != MILL_OK) {
        stm_text_free(&text);
        return st;
    }
    while (at < text.bytes && strchr(" \t\r\n", text.data[at]) != NULL) at++;
    if (at >= text.bytes || text.data[at] != '<') {
        st = stm_topology_parse(text.data != NULL ? text.data : "", text.bytes, path, out, err);
    } else {
        first_element(&text, path, root, sizeof root);
        if (strcmp(root, "system") == 0)
            st = stm_topology_nccl(text.data, text.bytes, path, out, err);
        else if (strcmp(root, "topology") == 0 || strcmp(root, "root") == 0)
            st = stm_topology_hwloc(STM_HWLOC_XML, text.data, text.bytes, path, out, err);
        else
            st = mill_fail(err, MILL_ERR_PARSE,
                           "not a topology: expected hwloc's XML (<topology>), NCCL's (<system>), or text that begins "
                           "with \"" STM_TOPOLOGY_HEAD " 1\"");
    }
    if (st != MILL_OK) mill_error_place(err, path, 0, 0);
    stm_text_free(&text);
    return st;
}

mill_status stm_topology_synthetic(const char *description, stm_topology **out, mill_error *err)
{
    return stm_topology_hwloc(STM_HWLOC_SYNTHETIC, description, strlen(description), description, out, err);
}

/* ---- this machine ------------------------------------------------------------------------------------------------ */

static struct {
    pthread_mutex_t lock;
    const stm_topology *topology; /* lock; never changes once set */
} here = {.lock = PTHREAD_MUTEX_INITIALIZER};

static mill_status discover(stm_topology **out, mill_error *err)
{
    stm_topology *t = NULL;
    mill_error unused = {0};
    mill_status st = stm_topology_hwloc(STM_HWLOC_HERE, NULL, 0, "this machine", &t, &unused);

    if (st == MILL_ERR_NOMEM) return mill_fail(err, MILL_ERR_NOMEM, "reading the machine's topology");
    if (st != MILL_OK && (st = stm_topology_create("this machine, without hwloc", &t, err)) != MILL_OK) return st;
    if ((st = stm_topology_driver(t, "", err)) != MILL_OK || (st = stm_topology_close(t, err)) != MILL_OK)
        stm_topology_destroy(&t);
    else
        *out = t;
    return st;
}

mill_status stm_topology_here(const stm_topology **out, mill_error *err)
{
    stm_topology *t = NULL;
    mill_status st = MILL_OK;

    pthread_mutex_lock(&here.lock);
    if (here.topology == NULL && (st = discover(&t, err)) == MILL_OK) here.topology = t;
    if (st == MILL_OK) *out = here.topology;
    pthread_mutex_unlock(&here.lock);
    return st;
}
