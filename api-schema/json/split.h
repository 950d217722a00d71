/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds where JSON values end in a stream of bytes that has no other framing: several values in
 * one line, one value over several lines. It only counts brackets and strings; whether what it cut out
 * is JSON is api_json_parse()'s to say. Each byte is looked at once, whatever the pieces it comes in.
 *
 * What begins with none of { [ " is cut at the next white space, { or [: one mistake, one piece; each of } ] , : is
 * a piece of its own. A
 * control character within a string ends the piece as well, so that a string that was not closed does
 * not swallow what follows.
 * Pure functions; the struct is the caller's.
 */
#ifndef VMD_API_SPLIT_H
#define VMD_API_SPLIT_H

#include <stdbool.h>
#include <stddef.h>

/* All zero: between values. */
struct api_split {
    size_t depth;   /* brackets open */
    bool started;   /* within a value */
    bool in_string; /* within a string of it */
    bool escaped;   /* after a backslash */
    bool loose;     /* within a piece that is neither object, array nor string */
};

/* Looks at p[0..n). Returns how many bytes belong to the value, its last included, and sets *done
 * when it ends there; otherwise n. After *done the state is that between values again. */
size_t api_split_feed(struct api_split *s, const char *p, size_t n, bool *done);

#endif
