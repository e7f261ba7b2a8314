/* A Jupyter kernel that runs nothing and answers at once, so that a benchmark measures its client.

   It answers every request on shell and control with signed messages: busy, (execute_input and stream, when the
   code prints,) reply, idle; greets each subscriber with iopub_welcome (JEP 65); and echoes heartbeats.
   It does not check the client's signatures. Usage: stub KEY; it prints its ports as one line of JSON, and ends
   when its parent does.

   The few prototypes of libzmq are declared here because pyzmq's wheels ship the library without its headers. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- libzmq ---- */
typedef struct { union { unsigned char bytes[64]; void *align; } u; } zmq_msg_t;
typedef struct { void *socket; int fd; short events, revents; } zmq_pollitem_t;
extern void *zmq_ctx_new(void), *zmq_socket(void *, int), *zmq_msg_data(zmq_msg_t *);
extern int zmq_setsockopt(void *, int, const void *, size_t), zmq_getsockopt(void *, int, void *, size_t *);
extern int zmq_bind(void *, const char *), zmq_send(void *, const void *, size_t, int);
extern int zmq_msg_init(zmq_msg_t *), zmq_msg_recv(zmq_msg_t *, void *, int), zmq_msg_more(const zmq_msg_t *);
extern int zmq_msg_close(zmq_msg_t *), zmq_poll(zmq_pollitem_t *, int, long);
extern size_t zmq_msg_size(const zmq_msg_t *);
enum { ROUTER = 6, XPUB = 9, DONTWAIT = 1, SNDMORE = 2, LINGER = 17, SNDHWM = 23, RCVHWM = 24, LAST_ENDPOINT = 32,
       XPUB_VERBOSE = 40, POLLIN = 1 };

/* ---- SHA-256 (FIPS 180-4) and HMAC (RFC 2104). OpenSSL's block function is used when the library is there: it
   knows the processor's SHA instructions, several times faster than the plain loop below. ---- */
typedef struct { uint32_t h[8]; uint64_t len; unsigned char buf[64]; size_t n; } sha_t;
static void (*openssl_block)(void *, const unsigned char *);

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
#define ROT(x, n) ((x) >> (n) | (x) << (32 - (n)))

static void plain_block(uint32_t *h, const unsigned char *p) {
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++) w[i] = (uint32_t)p[4*i] << 24 | p[4*i+1] << 16 | p[4*i+2] << 8 | p[4*i+3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i-16] + w[i-7] + (ROT(w[i-15], 7) ^ ROT(w[i-15], 18) ^ w[i-15] >> 3)
                                + (ROT(w[i-2], 17) ^ ROT(w[i-2], 19) ^ w[i-2] >> 10);
    memcpy(v, h, 32);
    for (int i = 0; i < 64; i++) {
        uint32_t a = v[0], e = v[4];
        uint32_t t1 = v[7] + (ROT(e, 6) ^ ROT(e, 11) ^ ROT(e, 25)) + ((e & v[5]) ^ (~e & v[6])) + K[i] + w[i];
        uint32_t t2 = (ROT(a, 2) ^ ROT(a, 13) ^ ROT(a, 22)) + ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 28);
        v[0] = t1 + t2; v[4] += t1;
    }
    for (int i = 0; i < 8; i++) h[i] += v[i];
}

static void sha_block(sha_t *s, const unsigned char *p) {
    if (openssl_block) openssl_block(s, p); /* it touches the state only, which stands first in both structs */
    else plain_block(s->h, p);
}

