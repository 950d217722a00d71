/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plugins: loading, and calling them. The list changes only before the VM runs. See plugin.h for who is called where.
 */
#include "engine/tcg/plugin.h"

#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/tcg/instrument.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>

#define ARGS_MAX 64
#define TEXT 128

struct vmd_plugin {
    struct vmd_plugin *next;
    char *name, *args;
    char *argv[ARGS_MAX];
    void *object;
    struct vmd_plugin_api api;
    vmd_block_fn *block;
    vmd_trap_fn *trap;
    vmd_vcpu_fn *vcpu;
    vmd_exit_fn *exit;
    void *block_user, *trap_user, *vcpu_user, *exit_user;
};

struct tcg_plugins {
    struct vmd_plugin *first;
    bool blocks; /* one of them looks at blocks */
};

struct vmd_block {
    struct tcg_vcpu *v;
    struct tcg_trans *t;
    struct tcg_note *n;
    unsigned n_insns;
    int32_t *off; /* page-relative */
    uint8_t bytes[16];
    char text[TEXT];
};

/* ---- registration ---- */

static void on_block(struct vmd_plugin *p, vmd_block_fn *fn, void *user)
{
    p->block = fn;
    p->block_user = user;
}

static void on_trap(struct vmd_plugin *p, vmd_trap_fn *fn, void *user)
{
    p->trap = fn;
    p->trap_user = user;
}

static void on_vcpu(struct vmd_plugin *p, vmd_vcpu_fn *fn, void *user)
{
    p->vcpu = fn;
    p->vcpu_user = user;
}

static void on_exit_(struct vmd_plugin *p, vmd_exit_fn *fn, void *user)
{
    p->exit = fn;
    p->exit_user = user;
}

static void print(struct vmd_plugin *p, const char *text)
{
    log_info("plugin", "%s: %s", p->name, text);
}

/* ---- blocks ---- */

static size_t insns(const struct vmd_block *b)
{
    return b->n_insns;
}

/* Up to n bytes of code from an offset of the block's page on. */
static unsigned code_bytes(const struct vmd_block *b, int32_t off, uint8_t *out, unsigned n)
{
    unsigned k = 0;
    for (; k < n; k++) {
        int32_t at = off + (int32_t)k;
        if (at >= 4096 && !b->t->page2) {
            break;
        }
        out[k] = at < 4096 ? b->t->page[at] : b->t->page2[at - 4096];
    }
    return k;
}

static void insn(const struct vmd_block *cb, size_t i, struct vmd_insn *out)
{
    struct vmd_block *b = (struct vmd_block *)(uintptr_t)cb;
    const struct tcg_guest *g = b->v->tcg->guest;
    *out = (struct vmd_insn){ .text = "" };
    if (i >= b->n_insns) {
        return;
    }
    out->pc = ((b->n->va & ~UINT64_C(4095)) + (uint64_t)(int64_t)b->off[i]) & g->pc_mask;
    out->gpa = (b->n->gpa & ~UINT64_C(4095)) + (uint64_t)(int64_t)b->off[i];
    memset(b->bytes, 0, sizeof(b->bytes));
    unsigned have = code_bytes(b, b->off[i], b->bytes, g->insn_max);
    str_copy(b->text, sizeof(b->text), "?");
    unsigned size = g->disas ? g->disas(b->bytes, have, out->pc, b->t->code, b->text,
                                        sizeof(b->text))
                             : have;
    out->size = size <= have ? size : have;
    out->bytes = b->bytes;
    out->text = b->text;
}

static void add(struct note_calls *list, void (*fn)(void), void *user, unsigned i)
{
    list->call = xrealloc_n(list->call, list->n + 1, sizeof(list->call[0]));
    list->call[list->n++] = (struct note_call){ fn, user, i };
}

static void call_block(struct vmd_block *b, vmd_run_fn *fn, void *user)
{
    add(&b->n->run, (void (*)(void))fn, user, 0);
}

static void call_insn(struct vmd_block *b, size_t i, vmd_run_fn *fn, void *user)
{
    if (i < b->n_insns) {
        add(&b->n->insn, (void (*)(void))fn, user, (unsigned)i);
    }
}

static void call_access(struct vmd_block *b, size_t i, vmd_access_fn *fn, void *user)
{
    if (i < b->n_insns) {
        add(&b->n->memory, (void (*)(void))fn, user, (unsigned)i);
    }
}

bool plugin_calls(const struct tcg_vm *t)
{
    return t->plugins && t->plugins->blocks;
}

