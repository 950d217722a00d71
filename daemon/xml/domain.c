/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Domain XML: what of it vmd's VMs know. To add an element, add a row (table.h tells what each kind of row does) and run `make docs`;
 * tests/xml compares the table with libvirt's own schema. Constant data.
 */
#include "api-schema/gen/types.h"
#include "api-schema/json/json.h"
#include "daemon/xml/channels.h"
#include "daemon/xml/cpu.h"
#include "daemon/xml/export.h"
#include "daemon/xml/extras.h"
#include "daemon/xml/nic.h"
#include "daemon/xml/rows.h"
#include "daemon/xml/screen.h"
#include "daemon/xml/tree.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <string.h>

/* Why something is refused. */
#define NO_ACPI "the board describes itself by a device tree; it has no ACPI or SMBIOS tables"
#define NO_BUS "the board has neither PCI nor USB, its devices are virtio-mmio"
#define NO_SOUND "sound goes to a file, and a screen is seen by VNC only"
#define NO_CARD_BUS                                                                            \
    "not supported: a card is at virtio-mmio (also where none is given) or at pci"
#define NO_NET "no part of vmd does that to a network card"
#define NO_DISK "vmd's disks are image files, volumes of pools and exports of NBD servers"
#define NO_TUNE "vmd does not set this; see limits of the definition for what it does"
#define NO_BOARD "the board has no such device"
#define NO_X86 "it belongs to PCs, and the board is none"
#define NO_PEER "it belongs to another hypervisor"
#define ADDRESS "vmd's board gives each device its place, in the order of the definition"
#define ALIAS "libvirt makes these names up for running domains"

/* ---- disks ---- */

/* The bus of a disk: <target bus> and, for virtio, what kind of <address> it asks for. Both rows read it, in whichever order they
 * come. NULL with e: vmd has no such thing. */
static const char *disk_bus(const struct xml_node *disk, struct err *e)
{
    static const struct {
        const char *bus, *address, *ours;
    } kinds[] = {
        { "virtio", "virtio-mmio", "virtio-mmio" },
        { "virtio", "pci", "virtio-pci" },
        { "scsi", "drive", "scsi" },
        { "sata", "drive", "sata" },
        { "usb", "usb", "usb" },
    };
    const struct xml_node *target = xml_get_kid(disk, "target"),
                          *address = xml_get_kid(disk, "address");
    const char *bus = target ? xml_get_attr(target, "bus") : NULL,
               *type = address ? xml_get_attr(address, "type") : NULL;
    bool known = false;

    bus = bus ? bus : "virtio";
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
        if (strcmp(bus, kinds[i].bus) == 0) {
            known = true;
            if (!type || strcmp(type, kinds[i].address) == 0) {
                return kinds[i].ours;
            }
        }
    }
    if (known) {
        err_set(e, -EINVAL,
                "not supported: a disk at bus '%.20s' has no address of type '%.20s'", bus,
                type);
    } else {
        err_set(e, -EINVAL,
                "not supported: vmd's buses of disks are virtio, scsi, sata and usb");
    }
    return NULL;
}

static int bus_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                   struct json_object **out, struct err *e)
{
    const char *bus = disk_bus(n->parent, e);

    (void)row;
    (void)text;
    if (bus) {
        *out = json_object_new_string(bus);
    }
    return bus ? 0 : -1;
}

/* What libvirt has no word for stands in <metadata>, over this. */
static const char *bus_word(struct json_object *v)
{
    const char *bus = json_object_get_string(v);

    return str_starts(bus, "scsi")    ? "scsi"
           : strcmp(bus, "sata") == 0 ? "sata"
           : strcmp(bus, "usb") == 0  ? "usb"
                                      : "virtio";
}

static bool bus_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                    struct buf *text)
{
    (void)row;
    (void)n;
    buf_add_str(text, bus_word(v));
    return true;
}

static bool address_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                        struct buf *text)
{
    const char *bus = json_object_get_string(v), *word = bus_word(v);

    (void)row;
    (void)n;
    if (strcmp(word, "usb") == 0) {
        return false; /* its port is the first that is free */
    }
    buf_add_str(text, strcmp(word, "virtio") != 0       ? "drive"
                      : strcmp(bus, "virtio-mmio") == 0 ? "virtio-mmio"
                                                        : "pci");
    return true;
}

/* Names of target@dev in libvirt's schema that a disk of a bus may have. */
static const char *dev_prefix(const struct xml_node *target)
{
    const char *bus = xml_get_attr(target, "bus");

    return bus && strcmp(bus, "virtio") != 0 ? "sd" : "vd";
}

static bool is_dev(const char *s, const char *prefix)
{
    return str_starts(s, prefix) && s[2] &&
           s[2 + strspn(s + 2, "abcdefghijklmnopqrstuvwxyz")] == 0;
}

static int dev_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                   struct json_object **out, struct err *e)
{
    (void)row;
    if (!xml_get_attr(n, "bus") && !str_starts(text, "vd")) {
        return err_set(e, -EINVAL,
                       "not supported: the name asks for another bus than virtio, and no bus "
                       "is named");
    }
    *out = json_object_new_string(text);
    return 0;
}

static bool dev_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                    struct buf *text)
{
    const char *name = v ? json_object_get_string(v) : NULL, *prefix = dev_prefix(n);
    size_t i = 0;

    (void)row;
    if (name && is_dev(name, prefix)) {
        buf_add_str(text, name);
        return true;
    }
    /* A name by its place; the disk's own one then stands in <metadata>. */
    for (const struct xml_node *disk = n->parent; disk->parent->kids[i] != disk;) {
        i++;
    }
    size_t at = 0;
    for (size_t k = 0; k < i; k++) {
        at += strcmp(n->parent->parent->kids[k]->name, "disk") == 0;
    }
    buf_printf(text, "%s%c", prefix, (char)('a' + at % 26));
    return true;
}

