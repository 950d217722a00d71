/* SPDX-License-Identifier: Apache-2.0 */
/* lvm's reports: what is read from those that lvm 2.03.16 has written, and that no others do harm. */
#include "daemon/storage/lvm_report.h"
#include "engine/base/mem.h"
#include "tests/lib/testing.h"
#include "tests/unit/daemon_suites.h"

#include <errno.h>
#include <string.h>

#define ROW(name, uuid, size, attr, tags, open)                                                \
    "{\"lv_name\":\"" name "\", \"lv_uuid\":\"" uuid "\", \"lv_size\":\"" size                 \
    "\", \"lv_attr\":\"" attr "\", \"lv_tags\":\"" tags "\", \"lv_device_open\":\"" open "\"}"
#define REPORT(kind, rows)                                                                     \
    "  {\n      \"report\": [\n          {\n              \"" kind                             \
    "\": [\n                  " rows "\n              ]\n          }\n      ]\n  }\n"
#define UUID "RVGcYF-TpeJ-Q3NF-JTKe-eeFd-LmJw-Y34wWR"

static int read_lvs(const char *text, struct lvm_lv **out, size_t *n)
{
    struct err e = ERR_INIT;
    int rc = lvm_read_lvs(text, strlen(text), 100, out, n, &e);
    ck_assert_int_eq(rc, e.code);
    return rc;
}

START_TEST(report_of_volumes_is_read)
{
    static const char text[] = REPORT(
        "lv",
        ROW("half", UUID, "4194304", "-wi-a-----", "vmd-new.made.deadbeef0000.half",
            "") ",\n" ROW("a", "8PtmJC-G3vn-fK5B-CMxo-6Ck4-7iWQ-fXtxUu", "20971520",
                          "-wi-ao----", "mine,vmd-gone.gone.deadbeef0000.a,other",
                          "open") ",\n" ROW("pool", "bPMKQI-pk2D-4rp5-9LFE-ORj4-enla-K759Iq",
                                            "4194304", "twi-aotz--", "", ""));
    struct lvm_lv *v;
    size_t n;
    ck_assert_int_eq(read_lvs(text, &v, &n), 0);
    ck_assert_uint_eq(n, 3);
    ck_assert_str_eq(v[0].name, "half");
    ck_assert_int_eq(v[0].size, 4194304);
    ck_assert_str_eq(v[0].made, "made.deadbeef0000.half");
    ck_assert(!v[0].gone && !v[0].open && v[0].plain);
    ck_assert_str_eq(v[1].gone, "gone.deadbeef0000.a");
    ck_assert(!v[1].made && v[1].open && v[1].plain);
    ck_assert(!v[2].plain && v[2].id != v[1].id && v[2].id > 0);
    lvm_lvs_done(v, n);
    ck_assert_int_eq(read_lvs(REPORT("lv", ""), &v, &n), 0);
    ck_assert_uint_eq(n, 0);
    lvm_lvs_done(v, n);
}
END_TEST

START_TEST(report_of_volumes_that_is_none_is_refused)
{
    static const char *const bad[] = {
        "",
        "null",
        "[]",
        "{}",
        "{\"report\":{}}",
        "{\"report\":[]}",
        "{\"report\":[null]}",
        "{\"report\":[{\"lv\":{}}]}",
        "{\"report\":[{\"lv\":[null]}]}",
        "{\"report\":[{\"lv\":[[]]}]}",
        "{\"report\":[{\"lv\":[]},{\"lv\":[]}]}",
        REPORT("vg", ""),
        REPORT("lv", ROW("a", UUID, "-5", "-wi-a-----", "", "")),
        REPORT("lv", ROW("a", UUID, "4M", "-wi-a-----", "", "")),
        REPORT("lv", ROW("a", UUID, " 4", "-wi-a-----", "", "")),
        REPORT("lv", ROW("a", UUID, "", "-wi-a-----", "", "")),
        REPORT("lv", ROW("a", UUID, "99999999999999999999", "-wi-a-----", "", "")),
        REPORT("lv", ROW("a", UUID, "1", "", "", "")),
        REPORT("lv", "{\"lv_name\":7}"),
        REPORT("lv", ROW("good", UUID, "4194304", "-wi-a-----", "vmd-new.x", "") ", {}"),
        "WARNING: PV has no metadata\n" REPORT("lv", ""),
    };
    char cut[] = REPORT("lv", ROW("a", UUID, "4194304", "-wi-a-----", "vmd-gone.", ""));
    char name[200];
    struct lvm_lv *v;
    size_t n;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(read_lvs(bad[i], &v, &n) == -EPROTO, "%s", bad[i]);
    }
    for (size_t i = strlen(cut) - 4; i > 0; i--) {
        cut[i] = 0;
        ck_assert_int_eq(read_lvs(cut, &v, &n), -EPROTO);
    }
    memset(name, 'a', sizeof(name));
    name[sizeof(name) - 1] = 0;
    AUTO_FREE char *lengthy = xasprintf("{\"report\":[{\"lv\":[{\"lv_name\":\"%s\",\"lv_uuid\":"
                                        "\"x\",\"lv_size\":\"1\",\"lv_attr\":\"-\"}]}]}",
                                        name);
    ck_assert_int_eq(read_lvs(lengthy, &v, &n), -EPROTO);
}
END_TEST

