/* The judge of the benchmark: it looks at the target from outside, in a process of its own, and believes bytes only.
 * All times are CLOCK_MONOTONIC in nanoseconds.
 *
 * probe saves SOURCE TARGET LIST COUNT STYLE PAUSE_US SEED
 *     COUNT lone saves of files named in LIST (one relative path a line), STYLE "inplace" (open with O_TRUNC, write, close)
 *     or "rename" (write beside, close, rename over). The clock starts just before the call that ends the save, close() or
 *     rename(), and stops when the target's file has been read and holds the new bytes. In between the probe sleeps in
 *     poll() on an inotify watch of the target's directories, so that it takes no core from the mirror; it looks once
 *     before it sleeps and once after each wake-up. Prints one lag a line; -1 (and exit 1) after 10 s.
 *
 * probe last TARGET
 *     Watches every directory of TARGET, says "ready", and for each line "QUIET_MS" on stdin waits until nothing happened
 *     for so long and prints "<time of the last event that changed content or names> <events so far>". It reads the events
 *     at most once a millisecond, so the time is up to a millisecond late.
 *
 * probe wait TARGET MANIFEST
 *     Prints the time at which every entry of MANIFEST (records "<size> <path>\0", size -1 for what is no file) is in
 *     TARGET in its full size. It goes through the list once and naps half a millisecond where something is missing. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CONTENT (IN_CREATE | IN_CLOSE_WRITE | IN_MODIFY | IN_DELETE | IN_MOVED_TO | IN_MOVED_FROM)

static char queue[1 << 18];

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static char *slurp(const char *path, size_t *size)
{
    int in = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (in < 0 || fstat(in, &st)) die(path);
    char *text = malloc(st.st_size + 1);
    size_t have = 0;
    for (ssize_t n; (n = read(in, text + have, st.st_size - have)) > 0;) have += n;
    text[have] = 0, *size = have;
    close(in);
    return text;
}

/* --- saves ------------------------------------------------------------------------------------- */

