/* The load client: many clients of one event stream, and the publishers that feed them, in one thread.
 *
 * Usage: load PORT. Reads one command a line, answers each with one line of JSON; {"error": ...} is the last one.
 *
 *   connect COUNT AT_ONCE head|request PATH CHANNELS   open streams; each counts once its response head is here (or its
 *                                        request sent). A * in the path is the number of the client's channel: that of
 *                                        the client, from 0, modulo CHANNELS where that is not 0
 *   plain COUNT AT_ONCE                  read COUNT responses of /plain to their end, each on a connection of its own
 *   one-by-one EVENTS SIZE               publish the next event when every client has the last one
 *   burst PUBLISHERS EACH SIZE           every publisher posts its next event as soon as its last post was answered
 *   scattered COUNT SIZE CHANNELS        read so many events that another process publishes once {"ready": true} is
 *                                        answered: each has the time in it, and goes to the clients of one channel,
 *                                        that of its number (see channel_for)
 *   stuck COUNT                          open streams that read nothing after the head
 *   unstuck                              close those
 *   idle SECONDS                         only read, and take any event for a mistake
 *   close                                close the streams as clients do that leave
 *   quit
 *
 * Every event begins with a number of ten digits, padded to a size that is checked too. Who gets an event that is not
 * its next one, or one twice, or has to wait too long for one, ends the run.
 *
 * While events are on their way it looks for them every NAP, as a network card that gathers packets before it interrupts:
 * a client that sleeps until the next delivery has the server wake it, up to once for each.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum {
    CLIENTS_PER_ADDRESS = 15000, /* ephemeral ports are about 28,000 for each source address */
    LARGEST_HEAD = 8192,
    DIGITS = 10,
    TIME_DIGITS = 20, /* nanoseconds of CLOCK_MONOTONIC */
    FRAMING = 8, /* "data: " and "\n\n" */
    PATIENCE = 60, /* seconds without any progress */
    STALE = 2, /* seconds after which a server may have closed an idle connection */
    NAP = 100, /* microseconds */
};

enum kind { STREAM, STUCK, PLAIN, PUBLISHER };
enum stage { CONNECTING, HEAD, BODY, CLOSED };
enum chunk_stage { SIZE, SIZE_LINE, DATA, AFTER_DATA, TRAILER };
enum line_stage { START, NAME, VALUE, NUMBER, TIME, PADDING, SKIP };

struct connection {
    int fd;
    uint8_t kind, stage, chunk_stage, line_stage;
    uint8_t chunked, matched, quoted, digits, carriage_return;
    uint32_t line; /* length of a trailer line */
    size_t index; /* among the streams */
    uint64_t left; /* bytes of this chunk, or of the body */
    uint64_t number, time, padding; /* of the event that is being read */
    uint64_t last, count, mix; /* of the events that were read */
    char *head;
    uint32_t head_length;
    /* publishers only */
    char *request;
    size_t request_length, request_sent;
    uint64_t answered_at;
    uint32_t posts_left;
    bool waiting, ends;
};

static int events_fd, port;
static struct connection **streams, **stuck;
static size_t stream_count, stuck_count, channel_count;
static char buffer[1 << 16];

/* What the command that runs waits for, and what it has seen. */
static enum { NO_EVENTS, ONE_BY_ONE, BURST, SCATTERED } mode;
static uint64_t next_number = 1, current, first_number, last_number, expected_count, expected_padding;
static uint64_t opened, finished, unanswered, missing, deliveries, comments, bytes_read, bytes_published;
static uint64_t posted_at, last_delivery_at;

/* Histograms of latencies: 128 steps for each power of two, so that a value is right to 1 %. */
enum { STEP_BITS = 7, BUCKETS = 64 << STEP_BITS };
static uint64_t latencies[BUCKETS], last_latencies[BUCKETS], slowest; /* of all clients, and of each event's last */

static uint64_t nanoseconds(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * UINT64_C(1000000000) + time.tv_nsec;
}

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    printf("{\"error\": \"");
    for (const char *at = text; *at; at++) {
        if (*at == '"' || *at == '\\')
            printf("\\%c", *at);
        else if ((unsigned char)*at < ' ')
            putchar(' ');
        else
            putchar(*at);
    }
    printf("\"}\n");
    fflush(stdout);
    exit(1);
}

