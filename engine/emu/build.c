/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the configuration to a VM on a board: engine, files, disks. Owns the descriptors of the
 * images. Main thread.
 */
#include "api-schema/net/nbdaddr.h"
#include "engine/arch/riscv/cpu.h"
#include "engine/arch/x86/cpu.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/base/zone.h"
#include "engine/emu/console.h"
#include "engine/emu/emu.h"
#include "engine/emu/replay/replay.h"
#include "engine/emu/screen.h"
#include "storage/block.h"
#include "storage/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Debian's package opensbi. */
#define OPENSBI_RV64 "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin"
/* Debian's package seabios. */
#define SEABIOS "/usr/share/seabios/bios-256k.bin"
#define VGABIOS "/usr/share/seabios/vgabios-stdvga.bin"

static int tcg_settings(struct emu *m, void **config, struct err *e)
{
    const struct api_tcg_config *c = m->config.tcg;

    if (m->config.arch == API_ARCH_X86_64) {
        return err_set(e, -ENOTSUP,
                       "engine tcg does not translate x86_64: set \"engine\" to \"kvm\"");
    }
    if (c) {
        m->tcg.cache_size = (size_t)c->cache_size;
        m->tcg.tier2 = c->tier2 == API_TCG_TIER2_OFF     ? TCG_TIER2_OFF
                       : c->tier2 == API_TCG_TIER2_ON    ? TCG_TIER2_ON
                       : c->tier2 == API_TCG_TIER2_FORCE ? TCG_TIER2_FORCE
                                                         : TCG_TIER2_DEFAULT;
        m->tcg.backend = c->backend == API_TCG_BACKEND_INTERP ? TCG_INTERP : TCG_JIT;
        m->tcg.icount = c->has_icount;
        m->tcg.icount_shift = (unsigned)c->icount;
    }
    m->tcg.icount |= m->opt.record || m->opt.replay;
    m->tcg.perf_map = m->opt.perf_map || m->opt.perf_map_fd >= 0;
    *config = &m->tcg;
    return 0;
}

static int kvm_settings(struct emu *m, void **config, struct err *e)
{
    m->kvm = (struct kvm_config){ .fd = m->opt.kvm_fd, .pid = m->pid };
    if (m->kvm.fd < 0 && m->opt.config_fd < 0) {
        m->kvm.fd = m->opt.kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
        if (m->kvm.fd < 0 && errno != ENOENT) {
            return err_errno(e, errno,
                             "engine kvm: /dev/kvm (its group, mostly 'kvm', may open it)");
        }
    }
    *config = &m->kvm;
    return 0;
}

/* The engines; a third is one line. */
static const struct engine {
    enum api_engine id;
    const struct engine_ops *ops;
    /* Its settings from the configuration: vm->engine_config. */
    int (*configure)(struct emu *m, void **config, struct err *e);
} engines[] = {
    { API_ENGINE_TCG, &tcg_engine_ops, tcg_settings },
    { API_ENGINE_KVM, &kvm_engine_ops, kvm_settings },
};

static const struct {
    enum api_arch id;
    const struct arch_ops *ops;
    unsigned xlen;
} arches[] = {
    { API_ARCH_RISCV64, &riscv64_arch, 64 },
    { API_ARCH_RISCV32, &riscv32_arch, 32 },
    { API_ARCH_X86_64, &x86_64_arch, 64 },
};

/* --- files
 * ----------------------------------------------------------------------------------- */

struct emu_file *given_file(struct emu *m, const char *path)
{
    for (unsigned i = 0; i < m->opt.n_files; i++) {
        if (m->opt.files[i].fd >= 0 && m->opt.files[i].role == EMU_FILE &&
            strcmp(m->opt.files[i].path, path) == 0) {
            return &m->opt.files[i];
        }
    }
    return NULL;
}

int emu_image(struct emu *m, const char *what, const char *path, struct board_file *out,
              struct err *e)
{
    struct emu_file *given = given_file(m, path);
    int fd;

