/* What the plugin calls: as the filter checks and does it. */
#include "host.h"

typedef struct {
  const char* p;
  ptrdiff_t n;
} go_string;

static pthread_mutex_t metrics_mu = PTHREAD_MUTEX_INITIALIZER;
enum { metrics_n = 1 << 16 };
static pairs metric_names; /* the values are in metric_values */
static int64_t metric_values[metrics_n];
static int metric_users[metrics_n]; /* configurations that have defined it: without any, Envoy forgets its value */

typedef struct config {
  httpConfig c; /* first */
  bool gone;
  bool defined[metrics_n];
} config;

/* enter finds the filter of a half, and locks it. */
static CAPIStatus enter(void* s, half** h) {
  *h = s;
  request* r = (request*)(*h)->s.req;
  if (!processing(*h)) return CAPINotInGo;
  pthread_mutex_lock(&r->mu);
  CAPIStatus status = r->of == NULL ? CAPIFilterIsGone : r->of->destroyed ? CAPIFilterIsDestroy : CAPIOK;
  if (status != CAPIOK) pthread_mutex_unlock(&r->mu);
  return status;
}

static CAPIStatus leave(half* h) {
  pthread_mutex_unlock(&((request*)h->s.req)->mu);
  return CAPIOK;
}

static CAPIStatus enter_request(void* p, request** r) {
  *r = p;
  pthread_mutex_lock(&(*r)->mu);
  CAPIStatus status = (*r)->of == NULL                                          ? CAPIFilterIsGone
                      : !processing(&(*r)->dec) && !processing(&(*r)->enc) ? CAPINotInGo
                      : (*r)->of->destroyed                                     ? CAPIFilterIsDestroy
                                                                                : CAPIOK;
  if (status != CAPIOK) pthread_mutex_unlock(&(*r)->mu);
  return status;
}

static CAPIStatus leave_request(request* r, CAPIStatus status) {
  pthread_mutex_unlock(&r->mu);
  return status;
}

static frame a_frame(long long a, long long b) { return (frame){.a = a, .b = b}; }

static void frame_add(frame* f, const void* p, size_t n) {
  f->of.of = realloc(f->of.of, (f->of.n + 1) * sizeof(blob));
  f->of.of[f->of.n++] = blob_of(p, n);
}

#define ENTER(s)                        \
  half* h;                              \
  CAPIStatus entered = enter(s, &h);    \
  if (entered != CAPIOK) return entered;

CAPIStatus envoyGoFilterHttpContinue(void* s, int status) {
  ENTER(s)
  post(h->of->on, h->of->id, later_continue, a_frame(h->s.is_encoding, status));
  return leave(h);
}

CAPIStatus envoyGoFilterHttpSendLocalReply(void* s, int code, void* body, int body_len, void* headers, int headers_n,
                                           long long int grpc, void* details, int details_len) {
  ENTER(s)
  (void)grpc;
  frame f = a_frame(h->s.is_encoding, code);
  frame_add(&f, body, body_len);
  frame_add(&f, details, details_len);
  go_string* strings = headers;
  for (int i = 0; i < headers_n; i++) frame_add(&f, strings[i].p, strings[i].n);
  post(h->of->on, h->of->id, later_reply, f);
  return leave(h);
}

CAPIStatus envoyGoFilterHttpSendPanicReply(void* s, void* details, int details_len) {
  const char* body = "error happened in filter\r\n";
  emit_data("panic", ((half*)s)->of->id, 0, details, details_len);
  return envoyGoFilterHttpSendLocalReply(s, 500, (void*)body, strlen(body), NULL, 0, 0, "", 0);
}

static void later_add(task* t) {
  stream* s = stream_of(t->on, t->stream);
  add_data(t->f.a ? &s->req->enc : &s->req->dec, t->f.of.of[0].p, t->f.of.of[0].n);
}

