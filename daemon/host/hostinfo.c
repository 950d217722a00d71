/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's inventory, from sysfs. Owns nothing. Loop thread.
 */
#include "daemon/host/hostinfo.h"

#include "api-schema/json/json.h"
#include "daemon/daemon.h"
#include "daemon/run/spawner.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define NODES "/sys/devices/system/node"
#define NODES_MAX 1024

static char *node_file(int node, const char *name)
{
    AUTO_BUF b = BUF_INIT;
    AUTO_FREE char *path = xasprintf(NODES "/node%d/%s", node, name);
    if (file_slurp(path, &b, 65536, NULL) < 0) {
        return xstrdup("");
    }
    buf_add_char(&b, 0);
    char *text = xstrdup((const char *)b.data);
    text[strcspn(text, "\n")] = strcmp(name, "cpulist") == 0 ? 0 : text[strcspn(text, "\n")];
    return text;
}

static int64_t kib_after(const char *text, const char *word)
{
    const char *at = strstr(text, word);
    return at ? strtoll(at + strlen(word), NULL, 10) * 1024 : 0;
}

static int by_node(const void *a, const void *b)
{
    const struct api_numa_node *x = a, *y = b;
    return (x->node > y->node) - (x->node < y->node);
}

static void read_nodes(struct hostinfo *h)
{
    DIR *dir = opendir(NODES);
    struct dirent *de;
    h->nodes = xnew_n(struct api_numa_node, NODES_MAX);
    while (dir && h->n_nodes < NODES_MAX && (de = readdir(dir))) {
        int node;
        char end;
        if (sscanf(de->d_name, "node%d%c", &node, &end) == 1) {
            AUTO_FREE char *mem = node_file(node, "meminfo");
            h->nodes[h->n_nodes++] = (struct api_numa_node){
                .node = node,
                .cpus = node_file(node, "cpulist"),
                .memory = kib_after(mem, "MemTotal:"),
                .memory_free = kib_after(mem, "MemFree:"),
            };
        }
    }
    if (dir) {
        closedir(dir);
    }
    qsort(h->nodes, h->n_nodes, sizeof(*h->nodes), by_node);
}

static void read_layers(struct vmd *d, struct hostinfo *h)
{
    struct json_object *list = spawner_layers(d->spawner);
    size_t n = list ? json_object_array_length(list) : 0;
    h->layers = xnew_n(struct api_sandbox_layer, n + 1);
    for (size_t i = 0; i < n; i++) {
        struct json_object *o = json_object_array_get_idx(list, i);
        h->layers[h->n_layers++] = (struct api_sandbox_layer){
            .name = (char *)api_json_get_str(o, "name"),
            .active = api_json_get_bool(o, "active", false),
            .reason = (char *)api_json_get_str(o, "reason"),
        };
    }
}

#define HYPERVISOR "/dev/kvm"

int hostinfo_kvm(enum api_arch arch, const char **remedy, struct err *e)
{
    struct utsname u;
    if (uname(&u) < 0 || strcmp(u.machine, api_arch_name(arch)) != 0) {
        *remedy = "set 'engine' to 'tcg'";
        return err_set(e, -ENOTSUP,
                       "KVM runs guests of the host's architecture alone, which is %s",
                       u.machine);
    }
    if (access(HYPERVISOR, R_OK | W_OK) == 0) {
        return 0;
    }
    bool there = access(HYPERVISOR, F_OK) == 0;
    *remedy = there ? "add the user that runs vmd to the group of that file, mostly 'kvm'"
                    : "load the module kvm_intel or kvm_amd; virtualization must be on in the "
                      "set-up of the "
                      "host's firmware";
    return there ? err_set(e, -EACCES, "vmd may not open " HYPERVISOR)
                 : err_set(e, -ENOENT, "this host has no " HYPERVISOR);
}

void hostinfo_read(struct vmd *d, struct hostinfo *h)
{
    struct err e = ERR_INIT;
    const char *remedy = NULL;
    *h = (struct hostinfo){ .n_nodes = 0 };
    if (hostinfo_kvm(API_ARCH_X86_64, &remedy, &e) < 0) {
        h->kvm_problem = xasprintf("%s; %s", e.msg, remedy);
    }
    read_nodes(h);
    read_layers(d, h);
}

void hostinfo_done(struct hostinfo *h)
{
    for (size_t i = 0; i < h->n_nodes; i++) {
        free(h->nodes[i].cpus);
    }
    free(h->nodes);
    free(h->kvm_problem);
    free(h->layers);
}
