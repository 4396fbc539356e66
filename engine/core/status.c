#include "stepmill/status.h"

const char *mill_status_text(mill_status status)
{
    static const struct { mill_status status; const char *text; } texts[] = {
        {MILL_OK, "ok"},
        {MILL_ERR_INVALID, "invalid"},
        {MILL_ERR_UNSUPPORTED, "unsupported"},
        {MILL_ERR_NOT_FOUND, "not found"},
        {MILL_ERR_TYPE, "wrong type"},
        {MILL_ERR_PARSE, "malformed"},
        {MILL_ERR_NOMEM, "out of memory"},
        {MILL_ERR_AGAIN, "not now"},
        {MILL_ERR_TIMEOUT, "deadline passed"},
        {MILL_ERR_IO, "input/output error"},
        {MILL_ERR_BUSY, "in use"},
        {MILL_ERR_DEVICE, "device lost"},
        {MILL_ERR_DEVICE_MEM, "out of device memory"},
        {MILL_ERR_STEP, "step failed"},
        {MILL_ERR_DATA, "bad data"},
        {MILL_ERR_STOPPED, "stopped"},
        {MILL_ERR_NOT_FINISHED, "not finished"},
        {MILL_ERR_STOP_IF, "too many rows failed"},
        {MILL_ERR_INTERNAL, "internal error"},
    };

    for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].status == status) return texts[i].text;
    return "unknown status";
}
