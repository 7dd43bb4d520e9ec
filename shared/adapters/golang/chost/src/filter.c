/* The filter between the plugin and the filter manager, with its states, and as much of the filter manager as it meets. */
#include "host.h"

static void set_state(half* h, enum state to) { h->s.state = to; }
static bool decodes(const half* h) { return h->s.is_encoding == 0; }
static uint64_t id_of(const half* h) { return h->of->id; }
static bool destroyed(const half* h) { return h->of->destroyed; }

bool processing(const half* h) {
  return h->s.state == processing_header || h->s.state == processing_data || h->s.state == processing_trailer ||
         h->s.req->is_golang_processing_log;
}

/* ---- the filter manager ---- */

static void send_headers(half* h, bool end) {
  h->continued = true;
  emit(decodes(h) ? "uph" : "downh", id_of(h), end, 0, &h->headers);
}

static void send_data(half* h, const char* p, size_t n, bool end) { emit_data(decodes(h) ? "upd" : "downd", id_of(h), end, p, n); }

static void send_trailers(half* h) { emit(decodes(h) ? "upt" : "downt", id_of(h), 1, 0, &h->trailers); }

/* common_continue lets everything go on that the filter manager has. */
static void common_continue(half* h) {
  if (h->aborted || destroyed(h)) return;
  h->stopped = false;
  bool data = h->buffered.n > 0;
  if (!h->continued) send_headers(h, h->observed_end && !data && !h->trailers_here);
  if (data) {
    send_data(h, h->buffered.p, h->buffered.n, h->observed_end && !h->trailers_here);
    blob_free(&h->buffered);
  }
  if (h->trailers_here) send_trailers(h);
}

void inject(half* h, blob data, bool end) {
  if (!h->aborted && !destroyed(h)) {
    if (!h->continued) send_headers(h, false);
    send_data(h, data.p, data.n, end);
  }
  blob_free(&data);
}

void add_data(half* h, const char* p, size_t n) {
  if (h->in_trailers && !h->stopped)
    send_data(h, p, n, false);
  else
    blob_add(&h->buffered, p, n);
}

/* ---- the filter's buffers ---- */

static blob* push(half* h, blob data) {
  blob* b = malloc(sizeof *b);
  *b = data;
  h->shown = realloc(h->shown, (h->shown_n + 1) * sizeof(blob*));
  h->shown[h->shown_n++] = b;
  return b;
}

static blob move_out(half* h) {
  blob all = blob_of("", 0);
  for (int i = 0; i < h->shown_n; i++) {
    blob_add(&all, h->shown[i]->p, h->shown[i]->n);
    blob_free(h->shown[i]);
    free(h->shown[i]);
  }
  h->shown_n = 0;
  return all;
}

static void clear_latest(half* h) {
  blob* b = h->shown[--h->shown_n];
  blob_free(b);
  free(b);
}

static void buffer(half* h, blob data) {
  h->has_buffer = true;
  blob_add(&h->buffer, data.p, data.n);
  blob_free(&data);
}

static bool buffer_empty(const half* h) { return h->buffer.n == 0; }

static blob take_buffer(half* h) {
  if (!h->has_buffer) {
    violation(id_of(h), "Envoy would read a buffer that does not exist");
    return blob_of("", 0);
  }
  blob data = h->buffer.p == NULL ? blob_of("", 0) : h->buffer;
  h->buffer = (blob){0};
  return data;
}

/* ---- what the plugin says ---- */

static bool header_status(half* h, enum status status) {
  switch (status) {
  case local_reply:
  case running:
    return false;
  case go_on:
    set_state(h, h->do_end ? finished : waiting_data);
    return true;
  case stop_and_buffer:
    set_state(h, waiting_all_data);
    return false;
  case stop_and_watermark:
    set_state(h, waiting_data);
    return false;
  default:
    violation(id_of(h), "unexpected status of headers");
    return false;
  }
}

static bool data_status(half* h, enum status status) {
  bool done = false;
  if (h->do_end && (status == stop_and_buffer || status == stop_and_watermark || status == stop_no_buffer))
    violation(id_of(h), "the plugin wants more data after the end");
  switch (status) {
  case local_reply:
  case running:
    return false;
  case go_on:
    set_state(h, h->do_end ? finished : waiting_data);
    done = true;
    break;
  case stop_and_buffer:
    set_state(h, waiting_all_data);
    break;
  case stop_and_watermark:
    set_state(h, waiting_data);
    break;
  case stop_no_buffer:
    clear_latest(h);
    set_state(h, waiting_data);
    break;
  default:
    violation(id_of(h), "unexpected status of data");
  }
  if (h->has_trailers && buffer_empty(h)) set_state(h, waiting_trailer);
  return done;
}

static bool trailer_status(half* h, enum status status) {
  switch (status) {
  case local_reply:
  case running:
    return false;
  case go_on:
    set_state(h, finished);
    return true;
  default:
    violation(id_of(h), "unexpected status of trailers");
    return false;
  }
}

