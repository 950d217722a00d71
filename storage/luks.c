/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LUKS version 1: unlocking, new headers, encryption of sectors. Owns the master key of an open volume and a few
 * cipher contexts. After opening: any thread.
 */
#include "storage/luks.h"

#include "engine/base/mem.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

enum {
    HEADER = 592,
    SLOTS = 8,
    SLOT_AT = 208,
    SLOT = 48,
    SALT = 32,
    DIGEST = 20,
    STRIPES = 4000,
    MAX_KEY = 64,
    MAX_MATERIAL = 1 << 20,
    MAX_ITERATIONS = 1 << 26,
    KEPT = 16, /* contexts that wait for the next use */
    BOUNCE = 256 << 10
};
#define ACTIVE 0x00ac71f3u
#define EMPTY 0x0000deadu
#define MAGIC "LUKS\xba\xbe"

enum iv { IV_NONE, IV_PLAIN, IV_PLAIN64, IV_ESSIV };

struct cipher {
    const EVP_CIPHER *evp, *essiv;
    enum iv iv;
    unsigned key; /* bytes */
};

struct context {
    EVP_CIPHER_CTX *evp, *essiv;
};

struct luks {
    struct cipher cipher;
    uint8_t key[MAX_KEY], iv_key[EVP_MAX_MD_SIZE];
    uint64_t payload;
    char text[80];
    pthread_mutex_t mutex;
    struct context kept[2][KEPT]; /* to encrypt, to decrypt */
    unsigned n_kept[2];
};

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, 4);
    return be32toh(v);
}

static void put32(uint8_t *p, uint32_t v)
{
    v = htobe32(v);
    memcpy(p, &v, 4);
}

/* --- ciphers --- */

static const EVP_CIPHER *aes(const char *mode, unsigned bits)
{
    char name[24];

    snprintf(name, sizeof(name), "AES-%u-%s", bits, mode);
    return EVP_get_cipherbyname(name);
}

/* "xts-plain64", "cbc-essiv:sha256", "ecb". */
static bool parse_mode(const char *mode, unsigned key, struct cipher *c)
{
    char chain[8] = "", iv[24] = "";
    bool xts;

    if (sscanf(mode, "%7[^-]-%23s", chain, iv) < 1) {
        return false;
    }
    xts = strcmp(chain, "xts") == 0;
    if (!xts && strcmp(chain, "cbc") != 0 && strcmp(chain, "ecb") != 0) {
        return false;
    }
    *c = (struct cipher){ .key = key };
    c->evp = aes(xts ? "XTS" : chain[0] == 'c' ? "CBC" : "ECB", key * 8 / (xts ? 2 : 1));
    if (strncmp(iv, "essiv:", 6) == 0) {
        const EVP_MD *md = EVP_get_digestbyname(iv + 6);

        c->essiv = md ? aes("ECB", (unsigned)EVP_MD_get_size(md) * 8) : NULL;
        c->iv = IV_ESSIV;
        return c->evp && c->essiv;
    }
    c->iv = strcmp(iv, "plain64") == 0 ? IV_PLAIN64
            : strcmp(iv, "plain") == 0 ? IV_PLAIN
                                       : IV_NONE;
    return c->evp && (c->iv != IV_NONE || strcmp(chain, "ecb") == 0);
}

static void context_free(struct context *x)
{
    EVP_CIPHER_CTX_free(x->evp);
    EVP_CIPHER_CTX_free(x->essiv);
}

static bool context_init(struct context *x, const struct cipher *c, const uint8_t *key,
                         const uint8_t *iv_key, bool encrypt)
{
    x->evp = EVP_CIPHER_CTX_new();
    x->essiv = c->essiv ? EVP_CIPHER_CTX_new() : NULL;
    return x->evp && EVP_CipherInit_ex(x->evp, c->evp, NULL, key, NULL, encrypt) == 1 &&
           EVP_CIPHER_CTX_set_padding(x->evp, 0) == 1 &&
           (!c->essiv ||
            (x->essiv && EVP_EncryptInit_ex(x->essiv, c->essiv, NULL, iv_key, NULL) == 1 &&
             EVP_CIPHER_CTX_set_padding(x->essiv, 0) == 1));
}

