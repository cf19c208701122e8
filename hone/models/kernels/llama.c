// A whole forward of a Llama-like model in one call: any number of tokens, each with its row of the cache and its position.
// Tokens of a prompt and of many rows go through it alike, up to CHUNK at a time. They are the lanes of the vectors: what
// the layers pass on lies feature by feature, (features, lanes), so that a weight is read once and meets all tokens, and no
// vector is ever summed across. One token alone is one lane, and the vectors run along its features. Weights are read where
// they are, in fp32 or bf16, keys and values stay in the caller's cache, all arithmetic is fp32. Its twin is the model's own
// forward. `llama.py` fills the structures and knows which models fit.
#include <omp.h>

#include "exponential.h"

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t vec_bits __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t vec_half __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

typedef struct {
    const void *weight;  // (out, in)
    const float *bias;   // (out), or null
    const float *a, *b;  // a low-rank change, (rank, in) and (out, rank), or null
    int64_t out, in, rank, half;
    float scale;
} Linear;

typedef struct {
    Linear query, key, value, output, gate, up, down;
    const float *attention_norm, *mlp_norm, *query_norm, *key_norm;
    float *keys, *values;  // (rows, key heads, length, size)
    int64_t window;        // how many positions are seen; 0 is all
} Layer;

typedef struct {
    const Layer *layer;
    const float *norm, *cosine, *sine;  // the last two (positions, size)
    Linear head;                        // tied or not, never with a low-rank change
    const void *embedding;
    int64_t layers, hidden, inner, heads, key_heads, size, length, embedding_half;
    float eps, scale;
} Model;

typedef struct {
    const int64_t *token, *row, *position, *read;
    int64_t tokens, reads, threads;
} Step;

enum { CHUNK = 64, BLOCK = 12, DEPTH = 128, ROWS = 4, KEYS = 64, VECTORS = 4 };  // sizes of tiles: registers, then caches

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// How many lanes so many tokens take.
static inline int64_t lanes_of(int64_t tokens) { return tokens == 1 ? 1 : (tokens + LANES - 1) / LANES * LANES; }

static inline float widen(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float y;
    memcpy(&y, &bits, 4);
    return y;
}

static inline vec load(const void *weight, int64_t at, int half) {
    if (!half) return *(const vec *)((const float *)weight + at);
    vec_bits bits = __builtin_convertvector(*(const vec_half *)((const uint16_t *)weight + at), vec_bits) << 16;
    return (vec)bits;
}

static inline float load_one(const void *weight, int64_t at, int half) {
    return half ? widen(((const uint16_t *)weight)[at]) : ((const float *)weight)[at];
}

static inline float total(vec x) {
#ifdef __AVX512F__
    typedef float wide __attribute__((vector_size(32)));
    wide y = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
#else
    vec y = x;
#endif
    typedef float four __attribute__((vector_size(16)));
    four z = __builtin_shufflevector(y, y, 0, 1, 2, 3) + __builtin_shufflevector(y, y, 4, 5, 6, 7);
    z += __builtin_shufflevector(z, z, 2, 3, 0, 1);
    return z[0] + z[1];
}

#define INLINE static inline __attribute__((always_inline))
#ifdef __x86_64__
#define KEEP(x) __asm__("" : "+v"(x))  // else the compiler reads it again for every product, and loads are what there is least of
#else
#define KEEP(x)
#endif

// sum[i] = weight row i . x, for a few rows and one token.
INLINE void dots(int rows, int half, const void *weight, int64_t stride, const float *x, int64_t n, float *sum) {
    vec part[ROWS];
    for (int i = 0; i < rows; i++) part[i] = (vec){0};
    int64_t k = 0;
    for (; k + LANES <= n; k += LANES) {
        vec number = *(const vec *)(x + k);
        for (int i = 0; i < rows; i++) part[i] += load(weight, i * stride + k, half) * number;
    }
    for (int i = 0; i < rows; i++) {
        sum[i] = total(part[i]);
        for (int64_t rest = k; rest < n; rest++) sum[i] += load_one(weight, i * stride + rest, half) * x[rest];
    }
}

static void dot_all(int64_t rows, int half, const void *weight, int64_t stride, const float *x, int64_t n, float *sum) {
    int64_t i = 0, size = half ? 2 : 4;
#define SOME(count)                                                       \
    for (; i + count <= rows; i += count) {                               \
        const void *from = (const char *)weight + i * stride * size;      \
        if (half) dots(count, 1, from, stride, x, n, sum + i);            \
        else dots(count, 0, from, stride, x, n, sum + i);                 \
    }
    SOME(ROWS)
    SOME(1)
#undef SOME
}

