#include "supervise/suspects.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/fault.h"
#include "core/runfiles.h"
#include "core/text.h"

#define HEAD "stepmill suspects 1\n"
#define MOST_BYTES ((off_t)STM_SUSPECTS * 1024)

static bool is_within(const stm_key_range *in, const stm_key_range *of)
{
    return stm_key_compare(of->low, in->low) <= 0 && stm_key_compare(in->high, of->high) <= 0;
}

bool stm_suspect_meets(const stm_suspect *s, const char *step, const stm_key_range *keys)
{
    return strcmp(s->step, step) == 0 && stm_key_compare(s->keys.low, keys->high) <= 0 &&
           stm_key_compare(keys->low, s->keys.high) <= 0;
}

/* ---- lessons ----------------------------------------------------------------------------------------------------- */

static bool is_of_held(int32_t doing) { return doing == STM_DOING_SUBMIT || doing == STM_DOING_POLL; }

/* Keys of an entry: a call for no rows has all there are, so that it is met again whatever comes. */
static void keys_of(const stm_record *rec, stm_key_range *out)
{
    if (stm_record_keys(rec, out)) return;
    for (int32_t i = 0; i < STM_RECORD_KEY; i++) out->low[i] = INT64_MIN, out->high[i] = INT64_MAX;
}

static stm_suspect *enter(stm_recorder *r, const char *step, int32_t doing, const stm_key_range *keys, stm_suspicion verdict,
                          mill_status status, const char *cause)
{
    stm_suspect *s;

    if (r->n_suspects >= STM_SUSPECTS) return NULL;
    s = &r->suspects[r->n_suspects++];
    memset(s, 0, sizeof *s);
    atomic_store(&s->verdict, (int32_t)verdict);
    s->doing = doing;
    s->status = status;
    s->keys = *keys;
    snprintf(s->step, sizeof s->step, "%s", step);
    snprintf(s->cause, sizeof s->cause, "%s", cause);
    for (char *p = s->cause; *p != '\0'; p++)
        if (*p == '\n') *p = ' ';
    return s;
}

/* What is suspected or guilty and lies within @p keys, or has them within, is superseded by a narrower verdict. */
static void supersede(stm_recorder *r, const stm_record *rec, const stm_key_range *keys)
{
    for (int32_t i = 0; i < r->n_suspects; i++) {
        stm_suspect *s = &r->suspects[i];
        const int32_t v = atomic_load(&s->verdict);

        if ((v == STM_SUSPECTED || v == STM_GUILTY) && strcmp(s->step, rec->step) == 0 &&
            (is_within(keys, &s->keys) || is_within(&s->keys, keys)))
            atomic_store(&s->verdict, STM_CLEARED);
    }
    stm_suspects_prune(r, false);
}

/* Whether @p doing can count as failed instead of being done. */
static bool can_be_barred(int32_t doing)
{
    return doing == STM_DOING_GENERATE || doing == STM_DOING_ACCEPT || doing == STM_DOING_FINISH || doing == STM_DOING_WRITE ||
           doing == STM_DOING_SYNC || doing == STM_DOING_FINALIZE || doing == STM_DOING_UNLOAD;
}

static stm_lesson bar(stm_recorder *r, const stm_record *rec, int32_t doing, mill_status status, const char *cause)
{
    const stm_suspicion verdict = doing == STM_DOING_ROUTE ? STM_BLAMED : STM_BARRED;
    stm_key_range keys;

    keys_of(rec, &keys);
    supersede(r, rec, &keys);
    return enter(r, rec->step, doing, &keys, verdict, status, cause) == NULL ? STM_LESSON_END
           : verdict == STM_BLAMED                                           ? STM_LESSON_NARROW
                                                                             : STM_LESSON_BARRED;
}

