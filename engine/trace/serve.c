/*
 * Each connection:  reading (until an empty line) → writing → closed; at its deadline it is closed wherever it is. What comes is a
 *                   request
 * line and lines that nobody reads; what goes out is one answer. One poll() waits for all of them, and never longer than the next
 * deadline.
 */
#include "trace/serve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/clock.h"
#include "core/fault.h"

#define DEADLINE_NS (5 * STM_NS_PER_S)
/* nobody is accepted for so long when that failed: poll would say at once that somebody waits */
#define DEAF_NS (STM_NS_PER_S / 10)
enum { CONNECTIONS = 16, REQUEST_BYTES = 4096, REST_BYTES = 65536 };

struct connection {
    int fd; /* -1 = free */
    int64_t until_ns;
    size_t n; /* bytes of the request; SIZE_MAX once it is answered */
    size_t sent;
    char request[REQUEST_BYTES + 1];
    stm_text answer;
};

struct stm_server {
    int listener, stop; /* stop: an eventfd */
    int32_t port;
    stm_serve_page page;
    void *user;
    pthread_t thread;
    bool started;
    int64_t deaf_until_ns;
    struct connection at[CONNECTIONS];
};

static void drop(struct connection *c)
{
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    stm_text_free(&c->answer);
    c->answer = (stm_text){0};
}

static void answer(struct connection *c, const char *status, const char *type, const char *body, size_t n, bool head)
{
    stm_text_addf(&c->answer,
                  "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
                  status, type, n);
    if (!head && n > 0) stm_text_add(&c->answer, body, n);
    c->n = SIZE_MAX;
    c->sent = 0;
    if (c->answer.failed) drop(c);
}

static void refuse(struct connection *c, const char *status)
{
    char body[64];

    snprintf(body, sizeof body, "%s\n", status);
    answer(c, status, "text/plain; charset=utf-8", body, strlen(body), false);
}

/* The request is complete. */
static void respond(stm_server *s, struct connection *c)
{
    const bool head = strncmp(c->request, "HEAD ", 5) == 0;
    char *path = c->request + (head ? 5 : 4), *end;
    const char *type;
    stm_text body = {0};

    if (!head && strncmp(c->request, "GET ", 4) != 0) {
        const size_t word = strspn(c->request, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
        refuse(c, word > 0 && c->request[word] == ' ' ? "405 Method Not Allowed" : "400 Bad Request");
        return;
    }
    end = path + strcspn(path, " \r\n");
    if (*path != '/' || *end != ' ' || strncmp(end, " HTTP/1.", 8) != 0) {
        refuse(c, "400 Bad Request");
        return;
    }
    *end = '\0';
    path[strcspn(path, "?")] = '\0';
    type = s->page(path, &body, s->user);
    if (type == NULL)
        refuse(c, "404 Not Found");
    else if (body.failed)
        refuse(c, "503 Service Unavailable");
    else
        answer(c, "200 OK", type, body.data, body.bytes, head);
    stm_text_free(&body);
}

static void take_bytes(stm_server *s, struct connection *c)
{
    const ssize_t k = recv(c->fd, c->request + c->n, REQUEST_BYTES - c->n, 0);

    if (k <= 0) {
        if (k == 0 || (errno != EAGAIN && errno != EINTR)) drop(c);
        return;
    }
    c->n += (size_t)k;
    c->request[c->n] = '\0';
    if (memchr(c->request, '\0', c->n) != NULL)
        refuse(c, "400 Bad Request");
    else if (strstr(c->request, "\r\n\r\n") != NULL || strstr(c->request, "\n\n") != NULL)
        respond(s, c);
    else if (c->n == REQUEST_BYTES)
        refuse(c, "431 Request Header Fields Too Large");
}

static void give_bytes(struct connection *c)
{
    const ssize_t k = send(c->fd, c->answer.data + c->sent, c->answer.bytes - c->sent, MSG_NOSIGNAL);
    char rest[256];
    size_t read = 0;
    ssize_t more;

    if (k < 0) {
        if (errno != EAGAIN && errno != EINTR) drop(c);
        return;
    }
    c->sent += (size_t)k;
    if (c->sent < c->answer.bytes) return;
    shutdown(c->fd, SHUT_WR);
    /* left unread they would take the answer back */
    while (read < REST_BYTES && (more = recv(c->fd, rest, sizeof rest, 0)) > 0) read += (size_t)more;
    drop(c);
}

static void greet(stm_server *s)
{
    const int fd = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct connection *oldest = &s->at[0];

    if (fd < 0) {
        /* no descriptor is left */
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) s->deaf_until_ns = stm_now_ns() + DEAF_NS;
        return;
    }
    for (int i = 0; i < CONNECTIONS && oldest->fd >= 0; i++)
        if (s->at[i].fd < 0 || s->at[i].until_ns < oldest->until_ns) oldest = &s->at[i];
    drop(oldest); /* a full house: whoever has been here longest gives way */
    oldest->fd = fd;
    oldest->n = oldest->sent = 0;
    oldest->until_ns = stm_now_ns() + DEADLINE_NS;
}

