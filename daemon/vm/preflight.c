/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks before a definition is stored and before a VM is started. Owns nothing. Loop thread.
 */
#include "daemon/vm/preflight.h"

#include "api-schema/disk/limits.h"
#include "api-schema/json/json.h"
#include "api-schema/net/nbdaddr.h"
#include "daemon/daemon.h"
#include "daemon/host/hostinfo.h"
#include "daemon/network/networks.h"
#include "daemon/vm/cloudinit.h"
#include "daemon/vm/channels.h"
#include "daemon/vm/shares.h"
#include "daemon/vm/nics.h"
#include "daemon/registry.h"
#include "daemon/run/spawner.h"
#include "daemon/run/supervise.h"
#include "daemon/storage/pools.h"
#include "daemon/vm/supply.h"
#include "daemon/screen/vnc.h"
#include "engine/base/buf.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/base/zone.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BOARD_MAX_CPUS 64
#define CPUS_PER_HOST_CPU                                                                      \
    4 /* more vCPUs than this for each host CPU only make the guest slow */
#define CPUS_ALWAYS 8

int64_t preflight_max_cpus(void)
{
    cpu_set_t set;
    int64_t n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
    n *= CPUS_PER_HOST_CPU;
    n = n < CPUS_ALWAYS ? CPUS_ALWAYS : n;
    return n > BOARD_MAX_CPUS ? BOARD_MAX_CPUS : n;
}

void preflight_memory(int64_t *total, int64_t *available)
{
    char line[128];
    long long kib;
    *total = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    if (!available) {
        return;
    }
    *available = (int64_t)sysconf(_SC_AVPHYS_PAGES) * sysconf(_SC_PAGESIZE);
    FILE *f = fopen("/proc/meminfo", "re");
    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "MemAvailable: %lld kB", &kib) == 1) {
            *available = kib * 1024;
            break;
        }
    }
    if (f) {
        fclose(f);
    }
}

int64_t preflight_all_memory(const struct api_vm_config *c)
{
    int64_t all = c->memory;
    for (size_t i = 0; i < c->n_memory_devices; i++) {
        all += c->memory_devices[i].size; /* at most four of 16 TiB */
    }
    return c->has_memory_max && c->memory_max > all ? c->memory_max : all;
}

/* ---- definitions ---- */

static int check_host(const struct api_vm_config *c, struct api_error *x)
{
    int64_t total;
    char has[32], wants[32];
    preflight_memory(&total, NULL);
    if (preflight_all_memory(c) > total) {
        str_size((uint64_t)total, has, sizeof(has));
        str_size((uint64_t)preflight_all_memory(c), wants, sizeof(wants));
        return api_error_set(
            x, API_E_HOST_LIMIT, "config.memory", "give the VM less memory than the host has",
            "VM '%s' wants %s of memory, the host has %s", c->name, wants, has);
    }
    if (c->cpus > preflight_max_cpus()) {
        return api_error_set(x, API_E_HOST_LIMIT, "config.cpus", "give the VM fewer vCPUs",
                             "VM '%s' wants %lld vCPUs, at most %lld are possible on this host",
                             c->name, (long long)c->cpus, (long long)preflight_max_cpus());
    }
    return 0;
}

/* As the emulator knows them (engine/arch/riscv/features.c), compared by a test; what a model is changed by, it judges
 * itself at the start. */
static const char *const models_rv64[] = { "max",      "rv64",     "rva20u64", "rva20s64",
                                           "rva22u64", "rva22s64", "rva23u64", "rva23s64" };
static const char *const models_rv32[] = { "max", "rv32" };
static const char *const models_x86[] = { "max",       "host",      "x86-64",   "x86-64-v1",
                                          "x86-64-v2", "x86-64-v3", "x86-64-v4" };