static int arrived(int target, const char *path, const char *want, size_t size)
{
    static char have[1 << 16];
    int in = openat(target, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (in < 0) return 0;
    ssize_t n = read(in, have, sizeof have);
    close(in);
    return n == (ssize_t)size && !memcmp(have, want, size);
}

static int saves(char **argv)
{
    int source = open(argv[2], O_PATH | O_DIRECTORY), target = open(argv[3], O_PATH | O_DIRECTORY);
    int count = atoi(argv[5]), by_rename = !strcmp(argv[6], "rename"), pause = atoi(argv[7]), paths = 0;
    unsigned long long random = strtoull(argv[8], NULL, 10) * 2862933555777941757ULL + 3037000493ULL;
    int events = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    size_t length;
    char *list = slurp(argv[4], &length), **path = malloc((length + 1) * sizeof *path), at[8192];
    if (source < 0 || target < 0 || events < 0) die("open");
    for (char *p = strtok(list, "\n"); p; p = strtok(NULL, "\n")) {
        path[paths++] = p;
        snprintf(at, sizeof at, "%s/%s", argv[3], p);
        *strrchr(at, '/') = 0;
        if (inotify_add_watch(events, at, IN_CLOSE_WRITE | IN_MODIFY | IN_MOVED_TO) < 0) die(at);
    }
    static char text[8192], beside[8192];
    for (size_t i = 0; i < sizeof text; i++) text[i] = i % 61 == 60 ? '\n' : 'a' + i % 26;
    for (int i = 0; i < count; i++) {
        random = random * 6364136223846793005ULL + 1442695040888963407ULL;
        const char *name = path[(random >> 33) % paths];
        size_t size = 1000 + (random >> 40) % 6000;
        usleep(pause / 2 + (random >> 36) % (pause + 1)); /* a person's rhythm, not a machine's */
        while (read(events, queue, sizeof queue) > 0) continue;
        int n = snprintf(text, sizeof text, "save %d of %s, %llx", i, argv[6], random);
        text[n] = '\n';
        snprintf(beside, sizeof beside, "%s.tmp%d", name, i);
        int out = openat(source, by_rename ? beside : name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (out < 0 || write(out, text, size) != (ssize_t)size) die(name);
        if (by_rename) close(out);
        long long start = now(), stop;
        if (by_rename ? renameat(source, beside, source, name) : close(out)) die(name);
        for (;;) {
            struct pollfd waiting = {events, POLLIN, 0};
            int there = arrived(target, name, text, size);
            stop = now();
            if (there) break;
            if (stop - start > 10000000000LL) return puts("-1"), 1;
            if (poll(&waiting, 1, 1000) > 0)
                while (read(events, queue, sizeof queue) > 0) continue;
        }
        printf("%lld\n", stop - start);
    }
    return 0;
}

/* --- last -------------------------------------------------------------------------------------- */

static char **watched;
static int watches;

static void cover(int events, const char *path)
{
    int wd = inotify_add_watch(events, path, CONTENT | IN_ONLYDIR);
    DIR *directory = wd < 0 ? NULL : opendir(path);
    if (!directory) return;
    if (wd >= watches) {
        watched = realloc(watched, (wd + 1) * sizeof *watched);
        while (watches <= wd) watched[watches++] = NULL;
    }
    free(watched[wd]), watched[wd] = strdup(path);
    for (struct dirent *e; (e = readdir(directory));) {
        char at[8192];
        if (e->d_type != DT_DIR || !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        snprintf(at, sizeof at, "%s/%s", path, e->d_name);
        cover(events, at);
    }
    closedir(directory);
}

static int last(char **argv)
{
    int events = inotify_init1(IN_CLOEXEC | IN_NONBLOCK), asked = 0;
    long long latest = now(), since = 0, count = 0;
    cover(events, argv[2]);
    puts("ready"), fflush(stdout);
    for (;;) {
        struct pollfd waiting[2] = {{events, POLLIN, 0}, {asked ? -1 : 0, POLLIN, 0}};
        long long left = asked ? (latest > since ? latest : since) / 1000000 + asked - now() / 1000000 : -1;
        if (asked && left <= 0) {
            printf("%lld %lld\n", latest, count), fflush(stdout);
            asked = 0;
            continue;
        }
        if (poll(waiting, 2, left) < 0) die("poll");
        ssize_t n = read(events, queue, sizeof queue);
        if (n > 0) latest = now();
        for (char *at = queue; n > 0 && at < queue + n; at += sizeof(struct inotify_event) + ((struct inotify_event *)at)->len) {
            struct inotify_event *e = (void *)at;
            count++;
            if (e->mask & IN_ISDIR && e->mask & (IN_CREATE | IN_MOVED_TO) && e->wd < watches && watched[e->wd]) {
                char made[8192];
                snprintf(made, sizeof made, "%s/%s", watched[e->wd], e->name);
                cover(events, made);
            }
        }
        if (n > 0) usleep(1000); /* or each event wakes it, and it takes a core from what it judges */
        if (waiting[1].revents) {
            char line[64];
            ssize_t got = read(0, line, sizeof line - 1);
            if (got <= 0) return 0;
            line[got] = 0, asked = atoi(line), since = now();
        }
    }
}

/* --- wait -------------------------------------------------------------------------------------- */

static int wait_for(char **argv)
{
    size_t length;
    char *list = slurp(argv[3], &length);
    long long start = now();
    int target;
    while ((target = open(argv[2], O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0) {
        if (now() - start > 600000000000LL) return 1;
        usleep(500);
    }
    for (char *at = list; at < list + length; at += strlen(at) + 1) {
        char *path;
        long long size = strtoll(at, &path, 10);
        struct stat st;
        for (path++; fstatat(target, path, &st, AT_SYMLINK_NOFOLLOW) || (size >= 0 && st.st_size != size); usleep(500))
            if (now() - start > 600000000000LL) return fprintf(stderr, "still missing: %s\n", path), 1;
    }
    printf("%lld\n", now());
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 9 && !strcmp(argv[1], "saves")) return saves(argv);
    if (argc == 3 && !strcmp(argv[1], "last")) return last(argv);
    if (argc == 4 && !strcmp(argv[1], "wait")) return wait_for(argv);
    return fputs("see the head of probe.c\n", stderr), 2;
}