    if (given) {
        *out = (struct board_file){ .path = path, .fd = given->fd };
        return 0;
    }
    if (m->opt.config_fd >= 0) {
        return err_set(e, -ENOENT, "%s %s was not passed with --file", what, path);
    }
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return err_errno(e, errno, "cannot open the %s %s", what, path);
    }
    m->opened[m->n_opened++] = (struct emu_file){ .fd = fd };
    *out = (struct board_file){ .path = path, .fd = fd };
    return 0;
}

static int packaged_file(struct emu *m, const char *what, const char *path, const char *package,
                         struct board_file *out, struct err *e)
{
    int rc = emu_image(m, what, path, out, e);

    if (rc == -ENOENT && m->opt.config_fd < 0) {
        err_set(e, rc, "the default %s %s is missing: install the package %s", what, path,
                package);
    }
    return rc;
}

/* SeaBIOS, and for it the ROM of a VGA screen. */
static int pc_firmware(struct emu *m, struct board_config *b, struct err *e)
{
    const char *fw = m->config.firmware;
    bool packaged = strcmp(fw, "default") == 0;
    int rc = packaged ? packaged_file(m, "firmware", SEABIOS, "seabios", &b->firmware, e)
                      : emu_image(m, "firmware", fw, &b->firmware, e);

    if (rc == 0 && packaged && b->screen.gpu == BOARD_GPU_VGA) {
        rc = packaged_file(m, "VGA ROM", VGABIOS, "seabios", &b->vga_rom, e);
    }
    return rc;
}

static int firmware_file(struct emu *m, struct board_config *b, struct err *e)
{
    const char *fw = m->config.firmware;

    if (m->config.machine == API_MACHINE_Q35 && m->config.n_flash == 0 &&
        strcmp(fw, "none") != 0) {
        return pc_firmware(m, b, e);
    }
    if (strcmp(fw, "none") == 0 ||
        (strcmp(fw, "default") == 0 && m->config.arch == API_ARCH_X86_64) ||
        (strcmp(fw, "default") == 0 && !b->kernel.path && m->config.n_flash == 0)) {
        return 0;
    }
    if (strcmp(fw, "default") != 0) {
        return emu_image(m, "firmware", fw, &b->firmware, e);
    }
    if (b->xlen == 32) {
        return err_set(
            e, -ENOENT,
            "there is no packaged OpenSBI for riscv32: set \"firmware\" to a file, or to "
            "\"none\" to start the kernel in machine mode");
    }
    return packaged_file(m, "firmware", OPENSBI_RV64, "opensbi", &b->firmware, e);
}

static int open_images(struct emu *m, struct board_config *b, struct err *e)
{
    const struct api_vm_config *c = &m->config;
    int rc = c->kernel ? emu_image(m, "kernel", c->kernel, &b->kernel, e) : 0;

    if (rc == 0 && c->initrd) {
        rc = emu_image(m, "initrd", c->initrd, &b->initrd, e);
    }
    return rc != 0 ? rc : firmware_file(m, b, e);
}

/* --- disks
 * ----------------------------------------------------------------------------------- */

static const enum board_disk_bus disk_buses[] = {
    [API_DISK_BUS_VIRTIO_MMIO] = BOARD_VIRTIO_MMIO,
    [API_DISK_BUS_VIRTIO_PCI] = BOARD_VIRTIO_PCI,
    [API_DISK_BUS_NVME] = BOARD_NVME,
    [API_DISK_BUS_SCSI] = BOARD_SCSI,
    [API_DISK_BUS_SCSI_MMIO] = BOARD_SCSI_MMIO,
    [API_DISK_BUS_SATA] = BOARD_SATA,
    [API_DISK_BUS_USB] = BOARD_USB,
};

