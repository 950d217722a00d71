/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Expansion ROMs (pci_rom.h). Main thread, at realize.
 */
#include "devices/bus/pci_rom.h"

#include "engine/base/fd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Offsets in an image and in its data structure "PCIR". */
enum { IMAGE_SIGNATURE = 0xaa55, IMAGE_SUM = 6, IMAGE_PCIR = 0x18, IMAGE_LEAST = 0x1a };
enum {
    PCIR_VENDOR = 4,
    PCIR_DEVICE = 6,
    PCIR_LENGTH = 0x10, /* of the image, in blocks */
    PCIR_TYPE = 0x14,
    PCIR_LAST = 0x15,
    PCIR_SIZE = 0x18
};
enum { TYPE_BIOS = 0 };
#define BLOCK 512u
#define SMALLEST 2048u /* of a ROM BAR */

static uint8_t sum_of(const uint8_t *p, size_t n)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < n; i++) {
        sum = (uint8_t)(sum + p[i]);
    }
    return sum;
}

/* Firmware adds the bytes of a BIOS image up to 0: what changed is taken from the byte that tools leave for that. */
static void set_device(uint8_t *image, size_t size, uint8_t *pcir, uint16_t device)
{
    uint8_t before = sum_of(image, size);

    pci_put(pcir + PCIR_DEVICE, device, 2);
    if (pcir[PCIR_TYPE] == TYPE_BIOS && before == 0) {
        image[IMAGE_SUM] = (uint8_t)(image[IMAGE_SUM] - sum_of(image, size));
    }
}

/* One image; its size, or 0 when it is none. *last: no other follows. */
static size_t check_image(const struct pci_fn *f, const char *path, uint8_t *image, size_t room,
                          bool *last, struct err *e)
{
    size_t at = room >= IMAGE_LEAST ? pci_get(image + IMAGE_PCIR, 2) : 0;
    uint8_t *pcir = image + at;

    if (at < IMAGE_LEAST || at + PCIR_SIZE > room || pci_get(image, 2) != IMAGE_SIGNATURE ||
        memcmp(pcir, "PCIR", 4) != 0) {
        err_set(e, -EINVAL, "%s: ROM %s is no PCI expansion ROM (55 AA, PCIR)", f->dev.id,
                path);
        return 0;
    }
    size_t size = pci_get(pcir + PCIR_LENGTH, 2) * BLOCK;
    uint16_t vendor = (uint16_t)pci_get(pcir + PCIR_VENDOR, 2),
             device = (uint16_t)pci_get(pcir + PCIR_DEVICE, 2),
             own = (uint16_t)pci_get(f->config + PCI_VENDOR, 2),
             own_device = (uint16_t)pci_get(f->config + PCI_DEVICE, 2);
    if (size == 0 || size > room || at + PCIR_SIZE > size) {
        err_set(e, -EINVAL, "%s: ROM %s ends before an image of it does", f->dev.id, path);
        return 0;
    }
    if (vendor != own) {
        err_set(e, -EINVAL, "%s: ROM %s is for devices %04x:%04x, not for %04x:%04x", f->dev.id,
                path, vendor, device, own, own_device);
        return 0;
    }
    if (device != own_device) {
        set_device(image, size, pcir, own_device);
    }
    *last = pcir[PCIR_LAST] & 0x80;
    return size;
}

static int read_file(const struct pci_fn *f, const struct pci_rom *rom, uint8_t *to, size_t n,
                     struct err *e)
{
    bool last = false;

    if (fd_pread(rom->fd, to, n, 0) != (ssize_t)n) {
        return err_set(e, -EIO, "%s: ROM %s cannot be read", f->dev.id, rom->path);
    }
    for (size_t at = 0; at < n && !last;) {
        size_t size = check_image(f, rom->path, to + at, n - at, &last, e);

        if (size == 0) {
            return -EINVAL;
        }
        at += size;
    }
    return 0;
}

int pci_rom_set(struct pci_fn *f, const struct pci_rom *rom, struct err *e)
{
    struct stat st;
    char name[64];
    uint64_t size = SMALLEST;
    int rc;

    if (!rom || !rom->path) {
        return 0;
    }
    if (fstat(rom->fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size < (off_t)BLOCK ||
        st.st_size > (off_t)PCI_ROM_MOST) {
        return err_set(e, -EINVAL, "%s: ROM %s: an expansion ROM has 512 bytes to 4 MiB",
                       f->dev.id, rom->path);
    }
    while (size < (uint64_t)st.st_size) {
        size *= 2;
    }
    snprintf(name, sizeof(name), "%s.rom", f->dev.id);
    rc = mem_new_rom(name, size, &f->rom_region, e);
    if (rc == 0) {
        uint8_t *bytes = mem_ram_host(f->rom_region);

        memset(bytes, 0xff, size);
        rc = read_file(f, rom, bytes, (size_t)st.st_size, e);
    }
    if (rc == 0) {
        f->bar[PCI_BAR_ROM] = (struct pci_bar){ .region = f->rom_region, .size = size };
        pci_put(f->writable + PCI_ROM, ~(size - 1) | PCI_ROM_ENABLE, 4);
    }
    return rc;
}
