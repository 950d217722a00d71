/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seals of state files, by OpenSSL. A confined process can read no configuration: none is asked for.
 */
#include "engine/emu/state/seal.h"

#include <errno.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <string.h>

#define HMAC_BLOCK 64
#define TAG_LEN 16
#define NONCE_LEN 12

static bool no_configuration(void)
{
    return OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) == 1;
}

/* SHA-256 over the parts, one after the other. It fails for want of memory only. */
static int digest(const struct iovec *part, unsigned n, uint8_t out[STATE_DIGEST_LEN])
{
    bool ok = no_configuration();
    EVP_MD *sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    EVP_MD_CTX *x = EVP_MD_CTX_new();

    ok = ok && x && sha256 && EVP_DigestInit_ex(x, sha256, NULL) == 1;
    for (unsigned i = 0; i < n && ok; i++) {
        ok = EVP_DigestUpdate(x, part[i].iov_base, part[i].iov_len) == 1;
    }
    ok = ok && EVP_DigestFinal_ex(x, out, NULL) == 1;
    EVP_MD_CTX_free(x);
    EVP_MD_free(sha256);
    return ok ? 0 : -ENOMEM;
}

int seal_whole(const uint8_t key[STATE_KEY_LEN], const struct iovec text[3],
               uint8_t out[STATE_DIGEST_LEN])
{
    uint8_t inner[HMAC_BLOCK], outer[HMAC_BLOCK], d[STATE_DIGEST_LEN];

    memset(inner, 0x36, sizeof(inner));
    memset(outer, 0x5c, sizeof(outer));
    for (unsigned i = 0; i < STATE_KEY_LEN; i++) {
        inner[i] ^= key[i];
        outer[i] ^= key[i];
    }
    const struct iovec first[] = { { inner, sizeof(inner) }, text[0], text[1], text[2] };
    const struct iovec second[] = { { outer, sizeof(outer) }, { d, sizeof(d) } };
    int rc = digest(first, 4, d);

    return rc == 0 ? digest(second, 2, out) : rc;
}

/* A key for one purpose. */
static int derive(const uint8_t key[STATE_KEY_LEN], const char *purpose,
                  uint8_t out[STATE_KEY_LEN])
{
    const struct iovec text[3] = { { (void *)(uintptr_t)purpose, strlen(purpose) } };

    return seal_whole(key, text, out);
}

int seal_begin(struct state_seal *s, unsigned format, const uint8_t key[STATE_KEY_LEN])
{
    int rc;

    *s = (struct state_seal){ .format = format };
    if (format == 1) {
        return 0;
    }
    s->gcm = no_configuration() ? EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL) : NULL;
    s->aes = EVP_CIPHER_fetch(NULL, "AES-256-ECB", NULL);
    rc = s->gcm && s->aes ? derive(key, "vmd state 2: hash of a section", s->hash_key)
                          : -ENOMEM;
    return rc == 0 ? derive(key, "vmd state 2: seal of a section", s->seal_key) : rc;
}

void seal_done(struct state_seal *s)
{
    EVP_CIPHER_free(s->gcm);
    EVP_CIPHER_free(s->aes);
    OPENSSL_cleanse(s, sizeof(*s));
}

static bool universal_hash(const struct state_seal *s, const struct iovec part[2],
                           uint8_t out[TAG_LEN])
{
    static const uint8_t nonce[NONCE_LEN];
    EVP_CIPHER_CTX *x = EVP_CIPHER_CTX_new();
    bool ok = x && EVP_EncryptInit_ex2(x, s->gcm, s->hash_key, nonce, NULL) == 1;
    int n;

    for (unsigned i = 0; i < 2 && ok; i++) {
        ok = part[i].iov_len <= INT_MAX &&
             EVP_EncryptUpdate(x, NULL, &n, part[i].iov_base, (int)part[i].iov_len) == 1;
    }
    ok = ok && EVP_EncryptFinal_ex(x, out, &n) == 1 &&
         EVP_CIPHER_CTX_ctrl(x, EVP_CTRL_AEAD_GET_TAG, TAG_LEN, out) == 1;
    EVP_CIPHER_CTX_free(x);
    return ok;
}

static bool encrypt(const struct state_seal *s, uint8_t block[TAG_LEN])
{
    EVP_CIPHER_CTX *x = EVP_CIPHER_CTX_new();
    int n;
    bool ok = x && EVP_EncryptInit_ex2(x, s->aes, s->seal_key, NULL, NULL) == 1 &&
              EVP_CIPHER_CTX_set_padding(x, 0) == 1 &&
              EVP_EncryptUpdate(x, block, &n, block, TAG_LEN) == 1 && n == TAG_LEN;

    EVP_CIPHER_CTX_free(x);
    return ok;
}

int seal_section(const struct state_seal *s, const uint8_t said[SEAL_SAID], const void *p,
                 size_t n, uint8_t out[STATE_DIGEST_LEN])
{
    const struct iovec part[2] = { { (void *)(uintptr_t)said, SEAL_SAID },
                                   { (void *)(uintptr_t)p, n } };

    if (s->format == 1) {
        return digest(part, 2, out);
    }
    memset(out, 0, STATE_DIGEST_LEN);
    return universal_hash(s, part, out) && encrypt(s, out) ? 0 : -ENOMEM;
}