int chain_prepare(struct emu *m, struct emu_chain *c, struct blk_options *o, struct err *e)
{
    struct emu_file *given = given_file(m, o->path);
    struct blk_options *at = o;

    *c = (struct emu_chain){ .emu = m };
    if (!given) {
        return err_set(e, -ENOENT, "disk file %s was not passed with --file", o->path);
    }
    c->first = (unsigned)(given - m->opt.files);
    for (c->n = 1; c->first + c->n < m->opt.n_files && given[c->n].role != EMU_FILE; c->n++) {
    }
    c->part = xnew_n(struct blk_options, c->n); /* one more than needed: never none */
    c->name = xnew_n(char *, c->n);
    o->fd = given->fd;
    for (unsigned i = 1; i < c->n; i++) {
        const struct emu_file *f = &given[i];
        bool data = f->role == EMU_DATA;

        c->name[i] = xasprintf("%s/%s", at->name, data ? "data" : "backing");
        c->part[i] = (struct blk_options){ .name = c->name[i],
                                           .path = f->path,
                                           .driver = data ? "raw" : f->format,
                                           .fd = f->fd,
                                           .readonly = !data || at->readonly,
                                           .direct = o->direct,
                                           .unlocked = o->unlocked,
                                           .depth = at->depth + 1 };
        if (data) {
            at->data = &c->part[i];
        } else {
            at->backing = &c->part[i];
            at = &c->part[i];
        }
    }
    return 0;
}

void chain_done(struct emu_chain *c, int rc)
{
    for (unsigned i = 0; i < c->n; i++) {
        if (rc == 0) {
            c->emu->opt.files[c->first + i].fd = -1;
        }
        free(c->name[i]);
    }
    free(c->name);
    free(c->part);
}

/* What the board is told of disk i, whose image is open. */
static void attach(struct emu *m, unsigned i, struct board_config *b)
{
    const struct api_disk *d = &m->config.disks[i];
    struct board_disk *k = &b->disk[i];

    k->node = blk_disk_new(m->pool, k->node);
    k->name = blk_name(k->node);
    k->bus = disk_buses[d->bus];
    blk_set_io_thread(k->node, (unsigned)d->io_thread, i);
    k->serial = d->serial;
    k->queues = (unsigned)d->queues;
    k->cdrom = d->cdrom;
    k->removable = d->removable;
    k->tray_open = d->tray_open;
    k->tray_moved = media_tray_moved;
    k->tray_arg = m;
    k->hotplug = d->hotplug;
    k->id = NULL;
    k->controller = d->has_controller             ? (uint32_t)d->controller
                    : d->bus == API_DISK_BUS_NVME ? BOARD_ANY
                                                  : 0;
    k->unit = d->has_unit ? (uint32_t)d->unit : BOARD_ANY;
    k->lun = (unsigned)d->lun;
    m->disk[i] = k->node;
    record_add_disk(m, k->node);
    disks_set_policy(m, i);
    nbd_opened(m, i);
}

int build_open_image(struct emu *m, const struct api_disk *d, const char *name,
                     struct blk_node **out, struct err *e)
{
    struct emu_chain chain = { .n = 0 };
    struct nbd_addr address;
    struct blk_options o = {
        .driver = api_enum_name(&api_type_disk_format, (int)d->format),
        .name = name,
        .path = d->file,
        .fd = -1,
        .readonly = d->readonly || d->cdrom,
        .direct = d->cache == API_DISK_CACHE_NONE || d->cache == API_DISK_CACHE_DIRECTSYNC,
        .durable = d->cache == API_DISK_CACHE_WRITETHROUGH ||
                   d->cache == API_DISK_CACHE_DIRECTSYNC,
        .unsafe = d->cache == API_DISK_CACHE_UNSAFE,
        .follow = m->opt.config_fd < 0, /* a daemon's emulator opens nothing by path */
    };
    int rc = 0;

