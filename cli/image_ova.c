/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads OVF by libxml2's stream of nodes: no document type, no entities, no network, bounded in size, depth and number. Prefixes
 * of names are not looked at: products differ in theirs. Owns nothing between calls.
 */
#include "cli/image_ova.h"

#include "engine/base/buf.h"
#include "engine/base/mem.h"

#include <ctype.h>
#include <errno.h>
#include <libxml/xmlreader.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { MAX_NODES = 200000, MAX_DEPTH = 64, MAX_ITEMS = 256, MAX_TEXT = 1024, MAX_CPUS = 4096 };
/* CIM_ResourceAllocationSettingData.ResourceType */
enum {
    R_CPU = 3,
    R_MEMORY = 4,
    R_IDE = 5,
    R_SCSI = 6,
    R_NIC = 10,
    R_FLOPPY = 14,
    R_CDROM = 15,
    R_DVD = 16,
    R_DISK = 17,
    R_SATA = 20,
    R_USB = 23,
    R_GRAPHICS = 24,
    R_SOUND = 35,
};

struct file {
    char *id, *href;
    bool packed, chunked;
};
struct image {
    char *id, *file;
    uint64_t capacity;
};
struct item {
    int type;
    char *id, *parent, *host, *units;
    uint64_t quantity;
};

struct reader {
    xmlTextReaderPtr x;
    struct ovf *o;
    struct err *e;
    struct file file[OVF_DISKS * 2];
    struct image image[OVF_DISKS * 2];
    struct item *item; /* MAX_ITEMS */
    size_t n_files, n_images, n_items;
    unsigned systems;
    bool in_item;
    char text[MAX_TEXT]; /* of the element that is open */
    size_t n_text;
    bool failed;
};

static int fail(struct reader *r, const char *what, const char *which)
{
    if (!r->failed) {
        r->failed = true;
        err_set(r->e, -EINVAL, "line %d: %s%s%s", xmlTextReaderGetParserLineNumber(r->x), what,
                which ? " " : "", which ? which : "");
    }
    return -EINVAL;
}

static void on_error(void *arg, const char *text, xmlParserSeverities level,
                     xmlTextReaderLocatorPtr at)
{
    struct reader *r = arg;
    AUTO_FREE char *line = xasprintf("not well-formed: %.*s", (int)strcspn(text, "\r\n"), text);

    (void)at;
    if (level == XML_PARSER_SEVERITY_ERROR || level == XML_PARSER_SEVERITY_VALIDITY_ERROR) {
        (void)fail(r, line, NULL);
    }
}

/* An attribute by its local name; the caller's, NULL when there is none. */
static char *attr(struct reader *r, const char *name)
{
    char *found = NULL;

    for (int ok = xmlTextReaderMoveToFirstAttribute(r->x); ok == 1 && !found;
         ok = xmlTextReaderMoveToNextAttribute(r->x)) {
        const char *local = (const char *)xmlTextReaderConstLocalName(r->x);
        const char *value = (const char *)xmlTextReaderConstValue(r->x);

        if (local && value && strcmp(local, name) == 0) {
            found = xstrdup(value);
        }
    }
    (void)xmlTextReaderMoveToElement(r->x);
    return found;
}

static int number(struct reader *r, const char *text, uint64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoull(text, &end, 10);
    return *text == '-' || end == text || errno || end[strspn(end, " \t\r\n")]
               ? fail(r, "no number:", text)
               : 0;
}

/* "byte * 2^20", and what older products wrote. */
static int shift_of(struct reader *r, const char *units, unsigned *shift)
{
    static const struct {
        const char *word;
        unsigned shift;
    } words[] = {
        { "byte", 0 }, { "bytes", 0 },      { "kilobytes", 10 }, { "megabytes", 20 },
        { "mb", 20 },  { "gigabytes", 30 }, { "gb", 30 },        { "terabytes", 40 }
    };
    const char *power = strstr(units, "2^");

    if (strncasecmp(units, "byte", 4) == 0 && power) {
        unsigned long n = strtoul(power + 2, NULL, 10);

        *shift = (unsigned)n;
        return n <= 50 ? 0 : fail(r, "unknown units:", units);
    }
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (strcasecmp(units, words[i].word) == 0) {
            *shift = words[i].shift;
            return 0;
        }
    }
    return fail(r, "unknown units:", units);
}

