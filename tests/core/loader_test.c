/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of the loader: ELF, Image, gzip and raw files that are right, cut at every byte,
 * flipped, foreign or too large. Files are memfds made here.
 */
#include "engine/core/loader.h"
#include "engine/base/mem.h"
#include "tests/lib/testing.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#define RAM 0x80000000ull
#define RAM_SIZE (16ull << 20)

struct fixture {
    struct mem_region *root, *ram;
    struct mem_space *s;
    int fd;
    struct loader_image out;
    struct err e;
};

static void make(struct fixture *x)
{
    memset(x, 0, sizeof(*x));
    x->root = mem_new_container("root", 1ull << 56);
    ck_assert_int_eq(mem_new_ram("ram", RAM_SIZE, &x->ram, NULL), 0);
    ck_assert_int_eq(mem_map(x->root, RAM, 0, x->ram, NULL), 0);
    x->s = mem_space_new(x->root);
    mem_commit(x->s);
    x->fd = memfd_create("test", MFD_CLOEXEC);
}

static void drop(struct fixture *x)
{
    close(x->fd);
    mem_space_free(x->s);
    mem_free(x->ram);
    mem_free(x->root);
}

static void put_file(struct fixture *x, const void *p, size_t n)
{
    ck_assert_int_eq(ftruncate(x->fd, 0), 0);
    ck_assert_int_eq(pwrite(x->fd, p, n, 0), (ssize_t)n);
}

static int load_at(struct fixture *x, const void *p, size_t n, uint64_t at, unsigned xlen)
{
    put_file(x, p, n);
    memset(&x->e, 0, sizeof(x->e));
    return loader_load(x->s, x->fd, "kernel.img", at, EM_RISCV, xlen, RAM + RAM_SIZE - at,
                       &x->out, &x->e);
}

static int load(struct fixture *x, const void *p, size_t n)
{
    return load_at(x, p, n, RAM, 64);
}

static uint8_t *ram_at(struct fixture *x, uint64_t gpa)
{
    return mem_ram_host(x->ram) + (gpa - RAM);
}

/* ---- ELF ---- */

struct elf64 {
    Elf64_Ehdr h;
    Elf64_Phdr p[2];
    uint8_t code[32];
};

static struct elf64 make_elf64(void)
{
    struct elf64 f = { .h = { .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB,
                                           EV_CURRENT },
                              .e_type = ET_EXEC,
                              .e_machine = EM_RISCV,
                              .e_version = 1,
                              .e_entry = 0xffffffff80001004,
                              .e_phoff = offsetof(struct elf64, p),
                              .e_ehsize = sizeof(Elf64_Ehdr),
                              .e_phentsize = sizeof(Elf64_Phdr),
                              .e_phnum = 2 } };
    f.p[0] = (Elf64_Phdr){ .p_type = PT_NOTE, .p_offset = 1ull << 60, .p_filesz = 1ull << 60 };
    f.p[1] = (Elf64_Phdr){ .p_type = PT_LOAD,
                           .p_offset = offsetof(struct elf64, code),
                           .p_vaddr = 0xffffffff80001000,
                           .p_paddr = RAM + 0x1000,
                           .p_filesz = 32,
                           .p_memsz = 5000 };
    memset(f.code, 0x13, sizeof(f.code));
    return f;
}

START_TEST(elf64_is_loaded_by_physical_address_and_bss_cleared)
{
    struct fixture x;
    make(&x);
    struct elf64 f = make_elf64();
    memset(ram_at(&x, RAM), 0xff, 0x4000);
    ck_assert_msg(load(&x, &f, sizeof(f)) == 0, "%s", x.e.msg);
    ck_assert(x.out.is_elf);
    ck_assert_uint_eq(x.out.entry, RAM + 0x1004);
    ck_assert_uint_eq(x.out.low, RAM + 0x1000);
    ck_assert_uint_eq(x.out.high, RAM + 0x1000 + 5000);
    ck_assert_mem_eq(ram_at(&x, RAM + 0x1000), f.code, 32);
    ck_assert_int_eq(*ram_at(&x, RAM + 0xfff), 0xff);
    ck_assert_int_eq(*ram_at(&x, RAM + 0x1020), 0);
    ck_assert_int_eq(*ram_at(&x, RAM + 0x1000 + 4999), 0);
    ck_assert_int_eq(*ram_at(&x, RAM + 0x1000 + 5000), 0xff);
    drop(&x);
}
END_TEST

