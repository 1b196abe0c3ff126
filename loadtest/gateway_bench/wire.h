/* What engine.c and load.c share: a clock, bytes that grow, and as much of HTTP/1.1 as a message's end needs. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000ull
#define READ_BYTES (256 * 1024)

typedef struct {
    char *at;
    size_t len, room;
} Bytes;

static inline uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

static inline void fail(const char *what) {
    perror(what);
    exit(1);
}

/* Room for `more` bytes and a NUL behind them. */
static inline void make_room(Bytes *b, size_t more) {
    if (b->len + more < b->room) return;
    while (b->len + more >= b->room) b->room = b->room ? b->room * 2 : 4096;
    if (!(b->at = realloc(b->at, b->room))) fail("realloc");
}

static inline void put(Bytes *b, const void *from, size_t n) {
    make_room(b, n);
    memcpy(b->at + b->len, from, n);
    b->len += n;
    b->at[b->len] = 0;
}

static inline void drop_first(Bytes *b, size_t n) {
    b->len -= n;
    if (b->len) memmove(b->at, b->at + n, b->len);
}

/* Reads what the socket has; 1, or 0 when the other end is gone. */
static inline int fill(int fd, Bytes *b) {
    for (;;) {
        make_room(b, READ_BYTES);
        ssize_t n = recv(fd, b->at + b->len, READ_BYTES, 0);
        if (n > 0) {
            b->len += (size_t)n;
            if (n < READ_BYTES) return 1;
        } else if (n == 0) {
            return 0;
        } else if (errno == EAGAIN) {
            return 1;
        } else if (errno != EINTR) {
            return 0;
        }
    }
}

enum { CHUNKED = -1, UNTIL_CLOSE = -2 };

/* How a message that is being received is framed, and how far it has come. */
typedef struct {
    size_t head;       /* its bytes, 0 until it is whole */
    long long length;  /* of the body, or one of the above */
    size_t chunk_left; /* of the present chunk, with its line end */
    int last_chunk, whole, closes, broken;
} Framing;

/* The value of a header in a head that ends with a NUL; "" if it is not there. */
static inline const char *header(const char *head, const char *line_start) {
    const char *found = strcasestr(head, line_start);
    if (!found) return "";
    found += strlen(line_start);
    return found + strspn(found, " ");
}

/* Looks for the head's end; whether it is there. Leaves a NUL in place of the empty line. */
static inline int read_head(Framing *f, Bytes *in, int is_answer) {
    if (f->head) return 1;
    char *end = in->len ? memmem(in->at, in->len, "\r\n\r\n", 4) : NULL;
    if (!end) return 0;
    end[2] = 0;
    f->head = (size_t)(end + 4 - in->at);
    const char *length = header(in->at, "\r\ncontent-length:");
    f->length = *length ? atoll(length) : is_answer ? UNTIL_CLOSE : 0;
    if (!strncasecmp(header(in->at, "\r\ntransfer-encoding:"), "chunked", 7)) f->length = CHUNKED;
    f->closes = !strncasecmp(header(in->at, "\r\nconnection:"), "close", 5) || f->length == UNTIL_CLOSE;
    return 1;
}

/* Moves what has come of the body, behind the head, from `in` to `out`; the head must have been dropped from `in`. */
static inline void read_body(Framing *f, Bytes *in, Bytes *out) {
    if (f->length != CHUNKED) {
        size_t n = in->len;
        if (f->length >= 0 && (long long)(out->len + n) > f->length) n = (size_t)f->length - out->len;
        put(out, in->at, n);
        drop_first(in, n);
        f->whole = (long long)out->len == f->length;
        return;
    }
    size_t at = 0;
    while (at < in->len && !f->whole) {
        if (!f->chunk_left) { /* a size line, or the empty line at the end */
            char *end = memchr(in->at + at, '\n', in->len - at);
            if (!end) break;
            if (f->last_chunk) {
                f->whole = end - (in->at + at) <= 1; /* else a trailer */
            } else {
                size_t size = strtoull(in->at + at, NULL, 16);
                f->last_chunk = !size;
                f->chunk_left = size ? size + 2 : 0;
            }
            at = (size_t)(end + 1 - in->at);
            continue;
        }
        size_t here = in->len - at, data = f->chunk_left > 2 ? f->chunk_left - 2 : 0;
        put(out, in->at + at, here < data ? here : data);
        if (here > f->chunk_left) here = f->chunk_left;
        at += here;
        f->chunk_left -= here;
    }
    drop_first(in, at);
}

static inline void no_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static inline struct sockaddr_in loopback(int port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static inline void watch(int epoll, int op, int fd, uint32_t events, void *what) {
    struct epoll_event event = {.events = events, .data.ptr = what};
    if (epoll_ctl(epoll, op, fd, &event)) fail("epoll_ctl");
}