CAPIStatus envoyGoFilterHttpAddData(void* s, void* data, int len, bool streaming) {
  ENTER(s)
  (void)streaming;
  if (h->s.state == processing_data) {
    leave(h);
    return CAPIInvalidPhase;
  }
  if (on_worker(h->of)) {
    leave(h);
    add_data(h, data, len);
    return CAPIOK;
  }
  frame f = a_frame(h->s.is_encoding, 0);
  frame_add(&f, data, len);
  post(h->of->on, h->of->id, later_add, f);
  leave(h);
  return CAPIYield;
}

static void later_inject(task* t) {
  stream* s = stream_of(t->on, t->stream);
  inject(t->f.a ? &s->req->enc : &s->req->dec, blob_of(t->f.of.of[0].p, t->f.of.of[0].n), false);
}

CAPIStatus envoyGoFilterHttpInjectData(void* s, void* data, int len) {
  ENTER(s)
  CAPIStatus status = h->s.state != processing_data ? CAPIInvalidPhase : on_worker(h->of) ? CAPIInvalidScene : CAPIOK;
  if (status == CAPIOK) {
    frame f = a_frame(h->s.is_encoding, 0);
    frame_add(&f, data, len);
    post(h->of->on, h->of->id, later_inject, f);
  }
  leave(h);
  return status;
}

static CAPIStatus copy(void* s, bool trailers, go_string* strings, char* to) {
  ENTER(s)
  pairs* from = trailers ? &h->trailers : &h->headers;
  if (trailers ? !h->has_trailers : !h->has_headers) {
    leave(h);
    return CAPIInvalidPhase;
  }
  for (int i = 0; i < from->n; i++) {
    strings[i].n = from->of[i].n;
    if (from->of[i].n == 0) continue;
    strings[i].p = to;
    memcpy(to, from->of[i].p, from->of[i].n);
    to += from->of[i].n;
  }
  return leave(h);
}

CAPIStatus envoyGoFilterHttpCopyHeaders(void* s, void* strings, void* to) { return copy(s, false, strings, to); }
CAPIStatus envoyGoFilterHttpCopyTrailers(void* s, void* strings, void* to) { return copy(s, true, strings, to); }

CAPIStatus envoyGoFilterHttpGetHeader(void* s, void* key, int key_len, uint64_t* value, int* value_len) {
  ENTER(s)
  const blob* found = pairs_get(&h->headers, key, key_len);
  if (found != NULL) {
    *value = (uint64_t)found->p;
    *value_len = found->n;
  }
  return leave(h);
}

enum edit { edit_set, edit_add, edit_remove };

static void edit_pairs(pairs* of, enum edit what, const blob* name, const blob* value) {
  switch (what) {
  case edit_set:
    pairs_set(of, name->p, name->n, value->p, value->n);
    break;
  case edit_add:
    pairs_add(of, name->p, name->n, value->p, value->n);
    break;
  default:
    pairs_remove(of, name->p, name->n);
  }
}

static void later_edit(task* t) {
  stream* s = stream_of(t->on, t->stream);
  half* h = t->f.a & 1 ? &s->req->enc : &s->req->dec;
  edit_pairs(t->f.a & 2 ? &h->trailers : &h->headers, t->f.b, &t->f.of.of[0], &t->f.of.of[1]);
}

static CAPIStatus edit(void* s, bool trailers, enum edit what, void* key, int key_len, void* value, int value_len) {
  ENTER(s)
  if (trailers ? !h->has_trailers : !h->has_headers) {
    leave(h);
    return CAPIInvalidPhase;
  }
  frame f = a_frame(h->s.is_encoding | (trailers ? 2 : 0), what);
  frame_add(&f, key, key_len);
  frame_add(&f, value, value_len);
  if (on_worker(h->of)) {
    edit_pairs(trailers ? &h->trailers : &h->headers, what, &f.of.of[0], &f.of.of[1]);
    frame_free(&f);
  } else {
    post(h->of->on, h->of->id, later_edit, f);
  }
  return leave(h);
}

static enum edit edit_of(headerAction act) { return act == HeaderAdd ? edit_add : edit_set; }

