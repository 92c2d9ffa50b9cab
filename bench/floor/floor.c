/* floor SOURCE TARGET: the least a mirror can do. It watches every directory but `.git`, copies a file when it was closed
 * after writing or moved in (read, write a temporary, rename), makes and removes what was made and removed. It checks
 * nothing, keeps nothing, orders nothing and survives nothing. TARGET must equal SOURCE; it says "ready". */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

static int events, source, target;
static char **watched, data[1 << 17], queue[1 << 18];

static void copy(const char *path)
{
    int in = openat(source, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC), out;
    if (in < 0 || (out = openat(target, ".floor", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) < 0) return;
    for (ssize_t n = sizeof data; n == sizeof data;)
        if ((n = read(in, data, sizeof data)) > 0 && write(out, data, n) != n) exit(1);
    close(in), close(out), renameat(target, ".floor", target, path);
}

static void cover(const char *path, int fresh) /* watch all directories at and below; copy what is in fresh ones */
{
    char at[4200];
    snprintf(at, sizeof at, "/proc/self/fd/%d/%s", source, path);
    int wd = inotify_add_watch(events, at, IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVE | IN_ONLYDIR);
    DIR *dir = wd < 0 ? NULL : opendir(at);
    if (!dir) return;
    watched = realloc(watched, (wd + 1) * sizeof *watched), watched[wd] = strdup(path);
    if (fresh) mkdirat(target, path, 0755);
    for (struct dirent *e; (e = readdir(dir));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || !strcmp(e->d_name, ".git")) continue;
        snprintf(at, sizeof at, "%s/%s", path, e->d_name);
        if (e->d_type == DT_DIR) cover(at, fresh);
        else if (fresh && e->d_type == DT_REG) copy(at);
    }
    closedir(dir);
}

int main(int argc, char **argv)
{
    events = inotify_init1(IN_CLOEXEC), source = open(argv[argc - 2], O_PATH), target = open(argv[argc - 1], O_PATH);
    cover(".", 0), puts("ready"), fflush(stdout);
    for (ssize_t n; (n = read(events, queue, sizeof queue)) > 0;)
        for (char *at = queue; at < queue + n; at += sizeof(struct inotify_event) + ((struct inotify_event *)at)->len) {
            struct inotify_event *e = (void *)at;
            char path[4200];
            if (!e->len || !strcmp(e->name, ".git")) continue;
            snprintf(path, sizeof path, "%s/%s", watched[e->wd], e->name);
            if (e->mask & (IN_DELETE | IN_MOVED_FROM)) unlinkat(target, path, e->mask & IN_ISDIR ? AT_REMOVEDIR : 0);
            else if (e->mask & IN_ISDIR) cover(path, 1);
            else if (!(e->mask & IN_CREATE)) copy(path);
        }
}
