/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tar files: what whole VMs are exported to and imported from (POSIX.1-2017 pax, "ustar Interchange Format"; GNU's numbers in base
 * 256). What stands in one never becomes a path: members are looked up by name and read in place. One thread.
 */
#ifndef VMD_CLI_IMAGE_TAR_H
#define VMD_CLI_IMAGE_TAR_H

#include "engine/base/buf.h"
#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TAR_MEMBERS = 1024, TAR_HEX = 2 * 64 + 1 };

struct tar_member {
    char *name;
    uint64_t at, size; /* of its bytes in the file */
};

struct tar {
    char *path;
    int fd;
    struct tar_member *member; /* regular files, in order */
    size_t n;
    uint64_t end; /* behind the last whole member */
};

/* Reads the headers. `partial`: one that ends anywhere is fine, and what is whole counts. `write`: it is appended to. */
int tar_open(struct tar *t, const char *path, bool partial, bool write, struct err *e);
/* One that is open already (borrowed); the path is for messages. One that is written to may end anywhere. */
int tar_open_fd(struct tar *t, int fd, const char *path, bool write, struct err *e);
void tar_done(struct tar *t);
/* NULL when there is none, or more than one. */
const struct tar_member *tar_find(const struct tar *t, const char *name);
/* The first whose name ends so. */
const struct tar_member *tar_find_end(const struct tar *t, const char *end);
/* A member's bytes, with a 0 behind them; -EMSGSIZE beyond `max`. */
int tar_slurp(const struct tar *t, const struct tar_member *m, size_t max, struct buf *b,
              struct err *e);

/* Told while much is read or written; may be NULL. */
typedef void tar_progress(void *arg, uint64_t done, uint64_t total);
/* The digest ("SHA256") of a member in hexadecimal. */
int tar_digest(const struct tar *t, const struct tar_member *m, const char *kind,
               char hex[TAR_HEX], struct err *e);
/* Copies a member to a file, and what it copied is digested. */
int tar_extract(const struct tar *t, const struct tar_member *m, int to, const char *path,
                char hex[TAR_HEX], struct err *e);

/* Appends; the header is written last, so that what is not whole is no member. */
int tar_add(struct tar *t, const char *name, const void *p, size_t size, struct err *e);
/* All of a file from its beginning on; its SHA-256. */
int tar_add_file(struct tar *t, const char *name, int from, const char *path, char hex[TAR_HEX],
                 struct err *e);
/* The end of the archive, all of it on the disk. */
int tar_end(struct tar *t, struct err *e);

#endif