CAPIStatus envoyGoFilterHttpSetHeaderHelper(void* s, void* key, int key_len, void* value, int value_len, headerAction act) {
  return edit(s, false, edit_of(act), key, key_len, value, value_len);
}
CAPIStatus envoyGoFilterHttpRemoveHeader(void* s, void* key, int key_len) { return edit(s, false, edit_remove, key, key_len, "", 0); }
CAPIStatus envoyGoFilterHttpSetTrailer(void* s, void* key, int key_len, void* value, int value_len, headerAction act) {
  return edit(s, true, edit_of(act), key, key_len, value, value_len);
}
CAPIStatus envoyGoFilterHttpRemoveTrailer(void* s, void* key, int key_len) { return edit(s, true, edit_remove, key, key_len, "", 0); }

static bool is_shown(half* h, const blob* b) {
  for (int i = 0; i < h->shown_n; i++)
    if (h->shown[i] == b) return true;
  return false;
}

#define ENTER_BUFFER(s, p)      \
  ENTER(s)                      \
  blob* b = (blob*)(p);         \
  if (!is_shown(h, b)) {        \
    leave(h);                   \
    return CAPIInvalidPhase;    \
  }

CAPIStatus envoyGoFilterHttpGetBuffer(void* s, uint64_t buffer, void* to) {
  ENTER_BUFFER(s, buffer)
  memcpy(to, b->p, b->n);
  return leave(h);
}

CAPIStatus envoyGoFilterHttpDrainBuffer(void* s, uint64_t buffer, uint64_t n) {
  ENTER_BUFFER(s, buffer)
  if (n > b->n) n = b->n;
  b->n -= n;
  memmove(b->p, b->p + n, b->n + 1);
  return leave(h);
}

CAPIStatus envoyGoFilterHttpSetBufferHelper(void* s, uint64_t buffer, void* data, int len, bufferAction action) {
  ENTER_BUFFER(s, buffer)
  blob old = *b;
  *b = action == Append ? blob_of(old.p, old.n) : blob_of(data, len);
  if (action == Append) blob_add(b, data, len);
  if (action == Prepend) blob_add(b, old.p, old.n);
  blob_free(&old);
  return leave(h);
}

CAPIStatus envoyGoFilterHttpSetUpstreamOverrideHost(void* s, void* host, int len, bool strict) {
  ENTER(s)
  emit_data("override", h->of->id, strict, host, len);
  return leave(h);
}

/* ---- of the exchange ---- */

#define ENTER_REQUEST(p)                         \
  request* r;                                    \
  CAPIStatus entered = enter_request(p, &r);     \
  if (entered != CAPIOK) return entered;

CAPIStatus envoyGoFilterHttpClearRouteCache(void* p, bool refresh) {
  ENTER_REQUEST(p)
  emit("route", r->of->id, refresh, 0, NULL);
  return leave_request(r, CAPIOK);
}

/* tell tells a value that the test has said of the exchange, by its name. */
static CAPIStatus tell(request* r, const char* name, size_t name_len, uint64_t* value, int* value_len) {
  const blob* found = pairs_get(&r->of->info, name, name_len);
  if (found == NULL) return CAPIValueNotFound;
  blob_free(&r->value);
  r->value = blob_of(found->p, found->n);
  *value = (uint64_t)r->value.p;
  *value_len = r->value.n;
  return CAPIOK;
}

static const char* names[] = {[1] = "route", [4] = "code", [5] = "details", [6] = "attempts", [7] = "local", [8] = "client",
                              [9] = "from",  [10] = "served", [11] = "cluster", [12] = "virtual"};
enum { names_n = sizeof names / sizeof names[0] };

CAPIStatus envoyGoFilterHttpGetStringValue(void* p, int id, uint64_t* value, int* value_len) {
  ENTER_REQUEST(p)
  if (id <= 0 || id >= names_n || names[id] == NULL) return leave_request(r, CAPIValueNotFound);
  return leave_request(r, tell(r, names[id], strlen(names[id]), value, value_len));
}

