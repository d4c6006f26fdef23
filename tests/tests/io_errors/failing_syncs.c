/* Syncs of files whose path begins with POSTROAD_FAIL_BELOW fail with EIO while the file POSTROAD_FAIL_WHILE exists. With a
 * dot at its end only those of the folder itself do. While the file POSTROAD_STALL_WHILE exists they do not come back. A sync of
 * the whole file system is one of all that is on it. Stands behind raw_calls.c. */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_on(const char *variable) {
    const char *trigger = getenv(variable);
    return trigger && access(trigger, F_OK) == 0;
}

static int is_below(int file) {
    const char *below = getenv("POSTROAD_FAIL_BELOW");
    if (!below) return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    size_t prefix = strlen(below);
    if (prefix > 2 && strcmp(below + prefix - 2, "/.") == 0)
        return (size_t)length == prefix - 2 && strncmp(path, below, prefix - 2) == 0;
    return strncmp(path, below, prefix) == 0;
}

static int sync_by(const char *name, int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    while (is_on("POSTROAD_STALL_WHILE") && is_below(file)) usleep(5000);
    if (is_on("POSTROAD_FAIL_WHILE") && is_below(file)) {
        errno = EIO;
        return -1;
    }
    return real(file);
}

int syncfs(int file) {
    while (is_on("POSTROAD_STALL_WHILE")) usleep(5000);
    if (is_on("POSTROAD_FAIL_WHILE")) {
        errno = EIO;
        return -1;
    }
    return REAL_SYNCFS(file);
}

int fdatasync(int file) { return sync_by("fdatasync", file); }
int fsync(int file) { return sync_by("fsync", file); }