static void *allocate(size_t size) {
    void *memory = calloc(1, size);
    if (!memory)
        fail("out of memory");
    return memory;
}

/* splitmix64: the sum of it over a set of numbers shows any that is lost, doubled or wrong. */
static uint64_t mixed(uint64_t number) {
    number += UINT64_C(0x9e3779b97f4a7c15);
    number = (number ^ (number >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    number = (number ^ (number >> 27)) * UINT64_C(0x94d049bb133111eb);
    return number ^ (number >> 31);
}

static size_t bucket_of(uint64_t value) {
    if (value < 1 << STEP_BITS)
        return value;
    int shift = 63 - __builtin_clzll(value) - STEP_BITS;
    return ((size_t)(shift + 1) << STEP_BITS) + ((value >> shift) - (1 << STEP_BITS));
}

static uint64_t value_of(size_t bucket) {
    if (bucket < 1 << STEP_BITS)
        return bucket;
    int shift = (bucket >> STEP_BITS) - 1;
    return ((bucket & ((1 << STEP_BITS) - 1)) + (1 << STEP_BITS)) << shift;
}

static void note_latency(uint64_t latency) {
    latencies[bucket_of(latency)]++;
    if (latency > slowest)
        slowest = latency;
}

static void forget_latencies(void) {
    memset(latencies, 0, sizeof latencies);
    memset(last_latencies, 0, sizeof last_latencies);
    slowest = 0;
}

static double percentile(const uint64_t *histogram, double share) {
    uint64_t total = 0, seen = 0;
    for (size_t bucket = 0; bucket < BUCKETS; bucket++)
        total += histogram[bucket];
    for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
        seen += histogram[bucket];
        if (total && seen >= share * total)
            return value_of(bucket) / 1e3;
    }
    return 0;
}

/* ---- connections ---- */

static void begin_response(struct connection *c) {
    c->stage = HEAD;
    c->head_length = 0;
    c->chunked = c->chunk_stage = c->line_stage = c->matched = 0;
    c->left = 0;
}

static void write_request(struct connection *c) {
    while (c->request_sent < c->request_length) {
        ssize_t sent = send(c->fd, c->request + c->request_sent, c->request_length - c->request_sent, MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (sent < 0)
            fail("cannot send a request: %s", strerror(errno));
        c->request_sent += sent;
    }
    if (c->kind != PUBLISHER) {
        free(c->request);
        c->request = NULL;
    }
}

static void open_socket(struct connection *c, size_t index) {
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        fail("cannot open a socket: %s", strerror(errno));
    int one = 1, tiny = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (c->kind == STUCK)
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &tiny, sizeof tiny);
    struct sockaddr_in source = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000002 + index / CLIENTS_PER_ADDRESS)};
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(0x7f000001)};
    if (bind(c->fd, (struct sockaddr *)&source, sizeof source) < 0)
        fail("cannot bind a socket: %s", strerror(errno));
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS)
        fail("cannot connect: %s", strerror(errno));
    c->stage = CONNECTING;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if (epoll_ctl(events_fd, EPOLL_CTL_ADD, c->fd, &event) < 0)
        fail("cannot watch a socket: %s", strerror(errno));
}

static struct connection *open_connection(enum kind kind, const char *path, size_t index) {
    struct connection *c = allocate(sizeof *c);
    c->kind = kind;
    if (path) {
        int length = asprintf(&c->request,
                              "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: text/event-stream\r\n"
                              "Cache-Control: no-cache\r\n\r\n",
                              path, port);
        if (length < 0)
            fail("out of memory");
        c->request_length = length;
    }
    open_socket(c, index);
    return c;
}

static void close_connection(struct connection *c, bool at_once) {
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    if (at_once)
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (c->stage != CLOSED)
        close(c->fd);
    c->stage = CLOSED;
}

static void release(struct connection *c) {
    free(c->head);
    free(c->request);
    free(c);
}

/* ---- publishing ---- */

static uint64_t data_size;

