/*
 * Preloaded into every process of a system under test: it moves the wall clock that a process sees, and makes the
 * engine wait for its disk. What it does is said by a file that all of them map, `struct faults`; shim.py writes it.
 * Monotonic clocks are left alone, as a step of a machine's clock leaves them.
 */
#define _GNU_SOURCE
#include <alloca.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum kind { OTHER, ENGINE, PDO, WORKER, KINDS };

struct faults {
    int64_t clock_ms[KINDS];   /* added to the wall clock */
    int64_t sync_ms;           /* how much longer the engine waits for its disk */
    int64_t syncs;             /* how often it has waited so */
};

static struct faults *faults;
static enum kind kind;
static char preload[4096], control[4096];

static int (*real_clock_gettime)(clockid_t, struct timespec *);
static int (*real_msync)(void *, size_t, int);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_execve)(const char *, char *const[], char *const[]);

static enum kind own_kind(void)
{
    char line[16384];
    enum kind found = OTHER;
    int file = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? 0 : read(file, line, sizeof line - 1);
    if (file >= 0)
        close(file);
    if (length <= 0)
        return OTHER;
    line[length] = 0;
    if (length >= 5 && strcmp(line + strlen(line) - 5, "/java") == 0)
        return ENGINE;
    for (char *word = line; word < line + length; word += strlen(word) + 1)
        if (strcmp(word, "prokos.pdo") == 0)
            found = PDO;
        else if (strcmp(word, "prokos.tde") == 0)
            found = WORKER;
    return found;
}

__attribute__((constructor)) static void attach(void)
{
    const char *file = getenv("PROKOS_TEST_FAULTS"), *library = getenv("LD_PRELOAD");
    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    real_msync = dlsym(RTLD_NEXT, "msync");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_execve = dlsym(RTLD_NEXT, "execve");
    if (!file || !library)
        return;
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", library);
    snprintf(control, sizeof control, "PROKOS_TEST_FAULTS=%s", file);
    kind = own_kind();
    int opened = open(file, O_RDWR | O_CLOEXEC);
    if (opened < 0)
        return;
    void *mapped = mmap(NULL, sizeof *faults, PROT_READ | PROT_WRITE, MAP_SHARED, opened, 0);
    close(opened);
    if (mapped != MAP_FAILED)
        faults = mapped;
}

/* Children get an environment of their own; they are to be under the same faults. Runs in a child of vfork. */
int execve(const char *path, char *const arguments[], char *const environment[])
{
    size_t count = 0;
    if (!*preload)
        return real_execve(path, arguments, environment);
    while (environment && environment[count])
        count++;
    char **extended = alloca((count + 3) * sizeof *extended);
    size_t kept = 0;
    for (size_t at = 0; at < count; at++)
        if (strncmp(environment[at], "LD_PRELOAD=", 11) && strncmp(environment[at], "PROKOS_TEST_FAULTS=", 19))
            extended[kept++] = environment[at];
    extended[kept++] = preload;
    extended[kept++] = control;
    extended[kept] = NULL;
    return real_execve(path, arguments, extended);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = real_clock_gettime(clock, now);
    if (!failed && faults && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t step = __atomic_load_n(&faults->clock_ms[kind], __ATOMIC_RELAXED);
        int64_t nanoseconds = now->tv_nsec + (step % 1000) * 1000000;
        now->tv_sec += step / 1000 + (nanoseconds >= 1000000000) - (nanoseconds < 0);
        now->tv_nsec = (nanoseconds + 1000000000) % 1000000000;
    }
    return failed;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now)
        *now = exact.tv_sec;
    return exact.tv_sec;
}

static void wait_for_disk(void)
{
    int64_t longer = faults && kind == ENGINE ? __atomic_load_n(&faults->sync_ms, __ATOMIC_RELAXED) : 0;
    if (longer > 0) {
        __atomic_add_fetch(&faults->syncs, 1, __ATOMIC_RELAXED);
        usleep((useconds_t)longer * 1000);
    }
}

int msync(void *start, size_t length, int flags)
{
    wait_for_disk();
    return real_msync(start, length, flags);
}

int fsync(int file)
{
    wait_for_disk();
    return real_fsync(file);
}

int fdatasync(int file)
{
    wait_for_disk();
    return real_fdatasync(file);
}
