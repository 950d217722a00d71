/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: commands of a guest to SCSI units, disk and CD, by the virtio-scsi adapter (devices.h).
 */
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "fuzz_scsi";

#include "devices/scsi/units.h"
#include "engine/core/device.h"
#include "tests/fuzz/devices.h"

#include <errno.h>

#define TARGET                                                                                 \
    1 /* which random addresses often mean; the disk and the drive that are there have others */

static struct blk_node *extra; /* a unit that came and has not gone */

/* A unit comes, or goes whatever is under way there. */
static void plug(void)
{
    struct device *adapter = dev_find(vm, "scsi-mmio0");
    struct blk_options o = { .name = "extra", .driver = "raw", .path = "extra" };
    struct scsi_unit u = { .target = TARGET, .lun = 1, .serial = "extra" };
    struct err e = ERR_INIT;

    if (!adapter) {
        FUZZ_FAIL("no adapter");
    }
    if (!extra) {
        o.fd = memfd_create(o.name, MFD_CLOEXEC);
        if (ftruncate(o.fd, 1 << 20) < 0 || blk_open(pool, &o, &extra, &e) < 0) {
            FUZZ_FAIL("%s", e.msg);
        }
        u.node = extra;
        if (virtio_scsi_plug(adapter, &u, &e) < 0) {
            FUZZ_FAIL("%s", e.msg);
        }
        if (virtio_scsi_plug(adapter, &u, &e) != -EEXIST) {
            FUZZ_FAIL("its place is given twice");
        }
        return;
    }
    (void)virtio_scsi_listens(adapter);
    if (!virtio_scsi_unplug(adapter, extra) || virtio_scsi_unplug(adapter, extra)) {
        FUZZ_FAIL("it goes once");
    }
    for (unsigned i = 0; !virtio_scsi_release(adapter, extra); i++) {
        if (i > 100000) {
            FUZZ_FAIL("a unit that was unplugged does not leave");
        }
        loop_run_once(loop, 100000, NULL);
    }
    blk_close(extra);
    extra = NULL;
}

void fuzz_act(struct fuzz_in *in)
{
    uint64_t at = RV_VIRTIO + RV_VIRTIO_STEP;

    switch (fuzz_below(in, 9)) {
    case 0: /* the adapter's own registers and configuration */
        set(at + fuzz_below(in, 0x130), fuzz_64(in), 1u << fuzz_below(in, 4));
        break;
    case 1:
        get(at + fuzz_below(in, 0x130), 4);
        break;
    case 2:
        poke(somewhere(in), fuzz_64(in), 8);
        break;
    case 3:
        plug();
        break;
    default:
        scsi(in);
        break;
    }
}
