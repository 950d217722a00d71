/* SPDX-License-Identifier: Apache-2.0 */
/* Regular expressions of literals, . * + ? and alternation by backtracking. */
#include "project.h"

static bool match_here(const char *pattern, const char *end, const char *text,
                       const char **stop);

static const char *element_end(const char *p, const char *end)
{
    if (*p != '(') {
        return p + 1;
    }
    int depth = 0;
    for (; p < end; p++) {
        depth += *p == '(';
        depth -= *p == ')';
        if (depth == 0) {
            return p + 1;
        }
    }
    return end;
}

static bool one(const char *p, const char *e, const char *text, const char **stop)
{
    if (*p == '(') {
        return match_here(p + 1, e - 1, text, stop);
    }
    if (*text && (*p == '.' || *p == *text)) {
        *stop = text + 1;
        return true;
    }
    return false;
}

static bool repeat(const char *p, const char *e, const char *rest, const char *end,
                   const char *text, unsigned least, unsigned most, const char **stop)
{
    const char *after;
    if (most && one(p, e, text, &after) && after > text &&
        repeat(p, e, rest, end, after, least ? least - 1 : 0, most - 1, stop)) {
        return true;
    }
    return least == 0 && match_here(rest, end, text, stop);
}

static bool match_sequence(const char *p, const char *end, const char *text, const char **stop)
{
    if (p == end) {
        *stop = text;
        return true;
    }
    const char *e = element_end(p, end);
    char mark = e < end ? *e : 0;
    if (mark == '*' || mark == '+' || mark == '?') {
        return repeat(p, e, e + 1, end, text, mark == '+', mark == '?' ? 1 : 1000, stop);
    }
    const char *after;
    return one(p, e, text, &after) && match_sequence(e, end, after, stop);
}

static bool match_here(const char *p, const char *end, const char *text, const char **stop)
{
    const char *from = p;
    for (const char *q = p; q <= end; q = q < end ? element_end(q, end) : q + 1) {
        if (q == end || *q == '|') {
            if (match_sequence(from, q, text, stop)) {
                return true;
            }
            from = q + 1;
        }
    }
    return false;
}

void report_regex(void)
{
    static const char *const patterns[] = { "ab*c", "(foo|bar)+", "x.?y", "a(b|cd)*e",
                                            "gues(t|s)" };
    static const char *const texts[] = { "ac",     "abbbc", "foobarfoo", "xy",     "xzy",
                                         "abcdbe", "guess", "guest",     "foofob", "aecd" };
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
        printf("%s:", patterns[i]);
        for (size_t k = 0; k < sizeof(texts) / sizeof(texts[0]); k++) {
            const char *stop;
            bool yes = match_here(patterns[i], patterns[i] + strlen(patterns[i]), texts[k],
                                  &stop);
            printf(" %d", yes ? (int)(stop - texts[k]) : -1);
        }
        putchar('\n');
    }
}