static void *server_main(void *arg)
{
    stm_server *s = arg;
    struct pollfd p[CONNECTIONS + 2];

    for (;;) {
        const int64_t now = stm_now_ns();
        const bool deaf = s->deaf_until_ns > now;
        int64_t wait = deaf ? s->deaf_until_ns - now : -1;

        p[0] = (struct pollfd){.fd = s->stop, .events = POLLIN};
        p[1] = (struct pollfd){.fd = deaf ? -1 : s->listener, .events = POLLIN};
        for (int i = 0; i < CONNECTIONS; i++) {
            struct connection *c = &s->at[i];
            if (c->fd >= 0 && c->until_ns <= now) drop(c);
            p[i + 2] = (struct pollfd){.fd = c->fd, .events = c->n == SIZE_MAX ? POLLOUT : POLLIN};
            if (c->fd >= 0 && (wait < 0 || c->until_ns - now < wait)) wait = c->until_ns - now;
        }
        if (poll(p, CONNECTIONS + 2, wait < 0 ? -1 : (int)(wait / 1000000 + 1)) < 0 && errno != EINTR) break;
        if (p[0].revents != 0) break;
        for (int i = 0; i < CONNECTIONS; i++) {
            struct connection *c = &s->at[i];
            if (c->fd < 0 || p[i + 2].revents == 0) continue;
            if (c->n != SIZE_MAX) take_bytes(s, c);
            if (c->fd >= 0 && c->n == SIZE_MAX) give_bytes(c);
        }
        if ((p[1].revents & POLLIN) != 0) greet(s);
    }
    return NULL;
}

mill_status stm_server_start(int32_t port, stm_serve_page page, void *user, stm_server **out, mill_error *err)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    stm_server *s = stm_calloc(sizeof *s);
    mill_status st;
    const int on = 1;

    if (s == NULL) return mill_fail(err, MILL_ERR_NOMEM, "listening on port %d", port);
    for (int i = 0; i < CONNECTIONS; i++) s->at[i].fd = -1;
    s->page = page;
    s->user = user;
    s->stop = eventfd(0, EFD_CLOEXEC);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->listener >= 0) (void)setsockopt(s->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (s->stop < 0 || s->listener < 0 || bind(s->listener, (struct sockaddr *)&at, sizeof at) != 0 ||
        listen(s->listener, CONNECTIONS) != 0 || getsockname(s->listener, (struct sockaddr *)&at, &size) != 0) {
        st = mill_fail(err, errno == EADDRINUSE ? MILL_ERR_BUSY : MILL_ERR_IO, "cannot listen on 127.0.0.1:%d: %s", port,
                       strerror(errno));
        stm_server_stop(&s);
        return st;
    }
    s->port = ntohs(at.sin_port);
    if (stm_fault_fires(STM_FAULT_THREAD) || pthread_create(&s->thread, NULL, server_main, s) != 0) {
        stm_server_stop(&s);
        return mill_fail(err, MILL_ERR_NOMEM, "cannot start a thread for port %d", port);
    }
    s->started = true;
    *out = s;
    return MILL_OK;
}

int32_t stm_server_port(const stm_server *s) { return s->port; }

void stm_server_stop(stm_server **sp)
{
    stm_server *s = *sp;
    const uint64_t one = 1;

    if (s == NULL) return;
    if (s->started) {
        while (write(s->stop, &one, sizeof one) < 0 && errno == EINTR) {
        }
        pthread_join(s->thread, NULL);
    }
    for (int i = 0; i < CONNECTIONS; i++) drop(&s->at[i]);
    if (s->stop >= 0) close(s->stop);
    if (s->listener >= 0) close(s->listener);
    stm_free(s);
    *sp = NULL;
}