static void sha_init(sha_t *s) {
    static const uint32_t H[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(s->h, H, 32); s->len = s->n = 0;
}

static void sha_update(sha_t *s, const void *data, size_t size) {
    const unsigned char *p = data;
    s->len += size;
    while (size) {
        if (!s->n && size >= 64) { sha_block(s, p); p += 64; size -= 64; continue; }
        size_t k = 64 - s->n < size ? 64 - s->n : size;
        memcpy(s->buf + s->n, p, k);
        s->n += k; p += k; size -= k;
        if (s->n == 64) { sha_block(s, s->buf); s->n = 0; }
    }
}

static void sha_final(sha_t *s, unsigned char out[32]) {
    uint64_t bits = s->len * 8;
    unsigned char pad[72] = {0x80};
    size_t k = (s->n < 56 ? 56 : 120) - s->n;
    for (int i = 0; i < 8; i++) pad[k+i] = bits >> (56 - 8*i);
    sha_update(s, pad, k + 8);
    for (int i = 0; i < 32; i++) out[i] = s->h[i/4] >> (24 - 8*(i%4));
}

static sha_t inner, outer; /* the states after the padded key, copied for each signature */

static void hmac_key(const char *key) {
    unsigned char in[64], out[64];
    size_t n = strlen(key);
    if (n > 64) { fputs("key longer than 64 bytes\n", stderr); exit(2); }
    for (size_t i = 0; i < 64; i++) { unsigned char c = i < n ? key[i] : 0; in[i] = c ^ 0x36; out[i] = c ^ 0x5c; }
    sha_init(&inner); sha_update(&inner, in, 64);
    sha_init(&outer); sha_update(&outer, out, 64);
}

/* ---- messages ---- */
typedef struct { const char *p; size_t n; } str;
#define S(literal) ((str){literal, sizeof literal - 1})
static const str NONE = {NULL, 0}, EMPTY = {"{}", 2};
static char session[40];

static void sign(const str f[4], char hex[64]) {
    static const char digits[] = "0123456789abcdef";
    unsigned char d[32];
    sha_t s = inner;
    for (int i = 0; i < 4; i++) sha_update(&s, f[i].p, f[i].n);
    sha_final(&s, d);
    s = outer; sha_update(&s, d, 32); sha_final(&s, d);
    for (int i = 0; i < 32; i++) { hex[2*i] = digits[d[i] >> 4]; hex[2*i+1] = digits[d[i] & 15]; }
}

static str header(const char *type, char *buf, size_t size) {
    static unsigned long count;
    static time_t second; static char day[32];
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (t.tv_sec != second) { struct tm tm; second = t.tv_sec; strftime(day, sizeof day, "%FT%T", gmtime_r(&second, &tm)); }
    int n = snprintf(buf, size, "{\"msg_id\":\"%s_%d_%lu\",\"msg_type\":\"%s\",\"username\":\"stub\",\"session\":\"%s\","
                     "\"date\":\"%s.%06ldZ\",\"version\":\"5.3\"}", session, getpid(), ++count, type, session, day, t.tv_nsec / 1000);
    return (str){buf, n};
}

/* One message: `ident` is the peer's identity on a ROUTER, the topic on the XPUB. */
static void send_msg(void *sock, str ident, const char *type, str parent, str content) {
    char buf[512], hex[64];
    str f[4] = {header(type, buf, sizeof buf), parent, EMPTY, content};
    sign(f, hex);
    zmq_send(sock, ident.p, ident.n, SNDMORE);
    zmq_send(sock, "<IDS|MSG>", 9, SNDMORE);
    zmq_send(sock, hex, 64, SNDMORE);
    for (int i = 0; i < 4; i++) zmq_send(sock, f[i].p, f[i].n, i < 3 ? SNDMORE : 0);
}

/* The value of `msg_type` in a header, whatever spaces its JSON has. */
static str msg_type(str h) {
    const char *end = h.p + h.n, *p = memmem(h.p, h.n, "\"msg_type\"", 10);
    if (!p || !(p = memchr(p + 10, '"', end - p - 10))) return NONE;
    p++;
    const char *q = memchr(p, '"', end - p);
    return q ? (str){p, q - p} : NONE;
}

static void *iopub;
#define STATUS(state) send_msg(iopub, S("kernel.stub.status"), "status", parent, S("{\"execution_state\":\"" state "\"}"))

static void execute(void *sock, str ident, str parent, str content) {
    static unsigned long count;
    char buf[128];
    count++;
    if (memmem(content.p, content.n, "print", 5)) {
        int n = snprintf(buf, sizeof buf, "{\"code\":\"print(1)\",\"execution_count\":%lu}", count);
        send_msg(iopub, S("kernel.stub.execute_input"), "execute_input", parent, (str){buf, n});
        send_msg(iopub, S("stream.stdout"), "stream", parent, S("{\"name\":\"stdout\",\"text\":\"1\\n\"}"));
    }
    int n = snprintf(buf, sizeof buf, "{\"status\":\"ok\",\"execution_count\":%lu,\"user_expressions\":{},\"payload\":[]}", count);
    send_msg(sock, ident, "execute_reply", parent, (str){buf, n});
}

static void answer(void *sock, str ident, str parent, str content) {
    static const str info = S("{\"status\":\"ok\",\"protocol_version\":\"5.3\",\"implementation\":\"stub\","
        "\"implementation_version\":\"1\",\"language_info\":{\"name\":\"python\",\"version\":\"3\",\"mimetype\":\"text/x-python\","
        "\"file_extension\":\".py\"},\"banner\":\"stub\",\"help_links\":[],\"supported_features\":[]}");
    str type = msg_type(parent);
    char reply[64];
    if (type.n < 8 || type.n > 60 || memcmp(type.p + type.n - 8, "_request", 8)) return; /* comms, input replies */
    int n = snprintf(reply, sizeof reply, "%.*s_reply", (int)type.n - 8, type.p);
    STATUS("busy");
    if (!memcmp(reply, "execute_reply", n)) execute(sock, ident, parent, content);
    else send_msg(sock, ident, reply, parent, !memcmp(reply, "kernel_info_reply", n) ? info : S("{\"status\":\"ok\"}"));
    STATUS("idle");
    if (!memcmp(reply, "shutdown_reply", n)) { usleep(100000); exit(0); }
}

/* ---- sockets ---- */
enum { MAX = 32 };
static zmq_msg_t frames[MAX];

static str frame(int i) { return (str){zmq_msg_data(&frames[i]), zmq_msg_size(&frames[i])}; }

static int recv_all(void *sock) {
    int n = 0, more = 1;
    while (more) {
        zmq_msg_t *m = &frames[n < MAX - 1 ? n++ : n];
        zmq_msg_close(m); zmq_msg_init(m);
        if (zmq_msg_recv(m, sock, DONTWAIT) < 0) return 0;
        more = zmq_msg_more(m);
    }
    return n;
}

static int serve(void *sock) { /* a ROUTER: [identity, <IDS|MSG>, signature, header, parent, metadata, content, …] */
    int n = recv_all(sock), i = 0;
    if (!n) return 0;
    while (i < n && !(frame(i).n == 9 && !memcmp(frame(i).p, "<IDS|MSG>", 9))) i++;
    if (i == 1 && n >= 7) answer(sock, frame(0), frame(3), frame(6));
    return 1;
}

static void echo(void *sock) {
    int n = recv_all(sock);
    for (int i = 0; i < n; i++) zmq_send(sock, frame(i).p, frame(i).n, i < n - 1 ? SNDMORE : 0);
}

static void welcome(void) { /* JEP 65: a new subscription is greeted on its own topic */
    if (!recv_all(iopub)) return;
    str f = frame(0);
    char buf[256];
    if (f.n < 1 || f.p[0] != 1 || f.n > 100) return;
    int n = snprintf(buf, sizeof buf, "{\"subscription\":\"%.*s\"}", (int)f.n - 1, f.p + 1);
    send_msg(iopub, (str){f.p + 1, f.n - 1}, "iopub_welcome", EMPTY, (str){buf, n});
}

static void *bind_one(void *ctx, int type, int *port) {
    void *sock = zmq_socket(ctx, type);
    int zero = 0, one = 1;
    char at[128]; size_t n = sizeof at;
    zmq_setsockopt(sock, SNDHWM, &zero, sizeof zero);
    zmq_setsockopt(sock, RCVHWM, &zero, sizeof zero);
    zmq_setsockopt(sock, LINGER, &zero, sizeof zero);
    if (type == XPUB) zmq_setsockopt(sock, XPUB_VERBOSE, &one, sizeof one);
    if (zmq_bind(sock, "tcp://127.0.0.1:*") || zmq_getsockopt(sock, LAST_ENDPOINT, at, &n)) { perror("bind"); exit(2); }
    *port = atoi(strrchr(at, ':') + 1);
    return sock;
}

int main(int argc, char **argv) {
    if (argc != 2) { fputs("usage: stub KEY\n", stderr); return 2; }
    void *crypto = dlopen("libcrypto.so.3", RTLD_NOW);
    if (crypto) *(void **)&openssl_block = dlsym(crypto, "SHA256_Transform");
    hmac_key(argv[1]);
    snprintf(session, sizeof session, "%08lx-%024x", (unsigned long)time(NULL) & 0xffffffff, getpid()); /* as jupyter_client's */
    for (int i = 0; i < MAX; i++) zmq_msg_init(&frames[i]);
    void *ctx = zmq_ctx_new();
    int port[5], parent = getppid();
    void *shell = bind_one(ctx, ROUTER, &port[0]), *control = bind_one(ctx, ROUTER, &port[1]);
    void *hb = bind_one(ctx, ROUTER, &port[2]), *in = bind_one(ctx, ROUTER, &port[3]);
    iopub = bind_one(ctx, XPUB, &port[4]);
    printf("{\"shell_port\":%d,\"control_port\":%d,\"hb_port\":%d,\"stdin_port\":%d,\"iopub_port\":%d,\"ip\":\"127.0.0.1\","
           "\"transport\":\"tcp\",\"key\":\"%s\",\"signature_scheme\":\"hmac-sha256\",\"fast_sha\":%d}\n",
           port[0], port[1], port[2], port[3], port[4], argv[1], openssl_block != NULL);
    fflush(stdout);
    zmq_pollitem_t items[5] = {{shell, 0, POLLIN, 0}, {iopub, 0, POLLIN, 0}, {control, 0, POLLIN, 0},
                               {hb, 0, POLLIN, 0}, {in, 0, POLLIN, 0}};
    while (getppid() == parent) {
        zmq_poll(items, 5, 1000);
        if (items[1].revents) welcome();
        for (int i = 0; i < 256 && items[0].revents && serve(shell); i++);
        if (items[2].revents) serve(control);
        if (items[3].revents) echo(hb);
        if (items[4].revents) recv_all(in);
    }
}