static int crypt_sectors(const struct cipher *c, struct context *x, uint64_t sector,
                         const uint8_t *in, uint8_t *out, size_t n)
{
    for (size_t i = 0; i < n; i += BLK_SECTOR, sector++) {
        uint64_t number = htole64(c->iv == IV_PLAIN ? (uint32_t)sector : sector);
        uint8_t iv[16] = { 0 };
        int got = 0;

        memcpy(iv, &number, 8);
        if ((c->essiv && EVP_EncryptUpdate(x->essiv, iv, &got, iv, 16) != 1) ||
            EVP_CipherInit_ex(x->evp, NULL, NULL, NULL, c->iv == IV_NONE ? NULL : iv, -1) !=
                1 ||
            EVP_CipherUpdate(x->evp, out + i, &got, in + i, BLK_SECTOR) != 1 ||
            got != BLK_SECTOR) {
            return -EIO;
        }
    }
    return 0;
}

static void essiv_key(const char *mode, const uint8_t *key, unsigned n, uint8_t *out)
{
    const char *name = strchr(mode, ':');
    const EVP_MD *md = name ? EVP_get_digestbyname(name + 1) : NULL;

    if (md) {
        EVP_Digest(key, n, out, NULL, md, NULL);
    }
}

/* Key material: one use, with a key of its own. */
static int crypt_once(const struct cipher *c, const char *mode, const uint8_t *key,
                      bool encrypt, uint8_t *data, size_t n)
{
    uint8_t iv_key[EVP_MAX_MD_SIZE];
    struct context x = { 0 };
    int rc;

    essiv_key(mode, key, c->key, iv_key);
    rc = context_init(&x, c, key, iv_key, encrypt) ? crypt_sectors(c, &x, 0, data, data, n)
                                                   : -EIO;
    context_free(&x);
    OPENSSL_cleanse(iv_key, sizeof(iv_key));
    return rc;
}

static int crypt_any(struct luks *l, bool encrypt, uint64_t sector, const uint8_t *in,
                     uint8_t *out, size_t n)
{
    struct context x = { 0 };
    int rc = 0;

    pthread_mutex_lock(&l->mutex);
    if (l->n_kept[encrypt] > 0) {
        x = l->kept[encrypt][--l->n_kept[encrypt]];
    }
    pthread_mutex_unlock(&l->mutex);
    if (!x.evp && !context_init(&x, &l->cipher, l->key, l->iv_key, encrypt)) {
        rc = -ENOMEM;
    }
    rc = rc ? rc : crypt_sectors(&l->cipher, &x, sector, in, out, n);
    pthread_mutex_lock(&l->mutex);
    if (rc == 0 && l->n_kept[encrypt] < KEPT) {
        l->kept[encrypt][l->n_kept[encrypt]++] = x;
        x = (struct context){ 0 };
    }
    pthread_mutex_unlock(&l->mutex);
    context_free(&x);
    return rc;
}

/* --- vectors --- */

static bool whole_sectors(const struct iovec *iov, unsigned n)
{
    uint64_t all = 0;

    for (unsigned i = 0; i < n; i++) {
        all |= iov[i].iov_len;
    }
    return all % BLK_SECTOR == 0;
}

static void copy_vector(const struct iovec *iov, unsigned n, uint8_t *mem, bool from_vector)
{
    for (unsigned i = 0; i < n; i++) {
        memcpy(from_vector ? mem : iov[i].iov_base, from_vector ? iov[i].iov_base : mem,
               iov[i].iov_len);
        mem += iov[i].iov_len;
    }
}

static int luks_read(struct luks *l, struct blk_node *file, uint64_t at, uint64_t sector,
                     uint64_t length, const struct iovec *iov, unsigned n_iov)
{
    AUTO_FREE uint8_t *mem = NULL;
    int rc;

    if (whole_sectors(iov, n_iov)) {
        rc = blk_kid_run(file, BLK_READ, 0, at, length, iov, n_iov);
        for (unsigned i = 0; i < n_iov && rc == 0; i++) {
            rc = crypt_any(l, false, sector, iov[i].iov_base, iov[i].iov_base, iov[i].iov_len);
            sector += iov[i].iov_len / BLK_SECTOR;
        }
        return rc;
    }
    mem = xalloc(length);
    rc = blk_kid_read(file, at, mem, length);
    rc = rc ? rc : crypt_any(l, false, sector, mem, mem, length);
    if (rc == 0) {
        copy_vector(iov, n_iov, mem, false);
    }
    return rc;
}

