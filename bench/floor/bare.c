/* bare copy SOURCE TARGET COUNT PAUSE_US: the system calls of floor.c's copy and nothing else, in a loop over one file,
 * each time in nanoseconds on a line. It sleeps PAUSE_US between two copies, as the lone saves do, so that both find the
 * caches equally cold.
 *
 * bare wake SOURCE TARGET COUNT PAUSE_US: what it costs to be woken. A child waits for the file SOURCE to be closed after
 * writing (inotify, blocking read) and answers with one rename of TARGET's neighbour onto TARGET; the parent waits for that
 * with inotify too. The time from just before close() to the parent's wake-up is printed: two wake-ups and one rename.
 *
 * bare publish TARGET STAGING LIST: the calls with which syncd publishes files and nothing else, by two threads that have
 * all content in memory. A line "+NAME" of LIST: written in place, one byte longer (pinned, proved to have no writer,
 * reserved, written, given its time, read again). A line "-NAME": replaced by one that is a byte shorter (written in
 * STAGING, the old one linked there, renamed over, the old one proved to have no writer and removed). The whole time in
 * nanoseconds. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <libgen.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

static char data[1 << 17];

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void copy(int from, const char *name, int to, const char *into)
{
    int in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    int out = openat(to, ".floor", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    for (ssize_t n = sizeof data; n == sizeof data;)
        if ((n = read(in, data, sizeof data)) > 0 && write(out, data, n) != n) exit(1);
    close(in), close(out), renameat(to, ".floor", to, into);
}

static int watch(const char *directory, unsigned mask)
{
    int events = inotify_init1(IN_CLOEXEC);
    if (inotify_add_watch(events, directory, mask) < 0) perror(directory), exit(1);
    return events;
}

static char *names[1 << 16];
static int named, top, staging;
static const struct timespec times[2] = {{0, UTIME_OMIT}, {1700000000, 0}};

/* Open what has a name, and prove that nobody writes it. */
static int alone(int dir, const char *name, char by[40], struct stat *st)
{
    int pin = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (pin < 0 || fstat(pin, st) || st->st_size + 1 > (off_t)sizeof data) perror(name), exit(1);
    snprintf(by, 40, "/proc/self/fd/%d", pin);
    int reader = open(by, O_RDONLY | O_CLOEXEC);
    if (fcntl(reader, F_SETLEASE, F_RDLCK) || fcntl(reader, F_SETLEASE, F_UNLCK)) perror("lease"), exit(1);
    return reader;
}

static void lengthen(const char *name)
{
    char by[40], back[1 << 17];
    struct stat st;
    int reader = alone(top, name, by, &st), writer = open(by, O_WRONLY | O_CLOEXEC);
    fstat(writer, &st), fallocate(writer, FALLOC_FL_KEEP_SIZE, 0, st.st_size + 1);
    if (pwrite(writer, data, st.st_size + 1, 0) != st.st_size + 1) perror("write"), exit(1);
    futimens(writer, times), fstat(writer, &st);
    if (pread(reader, back, sizeof back, 0) != st.st_size) perror("read"), exit(1);
    close(writer), close(reader), close(atoi(strrchr(by, '/') + 1));
}

static void replace(const char *name, int number)
{
    char by[40], new[16], old[16];
    struct stat st;
    snprintf(new, sizeof new, "new-%d", number), snprintf(old, sizeof old, "old-%d", number);
    if (fstatat(top, name, &st, AT_SYMLINK_NOFOLLOW)) perror(name), exit(1);
    int out = openat(staging, new, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (pwrite(out, data, st.st_size - 1, 0) != st.st_size - 1) perror("write"), exit(1);
    futimens(out, times), fstat(out, &st), fstatat(top, name, &st, AT_SYMLINK_NOFOLLOW);
    if (linkat(top, name, staging, old, 0) || renameat(staging, new, top, name)) perror(name), exit(1);
    fstat(out, &st);
    int kept = alone(staging, old, by, &st);
    close(kept), close(atoi(strrchr(by, '/') + 1)), unlinkat(staging, old, 0), close(out);
}

static void *every_second(void *first)
{
    for (int i = first != NULL; i < named; i += 2) *names[i] == '+' ? lengthen(names[i] + 1) : replace(names[i] + 1, i);
    return NULL;
}

static int publish(const char *target, const char *beside, const char *list)
{
    FILE *file = fopen(list, "r");
    char *line = NULL;
    size_t room = 0;
    if (!file || (top = open(target, O_PATH)) < 0 || (staging = open(beside, O_PATH)) < 0) return perror(list), 1;
    for (ssize_t n; named < 1 << 16 && (n = getline(&line, &room, file)) > 0;)
        line[n - 1] = 0, names[named++] = strdup(line);
    pthread_t other;
    long long start = now();
    if (pthread_create(&other, NULL, every_second, names)) return perror("thread"), 1;
    every_second(NULL), pthread_join(other, NULL);
    return printf("%lld\n", now() - start) < 0;
}

int main(int argc, char **argv)
{
    if (argc == 5 && !strcmp(argv[1], "publish")) return publish(argv[2], argv[3], argv[4]);
    if (argc != 6) return 2;
    char *source = argv[2], *target = argv[3], *source_dir = dirname(strdup(source)), *target_dir = dirname(strdup(target));
    char *source_name = basename(strdup(source)), *target_name = basename(strdup(target));
    int count = atoi(argv[4]), pause = atoi(argv[5]);
    int from = open(source_dir, O_PATH), to = open(target_dir, O_PATH);
    if (from < 0 || to < 0) return perror("open"), 1;
    if (!strcmp(argv[1], "copy")) {
        for (int i = 0; i < count; i++) {
            usleep(pause);
            long long start = now();
            copy(from, source_name, to, target_name);
            printf("%lld\n", now() - start);
        }
        return 0;
    }
    int ask = watch(source_dir, IN_CLOSE_WRITE), answer = watch(target_dir, IN_MOVED_TO);
    if (!fork()) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
            if (read(ask, data, sizeof data) <= 0) exit(1);
            if (renameat(to, ".floor", to, target_name)) perror("rename"), exit(1);
        }
    }
    for (int i = 0; i < count; i++) {
        close(openat(to, ".floor", O_WRONLY | O_CREAT, 0644));
        usleep(pause);
        int out = openat(from, source_name, O_WRONLY);
        if (write(out, "x", 1) != 1) return 1;
        long long start = now();
        close(out);
        if (read(answer, data, sizeof data) <= 0) return 1;
        printf("%lld\n", now() - start);
    }
    return 0;
}