const char *const *preflight_cpu_models(enum api_arch arch, size_t *n)
{
    static const struct {
        const char *const *list;
        size_t n;
    } models[] = { [API_ARCH_RISCV64] = { models_rv64, ARRAY_LEN(models_rv64) },
                   [API_ARCH_RISCV32] = { models_rv32, ARRAY_LEN(models_rv32) },
                   [API_ARCH_X86_64] = { models_x86, ARRAY_LEN(models_x86) } };
    *n = models[arch].n;
    return models[arch].list;
}

/* Architecture, board and engine that go together. */
static int check_platform(const struct api_vm_config *c, struct api_error *x)
{
    bool pc = c->arch == API_ARCH_X86_64;
    const char *arch = api_arch_name(c->arch);
    if (pc != (c->machine == API_MACHINE_MICROVM || c->machine == API_MACHINE_Q35)) {
        return api_error_set(x, API_E_INVALID_PARAMS, "config.machine",
                             pc ? "set 'machine' to 'q35' or 'microvm'"
                                : "set 'machine' to 'rv-virt'",
                             "VM '%s': machine %s has no %s processors", c->name,
                             api_machine_name(c->machine), arch);
    }
    if (pc != (c->engine == API_ENGINE_KVM)) {
        return api_error_set(x, API_E_INVALID_PARAMS, "config.engine",
                             pc ? "set 'engine' to 'kvm'" : "set 'engine' to 'tcg'",
                             "VM '%s': engine %s runs no %s guests", c->name,
                             api_engine_name(c->engine), arch);
    }
    return 0;
}

static int check_cpu(const struct api_vm_config *c, struct api_error *x)
{
    size_t n, length = strcspn(c->cpu, ",");
    const char *const *models = preflight_cpu_models(c->arch, &n);
    AUTO_BUF known = BUF_INIT;
    for (size_t i = 0; i < n; i++) {
        if (strlen(models[i]) == length && strncmp(models[i], c->cpu, length) == 0) {
            return 0;
        }
        buf_printf(&known, "%s%s", i ? ", " : "", models[i]);
    }
    AUTO_FREE char *remedy = xasprintf("use one of: %s", known.data);
    return api_error_set(x, API_E_INVALID_PARAMS, "config.cpu", remedy,
                         "VM '%s' wants CPU model '%.*s', which is not known for %s", c->name,
                         (int)length, c->cpu, api_arch_name(c->arch));
}

enum { MEMORY_BLOCKS = 4096 }; /* of a device; the emulator's bound */

/* What is wrong with the sizes of a memory device; NULL: nothing. */
static const char *memory_fault(const struct api_memory_device *m)
{
    int64_t block = m->block;
    if (m->has_block && (block & (block - 1))) {
        return "its block must be a power of two";
    }
    if (m->has_block && m->size / block > MEMORY_BLOCKS) {
        return "it has more than 4096 blocks: make them larger";
    }
    for (block = m->has_block ? block : 2 << 20; m->size / block > MEMORY_BLOCKS; block *= 2) {
    }
    if (m->size % block || m->requested % block) {
        return "its sizes must be multiples of its block, which grows with its size (2 MiB up "
               "to 8 GiB)";
    }
    return m->requested > m->size ? "the guest cannot be asked to have more than its size"
                                  : NULL;
}

static int check_memory_devices(const struct api_vm_config *c, struct api_error *x)
{
    int64_t all = c->memory;

    if ((c->n_memory_devices > 0 && c->arch != API_ARCH_RISCV64) ||
        (c->has_memory_max && c->arch == API_ARCH_RISCV32)) {
        return api_error_set(x, API_E_INVALID_PARAMS,
                             c->n_memory_devices > 0 ? "config.memory_devices"
                                                     : "config.memory_max",
                             NULL, "VM '%s': memory devices take a guest of 64 bits", c->name);
    }
    for (size_t i = 0; i < c->n_memory_devices; i++) {
        const struct api_memory_device *m = &c->memory_devices[i];
        const char *fault = memory_fault(m);
        for (size_t k = 0; k < i && !fault && m->name; k++) {
            const char *other = c->memory_devices[k].name;
            fault = other && strcmp(other, m->name) == 0 ? "another one has its name" : NULL;
        }
        if (fault) {
            return api_error_set(x, API_E_INVALID_PARAMS, "config.memory_devices", NULL,
                                 "VM '%s': memory device %zu: %s", c->name, i, fault);
        }
        all += m->size; /* at most four of 16 TiB */
    }
    if (c->has_memory_max && c->memory_max < all) {
        return api_error_set(x, API_E_INVALID_PARAMS, "config.memory_max",
                             "make it larger, or give the VM less from the start",
                             "VM '%s' has %lld MiB from the start, and may have %lld at most",
                             c->name, (long long)(all >> 20), (long long)(c->memory_max >> 20));
    }
    return 0;
}

