#include "core/error.h"

#include <stdio.h>
#include <string.h>

/* Copies what fits; a cut text ends in "...". */
static void put(char *dst, size_t size, const char *fmt, va_list ap)
{
    int n = vsnprintf(dst, size, fmt, ap);

    if (n >= 0 && (size_t)n >= size && size > 3) memcpy(dst + size - 4, "...", 4);
}

const char *mill_class_text(int32_t error_class)
{
    static const char *const texts[MILL_CLASSES] = {[MILL_CLASS_PERMANENT] = "permanent", [MILL_CLASS_TRANSIENT] = "transient",
                                                    [MILL_CLASS_DATA] = "data", [MILL_CLASS_DEVICE] = "device"};

    return texts[error_class >= 0 && error_class < MILL_CLASSES ? error_class : MILL_CLASS_PERMANENT];
}

mill_status mill_fail_at(mill_error *err, mill_status status, const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    const char *base;

    if (err == NULL || err->status != MILL_OK) return status;
    err->status = status;
    err->replica = -1;
    if (status == MILL_ERR_TIMEOUT || status == MILL_ERR_NOMEM || status == MILL_ERR_BUSY || status == MILL_ERR_AGAIN)
        err->error_class = MILL_CLASS_TRANSIENT;
    else if (status == MILL_ERR_DEVICE)
        err->error_class = MILL_CLASS_DEVICE;
    else if (status == MILL_ERR_DATA)
        err->error_class = MILL_CLASS_DATA;
    base = strrchr(file, '/');
    snprintf(err->origin, sizeof err->origin, "%s", base != NULL ? base + 1 : file);
    err->origin_line = line;
    va_start(ap, fmt);
    put(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    return status;
}

void mill_error_context(mill_error *err, const char *fmt, ...)
{
    va_list ap;
    size_t used;

    if (err == NULL || err->status == MILL_OK) return;
    used = strlen(err->context);
    if (used > 0 && used + 3 < sizeof err->context) {
        memcpy(err->context + used, "; ", 3);
        used += 2;
    }
    va_start(ap, fmt);
    put(err->context + used, sizeof err->context - used, fmt, ap);
    va_end(ap);
}

void mill_error_remedy(mill_error *err, const char *fmt, ...)
{
    va_list ap;

    if (err == NULL || err->status == MILL_OK || err->remedy[0] != '\0') return;
    va_start(ap, fmt);
    put(err->remedy, sizeof err->remedy, fmt, ap);
    va_end(ap);
}

mill_status stm_refused(mill_status st, mill_error *err, const char *step, const char *remedy)
{
    if (err == NULL) return st;
    err->phase = MILL_PHASE_CHECK;
    if (step != NULL) snprintf(err->step, sizeof err->step, "%.63s", step);
    if (remedy != NULL) mill_error_remedy(err, "%s", remedy);
    return st;
}

mill_status stm_error_hand_on(const mill_error *why, mill_status st, mill_error *err)
{
    if (st != MILL_OK && err != NULL && err->status == MILL_OK) *err = *why;
    return st;
}

void mill_error_place(mill_error *err, const char *file, int line, int column)
{
    if (err == NULL || err->status == MILL_OK || err->file[0] != '\0' || file == NULL) return;
    snprintf(err->file, sizeof err->file, "%s", file);
    err->line = line;
    err->column = column;
}

int mill_error_format(const mill_error *err, char *buf, size_t size)
{
    char place[sizeof err->file + 48] = "", who[sizeof err->step + 24] = "";

    if (err->file[0] != '\0') {
        if (err->line > 0 && err->column > 0)
            snprintf(place, sizeof place, "%s:%d:%d: ", err->file, err->line, err->column);
        else if (err->line > 0)
            snprintf(place, sizeof place, "%s:%d: ", err->file, err->line);
        else if (err->column > 0)
            snprintf(place, sizeof place, "%s, character %d of the value: ", err->file, err->column);
        else
            snprintf(place, sizeof place, "%s: ", err->file);
    }
    if (err->step[0] != '\0') {
        if (err->replica >= 0)
            snprintf(who, sizeof who, "%s[%d]: ", err->step, err->replica);
        else
            snprintf(who, sizeof who, "%s: ", err->step);
    }
    const int n = snprintf(buf, size, "%s%s%s%s%s%s%s%s", place, who, err->msg, err->context[0] ? " (" : "", err->context,
                           err->context[0] ? ")" : "", err->remedy[0] ? ". " : "", err->remedy);
    /* Names and what programs said are in it: neither breaks the line, nor does it move a terminal's cursor. */
    for (char *c = buf; size > 0 && *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = *c == '\n' || *c == '\t' ? ' ' : '?';
    return n;
}