// y (rows, lanes) = or += scale * weight (rows, n) x (n, lanes) for as many lanes as `vectors` hold.
INLINE void tile(int rows, int vectors, const float *weight, int64_t stride, const float *x, int64_t lanes, int64_t n, float *y, float scale, int add) {
    vec sum[BLOCK][VECTORS];
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sum[i][v] = (vec){0};
    for (int64_t k = 0; k < n; k++) {
        vec factor[BLOCK], number[VECTORS];
        int few = rows < vectors;  // of the two, what there is less of stays in registers
#pragma GCC unroll 12
        for (int i = 0; few && i < rows; i++) factor[i] = (vec){0} + weight[i * stride + k];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            number[v] = *(const vec *)(x + k * lanes + v * LANES);
            KEEP(number[v]);
#pragma GCC unroll 12
            for (int i = 0; few && i < rows; i++) sum[i][v] += factor[i] * number[v];
        }
#pragma GCC unroll 12
        for (int i = 0; !few && i < rows; i++)
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sum[i][v] += weight[i * stride + k] * number[v];
    }
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            vec *place = (vec *)(y + i * lanes + v * LANES);
            *place = add ? *place + scale * sum[i][v] : scale * sum[i][v];
        }
}

static void tiles(int64_t rows, const float *weight, int64_t stride, const float *x, int64_t lanes, int64_t n, float *y, float scale, int add) {
#define SOME(count, vectors) \
    for (; i + count <= rows; i += count) tile(count, vectors, weight + i * stride, stride, x, lanes, n, y + i * lanes, scale, add);
    for (int64_t left = lanes / LANES; left > 0; left -= VECTORS, x += VECTORS * LANES, y += VECTORS * LANES) {
        int64_t i = 0;
        switch (left) {
            case 1: SOME(12, 1) SOME(4, 1) SOME(1, 1) break;
            case 2: SOME(6, 2) SOME(2, 2) SOME(1, 2) break;
            case 3: SOME(4, 3) SOME(1, 3) break;
            default: SOME(3, 4) SOME(1, 4)
        }
    }
#undef SOME
}

// y (rows, lanes) = or += scale * weight (rows, n) x (n, lanes) for up to BLOCK rows. Halves are widened a piece at a time.
static void block(int64_t rows, int half, const void *weight, int64_t in, const float *x, int64_t lanes, float *y, float scale, int add) {
    if (lanes == 1) {
        float sum[BLOCK];
        dot_all(rows, half, weight, in, x, in, sum);
        for (int64_t i = 0; i < rows; i++) y[i] = (add ? y[i] : 0) + scale * sum[i];
        return;
    }
    for (int64_t k = 0; k < in; k += DEPTH) {
        int64_t n = least(DEPTH, in - k), stride = in;
        const float *from = (const float *)weight + k;
        float wide[BLOCK * DEPTH];
        if (half) {
            const uint16_t *narrow = (const uint16_t *)weight + k;
            for (int64_t i = 0; i < rows; i++) {
                int64_t d = 0;
                for (; d + LANES <= n; d += LANES) *(vec *)(wide + i * DEPTH + d) = load(narrow, i * in + d, 1);
                for (; d < n; d++) wide[i * DEPTH + d] = widen(narrow[i * in + d]);
            }
            from = wide, stride = DEPTH;
        } else {
            for (int64_t i = 0; i < rows; i++)  // the next block, of which no processor sees by itself that it comes
                for (int64_t d = 0; d < n; d += 16) __builtin_prefetch(from + (rows + i) * in + d, 0, 2);
        }
        tiles(rows, from, stride, x + k * lanes, lanes, n, y, scale, add || k);
    }
}

// The same for all rows and by all threads, with a bias. The same thread has the same rows whenever there are as many rows,
// and nobody waits at the end.
static void multiply(const void *weight, int64_t half, int64_t out, int64_t in, const float *x, int64_t lanes, float *y, float scale, int add,
                     const float *bias) {
#pragma omp for schedule(static) nowait
    for (int64_t o = 0; o < out; o += BLOCK) {
        int64_t rows = least(BLOCK, out - o);
        const void *from = (const char *)weight + o * in * (half ? 2 : 4);
        block(rows, (int)half, from, in, x, lanes, y + o * lanes, scale, add);
        if (!bias) continue;
        for (int64_t i = 0; i < rows; i++)
            for (int64_t t = 0; t < lanes; t++) y[(o + i) * lanes + t] += bias[o + i];
    }
}

// y = or += the layer's output, with its bias and its low-rank change. `low` has room for (rank, lanes).
static void linear(const Linear *l, const float *x, int64_t lanes, float *y, int add, float *low) {
    multiply(l->weight, l->half, l->out, l->in, x, lanes, y, 1, add, l->bias);
    if (!l->a) return;
    multiply(l->a, 0, l->rank, l->in, x, lanes, low, 1, 0, 0);
#pragma omp barrier
    multiply(l->b, 0, l->out, l->rank, low, lanes, y, l->scale, 1, 0);
#pragma omp barrier
}

