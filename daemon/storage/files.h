/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done to a pool: the interface of its kinds, and of kind dir the files. Names have no slash and no dot in front; what is not whole yet, or not any more,
 * has a name with a dot, which no volume's has. Files are opened below the pool's folder and never through a link.
 * No state of its own; each call blocks as long as the disk does. Threads of works.
 */
#ifndef VMD_DAEMON_STORAGE_FILES_H
#define VMD_DAEMON_STORAGE_FILES_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct folder;
struct found;
struct known;
struct work;
struct works;

/* What a definition says of the folder, to be made when missing. */
struct folder_make {
    bool build;
    int64_t mode, owner, group; /* -1: not said */
    const char *const *devices; /* of a volume group */
    size_t n_devices;
};

/* One kind of pool. All of it is called by threads of works; run_* get a struct vop. */
struct pool_kind {
    const char *readonly; /* why its volumes cannot be made or changed; NULL: they can */
    const char *remedy;   /* then: what to do instead */
    bool raw;             /* its volumes are raw, and stand on no other */
    bool tells_all;       /* each scan measures all */
    int (*open)(struct folder *f, const struct folder_make *m, struct err *e); /* sets fd */
    int (*shut)(struct folder *f, struct err *e); /* NULL: nothing to do */
    int (*scan)(const struct folder *f, const struct known *known, size_t n, bool measure,
                struct found **out, size_t *n_out, struct err *e);
    void (*room)(const struct folder *f, int64_t *capacity, int64_t *available);
    void (*run_make)(struct work *w);    /* the image under its unfinished name, measured */
    void (*run_place)(struct work *w);   /* its real name */
    void (*run_discard)(struct work *w); /* neither */
    void (*run_copy)(struct work *w);    /* as run_make, of another volume */
    void (*run_resize)(struct work *w);
    void (*run_wipe)(struct work *w);
    void (*run_hide)(struct work *w); /* out of the way, to be deleted */
    void (*run_unhide)(struct work *w);
    void (*run_forget)(struct work *w);
    void (*run_read)(struct work *w);
    void (*run_write)(struct work *w);
};
extern const struct pool_kind pool_kind_dir, pool_kind_lvm, pool_kind_nbd;

/* A pool that is in use: a folder, or what its kind has instead. */
struct folder {
    const struct pool_kind *kind;
    struct works *works;
    const char *path;  /* of the folder; the server's address */
    int fd;            /* of the folder, with its lock */
    const char *token; /* of this daemon, in the names of unfinished files */
};
/* A file as it was found. */
struct measure {
    int64_t capacity, allocation, ino;
    char format[8];                 /* raw, qcow2 */
    char *backing, *backing_format; /* NULL: none; owned */
    char *export;                   /* of an NBD server, when its name is another; owned */
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

/* Opens and locks a folder. */
int folder_open(struct folder *f, const struct folder_make *m, struct err *e);
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
/* The same of a descriptor, whose locks it takes. */
int file_lock_all(int fd, const struct folder *f, const char *name, struct err *e);
/* Random bytes first, when so asked, then zeroes. 0 or -1 and errno. */
int file_fill(int fd, int64_t size, bool random);
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