void plugin_block(struct tcg_vcpu *v, struct tcg_trans *t, struct tcg_note *n)
{
    struct vmd_block b = { .v = v, .t = t, .n = n };
    b.off = xnew_n(int32_t, t->insns);
    for (unsigned i = 0; i < t->ir->n_ops && b.n_insns < t->insns; i++) {
        if (t->ir->ops[i].op == IR_insn) {
            b.off[b.n_insns++] = (int32_t)t->ir->ops[i].imm;
        }
    }
    for (struct vmd_plugin *p = v->tcg->plugins->first; p; p = p->next) {
        if (p->block) {
            p->block(p->block_user, &b);
        }
    }
    n->off = b.off;
}

void plugin_call_run(struct tcg_vcpu *v, const struct note_call *c)
{
    ((vmd_run_fn *)c->fn)(c->user, v->vcpu->index);
}

void plugin_call_memory(struct tcg_vcpu *v, const struct note_call *c, uint64_t va,
                        unsigned what)
{
    struct vmd_access a = { .address = va,
                            .size = what & 0xff,
                            .load = what & ACCESS_LOAD,
                            .store = what & ACCESS_STORE };
    ((vmd_access_fn *)c->fn)(c->user, v->vcpu->index, &a);
}

/* ---- the rest ---- */

void plugin_trap(struct tcg_vcpu *v, uint64_t pc, uint32_t cause, bool interrupt)
{
    for (struct vmd_plugin *p = v->tcg->plugins->first; p; p = p->next) {
        if (p->trap) {
            p->trap(p->trap_user, v->vcpu->index, pc, cause, interrupt);
        }
    }
}

void plugin_vcpu(struct tcg_vcpu *v)
{
    for (struct vmd_plugin *p = v->tcg->plugins->first; p; p = p->next) {
        if (p->vcpu) {
            p->vcpu(p->vcpu_user, v->vcpu->index);
        }
    }
}

void tcg_plugins_exit(struct vm *vm)
{
    struct tcg_vm *t = vm->engine_data;
    for (struct vmd_plugin *p = t->plugins ? t->plugins->first : NULL; p; p = p->next) {
        if (p->exit) {
            p->exit(p->exit_user);
            p->exit = NULL;
        }
    }
}

static void plugin_free(struct vmd_plugin *p)
{
    if (p->object) {
        dlclose(p->object);
    }
    free(p->name);
    free(p->args);
    free(p);
}

void plugins_done(struct tcg_vm *t)
{
    struct vmd_plugin *next;
    for (struct vmd_plugin *p = t->plugins ? t->plugins->first : NULL; p; p = next) {
        next = p->next;
        plugin_free(p);
    }
    free(t->plugins);
    t->plugins = NULL;
}

static int start(struct vmd_plugin *p, struct err *e)
{
    int (*init)(const struct vmd_plugin_api *, struct vmd_plugin *, int, char **);
    int n = 0, rc;
    p->object = dlopen(p->name, RTLD_NOW | RTLD_LOCAL);
    void *symbol = p->object ? dlsym(p->object, "vmd_plugin_init") : NULL;
    if (!symbol) {
        return err_set(e, -ENOEXEC, "plugin: %s", dlerror());
    }
    memcpy(&init, &symbol, sizeof(init));
    for (char *rest = p->args, *arg; rest && (arg = strsep(&rest, ",")) && n < ARGS_MAX;) {
        p->argv[n++] = arg;
    }
    rc = init(&p->api, p, n, p->argv);
    return rc == 0 ? 0 : err_set(e, -EINVAL, "plugin '%s' refused to start (%d)", p->name, rc);
}

int tcg_plugin_load(struct vm *vm, const char *path, const char *args, struct err *e)
{
    struct tcg_vm *t = vm->engine_data;
    struct vmd_plugin *p = xnew(struct vmd_plugin), **at;
    p->name = xstrdup(path);
    p->args = args ? xstrdup(args) : NULL;
    p->api = (struct vmd_plugin_api){ VMD_PLUGIN_VERSION,
                                      vm->arch->name,
                                      vm->n_vcpus,
                                      on_block,
                                      on_trap,
                                      on_vcpu,
                                      on_exit_,
                                      insns,
                                      insn,
                                      call_block,
                                      call_insn,
                                      call_access,
                                      print };
    int rc = start(p, e);
    if (rc < 0) {
        plugin_free(p);
        return rc;
    }
    if (!t->plugins) {
        t->plugins = xnew(struct tcg_plugins);
    }
    for (at = &t->plugins->first; *at; at = &(*at)->next) {
    }
    *at = p;
    t->plugins->blocks |= p->block != NULL;
    return 0;
}
