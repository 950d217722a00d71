/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to vmd-state, the confined process that reads state files: the daemon parses none (ADR 0030). Any thread of works.
 */
#ifndef VMD_DAEMON_STATE_TOOL_H
#define VMD_DAEMON_STATE_TOOL_H

#include "daemon/vm/save.h"

struct buf;
struct err;
struct json_object;
struct works;

/* Has `program` do what the request says, with files that are sealed with the key (borrowed, at most WORKS_FILES); out (may be NULL) gets its answer. The
 * request gets the key as a member; "reseal" writes the second file. Negative codes are those of works_state(). */
int state_tool(struct works *works, const char *program, struct json_object *request,
               const uint8_t key[STATE_KEY_BYTES], const int *files, unsigned n,
               struct buf *out, struct err *e);

#endif
