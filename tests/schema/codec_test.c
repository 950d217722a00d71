/* SPDX-License-Identifier: Apache-2.0 */
/* The table-driven codec: defaults, round trips, patches, and the exact error messages. */
#include "api-schema/gen/types.h"
#include "api-schema/json/json.h"
#include "api-schema/json/text.h"
#include "engine/base/buf.h"
#include "engine/base/mem.h"
#include "tests/lib/testing.h"

static struct json_object *json(const char *text)
{
    struct json_object *o = NULL;
    struct err e = ERR_INIT;

    ck_assert_msg(api_json_parse(text, strlen(text), &o, &e) == 0, "%s", e.msg);
    return o;
}

/* Text written straight away is that of the tree. */
static void same_text(const struct api_type *t, const void *in)
{
    AUTO_JSON tree = api_encode(t, in);
    AUTO_BUF text = BUF_INIT;

    api_write(t, in, &text);
    ck_assert_str_eq(text.data, api_json_text(tree));
}

START_TEST(codec_fills_defaults)
{
    AUTO_JSON o = json("{\"name\":\"db1\"}");
    struct api_vm_config c;
    struct api_error x = API_ERROR_INIT;

    ck_assert_msg(api_vm_config_decode(o, API_STRICT, "config", &c, &x) == 0, "%s", x.message);
    ck_assert_str_eq(c.name, "db1");
    ck_assert_ptr_null(c.uuid);
    ck_assert_int_eq(c.arch, API_ARCH_RISCV64);
    ck_assert_int_eq(c.cpus, 1);
    ck_assert_int_eq(c.memory, 536870912);
    ck_assert_str_eq(c.firmware, "default");
    ck_assert_ptr_null(c.kernel);
    ck_assert_uint_eq(c.n_disks, 0);
    ck_assert(c.rng);
    ck_assert_ptr_nonnull(c.tcg);
    ck_assert_int_eq(c.tcg->cache_size, 67108864);
    ck_assert_int_eq(c.tcg->backend, API_TCG_BACKEND_JIT);
    api_vm_config_release(&c);
    ck_assert_ptr_null(c.name);
}
END_TEST

static const char full_config[] =
    "{\"name\":\"db1\",\"uuid\":\"01234567-89ab-4cde-8f01-23456789abcd\",\"arch\":\"riscv32\","
    "\"machine\":\"rv-virt\",\"engine\":\"tcg\",\"cpu\":\"max\",\"cpus\":4,\"memory\":"
    "1073741824,"
    "\"firmware\":\"none\",\"kernel\":\"/k\",\"initrd\":\"/i\",\"append\":\"console=ttyS0 "
    "a=\\\"b\\\"\","
    "\"disks\":[{\"name\":\"root\",\"file\":\"/d/"
    "\xc3\xa4.raw\",\"format\":\"raw\",\"bus\":\"virtio-mmio\",\"readonly\":true},"
    "{\"file\":\"/"
    "e\",\"format\":\"raw\",\"bus\":\"virtio-mmio\",\"readonly\":false}],\"nics\":[],\"io_threads\":0,\"rng\":"
    "false,"
    "\"console\":\"virtio\","
    "\"flash\":[],\"panic\":false,\"channels\":[],\"shares\":[],\"agent\":false,\"memory_"
    "devices\":[],\"iommu\":\"none\",\"usb\":[],\"root_ports\":0,"
    "\"tcg\":{\"cache_size\":1048576,\"backend\":\"interp\",\"tier2\":\"auto\",\"coverage\":"
    "false,"
    "\"plugins\":[]},\"project\":\"default\"}";

