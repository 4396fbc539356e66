#include "batch/json_number.h"

#include <charconv>
#include <cstring>

/* A reader takes 3 for an integer and would give the column another type: floats keep a point or an exponent. */
template <typename T> static char *write_real(char *dst, T v)
{
    char *end = std::to_chars(dst, dst + STM_NUMBER_BYTES, v).ptr;
    for (const char *p = dst; p < end; p++)
        if (*p == '.' || *p == 'e') return end;
    *end++ = '.';
    *end++ = '0';
    return end;
}

char *stm_write_double(char *dst, double v) { return write_real(dst, v); }
char *stm_write_float(char *dst, float v) { return write_real(dst, v); }
char *stm_write_int(char *dst, int64_t v) { return std::to_chars(dst, dst + STM_NUMBER_BYTES, v).ptr; }
