/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints docs/reference/xml.md from the tables. Pure functions, any thread.
 */
#include "daemon/xml/bind.h"

#include "engine/base/mem.h"

#include <string.h>

/* "a/b|c|d" as `a/b`, `a/c`, `a/d`. */
static void print_paths(FILE *f, const char *path)
{
    const char *last = path;

    for (const char *p = path; *p; p++) {
        last = *p == '/' || *p == '@' ? p + 1 : last;
    }
    for (const char *name = last; *name;) {
        size_t n = strcspn(name, "|");
        fprintf(f, "%s`%.*s%.*s`", name == last ? "" : ", ", (int)(last - path), path, (int)n,
                name);
        name += n;
        name += *name == '|';
    }
}

/* The words of theirs in a map. */
static void print_map(FILE *f, const char *map)
{
    const char *word, *comma = "";
    int len;

    while ((word = xml_map_word(&map, &len))) {
        fprintf(f, "%s`%.*s`", comma, len, word);
        comma = ", ";
    }
}

static void print_meaning(FILE *f, const struct xml_row *r)
{
    const char *doc = r->doc ? r->doc : "";
    const char *cut = "not supported: ";

    if (strncmp(doc, cut, strlen(cut)) == 0) {
        doc += strlen(cut);
    }
    switch (r->kind) {
    case XML_VALUE:
        fprintf(f, "`%s`", r->member);
        if (r->conv == &xml_as_word && r->words) {
            fprintf(f, ": ");
            print_map(f, r->words);
        } else {
            fprintf(f, ", %s", r->conv->doc);
        }
        break;
    case XML_LIST:
        fprintf(f, "each is one of `%s`", r->member);
        break;
    case XML_FLAG:
        fprintf(f, "`%s`: true when it stands there", r->member);
        break;
    case XML_SAME:
        fprintf(f, "must equal `%s`", r->member);
        break;
    case XML_SAYS:
        if (*r->words) {
            fprintf(f, "only ");
            print_map(f, r->words);
        } else {
            fprintf(f, "only empty");
        }
        break;
    case XML_ANY:
        fprintf(f, "`%s`, elements of any namespace", r->member);
        break;
    case XML_GROUP:
        fprintf(f, "holds what follows");
        break;
    default:
        break;
    }
    if (*doc) {
        fprintf(f, "%s%s",
                r->kind == XML_PART || r->kind == XML_LEFT_OUT || r->kind == XML_NO ? "" : "; ",
                doc);
    }
    fprintf(f, r->flags & XML_NEEDED ? " (needed)" : "");
}

static void print_table(FILE *f, const struct xml_kind *kind, const char *title,
                        const char *head, unsigned kinds)
{
    fprintf(f, "### %s\n\n| element or attribute | %s |\n|---|---|\n", title, head);
    for (size_t i = 0; i < kind->n_rows; i++) {
        const struct xml_row *r = &kind->rows[i];
        if (kinds & (1u << r->kind)) {
            fprintf(f, "| ");
            print_paths(f, r->path);
            fprintf(f, " | ");
            print_meaning(f, r);
            fprintf(f, " |\n");
        }
    }
    fprintf(f, "\n");
}

static void print_kind(FILE *f, const struct xml_kind *kind)
{
    const unsigned no = 1u << XML_NO, left = 1u << XML_LEFT_OUT;

    fprintf(f, "## %s: `<%s>`\n\nThe definition is a `%s` ([API reference](api.md)).\n\n",
            kind->name, kind->root, kind->type_doc);
    print_table(f, kind, "Supported", "member of the definition, and what it takes",
                ~(no | left));
    print_table(f, kind, "Accepted and left out", "why that is right", left);
    print_table(f, kind, "Not supported", "why", no);
}

void xml_print_reference(FILE *f)
{
    fprintf(f,
            "# Libvirt-compatible XML\n\n"
            "Generated from the tables in daemon/xml by `tests/lint/xml_page`; do not edit.\n\n"
            "`vmctl define domain.xml` takes libvirt domain XML, `vmctl show --xml` gives it "
            "back, `vmctl xml check` says what "
            "vmd makes of a file of any of the five kinds. What stands in no table here, or "
            "under *Not supported*, is refused by line and "
            "element; nothing is ignored. Canonical XML is valid by libvirt's own schema "
            "(`virt-xml-validate`), and reading "
            "it gives the definition it was written from.\n\n"
            "Three things make that so:\n\n"
            "- What an element asks is a member of the definition, or says what is so anyway "
            "(*only ...*): then it may stand there, and "
            "the canonical form has it only where libvirt itself would write it. `vmctl xml "
            "check` notes each one that is left out.\n"
            "- What the definition has and libvirt has no element for is kept below "
            "`<metadata>`, as "
            "`<vmd:set member='tcg.icount'>4</vmd:set>` within `<vmd:definition "
            "xmlns:vmd='%s'>`: the member, and its value as JSON.\n"
            "- Elements of other programs below `<metadata>` are kept.\n\n"
            "Bounds: %d KiB, %d levels, %d elements, %d attributes an element, UTF-8. A "
            "document type, an entity other than the five of XML, "
            "a processing instruction are refused; nothing is fetched. Comments go.\n\n"
            "Sizes take libvirt's units: `b`, `bytes`, `KB`, `k`, `KiB`, `MB`, `M`, `MiB` and "
            "so on to `EiB`.\n\n",
            XML_NS, XML_MAX_SIZE / 1024, XML_MAX_DEPTH, XML_MAX_NODES, XML_MAX_ATTRS);
    for (size_t i = 0; i < xml_n_kinds; i++) {
        print_kind(f, xml_kinds[i]);
    }
    fprintf(f, "## Other documents\n\n| root element | why it is refused |\n|---|---|\n");
    for (size_t i = 0; i < xml_n_others; i++) {
        fprintf(f, "| `%s` | %s |\n", xml_others[i].root, xml_others[i].doc);
    }
}
