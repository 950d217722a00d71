/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmctl: the command line of vmd. Parses, runs one verb, exits with a documented status. One
 * process, one thread.
 */
#include "cli/cli.h"
#include "cli/image.h"
#include "cli/remote.h"

#include "api-schema/rpc/client.h"
#include "engine/base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    struct cli c = { 0 };
    struct cli_input in = { 0 };
    int status;

    log_init("vmctl", LOG_WARN, 2);
    status = cli_parse(&c, argc, argv, &in);
    if (status < 0) {
        status = img_arguments(&c, &in);
        status = status ? status : in.verb->run(&c, &in);
    }
    cli_input_done(&in);
    cli_disconnect(&c);
    if (c.place) {
        place_done(c.place);
        free(c.place);
    }
    /* A reader like head(1) that has seen enough is no failure worth words. */
    if (fflush(stdout) != 0 && errno != EPIPE) {
        fprintf(stderr, "vmctl: cannot write: %s\n", strerror(errno));
        status = status == CLI_OK ? CLI_FAILED : status;
    }
    return status;
}