START_TEST(elf32_is_loaded_for_rv32_only)
{
    struct {
        Elf32_Ehdr h;
        Elf32_Phdr p;
        uint8_t code[8];
    } f = { .h = { .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT },
                   .e_type = ET_EXEC,
                   .e_machine = EM_RISCV,
                   .e_entry = RAM,
                   .e_phoff = sizeof(Elf32_Ehdr),
                   .e_phentsize = sizeof(Elf32_Phdr),
                   .e_phnum = 1 },
            .p = { .p_type = PT_LOAD,
                   .p_offset = sizeof(Elf32_Ehdr) + sizeof(Elf32_Phdr),
                   .p_vaddr = RAM,
                   .p_paddr = RAM,
                   .p_filesz = 8,
                   .p_memsz = 8 },
            .code = { 1, 2, 3, 4, 5, 6, 7, 8 } };
    struct fixture x;
    make(&x);
    ck_assert_msg(load_at(&x, &f, sizeof(f), RAM, 32) == 0, "%s", x.e.msg);
    ck_assert_uint_eq(x.out.entry, RAM);
    ck_assert_mem_eq(ram_at(&x, RAM), f.code, 8);
    ck_assert_int_eq(load(&x, &f, sizeof(f)), -ENOEXEC);
    ck_assert_ptr_nonnull(strstr(x.e.msg, "RISC-V (32 bits)"));
    ck_assert_ptr_nonnull(strstr(x.e.msg, "needs RISC-V (64 bits)"));
    drop(&x);
}
END_TEST

START_TEST(position_independent_elf_goes_where_the_board_wants_it)
{
    struct fixture x;
    make(&x);
    struct elf64 f = make_elf64();
    f.h.e_type = ET_DYN;
    f.h.e_entry = 4;
    f.p[1].p_vaddr = f.p[1].p_paddr = 0;
    ck_assert_int_eq(load_at(&x, &f, sizeof(f), RAM + 0x200000, 64), 0);
    ck_assert_uint_eq(x.out.entry, RAM + 0x200004);
    f.p[1].p_vaddr = f.p[1].p_paddr = RAM;
    f.h.e_entry = RAM + 8;
    ck_assert_int_eq(load_at(&x, &f, sizeof(f), RAM + 0x200000, 64), 0);
    ck_assert_uint_eq(x.out.entry, RAM + 8);
    drop(&x);
}
END_TEST

START_TEST(elf_for_another_machine_is_named)
{
    static const struct {
        unsigned machine;
        const char *name;
    } m[] = { { EM_X86_64, "x86-64" }, { EM_AARCH64, "64-bit ARM" }, { 4711, "unknown" } };
    struct fixture x;
    make(&x);
    for (size_t i = 0; i < ARRAY_LEN(m); i++) {
        struct elf64 f = make_elf64();
        f.h.e_machine = (uint16_t)m[i].machine;
        ck_assert_int_eq(load(&x, &f, sizeof(f)), -ENOEXEC);
        ck_assert_ptr_nonnull(strstr(x.e.msg, m[i].name));
        ck_assert_ptr_nonnull(strstr(x.e.msg, "kernel.img"));
    }
    struct elf64 f = make_elf64();
    f.h.e_ident[EI_DATA] = ELFDATA2MSB;
    ck_assert_int_eq(load(&x, &f, sizeof(f)), -ENOEXEC);
    ck_assert_ptr_nonnull(strstr(x.e.msg, "big-endian"));
    drop(&x);
}
END_TEST

