/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: JSON from anybody. What is accepted keeps to the bounds and comes back the same from printing and parsing
 * once more; values that follow one another are cut at the same places whatever the pieces they come in, and where the
 * whole text is one value, at its end.
 */
#include "api-schema/json/json.h"
#include "api-schema/json/split.h"
#include "engine/base/mem.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

const char fuzz_name[] = "fuzz_json";
static uint64_t n_texts, n_json, n_values;

void fuzz_setup(void)
{
}

void fuzz_finish(void)
{
    printf("# %llu of %llu texts were JSON, %llu values were cut out of them\n",
           (unsigned long long)n_json, (unsigned long long)n_texts,
           (unsigned long long)n_values);
}

static unsigned depth_of(struct json_object *o)
{
    unsigned most = 0;

    if (json_object_is_type(o, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(o); i++) {
            unsigned d = depth_of(json_object_array_get_idx(o, i));
            most = d > most ? d : most;
        }
        return most + 1;
    }
    if (json_object_is_type(o, json_type_object)) {
        json_object_object_foreach (o, key, value) {
            unsigned d = depth_of(value);
            (void)key;
            most = d > most ? d : most;
        }
        return most + 1;
    }
    return 0;
}

static void check_value(struct json_object *o)
{
    AUTO_JSON again = NULL;
    struct err e = ERR_INIT;
    const char *text = api_json_text(o);

    if (depth_of(o) > API_JSON_MAX_DEPTH) {
        FUZZ_FAIL("nested too deep: %s", text);
    }
    if (strchr(text, '\n')) {
        FUZZ_FAIL("printed on two lines: %s", text);
    }
    if (api_json_parse(text, strlen(text), &again, &e) != 0) {
        FUZZ_FAIL("what it printed is refused, %s: %s", e.msg, text);
    }
    if (!json_object_equal(o, again)) {
        FUZZ_FAIL("another value came back: %s", text);
    }
}

/* Ends of values, fed in pieces of at most `piece` bytes. */
static size_t cut(const uint8_t *data, size_t size, size_t piece, size_t *ends)
{
    struct api_split s = { 0 };
    size_t at = 0, n = 0;

    while (at < size) {
        size_t room = size - at < piece ? size - at : piece;
        bool done = false;
        size_t used = api_split_feed(&s, (const char *)data + at, room, &done);
        if (used > room || (used == 0 && !done) || (used < room && !done)) {
            FUZZ_FAIL("%zu of %zu bytes used at %zu, %s", used, room, at, done ? "done" : "not done");
        }
        at += used;
        if (done) {
            ends[n++] = at;
        }
    }
    return n;
}

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

void fuzz_one(const uint8_t *data, size_t size)
{
    static size_t ends[FUZZ_INPUT_MAX + 1], other[FUZZ_INPUT_MAX + 1];
    static const size_t pieces[] = { 1, 2, 3, 7, 64 };
    AUTO_JSON o = NULL;
    struct err e = ERR_INIT;
    size_t n = cut(data, size, size + 1, ends);
    size_t last = size, first = 0;
    bool good = api_json_parse((const char *)data, size, &o, &e) == 0;

    n_texts++;
    n_values += n;
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        if (cut(data, size, pieces[i], other) != n || memcmp(ends, other, n * sizeof(*ends)) != 0) {
            FUZZ_FAIL("cut elsewhere in pieces of %zu", pieces[i]);
        }
    }
    for (size_t i = 0; i < size; i++) {
        size_t len = api_utf8_len((const char *)data + i, size - i);
        if (len > 4 || len > size - i) {
            FUZZ_FAIL("a letter of %zu bytes at %zu", len, i);
        }
    }
    if (!good) {
        if (!e.msg[0]) {
            FUZZ_FAIL("refused without a word");
        }
        return;
    }
    n_json++;
    check_value(o);
    while (last > 0 && is_space(data[last - 1])) {
        last--;
    }
    while (is_space(data[first])) {
        first++;
    }
    if ((data[first] == '{' || data[first] == '[' || data[first] == '"') && (n != 1 || ends[0] != last)) {
        FUZZ_FAIL("one value that ends at %zu is cut into %zu, the first at %zu", last, n, n ? ends[0] : 0);
    }
}
