/* Simulates a failing medium for a program that preloads this library: one byte of a bundle that
 * is being written is changed.
 *
 *   BAD_BYTE    the byte's number in the file, or in the volume whose number is `BAD_VOLUME`
 *   BAD_IMAGE   the image of the file system: the byte is changed there when the file is synced, and
 *               the page cache of the system keeps the correct byte. Without it, the byte is changed
 *               at once.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The correct bytes from the bad byte on, to find it in the image. */
static char needle[64];

static int is_bundle(int fd) {
    char end[32];
    const char *volume = getenv("BAD_VOLUME");
    snprintf(end, sizeof end, ".tar%s%s.partial", volume ? "." : "", volume ? volume : "");
    char name[64], path[4096];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path);
    size_t wanted = strlen(end);
    return length >= (ssize_t)wanted && memcmp(path + length - wanted, end, wanted) == 0;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t from) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real) real = (ssize_t(*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    const char *bad = getenv("BAD_BYTE");
    if (!bad || !is_bundle(fd)) return real(fd, bytes, count, from);
    off64_t at = strtol(bad, NULL, 10);
    char *copy = NULL;
    if (from <= at && at + (off64_t)sizeof needle <= from + (off64_t)count) {
        memcpy(needle, (const char *)bytes + (at - from), sizeof needle);
        if (!getenv("BAD_IMAGE")) {
            copy = malloc(count);
            memcpy(copy, bytes, count);
            copy[at - from] ^= 1;
        }
    }
    ssize_t done = real(fd, copy ? copy : bytes, count, from);
    free(copy);
    return done;
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    int done = real(fd);
    const char *image = getenv("BAD_IMAGE");
    if (done == 0 && image && is_bundle(fd)) {
        int file = open(image, O_RDWR);
        struct stat about;
        if (file < 0 || fstat(file, &about) < 0) abort();
        char *all = mmap(NULL, (size_t)about.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (all == MAP_FAILED) abort();
        char *found = memmem(all, (size_t)about.st_size, needle, sizeof needle);
        if (!found) abort();
        *found ^= 1;
        munmap(all, (size_t)about.st_size);
        close(file);
    }
    return done;
}
