/* A disk and a clock that misbehave, for a program started with this in LD_PRELOAD.
 *
 * SHIM_ROOT     the directory whose files are meant (absolute, without symbolic links)
 * SHIM_CONTROL  a file of 8 numbers (int64, mapped): the faults in force, written by the test
 * SHIM_JOURNAL  if set: every change below SHIM_ROOT and every sync, in order, with its data
 *
 * The journal is what a model of the disk is built from. A record is a header and then the path
 * and the data. One lock is held over a change and its record, so that the order is the real one.
 * SQLite's index of the log (-shm) is memory and never durable; the lock file holds nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { CREATE = 1, WRITE, RESIZE, SYNC, UNLINK, MKDIR, NOTE, SYNC_FAILED };
enum { FAIL_SYNC, FAIL_WRITE, SYNC_DELAY_MS, CLOCK_OFFSET_S, SYNCS, FAILED, FAIL_READ, SLOTS };
enum { FDS = 65536 };

struct header {
    uint32_t kind, path_length;
    uint64_t offset, length;
};

static const char *root;
static size_t root_length;
static volatile int64_t *control;
static int journal = -1;
static char *paths[FDS]; /* of open files below the root */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(type, name, ...)                                  \
    static type (*real)(__VA_ARGS__);                          \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

__attribute__((constructor)) static void start(void) {
    const char *name = getenv("SHIM_CONTROL");
    root = getenv("SHIM_ROOT");
    if (!root || !name) return;
    root_length = strlen(root);
    int fd = open(name, O_RDWR | O_CLOEXEC);
    void *map = fd < 0 ? MAP_FAILED : mmap(0, SLOTS * 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0) close(fd);
    if (map == MAP_FAILED) abort();
    if ((name = getenv("SHIM_JOURNAL"))) {
        int opened = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (opened < 0) abort();
        journal = opened;
    }
    control = map;
}

static int64_t get(int slot) { return control ? control[slot] : 0; }

static int ends_with(const char *path, const char *end) {
    size_t n = strlen(path), m = strlen(end);
    return n >= m && !strcmp(path + n - m, end);
}

static int below_root(const char *path) {
    return control && path && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length])
        && !ends_with(path, "-shm") && !ends_with(path, ".lock") && !ends_with(path, ".sock");
}

static const char *path_of(int fd) { return fd >= 0 && fd < FDS ? paths[fd] : NULL; }

static void all(const void *data, size_t length) {
    REAL(ssize_t, "write", int, const void *, size_t);
    for (const char *at = data; length;) {
        ssize_t n = real(journal, at, length);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) abort();
        at += n, length -= n;
    }
}

static void record(uint32_t kind, const char *path, uint64_t offset, const void *data, uint64_t length) {
    if (journal < 0) return;
    int saved = errno;
    struct header h = { kind, strlen(path), offset, length };
    all(&h, sizeof h);
    all(path, h.path_length);
    if (data) all(data, length);
    errno = saved;
}

/* Locks only where there is an order to keep: injected delays must not queue up behind each other. */
static void enter(void) { if (journal >= 0) pthread_mutex_lock(&lock); }
static void leave(void) { if (journal >= 0) pthread_mutex_unlock(&lock); }

static int injected(int slot) {
    int64_t error = get(slot);
    if (!error) return 0;
    __atomic_add_fetch(&control[FAILED], 1, __ATOMIC_SEQ_CST);
    errno = (int)error;
    return 1;
}

static int open_any(int (*real)(int, const char *, int, ...), int at, const char *path, int flags, mode_t mode) {
    if (!below_root(path)) return real(at, path, flags, mode);
    enter();
    int created = (flags & O_CREAT) && access(path, F_OK) != 0;
    int fd = real(at, path, flags, mode);
    if (fd >= 0 && fd < FDS) {
        free(paths[fd]);
        paths[fd] = strdup(path);
        if (created) record(CREATE, path, 0, NULL, 0);
        else if (flags & O_TRUNC) record(RESIZE, path, 0, NULL, 0);
    }
    leave();
    return fd;
}

#define MODE(flags)                                 \
    mode_t mode = 0;                                \
    if (flags & (O_CREAT | __O_TMPFILE)) {          \
        va_list more;                               \
        va_start(more, flags);                      \
        mode = va_arg(more, mode_t);                \
        va_end(more);                               \
    }

