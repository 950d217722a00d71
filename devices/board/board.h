/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boards: which devices, where, on which interrupt, with which firmware. A board fills an empty
 * VM from a plain description; the JSON of the configuration is engine/emu's business.
 */
#ifndef VMD_DEVICES_BOARD_BOARD_H
#define VMD_DEVICES_BOARD_BOARD_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct balloon_watch;
struct virtio_mem_watch;
struct vsock_host;
struct audio_host;
struct watchdog_host;
struct blk_node;
struct board;
struct chr;
struct device;
struct display;
struct net_port;
struct vhost_user;
struct vm;

#define BOARD_MAX_DISKS 32
#define BOARD_MAX_FLASH 2
#define BOARD_MAX_MEMORY 4 /* devices of memory that comes and goes */
#define BOARD_MAX_NICS 8
#define BOARD_MAX_PORTS 16
#define BOARD_MAX_SERIAL 8
#define BOARD_MAX_SHARES 8

/* How a disk is attached. */
enum board_disk_bus {
    BOARD_VIRTIO_MMIO,
    BOARD_VIRTIO_PCI,
    BOARD_NVME,
    BOARD_SCSI,
    BOARD_SCSI_MMIO,
    BOARD_SATA,
    BOARD_USB
};
#define BOARD_ANY UINT32_MAX /* a controller of its own; the first free place */

/* How a network card is attached. */
enum board_nic_bus { BOARD_NIC_VIRTIO_MMIO, BOARD_NIC_VIRTIO_PCI };

/* What draws the screen. */
enum board_gpu {
    BOARD_GPU_NONE,
    BOARD_GPU_VIRTIO_PCI,
    BOARD_GPU_VIRTIO_MMIO,
    BOARD_GPU_BOCHS,
    BOARD_GPU_VGA
};
/* What a person types and points with; the first two come with a screen, all of them by USB. */
enum board_input { BOARD_KEYBOARD, BOARD_TABLET, BOARD_MOUSE, BOARD_N_INPUTS };
#define BOARD_SCREEN_INPUTS 2

#define BOARD_MAX_USB 32
enum board_usb_kind { BOARD_USB_HUB, BOARD_USB_KEYBOARD, BOARD_USB_TABLET, BOARD_USB_MOUSE };

/* An open file that is read again at each reset; path names it in messages. NULL path: none. */
struct board_file {
    const char *path;
    int fd; /* the board duplicates nothing: stays open as long as the board lives */
};