START_TEST(codec_round_trip_is_the_identity)
{
    AUTO_JSON o = json(full_config);
    AUTO_JSON back = NULL;
    AUTO_JSON copied = NULL;
    struct api_vm_config c, d;
    struct api_error x = API_ERROR_INIT;

    ck_assert_msg(api_vm_config_decode(o, API_STRICT, "", &c, &x) == 0, "%s", x.message);
    back = api_vm_config_encode(&c);
    ck_assert_str_eq(api_json_text(back), full_config);
    same_text(&api_type_vm_config, &c);
    api_vm_config_copy(&c, &d);
    api_vm_config_release(&c);
    copied = api_vm_config_encode(&d);
    ck_assert_str_eq(api_json_text(copied), full_config);
    api_vm_config_release(&d);
}
END_TEST

/* Golden: input, then what the error says, about what, and the remedy. */
static const struct {
    const char *text, *message, *object, *remedy;
} bad_configs[] = {
    { "{}",
      "config.name: missing, expected a name (a letter or digit, then letters, digits and . _ "
      "+ -) of "
      "at most 63 bytes",
      "config.name",
      "Unique name: a letter or digit, then letters, digits and . _ + -, at most 63." },
    { "{\"name\":5}",
      "config.name: expected a name (a letter or digit, then letters, digits and . _ + -) "
      "of at most 63 bytes, got 5",
      "config.name", NULL },
    { "{\"name\":\"-x\"}",
      "config.name: expected a name (a letter or digit, then letters, digits and "
      ". _ + -) of at most 63 bytes, got \"-x\"",
      "config.name", NULL },
    { "{\"name\":null}",
      "config.name: expected a name (a letter or digit, then letters, digits and . _ + -) "
      "of at most 63 bytes, got null",
      "config.name", NULL },
    { "{\"name\":\"a\",\"memroy\":1}", "config.memroy: no such member of VmConfig",
      "config.memroy", "did you mean 'memory'?" },
    { "{\"name\":\"a\",\"memory\":5}",
      "config.memory: expected a number of bytes from 1048576 to 17592186044416, a multiple of "
      "4096, got 5",
      "config.memory", "Memory of the guest." },
    { "{\"name\":\"a\",\"memory\":1048577}",
      "config.memory: expected a number of bytes from 1048576 to 17592186044416, a multiple of "
      "4096, got "
      "1048577",
      "config.memory", NULL },
    { "{\"name\":\"a\",\"memory\":18446744073709551615}",
      "config.memory: expected a number of bytes from 1048576 to 17592186044416, a multiple of "
      "4096, got "
      "18446744073709551615",
      "config.memory", NULL },
    { "{\"name\":\"a\",\"memory\":1048576.0}",
      "config.memory: expected a number of bytes from 1048576 to 17592186044416, a multiple of "
      "4096, got "
      "1048576.0",
      "config.memory", NULL },
    { "{\"name\":\"a\",\"cpus\":\"2\"}",
      "config.cpus: expected an integer from 1 to 512, got \"2\"", "config.cpus",
      "Number of vCPUs." },
    { "{\"name\":\"a\",\"arch\":\"riscv\"}",
      "config.arch: expected one of riscv64, riscv32, x86_64, got \"riscv\"", "config.arch",
      "did you mean 'riscv64'?" },
    { "{\"name\":\"a\",\"rng\":1}", "config.rng: expected true or false, got 1", "config.rng",
      NULL },
    { "{\"name\":\"a\",\"kernel\":\"Image\"}",
      "config.kernel: expected an absolute path of at most 4095 bytes, got \"Image\"",
      "config.kernel", NULL },
    { "{\"name\":\"a\",\"firmware\":\"fw\"}",
      "config.firmware: expected 'default', 'none', or an absolute path of at most 4095 bytes, "
      "got \"fw\"",
      "config.firmware", NULL },
    { "{\"name\":\"a\",\"disks\":{}}",
      "config.disks: expected a list, each an object (Disk), got an object", "config.disks",
      NULL },
    { "{\"name\":\"a\",\"disks\":[{\"file\":\"/a\"},{\"fil\":\"/b\"}]}",
      "config.disks[1].fil: no such member of Disk", "config.disks[1].fil",
      "did you mean 'file'?" },
    { "{\"name\":\"a\",\"disks\":[1]}", "config.disks[0]: expected an object (Disk), got 1",
      "config.disks[0]", NULL },
    { "{\"name\":\"a\",\"disks\":["
      "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},"
      "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},"
      "{}]}",
      "config.disks: expected at most 32 elements, got 33", "config.disks", NULL },
    { "{\"name\":\"a\",\"tcg\":{\"backend\":\"llvm\"}}",
      "config.tcg.backend: expected one of jit, interp, got \"llvm\"", "config.tcg.backend",
      "'jit': host code, where this host has a back end; 'interp': the portable interpreter of "
      "the intermediate representation" },
    { "[]", "config: expected an object (VmConfig), got a list", "config", NULL },
};