CAPIStatus envoyGoFilterHttpGetIntegerValue(void* p, int id, uint64_t* value) {
  ENTER_REQUEST(p)
  uint64_t text = 0;
  int len = 0;
  CAPIStatus status = CAPIValueNotFound;
  if (id > 0 && id < names_n && names[id] != NULL) status = tell(r, names[id], strlen(names[id]), &text, &len);
  if (status == CAPIOK) *value = strtoull((char*)text, NULL, 10);
  return leave_request(r, status);
}

/* ask answers now on the worker's thread, and else lets the worker answer. */
typedef struct {
  uint64_t* value;
  int *value_len, *rc;
} place;

static void later_ask(task* t) {
  stream* s = stream_of(t->on, t->stream);
  place* to = (place*)t->f.of.of[1].p;
  CAPIStatus status = tell(s->req, t->f.of.of[0].p, t->f.of.of[0].n, to->value, to->value_len);
  if (to->rc != NULL) *to->rc = status;
  plugin.sema_dec(&s->req->r);
}

static CAPIStatus ask(void* p, const char* kind, void* key, int key_len, uint64_t* value, int* value_len, int* rc) {
  ENTER_REQUEST(p)
  blob name = blob_of(kind, strlen(kind));
  blob_add(&name, key, key_len);
  CAPIStatus status;
  if (on_worker(r->of)) {
    status = tell(r, name.p, name.n, value, value_len);
    if (rc == NULL && status == CAPIValueNotFound) status = CAPIOK;
  } else {
    place to = {value, value_len, rc};
    frame f = a_frame(0, 0);
    frame_add(&f, name.p, name.n);
    frame_add(&f, &to, sizeof to);
    post(r->of->on, r->of->id, later_ask, f);
    status = CAPIYield;
  }
  blob_free(&name);
  return leave_request(r, status);
}

CAPIStatus envoyGoFilterHttpGetDynamicMetadata(void* p, void* name, int name_len, uint64_t* value, int* value_len) {
  return ask(p, "metadata:", name, name_len, value, value_len, NULL);
}
CAPIStatus envoyGoFilterHttpGetStringFilterState(void* p, void* key, int key_len, uint64_t* value, int* value_len) {
  return ask(p, "state:", key, key_len, value, value_len, NULL);
}
CAPIStatus envoyGoFilterHttpGetStringProperty(void* p, void* key, int key_len, uint64_t* value, int* value_len, int* rc) {
  return ask(p, "property:", key, key_len, value, value_len, rc);
}
CAPIStatus envoyGoFilterHttpGetStringSecret(void* p, void* key, int key_len, uint64_t* value, int* value_len) {
  *value_len = -1;
  return ask(p, "secret:", key, key_len, value, value_len, NULL);
}

static void later_keep(task* t) {
  stream* s = stream_of(t->on, t->stream);
  pairs_set(&s->info, t->f.of.of[0].p, t->f.of.of[0].n, t->f.of.of[1].p, t->f.of.of[1].n);
}

CAPIStatus envoyGoFilterHttpSetStringFilterState(void* p, void* key, int key_len, void* value, int value_len, int type, int span, int sharing) {
  ENTER_REQUEST(p)
  (void)type, (void)span, (void)sharing;
  blob name = blob_of("state:", 6);
  blob_add(&name, key, key_len);
  frame f = a_frame(0, 0);
  frame_add(&f, name.p, name.n);
  frame_add(&f, value, value_len);
  blob_free(&name);
  emit("state", r->of->id, 0, 0, &f.of);
  if (on_worker(r->of)) {
    pairs_set(&r->of->info, f.of.of[0].p, f.of.of[0].n, value, value_len);
    frame_free(&f);
  } else {
    post(r->of->on, r->of->id, later_keep, f);
  }
  return leave_request(r, CAPIOK);
}

CAPIStatus envoyGoFilterHttpSetDynamicMetadata(void* p, void* name, int name_len, void* key, int key_len, void* value, int value_len) {
  ENTER_REQUEST(p)
  frame f = a_frame(0, 0);
  frame_add(&f, name, name_len);
  frame_add(&f, key, key_len);
  frame_add(&f, value, value_len);
  emit("meta", r->of->id, 0, 0, &f.of);
  frame_free(&f);
  return leave_request(r, CAPIOK);
}