START_TEST(elf_cut_at_any_byte_is_refused_and_nothing_loaded)
{
    struct fixture x;
    make(&x);
    struct elf64 f = make_elf64();
    for (size_t n = 0; n < sizeof(f); n++) {
        x.out.entry = 0x77;
        int ret = load(&x, &f, n);
        if (n >= 4) {
            ck_assert_int_eq(ret, -ENODATA);
            ck_assert_ptr_nonnull(strstr(x.e.msg, "truncated"));
            ck_assert_uint_eq(x.out.entry, 0x77);
            ck_assert_int_eq(*ram_at(&x, RAM + 0x1000), 0);
        }
    }
    drop(&x);
}
END_TEST

START_TEST(elf_segments_outside_of_ram_are_refused)
{
    struct fixture x;
    make(&x);
    struct elf64 good = make_elf64(), f = good;
    f.p[1].p_paddr = 0x1000;
    ck_assert_int_eq(load(&x, &f, sizeof(f)), -EFAULT);
    ck_assert_ptr_nonnull(strstr(x.e.msg, "0x1000"));
    f = good;
    f.p[1].p_paddr = RAM + RAM_SIZE - 32; /* the file's part fits, its BSS does not */
    ck_assert_int_eq(load(&x, &f, sizeof(f)), -EFAULT);
    f = good;
    f.p[1].p_memsz = UINT64_MAX;
    ck_assert_int_lt(load(&x, &f, sizeof(f)), 0);
    f = good;
    f.p[1].p_memsz = 1ull << 40;
    ck_assert_int_eq(load(&x, &f, sizeof(f)), -EFAULT);
    f = good;
    f.p[1].p_memsz = 31; /* less than in the file */
    ck_assert_int_eq(load(&x, &f, sizeof(f)), -ENOEXEC);
    f = good;
    f.p[1].p_filesz = UINT64_MAX;
    ck_assert_int_eq(load(&x, &f, sizeof(f)), -ENODATA);
    f = good;
    f.p[1].p_type = PT_NULL;
    ck_assert_int_eq(load(&x, &f, sizeof(f)), -ENOEXEC);
    f = good;
    f.h.e_phnum = 0xffff;
    ck_assert_int_eq(load(&x, &f, sizeof(f)), -ENOEXEC);
    f = good;
    f.h.e_phoff = UINT64_MAX - 20;
    ck_assert_int_eq(load(&x, &f, sizeof(f)), -ENODATA);
    f = good;
    f.h.e_type = ET_REL;
    ck_assert_int_eq(load(&x, &f, sizeof(f)), -ENOEXEC);
    drop(&x);
}
END_TEST

START_TEST(elf_with_random_bytes_changed_is_loaded_or_refused)
{
    struct fixture x;
    make(&x);
    uint64_t rnd = test_seed();
    for (unsigned i = 0; i < 5000; i++) {
        struct elf64 f = make_elf64();
        for (unsigned k = 1 + test_random(&rnd) % 4; k; k--) {
            ((uint8_t *)&f)[4 + test_random(&rnd) % (sizeof(f) - 4)] = (uint8_t)test_random(
                &rnd);
        }
        int ret = load(&x, &f, sizeof(f));
        ck_assert(ret == 0 || x.e.msg[0]);
        ck_assert(ret != 0 || (x.out.low >= RAM && x.out.high <= RAM + RAM_SIZE));
    }
    drop(&x);
}
END_TEST

/* ---- Linux Image ---- */

#define IMAGE_FILE 4096