/* In memory of our own: what a guest hands over stays as it is. */
static int luks_write(struct luks *l, struct blk_node *file, uint64_t at, uint64_t sector,
                      uint64_t length, const struct iovec *iov, unsigned n_iov)
{
    uint64_t size = length < BOUNCE ? length : BOUNCE;
    AUTO_FREE uint8_t *mem = xalloc_aligned(4096, size);
    AUTO_FREE struct iovec *part = xnew_n(struct iovec, n_iov + 1);
    int rc = 0;

    for (uint64_t done = 0; done < length && rc == 0; done += size) {
        uint64_t n = length - done < size ? length - done : size;

        copy_vector(part, blk_iov_slice(iov, n_iov, done, n, part), mem, true);
        rc = crypt_any(l, true, sector + done / BLK_SECTOR, mem, mem, n);
        rc = rc ? rc : blk_kid_write(file, at + done, mem, n);
    }
    return rc;
}

/* --- keys --- */

static bool derive(const EVP_MD *md, const void *secret, size_t n, const uint8_t *salt,
                   uint32_t iterations, uint8_t *out, unsigned bytes)
{
    return PKCS5_PBKDF2_HMAC(secret, (int)n, salt, SALT, (int)iterations, md, (int)bytes,
                             out) == 1;
}

/* Each piece of the size of a digest becomes its digest, with the piece's number before it. */
static bool diffuse(const EVP_MD *md, uint8_t *block, unsigned n)
{
    unsigned size = (unsigned)EVP_MD_get_size(md);
    EVP_MD_CTX *x = EVP_MD_CTX_new();
    bool ok = x != NULL;

    for (unsigned i = 0; i * size < n && ok; i++) {
        unsigned part = n - i * size < size ? n - i * size : size;
        uint8_t number[4], digest[EVP_MAX_MD_SIZE];

        put32(number, i);
        ok = EVP_DigestInit_ex(x, md, NULL) == 1 && EVP_DigestUpdate(x, number, 4) == 1 &&
             EVP_DigestUpdate(x, block + (size_t)i * size, part) == 1 &&
             EVP_DigestFinal_ex(x, digest, NULL) == 1;
        memcpy(block + (size_t)i * size, digest, part);
    }
    EVP_MD_CTX_free(x);
    return ok;
}

/* The key is spread over stripes of which none may be missing: all but the last are chained into `out`. */
static bool chain_stripes(const EVP_MD *md, const uint8_t *material, unsigned key,
                          uint32_t stripes, uint8_t *out)
{
    bool ok = true;

    memset(out, 0, key);
    for (uint32_t s = 0; s + 1 < stripes && ok; s++) {
        for (unsigned i = 0; i < key; i++) {
            out[i] ^= material[(size_t)s * key + i];
        }
        ok = diffuse(md, out, key);
    }
    return ok;
}

struct header {
    uint8_t raw[HEADER];
    char name[33], mode[33], hash[33];
    const EVP_MD *md;
    struct cipher cipher;
};

static bool try_slot(const struct header *h, const uint8_t *slot, uint8_t *material, size_t n,
                     const struct blk_secret *secret, uint8_t *key)
{
    uint8_t own[MAX_KEY], digest[DIGEST];
    unsigned bytes = h->cipher.key;
    uint32_t stripes = get32(slot + 44);
    bool ok = derive(h->md, secret->data, secret->n, slot + 8, get32(slot + 4), own, bytes) &&
              crypt_once(&h->cipher, h->mode, own, false, material, n) == 0 &&
              chain_stripes(h->md, material, bytes, stripes, key);

    for (unsigned i = 0; i < bytes && ok; i++) {
        key[i] ^= material[(size_t)(stripes - 1) * bytes + i];
    }
    ok = ok && derive(h->md, key, bytes, h->raw + 132, get32(h->raw + 164), digest, DIGEST) &&
         CRYPTO_memcmp(digest, h->raw + 112, DIGEST) == 0;
    OPENSSL_cleanse(own, sizeof(own));
    return ok;
}

