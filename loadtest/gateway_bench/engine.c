/* A simulated vLLM server for benchmarks: one thread that answers chat completions as told in their text.
 *
 *     engine PORT
 *
 * The text holds `sim ttft=US itl=US tokens=N id=HEX`: how long until the first token and between two, in microseconds,
 * how many, and what each token says, so that an answer to another request is seen. A token of a stream is
 * `HEX.NUMBER.NS`, with the time of its sending by CLOCK_MONOTONIC. Without that text (a probe) it answers at once. */
#include "wire.h"

#define CLIENTS 4096
#define ID_DIGITS 16

typedef struct {
    int fd, open, busy, wants_out, streams, tells_usage, tokens, sent;
    uint64_t due, itl_ns;
    char id[ID_DIGITS + 1];
    Bytes in, body, out;
    size_t gone; /* of `out` */
    Framing framing;
} Client;

static Client *clients[CLIENTS];
static int highest, epoll;

static void leave(Client *c) {
    close(c->fd);
    c->open = c->busy = 0;
    c->in.len = c->body.len = c->out.len = c->gone = 0;
}

static void push(Client *c) {
    while (c->gone < c->out.len) {
        ssize_t n = send(c->fd, c->out.at + c->gone, c->out.len - c->gone, MSG_NOSIGNAL);
        if (n >= 0) {
            c->gone += (size_t)n;
        } else if (errno == EAGAIN) {
            break;
        } else if (errno != EINTR) {
            leave(c);
            return;
        }
    }
    int wants_out = c->gone < c->out.len;
    if (!wants_out) c->out.len = c->gone = 0;
    if (wants_out != c->wants_out) watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN | (wants_out ? EPOLLOUT : 0), c);
    c->wants_out = wants_out;
}

static void whole_answer(Client *c, const char *type, const char *text) {
    char head[200];
    int n = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %zu\r\n\r\n", type,
                     strlen(text));
    put(&c->out, head, (size_t)n);
    put(&c->out, text, strlen(text));
}

static void event(Client *c, const char *choices, const char *more) {
    char text[700], size[16];
    int n = snprintf(text, sizeof text,
                     "data: {\"id\":\"chatcmpl-%s\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,"
                     "\"model\":\"sim\",\"choices\":[%s]%s}\n\n", c->id, choices, more);
    put(&c->out, size, (size_t)snprintf(size, sizeof size, "%x\r\n", n));
    put(&c->out, text, (size_t)n);
    put(&c->out, "\r\n", 2);
}

static void usage_of(Client *c, char *text, size_t room) {
    snprintf(text, room, ",\"usage\":{\"prompt_tokens\":50,\"total_tokens\":%d,\"completion_tokens\":%d}", 50 + c->tokens,
             c->tokens);
}

static void answer(Client *c) {
    char text[700], usage[128];
    usage_of(c, usage, sizeof usage);
    snprintf(text, sizeof text,
             "{\"id\":\"chatcmpl-%s\",\"object\":\"chat.completion\",\"created\":1760000000,\"model\":\"sim\",\"choices\":"
             "[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s and some words more\",\"refusal\":null},"
             "\"logprobs\":null,\"finish_reason\":\"stop\"}]%s}", c->id, c->id, usage);
    whole_answer(c, "application/json", text);
    c->busy = 0;
}

/* One token of a stream, the first with the role's event as vLLM sends it; after the last one the end. */
static void step(Client *c) {
    char choice[300], usage[128];
    if (!c->sent) event(c, "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}", "");
    if (c->sent < c->tokens) {
        snprintf(choice, sizeof choice,
                 "{\"index\":0,\"delta\":{\"content\":\"%s.%d.%" PRIx64 " \"},\"logprobs\":null,\"finish_reason\":null}", c->id,
                 c->sent++, now_ns());
        event(c, choice, "");
        c->due = now_ns() + c->itl_ns;
        return;
    }
    event(c, "{\"index\":0,\"delta\":{\"content\":\"\"},\"logprobs\":null,\"finish_reason\":\"stop\"}", "");
    usage_of(c, usage, sizeof usage);
    if (c->tells_usage) event(c, "", usage);
    static const char end[] = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
    put(&c->out, end, sizeof end - 1);
    c->busy = 0;
}

/* Fields stand before or behind the messages, never in the middle of a picture. */
static int says(const char *body, size_t n, const char *name) {
    size_t edge = n < 2048 ? n : 2048;
    const char *edges[] = {body, body + n - edge};
    for (int i = 0; i < 2; i++) {
        const char *found = memmem(edges[i], edge, name, strlen(name));
        if (found && found + strlen(name) + 1 < body + n && strchr("t ", found[strlen(name)])) {
            found += strlen(name);
            if (found[*found == ' '] == 't') return 1;
        }
    }
    return 0;
}

