/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: libvirt XML. The input is a text, or, behind a first byte of 0 to 4, words of one kind's table put together. What
 * is accepted must come back the same from writing and reading once more, and so must the text.
 */
#include "api-schema/json/json.h"
#include "daemon/xml/tree.h"
#include "daemon/xml/xml.h"
#include "engine/base/mem.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

const char fuzz_name[] = "fuzz_xml";
static uint64_t n_trees, n_accepted, n_refused;

void fuzz_setup(void)
{
}

void fuzz_finish(void)
{
    printf("# %llu texts were XML; %llu were accepted, %llu refused\n",
           (unsigned long long)n_trees, (unsigned long long)n_accepted,
           (unsigned long long)n_refused);
}

static void try_text(const char *text, size_t len)
{
    struct xml_result a, b;

    xml_parse(NULL, text, len, &a);
    n_trees += a.kind != NULL;
    if (!a.definition) {
        n_refused++;
        if (!a.n_problems) {
            FUZZ_FAIL("refused without a word: %.*s", (int)len, text);
        }
        for (size_t i = 0; i < a.n_problems; i++) {
            struct api_error x = API_ERROR_INIT;
            xml_result_error(&a, &x);
            if (!a.problems[i].line || !a.problems[i].text[0] || !x.message[0]) {
                FUZZ_FAIL("a refusal without a place: %s", a.problems[i].text);
            }
        }
        xml_result_done(&a);
        return;
    }
    n_accepted++;
    AUTO_FREE char *first = xml_print(a.kind, a.definition);
    xml_parse(a.kind, first, strlen(first), &b);
    if (!b.definition) {
        FUZZ_FAIL("its own text is refused, %s:\n%s", b.problems[0].text, first);
    }
    if (!json_object_equal(a.definition, b.definition)) {
        FUZZ_FAIL("another definition came back:\n%s\n%s\n%s", api_json_text(a.definition),
                  api_json_text(b.definition), first);
    }
    AUTO_FREE char *second = xml_print(b.kind, b.definition);
    if (strcmp(first, second) != 0) {
        FUZZ_FAIL("another text came back:\n%s\n%s", first, second);
    }
    xml_result_done(&a);
    xml_result_done(&b);
}

/* ---- documents made of a table's own words ---- */

static const char *const values[] = {
    "",         "a",      "vda",    "qemu", "virtio", "riscv64",   "/a/b",   "0",   "1",
    "524288",   "yes",    "no",     "on",   "file",   "raw",       "KiB",    "MiB", "none",
    "internal", "custom", "utc",    "pty",  "hvm",    "random",    " x\ty ", "max", "10.0.0.1",
    "destroy",  "nat",    "&<>'\"", "disk", "dir",    "\xc3\xa9!", "serial"
};

static const char *value_for(struct fuzz_in *in, const struct xml_row *row, char *out,
                             size_t size)
{
    const char *word = values[fuzz_below(in, ARRAY_LEN(values))];

    if (row->words && !fuzz_rarely(in, 8)) { /* one that fits */
        size_t n = strcspn(row->words, " =");
        snprintf(out, size, "%.*s", (int)n, row->words);
        return out;
    }
    return word;
}

static void grow(struct fuzz_in *in, const struct xml_kind *kind, struct xml_node *n,
                 const char *path, unsigned depth)
{
    char word[128];

    for (size_t i = 0; i < kind->n_rows; i++) {
        const struct xml_row *row = &kind->rows[i];
        size_t len = strlen(path);
        if (strncmp(row->path, path, len) != 0) {
            continue;
        }
        const char *name = row->path + len;
        bool attr = *name == '@', child = len ? *name == '/' : *name != '@';
        if (!attr && !child) {
            continue;
        }
        name += attr || len;
        if (strpbrk(name, "/@|")) {
            continue;
        }
        bool no = row->kind == XML_NO;
        if (fuzz_below(in, 256) >= (row->flags & XML_NEEDED ? 250u
                                    : no                    ? 1u
                                    : depth                 ? 100u
                                                            : 150u)) {
            continue;
        }
        for (unsigned k = row->kind == XML_LIST ? fuzz_below(in, 4) : 1; k > 0; k--) {
            if (attr) {
                xml_set_attr(n, name, value_for(in, row, word, sizeof(word)));
                break;
            }
            struct xml_node *inner = xml_node_new(n, name);
            if (row->kind == XML_VALUE || row->kind == XML_SAYS || row->kind == XML_SAME) {
                xml_add_text(inner, value_for(in, row, word, sizeof(word)));
            }
            grow(in, kind, inner, row->path, depth + 1);
        }
    }
}

static void try_table(const struct xml_kind *kind, const uint8_t *data, size_t size)
{
    struct fuzz_in in;
    struct xml_node *root = xml_node_new(NULL, kind->root);
    AUTO_BUF b = BUF_INIT;

    fuzz_in_init(&in, data, size);
    grow(&in, kind, root, "", 0);
    xml_write(&b, root, 0);
    xml_node_free(root);
    try_text(b.data, b.len);
}

void fuzz_one(const uint8_t *data, size_t size)
{
    if (size && data[0] < xml_n_kinds) {
        try_table(xml_kinds[data[0]], data + 1, size - 1);
    } else {
        try_text((const char *)data, size);
    }
}