static int bad(const char *who, struct err *e, const char *what)
{
    return err_set(e, -EINVAL, "%s: its LUKS header makes no sense: %s", who, what);
}

static int parse_header(struct header *h, uint64_t room, const char *who, struct err *e)
{
    const uint8_t *p = h->raw;
    unsigned key = get32(p + 108);

    memcpy(h->name, p + 8, 32);
    memcpy(h->mode, p + 40, 32);
    memcpy(h->hash, p + 72, 32);
    if (memcmp(p, MAGIC, 6) != 0) {
        return bad(who, e, "it is none");
    }
    if ((p[6] || p[7] != 1)) {
        return err_set(e, -ENOTSUP, "%s: LUKS of version %u; we know 1", who,
                       (unsigned)p[6] << 8 | p[7]);
    }
    h->md = EVP_get_digestbyname(h->hash);
    if (key == 0 || key > MAX_KEY || strcmp(h->name, "aes") != 0 ||
        !parse_mode(h->mode, key, &h->cipher) || !h->md) {
        return err_set(
            e, -ENOTSUP,
            "%s: encryption by %.32s-%.32s with %.32s and keys of %u bits is not supported",
            who, h->name, h->mode, h->hash, key < 1 << 20 ? key * 8 : 0);
    }
    if (get32(p + 164) == 0 || get32(p + 164) > MAX_ITERATIONS) {
        return bad(who, e, "the iterations of its digest");
    }
    if (room && (uint64_t)get32(p + 104) * BLK_SECTOR > room) {
        return bad(who, e, "its payload lies behind its end");
    }
    return 0;
}

/* One slot; -EACCES: this is not its secret. */
static int open_slot(struct blk_node *file, uint64_t at, uint64_t room, const struct header *h,
                     const uint8_t *slot, const struct blk_secret *secret, uint8_t *key,
                     const char *who, struct err *e)
{
    uint64_t n = (uint64_t)h->cipher.key * get32(slot + 44);
    uint64_t where = (uint64_t)get32(slot + 40) * BLK_SECTOR, size = (n + 511) & ~511ull;
    AUTO_FREE uint8_t *material = NULL;
    int rc;

    if (get32(slot + 4) == 0 || get32(slot + 4) > MAX_ITERATIONS || get32(slot + 44) == 0 ||
        n > MAX_MATERIAL || where < HEADER || where > room || size > room - where) {
        return bad(who, e, "a key slot");
    }
    material = xalloc(size);
    rc = blk_kid_read(file, at + where, material, size);
    if (rc != 0) {
        return err_errno(e, -rc, "%s: key slot", who);
    }
    rc = try_slot(h, slot, material, size, secret, key) ? 0 : -EACCES;
    OPENSSL_cleanse(material, size);
    return rc;
}

static int unlock(struct blk_node *file, uint64_t at, uint64_t room, const struct header *h,
                  const struct blk_secret *secret, uint8_t *key, const char *who, struct err *e)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        const uint8_t *slot = h->raw + SLOT_AT + i * SLOT;
        int rc = get32(slot) == ACTIVE ? open_slot(file, at, room, h, slot, secret, key, who, e)
                                       : -EACCES;

        if (rc != -EACCES) {
            return rc;
        }
    }
    return err_set(e, -EACCES, "%s is encrypted and does not open with this secret", who);
}

static int luks_open(struct blk_node *file, uint64_t at, uint64_t room,
                     const struct blk_secret *secret, const char *who, struct luks **out,
                     struct err *e)
{
    struct header h = { 0 };
    struct luks *l;
    uint8_t key[MAX_KEY];
    int rc = blk_kid_read(file, at, h.raw, HEADER);

