/* A load generator for benchmarks: so many clients on one thread, each of which asks again once it is answered.
 *
 *     load PORT KEY CLIENTS SECONDS DISTINCT STREAMS TOKENS BODY…
 *
 * A BODY is a file with a request whose text ends in `id=` and ID_DIGITS digits, which are replaced: each request asks
 * something new, or with DISTINCT above 0 one of so many things. Every answer is checked: the status, that it says the
 * id, and of a stream the order and number (TOKENS) of its tokens and its end. Prints one JSON object; times are in
 * microseconds, those of the first WARM_UP_NS are left out. */
#include "wire.h"

#define ID_DIGITS 16
#define WARM_UP_NS (SECOND * 3 / 10)
#define PATIENCE_NS (SECOND * 20)

typedef struct {
    Bytes start; /* the head and the body as far as the id's end */
    size_t id_at;
    char *rest;
    size_t rest_len;
} Question;

typedef struct {
    int fd, asking, next_token, done, broken;
    uint64_t began, first;
    char id[ID_DIGITS + 1];
    Bytes start, in, body;
    struct iovec out[2];
    int out_at, wants_out, status;
    size_t read; /* of a stream's body */
    Framing framing;
} Client;

typedef struct {
    double *at;
    size_t n, room;
} Samples;

static int epoll, port, streams, tokens, n_questions;
static uint64_t distinct, serial, salt, counted_from, over;
static Question *questions;
static Samples latency, first_token, relay;
static uint64_t ok, ok_counted, chunks, failed;
static char first_failure[200];

static void sample(Samples *s, uint64_t ns) {
    if (s->n == s->room && !(s->at = realloc(s->at, (s->room = s->room ? s->room * 2 : 4096) * sizeof *s->at))) fail("realloc");
    s->at[s->n++] = (double)ns / 1000;
}

static void failure(Client *c, const char *what, const char *detail, size_t n) {
    if (!failed++) {
        size_t at = (size_t)snprintf(first_failure, 60, "%s: ", what);
        for (size_t i = 0; i < n && at < sizeof first_failure - 1; i++)
            first_failure[at++] = detail[i] < ' ' || detail[i] > '~' || strchr("\"\\", detail[i]) ? ' ' : detail[i];
    }
    c->broken = 1;
}

/* A bijection that scatters numbers over 64 bits (the finaliser of SplitMix64). */
static uint64_t scattered(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static void hang_up(Client *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    c->in.len = 0;
    c->wants_out = 0;
}

static void push(Client *c) {
    while (c->out_at < 2) {
        struct iovec *v = &c->out[c->out_at];
        ssize_t n = writev(c->fd, v, 2 - c->out_at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno != EAGAIN) return; /* whoever reads sees it */
        if (n < 0) break;
        while (c->out_at < 2 && (size_t)n >= c->out[c->out_at].iov_len) n -= (ssize_t)c->out[c->out_at++].iov_len;
        if (c->out_at < 2) {
            c->out[c->out_at].iov_base = (char *)c->out[c->out_at].iov_base + n;
            c->out[c->out_at].iov_len -= (size_t)n;
        }
    }
    int wants_out = c->out_at < 2;
    if (wants_out != c->wants_out) watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN | (wants_out ? EPOLLOUT : 0), c);
    c->wants_out = wants_out;
}

static void ask(Client *c) {
    if (c->fd < 0) {
        struct sockaddr_in address = loopback(port);
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) {
            failure(c, "connect", strerror(errno), strlen(strerror(errno)));
            hang_up(c);
            return;
        }
        no_delay(c->fd);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        watch(epoll, EPOLL_CTL_ADD, c->fd, EPOLLIN, c);
    }
    uint64_t number = distinct ? serial++ % distinct : serial++;
    Question *q = &questions[number % (uint64_t)n_questions];
    snprintf(c->id, sizeof c->id, "%016" PRIx64, scattered(number + salt));
    c->start.len = 0;
    put(&c->start, q->start.at, q->start.len);
    memcpy(c->start.at + q->id_at, c->id, ID_DIGITS);
    c->out[0] = (struct iovec){c->start.at, c->start.len};
    c->out[1] = (struct iovec){q->rest, q->rest_len};
    c->out_at = 0;
    c->framing = (Framing){0};
    c->body.len = c->read = 0;
    c->next_token = c->done = c->broken = c->status = 0;
    c->first = 0;
    c->asking = 1;
    c->began = now_ns();
    push(c);
}

/* A line of a stream. */
static void line(Client *c, char *at, size_t n, uint64_t now) {
    if (memmem(at, n, "[DONE]", 6)) c->done = 1;
    char *content = memmem(at, n, "\"content\":", 10);
    if (!content) return;
    content += 10 + (content[10] == ' ') + 1;
    if (*content == '"') return; /* the role's event, or the last */
    if (strncmp(content, c->id, ID_DIGITS) || atoi(content + ID_DIGITS + 1) != c->next_token) {
        failure(c, "another token was due", at, n);
        return;
    }
    char *stamp = strchr(content + ID_DIGITS + 1, '.');
    uint64_t sent = stamp ? strtoull(stamp + 1, NULL, 16) : 0;
    if (!c->next_token++) c->first = now;
    chunks++;
    if (!distinct && now > counted_from && sent && now > sent) sample(&relay, now - sent);
}

