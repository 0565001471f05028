/* The limit: a bare loop of non-blocking sends.
 *
 * Usage: bare PORT. GET of any path begins a stream, POST is an event for every stream. No timeouts, no heartbeats, no
 * backlog: a client whose socket is full is cut.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD                                                                                                           \
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n" \
    "8\r\n: open\n\n\r\n"
#define ANSWER "HTTP/1.1 204 No Content\r\n\r\n"

enum { LARGEST_REQUEST = 1 << 20 };

struct connection {
    int fd, place; /* in the array of streams; -1 while it has none */
    char *request;
    size_t length, room;
};

static int events_fd;
static struct connection **streams;
static int stream_count, stream_room;

static void *grown(void *memory, size_t size) {
    memory = realloc(memory, size);
    if (!memory)
        abort();
    return memory;
}

static void drop(struct connection *c) {
    if (c->place >= 0) {
        streams[c->place] = streams[--stream_count];
        streams[c->place]->place = c->place;
    }
    close(c->fd);
    free(c->request);
    free(c);
}

static void begin_stream(struct connection *c) {
    free(c->request);
    c->request = NULL;
    c->length = c->room = 0;
    if (stream_count == stream_room)
        streams = grown(streams, (stream_room = stream_room * 2 + 64) * sizeof *streams);
    c->place = stream_count;
    streams[stream_count++] = c;
    if (send(c->fd, HEAD, sizeof HEAD - 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        shutdown(c->fd, SHUT_RDWR); /* epoll says so, and it is dropped there */
}

static void publish(const char *data, size_t length) {
    static char *chunk;
    chunk = grown(chunk, length + 64);
    size_t size = sprintf(chunk, "%zx\r\ndata: ", length + sizeof "data: \n\n" - 1);
    memcpy(chunk + size, data, length);
    size += length;
    memcpy(chunk + size, "\n\n\r\n", 4);
    size += 4;
    for (int i = 0; i < stream_count; i++)
        if (send(streams[i]->fd, chunk, size, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)size)
            shutdown(streams[i]->fd, SHUT_RDWR);
}

/* Answers the request that has been read, where all of it is there. */
static void answer(struct connection *c) {
    char *end = memmem(c->request, c->length, "\r\n\r\n", 4);
    if (!end)
        return;
    end += 4;
    if (!strncmp(c->request, "GET ", 4)) {
        begin_stream(c);
        return;
    }
    end[-1] = 0;
    const char *header = strcasestr(c->request, "\ncontent-length:");
    size_t length = header ? strtoul(header + sizeof "\ncontent-length:" - 1, NULL, 10) : 0;
    end[-1] = '\n';
    if ((size_t)(c->request + c->length - end) < length)
        return;
    publish(end, length);
    c->length = 0;
    if (send(c->fd, ANSWER, sizeof ANSWER - 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        shutdown(c->fd, SHUT_RDWR);
}

static void read_from(struct connection *c) {
    char ignored[512];
    bool streams_already = c->place >= 0;
    if (!streams_already && c->room - c->length < 4096)
        c->request = grown(c->request, (c->room = c->room * 2 + 8192) + 1);
    char *target = streams_already ? ignored : c->request + c->length;
    ssize_t got = recv(c->fd, target, streams_already ? sizeof ignored : c->room - c->length, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0 || c->length + got > LARGEST_REQUEST) {
        drop(c);
        return;
    }
    if (streams_already)
        return;
    c->length += got;
    c->request[c->length] = 0;
    answer(c);
}

static void accept_all(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *c = grown(NULL, sizeof *c);
        *c = (struct connection){.fd = fd, .place = -1};
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(events_fd, EPOLL_CTL_ADD, fd, &event) < 0)
            drop(c);
    }
}

int main(int count, char **arguments) {
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    address.sin_port = htons(count == 2 ? atoi(arguments[1]) : 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4096) < 0) {
        perror("bare");
        return 1;
    }
    events_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
    epoll_ctl(events_fd, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(events_fd, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr)
                read_from(events[i].data.ptr);
            else
                accept_all(listener);
        }
    }
}
