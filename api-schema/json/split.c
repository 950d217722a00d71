/* SPDX-License-Identifier: Apache-2.0 */
/* Where JSON values end in a stream. Pure functions. */
#include "api-schema/json/split.h"

#include <string.h>

static bool is_space(char ch)
{
    return ch == ' ' || ch == '\t' || ch == '\n' || ch == '\r';
}

/* One byte of a string. True when the value is over: the string was all of it, or it broke. */
static bool in_string(struct api_split *s, char ch)
{
    if ((unsigned char)ch < 0x20) {
        return true;
    }
    if (s->escaped) {
        s->escaped = false;
    } else if (ch == '\\') {
        s->escaped = true;
    } else if (ch == '"') {
        s->in_string = false;
        return s->depth == 0;
    }
    return false;
}

/* One byte outside strings; the value has begun. */
static bool in_value(struct api_split *s, char ch)
{
    switch (ch) {
    case '"':
        s->in_string = true;
        return false;
    case '{':
    case '[':
        s->depth++;
        return false;
    case '}':
    case ']':
        return --s->depth == 0;
    default:
        return false;
    }
}

size_t api_split_feed(struct api_split *s, const char *p, size_t n, bool *done)
{
    *done = false;
    for (size_t i = 0; i < n; i++) {
        char ch = p[i];
        bool end = false;

        if (s->loose) {
            if (is_space(ch) || ch == '{' || ch == '[') {
                memset(s, 0, sizeof(*s));
                *done = true;
                return i; /* this byte is not part of it */
            }
            continue;
        }
        if (!s->started) {
            if (is_space(ch)) {
                continue;
            }
            s->started = true;
            if (ch == '}' || ch == ']' || ch == ',' || ch == ':') {
                s->started = false;
                *done = true; /* nothing can follow that would make it right */
                return i + 1;
            }
            s->loose = ch != '{' && ch != '[' && ch != '"';
            if (s->loose) {
                continue;
            }
        }
        end = s->in_string ? in_string(s, ch) : in_value(s, ch);
        if (end) {
            memset(s, 0, sizeof(*s));
            *done = true;
            return i + 1;
        }
    }
    return n;
}