START_TEST(codec_errors_name_path_expectation_and_remedy)
{
    AUTO_JSON o = json(bad_configs[_i].text);
    struct api_vm_config c;
    struct api_error x = API_ERROR_INIT;

    ck_assert_int_eq(api_vm_config_decode(o, API_STRICT, "config", &c, &x), -1);
    ck_assert_int_eq(x.code, API_E_INVALID_PARAMS);
    ck_assert_str_eq(x.message, bad_configs[_i].message);
    ck_assert_str_eq(x.object, bad_configs[_i].object);
    if (bad_configs[_i].remedy) {
        ck_assert_str_eq(x.remedy, bad_configs[_i].remedy);
    }
    ck_assert_ptr_null(c.name); /* nothing half-built is left */
}
END_TEST

START_TEST(codec_lenient_skips_unknown_members)
{
    AUTO_JSON o = json(
        "{\"name\":\"a\",\"new_in_2.0\":{\"x\":1},\"disks\":[{\"file\":\"/a\",\"y\":1}]}");
    struct api_vm_config c;
    struct api_error x = API_ERROR_INIT;

    ck_assert_msg(api_vm_config_decode(o, API_LENIENT, "", &c, &x) == 0, "%s", x.message);
    ck_assert_uint_eq(c.n_disks, 1);
    api_vm_config_release(&c);
}
END_TEST

START_TEST(codec_absent_optionals_stay_absent)
{
    AUTO_JSON o = json("{\"reason\":\"killed\",\"signal\":9}");
    AUTO_JSON back = NULL;
    struct api_vm_exit v;
    struct api_error x = API_ERROR_INIT;

    ck_assert_int_eq(api_vm_exit_decode(o, API_STRICT, "", &v, &x), 0);
    ck_assert(v.has_signal && !v.has_status);
    back = api_vm_exit_encode(&v);
    ck_assert_str_eq(api_json_text(back), "{\"reason\":\"killed\",\"signal\":9}");
    api_vm_exit_release(&v);
}
END_TEST

static void patch(const char *text, int expect, const char *expect_message)
{
    AUTO_JSON all = json(full_config);
    AUTO_JSON in = NULL;
    AUTO_FREE char *wrapped = xasprintf("{\"vm\":\"a\",\"set\":%s}", text);
    struct api_vm_config c;
    struct api_vm_set_in set;
    struct api_error x = API_ERROR_INIT;
    int rc;

    in = json(wrapped);
    ck_assert_int_eq(api_vm_config_decode(all, API_STRICT, "", &c, &x), 0);
    rc = api_vm_set_in_decode(in, API_STRICT, "", &set, &x);
    if (rc == 0) {
        rc = api_patch(&api_type_vm_config, &c, set.set, &x);
        api_vm_set_in_release(&set);
    }
    ck_assert_msg(rc == expect, "%s: %d %s", text, rc, x.message);
    if (expect_message) {
        ck_assert_str_eq(x.message, expect_message);
    } else {
        ck_assert_int_eq(c.cpus, 2);
        ck_assert_ptr_null(c.initrd);
        ck_assert_int_eq(c.memory, 536870912);
        ck_assert_int_eq(c.tcg->backend, API_TCG_BACKEND_JIT);
        ck_assert_int_eq(c.tcg->cache_size, 1048576);
        ck_assert_uint_eq(c.n_disks, 1);
    }
    api_vm_config_release(&c);
}

