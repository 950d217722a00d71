/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may do what: users of TLS with their roles by project, the certificates they were given, the
 * tokens new ones join with, and the check that each call passes. Whatever is not granted is
 * refused; on the unix socket the kernel's word about the caller takes the place of a user.
 *
 * Kept in memory, written to the store as objects of the kinds "user", "cert" and "token".
 * Loop thread.
 */
#ifndef VMD_DAEMON_AUTH_ACCESS_H
#define VMD_DAEMON_AUTH_ACCESS_H

#include "api-schema/gen/methods.h"
#include "api-schema/json/error.h"
#include "api-schema/rpc/conn.h"
#include "daemon/auth/ca.h"
#include "engine/base/err.h"
#include "engine/base/list.h"

#include <stdbool.h>
#include <stdint.h>

struct access;
struct api_call;
struct change;
struct store_tx;
struct vmd;
struct x509_st;

#define ACCESS_GRANTS 64
#define ACCESS_USERS 1000
#define ACCESS_CERTS 20000
#define ACCESS_TOKENS 1000
#define ACCESS_HOST "*" /* the project that is every project and the host */

struct grant {
    char project[64];
    enum api_role role;
};
struct user {
    struct list link;
    char name[64];
    int64_t id; /* never reused */
    int64_t created_ms;
    struct grant grants[ACCESS_GRANTS];
    unsigned n_grants;
};
struct cert {
    struct list link;
    char serial[CA_SERIAL_MAX], fingerprint[65], user[64];
    int64_t created_ms, expires_ms, revoked_ms; /* revoked_ms 0: it was not */
    char reason[201];
};
struct token {
    struct list link;
    char hash[65]; /* SHA-256 of the secret */
    char user[64]; /* "": open */
    bool known; /* the user was there when it was made, by someone who may let that user in */
    char project[64], used_by[64];
    enum api_role role;
    int64_t expires_ms,
        mono_end_ns;  /* on the monotonic clock: a clock set back gives no time */
    bool used, taken; /* taken: by a join that is not durable yet */
};

struct access *access_new(struct vmd *d);
void access_free(struct access *a);
int access_load(struct access *a, struct err *e);

struct list *access_users(struct vmd *d);
struct list *access_certs(struct vmd *d);
struct list *access_tokens(struct vmd *d);
struct user *user_find(struct vmd *d, const char *name);
/* NULL when there are too many. */
struct user *user_add(struct vmd *d, const char *name);
void user_drop(struct user *u); /* with its place in the list */
void user_put(const struct user *u, struct change *c);
/* -ENOBUFS when there are too many grants. */
int user_grant(struct user *u, const char *project, enum api_role role);
/* What the user was given in exactly this project. */
enum api_role access_grant_of(const struct user *u, const char *project);
/* By serial number or fingerprint, or an unambiguous beginning of at least 6 letters. */
struct cert *cert_find(struct vmd *d, const char *text);
struct cert *cert_by_fingerprint(struct vmd *d, const char *fingerprint);
struct cert *cert_add(struct vmd *d, const struct ca_issued *made, const char *user);
void cert_drop(struct cert *k);
void cert_put(const struct cert *k, struct change *c);
const char *cert_state(const struct cert *k);
/* The token of this text when it is good now; else NULL, and why not. */
struct token *token_judge(struct list *tokens, const char *text, const char **why);
void token_put(const struct token *t, struct change *c);
const char *token_state(const struct token *t);
/* Forgets tokens that expired more than a day ago. */
void tokens_trim(struct vmd *d, struct change *c);

/* Role in a project (ACCESS_HOST: on the host) of whoever is there. */
enum api_role access_role(struct vmd *d, const struct rpc_peer *p, const char *project);
/* The same for who makes this call, within the role of its connection. */
enum api_role access_role_of(struct api_call *call, const char *project);
/* The greatest anywhere: what the connection as a whole may try. */
enum api_role access_role_anywhere(struct vmd *d, const struct rpc_peer *p);
/* The rpc server's hook before each call: true when the call was refused here. */
bool access_refuses(struct api_call *call);
/* May the caller of this call look at things of this project? For cutting lists. */
bool access_sees(struct api_call *call, const char *project);
bool access_peer_sees(struct vmd *d, const struct rpc_peer *p, const char *project);
/* May the caller have a VM with this definition: the project is one where it has `need`, and files are
 * where this caller may point. 0, or -1 and *x. */
int access_config(struct api_call *call, const struct api_vm_config *config, enum api_role need,
                  struct api_error *x);
/* May the caller name this file, of a VM of the project? 0, or -1 and *x, which says `where`. */
int access_file(struct api_call *call, const char *project, const char *where, const char *path,
                struct api_error *x);
/* Does the certificate's user exist, and is it neither unknown nor revoked? See tls_judge_fn. */
const char *access_judge(void *vmd, struct x509_st *leaf, bool *revoked);
/* "ann@192.0.2.7:4711" or "uid 0". */
void access_who(const struct rpc_peer *p, char *out, size_t size);
/* A row of the audit trail by itself. */
void access_audit(struct vmd *d, const char *who, const char *method, const char *object,
                  const char *outcome);

#endif
