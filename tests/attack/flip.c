/* An attacker: exchanges pairs of names, over and over, so that one name is now a file or a directory and now
 * something that leads outside (a link to a directory, a hard link to a file, a FIFO).
 *
 *   flip PAUSE_US MIN_FLIPS TRASH KIND DIR NAME EVIL LURE [KIND DIR NAME EVIL LURE]...
 *
 * KIND  s  EVIL is a symbolic link with the text LURE
 *       h  EVIL is a hard link to LURE (a file, or a FIFO)
 * Whenever neither NAME nor EVIL is the lure any more (somebody set it aside), EVIL is moved into TRASH and
 * made anew. When standard input is closed it goes on until MIN_FLIPS exchanges of the first pair worked, puts
 * every lure back under EVIL, and prints "first others armed": exchanges of the first pair, of the others, lures
 * that were made anew. It opens nothing but the directories it was given.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct pair {
    char kind;
    int dir;
    const char *name, *evil, *lure;
    struct stat is;
};

static int trash, thrown;

/* Whether a name is the lure: a link with its text, or another name of its inode. */
static int is_lure(const struct pair *pair, const char *name)
{
    char text[4096];
    struct stat is;
    if (pair->kind == 's') {
        ssize_t size = readlinkat(pair->dir, name, text, sizeof text - 1);
        if (size < 0)
            return 0;
        text[size] = 0;
        return strcmp(text, pair->lure) == 0;
    }
    return fstatat(pair->dir, name, &is, AT_SYMLINK_NOFOLLOW) == 0 && is.st_ino == pair->is.st_ino &&
           is.st_dev == pair->is.st_dev;
}

static int arm(const struct pair *pair)
{
    char thrown_name[32];
    if (is_lure(pair, pair->evil) || is_lure(pair, pair->name))
        return 0;
    snprintf(thrown_name, sizeof thrown_name, "%d", thrown++);
    renameat(pair->dir, pair->evil, trash, thrown_name);
    if (pair->kind == 's')
        return symlinkat(pair->lure, pair->dir, pair->evil) == 0;
    return linkat(AT_FDCWD, pair->lure, pair->dir, pair->evil, 0) == 0;
}

static int exchange(const struct pair *pair)
{
    return renameat2(pair->dir, pair->name, pair->dir, pair->evil, RENAME_EXCHANGE) == 0;
}

static int input_closed(void)
{
    struct pollfd input = {.fd = 0, .events = POLLIN};
    return poll(&input, 1, 0) > 0;
}

int main(int count, char **words)
{
    struct pair pairs[16];
    int number = (count - 4) / 5;
    if (count < 9 || number > 16 || (count - 4) % 5)
        return 2;
    long pause_us = atol(words[1]), least = atol(words[2]), flips[2] = {0, 0}, armed = 0;
    trash = open(words[3], O_PATH | O_DIRECTORY);
    for (int i = 0; i < number; i++) {
        char **at = words + 4 + 5 * i;
        struct pair *pair = pairs + i;
        *pair = (struct pair){.kind = at[0][0], .name = at[2], .evil = at[3], .lure = at[4]};
        pair->dir = open(at[1], O_PATH | O_DIRECTORY);
        if (trash < 0 || pair->dir < 0 || (pair->kind == 'h' && lstat(pair->lure, &pair->is) != 0)) {
            perror(at[1]);
            return 1;
        }
    }
    for (long turn = 0;; turn++) {
        const struct pair *pair = pairs + turn % number;
        if (turn % (number * 16L) < number)
            armed += arm(pair);
        if (pause_us) {
            struct timespec pause = {pause_us / 1000000, pause_us % 1000000 * 1000};
            nanosleep(&pause, NULL);
        }
        flips[pair != pairs] += exchange(pair);
        if (turn % 64 == 0 && flips[0] >= least && input_closed())
            break;
    }
    for (int i = 0; i < number; i++)
        if (is_lure(pairs + i, pairs[i].name))
            exchange(pairs + i);
    printf("%ld %ld %ld\n", flips[0], flips[1], armed);
    return 0;
}