static bool any_status(half* h, enum status status) {
  switch (h->s.state) {
  case processing_header:
    return header_status(h, status);
  case processing_data:
    return data_status(h, status);
  case processing_trailer:
    return trailer_status(h, status);
  }
  violation(id_of(h), "Continue where nothing is processed");
  return false;
}

static void continue_data(half* h) {
  size_t n = 0;
  for (int i = 0; i < h->shown_n; i++) n += h->shown[i]->n;
  if (!h->end && n == 0) return;
  if (h->s.state == processing_trailer || h->has_trailers && h->do_end) violation(id_of(h), "data would end the stream before its trailers");
  inject(h, move_out(h), h->do_end);
}

static bool show_data(half* h, blob data, bool end) {
  set_state(h, processing_data);
  h->do_end = end;
  blob* b = push(h, data);
  return data_status(h, plugin.on_data(&h->s, end, (uint64_t)b, b->n));
}

static bool show_trailers(half* h) {
  set_state(h, processing_trailer);
  h->do_end = true;
  h->in_trailers = true;
  bool done = trailer_status(h, plugin.on_header(&h->s, 1, h->trailers.n / 2, pairs_bytes(&h->trailers)));
  h->in_trailers = false;
  return done;
}

/* ---- callbacks of the filter manager ---- */

static void init_request(stream* s) {
  if (s->req->r.configId == 0) s->req->r.configId = s->config;
}

static void take_headers(half* h, pairs* headers, bool end) {
  pairs_move(&h->headers, headers);
  h->end = h->do_end = h->observed_end = end;
  h->has_headers = true;
  if (h->s.state != waiting_header) violation(id_of(h), "headers where none are awaited");
  set_state(h, processing_header);
  init_request(h->of);
  if (header_status(h, plugin.on_header(&h->s, end, h->headers.n / 2, pairs_bytes(&h->headers)))) {
    h->has_headers = false;
    send_headers(h, end);
  } else {
    h->stopped = true;
  }
}

void decode_headers(stream* s, pairs* headers, bool end) { take_headers(&s->req->dec, headers, end); }

void encode_headers(stream* s, pairs* headers, bool end) {
  s->response_begun = true;
  take_headers(&s->req->enc, headers, end);
}

void take_data(half* h, blob data, bool end) {
  if (h->aborted) {
    blob_free(&data);
    return;
  }
  h->end = h->observed_end = end;
  bool done = false;
  switch (h->s.state) {
  case waiting_data:
    done = show_data(h, data, end);
    break;
  case waiting_all_data:
    buffer(h, data);
    if (end) done = show_data(h, take_buffer(h), end);
    break;
  case processing_header:
  case processing_data:
    buffer(h, data);
    break;
  default:
    violation(id_of(h), "data where none are awaited");
    blob_free(&data);
  }
  if (!done) {
    h->stopped = true;
    return;
  }
  blob all = move_out(h);
  if (h->continued && !h->stopped) {
    send_data(h, all.p, all.n, end);
  } else { /* the filter manager joins it with what it has */
    bool ends = end && all.n == 0 && h->buffered.n == 0 && h->continued;
    blob_add(&h->buffered, all.p, all.n);
    common_continue(h);
    if (ends) send_data(h, "", 0, true);
  }
  blob_free(&all);
}

void take_trailers(half* h, pairs* trailers) {
  if (h->aborted) return;
  pairs_move(&h->trailers, trailers);
  h->has_trailers = h->trailers_here = true;
  bool done = false;
  switch (h->s.state) {
  case waiting_trailer:
  case waiting_data:
    done = show_trailers(h);
    break;
  case waiting_all_data:
    if (!buffer_empty(h)) {
      show_data(h, take_buffer(h), false);
      if (h->s.state != waiting_trailer) break;
    }
    continue_data(h);
    done = show_trailers(h);
    break;
  case processing_header:
  case processing_data:
    break;
  default:
    violation(id_of(h), "trailers where none are awaited");
  }
  if (!done) {
    h->stopped = true;
    return;
  }
  h->has_trailers = false;
  if (h->shown_n > 0) violation(id_of(h), "data that was held is lost");
  if (h->stopped || !h->continued)
    common_continue(h);
  else
    send_trailers(h);
}

/* ---- what the plugin asks for later ---- */

static half* half_of(stream* s, long long encoding) { return encoding ? &s->req->enc : &s->req->dec; }