CAPIStatus envoyGoFilterHttpSetDrainConnectionUponCompletion(void* p) {
  ENTER_REQUEST(p)
  return leave_request(r, CAPIOK);
}

void envoyGoFilterHttpFinalize(void* p, int reason) {
  request* r = p;
  (void)reason;
  pthread_mutex_lock(&r->mu);
  if (r->of != NULL) violation(r->of->id, "a request is finalized that is not over");
  pthread_mutex_unlock(&r->mu);
  blob_free(&r->value);
  free(r);
  __atomic_sub_fetch(&alive_requests, 1, __ATOMIC_SEQ_CST);
}

/* ---- of nothing in particular ---- */

void envoyGoFilterLog(uint32_t level, void* message, int len) { emit_data("log", 0, level, message, len); }
uint32_t envoyGoFilterLogLevel() { return 2; /* info */ }

/* ---- of a configuration ---- */

httpConfig* config_new(void) {
  __atomic_add_fetch(&alive_configs, 1, __ATOMIC_SEQ_CST);
  return calloc(1, sizeof(config));
}

void config_gone(httpConfig* p) {
  config* c = (config*)p;
  pthread_mutex_lock(&metrics_mu);
  __atomic_store_n(&c->gone, true, __ATOMIC_SEQ_CST);
  for (int i = 0; i < metrics_n; i++)
    if (c->defined[i] && --metric_users[i] == 0) metric_values[i] = 0;
  pthread_mutex_unlock(&metrics_mu);
}

void envoyGoConfigHttpFinalize(void* c) {
  free(c);
  __atomic_sub_fetch(&alive_configs, 1, __ATOMIC_SEQ_CST);
}

static bool is_gone(void* c) { return __atomic_load_n(&((config*)c)->gone, __ATOMIC_SEQ_CST); }

CAPIStatus envoyGoFilterHttpDefineMetric(void* c, uint32_t type, void* name, int len, uint32_t* id) {
  if (is_gone(c)) return CAPIFilterIsGone;
  (void)type;
  pthread_mutex_lock(&metrics_mu);
  int i = 0;
  while (i < metric_names.n && !blob_is(&metric_names.of[i], name, len)) i += 2;
  if (i == metric_names.n) pairs_add(&metric_names, name, len, "", 0);
  *id = i / 2;
  if (!((config*)c)->defined[*id]) {
    ((config*)c)->defined[*id] = true;
    metric_users[*id]++;
  }
  pthread_mutex_unlock(&metrics_mu);
  return CAPIOK;
}

static CAPIStatus sample(void* c, uint32_t id, int64_t by, bool set, uint64_t* value) {
  if (is_gone(c)) return CAPIFilterIsGone;
  pthread_mutex_lock(&metrics_mu);
  metric_values[id] = set ? by : metric_values[id] + by;
  if (metric_values[id] < 0) violation(0, "a metric below 0");
  if (value != NULL) *value = metric_values[id];
  pthread_mutex_unlock(&metrics_mu);
  return CAPIOK;
}

CAPIStatus envoyGoFilterHttpIncrementMetric(void* c, uint32_t id, int64_t by) { return sample(c, id, by, false, NULL); }
CAPIStatus envoyGoFilterHttpGetMetric(void* c, uint32_t id, uint64_t* value) { return sample(c, id, 0, false, value); }
CAPIStatus envoyGoFilterHttpRecordMetric(void* c, uint32_t id, uint64_t value) { return sample(c, id, value, true, NULL); }

void metrics_emit(uint64_t id) {
  pairs all = {0};
  char text[32];
  pthread_mutex_lock(&metrics_mu);
  for (int i = 0; i < metric_names.n; i += 2)
    pairs_add(&all, metric_names.of[i].p, metric_names.of[i].n, text, snprintf(text, sizeof text, "%ld", metric_values[i / 2]));
  pthread_mutex_unlock(&metrics_mu);
  emit("metrics", id, 0, 0, &all);
  pairs_free(&all);
}
