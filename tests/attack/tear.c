/* A writer of self-consistent versions of a file: in version N every 8-byte word is N.
 *
 *   tear FILE SIZE HOW PAUSE_US
 *
 * HOW  pwrite   open, write in pieces of 64 KiB, close
 *      whole    open, one write, close
 *      mmap     open, map, close, store, unmap
 *      held     as pwrite, but the file stays open
 *      mapped   as mmap, but the mapping stays
 * PAUSE_US is the longest pause between two versions (each is random up to it); with a minus sign, the exact one.
 * Until standard input closes; then the version in hand is finished and its number printed.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 64 << 10 };

int main(int count, char **words)
{
    if (count != 5)
        return 2;
    size_t size = strtoul(words[2], NULL, 10);
    const char *how = words[3];
    long most = atol(words[4]);
    int mapped = strcmp(how, "mapped") == 0, maps = mapped || strcmp(how, "mmap") == 0;
    int held = strcmp(how, "held") == 0;
    size_t piece = strcmp(how, "whole") == 0 ? size : PIECE;
    uint64_t *body = malloc(size);
    uint64_t *map = MAP_FAILED;
    int file = -1;
    for (uint64_t version = 1;; version++) {
        if (file < 0 && map == MAP_FAILED && (file = open(words[1], O_RDWR)) < 0)
            return 1;
        if (maps) {
            if (map == MAP_FAILED) {
                map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
                close(file);
                file = -1;
            }
            for (size_t at = 0; at < size / 8; at++)
                ((volatile uint64_t *)map)[at] = version;
            if (!mapped) {
                munmap(map, size);
                map = MAP_FAILED;
            }
        } else {
            for (size_t at = 0; at < size / 8; at++)
                body[at] = version;
            for (size_t at = 0; at < size; at += piece)
                if (pwrite(file, (char *)body + at, size - at < piece ? size - at : piece, at) < 0)
                    return 1;
            if (!held) {
                close(file);
                file = -1;
            }
        }
        struct pollfd input = {.fd = 0, .events = POLLIN};
        if (poll(&input, 1, 0) > 0) {
            printf("%llu\n", (unsigned long long)version);
            return 0;
        }
        long pause_us = most < 0 ? -most : most ? random() % most : 0;
        struct timespec pause = {pause_us / 1000000, pause_us % 1000000 * 1000};
        nanosleep(&pause, NULL);
    }
}