int open(const char *path, int flags, ...) {
    REAL(int, "openat", int, const char *, int, ...);
    MODE(flags)
    return open_any(real, AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    REAL(int, "openat64", int, const char *, int, ...);
    MODE(flags)
    return open_any(real, AT_FDCWD, path, flags, mode);
}

int openat(int at, const char *path, int flags, ...) {
    REAL(int, "openat", int, const char *, int, ...);
    MODE(flags)
    return open_any(real, at, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...) {
    REAL(int, "openat64", int, const char *, int, ...);
    MODE(flags)
    return open_any(real, at, path, flags, mode);
}

int close(int fd) {
    REAL(int, "close", int);
    if (path_of(fd)) {
        free(paths[fd]);
        paths[fd] = NULL;
    }
    return real(fd);
}

ssize_t write(int fd, const void *data, size_t length) {
    REAL(ssize_t, "write", int, const void *, size_t);
    const char *path = path_of(fd);
    if (!path) return real(fd, data, length);
    if (injected(FAIL_WRITE)) return -1;
    enter();
    off_t at = lseek(fd, 0, SEEK_CUR);
    ssize_t n = real(fd, data, length);
    if (n > 0) record(ends_with(path, "/notes") ? NOTE : WRITE, path, at, data, n);
    leave();
    return n;
}

static ssize_t pwrite_any(ssize_t (*real)(int, const void *, size_t, off64_t), int fd, const void *data, size_t length,
                          off64_t at) {
    const char *path = path_of(fd);
    if (!path) return real(fd, data, length, at);
    if (injected(FAIL_WRITE)) return -1;
    enter();
    ssize_t n = real(fd, data, length, at);
    if (n > 0) record(WRITE, path, at, data, n);
    leave();
    return n;
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    return pwrite_any(real, fd, data, length, at);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    return pwrite_any(real, fd, data, length, at);
}

ssize_t pread(int fd, void *data, size_t length, off_t at) {
    REAL(ssize_t, "pread64", int, void *, size_t, off64_t);
    if (path_of(fd) && injected(FAIL_READ)) return -1;
    return real(fd, data, length, at);
}

ssize_t pread64(int fd, void *data, size_t length, off64_t at) {
    REAL(ssize_t, "pread64", int, void *, size_t, off64_t);
    if (path_of(fd) && injected(FAIL_READ)) return -1;
    return real(fd, data, length, at);
}

static int resize(int (*real)(int, off64_t), int fd, off64_t size) {
    const char *path = path_of(fd);
    if (!path) return real(fd, size);
    if (injected(FAIL_WRITE)) return -1;
    enter();
    int result = real(fd, size);
    if (!result) record(RESIZE, path, size, NULL, 0);
    leave();
    return result;
}

int ftruncate(int fd, off_t size) {
    REAL(int, "ftruncate64", int, off64_t);
    return resize(real, fd, size);
}

int ftruncate64(int fd, off64_t size) {
    REAL(int, "ftruncate64", int, off64_t);
    return resize(real, fd, size);
}

/* While the disk is only modelled, its own sync would cost time and prove nothing. */
static int sync_any(int (*real)(int), int fd) {
    const char *path = path_of(fd);
    if (!path) return real(fd);
    int64_t delay = get(SYNC_DELAY_MS);
    if (delay > 0) {
        struct timespec t = { delay / 1000, delay % 1000 * 1000000 };
        nanosleep(&t, NULL);
    }
    __atomic_add_fetch(&control[SYNCS], 1, __ATOMIC_SEQ_CST);
    enter();
    int result = injected(FAIL_SYNC) ? -1 : journal < 0 ? real(fd) : 0;
    record(result ? SYNC_FAILED : SYNC, path, 0, NULL, 0);
    leave();
    return result;
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    return sync_any(real, fd);
}

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    return sync_any(real, fd);
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    if (!below_root(path)) return real(path);
    enter();
    int result = real(path);
    if (!result) record(UNLINK, path, 0, NULL, 0);
    leave();
    return result;
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    if (!below_root(path)) return real(path, mode);
    enter();
    int result = real(path, mode);
    if (!result) record(MKDIR, path, 0, NULL, 0);
    leave();
    return result;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    REAL(int, "clock_gettime", clockid_t, struct timespec *);
    int result = real(clock, time);
    if (!result && clock == CLOCK_REALTIME) time->tv_sec += get(CLOCK_OFFSET_S);
    return result;
}