START_TEST(codec_patch_replaces_resets_and_merges)
{
    patch("{\"cpus\":2,\"initrd\":null,\"memory\":null,\"tcg\":{\"backend\":\"jit\"},"
          "\"disks\":[{\"file\":\"/n\"}]}",
          0, NULL);
}
END_TEST

START_TEST(codec_patch_refuses_what_does_not_fit)
{
    patch("{\"cpus\":0}", -1, "set.cpus: expected an integer from 1 to 512, got 0");
    patch("{\"name\":\"b\"}", -1, "set.name: no such member of VmPatch");
    patch("{\"flash\":[{}]}", -1,
          "set.flash[0].file: missing, expected an absolute path of at most 4095 bytes");
    patch("{\"tcg\":{\"cache_size\":1}}", -1,
          "set.tcg.cache_size: expected a number of bytes from 1048576 to 1073741824, got 1");
    patch("5", -1, "set: expected an object (VmPatch), got 5");
}
END_TEST

START_TEST(codec_error_round_trips)
{
    struct api_error x = API_ERROR_INIT, y = API_ERROR_INIT;
    AUTO_JSON o = NULL;

    api_error_set(&x, API_E_NOT_FOUND, "VM db1", "see 'vmctl list'", "no VM '%s'",
                  "db1\x01\xff");
    ck_assert_str_eq(x.message, "no VM 'db1?\?'");
    o = api_error_encode(&x);
    ck_assert_str_eq(api_json_text(o),
                     "{\"code\":1001,\"message\":\"no VM 'db1?\?'\",\"data\":{\"error\":"
                     "\"not-found\",\"object\":\"VM db1\",\"remedy\":\"see 'vmctl list'\"}}");
    api_error_decode(&y, o);
    ck_assert_int_eq(y.code, API_E_NOT_FOUND);
    ck_assert_str_eq(y.remedy, x.remedy);
    ck_assert_int_eq(api_code_exit(y.code), 4);
    api_error_decode(&y, NULL);
    ck_assert_int_eq(y.code, API_E_INTERNAL_ERROR);
}
END_TEST

START_TEST(codec_error_texts_are_cut_between_characters)
{
    struct api_error x = API_ERROR_INIT;
    char text[2048];

    for (size_t shift = 0; shift < 3; shift++) {
        memset(text, 'x', shift);
        for (size_t i = shift; i + 3 < sizeof(text); i += 3) {
            memcpy(text + i, "\xe2\x82\xac", 4);
        }
        api_error_set(&x, API_E_BUSY, NULL, NULL, "%s", text);
        ck_assert_uint_gt(strlen(x.message), sizeof(x.message) - 5);
        for (size_t at = 0; x.message[at];) {
            size_t n = api_utf8_len(x.message + at, strlen(x.message + at));
            ck_assert_uint_ne(n, 0);
            at += n;
        }
    }
}
END_TEST

START_TEST(codec_writes_every_kind_as_the_tree_does)
{
    AUTO_JSON detail = json("{\"a\":[1,2.5,null,{\"b/c\":\"\\u0001/\"}],\"d\":{}}");
    char bytes[0x81 + 1] = "";
    struct api_vcpu_stats vcpus[] = {
        { .index = 0, .cpu_time_ns = INT64_MAX, .halted = true },
        { .index = 1, .instructions = INT64_MIN, .has_instructions = true }
    };
    struct api_vm_stats stats = { .age_ms = -1, .vcpus = vcpus, .n_vcpus = 2 };
    struct api_vm_info info = { .name = bytes, .state = API_VM_STATE_PAUSED, .stats = &stats };
    struct api_event event = { .type = API_EVENT_TYPE_VM_STATE, .detail = detail };

    for (unsigned i = 1; i < 0x80; i++) {
        bytes[i - 1] = (char)i;
    }
    memcpy(bytes + 0x7f, "\xc3\xa4", 3);
    same_text(&api_type_vm_info, &info);
    same_text(&api_type_vm_stats, &stats);
    same_text(&api_type_event, &event);
    event.detail = NULL;
    same_text(&api_type_event, &event);
}
END_TEST