static void answered(Client *c, uint64_t now) {
    char status[16];
    snprintf(status, sizeof status, "status %d", c->status);
    if (c->status != 200)
        failure(c, status, c->body.len ? c->body.at : "", c->body.len);
    else if (streams && (c->next_token != tokens || !c->done))
        failure(c, "the stream ended early", c->id, ID_DIGITS);
    else if (!streams && !(c->body.len && memmem(c->body.at, c->body.len, c->id, ID_DIGITS)))
        failure(c, "not its answer", c->body.len ? c->body.at : "", c->body.len);
    c->asking = 0;
    if (!c->broken) {
        ok++;
        if (c->began >= counted_from && now <= over) {
            ok_counted++;
            sample(&latency, now - c->began);
            if (streams) sample(&first_token, c->first - c->began);
        }
    }
    if (c->framing.closes || c->broken) hang_up(c);
}

static void readable(Client *c) {
    int open = fill(c->fd, &c->in);
    uint64_t now = now_ns();
    if (c->asking && !c->framing.head && read_head(&c->framing, &c->in, 1)) {
        c->status = atoi(c->in.at + strlen("HTTP/1.1 "));
        drop_first(&c->in, c->framing.head);
    }
    if (c->asking && c->framing.head) {
        read_body(&c->framing, &c->in, &c->body);
        char *end;
        while (streams && c->read < c->body.len && (end = memchr(c->body.at + c->read, '\n', c->body.len - c->read))) {
            line(c, c->body.at + c->read, (size_t)(end - c->body.at) - c->read, now);
            c->read = (size_t)(end + 1 - c->body.at);
        }
        if (c->framing.whole || (!open && c->framing.length == UNTIL_CLOSE)) answered(c, now);
    }
    if (!open) {
        if (c->asking) failure(c, "closed early", c->in.len ? c->in.at : "", c->in.len);
        c->asking = 0;
        hang_up(c);
    }
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_samples(const char *name, Samples *s) {
    if (!s->n) return;
    qsort(s->at, s->n, sizeof *s->at, ascending);
    printf(", \"%s_p50_us\": %.1f, \"%s_p99_us\": %.1f", name, s->at[(s->n - 1) / 2], name, s->at[(s->n * 99 + 99) / 100 - 1]);
}

static void read_question(Question *q, const char *path, const char *key) {
    FILE *file = fopen(path, "rb");
    if (!file) fail(path);
    Bytes body = {0};
    for (size_t n = 1; n;) {
        make_room(&body, READ_BYTES);
        body.len += n = fread(body.at + body.len, 1, READ_BYTES, file);
    }
    fclose(file);
    char *id = body.len ? memmem(body.at, body.len, "id=", 3) : NULL;
    if (!id) {
        fprintf(stderr, "%s has no id=\n", path);
        exit(2);
    }
    size_t id_end = (size_t)(id + 3 - body.at) + ID_DIGITS;
    char head[400];
    int n = snprintf(head, sizeof head, "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\n"
                     "Content-Type: application/json\r\nAccept: */*\r\nUser-Agent: bench\r\nContent-Length: %zu\r\n\r\n",
                     port, key, body.len);
    put(&q->start, head, (size_t)n);
    put(&q->start, body.at, id_end);
    q->id_at = (size_t)n + id_end - ID_DIGITS;
    q->rest = body.at + id_end;
    q->rest_len = body.len - id_end;
}

int main(int argc, char **argv) {
    if (argc < 9) {
        fprintf(stderr, "usage: load PORT KEY CLIENTS SECONDS DISTINCT STREAMS TOKENS BODY...\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1);
    port = atoi(argv[1]);
    int n_clients = atoi(argv[3]);
    double seconds = atof(argv[4]);
    distinct = strtoull(argv[5], NULL, 10);
    streams = atoi(argv[6]);
    tokens = atoi(argv[7]);
    n_questions = argc - 8;
    if (!(questions = calloc((size_t)n_questions, sizeof *questions))) fail("calloc");
    for (int i = 0; i < n_questions; i++) read_question(&questions[i], argv[8 + i], argv[2]);
    salt = distinct ? 1 : now_ns();
    epoll = epoll_create1(0);
    Client *clients = calloc((size_t)n_clients, sizeof *clients);
    if (!clients) fail("calloc");
    for (int i = 0; i < n_clients; i++) clients[i].fd = -1;
    counted_from = now_ns() + WARM_UP_NS;
    over = counted_from + (uint64_t)(seconds * SECOND);
    struct epoll_event events[256];
    for (int asking = 1; asking;) {
        asking = 0;
        uint64_t now = now_ns();
        for (int i = 0; i < n_clients; i++) {
            if (!clients[i].asking && now < over) ask(&clients[i]);
            asking += clients[i].asking;
            if (clients[i].asking && now > clients[i].began + PATIENCE_NS) {
                failure(&clients[i], "no answer in time", "", 0);
                clients[i].asking = 0;
                hang_up(&clients[i]);
            }
        }
        struct timespec timeout = {0, 100000000};
        int n = epoll_pwait2(epoll, events, 256, &timeout, NULL);
        for (int i = 0; i < n; i++) {
            Client *c = events[i].data.ptr;
            if (c->fd >= 0 && events[i].events & EPOLLOUT) push(c);
            if (c->fd >= 0 && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(c);
            if (c->fd >= 0 && !c->asking && now_ns() < over) ask(c);
        }
        if (!asking && now < over) {
            struct timespec pause = {0, 10000000}; /* nobody could connect */
            nanosleep(&pause, NULL);
            asking = 1;
        }
    }
    printf("{\"ok\": %" PRIu64 ", \"failed\": %" PRIu64 ", \"first_failure\": \"%s\", \"chunks\": %" PRIu64
           ", \"per_second\": %.1f", ok, failed, first_failure, chunks, (double)ok_counted / seconds);
    print_samples("latency", &latency);
    print_samples("first_token", &first_token);
    print_samples("relay", &relay);
    printf("}\n");
    return 0;
}