static stm_lesson convict(stm_recorder *r, const stm_record *rec, mill_status status, const char *cause)
{
    int32_t doing = atomic_load(&rec->doing);
    stm_key_range keys;
    bool one;

    if (doing == STM_DOING_NOTHING) doing = STM_DOING_PROCESS; /* a lost device: told after the call */
    if (is_of_held(doing)) doing = STM_DOING_SUBMIT;
    if (doing == STM_DOING_ROUTE || can_be_barred(doing)) return bar(r, rec, doing, status, cause);
    if ((doing != STM_DOING_PROCESS && doing != STM_DOING_SUBMIT) || !stm_record_keys(rec, &keys)) return STM_LESSON_END;
    one = stm_key_compare(keys.low, keys.high) == 0;
    supersede(r, rec, &keys);
    return enter(r, rec->step, doing, &keys, one ? STM_BLAMED : STM_GUILTY, status, cause) != NULL ? STM_LESSON_NARROW
                                                                                                   : STM_LESSON_END;
}

/* Already to be run alone: told again it would only fill the table. */
static bool is_known(const stm_recorder *r, const char *step, int32_t doing, const stm_key_range *keys)
{
    for (int32_t i = 0; i < r->n_suspects; i++) {
        const stm_suspect *s = &r->suspects[i];
        const int32_t v = atomic_load(&s->verdict);

        if ((v == STM_SUSPECTED || v == STM_GUILTY) && s->doing == doing && strcmp(s->step, step) == 0 && is_within(keys, &s->keys))
            return true;
    }
    return false;
}

static bool suspect(stm_recorder *r, const char *step, int32_t doing, const stm_key_range *keys, mill_status status,
                    const char *cause)
{
    return is_known(r, step, doing, keys) || enter(r, step, doing, keys, STM_SUSPECTED, status, cause) != NULL;
}

/* Each batch that the replica of @p rec holds (NULL: that anybody holds). STM_LESSON_NONE: it holds none. */
static stm_lesson suspect_held(stm_recorder *r, const stm_record *rec, mill_status status, const char *cause)
{
    stm_lesson lesson = STM_LESSON_NONE;

    for (int32_t i = 0; i < STM_HELD && lesson != STM_LESSON_END; i++) {
        const int32_t of = atomic_load(&r->held[i].record);

        if (of <= 0 || of > STM_RECORDS || (rec != NULL && rec != &r->records[of - 1])) continue;
        lesson = suspect(r, r->records[of - 1].step, STM_DOING_SUBMIT, &r->held[i].keys, status, cause) ? STM_LESSON_AGAIN
                                                                                                        : STM_LESSON_END;
    }
    return lesson;
}

/* A replica was at work among others: so was all that it holds. */
static stm_lesson suspect_record(stm_recorder *r, const stm_record *rec, mill_status status, const char *cause)
{
    const int32_t doing = atomic_load(&rec->doing);
    stm_lesson lesson = is_of_held(doing) ? suspect_held(r, rec, status, cause) : STM_LESSON_NONE;
    stm_key_range keys;

    if (lesson != STM_LESSON_NONE) return lesson;
    keys_of(rec, &keys);
    return suspect(r, rec->step, doing, &keys, status, cause) ? STM_LESSON_AGAIN : STM_LESSON_END;
}

/* Who is known to be at fault: its rows; of a step with submit that holds others, too, which of them is still to be seen. */
static stm_lesson learn_of(stm_recorder *r, const stm_record *culprit, mill_status status, const char *cause)
{
    stm_lesson lesson = STM_LESSON_NONE;

    if (is_of_held(atomic_load(&culprit->doing)) && atomic_load(&culprit->alone) == 0)
        lesson = suspect_held(r, culprit, status, cause);
    return lesson != STM_LESSON_NONE ? lesson : convict(r, culprit, status, cause);
}

