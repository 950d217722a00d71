/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What differs from the devices that the VM was started with. A state and a migration's stream are loaded by a VM that is made anew from its
 * definition, in which what came has no place yet and what went is there again. Part of struct emu. Main thread.
 */
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/emu/emu.h"

#include <errno.h>
#include <string.h>

struct emu_change {
    struct list link; /* emu.changes */
    const char *kind; /* lives as long as the program */
    char name[64];
    bool came;
};

static struct emu_change *change_find(struct emu *m, const char *kind, const char *name)
{
    list_for_each (it, &m->changes) {
        struct emu_change *c = list_entry(it, struct emu_change, link);

        if (strcmp(c->kind, kind) == 0 && strncmp(c->name, name, sizeof(c->name) - 1) == 0) {
            return c;
        }
    }
    return NULL;
}

static void change_add(struct emu *m, const char *kind, const char *name, bool came)
{
    struct emu_change *c = xnew(struct emu_change);

    c->kind = kind;
    c->came = came;
    str_copy(c->name, sizeof(c->name), name);
    list_append(&m->changes, &c->link);
}

void hotplug_came(struct emu *m, const char *kind, const char *name)
{
    change_add(m, kind, name, true);
}

void hotplug_went(struct emu *m, const char *kind, const char *name)
{
    struct emu_change *c = change_find(m, kind, name);

    if (c && c->came) {
        list_remove(&c->link);
        free(c);
    } else if (!c) {
        change_add(m, kind, name, false);
    }
}

int hotplug_none(struct emu *m, struct err *e)
{
    const struct emu_change *c;

    if (!m->changes.next || list_empty(&m->changes)) {
        return 0;
    }
    c = list_entry(m->changes.next, struct emu_change, link);
    return err_set(
        e, -EBUSY,
        "%s '%s' was %s while the VM ran: a VM that is made anew from its definition "
        "could not go on with this state",
        c->kind, c->name, c->came ? "attached" : "detached");
}

void hotplug_record_done(struct emu *m)
{
    while (m->changes.next && !list_empty(&m->changes)) {
        struct emu_change *c = list_entry(m->changes.next, struct emu_change, link);

        list_remove(&c->link);
        free(c);
    }
}