/* Places at a controller: a SCSI target and its logical unit, or the port of a SATA controller, which libvirt calls unit of target
 * 0. */
static int place_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                     struct json_object **out, struct err *e)
{
    const char *bus = disk_bus(n->parent, NULL), *port = xml_get_attr(n, "unit");
    bool sata = bus && strcmp(bus, "sata") == 0;

    if (!sata) {
        return xml_as_int.get(row, n, text, out, e);
    }
    if (strcmp(text, "0") != 0) {
        return err_set(e, -EINVAL,
                       "not supported: the ports of a SATA controller are units of target 0");
    }
    return port ? xml_as_int.get(row, n, port, out, e) : 0;
}

static bool place_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                      struct buf *text)
{
    const struct xml_node *target = xml_get_kid(n->parent, "target");
    const char *bus = target ? xml_get_attr(target, "bus") : NULL;
    AUTO_BUF port = BUF_INIT;

    if (!bus || strcmp(bus, "sata") != 0) {
        return xml_as_int.put(row, v, n, text);
    }
    if (xml_as_int.put(row, v, n, &port)) {
        xml_set_attr(n, "unit", port.data);
        buf_add_str(text, "0");
    }
    return port.len > 0;
}

static int unit_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                    struct json_object **out, struct err *e)
{
    const char *bus = disk_bus(n->parent, NULL);

    if (!bus || strcmp(bus, "sata") != 0) {
        return xml_as_int.get(row, n, text, out, e);
    }
    return xml_get_attr(n, "target") /* which takes it */
               ? 0
               : err_set(e, -EINVAL,
                         "not supported: a port of a SATA controller without target='0'");
}

/* Of SATA disks the row of the target writes it. */
static bool unit_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                     struct buf *text)
{
    const struct xml_node *target = xml_get_kid(n->parent, "target");
    const char *bus = target ? xml_get_attr(target, "bus") : NULL;

    return bus && strcmp(bus, "sata") != 0 && xml_as_int.put(row, v, n, text);
}

static int device_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                      struct json_object **out, struct err *e)
{
    const char *bus = disk_bus(n, NULL);

    (void)row;
    if (strcmp(text, "disk") == 0) {
        return 0;
    }
    if (strcmp(text, "cdrom") != 0) {
        return err_set(e, -EINVAL, "not supported: '%.20s'; vmd knows disk and cdrom", text);
    }
    if (bus && str_starts(bus, "virtio")) {
        return err_set(e, -EINVAL,
                       "not supported: a CD-ROM drive is at the bus scsi, sata or usb");
    }
    *out = json_object_new_boolean(true);
    return 0;
}

static bool device_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                       struct buf *text)
{
    (void)row;
    (void)n;
    buf_add_str(text, v && json_object_get_boolean(v) ? "cdrom" : "disk");
    return true;
}

/* `default` is what is so when nothing is said. */
static int cache_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                     struct json_object **out, struct err *e)
{
    return strcmp(text, "default") == 0 ? 0 : xml_as_word.get(row, n, text, out, e);
}

static bool cache_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                      struct buf *text)
{
    return v && xml_as_word.put(row, v, n, text);
}

/* Versions of a machine as others number them ("pc-q35-7.2") are the machine. */
static int machine_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                       struct json_object **out, struct err *e)
{
    bool versioned = strncmp(text, "pc-q35-", 7) == 0;

    return xml_as_word.get(row, n, versioned ? "q35" : text, out, e);
}

static bool machine_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                        struct buf *text)
{
    return xml_as_word.put(row, v, n, text);
}

/* Only such characters may stand in libvirt's; other serial numbers stand in <metadata>. */
static bool serial_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                       struct buf *text)
{
    static const char fine[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+- ";
    const char *serial = json_object_get_string(v);

    return serial[0] && !serial[strspn(serial, fine)] && xml_as_text.put(row, v, n, text);
}

static int serial_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                      struct json_object **out, struct err *e)
{
    return xml_as_text.get(row, n, text, out, e);
}

/* 0 is no limit, which libvirt says by leaving the element out: it knows limits of both ways or of each, not all at once. */
static bool limit_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                      struct buf *text)
{
    return json_object_get_int64(v) != 0 && xml_as_int.put(row, v, n, text);
}

static int limit_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                     struct json_object **out, struct err *e)
{
    return xml_as_int.get(row, n, text, out, e);
}

/* A closed one is not said: all are, but the open ones. */
static bool tray_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                     struct buf *text)
{
    (void)row;
    (void)n;
    buf_add_str(text, "open");
    return json_object_get_boolean(v);
}

static int tray_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                    struct json_object **out, struct err *e)
{
    bool open = strcmp(text, "open") == 0;

    (void)row;
    (void)n;
    if (!open && strcmp(text, "closed") != 0) {
        return err_set(e, -EINVAL, "'%.20s' is neither open nor closed", text);
    }
    *out = open ? json_object_new_boolean(true) : NULL;
    return 0;
}