    if (rc != 0) {
        return err_errno(e, -rc, "%s: LUKS header", who);
    }
    rc = parse_header(&h, room, who, e);
    rc = rc ? rc : unlock(file, at, room, &h, secret, key, who, e);
    if (rc != 0) {
        return rc;
    }
    l = xnew(struct luks);
    pthread_mutex_init(&l->mutex, NULL);
    l->cipher = h.cipher;
    l->payload = (uint64_t)get32(h.raw + 104) * BLK_SECTOR;
    memcpy(l->key, key, sizeof(key));
    essiv_key(h.mode, l->key, h.cipher.key, l->iv_key);
    snprintf(l->text, sizeof(l->text), "aes-%u-%.32s, %.32s",
             h.cipher.key * 8 / (h.mode[0] == 'x' ? 2 : 1), h.mode, h.hash);
    OPENSSL_cleanse(key, sizeof(key));
    *out = l;
    return 0;
}

static void luks_free(struct luks *l)
{
    if (!l) {
        return;
    }
    for (unsigned k = 0; k < 2; k++) {
        while (l->n_kept[k] > 0) {
            context_free(&l->kept[k][--l->n_kept[k]]);
        }
    }
    pthread_mutex_destroy(&l->mutex);
    OPENSSL_cleanse(l->key, sizeof(l->key));
    OPENSSL_cleanse(l->iv_key, sizeof(l->iv_key));
    free(l);
}

static uint64_t luks_payload(const struct luks *l)
{
    return l->payload;
}

static const char *luks_describe(const struct luks *l)
{
    return l->text;
}

/* --- new headers --- */

static const char *option(const struct blk_create *c, const char *prefix, const char *key,
                          const char *otherwise)
{
    AUTO_FREE char *name = xasprintf("%s%s", prefix, key);
    const char *v = blk_create_option(c, name);

    return v ? v : otherwise;
}

/* Where slot i has its key material, in sectors; i = SLOTS: where the payload begins. */
static uint32_t slot_sector(unsigned i)
{
    return 8 + i * ((MAX_KEY * STRIPES + 4095) / 4096 * 8); /* SLOTS: LUKS_HEADER_BYTES */
}

static int parse_options(const struct blk_create *c, const char *prefix, struct header *h,
                         struct err *e)
{
    const char *alg = option(c, prefix, "cipher-alg", "aes-256");
    const char *mode = option(c, prefix, "cipher-mode", "xts");
    const char *iv = option(c, prefix, "ivgen-alg", "plain64");
    const char *ivhash = option(c, prefix, "ivgen-hash-alg", "sha256");
    const char *hash = option(c, prefix, "hash-alg", "sha256");
    unsigned bits = 0, key;

    if (sscanf(alg, "aes-%u", &bits) != 1 || (bits != 128 && bits != 256)) {
        return err_set(e, -EINVAL,
                       "%scipher-alg is aes-128 or aes-256, not '%s'",
                       prefix, alg);
    }
    key = bits / 8 * (strcmp(mode, "xts") == 0 ? 2 : 1);
    snprintf(h->name, sizeof(h->name), "aes");
    snprintf(h->mode, sizeof(h->mode), "%.7s-%.10s%s%.12s", mode, iv,
             strcmp(iv, "essiv") == 0 ? ":" : "", strcmp(iv, "essiv") == 0 ? ivhash : "");
    snprintf(h->hash, sizeof(h->hash), "%.16s", hash);
    h->md = EVP_get_digestbyname(h->hash);
    if (!h->md || !parse_mode(h->mode, key, &h->cipher)) {
        return err_set(e, -EINVAL,
                       "there is no encryption by %s with %s; leave the options away for "
                       "aes-256-xts-plain64 with sha256",
                       h->mode, h->hash);
    }
    return 0;
}

