/* The main thread reads what the test wants, and the workers do it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>

#include "host.h"

struct plugin plugin;
int alive_requests, alive_configs;

enum { max_workers = 16 };
static worker workers[max_workers];
static int workers_n;

httpConfig* config_new(void);
void config_gone(httpConfig* c);
void metrics_emit(uint64_t id);

/* ---- workers ---- */

stream* stream_of(worker* w, uint64_t id) {
  for (stream* s = w->streams; s != NULL; s = s->next)
    if (s->id == id) return s;
  return NULL;
}

bool on_worker(const stream* s) { return pthread_equal(pthread_self(), s->on->thread); }

void post(worker* w, uint64_t of, void (*run)(task*), frame f) {
  task* t = calloc(1, sizeof *t);
  *t = (task){.run = run, .stream = of, .on = w, .f = f};
  pthread_mutex_lock(&w->mu);
  if (w->last == NULL)
    w->first = t;
  else
    w->last->next = t;
  w->last = t;
  pthread_cond_signal(&w->more);
  pthread_mutex_unlock(&w->mu);
}

static void* work(void* p) {
  worker* w = p;
  for (;;) {
    pthread_mutex_lock(&w->mu);
    while (w->first == NULL && !w->stop) pthread_cond_wait(&w->more, &w->mu);
    task* t = w->first;
    if (t != NULL && (w->first = t->next) == NULL) w->last = NULL;
    pthread_mutex_unlock(&w->mu);
    if (t == NULL) return NULL;
    stream* s = t->stream == 0 ? NULL : stream_of(w, t->stream);
    if (t->stream == 0 || s != NULL && !s->destroyed) t->run(t);
    frame_free(&t->f);
    free(t);
  }
}

/* ---- what the test wants, on a worker ---- */

static void do_stream(task* t) {
  stream* s = calloc(1, sizeof *s);
  request* r = calloc(1, sizeof *r);
  static const char name[] = "inlet";
  s->id = t->f.id;
  s->config = t->f.b;
  s->on = t->on;
  s->req = r;
  pairs_move(&s->info, &t->f.of);
  r->r.plugin_name = (Cstring){name, strlen(name)};
  r->r.worker_id = t->on - workers;
  pthread_mutex_init(&r->mu, NULL);
  r->of = r->dec.of = r->enc.of = s;
  r->dec.s.req = r->enc.s.req = (struct httpRequest*)r;
  r->enc.s.is_encoding = 1;
  s->next = t->on->streams;
  t->on->streams = s;
  __atomic_add_fetch(&alive_requests, 1, __ATOMIC_SEQ_CST);
}

static stream* of(task* t) { return stream_of(t->on, t->stream); }
static blob take(task* t) {
  blob b = t->f.of.of[0];
  t->f.of.of[0] = (blob){0};
  return b;
}

static void do_info(task* t) {
  for (int i = 0; i + 1 < t->f.of.n; i += 2)
    pairs_set(&of(t)->info, t->f.of.of[i].p, t->f.of.of[i].n, t->f.of.of[i + 1].p, t->f.of.of[i + 1].n);
}
static void do_request_headers(task* t) { decode_headers(of(t), &t->f.of, t->f.a); }
static void do_request_data(task* t) { take_data(&of(t)->req->dec, take(t), t->f.a); }
static void do_request_trailers(task* t) { take_trailers(&of(t)->req->dec, &t->f.of); }
static void do_response_headers(task* t) {
  if (!of(t)->req->enc.aborted && !of(t)->response_begun) encode_headers(of(t), &t->f.of, t->f.a);
}
static void do_response_data(task* t) { take_data(&of(t)->req->enc, take(t), t->f.a); }
static void do_response_trailers(task* t) { take_trailers(&of(t)->req->enc, &t->f.of); }
static void do_reply(task* t) {
  blob body = take(t);
  pairs headers = {t->f.of.of + 1, t->f.of.n - 1};
  manager_reply(of(t), t->f.a, &body, &headers);
  blob_free(&body);
}
static void do_abort(task* t) { emit("downreset", of(t)->id, 0, 0, NULL); }
static void do_log(task* t) { log_stream(of(t), t->f.a); }
static void do_sema(task* t) { plugin.sema_dec(&of(t)->req->r); }
static void do_finish(task* t) {
  uint64_t id = t->stream;
  stream** at = &t->on->streams;
  while ((*at)->id != id) at = &(*at)->next;
  stream* s = *at;
  finish(s);
  at = &t->on->streams;
  while (*at != s) at = &(*at)->next;
  *at = s->next;
  pairs_free(&s->info);
  free(s);
  emit("finished", id, 0, 0, NULL);
}

static httpConfig* known[1 << 16]; /* the filters' configurations, by the plugin's number */
enum { known_n = sizeof known / sizeof known[0] };

static void configure(frame* f, bool route) {
  httpConfig of_route = {0};
  httpConfig* c = route ? &of_route : config_new();
  c->plugin_name_ptr = (uint64_t)f->of.of[0].p;
  c->plugin_name_len = f->of.of[0].n;
  c->config_ptr = (uint64_t)f->of.of[1].p;
  c->config_len = f->of.of[1].n;
  c->is_route_config = route;
  c->concurrency = workers_n;
  uint64_t id = plugin.new_config(c);
  if (id > 0 && !route) known[id % known_n] = c;
  emit("configured", f->id, id, 0, NULL);
}