static void post_next(struct connection *c) {
    uint64_t number = mode == ONE_BY_ONE ? current : first_number++;
    c->request_length = sprintf(c->request,
                                "POST /publish HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: text/plain\r\n"
                                "Content-Length: %" PRIu64 "\r\n\r\n%0*" PRIu64,
                                port, data_size, DIGITS, number);
    memset(c->request + c->request_length, 'x', data_size - DIGITS);
    c->request_length += data_size - DIGITS;
    c->request_sent = 0;
    c->waiting = true;
    c->posts_left--;
    bytes_published += data_size;
    if (c->stage == CLOSED)
        open_socket(c, 0);
    else if (c->stage != CONNECTING) {
        begin_response(c);
        write_request(c);
    }
}

static void answered(struct connection *c) {
    c->waiting = false;
    c->answered_at = nanoseconds(CLOCK_MONOTONIC);
    unanswered--;
    if (c->ends)
        close_connection(c, false);
    if (c->posts_left)
        post_next(c);
}

/* ---- reading ---- */

static size_t channel_for(uint64_t number) {
    return mixed(number) % channel_count;
}

static void delivered(struct connection *c, uint64_t now) {
    if (c->padding != expected_padding + c->quoted)
        fail("a client got event %" PRIu64 " with %" PRIu64 " bytes of padding in place of %" PRIu64, c->number, c->padding,
             expected_padding);
    switch (mode) {
    case NO_EVENTS:
        fail("a client got event %" PRIu64 " once more, or one that nobody published", c->number);
    case ONE_BY_ONE:
        if (c->number != current || c->last == current)
            fail("a client got event %" PRIu64 " after %" PRIu64 ", and %" PRIu64 " was published", c->number, c->last,
                 current);
        c->last = c->number;
        note_latency(now - posted_at);
        if (!--missing)
            last_latencies[bucket_of(now - posted_at)]++;
        break;
    case BURST:
        if (c->number > last_number || c->number < next_number)
            fail("a client got event %" PRIu64 ", which is none of %" PRIu64 " to %" PRIu64, c->number, next_number, last_number);
        c->mix += mixed(c->number);
        c->count++;
        if (c->count > expected_count)
            fail("a client got more than the %" PRIu64 " events that were published", expected_count);
        if (c->count == expected_count)
            missing--;
        break;
    case SCATTERED:
        if (c->number > last_number || c->number < next_number || c->index % channel_count != channel_for(c->number) || c->number <= c->last)
            fail("client %zu got event %" PRIu64 " after %" PRIu64 ", which is not for it, or not its next one", c->index, c->number,
                 c->last);
        c->last = c->number;
        note_latency(now - c->time);
        missing--;
    }
    deliveries++;
    last_delivery_at = now;
}

/* The lines of an event stream. They may be cut anywhere. */
static void feed_lines(struct connection *c, const char *at, size_t length, uint64_t now) {
    const char *end = at + length;
    while (at < end) {
        const char *newline;
        switch (c->line_stage) {
        case START:
            if (*at == '\n' || *at == '\r') {
                at++;
                break;
            }
            comments += *at == ':';
            c->matched = 0;
            c->line_stage = NAME;
            break;
        case NAME:
            if (*at != "data:"[c->matched]) {
                c->line_stage = SKIP;
                break;
            }
            at++;
            if (++c->matched == 5) {
                c->number = c->time = c->padding = c->digits = c->quoted = 0;
                c->line_stage = VALUE;
            }
            break;
        case VALUE: /* a blank, and the quote of who makes JSON of everything */
            if (*at == ' ' || *at == '"') {
                c->quoted |= *at == '"';
                at++;
                break;
            }
            c->line_stage = NUMBER;
            break;
        case NUMBER:
            if (*at < '0' || *at > '9')
                fail("a client got an event that does not begin with a number");
            c->number = c->number * 10 + (*at++ - '0');
            if (++c->digits == DIGITS) {
                c->digits = c->carriage_return = 0;
                c->line_stage = mode == SCATTERED ? TIME : PADDING;
            }
            break;
        case TIME:
            if (*at < '0' || *at > '9')
                fail("a client got an event without its time");
            c->time = c->time * 10 + (*at++ - '0');
            if (++c->digits == TIME_DIGITS)
                c->line_stage = PADDING;
            break;
        case PADDING:
            newline = memchr(at, '\n', end - at);
            const char *stop = newline ? newline : end;
            c->padding += stop - at;
            if (stop > at)
                c->carriage_return = stop[-1] == '\r';
            if (!newline)
                return;
            c->padding -= c->carriage_return;
            at = newline + 1;
            c->line_stage = START;
            delivered(c, now);
            break;
        case SKIP:
            newline = memchr(at, '\n', end - at);
            if (!newline)
                return;
            at = newline + 1;
            c->line_stage = START;
            break;
        }
    }
}

