/* A program that stands in for an Envoy with the contrib filter envoy.filters.http.golang. It loads a plugin and
 * drives it through the functions that the plugin exports, as the filter does. It is a fake: it was written after
 * the sources of Envoy 1.39.1 and is not Envoy. */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h" /* of Envoy's Go module */

/* bytes that were allocated */
typedef struct {
  char* p;
  size_t n;
} blob;

blob blob_of(const void* p, size_t n);
void blob_add(blob* to, const void* p, size_t n);
void blob_free(blob* b);
bool blob_is(const blob* b, const char* s, size_t n);

/* names and values in turn */
typedef struct {
  blob* of;
  int n;
} pairs;

void pairs_add(pairs* to, const void* name, size_t name_len, const void* value, size_t value_len);
void pairs_remove(pairs* from, const char* name, size_t len);
void pairs_set(pairs* to, const void* name, size_t name_len, const void* value, size_t value_len);
const blob* pairs_get(const pairs* from, const char* name, size_t len);
size_t pairs_bytes(const pairs* of);
void pairs_move(pairs* to, pairs* from);
void pairs_free(pairs* of);

/* A frame is a line, "verb id a b n len len ...", and n pieces of bytes of these lengths. */
typedef struct {
  char verb[24];
  uint64_t id;
  long long a, b;
  pairs of;
} frame;

bool frame_read(frame* f);
void frame_free(frame* f);
void emit(const char* verb, uint64_t id, long long a, long long b, const pairs* of);
void emit_data(const char* verb, uint64_t id, long long a, const char* p, size_t n);
void violation(uint64_t id, const char* what);

/* What the plugin exports. */
extern struct plugin {
  uint64_t (*new_config)(httpConfig*);
  void (*destroy_config)(uint64_t id, long long delay);
  uint64_t (*merge_config)(uint64_t name, uint64_t name_len, uint64_t parent, uint64_t child);
  uint64_t (*on_header)(processState*, uint64_t end, uint64_t number, uint64_t bytes);
  uint64_t (*on_data)(processState*, uint64_t end, uint64_t buffer, uint64_t length);
  void (*on_log)(httpRequest*, uint64_t type, processState*, processState*, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                 uint64_t, uint64_t, uint64_t);
  void (*on_complete)(httpRequest*);
  void (*on_destroy)(httpRequest*, uint64_t reason);
  void (*sema_dec)(httpRequest*);
  void (*clean_up)(void);
} plugin;

/* A worker thread of Envoy, which does one task after the other. */
typedef struct task task;
typedef struct worker worker;
struct task {
  task* next;
  void (*run)(task*);
  uint64_t stream; /* the task is dropped if it is gone; 0: it is of none */
  worker* on;
  frame f;
};
struct worker {
  pthread_t thread;
  pthread_mutex_t mu;
  pthread_cond_t more;
  task *first, *last;
  struct stream* streams;
  bool stop;
};

void post(worker* w, uint64_t stream, void (*run)(task*), frame f);

/* What Envoy's filter goes through, by its numbers. */
enum state { waiting_header, processing_header, waiting_data, waiting_all_data, processing_data, waiting_trailer, processing_trailer, finished };
enum status { running, local_reply, go_on, stop_and_buffer, stop_and_watermark, stop_no_buffer };

/* One direction of an exchange: the filter's state, and below it what the filter manager has. */
typedef struct half {
  processState s; /* first: the plugin hands its address back */
  struct stream* of;
  pairs headers, trailers;
  bool has_headers, has_trailers; /* the plugin may look at them */
  blob** shown;                   /* chunks that the plugin has been shown and that have not gone on */
  int shown_n;
  blob buffer; /* what came while the plugin worked */
  bool has_buffer, end, do_end;

  /* the filter manager's */
  bool continued, observed_end, trailers_here, stopped, in_trailers, aborted;
  blob buffered;
} half;

typedef struct request {
  httpRequest r; /* first */
  half dec, enc;
  pthread_mutex_t mu;
  struct stream* of; /* NULL when it is destroyed */
  blob value;        /* what was told last */
} request;

typedef struct stream {
  struct stream* next;
  uint64_t id, config;
  worker* on;
  request* req;
  pairs info;  /* what StreamInfo says, by name */
  bool destroyed, response_begun;
} stream;

extern int alive_requests, alive_configs;
stream* stream_of(worker* w, uint64_t id);
bool on_worker(const stream* s);

/* filter.c */
void decode_headers(stream*, pairs*, bool end);
void encode_headers(stream*, pairs*, bool end);
void take_data(half*, blob data, bool end);
void take_trailers(half*, pairs*);
void manager_reply(stream*, long long status, const blob* body, pairs* headers);
void later_continue(task*);
void later_reply(task*);
void finish(stream*);
bool processing(const half*);
void add_data(half*, const char* p, size_t n);
void inject(half*, blob data, bool end);
void log_stream(stream*, int type);