/* With an EFI stub's section table that ends with the file. */
static void make_image(uint8_t img[IMAGE_FILE], const char *magic, uint64_t text_offset,
                       uint64_t image_size)
{
    for (unsigned i = 0; i < IMAGE_FILE; i++) {
        img[i] = (uint8_t)(i * 7);
    }
    memset(img, 0, 0x200);
    memcpy(img, "MZ", 2);
    memcpy(img + 8, &text_offset, 8);
    memcpy(img + 16, &image_size, 8);
    memcpy(img + 0x38, magic, 4);
    uint32_t pe = 0x40;
    memcpy(img + 0x3c, &pe, 4);
    memcpy(img + 0x40, "PE\0\0", 4);
    img[0x46] = 2;    /* sections */
    img[0x54] = 0x70; /* size of the optional header */
    uint32_t size = IMAGE_FILE - 0x800, at = 0x800, n = 0x600, low = 0x200;
    memcpy(img + 0x40 + 24 + 0x70 + 16, &n, 4);
    memcpy(img + 0x40 + 24 + 0x70 + 20, &low, 4);
    memcpy(img + 0x40 + 24 + 0x70 + 40 + 16, &size, 4);
    memcpy(img + 0x40 + 24 + 0x70 + 40 + 20, &at, 4);
}

START_TEST(image_goes_to_its_text_offset_and_counts_its_bss)
{
    struct fixture x;
    uint8_t img[IMAGE_FILE];
    make(&x);
    make_image(img, "RSC\x05", 0x200000, 0x10000);
    ck_assert_msg(load(&x, img, sizeof(img)) == 0, "%s", x.e.msg);
    ck_assert(!x.out.is_elf);
    ck_assert_uint_eq(x.out.entry, RAM + 0x200000);
    ck_assert_uint_eq(x.out.low, RAM + 0x200000);
    ck_assert_uint_eq(x.out.high, RAM + 0x210000);
    ck_assert_mem_eq(ram_at(&x, RAM + 0x200000), img, sizeof(img));
    ck_assert_int_eq(load_at(&x, img, sizeof(img), RAM + 0x1000, 64), 0);
    ck_assert_uint_eq(x.out.entry, RAM + 0x400000); /* next 2 MiB, plus the offset */
    make_image(img, "RSC\x05", 0x400000, 0x10000);
    ck_assert_int_eq(load_at(&x, img, sizeof(img), RAM + 0x1000, 32), 0);
    ck_assert_uint_eq(x.out.entry, RAM + 0x800000);
    drop(&x);
}
END_TEST

START_TEST(image_cut_at_any_byte_is_refused)
{
    struct fixture x;
    uint8_t img[IMAGE_FILE];
    make(&x);
    make_image(img, "RSC\x05", 0x200000, 0x10000);
    for (size_t n = 0x40; n < sizeof(img); n++) {
        ck_assert_int_eq(load(&x, img, n), -ENODATA);
        ck_assert_ptr_nonnull(strstr(x.e.msg, "kernel.img"));
        ck_assert_ptr_nonnull(strstr(x.e.msg, "truncated"));
        ck_assert_int_eq(*ram_at(&x, RAM + 0x200000), 0);
    }
    drop(&x);
}
END_TEST

START_TEST(image_that_does_not_fit_or_fit_the_machine_is_refused)
{
    struct fixture x;
    uint8_t img[IMAGE_FILE];
    make(&x);
    make_image(img, "ARM\x64", 0, 0x10000);
    ck_assert_int_eq(load(&x, img, sizeof(img)), -ENOEXEC);
    ck_assert_ptr_nonnull(strstr(x.e.msg, "64-bit ARM"));
    ck_assert_ptr_nonnull(strstr(x.e.msg, "RISC-V"));
    make_image(img, "RSC\x05", 0x200000, 0x10000);
    img[0x44] = 0x32, img[0x45] = 0x50; /* the EFI stub says RV32 */
    ck_assert_int_eq(load(&x, img, sizeof(img)), -ENOEXEC);
    ck_assert_ptr_nonnull(strstr(x.e.msg, "32 bits"));
    ck_assert_int_eq(load_at(&x, img, sizeof(img), RAM, 32), 0);
    make_image(img, "RSC\x05", 0x200000, RAM_SIZE);
    ck_assert_int_eq(load(&x, img, sizeof(img)), -EFBIG);
    make_image(img, "RSC\x05", 0x200000, UINT64_MAX);
    ck_assert_int_eq(load(&x, img, sizeof(img)), -EFBIG);
    make_image(img, "RSC\x05", UINT64_MAX, 0x1000);
    ck_assert_int_eq(load(&x, img, sizeof(img)), -EFBIG);
    ck_assert_ptr_nonnull(strstr(x.e.msg, "memory"));
    make_image(img, "RSC\x05", 0, 0);
    ck_assert_int_eq(load(&x, img, sizeof(img)), 0);
    ck_assert_uint_eq(x.out.high, RAM + sizeof(img));
    drop(&x);
}
END_TEST

