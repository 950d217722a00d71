/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving files to an emulator that runs: vmd-spawn opens them, with the images below them, by the same policy as at a
 * start; the emulator keeps each until a method names its path. Loop thread.
 */
#ifndef VMD_DAEMON_GIVE_H
#define VMD_DAEMON_GIVE_H

#include "api-schema/json/error.h"

#include <stdbool.h>

struct json_object;
struct run;

/* One file of give_files(): a disk image of that format, or (format NULL) any file. `what` begins messages. */
struct json_object *give_file(const char *what, const char *path, const char *format,
                              bool write);
/* fn(arg, x) once, not before this returns: x NULL when the emulator has them all. On failure it keeps none. The run
 * must live until then, which run_on_end() tells; fn then gets an error. */
typedef void given_fn(void *arg, const struct api_error *x);
void give_files(struct run *run, struct json_object *take_list, given_fn *fn, void *arg);

#endif
