/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stand-in for vmd-emu in tests of the daemon: the same command line and control protocol, no
 * guest. The definition's `append` tells it how to behave, words apart by spaces:
 *   die-early      writes a line to standard error and exits 1 before it listens
 *   trap-early     ends by a signal before it listens
 *   mute           listens, never answers
 *   off-after=MS   powers off so many milliseconds after the first hello
 *   crash-after=MS is killed by a signal of its own
 *   button=MS      has a power button: powers off so many milliseconds after it was pressed
 *   no-quit        answers emu.quit and stays
 *   forges=PATH    block jobs are over at once, and the disk stands on that file, it says; the last word
 *   liar           says hello with another cookie
 *   other-version  says hello as emulators of another protocol version do: what has been there since
 *                  the first one, and members that nobody knows
 * Owns everything in struct fake; one thread.
 */
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"
#include "api-schema/rpc/server.h"
#include "engine/base/fd.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/statspage.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct fake {
    struct loop *loop;
    struct rpc_server *server;
    struct loop_timer *end, *tick;
    char *name, *uuid, *append;
    const char *cookie, *reason;
    char job[64], disk[64]; /* the one that was asked for; "": none */
    enum api_emu_state state;
    int console, client;
    unsigned ticks;
    bool no_quit, liar, crash, armed;
    struct stats_page *stats;
};

static uint64_t boot_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void tell(struct fake *f, enum api_emu_state state, const char *reason)
{
    AUTO_JSON o = json_object_new_object();
    f->state = state;
    f->reason = reason;
    api_json_set_str(o, "type", "state");
    api_json_set_str(o, "state", api_emu_state_name(state));
    api_json_set_str(o, "reason", reason);
    rpc_server_notify_all(f->server, "event", o);
}

static void on_exit_timer(void *arg)
{
    struct fake *f = arg;
    loop_quit(f->loop);
}

static void power_off(struct fake *f, const char *reason)
{
    tell(f, API_EMU_STATE_STOPPED, reason);
    f->end = loop_timer_new(f->loop, on_exit_timer, f);
    loop_timer_arm(f->end, 5000000);
}

static void on_off(void *arg)
{
    struct fake *f = arg;
    if (f->crash) {
        __builtin_trap(); /* as the first process of its namespace it cannot signal itself */
    }
    power_off(f, "poweroff");
}

