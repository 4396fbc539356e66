/*
 * The few things that the store does with files, behind one table: so that tests count them, let any of them fail, record
 * them, and cut the record anywhere. No mmap, no locks, no append mode: what is left works on NFS and Lustre.
 *
 * Names are names in the run directory, without a slash. Results below 0 are -errno.
 */
#ifndef STM_STORE_FILES_H
#define STM_STORE_FILES_H

#include <stddef.h>
#include <stdint.h>

#include "stepmill/error.h"

typedef enum stm_open_how {
    STM_OPEN_READ,
    STM_OPEN_NEW,  /* read and write; -EEXIST when the name is taken: of several processes exactly one gets it */
    STM_OPEN_WRITE /* read and write, made when not there */
} stm_open_how;

typedef struct stm_files {
    void *user; /* first argument of all */
    int (*open)(void *user, const char *name, stm_open_how how); /* a number for the calls below */
    void (*close)(void *user, int fd);
    int64_t (*pread)(void *user, int fd, void *to, size_t n, int64_t at);          /* bytes read; 0 = at or past the end */
    int64_t (*pwrite)(void *user, int fd, const void *from, size_t n, int64_t at); /* bytes written, maybe fewer than n */
    int (*sync)(void *user, int fd);                                               /* fdatasync: what was written stays */
    int64_t (*size)(void *user, int fd);
    int (*rename)(void *user, const char *from, const char *to);
    int (*remove)(void *user, const char *name);
    int (*exists)(void *user, const char *name); /* 1, 0 */
    int (*list)(void *user, void (*each)(const char *name, void *ctx), void *ctx);
    int (*sync_names)(void *user); /* fsync of the folder: names made, changed and removed so far stay so */
} stm_files;

/** The real ones, in folder @p dir, which must be there. Released by stm_files_close. */
mill_status stm_files_open(const char *dir, stm_files *out, mill_error *err);
/** Accepts what was never opened (all zero). */
void stm_files_close(stm_files *f);

/** All of it, or the first failure. Repeats short ones. */
mill_status stm_files_write_all(const stm_files *f, int fd, const void *from, size_t n, int64_t at, const char *name,
                                mill_error *err);
/** @p n bytes at @p at; MILL_ERR_DATA when the file ends before. */
mill_status stm_files_read_all(const stm_files *f, int fd, void *to, size_t n, int64_t at, const char *name, mill_error *err);
/** Put @p n bytes under @p name as a whole: written beside, synced, renamed; a reader sees the old or the new contents. */
mill_status stm_files_replace(const stm_files *f, const char *name, const void *from, size_t n, mill_error *err);

#endif