static void body(struct connection *c, const char *at, size_t length, uint64_t now) {
    if (c->kind == STREAM)
        feed_lines(c, at, length, now);
}

static void response_ends(struct connection *c) {
    switch (c->kind) {
    case PLAIN:
        close_connection(c, false);
        finished++;
        break;
    case PUBLISHER:
        answered(c);
        break;
    default:
        fail("the server ended a stream");
    }
}

static int hexadecimal(char digit) {
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

static void feed_chunks(struct connection *c, const char *at, const char *end, uint64_t now) {
    while (at < end && c->stage == BODY) {
        switch (c->chunk_stage) {
        case SIZE:
            if (hexadecimal(*at) >= 0)
                c->left = c->left * 16 + hexadecimal(*at++);
            else
                c->chunk_stage = SIZE_LINE;
            break;
        case SIZE_LINE:
            if (*at++ == '\n') {
                c->chunk_stage = c->left ? DATA : TRAILER;
                c->line = 0;
            }
            break;
        case DATA: {
            size_t length = (size_t)(end - at) < c->left ? (size_t)(end - at) : c->left;
            body(c, at, length, now);
            at += length;
            c->left -= length;
            if (!c->left)
                c->chunk_stage = AFTER_DATA;
            break;
        }
        case AFTER_DATA:
            if (*at != '\r' && *at != '\n')
                fail("a chunk is longer than its size says");
            if (*at++ == '\n')
                c->chunk_stage = SIZE;
            break;
        case TRAILER:
            if (*at == '\n' && !c->line)
                response_ends(c);
            else if (*at == '\n')
                c->line = 0;
            else if (*at != '\r')
                c->line++;
            at++;
        }
    }
}

static const char *header(const struct connection *c, const char *name) {
    const char *found = strcasestr(c->head, name);
    if (!found)
        return NULL;
    found += strlen(name);
    return found + strspn(found, " ");
}

static void head_is_here(struct connection *c) {
    static const char *asked[] = {"the stream", "the stream", "/plain", "/publish"};
    int status = c->head_length > 12 ? atoi(c->head + 9) : 0;
    if (status / 100 != 2)
        fail("%s answered: %.60s", asked[c->kind], c->head);
    const char *type = header(c, "\r\ncontent-type:"), *length = header(c, "\r\ncontent-length:");
    const char *coding = header(c, "\r\ntransfer-encoding:"), *connection = header(c, "\r\nconnection:");
    c->chunked = coding && !strncasecmp(coding, "chunked", 7);
    c->ends = connection && !strncasecmp(connection, "close", 5);
    c->left = c->chunked ? 0 : length ? strtoull(length, NULL, 10) : status == 204 ? 0 : UINT64_MAX;
    c->stage = BODY;
    if ((c->kind == STREAM || c->kind == STUCK) && (!type || strncasecmp(type, "text/event-stream", 17)))
        fail("the stream is no text/event-stream");
    free(c->head);
    c->head = NULL;
    if (c->kind == STREAM || c->kind == STUCK)
        opened++;
    if (c->kind == STUCK && epoll_ctl(events_fd, EPOLL_CTL_DEL, c->fd, NULL) < 0)
        fail("cannot stop reading: %s", strerror(errno));
    if (!c->chunked && !c->left)
        response_ends(c);
}

/* Gathers the head; returns where the body begins. */
static const char *feed_head(struct connection *c, const char *at, const char *end) {
    if (!c->head)
        c->head = allocate(LARGEST_HEAD + 1);
    while (at < end) {
        if (c->head_length == LARGEST_HEAD)
            fail("a response head is larger than %d bytes", LARGEST_HEAD);
        c->head[c->head_length++] = *at++;
        if (c->head_length >= 4 && !memcmp(c->head + c->head_length - 4, "\r\n\r\n", 4)) {
            c->head[c->head_length] = 0;
            head_is_here(c);
            break;
        }
    }
    return at;
}

static void feed(struct connection *c, const char *at, const char *end, uint64_t now) {
    if (c->stage == HEAD) {
        at = feed_head(c, at, end);
        if (at == end || c->stage != BODY)
            return;
    }
    if (c->stage != BODY)
        fail("a server sent more than its response");
    if (c->chunked) {
        feed_chunks(c, at, end, now);
        return;
    }
    if ((uint64_t)(end - at) > c->left)
        fail("a response is longer than its head says");
    body(c, at, end - at, now);
    c->left -= end - at;
    if (!c->left)
        response_ends(c);
}

static void read_from(struct connection *c) {
    while (c->stage == HEAD || c->stage == BODY) {
        ssize_t got = recv(c->fd, buffer, sizeof buffer, 0);
        if (got > 0) {
            bytes_read += got;
            feed(c, buffer, buffer + got, nanoseconds(CLOCK_MONOTONIC));
            if (got < (ssize_t)sizeof buffer || c->kind == STUCK)
                return;
        } else if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return;
        } else if (c->kind == PUBLISHER && !c->waiting) {
            close_connection(c, false); /* it kept the connection long enough */
        } else {
            static const char *kinds[] = {"stream", "stuck stream", "plain response", "post"};
            fail("the server closed a connection in the middle of a %s%s%s", kinds[c->kind], got < 0 ? ": " : "",
                 got < 0 ? strerror(errno) : "");
        }
    }
}