static void do_route(task* t) { configure(&t->f, true); }
static void do_merge(task* t) {
  emit("configured", t->f.id, plugin.merge_config((uint64_t)t->f.of.of[0].p, t->f.of.of[0].n, t->f.a, t->f.b), 0, NULL);
}

static const struct {
  const char* verb;
  void (*run)(task*);
  bool needs_stream;
} verbs[] = {
    {"stream", do_stream, false},         {"info", do_info, true},
    {"reqh", do_request_headers, true},   {"reqd", do_request_data, true},
    {"reqt", do_request_trailers, true},  {"resh", do_response_headers, true},
    {"resd", do_response_data, true},     {"rest", do_response_trailers, true},
    {"reply", do_reply, true},            {"finish", do_finish, true},
    {"abort", do_abort, true},            {"log", do_log, true},
    {"sema", do_sema, true},              {"lateroute", do_route, false},
    {"merge", do_merge, false},
};

static worker* worker_of[1 << 20]; /* by stream */

static bool on_some_worker(frame* f) {
  for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
    if (strcmp(verbs[i].verb, f->verb) != 0) continue;
    worker* w = &workers[0];
    if (strcmp(f->verb, "stream") == 0)
      w = worker_of[f->id % (1 << 20)] = &workers[f->a];
    else if (verbs[i].needs_stream)
      w = worker_of[f->id % (1 << 20)];
    post(w, verbs[i].needs_stream ? f->id : 0, verbs[i].run, *f);
    return true;
  }
  return false;
}

/* ---- what the test wants, on the main thread ---- */

static void on_main(frame* f) {
  if (strcmp(f->verb, "config") == 0 || strcmp(f->verb, "route") == 0) {
    configure(f, strcmp(f->verb, "route") == 0);
  } else if (strcmp(f->verb, "drop") == 0) {
    httpConfig* c = known[f->a % known_n];
    known[f->a % known_n] = NULL;
    if (c != NULL) config_gone(c); /* Envoy's own is being destroyed */
    plugin.destroy_config(f->a, f->b);
    emit("dropped", f->id, 0, 0, NULL);
  } else if (strcmp(f->verb, "metrics") == 0) {
    metrics_emit(f->id);
  } else if (strcmp(f->verb, "alive") == 0) {
    emit("alive", f->id, __atomic_load_n(&alive_requests, __ATOMIC_SEQ_CST), __atomic_load_n(&alive_configs, __ATOMIC_SEQ_CST), NULL);
  } else if (strcmp(f->verb, "cleanup") == 0) {
    plugin.clean_up();
    emit("cleaned", f->id, 0, 0, NULL);
  } else {
    violation(f->id, f->verb);
  }
  frame_free(f);
}

static void* symbol(void* library, const char* name) {
  void* found = dlsym(library, name);
  if (found == NULL) {
    fprintf(stderr, "the plugin lacks %s\n", name);
    exit(3);
  }
  return found;
}

static void load(const char* path) {
  void* library = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
  if (library == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    exit(2);
  }
  plugin.new_config = symbol(library, "envoyGoFilterNewHttpPluginConfig");
  plugin.destroy_config = symbol(library, "envoyGoFilterDestroyHttpPluginConfig");
  plugin.merge_config = symbol(library, "envoyGoFilterMergeHttpPluginConfig");
  plugin.on_header = symbol(library, "envoyGoFilterOnHttpHeader");
  plugin.on_data = symbol(library, "envoyGoFilterOnHttpData");
  plugin.on_log = symbol(library, "envoyGoFilterOnHttpLog");
  plugin.on_complete = symbol(library, "envoyGoFilterOnHttpStreamComplete");
  plugin.on_destroy = symbol(library, "envoyGoFilterOnHttpDestroy");
  plugin.sema_dec = symbol(library, "envoyGoRequestSemaDec");
  plugin.clean_up = symbol(library, "envoyGoFilterCleanUp");
}

int main(int argc, char** argv) {
  if (argc != 3 || (workers_n = atoi(argv[2])) < 1 || workers_n > max_workers) {
    fprintf(stderr, "usage: host <plugin.so> <workers>\n");
    return 1;
  }
  load(argv[1]);
  for (int i = 0; i < workers_n; i++) {
    pthread_mutex_init(&workers[i].mu, NULL);
    pthread_cond_init(&workers[i].more, NULL);
    pthread_create(&workers[i].thread, NULL, work, &workers[i]);
  }
  frame f;
  while (frame_read(&f))
    if (!on_some_worker(&f)) on_main(&f);
  for (int i = 0; i < workers_n; i++) {
    pthread_mutex_lock(&workers[i].mu);
    workers[i].stop = true;
    pthread_cond_signal(&workers[i].more);
    pthread_mutex_unlock(&workers[i].mu);
    pthread_join(workers[i].thread, NULL);
  }
  _exit(0); /* Go's threads run on */
}