static int check_audio(const struct api_vm_config *c, struct api_error *x)
{
    static const int64_t rates[] = { 5512,  8000,  11025, 16000, 22050,  32000,  44100,
                                     48000, 64000, 88200, 96000, 176400, 192000, 384000 };
    const struct api_audio *a = c->audio;
    bool known = !a;

    for (size_t i = 0; i < ARRAY_LEN(rates) && !known; i++) {
        known = rates[i] == a->rate;
    }
    if (!known) {
        return api_error_set(x, API_E_INVALID_PARAMS, "config.audio.rate",
                             "use 44100, 48000, or another that sound cards have",
                             "VM '%s': no sound has %lld frames a second", c->name,
                             (long long)a->rate);
    }
    bool file = !a || a->backend == API_AUDIO_BACKEND_FILE;
    if (a && (file ? a->server || a->device : a->output || a->input)) {
        return api_error_set(x, API_E_INVALID_PARAMS, "config.audio", NULL,
                             file
                                 ? "VM '%s': sound in files has no server and no device"
                                 : "VM '%s': sound of a server has no output and no input file",
                             c->name);
    }
    if (a && a->device &&
        a->device[strspn(a->device, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                    "0123456789_-:.,=")]) {
        return api_error_set(
            x, API_E_INVALID_PARAMS, "config.audio.device",
            "give it a name in ALSA's configuration, and use that",
            "VM '%s': a sound device's name has letters, digits and _-:.,= only", c->name);
    }
    if (a && a->output && a->input && strcmp(a->output, a->input) == 0) {
        return api_error_set(x, API_E_INVALID_PARAMS, "config.audio.input", "name another file",
                             "VM '%s' would hear what it plays: '%s'", c->name, a->output);
    }
    return 0;
}

static int check_members(const struct api_vm_config *c, struct api_error *x)
{
    if (check_memory_devices(c, x) < 0 || check_audio(c, x) < 0) {
        return -1;
    }
    const char *lacks = !c->kernel && c->initrd   ? "initrd"
                        : !c->kernel && c->append ? "append"
                                                  : NULL;
    if (lacks) {
        AUTO_FREE char *member = xasprintf("config.%s", lacks);
        return api_error_set(x, API_E_INVALID_PARAMS, member, "give a kernel as well",
                             "VM '%s' has '%s' but no kernel", c->name, lacks);
    }
    return check_platform(c, x) < 0 ? -1 : check_cpu(c, x);
}

static int limits_ok(const struct api_vm_config *c, size_t i, struct api_error *x)
{
    AUTO_FREE char *member = xasprintf("config.disks[%zu].throttle", i);
    struct err e = ERR_INIT;
    struct limits l;

    disk_limits(c->disks[i].throttle, &l);
    return limits_check(&l, &e) == 0
               ? 0
               : api_error_set(x, API_E_INVALID_PARAMS, member, NULL,
                               "disk '%s' of VM '%s': %s", c->disks[i].name, c->name, e.msg);
}