static const struct xml_conv as_tray = { tray_get, tray_put, "open or closed" };
static const struct xml_conv as_limit = { limit_get, limit_put, "a number" };
static const struct xml_conv as_serial = { serial_get, serial_put, "text" };
static const struct xml_conv as_dev = {
    dev_get, dev_put, "a name: `vda` and so on at the bus virtio, `sda` at the others"
};
static const struct xml_conv as_bus = { bus_get, bus_put, "`virtio`, `scsi`, `sata`" };
static const struct xml_conv as_address = {
    bus_get, address_put,
    "`virtio-mmio` (also where none is given) or `pci` for virtio, `drive` for the others"
};
static const struct xml_conv as_place = { place_get, place_put, "a SCSI target; `0` for SATA" };
static const struct xml_conv as_unit = { unit_get, unit_put,
                                         "a logical unit of SCSI, a port of SATA" };
static const struct xml_conv as_device = { device_get, device_put, "`disk`, `cdrom`" };
static const struct xml_conv xml_as_machine = {
    machine_get, machine_put,
    "`virt`, `microvm`, `q35` (also `pc-q35-` and a version); board of the guest"
};
static const struct xml_conv as_cache = { cache_get, cache_put, "how writes reach the medium" };

/* ---- the table ---- */

static const struct xml_row rows[] = {
    { "@type", XML_VALUE, XML_NEEDED, "engine", &xml_as_word, "qemu=tcg kvm=kvm",
      "not supported: `qemu` stands for translation, `kvm` for the host's processor by KVM" },
    LEFT("@id", "the number of a running domain"),
    MUST("name", "name", xml_as_word, "letters, digits and . _ + -, at most 63"),
    VALUE("uuid", "uuid", xml_as_uuid, NULL),
    VALUE("title", "title", xml_as_text, NULL),
    VALUE("description", "description", xml_as_text, NULL),
    { "metadata", XML_ANY, 0, "metadata", NULL, NULL,
      "elements of other programs are kept as they are (comments and unused namespaces go); "
      "what vmd knows and libvirt has no element for stands in `vmd:definition`" },
    NO("genid", "the board has no generation ID device"),

    { "memory", XML_VALUE, XML_NEEDED, "memory", &xml_as_size, "KiB", "a multiple of 4 KiB" },
    PART("memory@unit", NULL),
    SAYS("memory@dumpCore", 0, "off", "guest memory is kept out of core dumps"),
    { "currentMemory", XML_VALUE, XML_ABSENT, "balloon.memory", &xml_as_current, "KiB", NULL },
    PART("currentMemory@unit", NULL),
    { "maxMemory", XML_VALUE, 0, "memory_max", &xml_as_max_memory, "KiB", NULL },
    PART("maxMemory@unit", NULL),
    PART("maxMemory@slots", "devices that come take slots of PCI Express root ports"),
    GROUP("memoryBacking", 0),
    LEFT("memoryBacking/hugepages",
         "guest memory is in huge pages where the host gives them; none are set aside"),
    LEFT("memoryBacking/nosharepages", "guest memory is never merged with others'"),
    GROUP("memoryBacking/source", 0),
    SAYS("memoryBacking/source@type", 0, "anonymous memfd",
         "guest memory is an anonymous, sealed file"),
    GROUP("memoryBacking/access", 0),
    SAYS("memoryBacking/access@mode", 0, "private shared",
         "shared folders work without the whole memory being theirs"),
    GROUP("memoryBacking/allocation", 0),
    SAYS("memoryBacking/allocation@mode", 0, "ondemand", "pages are taken as they are used"),
    NO("memoryBacking/allocation@threads", "pages are taken as they are used"),
    NO("memoryBacking/locked|discard", NO_TUNE),
    SIZE("memtune/hard_limit", "limits.memory_max", "KiB",
         "of the whole emulator, by a control group"),
    PART("memtune/hard_limit@unit", NULL),
    GROUP("memtune", 0),
    NO("memtune/soft_limit|swap_hard_limit|min_guarantee", NO_TUNE),
    NO("numatune", NO_TUNE),

    VALUE("vcpu", "cpus", xml_as_int, NULL),
    SAYS("vcpu@placement", 0, "static auto", "the host's scheduler places vCPUs"),
    { "vcpu@current", XML_SAME, 0, "cpus", &xml_as_int, NULL,
      "vCPUs cannot be plugged in later" },
    NO("vcpu@cpuset", NO_TUNE),
    NO("vcpus", "vCPUs cannot be plugged in later"),
    VALUE("iothreads", "io_threads", xml_as_int, "at most 16"),
    LEFT("iothreadids|defaultiothread", "I/O threads have the numbers from 1"),
    GROUP("cputune", 0),
    VALUE("cputune/shares", "limits.cpu_weight", xml_as_int, "weight of the control group"),
    NO("cputune/"
       "period|quota|global_period|global_quota|emulator_period|emulator_quota|iothread_period|"
       "iothread_quota|vcpupin|emulatorpin|iothreadpin|vcpusched|iothreadsched|emulatorsched|"
       "cachetune|memorytune",
       NO_TUNE),
    GROUP("blkiotune", 0),
    VALUE("blkiotune/weight", "limits.io_weight", xml_as_int, "weight of the control group"),
    NO("blkiotune/device", NO_TUNE),
    NO("resource", "vmd places its control groups itself"),

    GROUP("os", XML_NEEDED),
    NO("os@firmware", "vmd chooses no firmware; name it: <loader type='pflash'>"),
    SAYS("os/type", XML_PRINT | XML_NEEDED, "hvm", "a whole machine is emulated"),
    { "os/type@arch", XML_VALUE, XML_NEEDED, "arch", &xml_as_word,
      "riscv64=riscv64 riscv32=riscv32 x86_64=x86_64",
      "not supported: architecture of the guest" },
    { "os/type@machine", XML_VALUE, 0, "machine", &xml_as_machine,
      "virt=rv-virt microvm=microvm q35=q35", "not supported: board of the guest" },
    VALUE("os/loader", "firmware", xml_as_loader,
          "a file that starts in machine mode (rom; absent: OpenSBI under a kernel), or "
          "`flash[0]`, code in flash (pflash)"),
    { "os/loader@type", XML_VALUE, XML_ABSENT, "flash", &xml_as_flash, NULL, NULL },
    PART("os/loader@readonly", "`yes`; `no` is for flash"),
    SAYS("os/loader@secure", 0, "no", NO_X86),
    SAYS("os/loader@format", 0, "raw", "images of flash are raw"),
    NO("os/loader@stateless", "say so by the banks of flash"),
    VALUE("os/nvram", "flash", xml_as_nvram, "`flash[1]`, variables in flash"),
    NO("os/nvram@template", "make the file by copying the template"),
    SAYS("os/nvram@type", 0, "file", "a bank of flash is an image file"),
    SAYS("os/nvram@format", 0, "raw", "images of flash are raw"),
    NO("os/nvram/source", "a bank of flash is an image file, named in the element's text"),
    VALUE("os/kernel", "kernel", xml_as_path, NULL),
    VALUE("os/initrd", "initrd", xml_as_path, NULL),
    VALUE("os/cmdline", "append", xml_as_text, NULL),
    { "os/boot", XML_GROUP, XML_MANY, NULL, NULL, NULL, NULL },
    SAYS("os/boot@dev", 0, "hd",
         "the kernel is loaded by vmd, or the firmware looks through the disks: there is no "
         "other order"),
    GROUP("os/bootmenu", 0),
    SAYS("os/bootmenu@enable", 0, "no", "the board has no boot menu"),
    NO("os/bootmenu@timeout", "the board has no boot menu"),
    NO("os/firmware|bios", "vmd chooses no firmware; name it: <loader type='pflash'>"),
    NO("os/acpi|smbios", NO_ACPI),
    NO("os/dtb", "the board makes its device tree itself"),
    NO("os/init|initarg|initdir|initenv|inituser|initgroup|idmap", "it belongs to containers"),
    NO("os/root", NO_PEER),
    NO("idmap", "it belongs to containers"),
    NO("bootloader|bootloader_args", NO_PEER),
    NO("sysinfo", NO_ACPI),

    GROUP("features", 0),
    NO("features/acpi", NO_ACPI),
    NO("features/"
       "apic|ioapic|pae|smm|vmport|hap|hyperv|kvm|xen|viridian|pvspinlock|pmu|msrs|vmcoreinfo",
       NO_X86),
    NO("features/gic|hpt|htm|nested-hv|ccf-assist|cfpc|sbbc|ibs",
       "it belongs to other architectures"),
    NO("features/capabilities|privnet", "it belongs to containers"),
    NO("features/tcg", "set tcg.cache_size of the definition"),
    NO("features/aia", "the board has a PLIC"),

    { "cpu", XML_VALUE, 0, "cpu", &xml_as_cpu, NULL, NULL },
    PART("cpu@mode", "`maximum`, `host-passthrough` (KVM), or `custom` with a model"),
    PART("cpu@match", "`exact`"),
    SAYS("cpu@check", 0, "none partial full", "the guest always has exactly what is named"),
    NO("cpu@migratable", "the guest's CPU is translated, the host's is not passed on"),
    PART("cpu/model", "a model of `host.capabilities`"),
    SAYS("cpu/model@fallback", XML_PRINT, "forbid allow",
         "a model that vmd does not know is refused"),
    NO("cpu/model@vendor_id", NO_X86),
    PART("cpu/feature", "what differs from the model"),
    PART("cpu/feature@name", NULL),
    PART("cpu/feature@policy", "`require`, `disable`"),
    GROUP("cpu/topology", 0),
    SAYS("cpu/topology@sockets", 0, "1", "the board shows one socket of single-threaded cores"),
    SAYS("cpu/topology@dies", 0, "1", "the board shows one socket of single-threaded cores"),
    SAYS("cpu/topology@clusters", 0, "1",
         "the board shows one socket of single-threaded cores"),
    { "cpu/topology@cores", XML_SAME, 0, "cpus", &xml_as_int, NULL,
      "the board shows one socket of single-threaded cores" },
    SAYS("cpu/topology@threads", 0, "1", "the board shows one socket of single-threaded cores"),
    NO("cpu/vendor|cache|maxphysaddr", NO_X86),
    NO("cpu/numa", "the board has one memory node"),

    GROUP("clock", XML_PRINT),
    { "clock@offset", XML_VALUE, XML_PRINT, "clock.base", &xml_as_word,
      "utc= utc=utc localtime=localtime", "not supported: what the board's clock starts from" },
    NO("clock@adjustment|basis|timezone|start",
       "set clock.offset of the definition, in seconds"),
    NO("clock/timer", "the board has its timers, and no choice of them"),

    SAYS("on_poweroff", XML_PRINT, "destroy",
         "a VM whose guest powered off has ended; the restart policy of the definition may "
         "start it again"),
    SAYS("on_reboot", XML_PRINT, "restart", "a guest that reboots goes on in the same VM"),
    WORD("on_crash", "restart.mode", "destroy= restart=on-failure",
         "not supported: the VM ends, or is started again"),
    NO("on_lockfailure", "a VM whose disk is locked does not start"),
    GROUP("pm", 0),
    GROUP("pm/suspend-to-mem", 0),
    SAYS("pm/suspend-to-mem@enabled", XML_NEEDED, "no", "the board cannot sleep"),
    GROUP("pm/suspend-to-disk", 0),
    SAYS("pm/suspend-to-disk@enabled", XML_NEEDED, "no", "the board cannot sleep"),
    GROUP("seclabel", 0),
    SAYS("seclabel@type", XML_NEEDED, "none",
         "emulators are confined by vmd's own sandbox, without labels"),
    NO("seclabel@model|relabel", "emulators are confined by vmd's own sandbox, without labels"),
    NO("seclabel/label|baselabel|imagelabel",
       "emulators are confined by vmd's own sandbox, without labels"),
    NO("perf", "use vmctl stats"),
    NO("keywrap|launchSecurity", "it belongs to other architectures"),

    GROUP("devices", XML_PRINT),
    LEFT("devices/emulator", "the program of another hypervisor; vmd starts its own"),

    LIST("devices/disk", "disks", NULL),
    { "devices/disk@type", XML_VALUE, XML_NEEDED | XML_ABSENT, "pool", &xml_as_disk_kind, NULL,
      NULL },
    { "devices/disk@device", XML_VALUE, XML_ABSENT, "cdrom", &as_device, NULL, NULL },
    NO("devices/disk@model", "the board's disks are virtio, modern"),
    NO("devices/disk@rawio|sgio", NO_DISK),
    NO("devices/disk@snapshot", "snapshots are not there yet"),
    SAYS("devices/disk/driver@name", XML_PRINT, "qemu",
         "the word libvirt uses for image files"),
    WORD("devices/disk/driver@type", "format", "raw=raw qcow2=qcow2",
         "not supported: format of the image"),
    { "devices/disk/driver@cache", XML_VALUE, 0, "cache", &as_cache,
      "writeback=writeback none=none writethrough=writethrough directsync=directsync "
      "unsafe=unsafe",
      "`default` is writeback" },
    { "devices/disk/driver@error_policy", XML_VALUE, 0, "werror", &as_cache,
      "stop=stop report=report ignore=ignore enospace=enospc",
      "of writes; `default` is enospace" },
    { "devices/disk/driver@rerror_policy", XML_VALUE, 0, "rerror", &as_cache,
      "stop=stop report=report ignore=ignore", "of reads; `default` is report" },
    VALUE("devices/disk/driver@queues", "queues", xml_as_int, "1 to 16"),
    SAYS("devices/disk/driver@discard", 0, "unmap",
         "vmd gives discarded blocks back to the filesystem"),
    VALUE("devices/disk/driver@iothread", "io_thread", xml_as_int,
          "1 to the number of iothreads"),
    LEFT("devices/disk/driver@io",
         "vmd does I/O by io_uring, or by threads where the kernel has none"),
    GROUP("devices/disk/driver", 0),
    NO("devices/disk/"
       "driver@ioeventfd|event_idx|copy_on_read|queue_size|packed|ats|iommu|"
       "page_per_vq|detect_zeroes|max_bytes",
       NO_TUNE),
    NO("devices/disk/driver/metadata_cache|iothreads", NO_TUNE),
    GROUP("devices/disk/source", 0), /* a drive without a medium has none */
    VALUE("devices/disk/source@file", "file", xml_as_path, NULL),
    VALUE("devices/disk/source@pool", "pool", xml_as_text, "of a volume"),
    VALUE("devices/disk/source@volume", "volume", xml_as_text, NULL),
    { "devices/disk/source@protocol", XML_VALUE, 0, "file", &xml_as_export, NULL,
      "of a disk of a server" },
    PART("devices/disk/source@name", "the name of the export"),
    PART("devices/disk/source/host", "the server, once"),
    PART("devices/disk/source/host@name|port", "by TCP; absent, the port is 10809"),
    PART("devices/disk/source/host@transport|socket",
         "`tcp`, or `unix` with the path of a socket"),
    NO("devices/disk/source@tls|tlsHostname", "its folder of certificates has no place here; "
                                              "define the disk by an address nbds://..."),
    NO("devices/disk/"
       "source@dev|dir|mode|query|type|managed|"
       "namespace|path|fdgroup",
       NO_DISK),
    LEFT("devices/disk/source@index", "libvirt numbers the images of running domains"),
    NO("devices/disk/source@startupPolicy", "a VM whose disk is missing does not start"),
    NO("devices/disk/source/"
       "address|auth|config|cookies|encryption|identity|initiator|readahead|"
       "reservations|slices|snapshot|ssl|timeout|privateData",
       NO_DISK),
    NO("devices/disk/source/reconnect",
       "vmd connects again by itself, for as long as it takes"),
    NO("devices/disk/source/seclabel",
       "emulators are confined by vmd's own sandbox, without labels"),
    SAYS("devices/disk/backingStore", 0, "", "raw images have none"),
    NO("devices/disk/backingStore@type|index", NO_DISK),
    NO("devices/disk/backingStore/source|format|backingStore", NO_DISK),
    GROUP("devices/disk/target", XML_NEEDED),
    { "devices/disk/target@bus", XML_VALUE, 0, "bus", &as_bus, NULL, NULL },
    { "devices/disk/target@dev", XML_VALUE, XML_NEEDED | XML_ABSENT, "name", &as_dev, NULL,
      NULL },
    { "devices/disk/target@removable", XML_VALUE, 0, "removable", &xml_as_yesno, "on", NULL },
    { "devices/disk/target@tray", XML_VALUE, 0, "tray_open", &as_tray, NULL, NULL },
    NO("devices/disk/target@rotation_rate", NO_DISK),
    { "devices/disk/readonly", XML_FLAG, 0, "readonly", NULL, NULL, NULL },
    NO("devices/disk/shareable", "an image that is written belongs to one VM at a time"),
    NO("devices/disk/transient", "writes go to the image"),
    VALUE("devices/disk/serial", "serial", as_serial, "at most 36 characters"),
    NO("devices/disk/wwn|vendor|product|geometry|blockio",
       "the disk tells the guest its serial number and the size of its image, no more"),
    NO("devices/disk/boot", "the firmware looks through the disks in their order"),
    GROUP("devices/disk/iotune", 0),
    VALUE("devices/disk/iotune/total_bytes_sec", "throttle.total_bytes_sec", as_limit, NULL),
    VALUE("devices/disk/iotune/total_bytes_sec_max", "throttle.total_bytes_sec_max", as_limit,
          NULL),
    VALUE("devices/disk/iotune/total_bytes_sec_max_length",
          "throttle.total_bytes_sec_max_length", as_limit, NULL),
    VALUE("devices/disk/iotune/read_bytes_sec", "throttle.read_bytes_sec", as_limit, NULL),
    VALUE("devices/disk/iotune/read_bytes_sec_max", "throttle.read_bytes_sec_max", as_limit,
          NULL),
    VALUE("devices/disk/iotune/read_bytes_sec_max_length", "throttle.read_bytes_sec_max_length",
          as_limit, NULL),
    VALUE("devices/disk/iotune/write_bytes_sec", "throttle.write_bytes_sec", as_limit, NULL),
    VALUE("devices/disk/iotune/write_bytes_sec_max", "throttle.write_bytes_sec_max", as_limit,
          NULL),
    VALUE("devices/disk/iotune/write_bytes_sec_max_length",
          "throttle.write_bytes_sec_max_length", as_limit, NULL),
    VALUE("devices/disk/iotune/total_iops_sec", "throttle.total_iops_sec", as_limit, NULL),
    VALUE("devices/disk/iotune/total_iops_sec_max", "throttle.total_iops_sec_max", as_limit,
          NULL),
    VALUE("devices/disk/iotune/total_iops_sec_max_length", "throttle.total_iops_sec_max_length",
          as_limit, NULL),
    VALUE("devices/disk/iotune/read_iops_sec", "throttle.read_iops_sec", as_limit, NULL),
    VALUE("devices/disk/iotune/read_iops_sec_max", "throttle.read_iops_sec_max", as_limit,
          NULL),
    VALUE("devices/disk/iotune/read_iops_sec_max_length", "throttle.read_iops_sec_max_length",
          as_limit, NULL),
    VALUE("devices/disk/iotune/write_iops_sec", "throttle.write_iops_sec", as_limit, NULL),
    VALUE("devices/disk/iotune/write_iops_sec_max", "throttle.write_iops_sec_max", as_limit,
          NULL),
    VALUE("devices/disk/iotune/write_iops_sec_max_length", "throttle.write_iops_sec_max_length",
          as_limit, NULL),
    VALUE("devices/disk/iotune/size_iops_sec", "throttle.size_iops_sec", as_limit, NULL),
    VALUE("devices/disk/iotune/group_name", "throttle.group_name", xml_as_text, NULL),
    NO("devices/disk/encryption|auth|mirror|backenddomain|privateData|throttlefilters",
       NO_DISK),
    GROUP("devices/disk/address", 0),
    { "devices/disk/address@type", XML_VALUE, XML_NEEDED, "bus", &as_address, NULL, NULL },
    VALUE("devices/disk/address@controller", "controller", xml_as_int, NULL),
    { "devices/disk/address@target", XML_VALUE, 0, "unit", &as_place, NULL, NULL },
    { "devices/disk/address@unit", XML_VALUE, 0, "lun", &as_unit, NULL, NULL },
    SAYS("devices/disk/address@bus", 0, "0", "a controller has one bus"),
    NO("devices/disk/"
       "address@base|cssid|devno|domain|function|iobase|irq|multifunction|port|reg|slot|ssid",
       ADDRESS),
    NO("devices/disk/address/zpci", ADDRESS),
    NO("devices/disk/acpi", NO_ACPI),
    LEFT("devices/disk/alias", ALIAS),

    LEFT("devices/controller",
         "a controller is room for devices, which tools add by themselves; the board's devices "
         "need none, and a device that would need one is refused"),

    GROUP("devices/serial", XML_PRINT),
    SAYS("devices/serial@type", XML_PRINT, "pty",
         "the console is a socket of vmd that keeps the last output; 'vmctl console' attaches "
         "to it"),
    LEFT("devices/serial@tty", "the terminal of a running domain"),
    GROUP("devices/serial/source", 0),
    LEFT("devices/serial/source@path", "the terminal of a running domain"),
    NO("devices/serial/source@append|channel|host|master|mode|service|slave|tls|fdgroup",
       "the console is a socket of vmd"),
    NO("devices/serial/source/clipboard|mouse|reconnect|seclabel",
       "the console is a socket of vmd"),
    NO("devices/serial/protocol|log",
       "the console is a socket of vmd, and its output is logged"),
    GROUP("devices/serial/target", XML_PRINT),
    SAYS("devices/serial/target@type", 0, "system-serial",
         "the board's UART is a 16550A of its own"),
    SAYS("devices/serial/target@port", XML_PRINT, "0", "the board has one UART"),
    GROUP("devices/serial/target/model", 0),
    SAYS("devices/serial/target/model@name", 0, "16550a",
         "the board's UART is a 16550A of its own"),
    NO("devices/serial/address", "the UART has its place on the board"),
    NO("devices/serial/acpi", NO_ACPI),
    LEFT("devices/serial/alias", ALIAS),

    GROUP("devices/console", XML_PRINT),
    SAYS("devices/console@type", XML_PRINT, "pty",
         "the console is a socket of vmd that keeps the last output; 'vmctl console' attaches "
         "to it"),
    LEFT("devices/console@tty", "the terminal of a running domain"),
    GROUP("devices/console/source", 0),
    LEFT("devices/console/source@path", "the terminal of a running domain"),
    NO("devices/console/source@append|channel|host|master|mode|service|slave|tls|fdgroup",
       "the console is a socket of vmd"),
    NO("devices/console/source/clipboard|mouse|reconnect|seclabel",
       "the console is a socket of vmd"),
    NO("devices/console/protocol|log",
       "the console is a socket of vmd, and its output is logged"),
    GROUP("devices/console/target", 0),
    WORD("devices/console/target@type", "console", "serial=serial virtio=virtio",
         "not supported: the UART, or a virtio console"),
    SAYS("devices/console/target@port", XML_PRINT, "0", "a VM has one console"),
    NO("devices/console/target/model", "a virtio console, or the UART"),
    NO("devices/console/address", ADDRESS),
    NO("devices/console/acpi", NO_ACPI),
    LEFT("devices/console/alias", ALIAS),

    BALLOON_ROWS,

    { "devices/rng", XML_FLAG, XML_CLEAR, "rng", NULL, NULL, NULL },
    SAYS("devices/rng@model", XML_PRINT | XML_NEEDED, "virtio",
         "the board's entropy device is virtio, modern"),
    SAYS("devices/rng/backend", XML_PRINT | XML_EMPTY, "/dev/urandom /dev/random",
         "random numbers are those of the host's kernel"),
    SAYS("devices/rng/backend@model", XML_PRINT | XML_NEEDED, "random",
         "random numbers are those of the host's kernel"),
    NO("devices/rng/backend@type", "random numbers are those of the host's kernel"),
    NO("devices/rng/backend/source|protocol|log",
       "random numbers are those of the host's kernel"),
    NO("devices/rng/rate", NO_TUNE),
    NO("devices/rng/driver", NO_TUNE),
    GROUP("devices/rng/address", 0),
    SAYS("devices/rng/address@type", XML_NEEDED, "virtio-mmio", NO_BUS),
    NO("devices/rng/"
       "address@base|bus|controller|cssid|devno|domain|function|iobase|irq|multifunction|port|"
       "reg|slot|ssid|target|unit",
       NO_BUS),
    NO("devices/rng/address/zpci", NO_BUS),
    NO("devices/rng/acpi", NO_ACPI),
    LEFT("devices/rng/alias", ALIAS),

    INPUT_ROWS,
    { "devices/graphics", XML_VALUE, 0, "vnc", &xml_as_listener, NULL, NULL },
    { "devices/graphics@type", XML_VALUE, XML_NEEDED, "display", &xml_as_graphics, NULL,
      "a socket of vmd, which 'vmctl vnc' leads to, also through TLS" },
    PART("devices/graphics@port",
         "with `listen`: of that address; `-1`: the first that is free"),
    PART("devices/graphics@autoport", NULL),
    PART("devices/graphics@listen", "as <listen type='address'>"),
    LEFT("devices/graphics@socket", "vmd makes the socket where it likes: 'vmctl vnc'"),
    SAYS("devices/graphics@sharePolicy", 0, "ignore",
         "each client is let in beside the others"),
    NO("devices/graphics@passwd|passwdValidTo|connected",
       "passwords are in no definition: 'vmctl vnc-password' sets them"),
    NO("devices/"
       "graphics@address|p2p|websocket|tlsPort|"
       "keymap|"
       "powerControl|defaultMode|display|xauth|fullscreen|multiUser|replaceUser",
       "VNC is a socket of vmd, whose permissions are who may come in: 'vmctl vnc'"),
    PART("devices/graphics/listen", "where <graphics> is"),
    PART("devices/graphics/listen@type", NULL),
    PART("devices/graphics/listen@address",
         "without a password at addresses of this host, else by TLS "
         "and a password: 'vmctl vnc-password'"),
    LEFT("devices/graphics/listen@socket", "vmd makes the socket where it likes: 'vmctl vnc'"),
    NO("devices/graphics/listen@network|fromConfig",
       "VNC is a socket of vmd, or listens at an address: 'vmctl vnc'"),
    NO("devices/"
       "graphics/audio|channel|clipboard|filetransfer|gl|image|jpeg|mouse|playback|streaming|"
       "zlib",
       NO_SOUND),
    { "devices/video", XML_VALUE, XML_NOTED, "display", &xml_as_video, NULL,
      "a VM has no screen unless it is given one" },
    PART("devices/video/model", "the screen"),
    PART("devices/video/model@type", NULL),
    SAYS("devices/video/model@heads", 0, "1", "a VM has one screen"),
    SAYS("devices/video/model@primary", 0, "yes", "a VM has one screen"),
    NO("devices/video/model@ram|vgamem|vram|vram64|blob|edid",
       "a screen has the memory that its size takes"),
    GROUP("devices/video/model/acceleration", 0),
    SAYS("devices/video/model/acceleration@accel3d", 0, "no", "screens are drawn in software"),
    SAYS("devices/video/model/acceleration@accel2d", 0, "no", "screens are drawn in software"),
    NO("devices/video/model/acceleration@rendernode", "screens are drawn in software"),
    PART("devices/video/model/resolution", "size at first"),
    PART("devices/video/model/resolution@x", "`display.width`"),
    PART("devices/video/model/resolution@y", "`display.height`"),
    PART("devices/video/address", "where the screen is"),
    PART("devices/video/address@type", "`pci`, `virtio-mmio`"),
    NO("devices/video/"
       "address@base|bus|controller|cssid|devno|domain|function|iobase|irq|multifunction|port|"
       "reg|slot|ssid|target|unit",
       ADDRESS),
    NO("devices/video/address/zpci", ADDRESS),
    NO("devices/video/acpi", NO_ACPI),
    LEFT("devices/video/alias", ALIAS),
    NO("devices/video/driver", NO_TUNE),
    SOUND_ROWS,
    LIST("devices/interface", "nics", NULL),
    { "devices/interface@type", XML_VALUE, XML_NEEDED, "type", &xml_as_card, NULL, NULL },
    NO("devices/interface@managed|trustGuestRxFilters", NO_NET),
    GROUP("devices/interface/mac", 0),
    VALUE("devices/interface/mac@address", "mac", xml_as_word, NULL),
    NO("devices/interface/mac@type|check|currentAddress", NO_NET),
    GROUP("devices/interface/source", 0),
    VALUE("devices/interface/source@bridge", "bridge", xml_as_text, NULL),
    VALUE("devices/interface/source@network", "network", xml_as_text, NULL),
    VALUE("devices/interface/source@portgroup", "portgroup", xml_as_text, NULL),
    PART("devices/interface/source@type", "`unix`, of the type `vhostuser`"),
    VALUE("devices/interface/source@path", "path", xml_as_vhost, NULL),
    { "devices/interface/source@mode", XML_VALUE, XML_ABSENT, "server", &xml_as_vhost_mode,
      NULL, NULL },
    NO("devices/interface/"
       "source@address|client|connectionid|dev|macTableManager|managed|missing|name|"
       "port|portgroupid|portid|reconnect|switchid|uuid",
       NO_NET),
    LEFT("devices/interface/source/reconnect", "a back end that is lost is waited for anyway"),
    LEFT("devices/interface/source/reconnect@enabled|timeout", "see there"),
    NO("devices/interface/source/address|ip|local|product|route|vendor", NO_NET),
    GROUP("devices/interface/vlan", 0),
    NO("devices/interface/vlan@trunk", NO_NET),
    GROUP("devices/interface/vlan/tag", 0),
    VALUE("devices/interface/vlan/tag@id", "vlan", xml_as_int, NULL),
    NO("devices/interface/vlan/tag@nativeMode", NO_NET),
    BANDWIDTH("devices/interface", "inbound", "outbound"),
    SAYS("devices/interface/model@type", XML_PRINT, "virtio", "the board's cards are virtio"),
    GROUP("devices/interface/model", XML_PRINT),
    GROUP("devices/interface/mtu", 0),
    VALUE("devices/interface/mtu@size", "mtu", xml_as_int, NULL),
    GROUP("devices/interface/link", 0),
    { "devices/interface/link@state", XML_VALUE, 0, "link", &xml_as_link, NULL, NULL },
    GROUP("devices/interface/driver", 0),
    SAYS("devices/interface/driver@name", 0, "qemu", "the word libvirt uses for its own"),
    VALUE("devices/interface/driver@queues", "queues", xml_as_int, NULL),
    GROUP("devices/interface/target", 0),
    VALUE("devices/interface/target@dev", "ifname", xml_as_target, NULL),
    GROUP("devices/interface/address", 0),
    { "devices/interface/address@type", XML_VALUE, XML_NEEDED, "bus", &xml_as_word,
      "virtio-mmio=virtio-mmio pci=virtio-pci", NO_CARD_BUS },
    NO("devices/interface/"
       "acpi|backend|backenddomain|boot|coalesce|downscript|filterref|guest|ip|port|"
       "portForward|route|script|teaming|tune|virtualport",
       NO_NET),
    NO("devices/interface/address/zpci", ADDRESS),
    NO("devices/interface/"
       "address@base|bus|controller|cssid|devno|domain|function|iobase|irq|multifunction|port|"
       "reg|slot|ssid|target|unit",
       ADDRESS),
    NO("devices/interface/driver/guest|host", NO_TUNE),
    NO("devices/interface/"
       "driver@ats|event_idx|ioeventfd|iommu|packed|page_per_vq|rss|rss_hash_report|rx_queue_"
       "size|tx_queue_size|txmode",
       NO_TUNE),
    NO("devices/interface/target@managed", NO_NET),
    GROUP("devices/interface/rom", 0),
    VALUE("devices/interface/rom@file", "rom", xml_as_path, NULL),
    LEFT("devices/interface/rom@bar", "a card has the ROM that `file` names, or none"),
    SAYS("devices/interface/rom@enabled", 0, "yes", "see there"),
    LEFT("devices/interface/alias", ALIAS),
    VSOCK_ROWS,
    SHARE_ROWS,
    CHANNEL_ROWS,
    NO("devices/parallel", "the board has one UART and one virtio console"),
    NO("devices/hostdev|redirdev|redirfilter|smartcard|nvdimm|shmem|pstore", NO_BUS),
    WATCHDOG_ROWS,
    IOMMU_ROWS,
    MEMORY_ROWS,
    NO("devices/tpm|panic|nvram|crypto", NO_BOARD),
    NO("devices/lease", "images are locked by vmd itself"),
    NO("qemu:commandline|qemu:capabilities|qemu:override|qemu:deprecation",
       "it passes options to QEMU itself"),
    NO("datacenterpath|xen:commandline|bhyve:commandline|lxc:namespace|vmware:datacenterpath",
       NO_PEER),
};

const struct xml_kind xml_domain = {
    .name = "domain",
    .root = "domain",
    .type_doc = "VmConfig",
    .type = &api_type_vm_config,
    .rows = rows,
    .n_rows = ARRAY_LEN(rows),
    .metadata = true,
    .read = xml_read_domain,
    .written = xml_written_domain,
};
