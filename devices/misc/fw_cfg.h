/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filling the fw_cfg device: numbered items and named files. Main thread, before the VM starts.
 */
#ifndef VMD_DEVICES_MISC_FW_CFG_H
#define VMD_DEVICES_MISC_FW_CFG_H

#include "engine/base/err.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

struct device;

/* Well-known item numbers (QEMU firmware configuration specification). */
enum fw_cfg_key {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_UUID = 0x02,
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_NOGRAPHIC = 0x04,
    FW_CFG_NB_CPUS = 0x05,
    FW_CFG_BOOT_MENU = 0x0e,
    FW_CFG_MAX_CPUS = 0x0f,
    FW_CFG_CMDLINE_SIZE = 0x14,
    FW_CFG_CMDLINE_DATA = 0x15,
    FW_CFG_FILE_DIR = 0x19,
    FW_CFG_FILE_FIRST = 0x20
};

/* Copies n bytes as the item `key` (below FW_CFG_FILE_FIRST), replacing what was there. */
void fw_cfg_set(struct device *fw_cfg, unsigned key, const void *p, size_t n);
void fw_cfg_set_u16(struct device *fw_cfg, unsigned key, uint16_t v);
void fw_cfg_set_u64(struct device *fw_cfg, unsigned key, uint64_t v);
/* Adds a file (name up to 55 bytes, unique) and puts it into the directory, sorted by name.
 * -ENOSPC: too many. */
int fw_cfg_add_file(struct device *fw_cfg, const char *name, const void *p, size_t n,
                    struct err *e);

/* Other bytes for a file, as many as it has. -ENOENT: there is no such file of that size. Also from the hook below. */
int fw_cfg_replace_file(struct device *fw_cfg, const char *name, const void *p, size_t n);
/* Calls `before` once after each reset when the guest selects the file FW_CFG_LOADER, with the device's lock held, on a vCPU's thread. */
#define FW_CFG_LOADER "etc/table-loader"
void fw_cfg_set_hook(struct device *fw_cfg, void (*before)(void *arg), void *arg);

#endif