/* Of a disk that is an export of an NBD server. */
static int address_ok(const struct api_vm_config *c, size_t i, struct api_error *x)
{
    AUTO_FREE char *member = xasprintf("config.disks[%zu].file", i);
    struct nbd_addr address;
    struct err e = ERR_INIT;

    return !nbd_addr_is(c->disks[i].file) || nbd_addr_parse(c->disks[i].file, &address, &e) == 0
               ? 0
               : api_error_set(x, API_E_INVALID_PARAMS, member,
                               "nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH; "
                               "with TLS nbds "
                               "and tls-certificates=FOLDER",
                               "disk '%s' of VM '%s': %s", c->disks[i].name, c->name, e.msg);
}

/* Disks without a name get disk0, disk1, ...; names and files must differ. */
static int name_disks(struct api_vm_config *c, struct api_error *x)
{
    for (size_t i = 0; i < c->n_disks; i++) {
        struct api_disk *k = &c->disks[i];
        if (!k->name || !k->name[0]) {
            free(k->name);
            k->name = xasprintf("disk%zu", i);
        }
        if (limits_ok(c, i, x) < 0 || address_ok(c, i, x) < 0) {
            return -1;
        }
        for (size_t j = 0; j < i; j++) {
            const char *same = strcmp(k->name, c->disks[j].name) == 0 ? "name" : NULL;
            if (k->file && c->disks[j].file && strcmp(k->file, c->disks[j].file) == 0) {
                same = "file";
            }
            if (same) {
                AUTO_FREE char *member = xasprintf("config.disks[%zu].%s", i, same);
                return api_error_set(x, API_E_INVALID_PARAMS, member, "make them differ",
                                     "disks %zu and %zu of VM '%s' have the same %s", j, i,
                                     c->name, same);
            }
        }
    }
    return 0;
}

/* Plugins run inside the emulator: only what the administrator put into one folder. */
static int check_plugins(const struct vmd *d, const struct api_vm_config *c,
                         struct api_error *x)
{
    const char *dir = d->opt.plugin_dir;
    for (size_t i = 0; c->tcg && i < c->tcg->n_plugins; i++) {
        const char *file = c->tcg->plugins[i].file;
        size_t n = dir ? strlen(dir) : 0;
        if (!dir) {
            return api_error_set(
                x, API_E_DENIED, "config.tcg.plugins", "start vmd with --plugin-dir",
                "VM '%s' wants a plugin, which this daemon does not allow", c->name);
        }
        if (strncmp(file, dir, n) != 0 || file[n] != '/' || strchr(file + n + 1, '/')) {
            return api_error_set(x, API_E_DENIED, "config.tcg.plugins",
                                 "use one of that folder", "plugin '%s' is not in '%s'", file,
                                 dir);
        }
    }
    return 0;
}

int preflight_change(struct vmd *d, struct api_vm_config *c, struct api_error *x)
{
    return pools_resolve(d, c, x) < 0 || check_plugins(d, c, x) < 0 || check_host(c, x) < 0 ||
                   check_members(c, x) < 0 || name_disks(c, x) < 0 ||
                   cloudinit_check(c, x) < 0 || nics_check(c, x) < 0 ||
                   networks_check(d, c, x) < 0 || channels_check(c, x) < 0 ||
                   shares_check(c, x) < 0 || vnc_check(c, x) < 0
               ? -1
               : 0;
}

enum { UUID_TRIES = 64 };

int preflight_define(struct vmd *d, struct api_vm_config *c, struct api_error *x)
{
    struct vm *taken = vm_find(d, c->name, true);
    if (taken) {
        return api_error_set(
            x, API_E_EXISTS, c->name, "choose another name, or delete the VM that has it",
            "a VM named '%s' exists already (uuid %s)", c->name, taken->config.uuid);
    }
    if (!c->uuid) {
        c->uuid = xalloc(37);
        for (int i = 0; i < UUID_TRIES && (i == 0 || nics_mac_taken(d, c)); i++) {
            uuid_make(
                c->uuid); /* addresses of cards come from it, and have 24 bits of their own */
        }
    }
    taken = vm_find(d, c->uuid, true);
    if (taken) {
        return api_error_set(x, API_E_EXISTS, c->uuid, "leave 'uuid' out to have one made",
                             "VM '%s' has the UUID %s already", taken->config.name, c->uuid);
    }
    return preflight_change(d, c, x);
}