struct board_config {
    unsigned xlen; /* of the guest's CPUs: 32 or 64 */
    const char *cpu_model;
    unsigned cpus;
    uint64_t memory;            /* bytes, a multiple of 4096 */
    struct board_file firmware; /* none: the kernel starts in machine mode */
    struct board_file vga_rom;  /* of a VGA screen, for firmware that runs such; may be none */
    struct board_file kernel, initrd;
    const char *append; /* kernel command line or NULL */
    struct board_disk {
        const char *name;
        struct blk_node *node; /* taken by build, also when it fails */
        enum board_disk_bus bus;
        const char *serial;    /* NULL: the name */
        unsigned queues;       /* 0: 1 */
        bool cdrom, removable; /* scsi, sata, usb */
        bool tray_open;        /* of those, at the start */
        void (*tray_moved)(
            void *arg); /* the guest has moved one; any thread. NULL: nobody wants to know */
        void *tray_arg;
        bool hotplug;              /* virtio-pci, nvme: in the slot of a root port */
        uint32_t controller, unit; /* or BOARD_ANY */
        unsigned lun;
        const char
            *id; /* of its device, for one that comes while the VM runs; NULL: by its place */
    } disk[BOARD_MAX_DISKS];
    unsigned n_disks;
    struct blk_node
        *flash[BOARD_MAX_FLASH]; /* banks in order; taken by build, also when it fails */
    struct board_nic {
        const char *mac;
        struct net_port *port; /* taken by build, also when it fails; NULL: leads nowhere */
        enum board_nic_bus bus;
        unsigned mtu, queues;  /* 0: the driver's choice; pairs */
        bool hotplug;          /* virtio-pci: in the slot of a root port */
        struct board_file rom; /* virtio-pci: its expansion ROM; read once */
    } nic[BOARD_MAX_NICS];
    unsigned n_nics;
    struct board_screen {
        enum board_gpu gpu;
        struct display *display; /* outlives the VM */
        unsigned width, height;  /* at first */
        bool input;              /* keyboard and tablet */
    } screen;
    struct board_serial {
        const char *name;
        struct chr *chr; /* outlives the VM */
        bool console;    /* the guest makes a terminal of it */
    } serial
        [BOARD_MAX_SERIAL]; /* ports of a virtio-serial device, which is there when they are */
    unsigned n_serial;
    struct board_balloon {
        bool on;
        uint64_t target; /* bytes that the guest begins with; 0: all */
        unsigned period; /* seconds between statistics; 0: none after the first */
        bool deflate_on_oom, reporting;
        struct balloon_watch *watch; /* outlives the VM; may be NULL */
    } balloon;                       /* virtio-pci */
    struct board_memory {
        const char *id;
        uint64_t size, block, requested; /* bytes; block 0: what fits */
        struct virtio_mem_watch *watch;  /* outlives the VM; may be NULL */
    } memory_device[BOARD_MAX_MEMORY];   /* virtio-pci, above RAM */
    unsigned n_memory_devices;
    uint64_t memory_room; /* bytes of more devices that may come above these */
    struct board_vsock {
        uint64_t cid;            /* 0: none */
        struct vsock_host *host; /* outlives the VM; may be NULL */
    } vsock;                     /* virtio-pci */
    bool sound;                  /* a sound card, virtio-pci */
    struct audio_host *audio;    /* outlives the VM; may be NULL */
    bool watchdog;               /* i6300esb on PCI */
    struct watchdog_host *guard; /* who acts then; outlives the VM; may be NULL */
    struct board_usb {
        enum board_usb_kind kind;
        const char *port; /* "1.4"; NULL: the first free one */
    } usb
        [BOARD_MAX_USB]; /* at the USB controller, which is there when it has devices or disks */
    unsigned n_usb;
    struct board_share {
        const char *id, *tag;
        struct vhost_user *back; /* of virtio-fs; taken by build, also when it fails */
        int fd;                  /* of 9p: the socket of its server; likewise */
        bool hotplug;            /* in the slot of a root port */
    } share[BOARD_MAX_SHARES];
    unsigned n_shares;
    struct chr *console; /* may be NULL */
    bool virtio_console; /* the console is virtio, not the UART */
    bool rng;
    bool panic;          /* a device by which the guest tells of its panic */
    bool iommu;          /* virtio-iommu before all other PCI functions */
    unsigned root_ports; /* PCI Express root ports, each with a free slot */
};

struct board_class {
    const char *name; /* "rv-virt" */
    const char *doc;
    const char *const *archs; /* arch_ops.name of those that it has, ended by NULL */
    uint64_t ram_base;        /* guest physical */
    /* Builds vCPUs, memory, devices, firmware tables; loads the images once, so that errors
     * show now. The VM has not started. Main thread. The texts of `cfg` must outlive the
     * board. */
    int (*build)(struct vm *vm, const struct board_config *cfg, struct board **out,
                 struct err *e);
    /* After vm_free(), since devices may use the memory until then: gives it back. NULL is
     * fine. */
    void (*free)(struct board *b);
    /* The device tree of a built board, for people and tests; *blob stays the board's. NULL:
     * has none. */
    const void *(*fdt)(const struct board *b, uint32_t *size);
    /* Presses the power button, which asks the guest to shut down. NULL: has none. -ENODEV: no driver of the
     * guest listens to it; -ENOSPC: it has not answered to former presses. Main thread. */
    int (*powerdown)(struct board *b, struct err *e);
    /* Where memory devices may lie that come while the VM runs; false: there is no room. */
    bool (*memory_room)(struct board *b, uint64_t *at, uint64_t *size);
    /* The device of a network card, virtio-net; NULL: no such card. */
    struct device *(*nic)(struct board *b, unsigned i);
    /* The i-th PCI Express root port (pci_root_port.h); NULL: there are no more. */
    struct device *(*port)(struct board *b, unsigned i);
    /* The virtio-serial device; NULL: has none. */
    struct device *(*serial)(struct board *b);
    /* The device of a kind, for input_send() (devices/input/input.h); the one that came with the screen before one by USB. NULL: has
     * none. */
    struct device *(*input)(struct board *b, enum board_input kind);
};

extern const struct board_class rv_virt_board;
extern const struct board_class microvm_board;
extern const struct board_class q35_board;

const struct board_class *board_find(const char *name); /* NULL: unknown */
bool board_runs(const struct board_class *c, const char *arch);

#endif