static int in_units(struct reader *r, uint64_t quantity, const char *units, unsigned otherwise,
                    uint64_t *out)
{
    unsigned shift = otherwise;
    int rc = units && *units ? shift_of(r, units, &shift) : 0;

    if (rc == 0 && quantity >> (62 - shift)) {
        rc = fail(r, "a size beyond all bounds", NULL);
    }
    *out = rc == 0 ? quantity << shift : 0;
    return rc;
}

/* --- elements --- */

static int on_file(struct reader *r)
{
    struct file *f = &r->file[r->n_files];
    AUTO_FREE char *packed = NULL, *chunk = NULL;

    if (r->n_files == ARRAY_LEN(r->file)) {
        return fail(r, "too many files", NULL);
    }
    r->n_files++;
    *f = (struct file){ .id = attr(r, "id"), .href = attr(r, "href") };
    packed = attr(r, "compression");
    chunk = attr(r, "chunkSize");
    f->packed = packed && *packed && strcmp(packed, "identity") != 0;
    f->chunked = chunk != NULL;
    return f->id && f->href ? 0 : fail(r, "<File> without id or href", NULL);
}

static int on_disk(struct reader *r)
{
    struct image *d = &r->image[r->n_images];
    AUTO_FREE char *capacity = NULL, *units = NULL;
    uint64_t n = 0;
    int rc = 0;

    if (r->n_images == ARRAY_LEN(r->image)) {
        return fail(r, "too many disks", NULL);
    }
    r->n_images++;
    *d = (struct image){ .id = attr(r, "diskId"), .file = attr(r, "fileRef") };
    capacity = attr(r, "capacity");
    units = attr(r, "capacityAllocationUnits");
    if (!d->id) {
        return fail(r, "<Disk> without diskId", NULL);
    }
    rc = capacity ? number(r, capacity, &n) : 0;
    return rc ? rc : in_units(r, n, units, 0, &d->capacity);
}

static void keep(char **to, const char *text)
{
    free(*to);
    *to = xstrdup(text);
}

/* The end of an element within an <Item>: r->text is what it says. */
static int on_item_member(struct reader *r, const char *name)
{
    struct item *i = &r->item[r->n_items - 1];
    uint64_t n;
    int rc = 0;

    if (strcmp(name, "ResourceType") == 0) {
        rc = number(r, r->text, &n);
        i->type = rc == 0 && n < 1000 ? (int)n : 0;
    } else if (strcmp(name, "VirtualQuantity") == 0) {
        rc = number(r, r->text, &i->quantity);
    } else if (strcmp(name, "AllocationUnits") == 0) {
        keep(&i->units, r->text);
    } else if (strcmp(name, "InstanceID") == 0 || strcmp(name, "InstanceId") == 0) {
        keep(&i->id, r->text);
    } else if (strcmp(name, "Parent") == 0) {
        keep(&i->parent, r->text);
    } else if (strcmp(name, "HostResource") == 0) {
        keep(&i->host, r->text);
    }
    return rc;
}

static bool is_item(const char *name)
{
    return strcmp(name, "Item") == 0 || strcmp(name, "StorageItem") == 0 ||
           strcmp(name, "EthernetPortItem") == 0;
}

