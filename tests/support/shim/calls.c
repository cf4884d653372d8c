/* Counts the calls of a program that is started with this in LD_PRELOAD.
 *
 * CALLS_COUNTERS  a file of SLOTS numbers (int64, mapped) that go up with every call
 *
 * What waits (epoll_wait) and what wakes (futex) is not counted: how often that happens depends on
 * how threads are scheduled. Reads and writes of files and sockets, and syncs, do not.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { RECEIVES, SENDS, FILE_READS, FILE_WRITES, SYNCS, LOOKS, INODE_SYNCS, SLOTS };

static volatile int64_t *counters;

__attribute__((constructor)) static void start(void) {
    const char *name = getenv("CALLS_COUNTERS");
    if (!name) return;
    int fd = open(name, O_RDWR | O_CLOEXEC);
    void *map = fd < 0 ? MAP_FAILED : mmap(0, SLOTS * 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) abort();
    close(fd);
    counters = map;
}

#define COUNTED(slot, type, name, parameters, ...)                      \
    type name parameters {                                              \
        static type (*real) parameters;                                 \
        if (!real) real = (type (*) parameters)dlsym(RTLD_NEXT, #name); \
        if (counters) __atomic_add_fetch(&counters[slot], 1, __ATOMIC_SEQ_CST); \
        return real(__VA_ARGS__);                                       \
    }

COUNTED(RECEIVES, ssize_t, recv, (int fd, void *data, size_t length, int flags), fd, data, length, flags)
COUNTED(RECEIVES, ssize_t, recvmsg, (int fd, struct msghdr *message, int flags), fd, message, flags)
COUNTED(RECEIVES, ssize_t, readv, (int fd, const struct iovec *parts, int count), fd, parts, count)
COUNTED(SENDS, ssize_t, send, (int fd, const void *data, size_t length, int flags), fd, data, length, flags)
COUNTED(SENDS, ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), fd, message, flags)
COUNTED(SENDS, ssize_t, writev, (int fd, const struct iovec *parts, int count), fd, parts, count)
COUNTED(FILE_READS, ssize_t, pread64, (int fd, void *data, size_t length, off64_t at), fd, data, length, at)
COUNTED(FILE_WRITES, ssize_t, pwrite64, (int fd, const void *data, size_t length, off64_t at), fd, data, length, at)
COUNTED(INODE_SYNCS, int, fsync, (int fd), fd)
COUNTED(SYNCS, int, fdatasync, (int fd), fd)
COUNTED(LOOKS, int, statx, (int directory, const char *name, int flags, unsigned mask, struct statx *found), directory,
        name, flags, mask, found)