    if (m->opt.config_fd >= 0 || given_file(m, d->file)) {
        rc = chain_prepare(m, &chain, &o, e);
    }
    if (rc == 0) {
        rc = nbd_prepare(m, &o, &address, e);
    }
    if (rc == 0) {
        rc = blk_open(m->pool, &o, out, e);
        if (rc != 0 && chain.n == 0 && o.fd >= 0) {
            close(o.fd); /* connected by us */
        }
    }
    chain_done(&chain, rc);
    return rc;
}

int build_open_disk(struct emu *m, unsigned i, struct board_config *b, char **name,
                    struct err *e)
{
    const struct api_disk *d = &m->config.disks[i];
    const char *is;
    int rc = 0;

    if (!d->name) {
        *name = xasprintf("disk%u", i);
    }
    is = d->name ? d->name : *name;
    if (d->io_thread > m->config.io_threads) {
        return err_set(
            e, -EINVAL,
            "disk '%s': I/O thread %lld, the VM has %lld; give it more (io_threads), "
            "or leave the choice out",
            is, (long long)d->io_thread, (long long)m->config.io_threads);
    }
    for (unsigned j = 0; j < i; j++) {
        if (strcmp(b->disk[j].name, is) == 0) {
            return err_set(e, -EEXIST, "two disks are named '%s'", is);
        }
    }
    if (d->file) {
        rc = build_open_image(m, d, is, &b->disk[i].node, e);
    } else if (d->cdrom || d->removable) {
        b->disk[i].node = blk_nothing_new(m->pool, is);
    } else {
        rc = err_set(e, -EINVAL, "disk '%s' has no file", is);
    }
    if (rc == 0) {
        attach(m, i, b);
        rc = disks_set_limits(m, i, e);
    }
    return rc;
}

static int open_flash(struct emu *m, unsigned i, struct board_config *b, struct err *e)
{
    const struct api_flash_bank *f = &m->config.flash[i];
    struct emu_file *given = given_file(m, f->file);
    AUTO_FREE char *name = xasprintf("flash%u", i);
    struct blk_options o = { .name = name,
                             .driver = "raw",
                             .path = f->file,
                             .fd = given ? given->fd : -1,
                             .readonly = f->readonly };
    int rc;

    if (!given && m->opt.config_fd >= 0) {
        return err_set(e, -ENOENT, "flash file %s was not passed with --file", f->file);
    }
    rc = blk_open(m->pool, &o, &b->flash[i], e);
    if (rc == 0 && given) {
        given->fd = -1;
    }
    return rc;
}

/* A request of a disk that is far away holds a thread while it is under way. */
enum { FAR_THREADS = 16 };

static bool any_far(const struct emu *m)
{
    bool far = false;

    for (unsigned i = 0; i < m->config.n_disks; i++) {
        far |= m->config.disks[i].file && nbd_addr_is(m->config.disks[i].file);
    }
    return far;
}

static int open_disks(struct emu *m, struct board_config *b, struct err *e)
{
    const struct blk_pool_options po = { .thread_start = confine_io_thread,
                                         .arg = m,
                                         .threads = any_far(m) ? FAR_THREADS : 0,
                                         .io_threads = (unsigned)m->config.io_threads };
    int rc = 0;

    /* Later no thread can be made any more, and what is saved is packed and sealed by those of the jobs. */
    rc = jobs_start(m, e);
    /* With a slot to plug one into, disks may come later, too. */
    if (rc != 0 || (m->config.n_disks + m->config.n_flash == 0 && m->config.root_ports == 0)) {
        return rc;
    }
    rc = blk_pool_new(m->loop, &po, &m->pool, e);
    for (unsigned i = 0; i < m->config.n_disks && rc == 0; i++) {
        AUTO_FREE char *name = NULL;

        rc = build_open_disk(m, i, b, &name, e);
        b->n_disks += rc == 0;
    }
    for (unsigned i = 0; i < m->config.n_flash && rc == 0; i++) {
        rc = open_flash(m, i, b, e);
    }
    if (rc != 0) {
        while (b->n_disks > 0) {
            blk_close(b->disk[--b->n_disks].node);
        }
        for (unsigned i = 0; i < BOARD_MAX_FLASH; i++) {
            blk_close(b->flash[i]);
            b->flash[i] = NULL;
        }
    }
    return rc;
}