static int on_start(struct reader *r, const char *name)
{
    r->n_text = 0;
    r->text[0] = 0;
    if (is_item(name)) {
        if (r->n_items == MAX_ITEMS) {
            return fail(r, "too many devices", NULL);
        }
        r->item[r->n_items++] = (struct item){ 0 };
        r->in_item = !xmlTextReaderIsEmptyElement(r->x);
        if (name[0] == 'E') {
            r->item[r->n_items - 1].type = R_NIC;
        }
        return 0;
    }
    if (strcmp(name, "File") == 0) {
        return on_file(r);
    }
    if (strcmp(name, "Disk") == 0) {
        return on_disk(r);
    }
    if (strcmp(name, "VirtualSystem") == 0) {
        if (++r->systems > 1) {
            return fail(r, "more than one virtual system; import them one by one", NULL);
        }
        r->o->name = attr(r, "id");
    }
    return strcmp(name, "VirtualSystemCollection") == 0
               ? fail(r, "a collection of virtual systems; import them one by one", NULL)
               : 0;
}

static int on_end(struct reader *r, const char *name)
{
    if (is_item(name)) {
        r->in_item = false;
        return 0;
    }
    return r->in_item ? on_item_member(r, name) : 0;
}

static int on_text(struct reader *r)
{
    const char *text = (const char *)xmlTextReaderConstValue(r->x);
    size_t n = text ? strlen(text) : 0;

    if (r->in_item && n > 0) { /* what is longer is no value that we look at */
        n = n < MAX_TEXT - 1 - r->n_text ? n : MAX_TEXT - 1 - r->n_text;
        memcpy(r->text + r->n_text, text, n);
        r->n_text += n;
        r->text[r->n_text] = 0;
    }
    return 0;
}

static int on_node(struct reader *r)
{
    const char *name = (const char *)xmlTextReaderConstLocalName(r->x);

    if (xmlTextReaderDepth(r->x) > MAX_DEPTH) {
        return fail(r, "more than 64 elements within one another", NULL);
    }
    switch (xmlTextReaderNodeType(r->x)) {
    case XML_READER_TYPE_DOCUMENT_TYPE:
        return fail(r, "a document type, which OVF has not", NULL);
    case XML_READER_TYPE_ELEMENT:
        return on_start(r, name);
    case XML_READER_TYPE_END_ELEMENT:
        return on_end(r, name);
    case XML_READER_TYPE_TEXT:
    case XML_READER_TYPE_CDATA:
        return on_text(r);
    default:
        return 0;
    }
}

/* --- what it means --- */

static const struct image *image_of(const struct reader *r, const char *host)
{
    const char *id = host ? strrchr(host, '/') : NULL; /* "ovf:/disk/ID", "/disk/ID" */

    for (size_t i = 0; id && i < r->n_images; i++) {
        if (strcmp(r->image[i].id, id + 1) == 0) {
            return &r->image[i];
        }
    }
    return NULL;
}

static enum ovf_bus bus_of(const struct reader *r, const char *parent)
{
    for (size_t i = 0; parent && i < r->n_items; i++) {
        if (r->item[i].id && strcmp(r->item[i].id, parent) == 0) {
            return r->item[i].type == R_IDE    ? OVF_BUS_IDE
                   : r->item[i].type == R_SCSI ? OVF_BUS_SCSI
                   : r->item[i].type == R_SATA ? OVF_BUS_SATA
                                               : OVF_BUS_OTHER;
        }
    }
    return OVF_BUS_OTHER;
}

static int add_disk(struct reader *r, const struct item *i)
{
    const struct image *m = image_of(r, i->host);
    struct ovf_disk *d = &r->o->disk[r->o->n_disks];

    if (!m) {
        return fail(r, "a disk that <DiskSection> does not describe:", i->host ? i->host : "?");
    }
    if (r->o->n_disks == OVF_DISKS) {
        return fail(r, "more than 32 disks", NULL);
    }
    *d = (struct ovf_disk){ .capacity = m->capacity, .bus = bus_of(r, i->parent) };
    r->o->n_disks++;
    for (size_t k = 0; m->file && k < r->n_files; k++) {
        const struct file *f = &r->file[k];

        if (strcmp(f->id, m->file) == 0) {
            if (f->packed || f->chunked) {
                return fail(
                    r, "a file that is packed or in pieces, which is not supported:", f->href);
            }
            d->file = xstrdup(f->href);
        }
    }
    return m->file && !d->file ? fail(r, "a disk of a file that <References> has not:", m->file)
                               : 0;
}