/* ---- gzip ---- */

static size_t gzip(const void *p, size_t n, uint8_t *out, size_t room)
{
    z_stream z = {
        .next_in = (Bytef *)p, .avail_in = (uInt)n, .next_out = out, .avail_out = (uInt)room
    };
    ck_assert_int_eq(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY),
                     Z_OK);
    ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return z.total_out;
}

START_TEST(gzipped_image_is_unpacked)
{
    struct fixture x;
    uint8_t img[IMAGE_FILE], gz[2 * IMAGE_FILE];
    make(&x);
    make_image(img, "RSC\x05", 0x200000, 0x10000);
    size_t n = gzip(img, sizeof(img), gz, sizeof(gz));
    ck_assert_msg(load(&x, gz, n) == 0, "%s", x.e.msg);
    ck_assert_uint_eq(x.out.entry, RAM + 0x200000);
    ck_assert_mem_eq(ram_at(&x, RAM + 0x200000), img, sizeof(img));
    for (size_t cut = 2; cut < n; cut++) {
        ck_assert_int_lt(load(&x, gz, cut), 0);
        ck_assert_ptr_nonnull(strstr(x.e.msg, "kernel.img"));
    }
    /* one damaged byte: refused, or a header byte that means nothing */
    for (size_t at = 2; at < n; at++) {
        gz[at] ^= 0x55;
        (void)load(&x, gz, n);
        gz[at] ^= 0x55;
    }
    uint8_t twice[4 * IMAGE_FILE];
    size_t m = gzip(gz, n, twice, sizeof(twice));
    ck_assert_int_eq(load(&x, twice, m), -ENOEXEC);
    ck_assert_ptr_nonnull(strstr(x.e.msg, "twice"));
    drop(&x);
}
END_TEST

START_TEST(gzip_bomb_is_bounded_by_the_room)
{
    struct fixture x;
    make(&x);
    size_t n = RAM_SIZE + 1;
    uint8_t *zeros = calloc(1, n), *gz = malloc(1 << 20);
    size_t packed = gzip(zeros, n, gz, 1 << 20);
    ck_assert_int_eq(load(&x, gz, packed), -EFBIG);
    ck_assert_ptr_nonnull(strstr(x.e.msg, "unpacks to more"));
    packed = gzip(zeros, n - 1, gz, 1 << 20); /* exactly as much as there is room for */
    ck_assert_msg(load(&x, gz, packed) == 0, "%s", x.e.msg);
    ck_assert_uint_eq(x.out.high, RAM + RAM_SIZE);
    free(zeros);
    free(gz);
    drop(&x);
}
END_TEST

/* ---- raw and foreign files ---- */

START_TEST(raw_file_goes_to_its_place)
{
    struct fixture x;
    make(&x);
    uint8_t code[] = { 0x6f, 0, 0, 0, 1, 2, 3 };
    ck_assert_int_eq(load_at(&x, code, sizeof(code), RAM + 0x200000, 64), 0);
    ck_assert_uint_eq(x.out.entry, RAM + 0x200000);
    ck_assert_uint_eq(x.out.high, RAM + 0x200007);
    ck_assert_mem_eq(ram_at(&x, RAM + 0x200000), code, sizeof(code));
    uint64_t size = 0;
    ck_assert_int_eq(loader_load_raw(x.s, x.fd, "initrd", RAM + 0x300001, 7, &size, &x.e), 0);
    ck_assert_uint_eq(size, 7);
    ck_assert_mem_eq(ram_at(&x, RAM + 0x300001), code, sizeof(code));
    ck_assert_int_eq(loader_load_raw(x.s, x.fd, "initrd", RAM, 6, &size, &x.e), -EFBIG);
    ck_assert_ptr_nonnull(strstr(x.e.msg, "initrd"));
    ck_assert_int_eq(loader_load_raw(x.s, x.fd, "initrd", RAM + RAM_SIZE - 6, 100, &size, &x.e),
                     -EFAULT);
    ck_assert_int_eq(loader_load_raw(x.s, x.fd, "initrd", UINT64_MAX - 2, 100, &size, &x.e),
                     -EFBIG);
    drop(&x);
}
END_TEST