START_TEST(codec_raw_values_print_and_become_trees)
{
    struct api_error x = API_ERROR_INIT;
    struct api_vm_config c;
    AUTO_JSON o = json("{\"name\":\"db1\"}");
    AUTO_JSON outer = json_object_new_object();
    AUTO_JSON yes = json_object_new_boolean(1);

    ck_assert_int_eq(api_vm_config_decode(o, API_STRICT, "", &c, &x), 0);
    AUTO_JSON raw = api_encode_raw(&api_type_vm_config, &c);
    AUTO_JSON tree = api_json_tree(raw);
    AUTO_JSON same = api_json_tree(outer);
    ck_assert_str_eq(api_json_raw_text(raw), api_json_text(tree));
    ck_assert_str_eq(api_json_get_str(tree, "name"), "db1");
    ck_assert_ptr_eq(same, outer);
    ck_assert_ptr_null(api_json_raw_text(yes));
    api_json_set(outer, "config", json_object_get(raw));
    AUTO_FREE char *want = xasprintf("{\"config\":%s}", api_json_text(tree));
    ck_assert_str_eq(api_json_text(outer), want);
    api_vm_config_release(&c);
}
END_TEST

/* Mutated configurations are refused with a message or decode to something that encodes to what
 * decodes again. */
START_TEST(codec_survives_mutated_documents)
{
    uint64_t state = test_seed();
    size_t accepted = 0;

    for (int round = 0; round < 20000; round++) {
        char text[sizeof(full_config)];
        AUTO_JSON o = NULL;
        AUTO_JSON back = NULL;
        struct err e = ERR_INIT;
        struct api_error x = API_ERROR_INIT;
        struct api_vm_config c;

        memcpy(text, full_config, sizeof(text));
        for (unsigned n = 1 + test_random(&state) % 3; n > 0; n--) {
            text[test_random(&state) % (sizeof(text) - 1)] = (char)(' ' +
                                                                    test_random(&state) % 95);
        }
        if (api_json_parse(text, sizeof(text) - 1, &o, &e) < 0) {
            continue;
        }
        if (api_vm_config_decode(o, API_STRICT, "", &c, &x) < 0) {
            ck_assert_int_ne(x.message[0], 0);
            continue;
        }
        accepted++;
        same_text(&api_type_vm_config, &c);
        back = api_vm_config_encode(&c);
        api_vm_config_release(&c);
        ck_assert_int_eq(api_vm_config_decode(back, API_STRICT, "", &c, &x), 0);
        api_vm_config_release(&c);
    }
    ck_assert_uint_gt(accepted, 0);
}
END_TEST

static Suite *suite_codec(void)
{
    Suite *s = suite_create("codec");
    TCase *t = tcase_create("codec");

    tcase_add_test(t, codec_fills_defaults);
    tcase_add_test(t, codec_round_trip_is_the_identity);
    tcase_add_loop_test(t, codec_errors_name_path_expectation_and_remedy, 0,
                        sizeof(bad_configs) / sizeof(bad_configs[0]));
    tcase_add_test(t, codec_lenient_skips_unknown_members);
    tcase_add_test(t, codec_absent_optionals_stay_absent);
    tcase_add_test(t, codec_patch_replaces_resets_and_merges);
    tcase_add_test(t, codec_patch_refuses_what_does_not_fit);
    tcase_add_test(t, codec_error_round_trips);
    tcase_add_test(t, codec_error_texts_are_cut_between_characters);
    tcase_add_test(t, codec_writes_every_kind_as_the_tree_does);
    tcase_add_test(t, codec_raw_values_print_and_become_trees);
    tcase_add_test(t, codec_survives_mutated_documents);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_codec, NULL);
}