START_TEST(report_of_a_group_is_read)
{
    static const char good[] = REPORT(
        "vg", "{\"vg_name\":\"vmdcap\", \"vg_size\":\"62914560\", "
              "\"vg_free\":\"58720256\", \"vg_extent_size\":\"4194304\"}");
    static const char *const bad[] = {
        REPORT("vg", ""),
        REPORT("vg", "{\"vg_size\":\"1\", \"vg_free\":\"2\", \"vg_extent_size\":\"1\"}"),
        REPORT("vg", "{\"vg_size\":\"1\", \"vg_free\":\"1\", \"vg_extent_size\":\"0\"}"),
        REPORT("vg", "{\"vg_size\":\"1\", \"vg_free\":\"1\"}"),
        "x",
    };
    struct lvm_vg g;
    struct err e = ERR_INIT;
    ck_assert_int_eq(lvm_read_vg(good, sizeof(good) - 1, &g, &e), 0);
    ck_assert(g.size == 62914560 && g.free == 58720256 && g.extent == 4194304);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_int_eq(lvm_read_vg(bad[i], strlen(bad[i]), &g, &e), -EPROTO);
    }
}
END_TEST

START_TEST(complaints_have_a_meaning)
{
    static const struct {
        const char *said;
        int code;
        const char *words;
    } all[] = {
        { "  Volume group \"nope\" not found\n  Cannot process volume group nope\n", -ENOENT,
          "Volume group \"nope\" not found" },
        { "  WARNING: Reading is slow.\n  Logical Volume \"a\" already exists in volume group "
          "\"vg0\"\n",
          -EEXIST, "Logical Volume \"a\" already exists in volume group \"vg0\"" },
        { "  Volume group \"vg0\" has insufficient free space (3 extents): 15 required.\n",
          -ENOSPC,
          "Volume group \"vg0\" has insufficient free space (3 extents): 15 required." },
        { "  Logical volume vg0/a in use.\n", -EBUSY, "Logical volume vg0/a in use." },
        { "  New size (5 extents) matches existing size (5 extents).\n", -EIO,
          "New size (5 extents) matches existing size (5 extents)." },
        { "  \x1b[2J\xff\n", -EIO, "?[2J?" },
        { "", -EIO, "lvm failed and did not say why" },
        { "\n\n  WARNING: x\n", -EIO, "lvm failed and did not say why" },
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        struct err e = ERR_INIT;
        AUTO_FREE char *said = xstrdup(all[i].said);
        ck_assert_int_eq(lvm_complaint(said, &e), all[i].code);
        ck_assert_str_eq(e.msg, all[i].words);
    }
}
END_TEST

Suite *suite_lvm(void)
{
    Suite *s = suite_create("lvm");
    TCase *t = tcase_create("reports");
    tcase_add_test(t, report_of_volumes_is_read);
    tcase_add_test(t, report_of_volumes_that_is_none_is_refused);
    tcase_add_test(t, report_of_a_group_is_read);
    tcase_add_test(t, complaints_have_a_meaning);
    suite_add_tcase(s, t);
    return s;
}