static void handle(struct connection *c, uint32_t events) {
    if (c->stage == CONNECTING) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error)
            fail("cannot connect: %s", strerror(error));
        if (!(events & EPOLLOUT))
            return;
        begin_response(c);
    }
    if (c->stage == CLOSED)
        return;
    if (c->request && c->request_sent < c->request_length) {
        write_request(c);
        finished += c->kind == STREAM && c->request == NULL;
    }
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        read_from(c);
}

static void turn(int milliseconds) {
    static struct epoll_event events[1024];
    if (mode != NO_EVENTS) {
        nanosleep(&(struct timespec){.tv_nsec = NAP * 1000}, NULL);
        milliseconds = 0;
    }
    int count = epoll_wait(events_fd, events, 1024, milliseconds);
    if (count < 0 && errno != EINTR)
        fail("epoll_wait: %s", strerror(errno));
    for (int i = 0; i < count; i++)
        handle(events[i].data.ptr, events[i].events);
}

static uint64_t progress(void) {
    return deliveries + opened + finished + unanswered;
}

/* Turns until the counter has come up to this value, or down to 0. */
static void turn_until(const uint64_t *counter, uint64_t value, const char *what) {
    uint64_t seen = progress(), since = 0;
    while (value ? *counter < value : *counter) {
        turn(1000);
        if (seen != progress()) {
            seen = progress();
            since = 0;
        } else if (!since) {
            since = nanoseconds(CLOCK_MONOTONIC);
        } else if (nanoseconds(CLOCK_MONOTONIC) - since > PATIENCE * UINT64_C(1000000000)) {
            fail("nothing came for %d seconds, with %s at %" PRIu64 " that should become %" PRIu64, PATIENCE, what, *counter,
                 value);
        }
    }
}

/* ---- commands ---- */

/* The path with the number of the client in place of its *. */
static const char *path_for(const char *path, size_t index) {
    static char filled[512];
    const char *star = strchr(path, '*');
    if (!star)
        return path;
    snprintf(filled, sizeof filled, "%.*s%zu%s", (int)(star - path), path, index, star + 1);
    return filled;
}

static void connect_streams(size_t count, size_t at_once, bool await_heads, const char *path, size_t channels) {
    size_t first = stream_count;
    streams = realloc(streams, (first + count) * sizeof *streams);
    if (!streams)
        fail("out of memory");
    uint64_t *done = await_heads ? &opened : &finished;
    opened = finished = 0;
    for (size_t i = 0; i < count; i++) {
        if (i >= at_once && *done < i + 1 - at_once)
            turn_until(done, i + 1 - at_once, "response heads");
        size_t channel = channels ? stream_count % channels : stream_count;
        streams[stream_count] = open_connection(STREAM, path_for(path, channel), stream_count);
        streams[stream_count]->index = stream_count;
        stream_count++;
    }
    turn_until(done, count, "response heads");
}

