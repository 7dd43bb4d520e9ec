/* Bytes, header lists and the frames that go to and come from the test. */
#include "host.h"

static pthread_mutex_t out = PTHREAD_MUTEX_INITIALIZER;

blob blob_of(const void* p, size_t n) {
  blob b = {malloc(n + 1), n};
  if (n > 0) memcpy(b.p, p, n);
  b.p[n] = 0;
  return b;
}

void blob_add(blob* to, const void* p, size_t n) {
  to->p = realloc(to->p, to->n + n + 1);
  if (n > 0) memcpy(to->p + to->n, p, n);
  to->n += n;
  to->p[to->n] = 0;
}

void blob_free(blob* b) {
  free(b->p);
  *b = (blob){0};
}

bool blob_is(const blob* b, const char* s, size_t n) { return b->n == n && memcmp(b->p, s, n) == 0; }

void pairs_add(pairs* to, const void* name, size_t name_len, const void* value, size_t value_len) {
  to->of = realloc(to->of, (to->n + 2) * sizeof(blob));
  to->of[to->n++] = blob_of(name, name_len);
  to->of[to->n++] = blob_of(value, value_len);
}

void pairs_remove(pairs* from, const char* name, size_t len) {
  int kept = 0;
  for (int i = 0; i + 1 < from->n; i += 2) {
    if (blob_is(&from->of[i], name, len)) {
      blob_free(&from->of[i]);
      blob_free(&from->of[i + 1]);
      continue;
    }
    from->of[kept++] = from->of[i];
    from->of[kept++] = from->of[i + 1];
  }
  from->n = kept;
}

void pairs_set(pairs* to, const void* name, size_t name_len, const void* value, size_t value_len) {
  pairs_remove(to, name, name_len);
  pairs_add(to, name, name_len, value, value_len);
}

const blob* pairs_get(const pairs* from, const char* name, size_t len) {
  for (int i = 0; i + 1 < from->n; i += 2)
    if (blob_is(&from->of[i], name, len)) return &from->of[i + 1];
  return NULL;
}

size_t pairs_bytes(const pairs* of) {
  size_t n = 0;
  for (int i = 0; i < of->n; i++) n += of->of[i].n;
  return n;
}

void pairs_free(pairs* of) {
  for (int i = 0; i < of->n; i++) blob_free(&of->of[i]);
  free(of->of);
  *of = (pairs){0};
}

void pairs_move(pairs* to, pairs* from) {
  pairs_free(to);
  *to = *from;
  *from = (pairs){0};
}

bool frame_read(frame* f) {
  int n;
  memset(f, 0, sizeof *f);
  if (scanf("%23s %lu %lld %lld %d", f->verb, &f->id, &f->a, &f->b, &n) != 5 || n < 0) return false;
  f->of.of = calloc(n + 1, sizeof(blob));
  f->of.n = n;
  for (int i = 0; i < n; i++)
    if (scanf("%zu", &f->of.of[i].n) != 1) return false;
  if (getchar() != '\n') return false;
  for (int i = 0; i < n; i++) {
    blob* b = &f->of.of[i];
    b->p = malloc(b->n + 1);
    b->p[b->n] = 0;
    if (fread(b->p, 1, b->n, stdin) != b->n) return false;
  }
  return true;
}

void frame_free(frame* f) { pairs_free(&f->of); }

void emit(const char* verb, uint64_t id, long long a, long long b, const pairs* of) {
  int n = of == NULL ? 0 : of->n;
  pthread_mutex_lock(&out);
  printf("%s %lu %lld %lld %d", verb, id, a, b, n);
  for (int i = 0; i < n; i++) printf(" %zu", of->of[i].n);
  putchar('\n');
  for (int i = 0; i < n; i++) fwrite(of->of[i].p, 1, of->of[i].n, stdout);
  fflush(stdout);
  pthread_mutex_unlock(&out);
}

void emit_data(const char* verb, uint64_t id, long long a, const char* p, size_t n) {
  blob one = {(char*)p, n};
  pairs of = {&one, 1};
  emit(verb, id, a, 0, &of);
}

void violation(uint64_t id, const char* what) { emit_data("violation", id, 0, what, strlen(what)); }