stm_lesson stm_suspects_learn(stm_recorder *r, const stm_record *culprit, mill_status status, const char *cause,
                              const stm_record **who)
{
    const int32_t n = atomic_load(&r->n_records);
    const stm_record *alone = NULL;
    int32_t busy = 0;
    stm_lesson lesson = STM_LESSON_NONE;

    *who = culprit;
    if (culprit != NULL) return learn_of(r, culprit, status, cause);
    for (int32_t i = 0; i < n; i++) {
        const stm_record *rec = &r->records[i];

        if (atomic_load(&rec->doing) == STM_DOING_NOTHING) continue;
        busy++;
        if (*who == NULL) *who = rec;
        if (atomic_load(&rec->alone) != 0) alone = rec;
    }
    if (alone != NULL) *who = alone;
    if (alone != NULL && busy == 1)
        return convict(r, alone, status, cause); /* a commit may sync a sink meanwhile: then it was not alone */
    if (busy == 0) return suspect_held(r, NULL, status, cause); /* in no call: a thread of a step that holds rows */
    for (int32_t i = 0; i < n && lesson != STM_LESSON_END; i++) {
        const stm_record *rec = &r->records[i];
        const int32_t doing = atomic_load(&rec->doing);

        if (doing == STM_DOING_NOTHING || doing == STM_DOING_LOAD) continue;
        lesson = suspect_record(r, rec, status, cause);
    }
    return lesson;
}