static void read_plain(size_t count, size_t at_once) {
    struct connection **all = allocate(count * sizeof *all);
    finished = 0;
    for (size_t i = 0; i < count; i++) {
        if (i >= at_once && finished < i + 1 - at_once)
            turn_until(&finished, i + 1 - at_once, "plain responses");
        all[i] = open_connection(PLAIN, "/plain", i);
    }
    turn_until(&finished, count, "plain responses");
    for (size_t i = 0; i < count; i++)
        release(all[i]);
    free(all);
}

static struct connection *open_publisher(void) {
    struct connection *c = open_connection(PUBLISHER, NULL, 0);
    c->request = allocate(1024 + data_size);
    while (c->stage == CONNECTING)
        turn(1000);
    return c;
}

static void set_size(size_t size) {
    if (size < FRAMING + DIGITS)
        fail("an event has at least %d bytes", FRAMING + DIGITS);
    data_size = size - FRAMING;
    expected_padding = data_size - DIGITS;
}

static void one_by_one(size_t count, size_t size) {
    set_size(size);
    forget_latencies();
    struct connection *publisher = open_publisher();
    publisher->answered_at = nanoseconds(CLOCK_MONOTONIC);
    mode = ONE_BY_ONE;
    for (size_t i = 0; i < count; i++) {
        if (publisher->stage == CLOSED || nanoseconds(CLOCK_MONOTONIC) - publisher->answered_at > STALE * UINT64_C(1000000000)) {
            close_connection(publisher, false);
            release(publisher);
            publisher = open_publisher();
        }
        current = next_number++;
        missing = stream_count;
        unanswered = 1;
        publisher->posts_left = 1;
        posted_at = nanoseconds(CLOCK_MONOTONIC);
        post_next(publisher);
        turn_until(&missing, 0, "the clients that lack an event");
        turn_until(&unanswered, 0, "the posts without an answer");
    }
    mode = NO_EVENTS;
    close_connection(publisher, false);
    release(publisher);
}

static void burst(size_t publishers, size_t each, size_t size) {
    set_size(size);
    struct connection **all = allocate(publishers * sizeof *all);
    for (size_t i = 0; i < publishers; i++)
        all[i] = open_publisher();
    uint64_t mix = 0;
    first_number = next_number;
    expected_count = publishers * each;
    last_number = next_number + expected_count - 1;
    for (uint64_t number = next_number; number <= last_number; number++)
        mix += mixed(number);
    for (size_t i = 0; i < stream_count; i++)
        streams[i]->count = streams[i]->mix = 0;
    missing = stream_count;
    unanswered = expected_count;
    mode = BURST;
    posted_at = nanoseconds(CLOCK_MONOTONIC);
    for (size_t i = 0; i < publishers; i++) {
        all[i]->posts_left = each;
        post_next(all[i]);
    }
    turn_until(&missing, 0, "the clients that lack events");
    turn_until(&unanswered, 0, "the posts without an answer");
    for (size_t i = 0; i < stream_count; i++) {
        if (streams[i]->mix != mix)
            fail("a client got %" PRIu64 " events, but not those that were published", expected_count);
        streams[i]->last = last_number;
    }
    mode = NO_EVENTS;
    next_number = last_number + 1;
    for (size_t i = 0; i < publishers; i++) {
        close_connection(all[i], false);
        release(all[i]);
    }
    free(all);
}

static void scattered(size_t count, size_t size, size_t channels) {
    set_size(size);
    if (!channels || stream_count % channels || expected_padding < TIME_DIGITS)
        fail("not as many clients for each channel, or no room for the time");
    channel_count = channels;
    expected_padding -= TIME_DIGITS;
    forget_latencies();
    last_number = next_number + count - 1;
    missing = count * (stream_count / channels);
    mode = SCATTERED;
    printf("{\"ready\": true}\n"); /* who publishes may begin */
    fflush(stdout);
    turn_until(&missing, 0, "the events");
    mode = NO_EVENTS;
    next_number = last_number + 1;
}

static void open_stuck(size_t count) {
    stuck = realloc(stuck, (stuck_count + count) * sizeof *stuck);
    if (!stuck)
        fail("out of memory");
    opened = 0;
    for (size_t i = 0; i < count; i++)
        stuck[stuck_count++] = open_connection(STUCK, "/events", 0);
    turn_until(&opened, count, "response heads");
}