START_TEST(what_is_no_file_or_empty_is_refused)
{
    struct fixture x;
    make(&x);
    uint64_t size;
    ck_assert_int_eq(load(&x, "", 0), -ENODATA);
    ck_assert_ptr_nonnull(strstr(x.e.msg, "empty"));
    int fd = open("/", O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(loader_load_raw(x.s, fd, "/", RAM, 100, &size, &x.e), -EISDIR);
    close(fd);
    int p[2];
    ck_assert_int_eq(pipe(p), 0);
    ck_assert_int_eq(loader_load_raw(x.s, p[0], "pipe", RAM, 100, &size, &x.e), -EINVAL);
    close(p[0]);
    close(p[1]);
    ck_assert_int_lt(loader_load_raw(x.s, -1, "closed", RAM, 100, &size, &x.e), 0);
    drop(&x);
}
END_TEST

START_TEST(foreign_formats_are_named_with_a_remedy)
{
    static const struct {
        unsigned at, n;
        const char *magic, *says;
    } k[] = { { 0, 6,
                "\xfd"
                "7zXZ",
                "xz -d" },
              { 0, 4, "\x28\xb5\x2f\xfd", "zstd -d" },
              { 0x202, 4, "HdrS", "x86" },
              { 4, 4, "zimg", "zboot" },
              { 0, 4, "\x27\x05\x19\x56", "U-Boot" },
              { 0, 3, "BZh", "bzip2 -d" } };
    struct fixture x;
    make(&x);
    for (size_t i = 0; i < ARRAY_LEN(k); i++) {
        uint8_t f[1024] = { 0 };
        memcpy(f + k[i].at, k[i].magic, k[i].n);
        ck_assert_int_eq(load(&x, f, sizeof(f)), -ENOEXEC);
        ck_assert_ptr_nonnull(strstr(x.e.msg, k[i].says));
    }
    drop(&x);
}
END_TEST

static Suite *suite_loader(void)
{
    Suite *s = suite_create("loader");
    TCase *c = tcase_create("loader");
    tcase_add_test(c, elf64_is_loaded_by_physical_address_and_bss_cleared);
    tcase_add_test(c, elf32_is_loaded_for_rv32_only);
    tcase_add_test(c, position_independent_elf_goes_where_the_board_wants_it);
    tcase_add_test(c, elf_for_another_machine_is_named);
    tcase_add_test(c, elf_cut_at_any_byte_is_refused_and_nothing_loaded);
    tcase_add_test(c, elf_segments_outside_of_ram_are_refused);
    tcase_add_test(c, elf_with_random_bytes_changed_is_loaded_or_refused);
    tcase_add_test(c, image_goes_to_its_text_offset_and_counts_its_bss);
    tcase_add_test(c, image_cut_at_any_byte_is_refused);
    tcase_add_test(c, image_that_does_not_fit_or_fit_the_machine_is_refused);
    tcase_add_test(c, gzipped_image_is_unpacked);
    tcase_add_test(c, gzip_bomb_is_bounded_by_the_room);
    tcase_add_test(c, raw_file_goes_to_its_place);
    tcase_add_test(c, what_is_no_file_or_empty_is_refused);
    tcase_add_test(c, foreign_formats_are_named_with_a_remedy);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_loader, NULL);
}