static void serve(Client *c, const char *head, const char *body, size_t n) {
    if (strncmp(head, "POST", 4)) {
        if (!strncmp(head, "GET /v1/models", 14))
            whole_answer(c, "application/json", "{\"object\":\"list\",\"data\":[{\"id\":\"sim\",\"object\":\"model\","
                         "\"created\":1760000000,\"owned_by\":\"vllm\",\"max_model_len\":32768}]}");
        else
            whole_answer(c, "text/plain", "");
        return;
    }
    uint64_t ttft_us = 0, itl_us = 0;
    char told[128] = "";
    const char *found = n ? memmem(body, n, "sim ttft=", 9) : NULL;
    if (found) memcpy(told, found, (size_t)(body + n - found) < 127 ? (size_t)(body + n - found) : 127);
    c->tokens = 1;
    strcpy(c->id, "0");
    sscanf(told, "sim ttft=%" SCNu64 " itl=%" SCNu64 " tokens=%d id=%16[0-9a-f]", &ttft_us, &itl_us, &c->tokens, c->id);
    c->streams = says(body, n, "\"stream\":");
    c->tells_usage = says(body, n, "\"include_usage\":");
    c->itl_ns = itl_us * 1000;
    c->sent = 0;
    c->busy = 1;
    c->due = now_ns() + ttft_us * 1000;
    if (c->streams) {
        static const char start[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                                    "transfer-encoding: chunked\r\n\r\n";
        put(&c->out, start, sizeof start - 1);
    } else {
        c->due += itl_us * 1000 * (uint64_t)c->tokens;
    }
}

static void requests(Client *c) {
    while (c->open && !c->busy && read_head(&c->framing, &c->in, 0)) {
        Framing *f = &c->framing;
        if (f->length == CHUNKED) {
            Bytes rest = {0};
            put(&rest, c->in.at + f->head, c->in.len - f->head);
            read_body(f, &rest, &c->body);
            c->in.len = f->head;
            put(&c->in, rest.at, rest.len);
            free(rest.at);
            if (!f->whole) return;
            serve(c, c->in.at, c->body.at, c->body.len);
            c->body.len = 0;
            drop_first(&c->in, f->head);
        } else {
            size_t whole = f->head + (size_t)f->length;
            if (c->in.len < whole) return;
            serve(c, c->in.at, c->in.at + f->head, (size_t)f->length);
            drop_first(&c->in, whole);
        }
        *f = (Framing){0};
        push(c);
    }
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= CLIENTS) {
            close(fd);
            continue;
        }
        no_delay(fd);
        if (!clients[fd] && !(clients[fd] = calloc(1, sizeof(Client)))) fail("calloc");
        Client *c = clients[fd];
        *c = (Client){.fd = fd, .open = 1, .in = c->in, .body = c->body, .out = c->out};
        if (fd > highest) highest = fd;
        watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, c);
    }
}

/* Does what is due; nanoseconds until something will be. */
static uint64_t turn(void) {
    uint64_t next = SECOND;
    for (int fd = 0; fd <= highest; fd++) {
        Client *c = clients[fd];
        if (!c || !c->open || !c->busy || c->wants_out) continue;
        uint64_t now = now_ns();
        if (c->due <= now) {
            if (c->streams) step(c); else answer(c);
            push(c);
            requests(c);
            if (!c->open || !c->busy) continue;
        }
        uint64_t left = c->due > now ? c->due - now : 0;
        if (left < next) next = left;
    }
    return next;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: engine PORT\n");
        return 2;
    }
    prctl(PR_SET_TIMERSLACK, 1);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = loopback(atoi(argv[1]));
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) fail("listen");
    epoll = epoll_create1(0);
    watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    struct epoll_event events[256];
    for (;;) {
        uint64_t wait = turn();
        struct timespec timeout = {(time_t)(wait / SECOND), (long)(wait % SECOND)};
        int n = epoll_pwait2(epoll, events, 256, &timeout, NULL);
        for (int i = 0; i < n; i++) {
            Client *c = events[i].data.ptr;
            if (!c) {
                accept_all(listener);
                continue;
            }
            if (c->open && events[i].events & EPOLLOUT) push(c);
            if (c->open && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
                if (fill(c->fd, &c->in)) requests(c); else leave(c);
            }
        }
    }
}
