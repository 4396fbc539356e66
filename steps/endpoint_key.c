/* The key of a server: where it comes from, and where it must not go. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "steps/endpoint.h"
#include "steps/io/regular.h"

#define MAX_KEY_BYTES 8192

static mill_status key_from_file(const char *path, char **key, mill_error *err)
{
    char *text = malloc(MAX_KEY_BYTES + 1);
    FILE *f;
    size_t n;
    int fd = -1;
    mill_status st = text != NULL ? stm_regular_open(path, &fd, NULL, err) : mill_fail(err, MILL_ERR_NOMEM, "no memory for a key");

    if (st == MILL_OK && (f = fdopen(fd, "r")) == NULL) {
        st = mill_fail(err, MILL_ERR_NOMEM, "no memory for a key");
        close(fd);
    }
    if (st != MILL_OK) {
        free(text);
        mill_error_context(err, "the key file");
        return st;
    }
    setvbuf(f, NULL, _IONBF, 0); /* no copy of it in a buffer that is not wiped */
    n = fread(text, 1, MAX_KEY_BYTES + 1, f);
    const bool bad = ferror(f) != 0 || n > MAX_KEY_BYTES;
    fclose(f);
    if (bad) {
        explicit_bzero(text, MAX_KEY_BYTES + 1);
        free(text);
        return mill_fail(err, MILL_ERR_IO, "cannot read the key file %s, or it is longer than %d bytes", path, MAX_KEY_BYTES);
    }
    text[n] = 0;
    *key = text;
    return MILL_OK;
}

mill_status stm_endpoint_key(const stm_endpoint *s, char **key, mill_error *err)
{
    char *text = NULL;
    size_t n, from = 0;
    mill_status st = MILL_OK;

    *key = NULL;
    if (s->key_file != NULL) {
        if ((st = key_from_file(s->key_file, &text, err)) != MILL_OK) return st;
    } else if (s->key_env != NULL) {
        const char *value = getenv(s->key_env);
        if (value == NULL) {
            mill_fail(err, MILL_ERR_NOT_FOUND, "the environment has no %s, where api_key_env says the key is", s->key_env);
            mill_error_remedy(err, "export %s=..., or use api_key_file", s->key_env);
            return MILL_ERR_NOT_FOUND;
        }
        if ((text = strdup(value)) == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a key");
    } else {
        return MILL_OK;
    }
    n = strlen(text);
    while (n > 0 && isspace((unsigned char)text[n - 1])) text[--n] = 0;
    while (isspace((unsigned char)text[from])) from++;
    memmove(text, text + from, n - from + 1);
    n -= from;
    for (size_t i = 0; i < n; i++)
        if (text[i] <= ' ' || text[i] > '~') st = MILL_ERR_INVALID; /* would break out of the header */
    if (n == 0 || st != MILL_OK) {
        explicit_bzero(text, n);
        free(text);
        return mill_fail(err, MILL_ERR_INVALID,
                         "the key in %s %s is empty, or holds something else than printable ASCII characters",
                         s->key_file != NULL ? "file" : "environment variable", s->key_file != NULL ? s->key_file : s->key_env);
    }
    *key = text;
    return MILL_OK;
}

void stm_endpoint_hide(const char *key, char *text, size_t bytes)
{
    const size_t n = key != NULL ? strlen(key) : 0;
    char *at = text;

    if (n < 4 || bytes == 0) return; /* so short a key is no secret, and would be found everywhere */
    while ((at = memmem(at, bytes - (size_t)(at - text), key, n)) != NULL) {
        memset(at, '*', n);
        at += n;
    }
}