/* The guest's only deed: a line on the console now and then. */
static void on_tick(void *arg)
{
    struct fake *f = arg;
    char line[64];
    f->ticks++;
    int n = snprintf(line, sizeof(line), "tick %u\r\n", f->ticks);
    if (f->client >= 0 && send(f->client, line, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        close(f->client);
        f->client = -1;
    }
    if (f->stats) {
        struct stats_page p = { .published_ns = boot_ns(), .started_ns = f->stats->started_ns };
        p.started_ns = p.started_ns ? p.started_ns : p.published_ns;
        p.interval_ns = 50000000;
        p.pid = (uint32_t)getpid();
        p.state = STATS_RUNNING;
        p.instructions = f->ticks;
        p.n_vcpus = 1;
        p.vcpu[0].instructions = f->ticks;
        stats_page_publish(f->stats, &p);
    }
    loop_timer_arm(f->tick, 50000000);
}

static void on_console(void *arg, int fd, unsigned events)
{
    struct fake *f = arg;
    (void)events;
    int c = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    if (c >= 0) {
        fd_autoclose(&f->client);
        f->client = c;
    }
}

/* ---- handlers ---- */

static int word_ms(const struct fake *f, const char *word)
{
    const char *at = f->append ? strstr(f->append, word) : NULL;
    return at ? atoi(at + strlen(word)) : -1;
}

static void arm_end(struct fake *f)
{
    int off = word_ms(f, "off-after="), crash = word_ms(f, "crash-after=");
    if (!f->armed && (off >= 0 || crash >= 0)) {
        f->crash = crash >= 0;
        struct loop_timer *t = loop_timer_new(f->loop, on_off, f);
        loop_timer_arm(t, (int64_t)(crash >= 0 ? crash : off) * 1000000);
    }
    f->armed = true;
}

void api_handle_emu_hello(struct api_call *call, struct api_emu_hello_in *in)
{
    struct fake *f = api_call_app(call);
    (void)in;
    arm_end(f);
    if (f->append && strstr(f->append, "other-version")) {
        struct json_object *o = json_object_new_object();
        api_json_set_int(o, "pid", getpid());
        api_json_set_str(o, "uuid", f->uuid);
        api_json_set_str(o, "name", f->name);
        api_json_set_str(o, "state", api_emu_state_name(f->state));
        api_json_set_str(o, "cookie", f->cookie);
        api_json_set_int(o, "protocol", 99);
        api_json_set(o, "news", json_object_new_object());
        api_reply_json(call, o);
        return;
    }
    api_reply_emu_hello(call, &(struct api_emu_hello_out){
                                  .pid = getpid(),
                                  .uuid = f->uuid,
                                  .name = f->name,
                                  .state = f->state,
                                  .reason = (char *)f->reason,
                                  .cookie = f->liar ? (char *)"liar" : (char *)f->cookie });
}

void api_handle_emu_status(struct api_call *call, struct api_emu_status_in *in)
{
    struct fake *f = api_call_app(call);
    (void)in;
    api_reply_emu_status(
        call, &(struct api_emu_status_out){ .state = f->state, .reason = (char *)f->reason });
}

void api_handle_emu_pause(struct api_call *call, struct api_emu_pause_in *in)
{
    (void)in;
    tell(api_call_app(call), API_EMU_STATE_PAUSED, "pause");
    api_reply_emu_pause(call);
}

void api_handle_emu_resume(struct api_call *call, struct api_emu_resume_in *in)
{
    (void)in;
    tell(api_call_app(call), API_EMU_STATE_RUNNING, "resume");
    api_reply_emu_resume(call);
}

void api_handle_emu_reset(struct api_call *call, struct api_emu_reset_in *in)
{
    struct fake *f = api_call_app(call);
    AUTO_JSON o = json_object_new_object();
    (void)in;
    api_json_set_str(o, "type", "reset");
    rpc_server_notify_all(f->server, "event", o);
    api_reply_emu_reset(call);
}

void api_handle_emu_set_action(struct api_call *call, struct api_emu_set_action_in *in)
{
    (void)in;
    api_reply_emu_set_action(call);
}

void api_handle_emu_disk_resize(struct api_call *call, struct api_emu_disk_resize_in *in)
{
    api_reply_emu_disk_resize(call, &(struct api_emu_disk_resize_out){ .size = in->size });
}

void api_handle_emu_disk_medium(struct api_call *call, struct api_emu_disk_medium_in *in)
{
    (void)in;
    api_reply_emu_disk_medium(call);
}

void api_handle_emu_disk_tray(struct api_call *call, struct api_emu_disk_tray_in *in)
{
    (void)in;
    api_reply_emu_disk_tray(call);
}

void api_handle_emu_replay_status(struct api_call *call, struct api_emu_replay_status_in *in)
{
    (void)in;
    api_reply_emu_replay_status(
        call, &(struct api_emu_replay_status_out){ .mode = API_REPLAY_MODE_NONE });
}

void api_handle_emu_replay_to(struct api_call *call, struct api_emu_replay_to_in *in)
{
    (void)in;
    api_reply_emu_replay_to(call);
}

void api_handle_emu_state_hash(struct api_call *call, struct api_emu_state_hash_in *in)
{
    char none[] = "00";

    (void)in;
    api_reply_emu_state_hash(
        call, &(struct api_emu_state_hash_out){
                  .state = none, .cpus = none, .devices = none, .memory = none });
}

void api_handle_emu_pci(struct api_call *call, struct api_emu_pci_in *in)
{
    (void)in;
    api_reply_emu_pci(call, &(struct api_emu_pci_out){ .n_functions = 0 });
}

void api_handle_emu_vnc(struct api_call *call, struct api_emu_vnc_in *in)
{
    (void)in;
    api_reply_emu_vnc(call, &(struct api_emu_vnc_out){ .clients = 0 });
}

void api_handle_emu_powerdown(struct api_call *call, struct api_emu_powerdown_in *in)
{
    struct fake *f = api_call_app(call);
    int ms = word_ms(f, "button=");
    (void)in;
    if (ms >= 0) {
        struct loop_timer *t = loop_timer_new(f->loop, on_off, f);
        loop_timer_arm(t, (int64_t)ms * 1000000);
        api_reply_emu_powerdown(call);
        return;
    }
    api_fail(call, API_E_UNSUPPORTED, NULL, "shut down from within the guest",
             "the board has no power button");
}

void api_handle_emu_wake(struct api_call *call, struct api_emu_wake_in *in)
{
    (void)in;
    api_fail(call, API_E_BAD_STATE, NULL, NULL, "the guest does not sleep");
}

void api_handle_emu_quit(struct api_call *call, struct api_emu_quit_in *in)
{
    struct fake *f = api_call_app(call);
    (void)in;
    api_reply_emu_quit(call);
    if (!f->no_quit) {
        power_off(f, "quit");
    }
}

void api_handle_emu_stats(struct api_call *call, struct api_emu_stats_in *in)
{
    (void)in;
    struct api_vm_stats out = { .instructions = 1, .has_instructions = true };
    api_reply_emu_stats(call, &out);
}

void api_handle_emu_engine(struct api_call *call, struct api_emu_engine_in *in)
{
    (void)in;
    struct api_engine_stats out = { .engine = API_ENGINE_TCG };
    api_reply_emu_engine(call, &out);
}

void api_handle_emu_trace_start(struct api_call *call, struct api_emu_trace_start_in *in)
{
    (void)in;
    api_reply_emu_trace_start(call);
}

void api_handle_emu_trace_read(struct api_call *call, struct api_emu_trace_read_in *in)
{
    (void)in;
    struct api_emu_trace_read_out out = { .data = (char *)"" };
    api_reply_emu_trace_read(call, &out);
}

void api_handle_emu_trace_stop(struct api_call *call, struct api_emu_trace_stop_in *in)
{
    (void)in;
    api_reply_emu_trace_stop(call);
}

void api_handle_emu_coverage(struct api_call *call, struct api_emu_coverage_in *in)
{
    (void)in;
    struct api_emu_coverage_out out = { .blocks = (char *)"" };
    api_reply_emu_coverage(call, &out);
}

void api_handle_emu_attach_share(struct api_call *call, struct api_emu_attach_share_in *in)
{
    (void)in;
    api_reply_emu_attach_share(
        call, &(struct api_emu_attach_share_out){ .device = (char *)"plugged0" });
}

void api_handle_emu_channels(struct api_call *call, struct api_emu_channels_in *in)
{
    (void)in;
    api_reply_emu_channels(call, &(struct api_emu_channels_out){ .n_channels = 0 });
}

void api_handle_emu_channel_add(struct api_call *call, struct api_emu_channel_add_in *in)
{
    (void)in;
    api_reply_emu_channel_add(call);
}

void api_handle_emu_channel_remove(struct api_call *call, struct api_emu_channel_remove_in *in)
{
    (void)in;
    api_reply_emu_channel_remove(call);
}

void api_handle_emu_balloon(struct api_call *call, struct api_emu_balloon_in *in)
{
    struct api_balloon_stats out = { .memory = 1 << 30,
                                     .target = in->has_memory ? in->memory : 1 << 30,
                                     .actual = 1 << 30 };

    api_reply_emu_balloon(call, &out);
}

void api_handle_emu_memory_devices(struct api_call *call, struct api_emu_memory_devices_in *in)
{
    struct api_memory_device_state one = { .name = "memory0",
                                           .address = "0x100000000",
                                           .size = 1 << 30,
                                           .block = 2 << 20,
                                           .requested = in->has_requested ? in->requested : 0 };
    struct api_emu_memory_devices_out out = { .devices = &one, .n_devices = 1 };

    api_reply_emu_memory_devices(call, &out);
}

void api_handle_emu_channel_resize(struct api_call *call, struct api_emu_channel_resize_in *in)
{
    (void)in;
    api_reply_emu_channel_resize(call);
}

void api_handle_emu_file_add(struct api_call *call, struct api_emu_file_add_in *in)
{
    (void)in;
    api_reply_emu_file_add(call);
}

void api_handle_emu_file_drop(struct api_call *call, struct api_emu_file_drop_in *in)
{
    (void)in;
    api_reply_emu_file_drop(call);
}

void api_handle_emu_attach_disk(struct api_call *call, struct api_emu_attach_disk_in *in)
{
    (void)in;
    api_fail(call, API_E_HOST_LIMIT, "fake", NULL, "there are no slots");
}

void api_handle_emu_attach_nic(struct api_call *call, struct api_emu_attach_nic_in *in)
{
    (void)in;
    api_fail(call, API_E_HOST_LIMIT, "fake", NULL, "there are no slots");
}

void api_handle_emu_attach_rng(struct api_call *call, struct api_emu_attach_rng_in *in)
{
    (void)in;
    api_fail(call, API_E_HOST_LIMIT, "fake", NULL, "there are no slots");
}

void api_handle_emu_attach_memory(struct api_call *call, struct api_emu_attach_memory_in *in)
{
    (void)in;
    api_fail(call, API_E_HOST_LIMIT, "fake", NULL, "there are no slots");
}

void api_handle_emu_nic_queue(struct api_call *call, struct api_emu_nic_queue_in *in)
{
    (void)in;
    api_reply_emu_nic_queue(call);
}

void api_handle_emu_nic_connect(struct api_call *call, struct api_emu_nic_connect_in *in)
{
    api_fail(call, API_E_NOT_FOUND, in->nic, NULL, "there is no such card");
}

void api_handle_emu_nic_link(struct api_call *call, struct api_emu_nic_link_in *in)
{
    api_fail(call, API_E_NOT_FOUND, in->nic, NULL, "there is no such card");
}

void api_handle_emu_nic_filter(struct api_call *call, struct api_emu_nic_filter_in *in)
{
    (void)in;
    api_reply_emu_nic_filter(call, &(struct api_emu_nic_filter_out){ .n_nics = 0 });
}

void api_handle_emu_detach(struct api_call *call, struct api_emu_detach_in *in)
{
    api_fail(call, API_E_NOT_FOUND, in->name, NULL, "there is no such device");
}

void api_handle_emu_fault_add(struct api_call *call, struct api_emu_fault_add_in *in)
{
    (void)in;
    api_reply_emu_fault_add(call, &(struct api_emu_fault_add_out){ .id = 1 });
}

void api_handle_emu_fault_list(struct api_call *call, struct api_emu_fault_list_in *in)
{
    (void)in;
    api_reply_json(call, json_tokener_parse("{\"faults\":[3,{\"id\":null}]}"));
}

void api_handle_emu_fault_remove(struct api_call *call, struct api_emu_fault_remove_in *in)
{
    (void)in;
    api_reply_emu_fault_remove(call);
}

void api_handle_emu_disk_reconnect(struct api_call *call, struct api_emu_disk_reconnect_in *in)
{
    (void)in;
    api_reply_emu_disk_reconnect(call);
}

void api_handle_emu_disk_throttle(struct api_call *call, struct api_emu_disk_throttle_in *in)
{
    (void)in;
    api_reply_emu_disk_throttle(call);
}

void api_handle_emu_dump(struct api_call *call, struct api_emu_dump_in *in)
{
    (void)in;
    api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there is no memory");
}

void api_handle_emu_dump_status(struct api_call *call, struct api_emu_dump_status_in *in)
{
    (void)in;
    api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there is no memory");
}

void api_handle_emu_dump_cancel(struct api_call *call, struct api_emu_dump_cancel_in *in)
{
    (void)in;
    api_reply_emu_dump_cancel(call);
}

void api_handle_emu_save(struct api_call *call, struct api_emu_save_in *in)
{
    (void)in;
    api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there is no state");
}

void api_handle_emu_fork_memory(struct api_call *call, struct api_emu_fork_memory_in *in)
{
    (void)in;
    api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there is no state");
}

void api_handle_emu_load(struct api_call *call, struct api_emu_load_in *in)
{
    (void)in;
    api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there is no state");
}

void api_handle_emu_state_status(struct api_call *call, struct api_emu_state_status_in *in)
{
    (void)in;
    api_reply_emu_state_status(call, &(struct api_emu_state_status_out){ .active = false });
}

void api_handle_emu_state_cancel(struct api_call *call, struct api_emu_state_cancel_in *in)
{
    (void)in;
    api_reply_emu_state_cancel(call);
}

void api_handle_emu_disk_actions(struct api_call *call, struct api_emu_disk_actions_in *in)
{
    (void)in;
    api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there are no disks");
}

void api_handle_emu_disk_snapshots(struct api_call *call, struct api_emu_disk_snapshots_in *in)
{
    (void)in;
    api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there are no disks");
}

void api_handle_emu_disk_snapshot_delete(struct api_call *call,
                                         struct api_emu_disk_snapshot_delete_in *in)
{
    (void)in;
    api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there are no disks");
}

void api_handle_emu_export_start(struct api_call *call, struct api_emu_export_start_in *in)
{
    (void)in;
    api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there are no disks");
}

void api_handle_emu_export_add(struct api_call *call, struct api_emu_export_add_in *in)
{
    (void)in;
    api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there are no disks");
}

void api_handle_emu_export_remove(struct api_call *call, struct api_emu_export_remove_in *in)
{
    (void)in;
    api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there are no disks");
}

void api_handle_emu_disk_bitmaps(struct api_call *call, struct api_emu_disk_bitmaps_in *in)
{
    (void)in;
    api_reply_emu_disk_bitmaps(call, &(struct api_emu_disk_bitmaps_out){ .n_bitmaps = 0 });
}

void api_handle_emu_exports(struct api_call *call, struct api_emu_exports_in *in)
{
    (void)in;
    api_reply_emu_exports(call, &(struct api_emu_exports_out){ .serving = false });
}

void api_handle_emu_export_stop(struct api_call *call, struct api_emu_export_stop_in *in)
{
    (void)in;
    api_reply_emu_export_stop(call);
}

void api_handle_emu_migrate_stream(struct api_call *call, struct api_emu_migrate_stream_in *in)
{
    (void)in;
    api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there is no state");
}

void api_handle_emu_migrate_disks(struct api_call *call, struct api_emu_migrate_disks_in *in)
{
    (void)in;
    api_reply_emu_migrate_disks(call, &(struct api_emu_migrate_disks_out){ .n_disks = 0 });
}

void api_handle_emu_migrate_disk_out(struct api_call *call,
                                     struct api_emu_migrate_disk_out_in *in)
{
    (void)in;
    api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there are no disks");
}

void api_handle_emu_migrate_disk_in(struct api_call *call,
                                    struct api_emu_migrate_disk_in_in *in)
{
    (void)in;
    api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there are no disks");
}

void api_handle_emu_migrate_out(struct api_call *call, struct api_emu_migrate_out_in *in)
{
    (void)in;
    api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there is no state");
}

void api_handle_emu_migrate_switch(struct api_call *call, struct api_emu_migrate_switch_in *in)
{
    (void)in;
    api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there is no state");
}

void api_handle_emu_migrate_in(struct api_call *call, struct api_emu_migrate_in_in *in)
{
    (void)in;
    api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there is no state");
}

void api_handle_emu_migrate_set(struct api_call *call, struct api_emu_migrate_set_in *in)
{
    (void)in;
    api_reply_emu_migrate_set(call);
}

void api_handle_emu_migrate_cancel(struct api_call *call, struct api_emu_migrate_cancel_in *in)
{
    (void)in;
    api_reply_emu_migrate_cancel(call);
}

void api_handle_emu_migrate_status(struct api_call *call, struct api_emu_migrate_status_in *in)
{
    (void)in;
    api_reply_emu_migrate_status(
        call, &(struct api_emu_migrate_status_out){ .state = API_EMU_MIGRATE_STATE_NONE });
}

void api_handle_emu_job_start(struct api_call *call, struct api_emu_job_start_in *in)
{
    struct fake *f = api_call_app(call);

    if (!f->append || !strstr(f->append, "forges=")) {
        api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there are no disks");
        return;
    }
    snprintf(f->job, sizeof(f->job), "%s", in->id);
    snprintf(f->disk, sizeof(f->disk), "%s", in->disk);
    api_reply_emu_job_start(call);
}

void api_handle_emu_job_set(struct api_call *call, struct api_emu_job_set_in *in)
{
    (void)in;
    api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there are no disks");
}

void api_handle_emu_jobs(struct api_call *call, struct api_emu_jobs_in *in)
{
    struct fake *f = api_call_app(call);
    const char *forged = f->append ? strstr(f->append, "forges=") : NULL;
    struct api_block_job job = { .id = f->job,
                                 .kind = API_BLOCK_JOB_KIND_MIRROR,
                                 .disk = f->disk,
                                 .state = API_BLOCK_JOB_STATE_ENDED,
                                 .swapped = true,
                                 .file = forged ? (char *)forged + strlen("forges=") : NULL,
                                 .format = (char *)"qcow2" };

    (void)in;
    api_reply_emu_jobs(call,
                       &(struct api_emu_jobs_out){ .jobs = &job, .n_jobs = f->job[0] != 0 });
}

/* Answers that make no sense where the daemon has to look twice. */
void api_handle_emu_screenshot(struct api_call *call, struct api_emu_screenshot_in *in)
{
    (void)in;
    api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there is no screen");
}

void api_handle_emu_send_key(struct api_call *call, struct api_emu_send_key_in *in)
{
    (void)in;
    api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there is no keyboard");
}

void api_handle_emu_type_text(struct api_call *call, struct api_emu_type_text_in *in)
{
    (void)in;
    api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there is no keyboard");
}

void api_handle_emu_input(struct api_call *call, struct api_emu_input_in *in)
{
    (void)in;
    api_fail(call, API_E_UNSUPPORTED, "fake", NULL, "there is no keyboard");
}

void api_handle_emu_blocks(struct api_call *call, struct api_emu_blocks_in *in)
{
    (void)in;
    api_reply_json(call,
                   json_tokener_parse("{\"blocks\":[7,{\"name\":null},{\"size\":\"x\"}]}"));
}

void api_handle_emu_registers(struct api_call *call, struct api_emu_registers_in *in)
{
    (void)in;
    api_reply_json(call, json_object_new_array());
}

void api_handle_emu_memory(struct api_call *call, struct api_emu_memory_in *in)
{
    (void)in;
    api_reply_json(call, json_tokener_parse("{\"data\":\"!!\"}"));
}

void api_handle_emu_memory_search(struct api_call *call, struct api_emu_memory_search_in *in)
{
    (void)in;
    api_reply_json(call, json_tokener_parse("{\"found\":[5],\"next\":7}"));
}

void api_handle_emu_state(struct api_call *call, struct api_emu_state_in *in)
{
    (void)in;
    api_reply_json(call, json_tokener_parse("{\"fields\":[{\"part\":3}],\"next\":\"x\"}"));
}

void api_handle_emu_devices(struct api_call *call, struct api_emu_devices_in *in)
{
    (void)in;
    api_reply_json(call, json_tokener_parse("{\"devices\":[{\"properties\":[3,{\"name\":5}],"
                                            "\"state\":\" = \\n=\"},null,4]}"));
}

void api_handle_emu_device_class(struct api_call *call, struct api_emu_device_class_in *in)
{
    (void)in;
    api_reply_json(call, json_tokener_parse("{\"properties\":{\"a\":1}}"));
}

/* ---- start ---- */

static bool has_word(const struct fake *f, const char *word)
{
    return f->append && strstr(f->append, word);
}

static int read_config(struct fake *f, int fd)
{
    AUTO_BUF b = BUF_INIT;
    AUTO_JSON o = NULL;
    if (lseek(fd, 0, SEEK_SET) < 0 || fd_slurp(fd, &b, 1 << 20, "config", NULL) < 0 ||
        api_json_parse(b.data, b.len, &o, NULL) < 0) {
        fprintf(stderr, "the configuration cannot be read\n");
        return -1;
    }
    f->name = xstrdup(api_json_get_str(o, "name"));
    f->uuid = xstrdup(api_json_get_str(o, "uuid"));
    const char *append = api_json_get_str(o, "append");
    f->append = append ? xstrdup(append) : NULL;
    return 0;
}

static void serve(struct fake *f, int control)
{
    struct rpc_server_config config = { .program = "vmd-emu", .handlers = &api_handlers_emu };
    f->server = rpc_server_new(f->loop, &config, NULL, f);
    listen(control, 64);
    fd_set_nonblock(control, true, NULL);
    rpc_server_listen(f->server, control, API_ROLE_ADMIN, NULL);
    if (f->console >= 0) {
        listen(f->console, 16);
        loop_fd_new(f->loop, f->console, LOOP_READ, on_console, f);
    }
    f->tick = loop_timer_new(f->loop, on_tick, f);
    loop_timer_arm(f->tick, 1000000);
    loop_run(f->loop, NULL);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "config-fd", 1, NULL, 'c' },  { "control-fd", 1, NULL, 'o' },
        { "console-fd", 1, NULL, 'n' }, { "console-log-fd", 1, NULL, 'l' },
        { "stats-fd", 1, NULL, 's' },   { "lock-fd", 1, NULL, 'k' },
        { "uffd-fd", 1, NULL, 'k' },    { "kvm-fd", 1, NULL, 'k' },
        { "file", 1, NULL, 'f' },       { "paused", 0, NULL, 'p' },
        { "version", 0, NULL, 'v' },    { "channel", 1, NULL, 'h' },
        { "share", 1, NULL, 'h' },      { NULL, 0, NULL, 0 },
    };
    struct fake f = { .console = -1, .client = -1, .state = API_EMU_STATE_RUNNING };
    int config = -1, control = -1, stats = -1, opt;
    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (opt) {
        case 'c':
            config = atoi(optarg);
            break;
        case 'o':
            control = atoi(optarg);
            break;
        case 'n':
            f.console = atoi(optarg);
            break;
        case 's':
            stats = atoi(optarg);
            break;
        case 'p':
            f.state = API_EMU_STATE_PAUSED;
            break;
        case 'v':
            puts("fake_emu");
            return 0;
        default:
            break;
        }
    }
    f.cookie = getenv("VMD_COOKIE");
    if (control < 0 || read_config(&f, config) < 0) {
        return 1;
    }
    if (has_word(&f, "die-early")) {
        fprintf(stderr, "the kernel is not to my liking\n");
        _exit(1); /* no leak check after the last word */
    }
    if (has_word(&f, "trap-early")) {
        __builtin_trap();
    }
    f.no_quit = has_word(&f, "no-quit");
    f.liar = has_word(&f, "liar");
    if (stats >= 0) {
        void *p = mmap(NULL, STATS_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, stats, 0);
        f.stats = p == MAP_FAILED ? NULL : p;
    }
    if (has_word(&f, "mute")) {
        listen(control, 16);
        pause();
    }
    f.loop = loop_new(NULL);
    serve(&f, control);
    _exit(0);
}