static inline void norm_one(const float *x, const float *weight, int64_t n, float eps, float *y) {
    float sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    float r = 1.0f / sqrtf(sum / n + eps);
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * r * weight[i];
}

// x and y (n, lanes). Every thread does it for itself: that takes less time than to wait for another.
static void norm(const float *x, const float *weight, int64_t n, int64_t lanes, float eps, float *y) {
    if (lanes == 1) return norm_one(x, weight, n, eps, y);
    for (int64_t v = 0; v < lanes; v += LANES) {
        vec sum = {0}, r;
        for (int64_t i = 0; i < n; i++) sum += *(const vec *)(x + i * lanes + v) * *(const vec *)(x + i * lanes + v);
        for (int t = 0; t < LANES; t++) r[t] = 1.0f / sqrtf(sum[t] / n + eps);
        for (int64_t i = 0; i < n; i++) *(vec *)(y + i * lanes + v) = *(const vec *)(x + i * lanes + v) * r * weight[i];
    }
}

// One head: normalise where the model does, and turn by the position. The halves of a head are turned against each other.
static inline void turn(const Model *m, float *x, const float *weight, int64_t position) {
    int64_t half = m->size / 2;
    const float *c = m->cosine + position * m->size, *s = m->sine + position * m->size;
    if (weight) norm_one(x, weight, m->size, m->eps, x);
    for (int64_t i = 0; i < half; i++) {
        float first = x[i], second = x[i + half];
        x[i] = first * c[i] - second * s[i];
        x[i + half] = second * c[i + half] + first * s[i + half];
    }
}

// Turned keys and values of all new tokens into the cache.
static void store(const Model *m, const Layer *l, const Step *step, int64_t lanes, const float *k, const float *v) {
    int64_t size = m->size;
#pragma omp for schedule(static) collapse(2)
    for (int64_t t = 0; t < step->tokens; t++)
        for (int64_t h = 0; h < m->key_heads; h++) {
            int64_t place = ((step->row[t] * m->key_heads + h) * m->length + step->position[t]) * size, new = h * size * lanes + t;
            for (int64_t d = 0; d < size; d++) l->keys[place + d] = k[new + d * lanes], l->values[place + d] = v[new + d * lanes];
            turn(m, l->keys + place, l->key_norm, step->position[t]);
        }
}

// One query on its keys and values, a block of keys at a time with a running maximum. The result replaces the query.
static inline void attend_one(float *q, const float *keys, const float *values, int64_t first, int64_t last, int64_t size, float scale) {
    float top = -INFINITY, all = 0, out[size];
    memset(out, 0, sizeof out);
    for (int64_t start = first; start <= last; start += KEYS) {
        int64_t n = least(KEYS, last + 1 - start);
        float share[KEYS], highest = top;
        dot_all(n, 0, keys + start * size, size, q, size, share);
        for (int64_t i = 0; i < n; i++) share[i] *= scale, highest = share[i] > highest ? share[i] : highest;
        float kept = top == -INFINITY ? 0 : exp_(top - highest);
        top = highest, all *= kept;
        for (int64_t i = 0; i < n; i++) share[i] = exp_(share[i] - top), all += share[i];
        for (int64_t d = 0; d < size; d++) out[d] *= kept;
        const float *value = values + start * size;
        int64_t i = 0;
        for (; i + 4 <= n; i += 4, value += 4 * size)
            for (int64_t d = 0; d < size; d++)
                out[d] += share[i] * value[d] + share[i + 1] * value[size + d] + share[i + 2] * value[2 * size + d] +
                          share[i + 3] * value[3 * size + d];
        for (; i < n; i++, value += size)
            for (int64_t d = 0; d < size; d++) out[d] += share[i] * value[d];
    }
    for (int64_t d = 0; d < size; d++) q[d] = out[d] / all;
}

// Every query is turned and replaced by what it finds.
static void attend(const Model *m, const Layer *l, const Step *step, int64_t lanes, float *q) {
    int64_t shared = m->heads / m->key_heads, size = m->size;
#pragma omp for schedule(dynamic, 1) collapse(2)
    for (int64_t t = 0; t < step->tokens; t++)
        for (int64_t h = 0; h < m->key_heads; h++) {
            int64_t at = (step->row[t] * m->key_heads + h) * m->length * size, last = step->position[t];
            int64_t first = l->window && last >= l->window ? last - l->window + 1 : 0;
            for (int64_t g = 0; g < shared; g++) {
                float query[size], *place = q + (h * shared + g) * size * lanes + t;
                for (int64_t d = 0; d < size; d++) query[d] = place[d * lanes];
                turn(m, query, l->query_norm, last);
                attend_one(query, l->keys + at, l->values + at, first, last, size, m->scale);
                for (int64_t d = 0; d < size; d++) place[d * lanes] = query[d];
            }
        }
}