/* --- the VM
 * ---------------------------------------------------------------------------------- */

/* Local time is resolved by whoever can still read the host's time zone: the daemon, or, where a configuration is run by hand,
 * this process. */
static void set_clock(struct emu *m)
{
    const struct api_guest_clock *c = m->config.clock;

    if (c) {
        int64_t zone = c->base == API_CLOCK_BASE_LOCALTIME ? zone_offset() : 0;
        clock_set_wall_offset(m->vm->clock, (c->offset + zone) * INT64_C(1000000000));
    }
}

static int check_memory(const struct api_vm_config *c, struct err *e)
{
    uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t all = (uint64_t)c->memory;
    char want[32], have[32];

    for (size_t i = 0; i < c->n_memory_devices; i++) {
        all += (uint64_t)c->memory_devices[i].size; /* at most 16 TiB each */
    }
    if (all <= host) {
        return 0;
    }
    str_size(all, want, sizeof(want));
    str_size(host, have, sizeof(have));
    return err_set(e, -ENOMEM, "memory: %s are asked for, this host has %s", want, have);
}

static int new_vm(struct emu *m, struct board_config *b, struct err *e)
{
    const struct api_vm_config *c = &m->config;
    const struct engine *engine = NULL;
    const struct arch_ops *arch = NULL;
    void *config = NULL;
    int rc;

    for (unsigned i = 0; i < ARRAY_LEN(engines); i++) {
        engine = engines[i].id == c->engine ? &engines[i] : engine;
    }
    for (unsigned i = 0; i < ARRAY_LEN(arches); i++) {
        if (arches[i].id == c->arch) {
            arch = arches[i].ops;
            b->xlen = arches[i].xlen;
        }
    }
    m->board_class = board_find(api_enum_name(&api_type_machine, (int)c->machine));
    if (!engine || !arch || !m->board_class) {
        return err_set(e, -ENOTSUP, "this build has no %s",
                       !engine ? "such engine"
                       : !arch ? "such arch"
                               : "such machine");
    }
    if (!board_runs(m->board_class, arch->name)) {
        return err_set(e, -EINVAL, "machine %s has no %s processors", m->board_class->name,
                       arch->name);
    }
    rc = engine->configure(m, &config, e);
    if (rc == 0) {
        rc = vm_new(c->name, arch, engine->ops, m->loop, config, &m->vm, e);
    }
    if (rc == 0 && c->uuid) {
        str_copy(m->vm->uuid, sizeof(m->vm->uuid), c->uuid);
    }
    return rc;
}

static void usb_devices(struct emu *m, struct board_config *b)
{
    static const enum board_usb_kind kinds[] = {
        [API_USB_DEVICE_KIND_HUB] = BOARD_USB_HUB,
        [API_USB_DEVICE_KIND_KEYBOARD] = BOARD_USB_KEYBOARD,
        [API_USB_DEVICE_KIND_MOUSE] = BOARD_USB_MOUSE,
        [API_USB_DEVICE_KIND_TABLET] = BOARD_USB_TABLET
    };

    for (size_t i = 0; i < m->config.n_usb && i < BOARD_MAX_USB; i++) {
        b->usb[b->n_usb++] = (struct board_usb){ kinds[m->config.usb[i].type],
                                                 m->config.usb[i].port };
    }
}