void stm_suspects_prune(stm_recorder *r, bool blamed_only)
{
    int32_t n = 0;

    for (int32_t i = 0; i < r->n_suspects; i++) {
        const int32_t v = atomic_load(&r->suspects[i].verdict);

        if (v == STM_CLEARED || (blamed_only && v != STM_BLAMED)) continue;
        if (n != i) memcpy(&r->suspects[n], &r->suspects[i], sizeof r->suspects[i]);
        n++;
    }
    r->n_suspects = n;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static void put(stm_text *t, const stm_suspect *s)
{
    stm_text_addf(t, "%d %d %d %s", (int)atomic_load(&s->verdict), (int)s->doing, (int)s->status, s->step);
    for (int32_t i = 0; i < STM_RECORD_KEY; i++) stm_text_addf(t, " %" PRId64, s->keys.low[i]);
    for (int32_t i = 0; i < STM_RECORD_KEY; i++) stm_text_addf(t, " %" PRId64, s->keys.high[i]);
    stm_text_addf(t, " %s\n", s->cause);
}

static bool write_all(int fd, const char *data, size_t n)
{
    while (n > 0) {
        const ssize_t k = stm_fault_fires(STM_FAULT_WRITE) ? (errno = ENOSPC, -1) : write(fd, data, n);

        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return false;
        data += k;
        n -= (size_t)k;
    }
    return true;
}

mill_status stm_suspects_save(const stm_recorder *r, const char *dir, mill_error *err)
{
    static const char tmp[] = "." STM_RUN_SUSPECTS ".tmp";
    const int at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    stm_text t = {0};
    mill_status st = MILL_OK;
    int fd = -1;
    bool ok = at >= 0;

    if (ok && r->n_suspects == 0) {
        ok = unlinkat(at, STM_RUN_SUSPECTS, 0) == 0 || errno == ENOENT;
    } else if (ok) {
        stm_text_addf(&t, HEAD);
        for (int32_t i = 0; i < r->n_suspects; i++) put(&t, &r->suspects[i]);
        stm_text_addf(&t, "end %d\n", (int)r->n_suspects);
        if (t.failed) errno = ENOMEM;
        ok = !t.failed && (fd = openat(at, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) >= 0 &&
             write_all(fd, t.data, t.bytes) && fsync(fd) == 0 && renameat(at, tmp, at, STM_RUN_SUSPECTS) == 0 && fsync(at) == 0;
    }
    if (!ok) st = mill_fail(err, MILL_ERR_IO, "cannot write %s/" STM_RUN_SUSPECTS ": %s", dir, strerror(errno));
    if (fd >= 0) close(fd);
    if (at >= 0) close(at);
    stm_text_free(&t);
    return st;
}

/* One number from *p on. */
static bool number(char **p, int64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoll(*p, &end, 10);
    if (end == *p || errno != 0) return false;
    *p = end;
    return true;
}

static bool take(char *line, stm_suspect *s)
{
    int64_t verdict, doing, status;
    size_t n;
    bool ok = number(&line, &verdict) && number(&line, &doing) && number(&line, &status) && *line == ' ';

    memset(s, 0, sizeof *s);
    if (!ok || verdict < STM_SUSPECTED || verdict > STM_BARRED || doing <= STM_DOING_NOTHING || doing >= STM_DOINGS ||
        status >= 0 || status < -1000)
        return false;
    atomic_store(&s->verdict, (int32_t)verdict);
    s->doing = (int32_t)doing;
    s->status = (int32_t)status;
    n = strcspn(++line, " ");
    if (n == 0 || n >= sizeof s->step) return false;
    memcpy(s->step, line, n);
    line += n;
    for (int32_t i = 0; i < STM_RECORD_KEY && ok; i++) ok = number(&line, &s->keys.low[i]);
    for (int32_t i = 0; i < STM_RECORD_KEY && ok; i++) ok = number(&line, &s->keys.high[i]);
    if (!ok || *line != ' ' || stm_key_compare(s->keys.low, s->keys.high) > 0) return false;
    snprintf(s->cause, sizeof s->cause, "%s", line + 1);
    return true;
}

static bool parse(stm_recorder *r, char *text)
{
    char *line, *next = text;
    int64_t n;

    if (strncmp(text, HEAD, strlen(HEAD)) != 0) return false;
    for (next += strlen(HEAD); (line = next) != NULL && *line != '\0';) {
        next = strchr(line, '\n');
        if (next == NULL) return false;
        *next++ = '\0';
        if (strncmp(line, "end ", 4) == 0) return line += 4, number(&line, &n) && n == r->n_suspects && *next == '\0';
        if (r->n_suspects >= STM_SUSPECTS || !take(line, &r->suspects[r->n_suspects])) return false;
        r->n_suspects++;
    }
    return false;
}

mill_status stm_suspects_load(stm_recorder *r, const char *dir, mill_error *err)
{
    stm_text path = {0};
    struct stat s = {0};
    char *text = NULL;
    size_t n = 0;
    ssize_t k = 0;
    int fd = -1;
    mill_status st = MILL_OK;

    r->n_suspects = 0;
    stm_text_addf(&path, "%s/" STM_RUN_SUSPECTS, dir);
    if (path.failed) {
        st = mill_fail(err, MILL_ERR_NOMEM, "reading suspects");
    } else if ((fd = open(path.data, O_RDONLY | O_CLOEXEC)) < 0 || fstat(fd, &s) != 0) {
        if (errno != ENOENT) st = mill_fail(err, MILL_ERR_IO, "cannot read %s: %s", path.data, strerror(errno));
    } else if (s.st_size > MOST_BYTES) {
        st = mill_fail(err, MILL_ERR_DATA, "%s is damaged", path.data);
    } else if ((text = stm_malloc((size_t)s.st_size + 1)) == NULL) {
        st = mill_fail(err, MILL_ERR_NOMEM, "reading suspects");
    } else {
        while (n < (size_t)s.st_size && (k = read(fd, text + n, (size_t)s.st_size - n)) > 0) n += (size_t)k;
        text[n] = '\0';
        if (k < 0)
            st = mill_fail(err, MILL_ERR_IO, "cannot read %s: %s", path.data, strerror(errno));
        else if (memchr(text, '\0', n) != NULL || !parse(r, text))
            st = mill_fail(err, MILL_ERR_DATA, "%s is damaged", path.data);
    }
    if (st != MILL_OK) r->n_suspects = 0;
    if (fd >= 0) close(fd);
    stm_free(text);
    stm_text_free(&path);
    return st;
}