static void close_stuck(void) {
    for (size_t i = 0; i < stuck_count; i++) {
        struct tcp_info info;
        socklen_t length = sizeof info;
        if (getsockopt(stuck[i]->fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0 || info.tcpi_state != TCP_ESTABLISHED)
            fail("the server closed the connection of a client that is stuck");
        close_connection(stuck[i], true);
        release(stuck[i]);
    }
    stuck_count = 0;
}

static void idle(double seconds) {
    uint64_t until = nanoseconds(CLOCK_MONOTONIC) + seconds * 1e9, now;
    while ((now = nanoseconds(CLOCK_MONOTONIC)) < until)
        turn((until - now) / 1000000 + 1);
}

static void close_streams(bool at_once) {
    for (size_t i = 0; i < stream_count; i++) {
        close_connection(streams[i], at_once);
        release(streams[i]);
    }
    stream_count = 0;
}

static void run(const char *line) {
    char word[16] = "", how[16] = "", path[256] = "";
    unsigned long first = 0, second = 0, third = 0;
    double seconds = 0;
    sscanf(line, "%15s", word);
    turn(0); /* what has come since the last command is none of this one's */
    deliveries = comments = bytes_read = bytes_published = last_delivery_at = 0;
    uint64_t began = nanoseconds(CLOCK_MONOTONIC), cpu = nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
    if (sscanf(line, "connect %lu %lu %15s %255s %lu", &first, &second, how, path, &third) == 5)
        connect_streams(first, second, !strcmp(how, "head"), path, third);
    else if (sscanf(line, "plain %lu %lu", &first, &second) == 2)
        read_plain(first, second);
    else if (sscanf(line, "one-by-one %lu %lu", &first, &second) == 2)
        one_by_one(first, second);
    else if (sscanf(line, "burst %lu %lu %lu", &first, &second, &third) == 3)
        burst(first, second, third);
    else if (sscanf(line, "scattered %lu %lu %lu", &first, &second, &third) == 3)
        scattered(first, second, third);
    else if (sscanf(line, "stuck %lu", &first) == 1)
        open_stuck(first);
    else if (!strcmp(word, "unstuck"))
        close_stuck();
    else if (sscanf(line, "idle %lf", &seconds) == 1)
        idle(seconds);
    else if (!strcmp(word, "close"))
        close_streams(false);
    else
        fail("unknown command: %s", line);
    uint64_t ended = nanoseconds(CLOCK_MONOTONIC);
    printf("{\"seconds\": %.6f, \"cpu_seconds\": %.6f, \"clients\": %zu, \"deliveries\": %" PRIu64 ", \"comments\": %" PRIu64
           ", \"bytes_read\": %" PRIu64 ", \"bytes_published\": %" PRIu64,
           (ended - began) / 1e9, (nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - cpu) / 1e9, stream_count, deliveries, comments,
           bytes_read, bytes_published);
    if (!strcmp(word, "one-by-one") || !strcmp(word, "scattered"))
        printf(", \"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f", percentile(latencies, 0.5), percentile(latencies, 0.99),
               slowest / 1e3);
    if (!strcmp(word, "one-by-one"))
        printf(", \"last_p50_us\": %.1f, \"last_p99_us\": %.1f", percentile(last_latencies, 0.5),
               percentile(last_latencies, 0.99));
    if (!strcmp(word, "burst"))
        printf(", \"delivery_seconds\": %.6f", (last_delivery_at - posted_at) / 1e9);
    if (!strcmp(word, "stuck")) {
        printf(", \"ports\": [");
        for (size_t i = 0; i < stuck_count; i++) {
            struct sockaddr_in own;
            socklen_t length = sizeof own;
            getsockname(stuck[i]->fd, (struct sockaddr *)&own, &length);
            printf("%s%d", i ? ", " : "", ntohs(own.sin_port));
        }
        printf("]");
    }
    printf("}\n");
    fflush(stdout);
}

int main(int count, char **arguments) {
    char *line = NULL;
    size_t size = 0;
    if (count != 2 || !(port = atoi(arguments[1])))
        fail("usage: load PORT");
    events_fd = epoll_create1(EPOLL_CLOEXEC);
    prctl(PR_SET_TIMERSLACK, 1000); /* nanoseconds by which a nap may be too long */
    while (getline(&line, &size, stdin) > 0 && strcmp(line, "quit\n"))
        run(line);
    close_streams(true); /* leaves no ports behind that wait */
    free(line);
    return 0;
}