// Each thread has the rows that it multiplied, see `multiply`.
static void gated(float *gate, const float *up, int64_t inner, int64_t lanes) {
#pragma omp for schedule(static)
    for (int64_t o = 0; o < inner; o += BLOCK)
        for (int64_t i = o * lanes; i < least(o + BLOCK, inner) * lanes; i++) gate[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

static void embed(const Model *m, const Step *step, int64_t lanes, float *x) {
#pragma omp for schedule(static)
    for (int64_t d = 0; d < m->hidden; d++)
        for (int64_t t = 0; t < lanes; t++)
            x[d * lanes + t] = t < step->tokens ? load_one(m->embedding, step->token[t] * m->hidden + d, (int)m->embedding_half) : 0;
}

// Logits (reads, vocabulary) after the tokens that are read, whose places in this step are `read` - start.
static void head(const Model *m, const Step *step, int64_t start, int64_t lanes, const float *x, float *y, float *logits) {
    int64_t wide = lanes_of(step->reads), hidden = m->hidden;
    float picked[BLOCK * CHUNK];
    if (step->reads < step->tokens) {
        for (int64_t d = 0; d < hidden; d++)
            for (int64_t t = 0; t < wide; t++) y[d * wide + t] = t < step->reads ? x[d * lanes + step->read[t] - start] : 0;
        x = y;
    }
    norm(x, m->norm, hidden, wide, m->eps, y);
    const Linear *l = &m->head;
#pragma omp for schedule(static)
    for (int64_t o = 0; o < l->out; o += BLOCK) {
        int64_t rows = least(BLOCK, l->out - o);
        block(rows, (int)l->half, (const char *)l->weight + o * l->in * (l->half ? 2 : 4), l->in, y, wide, picked, 1, 0);
        for (int64_t t = 0; t < step->reads; t++)
            for (int64_t i = 0; i < rows; i++) logits[t * l->out + o + i] = picked[i * wide + t] + (l->bias ? l->bias[o + i] : 0);
    }
}

// Up to CHUNK tokens, the first of them being number `start` of the call. `mine` is the thread's own (hidden, lanes).
static void some(const Model *m, const Step *step, int64_t start, float *work, float *mine, float *logits) {
    int64_t lanes = lanes_of(step->tokens), narrow = m->key_heads * m->size * lanes;
    float *x = work, *q = x + m->hidden * lanes, *k = q + m->heads * m->size * lanes, *v = k + narrow;
    float *gate = v + narrow, *up = gate + m->inner * lanes, *low = up + m->inner * lanes;
    embed(m, step, lanes, x);
    for (const Layer *l = m->layer; l < m->layer + m->layers; l++) {
        norm(x, l->attention_norm, m->hidden, lanes, m->eps, mine);
        linear(&l->query, mine, lanes, q, 0, low);
        linear(&l->key, mine, lanes, k, 0, low);
        linear(&l->value, mine, lanes, v, 0, low);
#pragma omp barrier
        store(m, l, step, lanes, k, v);
        if (!step->reads && l == m->layer + m->layers - 1) return;
        attend(m, l, step, lanes, q);
        linear(&l->output, q, lanes, x, 1, low);
#pragma omp barrier
        norm(x, l->mlp_norm, m->hidden, lanes, m->eps, mine);
        linear(&l->gate, mine, lanes, gate, 0, low);
        linear(&l->up, mine, lanes, up, 0, low);
        gated(gate, up, m->inner, lanes);
        linear(&l->down, gate, lanes, x, 1, low);
#pragma omp barrier
    }
    head(m, step, start, lanes, x, mine, logits);
}

// Logits (reads, vocabulary) after the tokens that are read, in rising order. `work` has room for all that llama.py counts.
void llama(const Model *m, const Step *step, float *work, float *logits) {
#pragma omp parallel num_threads((int)step->threads)
    {
        float *mine = work + omp_get_thread_num() * m->hidden * CHUNK, *common = work + step->threads * m->hidden * CHUNK;
        int64_t done = 0;
        for (int64_t start = 0; start < step->tokens; start += CHUNK) {
            Step part = *step;
            part.token += start, part.row += start, part.position += start, part.read += done;
            part.tokens = least(CHUNK, step->tokens - start), part.reads = 0;
            while (done + part.reads < step->reads && part.read[part.reads] < start + part.tokens) part.reads++;
            some(m, &part, start, common, mine, logits + done * m->head.out);
            done += part.reads;
        }
    }
}
