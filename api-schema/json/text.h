/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON as text, without a tree. Lists of a thousand VMs are written once, straight into the buffer they are sent
 * from; a tree of them would cost several allocations for each member. The text is the same that json.h's
 * api_json_text() gives of the tree. Pure functions, any thread.
 */
#ifndef VMD_API_TEXT_H
#define VMD_API_TEXT_H

#include "engine/base/buf.h"

#include <stdint.h>

struct json_object;

/* A string with its quotes; `s` is UTF-8. */
void api_write_str(struct buf *to, const char *s);
void api_write_int(struct buf *to, int64_t v);
/* `"key":`, with a comma before it unless it is the first behind '{'. The key needs no escapes. */
void api_write_key(struct buf *to, const char *key);

/* A value of which only the text is known: it can be printed, held within other values and released, not looked
 * into. Takes the text, which is well-formed JSON. */
struct json_object *api_json_raw(struct buf *take_text);
/* Text of a raw value (valid as long as that), NULL for any other. */
const char *api_json_raw_text(const struct json_object *o);
/* A reference to the same value that can be looked into: `o` itself, or its text parsed. */
struct json_object *api_json_tree(struct json_object *o);

#endif
