/* Where topologies come from; between the files of this folder. Each gives a topology that is closed. */
#ifndef STM_PLACEMENT_SOURCES_H
#define STM_PLACEMENT_SOURCES_H

#include "placement/topology.h"

#define STM_TOPOLOGY_HEAD "stepmill-topology" /* first word of the text form */

/** What hwloc is asked for: this machine, an XML in memory, or a synthetic description. */
typedef enum stm_hwloc_input { STM_HWLOC_HERE, STM_HWLOC_XML, STM_HWLOC_SYNTHETIC } stm_hwloc_input;
/**
 * By hwloc, which is loaded on the first call.
 * @param text  XML or description; unused for this machine.
 * @retval MILL_ERR_UNSUPPORTED  there is no libhwloc.so.15 on this machine.
 * @retval MILL_ERR_PARSE        hwloc refused the input (its format 3 among it).
 */
mill_status stm_topology_hwloc(stm_hwloc_input input, const char *text, size_t bytes, const char *source, stm_topology **out,
                               mill_error *err);
/** NCCL's XML (`<system>`), in memory. */
mill_status stm_topology_nccl(const char *text, size_t bytes, const char *file, stm_topology **out, mill_error *err);
/** Fill in UUIDs and names from what the NVIDIA driver shows in @p root/proc/driver/nvidia/gpus, and GPUs that only it knows. */
mill_status stm_topology_driver(stm_topology *t, const char *root, mill_error *err);

/* ---- a reader of XML as topology files use it: elements and attributes, no text ------------------------------------ */

enum { STM_XML_MAX_DEPTH = 64 };

typedef struct stm_xml_reader {
    const char *p, *end, *start;
    const char *file;
    int depth;
    struct {
        const char *at;
        size_t n;
    } open[STM_XML_MAX_DEPTH]; /* names of elements that are open */
    bool closing;              /* the element in hand was `<x/>`: its end comes next */
} stm_xml_reader;

typedef enum stm_xml_event { STM_XML_OPEN, STM_XML_CLOSE, STM_XML_END } stm_xml_event;
typedef struct stm_xml_element {
    stm_xml_event event;
    const char *name; /* not terminated */
    size_t name_bytes;
    const char *attributes; /* from behind the name to the end of the tag; see stm_xml_attribute */
    size_t attributes_bytes;
} stm_xml_element;

void stm_xml_start(stm_xml_reader *r, const char *text, size_t bytes, const char *file);
/** The next start or end of an element. MILL_ERR_PARSE, with line and column: not well formed, or nested too deeply. */
mill_status stm_xml_next(stm_xml_reader *r, stm_xml_element *out, mill_error *err);
bool stm_xml_is(const stm_xml_element *e, const char *name);
/** Value of an attribute into @p buf, cut to its size; false = not there. Entities stay as they are. */
bool stm_xml_attribute(const stm_xml_element *e, const char *name, char *buf, size_t size);

#endif