/* How many iterations take so long here, at least 1000. */
static uint32_t iterations(const EVP_MD *md, unsigned key, uint64_t ms)
{
    uint32_t n = 20000;
    uint8_t out[MAX_KEY], salt[SALT] = { 0 };
    struct timespec a, b;
    double took, want;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
    derive(md, "benchmark", 9, salt, n, out, key);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
    took = (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6;
    want = n * (double)ms / (took > 0.01 ? took : 0.01);
    return want < 1000 ? 1000 : want > MAX_ITERATIONS ? MAX_ITERATIONS : (uint32_t)want;
}

static void encode(uint8_t *p, const struct header *h, uint32_t mk_iterations)
{
    uint8_t id[16];

    memcpy(p, MAGIC, 6);
    p[7] = 1;
    memcpy(p + 8, h->name, 32);
    memcpy(p + 40, h->mode, 32);
    memcpy(p + 72, h->hash, 32);
    put32(p + 104, slot_sector(SLOTS));
    put32(p + 108, h->cipher.key);
    put32(p + 164, mk_iterations);
    RAND_bytes(id, sizeof(id));
    id[6] = (id[6] & 0x0f) | 0x40;
    id[8] = (id[8] & 0x3f) | 0x80;
    snprintf((char *)p + 168, 40,
             "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", id[0],
             id[1], id[2], id[3], id[4], id[5], id[6], id[7], id[8], id[9], id[10], id[11],
             id[12], id[13], id[14], id[15]);
    for (unsigned i = 0; i < SLOTS; i++) {
        put32(p + SLOT_AT + i * SLOT, EMPTY);
        put32(p + SLOT_AT + i * SLOT + 40, slot_sector(i));
        put32(p + SLOT_AT + i * SLOT + 44, STRIPES);
    }
}

/* The first slot: the master key spread, and encrypted with what the secret gives. */
static bool fill_slot(uint8_t *p, const struct header *h, const struct blk_secret *secret,
                      const uint8_t *key, uint32_t count)
{
    uint8_t own[MAX_KEY], *slot = p + SLOT_AT;
    uint8_t *material = p + (size_t)slot_sector(0) * BLK_SECTOR;
    unsigned bytes = h->cipher.key;
    size_t n = (size_t)bytes * STRIPES;
    bool ok = RAND_bytes(slot + 8, SALT) == 1 && RAND_bytes(material, (int)n) == 1 &&
              chain_stripes(h->md, material, bytes, STRIPES, own);

    for (unsigned i = 0; i < bytes && ok; i++) {
        material[n - bytes + i] = own[i] ^ key[i];
    }
    put32(slot, ACTIVE);
    put32(slot + 4, count);
    ok = ok && derive(h->md, secret->data, secret->n, slot + 8, count, own, bytes) &&
         crypt_once(&h->cipher, h->mode, own, true, material, (n + 511) & ~(size_t)511) == 0;
    OPENSSL_cleanse(own, sizeof(own));
    return ok;
}

static int luks_create(const struct blk_create *c, const char *prefix, uint8_t **out,
                       struct err *e)
{
    const char *text = option(c, prefix, "iter-time", "2000");
    struct header h = { 0 };
    uint8_t key[MAX_KEY], *p;
    uint32_t count, mk;
    uint64_t ms = 0;
    bool ok;
    int rc = parse_options(c, prefix, &h, e);

    rc = rc ? rc : blk_parse_size(text, &ms, e);
    if (rc == 0 && (ms < 1 || ms > 60000)) {
        rc = err_set(e, -EINVAL, "%siter-time is 1 to 60000 ms, not '%s'", prefix, text);
    }
    if (rc != 0) {
        return rc;
    }
    count = iterations(h.md, h.cipher.key, ms);
    mk = count / 8 < 1000 ? 1000 : count / 8;
    p = xalloc(LUKS_HEADER_BYTES);
    encode(p, &h, mk);
    ok = RAND_priv_bytes(key, (int)h.cipher.key) == 1 && RAND_bytes(p + 132, SALT) == 1 &&
         derive(h.md, key, h.cipher.key, p + 132, mk, p + 112, DIGEST) &&
         fill_slot(p, &h, c->secret, key, count);
    OPENSSL_cleanse(key, sizeof(key));
    if (!ok) {
        free(p);
        return err_set(e, -EIO, "openssl does not make a key");
    }
    *out = p;
    return 0;
}

const struct blk_cipher blk_luks = {
    .open = luks_open,
    .close = luks_free,
    .payload = luks_payload,
    .text = luks_describe,
    .read = luks_read,
    .write = luks_write,
    .create = luks_create,
};