void later_continue(task* t) {
  stream* s = stream_of(t->on, t->stream);
  half* h = half_of(s, t->f.a);
  enum state before = h->s.state;
  if (any_status(h, t->f.b)) {
    switch (before) {
    case processing_header:
      h->has_headers = false;
      if (h->do_end || !(h->end || h->has_trailers)) common_continue(h);
      break;
    case processing_data:
      h->has_headers = false;
      continue_data(h);
      break;
    default:
      h->has_trailers = false;
      continue_data(h);
      if (!s->destroyed) common_continue(h);
    }
    if (s->destroyed) return;
  }
  if ((h->s.state == waiting_data && (!buffer_empty(h) || h->end)) ||
      (h->s.state == waiting_all_data && (h->end || h->has_trailers))) {
    if (!show_data(h, take_buffer(h), h->end)) return;
    continue_data(h);
    if (s->destroyed) return;
  }
  if (h->s.state == waiting_trailer && h->has_trailers) {
    if (!show_trailers(h)) return;
    h->has_trailers = false;
    common_continue(h);
  }
}

static void drop_data(half* h) {
  while (h->shown_n > 0) clear_latest(h);
  blob_free(&h->buffer);
}

void later_reply(task* t) {
  stream* s = stream_of(t->on, t->stream);
  half* h = half_of(s, t->f.a);
  drop_data(h);
  if (decodes(h)) set_state(h, waiting_header);
  blob body = t->f.of.of[0];
  pairs_set(&s->info, "details", 7, t->f.of.of[1].p, t->f.of.of[1].n);
  emit_data("details", s->id, 0, t->f.of.of[1].p, t->f.of.of[1].n);
  pairs headers = {0};
  for (int i = 2; i + 1 < t->f.of.n; i += 2)
    if (t->f.of.of[i + 1].n > 0) pairs_add(&headers, t->f.of.of[i].p, t->f.of.of[i].n, t->f.of.of[i + 1].p, t->f.of.of[i + 1].n);
  manager_reply(s, t->f.b, &body, &headers);
  pairs_free(&headers);
}

/* manager_reply is the filter manager's local reply: through the filters while no response has begun, past them until its headers have
 * gone, and else the end of the stream. */
void manager_reply(stream* s, long long status, const blob* body, pairs* headers) {
  half *dec = &s->req->dec, *enc = &s->req->enc;
  char text[32];
  dec->aborted = true;
  if (enc->continued) {
    enc->aborted = true;
    emit("downreset", s->id, 0, 0, NULL);
    return;
  }
  pairs all = {0};
  pairs_add(&all, ":status", 7, text, snprintf(text, sizeof text, "%lld", status));
  for (int i = 0; i + 1 < headers->n; i += 2) pairs_add(&all, headers->of[i].p, headers->of[i].n, headers->of[i + 1].p, headers->of[i + 1].n);
  if (body->n > 0) {
    pairs_set(&all, "content-length", 14, text, snprintf(text, sizeof text, "%zu", body->n));
    if (pairs_get(&all, "content-type", 12) == NULL) pairs_add(&all, "content-type", 12, "text/plain", 10);
  }
  if (!s->response_begun) {
    encode_headers(s, &all, body->n == 0);
    if (body->n > 0) take_data(enc, blob_of(body->p, body->n), true);
    return;
  }
  enc->aborted = true;
  pairs_move(&enc->headers, &all);
  send_headers(enc, body->n == 0);
  if (body->n > 0) send_data(enc, body->p, body->n, true);
}

/* ---- the end ---- */

void log_stream(stream* s, int type) {
  request* r = s->req;
  init_request(s);
  half *dec = &r->dec, *enc = &r->enc;
  dec->has_headers = dec->headers.n > 0;
  enc->has_headers = enc->headers.n > 0;
  dec->has_trailers = dec->trailers.n > 0;
  enc->has_trailers = enc->trailers.n > 0;
  r->r.is_golang_processing_log = 1;
  plugin.on_log(&r->r, type, &dec->s, &enc->s, dec->headers.n / 2, pairs_bytes(&dec->headers), dec->trailers.n / 2,
                pairs_bytes(&dec->trailers), enc->headers.n / 2, pairs_bytes(&enc->headers), enc->trailers.n / 2,
                pairs_bytes(&enc->trailers));
  r->r.is_golang_processing_log = 0;
}

static void free_half(half* h) {
  drop_data(h);
  free(h->shown);
  h->shown = NULL;
  blob_free(&h->buffered);
  pairs_free(&h->headers);
  pairs_free(&h->trailers);
}

void finish(stream* s) {
  enum { downstream_end = 6 };
  request* r = s->req;
  bool known = r->r.configId != 0;
  if (known) {
    r->r.is_golang_processing_log = 1;
    plugin.on_complete(&r->r);
    r->r.is_golang_processing_log = 0;
    log_stream(s, downstream_end);
    pthread_mutex_lock(&r->mu);
    s->destroyed = true;
    pthread_mutex_unlock(&r->mu);
    plugin.on_destroy(&r->r, processing(&r->dec) || processing(&r->enc));
  }
  pthread_mutex_lock(&r->mu);
  r->of = NULL;
  free_half(&r->dec);
  free_half(&r->enc);
  pthread_mutex_unlock(&r->mu);
  if (!known) {
    free(r);
    __atomic_sub_fetch(&alive_requests, 1, __ATOMIC_SEQ_CST);
  }
}