/* ---- files ---- */

/* One file of a definition; `what` for messages. */
struct named {
    const char *what, *path;
    bool disk, write;
    bool made;          /* when it is not there, and may be empty */
    const char *format; /* of a disk */
};

/* Calls fn for each file until it returns non-zero. */
static int each_file(const struct api_vm_config *c, int (*fn)(void *arg, const struct named *f),
                     void *arg)
{
    const char *fw = c->firmware ? c->firmware : "default";
    int rc = 0;
    if (strcmp(fw, "default") == 0 && c->machine == API_MACHINE_Q35 && c->n_flash == 0) {
        bool vga = c->display && c->display->device == API_DISPLAY_DEVICE_VGA;

        rc = fn(arg, &(struct named){ .what = "firmware", .path = DEFAULT_FIRMWARE_PC });
        if (rc == 0 && vga) {
            rc = fn(arg, &(struct named){ .what = "VGA ROM", .path = DEFAULT_VGA_ROM });
        }
    } else if (strcmp(fw, "default") == 0 && c->arch == API_ARCH_X86_64) {
        rc = 0; /* kernels are entered directly */
    } else if (strcmp(fw, "default") == 0) {
        const char *path = c->arch == API_ARCH_RISCV32 ? DEFAULT_FIRMWARE_32
                                                       : DEFAULT_FIRMWARE_64;
        rc = c->kernel || c->n_flash
                 ? fn(arg, &(struct named){ .what = "firmware", .path = path })
                 : 0;
    } else if (strcmp(fw, "none") != 0) {
        rc = fn(arg, &(struct named){ .what = "firmware", .path = fw });
    }
    if (rc == 0 && c->kernel) {
        rc = fn(arg, &(struct named){ .what = "kernel", .path = c->kernel });
    }
    if (rc == 0 && c->initrd) {
        rc = fn(arg, &(struct named){ .what = "initrd", .path = c->initrd });
    }
    for (size_t i = 0; rc == 0 && i < c->n_disks; i++) {
        if (!c->disks[i].file) {
            continue; /* a drive without a medium */
        }
        AUTO_FREE char *what = xasprintf("disk '%s'", c->disks[i].name);
        rc = fn(arg, &(struct named){ .what = what,
                                      .path = c->disks[i].file,
                                      .disk = true,
                                      .write = !c->disks[i].readonly,
                                      .format = api_disk_format_name(c->disks[i].format) });
    }
    for (size_t i = 0; rc == 0 && i < c->n_flash; i++) {
        rc = fn(arg, &(struct named){ .what = "flash",
                                      .path = c->flash[i].file,
                                      .disk = true,
                                      .write = !c->flash[i].readonly });
    }
    for (size_t i = 0; rc == 0 && i < c->n_nics; i++) {
        if (c->nics[i].rom) {
            rc = fn(arg, &(struct named){ .what = "expansion ROM", .path = c->nics[i].rom });
        }
    }
    if (rc == 0 && c->audio && c->audio->output) {
        rc = fn(arg, &(struct named){ .what = "audio output",
                                      .path = c->audio->output,
                                      .write = true,
                                      .made = true });
    }
    if (rc == 0 && c->audio && c->audio->input) {
        rc = fn(arg, &(struct named){ .what = "audio input", .path = c->audio->input });
    }
    return rc;
}

struct start_check {
    struct vm *vm;
    preflight_fn *fn;
    void *arg;
};

static bool clash(const struct run_disk *a, const struct run_disk *b)
{
    return a->dev == b->dev && a->ino == b->ino && (a->write || b->write);
}

