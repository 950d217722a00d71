/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to vmd-state: the request goes in a file of memory, with the key. Any thread of works.
 */
#include "daemon/vm/state_tool.h"

#include "api-schema/json/json.h"
#include "daemon/storage/work.h"
#include "engine/base/base64.h"
#include "engine/base/fd.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int state_tool(struct works *works, const char *program, struct json_object *request,
               const uint8_t key[STATE_KEY_BYTES], const int *files, unsigned n,
               struct buf *out, struct err *e)
{
    AUTO_BUF text = BUF_INIT;
    AUTO_FD fd = memfd_create("request", MFD_CLOEXEC);
    const char *line, *what = api_json_get_str(request, "do");
    bool writes = what && strcmp(what, "reseal") == 0;

    base64_add(&text, key, STATE_KEY_BYTES);
    api_json_set_str(request, "key", text.data);
    OPENSSL_cleanse(text.data, text.len);
    line = api_json_text(request);
    if (fd < 0 || write(fd, line, strlen(line)) != (ssize_t)strlen(line) ||
        lseek(fd, 0, SEEK_SET) != 0) {
        return err_errno(e, errno, "cannot pass the request");
    }
    return works_state(works, program, writes, fd, files, n, out, e);
}