static const char *word_of(int type)
{
    switch (type) {
    case R_FLOPPY:
        return "floppy drive";
    case R_USB:
        return "USB controller";
    case R_GRAPHICS:
        return "screen";
    case R_SOUND:
        return "sound card";
    default:
        return NULL;
    }
}

static int add_item(struct reader *r, const struct item *i, struct buf *left)
{
    switch (i->type) {
    case R_CPU:
        if (i->quantity > MAX_CPUS - r->o->cpus) {
            return fail(r, "more than 4096 processors", NULL);
        }
        r->o->cpus += i->quantity;
        return 0;
    case R_MEMORY:
        return in_units(r, i->quantity, i->units, 20, &r->o->memory);
    case R_DISK:
        return add_disk(r, i);
    case R_NIC:
        r->o->n_nics += r->o->n_nics < OVF_NICS;
        return 0;
    case R_CDROM:
    case R_DVD:
        r->o->n_cdroms++;
        return 0;
    default:
        if (word_of(i->type)) {
            buf_printf(left, "%s%s", left->len ? ", " : "", word_of(i->type));
        }
        return 0;
    }
}

static void reader_done(struct reader *r)
{
    for (size_t i = 0; i < r->n_files; i++) {
        free(r->file[i].id);
        free(r->file[i].href);
    }
    for (size_t i = 0; i < r->n_images; i++) {
        free(r->image[i].id);
        free(r->image[i].file);
    }
    for (size_t i = 0; i < r->n_items; i++) {
        free(r->item[i].id);
        free(r->item[i].parent);
        free(r->item[i].host);
        free(r->item[i].units);
    }
    free(r->item);
    xmlFreeTextReader(r->x);
}

int ovf_read(const char *text, size_t len, struct ovf *o, struct err *e)
{
    struct reader r = { .o = o, .e = e };
    AUTO_BUF left = BUF_INIT;
    int rc = 0, more = 1;

    *o = (struct ovf){ 0 };
    if (len > OVF_MAX) {
        return err_set(e, -EMSGSIZE, "a descriptor of more than 4 MiB");
    }
    r.x = xmlReaderForMemory(text, (int)len, NULL, NULL, XML_PARSE_NONET);
    if (!r.x) {
        return err_set(e, -ENOMEM, "no memory for libxml2");
    }
    r.item = xnew_n(struct item, MAX_ITEMS);
    xmlTextReaderSetErrorHandler(r.x, on_error, &r);
    for (unsigned n = 0; rc == 0 && more == 1; n++) {
        more = xmlTextReaderRead(r.x);
        rc = more == 1 ? on_node(&r) : more < 0 ? fail(&r, "not well-formed", NULL) : 0;
        rc = rc == 0 && n > MAX_NODES ? fail(&r, "more than 200000 nodes", NULL) : rc;
    }
    if (rc == 0 && r.systems == 0) {
        rc = fail(&r, "no <VirtualSystem>", NULL);
    }
    for (size_t i = 0; i < r.n_items && rc == 0; i++) {
        rc = add_item(&r, &r.item[i], &left);
    }
    o->left_out = left.len ? buf_take(&left) : NULL;
    reader_done(&r);
    if (rc != 0) {
        ovf_done(o);
    }
    return rc;
}

void ovf_done(struct ovf *o)
{
    for (size_t i = 0; i < o->n_disks; i++) {
        free(o->disk[i].file);
    }
    free(o->name);
    free(o->left_out);
    *o = (struct ovf){ 0 };
}