/* Of the disks as vmd-spawn lists them: those of the definition, flash, the images below them. */
static const char *disk_path(struct json_object *list, unsigned i)
{
    const char *path = i < json_object_array_length(list)
                           ? api_json_get_str(json_object_array_get_idx(list, i), "path")
                           : NULL;
    return path ? path : "?";
}

static int disk_elsewhere(const struct vm *vm, struct json_object *files,
                          const struct run_disks *disks, struct api_error *x)
{
    size_t n;
    struct vm **list = vm_list(vm->d, &n);
    int rc = 0;
    for (size_t i = 0; i < n && disks->n > 0 && rc == 0; i++) {
        const struct run_disks *theirs = list[i]->run && list[i] != vm
                                             ? run_disks_of(list[i]->run)
                                             : NULL;
        for (unsigned a = 0; theirs && a < disks->n * theirs->n && rc == 0; a++) {
            unsigned mine = a / theirs->n;
            if (clash(&disks->disk[mine], &theirs->disk[a % theirs->n])) {
                char pid[24] = "starting";

                if (run_pid(list[i]->run) > 0) {
                    snprintf(pid, sizeof(pid), "pid %d", (int)run_pid(list[i]->run));
                }
                rc = api_error_set(x, API_E_BUSY, disk_path(files, mine),
                                   "stop that VM, or attach the disk read-only in both",
                                   "disk '%s' is in use by VM '%s' (%s)",
                                   disk_path(files, mine), list[i]->config.name, pid);
            }
        }
    }
    free(list);
    return rc;
}

static int disk_twice(const struct vm *vm, struct json_object *files,
                      const struct run_disks *disks, struct api_error *x)
{
    for (unsigned i = 0; i < disks->n; i++) {
        for (unsigned k = 0; k < i; k++) {
            if (clash(&disks->disk[i], &disks->disk[k])) {
                return api_error_set(x, API_E_FILE_ERROR, disk_path(files, i),
                                     "give each disk a file of its own",
                                     "disk '%s' is the same file as another disk of VM '%s'",
                                     disk_path(files, i), vm->config.name);
            }
        }
    }
    return 0;
}

static void file_failed(const struct vm *vm, const char *path, const struct err *e,
                        struct api_error *x)
{
    bool fw = e->code == -ENOENT && (strcmp(path, DEFAULT_FIRMWARE_64) == 0 ||
                                     strcmp(path, DEFAULT_FIRMWARE_32) == 0);
    bool bios = e->code == -ENOENT &&
                (strcmp(path, DEFAULT_FIRMWARE_PC) == 0 || strcmp(path, DEFAULT_VGA_ROM) == 0);
    bool about_file = path[0] != 0;
    api_error_set(
        x,
        e->code == -EEXIST      ? API_E_EXISTS
        : about_file            ? API_E_FILE_ERROR
        : e->code == -ECANCELED ? API_E_CANCELLED
                                : API_E_START_FAILED,
        about_file ? path : vm->config.name,
        bios                 ? "install package seabios, or set 'firmware' to a file"
        : fw                 ? "install package opensbi, or set 'firmware' to a file"
        : e->code == -EEXIST ? "choose another name; a recording is never overwritten"
        : about_file         ? "mend the file or the definition, then start again"
        : e->code == -ENOEXEC
            ? "install the programs of vmd again, or start vmd with the right --emulator"
            : "start it again",
        "VM '%s': %s", vm->config.name, e->msg);
}

static void on_checked(void *arg, struct json_object *list, const char *path,
                       const struct err *e)
{
    struct start_check *k = arg;
    struct api_error x = API_ERROR_INIT;
    struct run_disks disks = { .n = 0 };
    if (e) {
        file_failed(k->vm, path, e, &x);
    } else {
        run_disks_read(list, &disks);
        if (disk_twice(k->vm, list, &disks, &x) == 0 &&
            disk_elsewhere(k->vm, list, &disks, &x) == 0) {
            supply_sandbox(k->vm->d, &k->vm->config, &x);
        }
    }
    k->fn(k->arg, x.code ? &x : NULL, &disks);
    free(k);
}

