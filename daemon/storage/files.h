/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done to the files of a pool. Names have no slash and no dot in front; what is not whole yet, or not any more,
 * has a name with a dot, which no volume's has. Files are opened below the pool's folder and never through a link.
 * No state of its own; each call blocks as long as the disk does. Threads of works.
 */
#ifndef VMD_DAEMON_STORAGE_FILES_H
#define VMD_DAEMON_STORAGE_FILES_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct works;

/* A folder that is in use. */
struct folder {
    struct works *works;
    const char *path;
    int fd;            /* of the folder, with its lock */
    const char *token; /* of this daemon, in the names of unfinished files */
};
/* A file as it was found. */
struct measure {
    int64_t capacity, allocation, ino;
    char format[8];                 /* raw, qcow2 */
    char *backing, *backing_format; /* NULL: none; owned */
};
void measure_done(struct measure *m);

struct found {
    char name[64];
    struct measure m;
    bool known;  /* name was among those given */
    bool undone; /* it was never acknowledged, and is removed */
};
struct known {
    const char *name, *format;
    int64_t making; /* the file of that number was never acknowledged; 0: it was */
};

/* Opens and locks a folder. build: made first when missing; mode, owner, group: -1 when not said. Descriptor or error. */
int folder_open(const char *path, bool build, int64_t mode, int64_t owner, int64_t group,
                struct err *e);
/* Undoes what a former daemon left, then lists. `known` is sorted by name. measure: also those known. */
int folder_scan(const struct folder *f, const struct known *known, size_t n, bool measure,
                struct found **out, size_t *n_out, struct err *e);
void folder_room(const struct folder *f, int64_t *capacity, int64_t *available);

/* NAME of an unfinished file for a volume; the caller's. */
char *file_temp(const struct folder *f, const char *volume, const char *what);
/* Size, format as told, backing file. `format` NULL: found out (a file that somebody put there). */
int file_measure(const struct folder *f, const char *name, const char *format,
                 struct measure *m, struct err *e);
int file_sync(const struct folder *f, const char *name, struct err *e);
/* Gives a name; exchange: the file that has it gets the other one. */
int file_name(const struct folder *f, const char *from, const char *to, bool exchange,
              struct err *e);
int file_remove(const struct folder *f, const char *name, struct err *e);
/* -EBUSY when anybody has the file open under a lock, as emulators have. */
int file_free(const struct folder *f, const char *name, struct err *e);
int file_wipe(const struct folder *f, const char *name, bool random, struct err *e);
int file_attributes(const struct folder *f, const char *name, int64_t mode, int64_t owner,
                    int64_t group, struct err *e);
int file_reserve(const struct folder *f, const char *name, int64_t bytes, struct err *e);
/* *n bytes at `at` into data (*n: how many there were); *size: of the file. */
int file_read(const struct folder *f, const char *name, int64_t at, void *data, size_t *n,
              int64_t *size, struct err *e);
/* The next bytes of an unfinished file: at 0 it is begun anew. -ESPIPE: they do not belong there. */
int file_append(const struct folder *f, const char *name, int64_t at, const void *data,
                size_t n, struct err *e);
/* Makes it at least so long. */
int file_extend(const struct folder *f, const char *name, int64_t size, struct err *e);

#endif
