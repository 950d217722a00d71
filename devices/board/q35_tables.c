/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What firmware is told about a q35 by fw_cfg and CMOS (QEMU firmware configuration specification; SeaBIOS' and OVMF's readers): sizes, memory map, console, ACPI and SMBIOS. Main thread; the ACPI tables are made
 * anew on a vCPU's thread when firmware looks at them, since they say where it has put config space.
 */
#include "devices/board/q35.h"

#include "devices/misc/fw_cfg.h"
#include "devices/timer/mc146818.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/core/vm.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define KIB 1024ull
#define MIB (1024 * KIB)
#define VGA_ROM "vgaroms/vgabios.bin"
#define ROM_MOST (256 * KIB)

struct area {
    uint64_t at, size;
    uint32_t type;
} __attribute__((packed));
enum { AREA_RAM = 1 };

static int add_map(struct board *b, struct err *e)
{
    uint64_t low = q35_low_ram(b), all = b->p.cfg.memory;
    const struct area area[] = {
        { htole64(0), htole64(low), htole32(AREA_RAM) },
        { htole64(Q35_HIGH), htole64(all - low), htole32(AREA_RAM) },
    };

    return fw_cfg_add_file(b->fw_cfg, "etc/e820", area, sizeof(area[0]) * (all > low ? 2 : 1),
                           e);
}

/* Older readers look into CMOS: memory above 1 and 16 MiB, and above 4 GiB. */
static void set_cmos(struct board *b)
{
    uint64_t low = q35_low_ram(b), high = b->p.cfg.memory - low;
    uint64_t above1 = (low - MIB) / KIB, above16 = (low - 16 * MIB) / (64 * KIB);
    const struct {
        uint8_t at;
        uint64_t value;
        unsigned n;
    } set[] = {
        { 0x15, 640, 2 },
        { 0x17, above1 < 0xffff ? above1 : 0xffff, 2 },
        { 0x30, above1 < 0xffff ? above1 : 0xffff, 2 },
        { 0x34, above16 < 0xffff ? above16 : 0xffff, 2 },
        { 0x5b, high / (64 * KIB), 3 },
        { 0x5f, b->p.cfg.cpus - 1 < 255 ? b->p.cfg.cpus - 1 : 255, 1 },
        { 0x14, 6, 1 }, /* coprocessor, PS/2 mouse */
        /* Where SeaBIOS looks for a system, a nibble each: 1 floppy, 2 hard disk, 3 CD, 4 network. First and second (low, high), third (high). */
        { 0x3d, 0x32, 1 },
        { 0x38, 0x40, 1 }
    };

    for (unsigned i = 0; i < ARRAY_LEN(set); i++) {
        for (unsigned k = 0; k < set[i].n; k++) {
            mc146818_set(b->rtc, set[i].at + k, (uint8_t)(set[i].value >> 8 * k));
        }
    }
}

static void set_items(struct board *b)
{
    const struct board_config *c = &b->p.cfg;
    uint8_t uuid[16];

    fw_cfg_set_u64(b->fw_cfg, FW_CFG_RAM_SIZE, c->memory);
    fw_cfg_set_u16(b->fw_cfg, FW_CFG_NB_CPUS, (uint16_t)c->cpus);
    fw_cfg_set_u16(b->fw_cfg, FW_CFG_MAX_CPUS, (uint16_t)c->cpus);
    fw_cfg_set_u16(b->fw_cfg, FW_CFG_NOGRAPHIC, c->screen.gpu == BOARD_GPU_NONE);
    fw_cfg_set_u16(b->fw_cfg, FW_CFG_BOOT_MENU, 1);
    if (parts_uuid(&b->p, uuid)) {
        fw_cfg_set(b->fw_cfg, FW_CFG_UUID, uuid, sizeof(uuid));
    }
}

/* SeaBIOS runs the screen's ROM from here; it is in no BAR. */
static int add_vga_rom(struct board *b, struct err *e)
{
    const struct board_file *f = &b->p.cfg.vga_rom;
    AUTO_FREE uint8_t *bytes = NULL;
    struct stat st;

    if (!f->path || b->p.cfg.screen.gpu != BOARD_GPU_VGA) {
        return 0;
    }
    if (fstat(f->fd, &st) < 0 || st.st_size <= 0 || st.st_size > (off_t)ROM_MOST) {
        return err_set(e, -EINVAL, "VGA ROM %s: such have at most 256 KiB", f->path);
    }
    bytes = xalloc((size_t)st.st_size);
    if (fd_pread(f->fd, bytes, (size_t)st.st_size, 0) != (ssize_t)st.st_size) {
        return err_set(e, -EIO, "VGA ROM %s cannot be read", f->path);
    }
    return fw_cfg_add_file(b->fw_cfg, VGA_ROM, bytes, (size_t)st.st_size, e);
}

/* A number by which firmware is set. */
static int add_number(struct board *b, const char *name, uint64_t value, unsigned n,
                      struct err *e)
{
    uint64_t le = htole64(value);

    return fw_cfg_add_file(b->fw_cfg, name, &le, n, e);
}

/* ACPI: sizes do not depend on where config space is, so that files are there from the start and are filled when they are looked at. */
static void refresh_acpi(void *arg)
{
    struct board *b = arg;
    AUTO_BUF tables = BUF_INIT;
    AUTO_BUF rsdp = BUF_INIT;
    AUTO_BUF loader = BUF_INIT;

    q35_acpi(b, &tables, &rsdp, &loader);
    (void)fw_cfg_replace_file(b->fw_cfg, "etc/acpi/tables", tables.data, tables.len);
}

static int add_acpi(struct board *b, struct err *e)
{
    AUTO_BUF tables = BUF_INIT;
    AUTO_BUF rsdp = BUF_INIT;
    AUTO_BUF loader = BUF_INIT;
    int rc;

    q35_acpi(b, &tables, &rsdp, &loader);
    rc = fw_cfg_add_file(b->fw_cfg, "etc/acpi/tables", tables.data, tables.len, e);
    rc = rc == 0 ? fw_cfg_add_file(b->fw_cfg, "etc/acpi/rsdp", rsdp.data, rsdp.len, e) : rc;
    rc = rc == 0 ? fw_cfg_add_file(b->fw_cfg, FW_CFG_LOADER, loader.data, loader.len, e) : rc;
    fw_cfg_set_hook(b->fw_cfg, refresh_acpi, b);
    return rc;
}

static int add_smbios(struct board *b, struct err *e)
{
    AUTO_BUF anchor = BUF_INIT;
    AUTO_BUF tables = BUF_INIT;
    int rc;

    q35_smbios(b, &anchor, &tables);
    rc = fw_cfg_add_file(b->fw_cfg, "etc/smbios/smbios-anchor", anchor.data, anchor.len, e);
    return rc == 0 ? fw_cfg_add_file(b->fw_cfg, "etc/smbios/smbios-tables", tables.data,
                                     tables.len, e)
                   : rc;
}

int q35_add_tables(struct board *b, struct err *e)
{
    int rc;

    set_items(b);
    set_cmos(b);
    rc = add_map(b, e);
    rc = rc == 0 ? add_acpi(b, e) : rc;
    rc = rc == 0 ? add_smbios(b, e) : rc;
    rc = rc == 0 ? add_number(b, "etc/boot-menu-wait", 1000, 2, e) : rc;
    if (rc == 0 && b->p.cfg.screen.gpu == BOARD_GPU_NONE) {
        rc = add_number(b, "etc/sercon-port", Q35_COM1, 2, e);
    }
    return rc == 0 ? add_vga_rom(b, e) : rc;
}