int preflight_host(const struct api_vm_config *c, struct api_error *x)
{
    bool packaged = c->machine ==
                    API_MACHINE_Q35; /* its firmware is there without being named */
    if (!c->kernel && c->n_flash == 0 &&
        ((!packaged && (!c->firmware || strcmp(c->firmware, "default") == 0)) ||
         (c->firmware && strcmp(c->firmware, "none") == 0))) {
        return api_error_set(
            x, API_E_FILE_ERROR, c->name,
            c->arch == API_ARCH_X86_64
                ? "set 'kernel' to a bzImage or an ELF program with a PVH entry"
                : "set 'kernel' or 'flash', or 'firmware' to a file that starts in machine "
                  "mode",
            "VM '%s' has neither a kernel nor a firmware file to run", c->name);
    }
    const char *remedy = NULL;
    struct err e = ERR_INIT;
    if (c->engine == API_ENGINE_KVM && hostinfo_kvm(c->arch, &remedy, &e) < 0) {
        return api_error_set(x, API_E_HOST_LIMIT, c->name, remedy,
                             "VM '%s' has the engine kvm: %s", c->name, e.msg);
    }
    return check_host(c, x);
}

void preflight_start(struct vm *vm, preflight_fn *fn, void *arg)
{
    preflight_start_tape(vm, NULL, fn, arg);
}

void preflight_start_tape(struct vm *vm, const struct api_vm_start_in *tape, preflight_fn *fn,
                          void *arg)
{
    struct api_error x = API_ERROR_INIT;
    if (preflight_host(&vm->config, &x) < 0 || check_plugins(vm->d, &vm->config, &x) < 0 ||
        supply_place(vm->d, &vm->config, &x) < 0 || pools_ready(vm->d, &vm->config, &x) < 0 ||
        networks_ready(vm->d, &vm->config, &x) < 0) {
        fn(arg, &x, NULL);
        return;
    }
    struct start_check *k = xnew(struct start_check);
    *k = (struct start_check){ .vm = vm, .fn = fn, .arg = arg };
    struct json_object *files = preflight_files(&vm->config);
    if (tape) {
        preflight_tape_file(files, tape->record, tape->replay);
    }
    spawner_check(vm->d->spawner, files, on_checked, k);
}

/* ---- what the emulator gets ---- */

struct json_object *preflight_emu_config(const struct api_vm_config *config)
{
    struct json_object *o = api_encode(&api_type_vm_config, config), *clock;

    /* The emulator's sandbox has no time zone. */
    if (config->clock && config->clock->base == API_CLOCK_BASE_LOCALTIME) {
        clock = json_object_new_object();
        api_json_set_int(clock, "offset", config->clock->offset + zone_offset());
        api_json_set(o, "clock", clock);
    }
    return o;
}

static int add_file(void *arg, const struct named *f)
{
    struct json_object *o = json_object_new_object();
    api_json_set_str(o, "key", f->path);
    api_json_set_str(o, "path", f->path);
    api_json_set_str(o, "what", f->what);
    api_json_set_bool(o, "disk", f->disk);
    api_json_set_bool(o, "write", f->write);
    if (f->made) {
        api_json_set_bool(o, "made", true);
    }
    if (f->format) {
        api_json_set_str(o, "format", f->format);
    }
    json_object_array_add(arg, o);
    return 0;
}

struct json_object *preflight_files(const struct api_vm_config *config)
{
    struct json_object *list = json_object_new_array();
    each_file(config, add_file, list);
    return list;
}

void preflight_tape_file(struct json_object *files, const char *record, const char *replay)
{
    const char *path = record ? record : replay;
    if (!path) {
        return;
    }
    add_file(files, &(struct named){ .what = "recording",
                                     .path = path,
                                     .write = record != NULL,
                                     .made = record != NULL });
    api_json_set_str(json_object_array_get_idx(files, json_object_array_length(files) - 1),
                     "tape", record ? "record" : "replay");
}