int build_vm(struct emu *m, struct err *e)
{
    const struct api_vm_config *c = &m->config;
    struct board_config b = {
        .cpu_model = c->cpu,
        .cpus = (unsigned)c->cpus,
        .memory = (uint64_t)c->memory,
        .append = c->append,
        .virtio_console = c->console == API_CONSOLE_KIND_VIRTIO,
        .rng = c->rng,
        .panic = c->panic,
        .iommu = c->iommu == API_IOMMU_VIRTIO,
        .root_ports = (unsigned)c->root_ports,
    };
    int rc = check_memory(c, e);

    screen_new(m, &b);
    guard_new(m, &b);
    usb_devices(m, &b);
    if (rc == 0) {
        rc = balloon_new(m, &b, e);
    }
    if (rc == 0) {
        rc = memory_new(m, &b, e);
    }
    if (rc == 0) {
        rc = vsock_new(m, &b, e);
    }
    if (rc == 0) {
        rc = audio_new(m, &b, e);
    }
    if (rc == 0) {
        rc = new_vm(m, &b, e);
    }
    if (rc == 0) {
        set_clock(m);
        rc = record_new(m, e);
    }
    if (rc == 0) {
        b.console = record_console(m);
    }
    if (rc == 0) {
        rc = open_images(m, &b, e);
    }
    if (rc == 0) {
        rc = channels_open(m, &b, e);
    }
    if (rc == 0) {
        rc = nic_open_all(m, &b, e);
    }
    if (rc == 0) {
        rc = shares_open(m, &b, e);
    }
    if (rc == 0) {
        rc = open_disks(m, &b, e);
    }
    if (rc != 0) {
        nic_close_all(&b);
        shares_close_all(&b);
        return rc;
    }
    m->n_disks = m->disks.n_disks = b.n_disks;
    memcpy(m->disks.disk, b.disk, sizeof(b.disk));
    hotplug_name_all(m);
    rc = m->board_class->build(m->vm, &b, &m->board, e);
    if (rc != 0) {
        m->n_disks = 0;
    } else {
        nic_built(m);
        channels_built(m);
        record_built(m);
    }
    return rc;
}

/* --- the end
 * --------------------------------------------------------------------------------- */

struct flush {
    struct blk_req req;
    bool done;
    int result;
};

static void on_flushed(struct blk_req *r, int result)
{
    struct flush *f = r->arg;

    f->done = true;
    f->result = result;
}

int build_flush_disks(struct emu *m, struct err *e)
{
    int rc = 0;

    export_stop(m);
    migrate_disks_stop(m);
    jobs_stop(m);
    for (unsigned i = 0; i < m->n_disks; i++) {
        struct flush f = {
            .req = { .op = BLK_FLUSH, .flags = BLK_REPORT | BLK_UNHOOKED, .done = on_flushed }
        };

        f.req.arg = &f;
        blk_wait_idle(m->disk[i]); /* what the guest had under way reaches the image too */
        blk_submit(m->disk[i], &f.req);
        while (!f.done) {
            if (loop_run_once(m->loop, -1, e) != 0) {
                return -EIO;
            }
        }
        if (f.result != 0) {
            rc = err_errno(e, -f.result, "disk '%s': flush", blk_name(m->disk[i]));
        }
    }
    return rc;
}

void build_done(struct emu *m)
{
    export_stop(m);
    migrate_disks_stop(m);
    media_done(m);
    jobs_done(m);
    export_sweep_views(m);
    pager_free(m);
    state_free(m);
    migrate_free(m);
    struct vm *vm = m->vm;
    if (vm) {
        vm_free_devices(vm); /* and the disks */
        record_free(m);
        replay_free(vm);
        vm_free(vm);
    }
    m->vm = NULL;
    m->n_disks = 0;
    nbd_done(m);
    hotplug_done(m);
    balloon_free(m);
    memory_free(m);
    vsock_free(m);
    audio_free(m);
    guard_free(m);
    channels_free(m);
    shares_free(m);
    if (m->board) {
        m->board_class->free(m->board);
        m->board = NULL;
    }
    blk_pool_free(m->pool);
    m->pool = NULL;
    fd_autoclose(&m->opt.kvm_fd);
    m->opt.kvm_fd = -1;
    while (m->n_opened > 0) {
        close(m->opened[--m->n_opened].fd);
    }
}
